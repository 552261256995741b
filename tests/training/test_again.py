"""Training again like an earlier run: from what was asked for, not from what every "auto" became in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smartcash import TrainConfig, TrainingManager
from smartcash.domain.config import dump_yaml
from smartcash.domain.errors import ConfigInvalid
from smartcash.domain.events import Event, StepEnded, VersionKept
from smartcash.domain.ports import Command
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.control import Signals
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder, find_run
from smartcash.worker import extend, resume, train

from .conftest import toy_config

ASKED = {
    "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
    "data": {"image_size": 64},
    "training": {"epochs": 2},
    "runtime": {"threads": 1},
}
# no training can be better than its first epoch: with so few steps no sum is right, and none is less right
NEVER_BETTER = {"monitor": "exact_sum", "mode": "min"}


def smartcash(*arguments: str | Path, language: str = "en") -> subprocess.CompletedProcess[str]:
    """The command line, with nobody there to answer."""
    return subprocess.run(
        [sys.executable, "-m", "smartcash", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=200, check=False, env={**os.environ, "SMARTCASH_LANG": language},
    )  # fmt: skip


def changes_in(printed: str) -> list[str]:
    return [line.strip() for line in printed.splitlines() if line.startswith("  • ")]


@pytest.fixture
def settings(tmp_path: Path, notes: Path) -> Path:
    """A file that leaves to the machine what it may."""
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml({**ASKED, "data": {**ASKED["data"], "path": str(notes)}}), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_run_trains_again_with_what_was_asked_and_its_config_does_just_the_same(
    settings: Path, tmp_path: Path
) -> None:
    """A1, A2, C1: of a run of two epochs, one epoch is asked for: that is the one change, and the warm-up fits. What
    was resolved is still there, and makes the same weights."""
    home = tmp_path / "runs"
    told = smartcash("train", "--config", settings, "--home", home)
    assert told.returncode == 0, told.stderr
    first = find_run("latest", home)
    assert first.asked() == TrainConfig.from_yaml(settings) and first.config() != first.asked()

    told = smartcash("train", "--config", "latest", "--epochs", "1", "--home", home, "--yes")
    assert told.returncode == 0, told.stderr
    assert changes_in(told.stdout) == ["• training.epochs: 2 → 1"]
    assert f"run {first.id}" in told.stdout
    second = find_run("latest", home)
    assert second.asked() == first.asked().replaced(training={"epochs": 1})
    assert second.config().schedule.warmup_epochs == 0.25

    told = smartcash("train", "--config", first.path / "config.yaml", "--home", tmp_path / "other")
    assert told.returncode == 0 and f"--config {first.path}" in told.stdout, told.stderr
    same = find_run("latest", tmp_path / "other")
    assert same.config() == first.config()
    rows = [(run.path / "epochs.csv").read_text().splitlines() for run in (first, same)]
    losses = [
        [row.split(",")[header.split(",").index("train_loss")] for row in others] for header, *others in rows
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_first_training_says_that_it_is_and_a_script_is_told_how_to_agree(
    settings: Path, tmp_path: Path
) -> None:
    """A12, C1: the first has nothing to be compared with; the same once more is no change; another is not begun before
    somebody agrees, and where nobody can be asked it is said how."""
    home = tmp_path / "runs"
    train_here = ("train", "--config", settings, "--epochs", "1", "--home", home)
    told = smartcash(*train_here)
    assert told.returncode == 0 and told.stdout.startswith("The first training in "), told.stderr
    first = find_run("latest", home)
    logged = OperationLog(home / "operations.jsonl").operations(run=first.id)
    assert [entry.operation for entry in logged] == ["config-change", "start", "register"]
    told = smartcash(*train_here)
    assert (
        told.returncode == 0
        and f"The same settings as those of the last training here, run {first.id}" in told.stdout
    )
    for language, way in (("en", "add --yes to the command"), ("id", "tambahkan --yes pada perintahnya")):
        told = smartcash(*train_here, "--seed", "3", language=language)
        assert told.returncode == 3 and way in told.stderr and "seed: 0 → 3" in told.stdout
    assert len(list(home.glob("*/*/run.json"))) == 2


@pytest.mark.slow
def test_what_was_refused_is_nothing_to_compare_with(settings: Path, tmp_path: Path) -> None:
    """C1: neither before its folder was made nor while it was built; then the next one is still the first."""
    home = tmp_path / "runs"
    for wrong in ("data.batch_size=4000", "training.callbacks=[nowhere:Nothing]"):
        told = smartcash("train", "--config", settings, "--set", wrong, "--home", home)
        assert told.returncode == 2, told.stdout
    assert TrainingManager(home).check(settings).first
    told = smartcash("train", "--config", settings, "--epochs", "1", "--home", home)
    assert told.returncode == 0 and told.stdout.startswith("The first training in "), told.stderr


class Ends:
    """Ends a training after so many of its own steps."""

    def __init__(self, step: int, name: str) -> None:
        self.signals, self.step, self.name = Signals(), step, name
        self.heard: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(event)
        if isinstance(event, StepEnded) and event.step_in_run == self.step:
            self.signals._commands.append(Command(self.name, source="test"))  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_is_changed_later_was_asked_for_too(notes: Path, tmp_path: Path) -> None:
    """A2, D3: by a resume, by a command while it trains, and by an extension; the rest stays as it was asked."""
    asked = toy_config(notes, data={"batch_size": "auto"}, training={"epochs": 3})
    stop = Ends(2, "stop")
    run, _ = train(asked, tmp_path, stop, signals=stop.signals)
    assert run.asked() == asked and run.config().data.batch_size == 4

    class Longer:
        """Asks for a fourth epoch as soon as a step is made."""

        sent = False

        def __call__(self) -> list[Command]:
            now, self.sent = ([] if self.sent else [Command("epochs", 4)]), True
            return now

    resume(run, config=run.config().replaced(data={"workers": 1}), commands=Longer())
    assert run.config().training.epochs == 4 and run.description()["state"] == "finished"
    assert run.asked() == asked.replaced(data={"workers": 1}, training={"epochs": 4})

    child, _ = extend(run, 5)
    assert child.config().schedule.extended_from == 4
    assert child.asked() == run.asked().replaced(training={"epochs": 5})
    review = TrainingManager(tmp_path).check(child.asked().replaced(training={"epochs": 1}))
    assert review.ok, "a training of its own goes on from none"


def test_a_run_from_before_it_was_kept_is_trained_again_with_what_it_was_trained_with(
    notes: Path, tmp_path: Path
) -> None:
    """A29: also after a change."""
    run = RunFolder.create(tmp_path, toy_config(notes), {"state": "stopped"})
    (run.path / "asked.yaml").unlink()
    assert run.asked() == run.config()
    assert TrainingManager(tmp_path).check(run.path).config == run.config()
    run.change(run.config().replaced(seed=3))
    assert run.asked() == run.config() and run.asked().seed == 3
    (run.path / "asked.yaml").unlink()
    extended = run.config().replaced(schedule={"extended_from": 1.0, "extension": "restart_cosine"})
    run.write_config(extended)
    assert run.asked() == extended.replaced(schedule={"extended_from": 0.0, "extension": "rescale"})


def test_what_was_asked_and_cannot_be_read_any_more_keeps_no_training_from_a_change(
    notes: Path, tmp_path: Path
) -> None:
    """A29: the file is there to be read, so somebody will write in it."""
    run = RunFolder.create(tmp_path, toy_config(notes), {"state": "stopped"})
    (run.path / "asked.yaml").write_text("nonsense: 1\n")
    run.change(run.config().replaced(seed=3))
    assert run.config().seed == 3 and (run.path / "asked.yaml").read_text() == "nonsense: 1\n"
    with pytest.raises(ConfigInvalid, match="nonsense"):
        run.asked()


@pytest.mark.slow
def test_an_extension_that_was_never_better_says_why_it_is_no_new_version(
    notes: Path, tmp_path: Path
) -> None:
    """A15, A33, D3: in the last lines, with the epoch, its run and the reason."""
    home = tmp_path / "runs"
    parent, _ = train(toy_config(notes, training={"epochs": 2, **NEVER_BETTER}), home)
    (version,) = ModelVersions(home).versions()
    assert (version.run, version.epoch) == (parent.id, 1)
    for language, words in (
        ("en", "The best epoch is still epoch 1 of run {run} (exact_sum 0.000): none since was better."),
        ("id", "Epoch terbaik masih epoch 1 dari run {run} (exact_sum 0.000)"),
    ):
        told = smartcash("extend", parent.path, "--epochs", "3", "--home", home, language=language)
        assert told.returncode == 0, told.stderr
        (line,) = (line for line in told.stdout.splitlines()[-8:] if words.format(run=parent.id) in line)
        assert line.endswith("v1.")
    child = find_run("latest", home)
    assert child.description()["version_kept"] is True and child.description()["version"] == 1
    assert [each.number for each in ModelVersions(home).versions()] == [1]
    assert [record["type"] for record in read_events(child.events)][-1] == "VersionKept"
    told = smartcash("runs", "watch", child.id, "--home", home)
    assert "The best epoch is still epoch 1" in told.stdout.splitlines()[-1], told.stderr


@pytest.mark.slow
def test_a_run_that_goes_on_after_its_best_was_kept_says_so_as_well(notes: Path, tmp_path: Path) -> None:
    """A15, D13: its version is its own."""
    end = Ends(6, "keep_best")
    run, _ = train(
        toy_config(notes, training={"epochs": 3, **NEVER_BETTER}), tmp_path, end, signals=end.signals
    )
    assert not any(isinstance(event, VersionKept) for event in end.heard)
    assert run.description()["version"] == 1 and run.description()["version_kept"] is False
    heard: list[Event] = []
    resume(run, heard.append)
    kept = [event for event in heard if isinstance(event, VersionKept)]
    assert kept == [VersionKept("v1", run.id, 1, "exact_sum", 0.0)]
