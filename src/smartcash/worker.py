"""The composition root: reads a run folder, builds every part, trains. Nothing else knows all layers."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from smartcash import __version__
from smartcash.backend.augment import Augment, resolve_parts
from smartcash.backend.backbones import resolve_name, weights_at_hand
from smartcash.backend.builder import Built, build, choose_device, choose_dtype, choose_image_size
from smartcash.backend.callbacks import Callbacks
from smartcash.backend.data import CACHE_FACTOR, Pictures
from smartcash.backend.distributed import World, joined_world, started_by_torchrun
from smartcash.backend.drawing import contact_sheet, draw_boxes
from smartcash.backend.exporters import (
    FORMATS,
    Evidence,
    Exported,
    export,
    model_run,
    open_export,
    pace_of,
    suppression_of,
    verify,
)
from smartcash.backend.forecast import Pace, measure
from smartcash.backend.formats import DataSet, Sample, read_dataset, verify_images
from smartcash.backend.images import read_image, write_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.previews import Previews
from smartcash.backend.report import write_report
from smartcash.backend.samples import SIZE_RANGE_PX, write_samples
from smartcash.backend.trainer import (
    JUDGED,
    Outcome,
    Progress,
    at_epoch_start,
    fit,
    peak_memory_mb,
    restore,
)
from smartcash.backend.watchdogs import Watchdogs
from smartcash.domain.changes import FIXED_BY_WEIGHTS, changes_between
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import (
    CheckpointError,
    CheckpointWriteFailed,
    ConfigInvalid,
    DataInvalid,
    ExportFailed,
    ExportRefused,
    Gathered,
    OperationLogFailed,
    Problem,
    RunNotResumable,
    SmartCashError,
    VersionRefused,
)
from smartcash.domain.events import (
    Commanded,
    DataFound,
    EpochEnded,
    Event,
    RunChecked,
    RunFailed,
    RunFinished,
    RunReady,
    RunResumed,
    RunStarted,
    StepEnded,
    Warned,
)
from smartcash.domain.exports import ExportRecord, ExportRequest, Proof
from smartcash.domain.ports import Command, Control, EventSink
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.exports import Exports
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.control import ControlFile, Interrupted, Signals, listen_to_signals
from smartcash.services.event_log import EventLog, finite
from smartcash.services.notifications import Notice, notify, target_problems
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder, find_run, home
from smartcash.services.workers import heartbeat
from smartcash.utils.files import sha256_of
from smartcash.utils.logger import get_logger, log_to
from smartcash.utils.machine import available_cores, free_memory

STEP_INTERVAL_S = 0.5
# how many pictures an export is proved and, for int8, calibrated with
PROOF_PICTURES, CALIBRATION_PICTURES, DRAWN_PICTURES = 200, 128, 48
STATES = {"finished": "finished", "early_stopped": "finished", "preempted": "preempted"}  # else stopped
LOGGED = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "hotcoco")


def _nobody(event: Event) -> None:
    """Hears nothing."""


def train(
    config: TrainConfig,
    base: Path,
    listen: EventSink = _nobody,
    *,
    signals: Signals | None = None,
) -> tuple[RunFolder, Outcome]:
    """Run one training in this process, in a new folder below `base`; `listen` hears every event.

    Raises SmartCashError; whatever happens, the folder says how the run ended. `signals`: what already listens
    to Ctrl-C and SIGTERM; by default this listens itself. Interrupted: one came before the training began."""
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        world = stack.enter_context(joined_world())
        if not config.data.path:
            raise ConfigInvalid([Problem("data.path", "data_path_missing", "")])
        callbacks = _load_callbacks(config, world)
        data = load_data(config)
        config = config.model_copy(update={"task": data.task})
        run = None
        if world.leads:
            facts = {**environment(), **facts_of(data), "config_hash": config.hash()}
            run = RunFolder.create(base, config, facts)
        run = RunFolder(world.from_leader(run.path if run else base))
        return run, _Session(run, config, data, listen, signals, world, callbacks).train(None)


def resume(
    run: RunFolder,
    listen: EventSink = _nobody,
    *,
    config: TrainConfig | None = None,
    signals: Signals | None = None,
    commands: Control | None = None,
) -> Outcome:
    """Go on with a run from its newest checkpoint, as if it had never stopped: on the same machine, to the same
    bits. `config`: a changed configuration, which takes the place of the run's own. `commands`: what brings the
    run's commands (default: its control file, from now on).

    Raises RunNotResumable for a run that is finished, runs, or whose weights do not fit; else as `train`."""
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        world = stack.enter_context(joined_world())
        facts = run.description()
        if facts.get("state") == "finished":
            raise RunNotResumable("run_finished", run=run.id)
        own = run.config()
        config = config or own
        fixed = [change.field for change in changes_between(own, config) if change.field in FIXED_BY_WEIGHTS]
        if fixed:
            raise RunNotResumable("run_weights_fixed", run=run.id, fields=", ".join(fixed))
        callbacks = _load_callbacks(config, world)
        data = load_data(config)
        recorded = facts.get("data", {})
        if recorded.get("classes") not in (None, list(data.classes)):
            raise RunNotResumable("run_classes_differ", run=run.id, classes=", ".join(recorded["classes"]))
        same_data = recorded.get("content_hash") in (None, data.content_hash)
        if not same_data and config.data.path == own.data.path:
            raise RunNotResumable("run_data_differ", run=run.id, path=config.data.path)
        session = _Session(run, config, data, listen, signals, world, callbacks, commands)
        parent = facts.get("parent")
        if parent and not parent.get("copied") and world.leads:
            _copy_from_parent(run, RunFolder(Path(parent["path"])))
        world.gather(None)
        if not same_data and world.leads:
            run.describe(facts_of(data))
        return session.train(session.newest())


def check(run: RunFolder, *, measured: bool, signals: Signals | None = None) -> list[Problem]:
    """Prepare a run: see `_Session.check`. Raises nothing for what is wrong with configuration or data."""
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        stack.enter_context(heartbeat(run))
        config, found = run.config(), Gathered()
        data, callbacks = None, Callbacks()
        with found:
            callbacks = _load_callbacks(config, World())
        with found:
            data = load_data(config)
        if data is None:  # what needs no data is looked at all the same
            with found:
                choose_device(config.runtime.device)
            with found:
                resolve_name(config.model.backbone)
            run.describe(_checked(found.problems(), {}))
            return found.problems()
        config = config.model_copy(update={"task": data.task})
        session = _Session(run, config, data, _nobody, signals, World(), callbacks)
        return session.check(found, measured=measured)


def extend(
    parent: RunFolder,
    epochs: int,
    policy: str = "rescale",
    listen: EventSink = _nobody,
    *,
    signals: Signals | None = None,
) -> tuple[RunFolder, Outcome]:
    """Train an ended run on to `epochs` epochs in all, as a child run beside it that names its parent.

    `policy`: the course of the learning rate, see `schedule.extension`. Raises RunNotResumable, ConfigInvalid."""
    own, facts = parent.config(), parent.description()
    done = facts.get("epochs_done", 0)
    if facts.get("state") != "finished":
        raise RunNotResumable("run_not_finished", run=parent.id, state=str(facts.get("state")))
    if epochs <= done:
        raise ConfigInvalid([Problem("training.epochs", "extend_too_few", epochs, {"done": done})])
    config = own.replaced(training={"epochs": epochs}, schedule={"extension": policy, "extended_from": done})
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        kept = {name: facts[name] for name in ("data",) if name in facts}
        origin = {"id": parent.id, "path": str(parent.path.absolute()), "epoch": done}
        described = {**environment(), **kept, "config_hash": config.hash(), "parent": origin}
        if started_by_torchrun():
            raise RunNotResumable("extend_alone", run=parent.id)
        child = RunFolder.create(parent.path.parent.parent, config, described)
        return child, resume(child, listen, signals=signals)


def _copy_from_parent(run: RunFolder, parent: RunFolder) -> None:
    """Give a child run its parent's best and latest checkpoints: it stands on its own from then on."""
    with CheckpointManager(output_dir=str(parent.weights), logger=get_logger("checkpoint")) as manager:
        found = [manager.find_best_checkpoint(), manager.find_latest_checkpoint()]
        wanted = [path for path in found if path is not None]
        if not wanted:
            raise RunNotResumable("run_without_checkpoint", run=parent.id, folder=str(parent.weights))
        manager.copy_to_drive(run.weights, paths=wanted)
    run.describe({"parent": {**run.description()["parent"], "copied": True}})


def _load_callbacks(config: TrainConfig, world: World) -> Callbacks:
    """Whoever is to be told of a training: of its steps now, of its end by `notify.targets`, which are looked at here
    too, before data are read or a folder is made. Raises ConfigInvalid with every problem."""
    if not world.leads:
        return Callbacks()
    problems = target_problems(config.notify.targets)
    try:
        callbacks = Callbacks.load(config.training.callbacks)
    except ConfigInvalid as error:
        raise ConfigInvalid([*error.problems, *problems]) from error
    if problems:
        raise ConfigInvalid(problems)
    return callbacks


class _Session:
    """One process's time with one run: from its claim on the folder to the state it leaves there."""

    def __init__(
        self,
        run: RunFolder,
        config: TrainConfig,
        data: DataSet,
        listen: EventSink,
        signals: Signals,
        world: World,
        callbacks: Callbacks,
        commands: Control | None = None,
    ) -> None:
        self.commands = commands or ControlFile(run.control)  # before anyone is told that it runs
        self.run, self.config, self.data, self.world = run, config, data, world
        self.listen, self.signals, self.callbacks = listen, signals, callbacks

    def newest(self) -> Mapping[str, Any] | None:
        """The state of the run's newest whole checkpoint; None when it was stopped before its first."""
        if not any(self.run.weights.glob("*.pth")):
            return None
        manager = CheckpointManager(output_dir=str(self.run.weights), logger=get_logger("checkpoint"))
        return manager.load_checkpoint(which="latest")

    def check(self, found: Gathered, *, measured: bool) -> list[Problem]:
        """Build everything and look at the data without training: the run becomes ready with a forecast, or failed
        with the problems, those `found` before among them. `measured`: a few steps are timed for the forecast, so
        the device must be free."""
        run, started = self.run, time.monotonic()
        with run.claimed(), EventLog(run.events) as log, log_to(run.path / "train.log"):
            built = None
            forecast: dict[str, Any] = {}
            with found:
                built = build(self.config, self.data)
            if built is not None:
                with found:
                    self._previews(built)
                run.describe({**facts_of(self.data), "choices": built.choices})
            if built is not None and measured and not found.errors:
                device = built.parts.precision.device
                forecast = measure(built, time.monotonic() - started, lambda: peak_memory_mb(device))
            problems = found.problems() or shortages(run, forecast)
            ending = _checked(problems, forecast)
            log.append(RunChecked(ending["problems"], forecast))
            run.describe(ending)
        return problems

    def _previews(self, built: Built) -> Previews | None:
        wanted = built.config.training.previews
        if not self.world.leads or not (wanted.count or wanted.images):
            return None
        parts = built.parts
        return Previews(
            self.run.path / "previews", built.valid, built.classes, parts.preprocess, parts.precision, wanted
        )

    def train(self, state: Mapping[str, Any] | None) -> Outcome:
        """Build, then train from `state` (None: from the start); the run folder says how it ended."""
        if not self.world.leads:
            return self._fit(lambda event: None, state)
        run, started = self.run, time.monotonic()
        with run.claimed(), heartbeat(run), EventLog(run.events) as log, log_to(run.path / "train.log"):
            self.journal = _Journal(run, log, self.listen)
            emit = self._emitter(self.journal)
            begun = {"started": _now(), "pid": os.getpid(), "host": platform.node(), "command": sys.argv}
            attempts = [*run.description().get("attempts", []), begun]
            try:
                here = {"worker": identity(os.getpid()), "attempts": attempts}
                run.describe({"state": "running", "error": None, "ended": None, **here})
                outcome = self._fit(emit, state)
            except BaseException as error:
                # the one place that looks at every error: to record it, then to raise it again
                ending = self._failure(error, emit)
                raise
            else:
                ending = {"state": STATES.get(outcome.reason, "stopped"), "reason": outcome.reason}
                ending |= results_of(outcome)
            finally:
                begun |= {"ended": _now(), "state": ending["state"], "resources": resources()}
                run.describe({**ending, **_ended(started), "attempts": attempts})
                if ending["state"] == "finished":
                    self._register(emit)
                for warning in notify(self.config.notify.targets, self._notice(ending)):
                    self.journal(warning)
        return outcome

    def _notice(self, ending: Mapping[str, Any]) -> Notice:
        reason = ending["error"] if ending["state"] == "failed" else ending["reason"]
        metrics = ending.get("test") or ending.get("valid") or {}
        return Notice(
            self.run.id,
            self.config.name,
            ending["state"],
            reason,
            str(self.run.path.absolute()),
            finite(metrics),
        )

    def _register(self, emit: EventSink) -> None:
        """The best checkpoint becomes a model version. What hinders that is a warning: the run is finished, and
        `smartcash models add` makes good for it."""
        try:
            ModelVersions(self.run.path.parent.parent).register_run(self.run)
        except (CheckpointError, RunNotResumable, VersionRefused, OperationLogFailed) as error:
            emit(Warned("version_failed", {"run": self.run.id, "reason": str(error)}))

    def _failure(self, error: BaseException, emit: EventSink) -> dict[str, Any]:
        if isinstance(error, Interrupted):
            return {"state": error.reason, "reason": error.reason}
        message = str(error) if isinstance(error, SmartCashError) else f"{type(error).__name__}: {error}"
        emit(RunFailed(type(error).__name__, message, traceback.format_exc()))
        return {"state": "failed", "error": message}

    def _emitter(self, journal: EventSink) -> EventSink:
        def emit(event: Event) -> None:
            if isinstance(event, RunFinished) and self.callbacks.failure is not None:
                raise self.callbacks.failure  # a training that a callback ended has failed, not finished
            journal(event)
            for warning in self.callbacks(event):
                journal(warning)

        return emit

    def _fit(self, emit: EventSink, state: Mapping[str, Any] | None) -> Outcome:
        run, config, data, world = self.run, self.config, self.data, self.world
        if world.leads:
            plain = config.model_dump(mode="json")
            emit(RunStarted(run.id, str(run.path.absolute()), plain, resumed=state is not None))
            for code, count in data.report.counts().items():
                example = next(finding for finding in data.report.findings if finding.code == code)
                emit(DataFound(code, example.severity, count, example.where))
        built = build(config, data, world)
        previews = self._previews(built)
        progress = None
        if state is not None:
            progress = restore(built, state, self.callbacks)
            if state.get("steps_per_epoch") != built.train.steps:
                progress = at_epoch_start(progress, built.train.steps)
        if world.leads:
            self._describe(built, emit, state, progress)
        training = built.config.training
        manager = CheckpointManager(
            output_dir=str(run.weights), logger=get_logger("checkpoint"),
            monitor=training.monitor, mode=training.mode,
        )  # fmt: skip

        def control() -> list[Command]:
            heard = [*self.signals(), *self.callbacks.commands()]
            return [*heard, *self.commands()] if world.leads else heard

        self.signals.immediate = False
        with manager:
            store = RetainingStore(manager, built.config, emit) if world.leads else ReadingStore(manager)
            outcome = fit(
                built, store, emit, control, progress,
                callbacks=self.callbacks, previews=previews, watchdogs=Watchdogs(run.path),
                forecast=forecast_of(run),
            )  # fmt: skip
        if outcome.best is not None and outcome.reason in JUDGED and world.leads:
            write_report(run.path / "report", built, outcome)
        return outcome

    def _describe(
        self, built: Built, emit: EventSink, state: Mapping[str, Any] | None, progress: Progress | None
    ) -> None:
        run, data = self.run, self.data
        run.write_config(built.config)
        parameters = sum(p.numel() for p in built.parts.model.parameters())
        images = {split: len(samples) for split, samples in data.splits.items()}
        run.describe(
            {"choices": built.choices, "parameters": parameters, "resolved_hash": built.config.hash()}
        )
        emit(
            RunReady(
                run.id, data.task, built.config.model.backbone, data.classes, images,
                built.config.training.epochs, built.train.steps, parameters, built.choices,
            )
        )  # fmt: skip
        if state is not None and progress is not None:
            self.journal.rows = list(progress.rows)
            emit(RunResumed(progress.epoch + 1, progress.step, str(state["path"])))


def _checked(problems: list[Problem], forecast: dict[str, Any]) -> dict[str, Any]:
    """What a run records of its check: ready, or failed and why."""
    plain = [asdict(problem) | {"message": problem.message()} for problem in problems]
    facts = {"problems": plain, "forecast": forecast}
    if not problems:
        return {"state": "ready", "error": None, **facts}
    error = "\n".join(f"{problem['field']}: {problem['message']}" for problem in plain)
    return {"state": "failed", "reason": "check", "error": error, **facts}


def shortages(run: RunFolder, forecast: Mapping[str, Any]) -> list[Problem]:
    """What this machine has too little of for a run with this forecast (none, when nothing was measured)."""
    if not forecast:
        return []
    found = []
    free_mb = psutil.disk_usage(str(run.path)).free / 2**20
    if free_mb < forecast["disk_mb"]:
        facts = {"free": round(free_mb), "needed": round(forecast["disk_mb"]), "folder": str(run.path)}
        found.append(Problem("checkpoint.keep_epochs", "disk_short", facts=facts))
    # what this process holds now, the training will hold instead
    room_mb = (free_memory() + psutil.Process().memory_info().rss) / 2**20
    if room_mb < forecast["memory_mb"]:
        batch_size = int(forecast["batch_size"])
        facts = {
            "needed": forecast["memory_mb"],
            "free": round(room_mb),
            "fitting": max(1, batch_size // 2),
        }
        found.append(Problem("data.batch_size", "memory_short", batch_size, facts))
    return found


def forecast_of(run: RunFolder) -> Pace | None:
    """The pace that a check of this run has measured."""
    pace = (run.description().get("forecast") or {}).get("pace")
    return Pace(**pace) if pace else None


class _Journal:
    """Writes what happens into the run folder and passes it on: all events but most of the steps, a row per
    epoch, and commands that change the configuration."""

    def __init__(self, run: RunFolder, log: EventLog, listen: EventSink) -> None:
        self.run, self.log, self.listen = run, log, listen
        self.rows: list[dict[str, float | None]] = []
        self._last_step_s = 0.0

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepEnded) or self._due(event):
            self.log.append(event)
        match event:
            case EpochEnded(epoch=epoch, row=row):
                self.rows = [known for known in self.rows if (known["epoch"] or 0) < epoch] + [row]
                self.run.write_epochs(self.rows)
            case Commanded(name="epochs" | "patience" as name, value=value):
                part = {"epochs": value} if name == "epochs" else {"early_stopping": {"patience": value}}
                self.run.write_config(self.run.config().replaced(training=part))
            case Commanded(name="pause" | "continue" | "stop" | "preempt" | "keep_best" as name):
                self.run.describe({"state": {"pause": "paused", "continue": "running"}.get(name, "stopping")})
        self.listen(event)

    def _due(self, event: StepEnded) -> bool:
        now = time.monotonic()
        if now - self._last_step_s < STEP_INTERVAL_S and event.step < event.steps:
            return False
        self._last_step_s = now
        return True


class RetainingStore:
    """A CheckpointManager that deletes old epochs as the configuration says, before each save: by then the
    one before is on the disk, so that training never waits for a write. Every `backup_every` epochs the best goes
    to `backup_dir`; a copy that fails is a warning, not the end of the training."""

    def __init__(self, manager: CheckpointManager, config: TrainConfig, emit: EventSink) -> None:
        self.manager, self.rule, self.emit = manager, config.checkpoint, emit
        self._backed_up = 0

    def save_checkpoint(self, *parts: Any, **named: Any) -> Mapping[str, Any]:
        self._clean_up()
        epoch: int = parts[4]
        if self.rule.backup_dir and epoch >= self._backed_up + self.rule.backup_every:
            self._back_up(epoch)
        return self.manager.save_checkpoint(*parts, **named)

    def load_checkpoint(self, *, which: str | int = "best") -> dict[str, Any]:
        return self.manager.load_checkpoint(which=which)

    def wait(self) -> None:
        self.manager.wait()
        self._clean_up()
        if self.rule.backup_dir:
            self._back_up(self._backed_up)

    def _back_up(self, epoch: int) -> None:
        self._backed_up = epoch
        try:
            self.manager.copy_to_drive(self.rule.backup_dir)
        except CheckpointWriteFailed as error:
            self.emit(Warned("backup_failed", {"folder": self.rule.backup_dir, "reason": str(error)}))

    def _clean_up(self) -> None:
        keep = self.rule.keep_epochs
        self.manager.cleanup_checkpoints(
            max_checkpoints=keep, keep_best=False, keep_latest=True, max_epochs=keep
        )


class ReadingStore:
    """The store of a process that does not lead: it reads what the leader writes."""

    def __init__(self, manager: CheckpointManager) -> None:
        self.manager = manager

    def save_checkpoint(self, *parts: Any, **named: Any) -> Mapping[str, Any]:
        return {"path": ""}

    def load_checkpoint(self, *, which: str | int = "best") -> dict[str, Any]:
        return self.manager.load_checkpoint(which=which)

    def wait(self) -> None:
        return None


def load_data(config: TrainConfig) -> DataSet:
    """The data set of a configuration, every picture decoded once so that none fails in epoch 7."""
    task = None if config.task == "auto" else config.task
    data = read_dataset(
        config.data.path, task=task, format=config.data.format, seed=config.seed, strict=config.data.strict
    )
    data = verify_images(data)
    if config.data.strict and (problems := data.report.problems("error", "warning")):
        raise DataInvalid("data_strict", problems, path=config.data.path)
    return data


def environment() -> dict[str, Any]:
    """Where and with what a run happened."""
    return {
        "smartcash": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in LOGGED},
        "git": git_revision(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "command": sys.argv,
        "pid": os.getpid(),
        "started": _now(),
    }


def torch_facts() -> dict[str, Any]:
    """What a training would compute with on this machine, as plain values; for `smartcash doctor`."""
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    return {
        "torch": torch.__version__,
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "weights": weights_at_hand(),
    }


def resources() -> dict[str, float]:
    """What this process has used so far."""
    times = psutil.Process().cpu_times()
    facts = {"cpu_s": round(times.user + times.system, 1)}
    facts["peak_memory_mb"] = round(peak_memory_mb(torch.device("cpu")), 1)
    if torch.cuda.is_available():
        facts["peak_gpu_memory_mb"] = round(peak_memory_mb(torch.device("cuda")), 1)
    return facts


def git_revision() -> str | None:
    """The revision of the checkout this code runs from, "+changes" if it was edited; None for an installed one."""
    folder = Path(__file__).parent
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def facts_of(data: DataSet) -> dict[str, Any]:
    """What a run records of its data."""
    return {
        "data": {
            "path": str(data.root),
            "format": data.format,
            "task": data.task,
            "classes": list(data.classes),
            "images": {split: len(samples) for split, samples in data.splits.items()},
            "content_hash": data.content_hash,
            "split_seed": data.split_seed,
            "findings": data.report.counts(),
        }
    }


def results_of(outcome: Outcome) -> dict[str, Any]:
    """What a run records of its results."""
    return {
        "epochs_done": outcome.progress.epoch,
        "best_epoch": outcome.progress.best_epoch,
        "best_value": outcome.progress.best_value,
        "valid": outcome.best.scalars() if outcome.best else {},
        "test": outcome.test.scalars() if outcome.test else {},
    }


def _ended(started: float) -> dict[str, Any]:
    return {
        "ended": _now(),
        "elapsed_s": round(time.monotonic() - started, 1),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def load_state(name: str) -> tuple[Mapping[str, Any], Path]:
    """The content of the checkpoint at a path, of a version ("v3") or alias, or of the best one of a run (its folder,
    id or "latest").

    Raises VersionNotFound, RunNotFound or a CheckpointError."""
    path, versions = Path(name), ModelVersions()
    if not path.is_file() and versions.store.knows(name):
        path = versions.store.model_file(versions.find(name))
    if path.is_file():
        manager = CheckpointManager(output_dir=str(path.parent), logger=get_logger("checkpoint"))
        return manager.load_checkpoint(checkpoint_path=str(path)), path
    weights = find_run(name).weights
    manager = CheckpointManager(output_dir=str(weights), logger=get_logger("checkpoint"))
    state = manager.load_checkpoint(which="best")
    return state, Path(str(state["path"]))


def open_model(name: str, device: str = "auto") -> tuple[Predictor, Path]:
    """The model that `load_state` finds, and where. Raises as it does."""
    state, path = load_state(name)
    return Predictor.from_state(state, device=device), path


def load(name: str, device: str = "auto") -> Predictor:
    """A model ready to look at pictures: `smartcash.load("produksi").predict("photo.jpg")`. `name` and errors as
    those of `open_model`."""
    return open_model(name, device)[0]


def evaluate_model(
    name: str, data_path: str, split: str, *, seed: int = 0, device: str = "auto"
) -> dict[str, Any]:
    """All figures of a model on one split of a data set, as plain values.

    Classes are matched by name. Raises DataInvalid when the split or a class is missing."""
    predictor, path = open_model(name, device)
    data = verify_images(read_dataset(data_path, task=predictor.task, seed=seed))
    if split not in data.splits:
        raise DataInvalid("split_missing", path=data_path, split=split, splits=", ".join(data.splits))
    unknown = [label for label in data.classes if label not in predictor.classes]
    if unknown:
        raise DataInvalid("classes_differ", unknown=", ".join(unknown), known=", ".join(predictor.classes))
    order = np.array([predictor.classes.index(label) for label in data.classes])
    samples = [replace(sample, labels_N=order[sample.labels_N]) for sample in data.splits[split]]
    result = predictor.evaluate(samples)
    return {
        "model": str(path),
        "data": str(data.root),
        "split": split,
        "task": predictor.task,
        **result.to_dict(),
    }


def predict_files(
    name: str, paths: list[Path], drawn: Path | None, *, threshold: float | None = None, device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """What a model says of each picture, as plain values; drawn pictures go into the folder `drawn`.

    A picture that cannot be read gives {"file", "error"}; the others go on."""
    predictor, _ = open_model(name, device)
    if drawn is not None:
        drawn.mkdir(parents=True, exist_ok=True)
    for path in paths:
        try:
            image = _picture(path)
        except DataInvalid as error:
            yield {"file": str(path), "error": str(error)}
            continue
        outcome = predictor(image, threshold)
        facts = {"file": str(path), **predictor.describe(outcome)}
        if drawn is not None and predictor.task == "detect":
            target = free_name(drawn, path)
            write_image(
                target,
                draw_boxes(image, outcome.boxes_N4, outcome.labels_N, outcome.scores_N, predictor.classes),
            )
            facts["drawn"] = str(target)
        yield facts


def count_files(
    name: str, paths: list[Path], *, abstain: float | None = None, device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """What money a model counts in each picture, as plain values: see `Predictor.count`.

    A picture that cannot be read gives {"file", "error"}; the others go on."""
    predictor, _ = open_model(name, device)
    for path in paths:
        try:
            image = _picture(path)
        except DataInvalid as error:
            yield {"file": str(path), "error": str(error)}
            continue
        yield {"file": str(path), **predictor.count(image, abstain)}


def _picture(path: Path) -> np.ndarray:
    """The picture at `path`. Raises DataInvalid, also where there is no such file or it may not be read."""
    try:
        return read_image(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataInvalid("picture_unreadable", path=str(path), reason=reason) from error


def free_name(folder: Path, source: Path) -> Path:
    """A name for `source`'s drawing in `folder` that no file has yet."""
    target, number = folder / f"{source.stem}.jpg", 1
    while target.exists():
        number += 1
        target = folder / f"{source.stem}-{number}.jpg"
    return target


def preview_data(config: TrainConfig, out: Path, count: int = 24) -> Path:
    """A contact sheet of augmented training samples with their boxes, as the first epoch would see them."""
    data = load_data(config)
    parts = resolve_parts(config.augment, data.task)
    size = choose_image_size(data) if config.data.image_size == "auto" else config.data.image_size
    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), config.data.resize)
    pictures = Pictures(data.splits["train"], round(size * CACHE_FACTOR), keep=False)
    augment = Augment(parts, preprocess, config.seed)
    sheet, captions = [], []
    for index in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int).tolist():
        image, boxes, labels = augment(0, index, pictures.fetch, len(pictures))
        if data.task == "detect":
            image = draw_boxes(image, boxes, labels, None, data.classes)
        sheet.append(image)
        captions.append(
            pictures.samples[index].path.name if data.task == "detect" else data.classes[labels[0]]
        )
    write_image(out, contact_sheet(sheet, columns=6, captions=captions))
    return out


@dataclass(frozen=True)
class ExportSource:
    """What is exported: the model in fp32 on the CPU, its checkpoint, and where exports of it go."""

    predictor: Predictor
    checkpoint: Path
    config: TrainConfig
    lineage: dict[str, Any]
    exports: Exports

    @classmethod
    def open(cls, name: str, interface: str) -> ExportSource:
        """The checkpoint at a path, or the best one of a run. Raises as `load_state`."""
        state, path = load_state(name)
        predictor = Predictor.from_state(state, device="cpu", precision="fp32")
        config = TrainConfig.parse(state["config"])
        folder = path.absolute().parent
        run = RunFolder(folder.parent) if (folder.parent / "run.json").is_file() else None
        with path.open("rb") as file:
            sha256 = sha256_of(file)
        lineage = {
            "model": {**config.model.model_dump(mode="json"), "pretrained": False},
            "lineage": {
                "run": run.id if run else "", "checkpoint": path.name, "checkpoint_sha256": sha256,
                "epoch": state.get("epoch"), "config_hash": config.hash(),
                "data": (run.description().get("data") or {}).get("content_hash", "") if run else "",
                "git": git_revision(),
            },
        }  # fmt: skip
        exports = (
            Exports(run.path / "exports", run.path.parent.parent, run.id, interface)
            if run
            else Exports(folder / "exports", home(), "", interface)
        )
        return cls(predictor, path, config, lineage, exports)


def export_model(
    name: str, requests: Sequence[ExportRequest], out: Path | None = None, *, interface: str = "python"
) -> Iterator[ExportRecord | ExportRefused]:
    """Write the model of a run or checkpoint in each of the forms asked for, prove each file, and record it.

    A form that cannot be had gives its ExportRefused, and the others go on; what broke off or did not pass the
    gate gives a record with the state "failed". Files go to `<run>/exports`, or to `out` (one request only).
    Raises RunNotFound, a CheckpointError, or ExportRefused for an `out` with another suffix."""
    if out is not None:
        (request,) = requests
        if out.suffix != FORMATS[request.format].suffix:
            facts = {"format": request.format, "suffix": FORMATS[request.format].suffix}
            raise ExportRefused("export_suffix", path=str(out), **facts)
    source = ExportSource.open(name, interface)
    needed = any(request.precision == "int8" for request in requests)
    with gathered(source.config, source.predictor, calibration=needed) as (evidence, calibration):
        for request in requests:
            form = FORMATS[request.format]
            size = request.image_size or source.predictor.preprocess.image_size
            target = out or source.exports.folder / export_name(source.config, request, size, form.suffix)
            pictures = calibration if request.precision == "int8" else None
            began = time.monotonic()
            try:
                made = export(form, source.predictor, request, source.lineage, evidence, pictures, target)
            except ExportRefused as refused:
                yield refused
                continue
            except ExportFailed as error:
                seconds = round(time.monotonic() - began, 1)
                made = Exported(target, Proof("failed", error.code), "", 0, size, seconds, _now())
                record = record_of(source, request, made, str(error))
            else:
                record = record_of(source, request, made)
            source.exports.add(record)
            yield record


def record_of(source: ExportSource, request: ExportRequest, made: Exported, error: str = "") -> ExportRecord:
    """What is kept of one export."""
    inside = made.path.parent == source.exports.folder
    return ExportRecord(
        file=made.path.name if inside else str(made.path.absolute()), format=request.format,
        precision=request.precision, nms=request.nms, batch=request.batch, image_size=made.image_size,
        state=made.proof.state, sha256=made.sha256, size_bytes=made.size_bytes,
        checkpoint=source.checkpoint.name, checkpoint_sha256=source.lineage["lineage"]["checkpoint_sha256"],
        created=made.created, seconds=made.seconds, proof=made.proof.to_dict(), error=error,
    )  # fmt: skip


def export_name(config: TrainConfig, request: ExportRequest, image_size: int, suffix: str) -> str:
    """`efficientnet_lite0-320-fp16-nms-b4.onnx`: what sets it apart from the usual form is in the name."""
    special = [request.precision] if request.precision != "fp32" else []
    special += ["nms"] if request.nms else []
    special += [f"b{request.batch}"] if request.batch else []
    return "-".join([re.sub(r"[^\w.]+", "_", config.model.backbone), str(image_size), *special]) + suffix


@contextmanager
def gathered(
    config: TrainConfig, predictor: Predictor, *, calibration: bool
) -> Iterator[tuple[Evidence, Evidence | None]]:
    """Pictures for the gate, and for int8: of the run's own data set where it can be read and has the same classes,
    else drawn ones (kind "drawn")."""
    longest = 2 * predictor.preprocess.image_size

    def evidence(kind: str, samples: Sequence[Sample], count: int, labelled: bool) -> Evidence:
        spread = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int).tolist()
        return Evidence(kind, Pictures([samples[row] for row in spread], longest, keep=False), labelled)

    task = predictor.task
    try:
        data = read_dataset(config.data.path, task=task, format=config.data.format, seed=config.seed)
    except DataInvalid:
        data = None
    if data is not None and data.classes == predictor.classes:
        own = evidence("validation", data.splits["valid"], PROOF_PICTURES, True)
        yield (
            own,
            evidence("train", data.splits["train"], CALIBRATION_PICTURES, True) if calibration else None,
        )
        return
    with tempfile.TemporaryDirectory(prefix="smartcash-") as folder:
        path = Path(folder) / "drawn"
        size = max(SIZE_RANGE_PX[0], predictor.preprocess.image_size)
        write_samples(path, images=DRAWN_PICTURES, task=task, size_px=size)
        drawn = read_dataset(path, task=task)
        labelled = set(drawn.classes) <= set(predictor.classes)
        order = np.array([predictor.classes.index(each) if labelled else 0 for each in drawn.classes])
        samples = [replace(sample, labels_N=order[sample.labels_N]) for sample in drawn.samples]
        half = len(samples) // 2
        yield (
            evidence("drawn", samples[:half], PROOF_PICTURES, labelled),
            evidence("drawn", samples[half:], CALIBRATION_PICTURES, labelled) if calibration else None,
        )


def benchmark_exports(name: str, *, seconds: float = 3.0, threads: int = 0) -> Iterator[dict[str, Any]]:
    """Latency, throughput, size and accuracy of the model of a run and of each of its exported files, as plain
    values; a file that cannot be run gives {"file", "error"}. `threads`: 0 for all cores given to this process."""
    source = ExportSource.open(name, "python")
    threads = threads or available_cores()
    torch.set_num_threads(threads)
    predictor = source.predictor
    size = predictor.preprocess.image_size
    run = model_run(predictor, ExportRequest("torch"), suppression_of(predictor))
    first = {
        "file": source.checkpoint.name, "format": "torch", "precision": "fp32", "image_size": size, "state": "",
        "size_bytes": source.checkpoint.stat().st_size, "metric": "", "value": None, "drop": None,
    }  # fmt: skip
    yield {**first, **pace_of(run, size, None, seconds), "threads": threads}
    for record in source.exports.present():
        form = FORMATS[record.format]
        facts = {
            "file": record.file, "format": record.format, "precision": record.precision,
            "image_size": record.image_size, "state": record.state, "size_bytes": record.size_bytes,
        }  # fmt: skip
        try:
            run = open_export(source.exports.folder / record.file, form, threads)
        except (ExportRefused, ExportFailed) as error:
            yield {"file": record.file, "error": str(error)}
            continue
        proof = Proof(**record.proof)
        facts |= {"metric": proof.metric, "value": proof.metric_file, "drop": proof.drop}
        yield {**facts, **pace_of(run, record.image_size, record.batch, seconds), "threads": threads}


def verify_export(path: Path) -> tuple[Proof, dict[str, Any]]:
    """Prove an exported file again, see `exporters.verify`. Raises ExportRefused or ExportFailed."""
    return verify(path)
