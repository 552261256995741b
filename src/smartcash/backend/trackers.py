"""Trackers: callbacks that pass a run's figures on to TensorBoard, MLflow or Weights & Biases.

Each logs the configuration as hyperparameters when everything is built, scalars at steps ("train/…", "lr",
"images_per_s") and epochs ("epoch/…"), and the end. A resumed run goes on in the same tracker run. What may be secret
stays here: notification targets and the options of callbacks. Options that all have:

    every_steps    log each n-th step; without it, at most two steps a second
    checkpoints    also log where each checkpoint lies; the file itself stays there
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smartcash.domain import events
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, Problem

LEAST_INTERVAL_S = 0.5
KILLED = ("stopped", "preempted")  # endings after which a tracker's run is no success
LONGEST_PARAM = 500  # characters; MLflow refuses longer ones

Value = str | int | float | bool


class Run:
    """What every tracker keeps of one run: where it lies, how far it is, when the last step was logged."""

    def __init__(self, every_steps: int | None) -> None:
        self.every_steps = every_steps
        self.id, self.folder, self.step = "", Path(), 0
        self._logged_at = -math.inf

    def started(self, event: events.RunStarted) -> None:
        self.id, self.folder = event.run, Path(event.folder)

    def config(self) -> TrainConfig:
        """The resolved configuration, once everything is built."""
        return TrainConfig.from_yaml(self.folder / "config.yaml")

    def due(self, event: events.StepEnded) -> bool:
        """Count a step; whether to log it."""
        self.step, now = event.step_in_run, time.monotonic()
        if self.every_steps is not None:
            return self.step % self.every_steps == 0
        if now - self._logged_at < LEAST_INTERVAL_S:
            return False
        self._logged_at = now
        return True


def of_step(event: events.StepEnded) -> dict[str, float]:
    """A step's scalars by name."""
    losses = {f"train/{name}": value for name, value in event.losses.items()}
    return {**losses, "lr": event.lr, "images_per_s": event.images_per_s}


def of_epoch(event: events.EpochEnded) -> dict[str, float]:
    """An epoch's scalars by name."""
    return {f"epoch/{name}": value for name, value in event.row.items() if value is not None}


def of_end(event: events.RunFinished) -> dict[str, float]:
    """The final figures: the best epoch and the test."""
    figures = {f"test/{name}": value for name, value in event.test.items() if type(value) in (int, float)}
    if event.best_value is not None:
        figures |= {"best/epoch": event.best_epoch, f"best/{event.monitor}": event.best_value}
    return figures


def hyperparameters(config: TrainConfig) -> dict[str, Value]:
    """The configuration, flat by dotted names, without what may be secret."""
    plain = config.model_dump(mode="json", exclude={"notify": True, "training": {"callbacks"}})
    plain["training"]["callbacks"] = [entry.use for entry in config.training.callbacks]
    return dict(_flat(plain, ""))


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str | int | float) else str(value)


def _needs(module: str, extra: str, package: str) -> None:
    """Raises ConfigInvalid when a tracker's package is missing; the field is filled in by whoever knows it."""
    if find_spec(module) is None:
        raise ConfigInvalid([Problem("", "extra_missing", extra, {"package": package, "extra": extra})])


class TensorBoard:
    """Event files in `folder`, by default tensorboard/ in the run folder: `tensorboard --logdir runs`."""

    def __init__(
        self, folder: str | None = None, every_steps: int | None = None, checkpoints: bool = False
    ) -> None:
        _needs("tensorboard", "tensorboard", "tensorboard")
        self.folder, self.checkpoints, self.run = folder, checkpoints, Run(every_steps)
        self._writer: Any = None
        self._resumed = False

    def on_run_start(self, event: events.RunStarted) -> None:
        self.run.started(event)

    def on_ready(self, event: events.RunReady) -> None:
        from torch.utils.tensorboard.summary import hparams

        experiment, session, _ = hparams(hyperparameters(self.run.config()), {"best": 0.0})
        writer = self._open().file_writer
        writer.add_summary(experiment)
        writer.add_summary(session)

    def on_step_end(self, event: events.StepEnded) -> None:
        if self.run.due(event):
            self._log(of_step(event))

    def on_epoch_end(self, event: events.EpochEnded) -> None:
        self._log(of_epoch(event))
        self._open().flush()

    def on_checkpoint_saved(self, event: events.CheckpointSaved) -> None:
        if self.checkpoints:
            self._open().add_text("checkpoint", event.path, event.step)

    def on_run_end(self, event: events.RunFinished) -> None:
        from torch.utils.tensorboard.summary import hparams

        self._log(of_end(event))
        self._open().file_writer.add_summary(hparams({}, {})[2])
        self._close(event.reason)

    def on_run_failed(self, event: events.RunFailed) -> None:
        if self._writer is not None:
            self._close(f"failed: {event.message}")

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.run.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.run.step, self._resumed = state["step"], True
        if self._writer is not None:  # the training went back: what was logged since counts no more
            self._writer.close()
            self._writer = None

    def _open(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            folder = Path(self.folder) / self.run.id if self.folder else self.run.folder / "tensorboard"
            purge = self.run.step + 1 if self._resumed else None
            self._writer = SummaryWriter(str(folder), purge_step=purge)
        return self._writer

    def _log(self, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._open().add_scalar(name, value, self.run.step)

    def _close(self, state: str) -> None:
        self._open().add_text("state", state, self.run.step)
        self._writer.close()
        self._writer = None


class MLflow:
    """A run of the experiment `experiment` at `uri`: a server, or by default the file mlflow.db beside the runs (or
    what MLFLOW_TRACKING_URI names)."""

    def __init__(
        self,
        uri: str | None = None,
        experiment: str = "smartcash",
        every_steps: int | None = None,
        checkpoints: bool = False,
    ) -> None:
        _needs("mlflow", "mlflow", "mlflow-skinny")
        self.uri, self.experiment, self.checkpoints = uri, experiment, checkpoints
        self.run, self._run_id, self._client = Run(every_steps), "", None

    def on_run_start(self, event: events.RunStarted) -> None:
        self.run.started(event)

    def on_ready(self, event: events.RunReady) -> None:
        import mlflow

        home = self.run.folder.parents[1]
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each table of a new file
        logging.getLogger("alembic").setLevel(logging.WARNING)
        uri = self.uri
        if uri is None:
            own = mlflow.environment_variables.MLFLOW_TRACKING_URI.get()
            uri = own or f"sqlite:///{(home / 'mlflow.db').absolute()}"
        self._client = client = mlflow.MlflowClient(tracking_uri=uri)
        if self._run_id:
            client.update_run(self._run_id, status="RUNNING")
            return
        known = client.get_experiment_by_name(self.experiment)
        artifacts = (home / "mlflow").absolute().as_uri() if uri.startswith("sqlite:") else None
        number = (
            known.experiment_id
            if known
            else client.create_experiment(self.experiment, artifact_location=artifacts)
        )
        config = self.run.config()
        created = client.create_run(number, run_name=config.name or self.run.id)
        self._run_id = created.info.run_id
        for name, value in {"smartcash.run": self.run.id, "smartcash.folder": str(self.run.folder)}.items():
            client.set_tag(self._run_id, name, value)
        for name, value in hyperparameters(config).items():
            client.log_param(self._run_id, name, str(value)[:LONGEST_PARAM])

    def on_step_end(self, event: events.StepEnded) -> None:
        if self.run.due(event):
            self._log(of_step(event))

    def on_epoch_end(self, event: events.EpochEnded) -> None:
        self._log(of_epoch(event))

    def on_checkpoint_saved(self, event: events.CheckpointSaved) -> None:
        if self.checkpoints and self._client is not None:
            self._client.set_tag(self._run_id, "checkpoint.latest", event.path)
            if event.is_best:
                self._client.set_tag(self._run_id, "checkpoint.best", event.path)

    def on_run_end(self, event: events.RunFinished) -> None:
        self._log(of_end(event))
        self._end("KILLED" if event.reason in KILLED else "FINISHED", event.reason)

    def on_run_failed(self, event: events.RunFailed) -> None:
        if self._client is not None:
            self._end("FAILED", f"failed: {event.message}")

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self._run_id, "step": self.run.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._run_id, self.run.step = state["run_id"], state["step"]

    def _log(self, scalars: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        metrics = [Metric(name, float(value), now, self.run.step) for name, value in scalars.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def _end(self, status: str, state: str) -> None:
        self._client.set_tag(self._run_id, "smartcash.state", state[:LONGEST_PARAM])
        self._client.set_terminated(self._run_id, status)


class WeightsAndBiases:
    """A run of `project` (and `entity`) at Weights & Biases. `mode`: online, offline or disabled; without it, what
    WANDB_MODE says, else online. Its files lie in wandb/ in the run folder."""

    def __init__(
        self,
        project: str = "smartcash",
        entity: str | None = None,
        mode: str | None = None,
        every_steps: int | None = None,
        checkpoints: bool = False,
    ) -> None:
        _needs("wandb", "wandb", "wandb")
        self.project, self.entity, self.mode, self.checkpoints = project, entity, mode, checkpoints
        self.run, self._run_id, self._wandb = Run(every_steps), "", None

    def on_run_start(self, event: events.RunStarted) -> None:
        self.run.started(event)

    def on_ready(self, event: events.RunReady) -> None:
        import wandb

        config = self.run.config()
        self._run_id = self._run_id or self.run.id
        self._wandb = wandb.init(
            project=self.project, entity=self.entity, mode=self.mode, id=self._run_id, resume="allow",
            name=config.name or self.run.id, tags=list(config.tags), notes=config.notes or None,
            config=hyperparameters(config), dir=str(self.run.folder),
            settings=wandb.Settings(console="off", silent=True),  # the terminal is the training's own
        )  # fmt: skip
        # an axis of its own: wandb's would refuse the steps that a resumed run does once more
        self._wandb.define_metric("step")
        self._wandb.define_metric("*", step_metric="step")

    def on_step_end(self, event: events.StepEnded) -> None:
        if self.run.due(event):
            self._log(of_step(event))

    def on_epoch_end(self, event: events.EpochEnded) -> None:
        self._log(of_epoch(event))

    def on_checkpoint_saved(self, event: events.CheckpointSaved) -> None:
        if self.checkpoints and self._wandb is not None:
            self._wandb.summary["checkpoint/latest"] = event.path
            if event.is_best:
                self._wandb.summary["checkpoint/best"] = event.path

    def on_run_end(self, event: events.RunFinished) -> None:
        self._wandb.summary.update({**of_end(event), "state": event.reason})
        self._wandb.finish(exit_code=1 if event.reason in KILLED else 0)

    def on_run_failed(self, event: events.RunFailed) -> None:
        if self._wandb is not None:
            self._wandb.summary["state"] = f"failed: {event.message}"
            self._wandb.finish(exit_code=1)

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self._run_id, "step": self.run.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._run_id, self.run.step = state["run_id"], state["step"]

    def _log(self, scalars: Mapping[str, float]) -> None:
        self._wandb.log({**scalars, "step": self.run.step})
