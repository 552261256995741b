"""Trackers, each for real and offline: what arrives there, and one tracker run for a run that was resumed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from smartcash.backend.trackers import Run, hyperparameters
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid
from smartcash.domain.events import StepEnded
from smartcash.services.run_store import RunFolder
from smartcash.worker import resume, train

from .conftest import toy_config
from .test_resume import StopAt


def needs(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f'{module} is not installed: pip install "smartcash[{extra}]"')


def stopped_and_resumed(notes: Path, home: Path, use: str, **options: Any) -> RunFolder:
    """A run of 8 steps that stopped after step 6 and went on, its figures of every step tracked."""
    entry = {"use": use, "options": {"every_steps": 1, "checkpoints": True, **options}}
    stop = StopAt(6)
    run, _ = train(
        toy_config(notes, name="toy", training={"callbacks": [entry]}), home, stop, signals=stop.signals
    )
    assert resume(run).reason == "finished"
    return run


@pytest.mark.slow
def test_tensorboard_reads_the_scalars_of_both_parts_as_one_curve(notes: Path, tmp_path: Path) -> None:
    """A2."""
    needs("tensorboard", "tensorboard")
    run = stopped_and_resumed(notes, tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run.path / "tensorboard"))
    read.Reload()
    assert [scalar.step for scalar in read.Scalars("train/loss")] == list(range(1, 9))
    assert [scalar.step for scalar in read.Scalars("epoch/mAP50_95")] == [4, 8]
    assert {"lr", "images_per_s", "test/mAP50_95", "best/mAP50_95"} <= set(read.Tags()["scalars"])
    assert {"state/text_summary", "checkpoint/text_summary"} <= set(read.Tags()["tensors"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own packages
def test_mlflow_keeps_one_run_with_params_metrics_and_its_end(notes: Path, tmp_path: Path) -> None:
    """A2: in a file of its own beside the runs."""
    for module in ("mlflow", "sqlalchemy", "alembic"):
        needs(module, "mlflow")
    stopped_and_resumed(notes, tmp_path, "mlflow")
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("smartcash")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED" and tracked.info.run_name == "toy"
    assert tracked.data.params["data.batch_size"] == "4"
    steps = [metric.step for metric in client.get_metric_history(tracked.info.run_id, "train/loss")]
    assert steps == list(range(1, 9))
    assert tracked.data.tags["smartcash.state"] == "finished" and "checkpoint.best" in tracked.data.tags


@pytest.mark.slow
def test_wandb_goes_on_in_the_run_of_the_same_id(notes: Path, tmp_path: Path) -> None:
    """A2: offline; its files lie in the run folder."""
    needs("wandb", "wandb")
    run = stopped_and_resumed(notes, tmp_path, "wandb", mode="offline")
    folders = list((run.path / "wandb").glob("offline-run-*"))
    assert folders and all(folder.name.endswith(run.id) for folder in folders)


@pytest.mark.parametrize("use", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_without_its_package_says_what_to_install(
    use: str, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A2, A10."""
    monkeypatch.setattr("smartcash.backend.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigInvalid) as refused:
        train(toy_config(notes, training={"callbacks": [use]}), tmp_path / "runs")
    (problem,) = refused.value.problems
    assert (problem.field, problem.code) == ("training.callbacks.0", "extra_missing")
    assert f'pip install "smartcash[{use}]"' in problem.message("en")


def test_what_may_be_secret_is_no_hyperparameter() -> None:
    """A2: addresses of notifications and options of callbacks stay here."""
    config = TrainConfig.parse(
        {
            "notify": {"targets": ["https://host/s3cret"]},
            "training": {"callbacks": [{"use": "wandb", "options": {"key": "s3cret"}}]},
        }
    )
    flat = hyperparameters(config)
    assert "s3cret" not in str(flat)
    assert flat["training.callbacks"] == "['wandb']" and flat["training.epochs"] == config.training.epochs
    assert flat["augment.flip"] == "None"


def test_steps_are_logged_each_nth_or_at_most_twice_a_second() -> None:
    """A2."""
    steps = [StepEnded(1, n, 100, n, {"loss": 1.0}, 1.0, 1e-3, 9.0, 1.0) for n in range(1, 101)]
    every, timed = Run(25), Run(None)
    assert [step.step for step in steps if every.due(step)] == [25, 50, 75, 100]
    logged = [step.step for step in steps if timed.due(step)]
    assert logged[0] == 1 and len(logged) < 5 and timed.step == 100
