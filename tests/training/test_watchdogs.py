"""Watchdogs: each named trouble is noticed once, with the facts that its words need; a broken training goes back."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from smartcash.backend import watchdogs
from smartcash.backend.watchdogs import Watchdogs
from smartcash.domain.config import TrainingConfig
from smartcash.domain.errors import TrainingFailed
from smartcash.domain.events import Event, RolledBack, StepEnded, Warned
from smartcash.services.run_store import RunFolder
from smartcash.utils.i18n import text
from smartcash.worker import train

from .conftest import toy_config

TRAINING = TrainingConfig(monitor="mAP50_95", mode="max", epochs=10)


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with room, whatever this one has."""
    monkeypatch.setattr(watchdogs, "memory_bytes", lambda: (1 << 30, 16 << 30))
    monkeypatch.setattr(watchdogs.psutil, "disk_usage", lambda path: Usage(1 << 40))


Usage = namedtuple("Usage", "free")


def step(number: int, loss: float, epoch: int = 1) -> StepEnded:
    return StepEnded(epoch, number, 100, number, {"loss": loss}, loss, 1e-3, 9.0, 1.0)


def row(epoch: int, **figures: float) -> dict[str, float | None]:
    return {"epoch": epoch, "train_s": 10.0, "data_wait_s": 0.1, "empty_batches": 0, **figures}


def in_words(warning: Warned) -> str:
    """Both languages can say it with the facts it has."""
    words = [text(f"warnings.{warning.code}", language, **warning.facts) for language in ("en", "id")]
    assert words[0] != words[1]
    return warning.code


def told(rows: list[dict[str, Any]], training: TrainingConfig = TRAINING) -> list[list[str]]:
    """The warnings of each epoch."""
    dogs = Watchdogs(Path(), pretrained=True)
    return [
        [in_words(warning) for warning in dogs.epoch(rows[:end], training, steps=20)]
        for end in range(1, len(rows) + 1)
    ]


def test_a_jump_of_the_loss_is_told_once_an_epoch() -> None:
    """A28: against the usual loss of the last steps; never while there are few."""
    dogs = Watchdogs(Path(), pretrained=True)
    losses = [3.0, 30.0, *[2.0] * 30, 30.0, 30.0, 2.0]
    found = [(n, in_words(w)) for n, loss in enumerate(losses) for w in dogs.step(step(n, loss), 1.0)]
    assert found == [(32, "loss_spike")]
    assert [w.facts["usual"] for w in dogs.step(step(99, 40.0, epoch=2), 1.0)] == [2.0]


def test_a_gradient_that_is_zero_for_some_steps_is_told() -> None:
    """A28: steps without an update between them do not count; a single one is nothing."""
    dogs = Watchdogs(Path(), pretrained=True)
    norms = [0.0, 0.0, 1.0, 0.0, None, 0.0, 0.0, None, 0.0, 0.0, 0.0]
    found = [(n, in_words(w)) for n, norm in enumerate(norms) for w in dogs.step(step(n, 1.0), norm)]
    assert found == [(9, "gradient_dead")]


class Others:
    """Other programs that keep so many cores busy, one number after the other."""

    def __init__(self, *cores: float) -> None:
        self._cores = iter(cores)

    def busy_cores(self) -> float:
        return next(self._cores)


@pytest.mark.parametrize(
    ("cores", "threads", "busy", "found"),
    [
        (2, 2, [1.0, 1.0, 1.0], [(1, 1)]),
        (2, 2, [0.3, 0.9, 0.2, 0.5, 0.5], [(4, 1)]),  # not what comes and goes
        (8, 8, [1.3] * 3, [(1, 6)]),
        (8, 8, [7.9] * 3, [(1, 4)]),  # half of the cores at least
        (8, 4, [1.3] * 3, []),  # there is room for all
        (64, 64, [2.0] * 3, []),  # what a large system does for itself
        (2, 1, [2.0] * 3, []),  # none to do without
        (2, None, [2.0] * 3, []),  # another device computes
    ],
)
def test_other_programs_that_keep_the_cores_busy_are_told(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    threads: int | None,
    busy: list[float],
    found: list[tuple[int, int]],
) -> None:
    """A28: with the number of threads for which there is room, once."""
    monkeypatch.setattr(watchdogs, "LOOK_S", 0.0)
    monkeypatch.setattr(watchdogs, "bound_cores", lambda: set(range(cores)))
    monkeypatch.setattr(watchdogs, "OtherPrograms", lambda: Others(*busy))
    dogs = Watchdogs(Path("run"), pretrained=True)
    told = [(n, w) for n in range(len(busy)) for w in dogs.step(step(n, 1.0), 1.0, threads)]
    assert [in_words(w) for _, w in told] == ["cores_crowded"] * len(found)
    assert [(n, w.facts["fitting"]) for n, w in told] == found


def test_a_metric_that_collapses_is_told_and_again_after_it_had_recovered() -> None:
    """A28: half of the best, or twice the loss."""
    values = [0.5, 0.6, 0.2, 0.2, 0.55, 0.1]
    found = told([row(n, mAP50_95=value) for n, value in enumerate(values, 1)])
    assert found == [[], [], ["metric_collapsed"], [], [], ["metric_collapsed"]]
    losses = TRAINING.model_copy(update={"monitor": "loss", "mode": "min"})
    assert told([row(n, loss=value) for n, value in enumerate([2.0, 1.0, 1.5, 2.5], 1)], losses)[-1] == [
        "metric_collapsed"
    ]


def test_boxes_without_classes_are_told_in_the_second_half() -> None:
    """A28."""
    rows = [row(n, mean_iou=0.85, mAP50=0.2, mAP50_95=0.1) for n in range(1, 8)]
    assert told(rows) == [[], [], [], [], ["classes_not_learnt"], [], []]
    (warning,) = Watchdogs(Path(), pretrained=False).epoch(rows, TRAINING, steps=20)
    assert in_words(warning) == "classes_slow_from_scratch"
    assert "freeze" not in text(
        "warnings.classes_slow_from_scratch", "en", **warning.facts
    )  # nothing was frozen


def test_waiting_for_data_and_batches_without_objects_are_told() -> None:
    """A28."""
    assert told([row(1, data_wait_s=4.0)]) == [["data_starved"]]
    assert told([row(1, data_wait_s=0.4, train_s=0.5)]) == [[]]
    assert told([row(1, empty_batches=12), row(2, empty_batches=12)]) == [["batches_empty"], []]


def test_a_disk_or_a_memory_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A28: three checkpoints must fit, and half a gigabyte."""
    (tmp_path / "weights").mkdir()
    with (tmp_path / "weights/a.pth").open("wb") as file:
        file.truncate(300 << 20)
    dogs = Watchdogs(tmp_path, pretrained=True)
    monkeypatch.setattr(watchdogs.psutil, "disk_usage", lambda path: Usage(800 << 20))
    (warning,) = dogs.epoch([row(1)], TRAINING, 20)
    assert in_words(warning) == "disk_low"
    assert (warning.facts["free"], warning.facts["needed"]) == (800, 900)
    monkeypatch.setattr(watchdogs, "memory_bytes", lambda: (98, 100))
    assert [in_words(w) for w in dogs.epoch([row(1), row(2)], TRAINING, 20)] == ["memory_low"]


# a learning rate that is too high: the weights grow until they overflow
TOO_HIGH = {
    "optimizer": {"name": "sgd", "lr": 10, "clip_norm": 0, "momentum": 0.99, "weight_decay": 0.99},
    "schedule": {"warmup_epochs": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "classify"])
def test_a_training_whose_numbers_overflow_goes_back_and_recovers(
    task: str, notes: Path, sorted_notes: Path, tmp_path: Path
) -> None:
    """A28, A34: with half the rate each time, from weights that are not broken yet."""
    heard: list[Event] = []
    config = toy_config(
        notes if task == "detect" else sorted_notes,
        training={"epochs": 5 if task == "detect" else 3, "nan_rollbacks": 20}, **TOO_HIGH,
    )  # fmt: skip
    run, outcome = train(config, tmp_path, heard.append)
    back = [event for event in heard if isinstance(event, RolledBack)]
    assert outcome.reason == "finished" and back
    assert [event.lr_factor for event in back] == [0.5**n for n in range(1, len(back) + 1)]
    for event in back:
        for language in ("en", "id"):
            assert text(f"errors.{event.cause}", language, **event.facts)
    assert outcome.progress.rollbacks == len(back)
    lines = (run.path / "epochs.csv").read_text().splitlines()
    assert len(lines) == config.training.epochs + 1


@pytest.mark.slow
def test_without_rollbacks_it_fails_at_once(notes: Path, tmp_path: Path) -> None:
    """A28, A34: with the step, the rate and the pictures."""
    heard: list[Event] = []
    config = toy_config(notes, training={"epochs": 5, "nan_rollbacks": 0}, **TOO_HIGH)
    with pytest.raises(TrainingFailed) as failed:
        train(config, tmp_path, heard.append)
    assert failed.value.code in ("loss_not_finite", "gradient_not_finite", "output_not_finite")
    assert not [event for event in heard if isinstance(event, RolledBack)]
    assert RunFolder(next(tmp_path.glob("detect/*"))).description()["state"] == "failed"
