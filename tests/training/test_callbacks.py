"""Callbacks of the user's own: every hook, their options and memory, what they may do and what their errors do."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smartcash.backend.callbacks import HOOKS, Callbacks
from smartcash.domain.config import CallbackConfig, TrainConfig
from smartcash.domain.errors import ConfigInvalid, TrainingFailed
from smartcash.domain.events import Event, RolledBack, RunFailed, RunFinished, StepEnded
from smartcash.domain.ports import Command
from smartcash.services.control import Signals
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder
from smartcash.worker import resume, train

from .conftest import toy_config

MINE = '''
import torch
from smartcash.domain.ports import Command

class Diary:
    """Writes down each hook that it is called by."""

    def __init__(self, file, stop_at=0):
        self.file, self.stop_at, self.steps, self.weight = file, stop_at, 0, torch.zeros(2)

    def write(self, hook, fact=""):
        with open(self.file, "a") as out:
            out.write(f"{hook} {fact}".strip() + "\\n")

    def on_run_start(self, event): self.write("on_run_start", event.config["optimizer"]["name"])
    def on_ready(self, event): self.write("on_ready", self.steps)
    def on_epoch_start(self, event): self.write("on_epoch_start", event.epoch)

    def on_step_end(self, event):
        self.steps += 1
        self.weight += event.losses["loss"]
        self.write("on_step_end", event.step_in_run)
        if self.steps == self.stop_at:
            return Command("stop", source="diary")

    def on_epoch_end(self, event):
        event.row.clear()  # its own copy: nobody else notices
        self.write("on_epoch_end", event.epoch)

    def on_checkpoint_saved(self, event): self.write("on_checkpoint_saved", event.epoch)
    def on_run_end(self, event): self.write("on_run_end", event.reason)
    def on_run_failed(self, event): self.write("on_run_failed", event.error)
    def state_dict(self): return {"steps": self.steps, "weight": self.weight}
    def load_state_dict(self, state): self.steps, self.weight = state["steps"], state["weight"]

class Typo:
    def on_epoch_ended(self, event): ...

class Silent:
    pass

class Clumsy:
    """Raises in one hook, or answers nonsense."""

    def __init__(self, hook, answer=None):
        def stumble(*event):
            if answer is not None:
                return answer
            raise RuntimeError("no such figure")
        setattr(self, hook, stumble)
        if hook.endswith("state_dict"):
            self.on_epoch_end = lambda event: None
'''


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the user's file in it."""
    (tmp_path / "my_callbacks.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("my_callbacks", None)


def use(name: str, on_error: str = "stop", **options: Any) -> dict[str, Any]:
    return {"use": f"my_callbacks:{name}", "options": options, "on_error": on_error}


def diary_of(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1]


def test_a_class_of_the_users_is_told_everything_in_order(notes: Path, tmp_path: Path) -> None:
    """A2: all hooks, from a file in the current folder, with options; what it does to a row harms nobody."""
    config = toy_config(notes, training={"epochs": 2, "callbacks": [use("Diary", file="diary.txt")]})
    run, outcome = train(config, tmp_path / "runs")
    lines = diary_of(tmp_path / "diary.txt")
    assert lines[:4] == ["on_run_start adamw", "on_ready 0", "on_epoch_start 1", "on_step_end 1"]
    without_saves = [line for line in lines if "checkpoint" not in line]
    assert without_saves[2:] == [
        *("on_epoch_start 1", *(f"on_step_end {step}" for step in (1, 2, 3, 4)), "on_epoch_end 1"),
        *("on_epoch_start 2", *(f"on_step_end {step}" for step in (5, 6, 7, 8)), "on_epoch_end 2"),
        "on_run_end finished",
    ]
    assert lines.count("on_checkpoint_saved 1") == 1
    assert {line.split()[0] for line in lines} == {*HOOKS.values()} - {"on_run_failed"}
    assert all(len(row) > 10 for row in outcome.progress.rows)
    assert len((run.path / "epochs.csv").read_text().splitlines()[0].split(",")) > 10


@pytest.mark.parametrize("language", ["en", "id"])
def test_the_class_in_the_documentation_works(language: str, notes: Path, here: Path) -> None:
    """A2: its Python and its YAML, as they are printed, without the tracker; the goal is met at once."""
    page = (Path(__file__).parents[2] / "docs" / language / "training.md").read_text(encoding="utf-8")
    source, settings = (
        re.search(rf"```{kind}\n# {name}\n(.*?)```", page, re.DOTALL)[1]  # type: ignore[index]
        for kind, name in (("python", "my_callbacks.py"), ("yaml", "mine.yaml"))
    )
    (here / "my_callbacks.py").write_text(source)
    (here / "mine.yaml").write_text(
        settings.replace("    - tensorboard\n", "").replace("goal: 0.8", "goal: 0.0")
    )
    config = TrainConfig.from_yaml(
        here / "mine.yaml", toy_config(notes).model_dump(exclude={"training": {"callbacks"}})
    )
    _, outcome = train(config, here / "runs")
    assert outcome.reason == "stopped" and outcome.progress.epoch == 1


def test_a_callback_may_stop_the_training_and_its_memory_survives_the_resume(
    notes: Path, tmp_path: Path
) -> None:
    """A2, D13: a Command as answer; numbers and tensors come back before on_ready."""
    config = toy_config(notes, training={"callbacks": [use("Diary", file="diary.txt", stop_at=3)]})
    run, outcome = train(config, tmp_path / "runs")
    assert (outcome.reason, outcome.progress.step) == ("stopped", 3)
    assert diary_of(tmp_path / "diary.txt")[-1] == "on_run_end stopped"
    assert resume(run).reason == "finished"
    lines = diary_of(tmp_path / "diary.txt")
    assert "on_ready 3" in lines and lines.count("on_step_end 4") == 1


def test_an_error_of_a_callback_stops_the_run_with_a_checkpoint(
    notes: Path, tmp_path: Path, english: None
) -> None:
    """A2, A34: failed, with the callback, the hook and the line named; mended, it goes on where it was."""
    callbacks = [use("Clumsy", hook="on_step_end"), use("Diary", file="diary.txt")]
    heard: list[Event] = []
    with pytest.raises(TrainingFailed) as failed:
        train(toy_config(notes, training={"callbacks": callbacks}), tmp_path / "runs", heard.append)
    message = str(failed.value)
    assert "my_callbacks:Clumsy failed in on_step_end (my_callbacks.py:" in message
    assert "RuntimeError: no such figure" in message
    run = RunFolder(next(tmp_path.glob("runs/detect/*")))
    facts = run.description()
    assert facts["state"] == "failed" and "on_step_end" in facts["error"]
    endings = [event for event in heard if isinstance(event, RunFinished | RunFailed)]
    assert [type(event) for event in endings] == [RunFailed]  # one ending, not two
    assert diary_of(tmp_path / "diary.txt")[-1] == "on_run_failed TrainingFailed"
    mended = run.config().replaced(training={"callbacks": [use("Diary", file="again.txt")]})
    assert resume(run, config=mended).reason == "finished"
    assert diary_of(tmp_path / "again.txt")[3] == "on_step_end 2"
    assert run.description()["error"] is None


def test_an_error_of_a_callback_that_may_be_skipped_is_a_warning(notes: Path, tmp_path: Path) -> None:
    """A2: each is named once and left out from then on; a wrong answer is an error too."""
    callbacks = [
        use("Clumsy", "skip", hook="on_step_end"),
        use("Clumsy", "skip", hook="on_epoch_end", answer="yes"),
        use("Clumsy", "skip", hook="state_dict"),
        use("Clumsy", hook="on_run_end"),
    ]
    run, outcome = train(toy_config(notes, training={"callbacks": callbacks}), tmp_path / "runs")
    assert outcome.reason == "finished" and run.description()["state"] == "finished"
    told = [record["facts"] for record in read_events(run.events) if record["type"] == "Warned"]
    assert sorted(facts["hook"] for facts in told) == [
        "on_epoch_end", "on_run_end", "on_step_end", "state_dict",
    ]  # fmt: skip
    assert any("returned str" in facts["error"] for facts in told)


@pytest.mark.parametrize("hook", ["state_dict", "load_state_dict"])
def test_a_memory_that_fails_ends_the_run_and_no_checkpoint_lacks_it(
    hook: str, notes: Path, tmp_path: Path
) -> None:
    """A2, A7: no rollback is tried for it, and the checkpoint with the memory stays the newest."""
    config = toy_config(notes, training={"callbacks": [use("Diary", file="diary.txt", stop_at=3)]})
    run, _ = train(config, tmp_path / "runs")
    before = sorted(path.name for path in run.weights.iterdir())
    source = (tmp_path / "my_callbacks.py").read_text()
    (tmp_path / "my_callbacks.py").write_text(source.replace(f"def {hook}(self", f"def {hook}(self, x, y"))
    sys.modules.pop("my_callbacks")
    heard: list[Event] = []
    with pytest.raises(TrainingFailed, match=hook):
        resume(run, heard.append)
    assert not [event for event in heard if isinstance(event, RolledBack)]
    assert sorted(path.name for path in run.weights.iterdir()) == before


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("tensorbord", "callback_form"),
        ("my_callbacks", "callback_form"),
        ("my_callbacks:", "callback_form"),
        ("no_such_module:Thing", "callback_not_made"),
        ("my_callbacks:NoSuchClass", "callback_not_made"),
        (use("Diary", fiel="x"), "callback_not_made"),
        (use("Typo"), "callback_hooks"),
        (use("Silent"), "callback_hooks"),
    ],
)
def test_a_callback_that_cannot_work_is_refused_before_anything_starts(
    entry: Any, code: str, notes: Path, tmp_path: Path
) -> None:
    """A2, A10: its field is named, no folder is made; both languages have the words."""
    with pytest.raises(ConfigInvalid) as refused:
        train(toy_config(notes, training={"callbacks": [entry]}), tmp_path / "runs")
    (problem,) = refused.value.problems
    assert (problem.field, problem.code) == ("training.callbacks.0", code)
    assert problem.message("en") != problem.message("id")
    assert not (tmp_path / "runs").exists()


def test_all_problems_of_callbacks_and_targets_are_told_at_once(notes: Path, tmp_path: Path) -> None:
    """A10."""
    config = toy_config(
        notes, training={"callbacks": ["tensorbord", use("Typo")]}, notify={"targets": ["nosuch://there"]}
    )
    with pytest.raises(ConfigInvalid) as refused:
        train(config, tmp_path / "runs")
    *codes, last = [problem.code for problem in refused.value.problems]
    assert codes == ["callback_form", "callback_hooks"]
    assert last in ("notify_target", "extra_missing")  # with apprise, and without


def test_what_is_built_in_does_not_look_into_the_current_folder(tmp_path: Path) -> None:
    """A2: only a class of the user's does."""
    before = list(sys.path)
    with pytest.raises(ConfigInvalid):
        Callbacks.load([CallbackConfig(use="mlflow", options={"no_such": 1})])
    assert sys.path == before
    Callbacks.load([CallbackConfig(**use("Diary", file="x"))])
    assert sys.path[0] == str(tmp_path)


def test_a_signal_and_a_callback_may_both_stop(notes: Path, tmp_path: Path) -> None:
    """D13: the first of the two names the reason; a stop twice is one stop."""
    signals = Signals()

    def ask(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step_in_run == 3:
            signals._commands.append(Command("preempt"))

    config = toy_config(notes, training={"callbacks": [use("Diary", file="diary.txt", stop_at=3)]})
    _, outcome = train(config, tmp_path / "runs", ask, signals=signals)
    assert outcome.reason == "preempted" and outcome.progress.step == 3
