"""Stopped, killed, resumed, extended: the same bits as a training that never stopped."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from smartcash.backend.builder import build
from smartcash.backend.trainer import state_digest
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, RunNotResumable
from smartcash.domain.events import (
    CheckpointSaved,
    Commanded,
    EpochEnded,
    EpochStarted,
    EvaluationStarted,
    Event,
    RunFinished,
    RunResumed,
    StepEnded,
    Warned,
)
from smartcash.domain.ports import Command
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.services.control import ControlFile, Interrupted, Signals, listen_to_signals, send_command
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder
from smartcash.worker import evaluate_model, extend, resume, train, training
from smartcash.worker.data import load_data

from .conftest import toy_config


def final_state(run: RunFolder) -> str:
    """The digest of the newest checkpoint: model, averaged model, optimizer, schedule, scaler, counters, best."""
    state = CheckpointManager(output_dir=str(run.weights)).load_checkpoint(which="latest")
    return state_digest(state)


class StopAt:
    """Signals of a process that is asked to end after so many of its own steps."""

    def __init__(self, step: int, name: str = "preempt") -> None:
        self.signals, self.step, self.name = Signals(), step, name

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepEnded) and event.step_in_run == self.step:
            self.signals._commands.append(Command(self.name, source="test"))  # type: ignore[arg-type]


TASKS: dict[str, dict[str, Any]] = {
    "detect": {
        "model": {"drop_path": 0.2},
        "optimizer": {"accumulate": 2},
        "training": {"epochs": 5, "early_stopping": {"patience": 50}},
        "data": {"batch_size": 2},
    },
    "classify": {
        "model": {"drop_path": 0.2, "dropout": 0.3},
        "augment": {"mixup": 0.5},
        "training": {"epochs": 4},
        "data": {"batch_size": 4},
    },
}


@pytest.fixture
def data_of(notes: Path, sorted_notes: Path) -> Callable[[str], Path]:
    return lambda task: notes if task == "detect" else sorted_notes


def states(run: RunFolder) -> dict[tuple[int, int], str]:
    """The digest of every checkpoint, by (step, epochs done)."""
    manager = CheckpointManager(output_dir=str(run.weights))
    found = {}
    for info in manager.list_checkpoints():
        state = manager.load_checkpoint(info.path)
        found[state["step"], state["epoch"]] = state_digest(state)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "classify"])
def test_interrupted_at_every_step_and_resumed_it_has_the_same_bits_at_each(
    task: str, data_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """A7, D1: at least 32 steps with random augmentation, mosaic or mixup, dropout, drop-path and accumulation; loader
    processes come and go. After every interruption the whole state is that of the unbroken run at that step."""
    saved = {"every_steps": 1, "keep_epochs": 1000}
    config = toy_config(data_of(task), **TASKS[task], checkpoint=saved)
    steps: list[int] = []
    whole, outcome = train(
        config,
        tmp_path / "whole",
        lambda e: steps.append(e.step_in_run) if isinstance(e, StepEnded) else None,
    )
    assert outcome.reason == "finished" and len(steps) >= 32
    wanted = states(whole)

    stop = StopAt(1)
    run, outcome = train(config, tmp_path / "broken", stop, signals=stop.signals)
    interruptions = 0
    while outcome.reason == "preempted":
        interruptions += 1
        stop = StopAt(outcome.progress.step + 1)
        workers = 2 if interruptions % 4 == 0 else 0
        changed = run.config().replaced(data={"workers": workers})
        outcome = resume(run, stop, config=changed, signals=stop.signals)
    assert outcome.reason == "finished"
    assert interruptions >= len(steps) / (2 if task == "detect" else 1)  # at every update of the weights
    found = states(run)
    assert found.keys() == wanted.keys()
    assert [place for place in sorted(wanted) if found[place] != wanted[place]] == []


def test_the_final_test_of_a_resumed_run_is_that_of_the_unbroken_one(notes: Path, tmp_path: Path) -> None:
    """A7, A8: the best epoch was found before the interruption; its weights are the ones tested in the end."""
    config = toy_config(notes, training={"epochs": 3, "monitor": "train_loss", "mode": "max"})
    whole, unbroken = train(config, tmp_path / "whole")
    assert unbroken.progress.best_epoch == 1
    stop = StopAt(2 * 4 + 1)
    run, _ = train(config, tmp_path / "broken", stop, signals=stop.signals)
    outcome = resume(run)
    assert outcome.progress.best_epoch == 1 and outcome.test is not None and unbroken.test is not None
    assert outcome.test.to_dict() == unbroken.test.to_dict()
    report = [json.loads((folder.path / "report" / "metrics.json").read_text()) for folder in (whole, run)]
    assert report[0] == report[1]
    rows = [(folder.path / "epochs.csv").read_text().count("\n") for folder in (whole, run)]
    assert rows[0] == rows[1] == 4


def test_a_stop_in_validation_or_test_loses_nothing(notes: Path, tmp_path: Path) -> None:
    """A34: the epoch that was being validated is validated again, the test made up for."""
    config = toy_config(notes, training={"epochs": 2})
    whole, _ = train(config, tmp_path / "whole")
    for split in ("valid", "test"):
        signals = Signals()

        def ask(event: Event, signals: Signals = signals, split: str = split) -> None:
            if isinstance(event, EvaluationStarted) and event.split == split:
                signals._commands.append(Command("preempt"))

        run, outcome = train(config, tmp_path / split, ask, signals=signals)
        assert outcome.reason == "preempted" and outcome.test is None
        assert run.description()["state"] == "preempted"
        again = resume(run)
        assert again.reason == "finished" and again.test is not None
        assert final_state(run) == final_state(whole)


def test_a_finished_run_is_extended_as_a_child_that_names_its_parent(notes: Path, tmp_path: Path) -> None:
    """D3: each schedule policy; the child goes on from the parent's state and stands on its own."""
    told: list[Event] = []
    parent, _ = train(toy_config(notes, training={"epochs": 2}), tmp_path, told.append)
    ended_at = [event.lr for event in told if isinstance(event, StepEnded)][-1]
    rates = {}
    for policy in ("rescale", "continue_constant", "restart_cosine"):
        heard: list[Event] = []
        child, _outcome = extend(parent, 4, policy, heard.append)
        facts = child.description()
        assert facts["parent"]["id"] == parent.id and facts["state"] == "finished"
        assert [event.epoch for event in heard if isinstance(event, EpochEnded)] == [3, 4]
        assert next(event for event in heard if isinstance(event, RunResumed)).epoch == 3
        assert (child.path / "epochs.csv").read_text().count("\n") == 5
        rates[policy] = [event.lr for event in heard if isinstance(event, StepEnded)]
    assert set(rates["continue_constant"]) == {ended_at}
    assert rates["restart_cosine"][0] > 10 * ended_at > rates["restart_cosine"][-1]
    assert rates["rescale"][0] > rates["rescale"][-1] and rates["rescale"][0] > ended_at
    assert evaluate_model(str(child.path), str(notes), "test")["mAP50_95"] is not None


def mislabel(data: Path) -> None:
    """Give one box of the training split another class."""
    label = next(path for path in sorted((data / "labels" / "train").iterdir()) if path.read_text())
    number, rest = label.read_text().split(" ", 1)
    label.write_text(f"{(int(number) + 1) % 7} {rest}")


def test_an_early_stopped_run_is_saved_to_its_last_epoch_and_can_be_extended(
    notes: Path, tmp_path: Path
) -> None:
    """A8, D3, B31: also when checkpoints are rare; the child has its patience anew."""
    rule = {"patience": 2, "min_delta": 100.0, "monitor": "train_loss"}
    config = toy_config(
        notes,
        training={"epochs": 9, "early_stopping": rule},
        checkpoint={"every_epochs": 5, "every_minutes": 0},
    )
    parent, outcome = train(config, tmp_path)
    assert (outcome.reason, outcome.progress.epoch) == ("early_stopped", 3)
    state = CheckpointManager(output_dir=str(parent.weights)).load_checkpoint(which="latest")
    assert (state["epoch"], state["step"]) == (3, 12)
    child, outcome = extend(parent, 9)
    assert (outcome.reason, outcome.progress.epoch) == ("early_stopped", 5)
    assert child.description()["epochs_done"] == 5


def test_a_pause_is_no_training_time(notes: Path, tmp_path: Path) -> None:
    """D13, A10: the epoch's row and the rate look as if nobody had waited."""
    paused = Signals()

    def look(event: Event) -> None:
        if isinstance(event, StepEnded) and event.step_in_run == 2:
            paused._commands.append(Command("pause"))
            threading.Timer(3.0, lambda: paused._commands.append(Command("continue"))).start()

    _, outcome = train(toy_config(notes, training={"epochs": 1}), tmp_path, look, signals=paused)
    row = outcome.progress.rows[0]
    assert row["train_s"] is not None and row["elapsed_s"] is not None
    assert row["train_s"] < 2.5 and row["train_s"] <= row["elapsed_s"]


def test_other_data_begin_the_epoch_anew_and_need_another_path(notes: Path, tmp_path: Path) -> None:
    """C1, D9: what counts is what the checkpoint was trained on, whatever the run folder was told since."""
    stop = StopAt(4 + 2)
    run, _ = train(toy_config(notes, training={"epochs": 3}), tmp_path, stop, signals=stop.signals)
    other = tmp_path / "other"
    shutil.copytree(notes, other)
    mislabel(other)
    moved = run.config().replaced(data={"path": str(other)})
    run.write_config(moved)  # as a change that was confirmed for the background leaves it
    heard: list[Event] = []
    outcome = resume(run, heard.append)
    resumed = next(event for event in heard if isinstance(event, RunResumed))
    assert (resumed.epoch, resumed.step) == (2, 4) and outcome.reason == "finished"


def test_a_run_that_has_its_checkpoints_needs_room_for_those_to_come_only(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A7, D9: stopped in its last epoch, it goes on where two more fit; with less it is refused, and stays as it is."""
    stop = StopAt(2 * 4 + 2)
    config = toy_config(notes, training={"epochs": 3}, checkpoint={"every_minutes": 0})
    run, _ = train(config, tmp_path, stop, signals=stop.signals)
    size = max(path.stat().st_size for path in run.weights.glob("*.pth"))
    before = sorted(run.weights.iterdir())
    disk = SimpleNamespace(free=size, total=2**40)
    monkeypatch.setattr(training.psutil, "disk_usage", lambda path: disk)
    with pytest.raises(ConfigInvalid, match="keep_epochs"):
        resume(run)
    assert sorted(run.weights.iterdir()) == before
    disk.free = int(2.1 * size)
    assert resume(run).reason == "finished"


def test_what_cannot_go_on_says_why(notes: Path, sorted_notes: Path, tmp_path: Path) -> None:
    """A34: finished, other weights, other data, nothing more to train, not yet finished."""
    parent, _ = train(toy_config(notes), tmp_path)
    with pytest.raises(RunNotResumable, match=r"extend"):
        resume(parent)
    with pytest.raises(ConfigInvalid):
        extend(parent, 2)
    changed = tmp_path / "notes"
    shutil.copytree(notes, changed)
    stop = StopAt(1)
    run, _ = train(toy_config(changed), tmp_path, stop, signals=stop.signals)
    with pytest.raises(RunNotResumable):
        extend(run, 5)
    with pytest.raises(RunNotResumable, match=r"model\.scale"):
        resume(run, config=run.config().replaced(model={"scale": "m"}))
    with run.claimed(), pytest.raises(RunNotResumable, match=r"pid"):
        resume(run)
    mislabel(changed)
    with pytest.raises(RunNotResumable, match="--data"):
        resume(run)


def test_a_changed_batch_size_begins_the_epoch_anew(notes: Path, tmp_path: Path) -> None:
    """C1: half an epoch of other batches means nothing; the epochs done stay done."""
    stop = StopAt(4 + 2)
    run, _ = train(toy_config(notes, training={"epochs": 3}), tmp_path, stop, signals=stop.signals)
    heard: list[Event] = []
    outcome = resume(run, heard.append, config=run.config().replaced(data={"batch_size": 7}))
    resumed = next(event for event in heard if isinstance(event, RunResumed))
    assert (resumed.epoch, resumed.step) == (2, 2) and outcome.reason == "finished"


def test_checkpoints_fall_within_an_epoch_by_steps_and_by_minutes(notes: Path, tmp_path: Path) -> None:
    """A9: and they are never taken for a milestone or for the best."""
    for rule in ({"every_steps": 1}, {"every_minutes": 1e-9}):
        heard: list[CheckpointSaved] = []
        config = toy_config(notes, checkpoint={"keep_epochs": 50, **rule})
        run, _ = train(
            config, tmp_path, lambda e, h=heard: h.append(e) if isinstance(e, CheckpointSaved) else None
        )
        # before and after each validation
        assert [saved.step for saved in heard] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]
        kinds = [info.kind for info in CheckpointManager(output_dir=str(run.weights)).list_checkpoints()]
        assert kinds.count("epoch") == 0 and kinds.count("latest") >= 7


def test_a_checkpoint_is_told_of_with_the_moment_that_the_log_has(notes: Path, tmp_path: Path) -> None:
    """A14: however long after it is on the disk anybody is told."""

    def late(event: Event) -> None:
        if isinstance(event, EpochStarted):
            time.sleep(1)

    run, _ = train(toy_config(notes, training={"epochs": 2}), tmp_path, late)
    told = [each for each in read_events(run.events) if each["type"] == "CheckpointSaved"]
    lines = (run.path / "train.log").read_text(encoding="utf-8").splitlines()
    for each in told:
        line = next(line for line in lines if each["path"] in line)
        logged = datetime.strptime(" ".join(line.split()[:2]), "%Y-%m-%d %H:%M:%S,%f").astimezone()
        assert each["saved_at"] <= logged.timestamp() + 0.001 and logged.timestamp() <= each["time"]
        if Path(each["path"]).exists():  # older ones were cleared away
            assert Path(each["path"]).stat().st_mtime <= each["saved_at"] + 0.01, (
                "no sooner than it was whole"
            )
    assert max(each["time"] - each["saved_at"] for each in told) > 0.9


class Commander:
    """Sends commands through the run's own control file once the training has come to a step."""

    def __init__(self, home: Path, plan: dict[int, list[Command]]) -> None:
        self.home, self.plan, self.heard = home, plan, list[Event]()

    def __call__(self, event: Event) -> None:
        self.heard.append(event)
        if isinstance(event, StepEnded):
            for command in self.plan.pop(event.step_in_run, []):
                send_command(next(self.home.glob("*/*/run.json")).parent / "control.jsonl", command)


def test_commands_take_effect_within_one_step(notes: Path, tmp_path: Path) -> None:
    """D13: each command through the control file; the configuration keeps what was changed."""
    numbers = [Command("epochs", 3, "me"), Command("patience", 7), Command("threads", 2)]
    plan = {2: numbers, 9: [Command("stop")]}
    commander = Commander(tmp_path, plan)
    run, outcome = train(toy_config(notes, training={"epochs": 6}), tmp_path, commander)
    done = [event for event in commander.heard if isinstance(event, Commanded)]
    assert [(event.name, event.step, event.was) for event in done] == [
        ("epochs", 2, 6),
        ("patience", 2, 0),
        ("threads", 2, 1),
        ("stop", 9, None),
    ]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert outcome.reason == "stopped" and outcome.progress.step == 9
    assert run.config().training.epochs == 3 and run.config().training.early_stopping.patience == 7
    assert run.config().runtime.threads == 2 and run.asked().runtime.threads == 1, "a circumstance, no wish"
    assert resume(run).progress.epoch == 3


def test_another_number_of_threads_counts_within_a_validation_too(notes: Path, tmp_path: Path) -> None:
    """D13: within one batch, wherever the training stands."""
    seen: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, EvaluationStarted) and event.split == "valid":
            control = next(tmp_path.glob("*/*/run.json")).parent / "control.jsonl"
            send_command(control, Command("threads", 2))
        if isinstance(event, EpochEnded):
            seen.append(torch.get_num_threads())

    train(toy_config(notes, training={"epochs": 1}), tmp_path, listen)
    torch.set_num_threads(1)
    assert seen == [2]


def test_stop_after_the_epoch_and_keep_the_best(notes: Path, tmp_path: Path) -> None:
    """D13: the one ends with a validated epoch, the other at once with the best epoch tested and reported."""
    commander = Commander(tmp_path / "a", {2: [Command("stop_after_epoch")]})
    _, outcome = train(toy_config(notes, training={"epochs": 6}), tmp_path / "a", commander)
    assert (outcome.reason, outcome.progress.epoch, outcome.progress.step) == ("stopped", 1, 4)
    commander = Commander(tmp_path / "b", {6: [Command("keep_best")]})
    run, outcome = train(toy_config(notes, training={"epochs": 6}), tmp_path / "b", commander)
    assert (outcome.reason, outcome.progress.step) == ("kept_best", 6) and outcome.test is not None
    assert (run.path / "report" / "metrics.json").exists() and run.description()["state"] == "stopped"


COMMAND = [
    *(sys.executable, "-m", "smartcash"),
]
SETTINGS = [
    *("--set", "model.backbone=mobilenetv4_conv_small", "--set", "model.pretrained=false"),
    *("--set", "data.image_size=64", "--set", "data.batch_size=4", "--set", "runtime.threads=1"),
]
ENGLISH = {**os.environ, "SMARTCASH_LANG": "en"}


BEGUN: list[subprocess.Popen[str]] = []


def begin(*arguments: str | Path, shown: int = subprocess.PIPE, nohup: bool = False) -> subprocess.Popen[str]:
    """The command line in a process of its own, which does not outlive its test."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=shown, stderr=subprocess.STDOUT, text=True, env=ENGLISH, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL),
    )  # fmt: skip
    BEGUN.append(process)
    return process


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    while BEGUN:
        process = BEGUN.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.slow
def test_pause_holds_the_training_and_continue_lets_it_go_on(notes: Path, tmp_path: Path) -> None:
    """D13: a paused process trains no step, holds a checkpoint of where it is, and hears signals."""
    process = begin("train", notes, "--epochs", "5000", "--home", tmp_path, *SETTINGS)
    wait_for(lambda: list(tmp_path.glob("detect/*/epochs.csv")))
    run = RunFolder(next(tmp_path.glob("detect/*")))
    send_command(run.control, Command("pause"))
    names = lambda: [record["type"] for record in read_events(run.events)]
    wait_for(lambda: "Commanded" in names())
    time.sleep(1.0)
    # the checkpoint of the pause is told of when it is on the disk
    held = lambda: [name for name in names() if name != "CheckpointSaved"]
    before = held()
    time.sleep(1.5)
    assert held() == before
    send_command(run.control, Command("continue"))
    wait_for(lambda: names()[-1] == "StepEnded")
    send_command(run.control, Command("pause"))
    wait_for(lambda: names().count("Commanded") == 3)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in printed
    assert run.description()["state"] == "preempted"


@pytest.mark.slow
def test_killed_at_random_times_and_resumed_it_ends_with_the_same_bits(notes: Path, tmp_path: Path) -> None:
    """A7, D1: SIGKILL of a real process, five times in one run, loader processes included."""
    settings = [*SETTINGS, "--set", "checkpoint.every_steps=3", "--set", "data.workers=2"]
    whole = begin("train", notes, "--epochs", "12", "--home", tmp_path / "whole", *settings)
    printed, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, printed
    chance = random.Random(5)
    process = begin("train", notes, "--epochs", "12", "--home", tmp_path / "killed", *settings)
    kills = 0
    while kills < 5:
        wait_for(lambda: list(tmp_path.glob("killed/detect/*/weights/*.json")))
        try:
            printed, _ = process.communicate(timeout=chance.uniform(0.5, 6.0))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            run = next(tmp_path.glob("killed/detect/*"))
            process = begin("resume", run)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    run = next(tmp_path.glob("killed/detect/*"))
    assert final_state(RunFolder(run)) == final_state(RunFolder(next(tmp_path.glob("whole/detect/*"))))


def test_numpy_is_there_before_torch_which_swallows_a_signal_while_it_loads_it() -> None:
    """A34: half of numpy would be left, and a training that fails much later."""
    code = "import sys; from smartcash.worker import backbone_problems; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = told.stdout.split()
    assert loaded.index("numpy") < loaded.index("torch")


def test_a_signal_that_falls_while_a_class_is_made_is_one_all_the_same() -> None:
    """A34: torch makes thousands while it is loaded; Python 3.11 makes a RuntimeError of it."""

    class Field:
        def __set_name__(self, owner: type, name: str) -> None:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted) as caught, listen_to_signals():
        type("Owner", (), {"field": Field()})
    assert caught.value.reason == "preempted"
    with pytest.raises(RuntimeError, match="no signal"), listen_to_signals():
        raise RuntimeError("no signal")


def falls_in_a_callback_from_c() -> None:
    """As numba's compiler calls Python. ctypes has nobody to raise to: it reports the exception, and goes on."""
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))()


def falls_in_a_destructor() -> None:
    class Owner:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    Owner()


def is_caught_by_a_library() -> None:
    with suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


def becomes_another_error() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise ImportError("a library cannot be loaded") from None


DROPPED = [
    falls_in_a_callback_from_c,
    falls_in_a_destructor,
    is_caught_by_a_library,
    becomes_another_error,
]


@pytest.mark.parametrize("drop", DROPPED)
def test_a_signal_that_somebody_drops_is_kept(
    drop: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """A34: at the latest the end of the block raises it, and no traceback is printed. Polled before, it is a command
    like any other."""
    with pytest.raises(Interrupted) as caught, listen_to_signals():
        drop()
    assert caught.value.reason == "preempted"
    assert capfd.readouterr().err == ""
    with listen_to_signals() as signals:
        with suppress(ImportError):
            drop()
        assert [(command.name, command.source) for command in signals()] == [("preempt", "SIGTERM")]
        assert signals() == []
    with pytest.raises(ZeroDivisionError), listen_to_signals() as signals:
        with suppress(ImportError):
            drop()
        signals()
        _ = 1 / 0  # of the work itself


@pytest.mark.parametrize("drop", DROPPED)
def test_a_signal_that_is_dropped_while_a_training_is_built_ends_it(
    drop: Callable[[], None], notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A34: the training stops at its first step, with a checkpoint, or as what the signal was made into: the run is
    preempted, never failed, and goes on."""

    def dropped(*arguments: Any) -> Any:
        drop()
        return build(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "build", dropped)
        try:
            _, outcome = train(toy_config(notes), tmp_path)
            assert outcome.reason == "preempted"
        except Interrupted:
            assert drop is becomes_another_error
    run = RunFolder(next(tmp_path.glob("detect/*")))
    assert run.description()["state"] == "preempted", run.description()
    assert resume(run).reason == "finished"


def test_a_signal_that_is_dropped_in_a_check_leaves_nothing_ready(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A34: whoever waits for the check must not hear that the run may begin."""
    run = RunFolder.create(tmp_path, toy_config(notes), {})

    def dropped(*arguments: Any) -> Any:
        is_caught_by_a_library()
        return build(*arguments)

    monkeypatch.setattr(training, "build", dropped)
    with pytest.raises(Interrupted):
        training.check(run, measured=False)
    assert run.description()["state"] == "created" and "RunChecked" not in run.events.read_text()


def test_a_signal_between_a_run_and_its_training_is_said_in_the_run(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A34: a run that was made can go on; one that was half made is gone."""

    def signalled(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(RunFolder, "write_config", signalled)
        train(toy_config(notes), tmp_path)
    assert not list(tmp_path.glob("detect/*"))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training._Session, "train", signalled)
        train(toy_config(notes), tmp_path)
    run = RunFolder(next(tmp_path.glob("detect/*")))
    assert run.description()["state"] == "preempted"
    assert resume(run).reason == "finished"


def test_a_second_ctrl_c_stops_a_run_at_once(notes: Path, tmp_path: Path) -> None:
    """A34: it is stopped, not failed."""

    def twice(event: Event) -> None:
        if isinstance(event, StepEnded):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(toy_config(notes), tmp_path, twice)
    run = RunFolder(next(tmp_path.glob("detect/*")))
    assert run.description()["state"] == run.description()["reason"] == "stopped"
    assert not [record for record in read_events(run.events) if record["type"] == "RunFailed"]


def test_a_signal_while_loader_processes_begin_leaves_none_of_them(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A34: they are deaf to SIGTERM, and this process would wait for them at its exit."""
    config = toy_config(notes, data={"workers": 2})
    batches = build(config, load_data(config)).train.epoch(0)
    begin_all = DataLoader.__iter__

    def signalled(loader: DataLoader) -> Any:
        begun = begin_all(loader)
        os.kill(os.getpid(), signal.SIGTERM)  # held back until all of them are there
        return begun

    monkeypatch.setattr(DataLoader, "__iter__", signalled)
    with pytest.raises(Interrupted) as caught, listen_to_signals():
        next(batches)
    wait_for(lambda: not multiprocessing.active_children(), 10)
    assert caught.value.reason == "preempted"


@pytest.mark.slow
@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_is_closed_loses_nothing(nohup: bool, notes: Path, tmp_path: Path) -> None:
    """A34: nothing can be printed any more; SIGHUP preempts the training with a checkpoint, and under nohup, which
    ignores it, the training goes on to its end."""
    terminal, shown = os.openpty()
    os.set_blocking(terminal, False)
    epochs = "12" if nohup else "5000"
    process = begin(
        "train", notes, "--epochs", epochs, "--home", tmp_path, *SETTINGS, shown=shown, nohup=nohup
    )
    os.close(shown)

    def trained() -> bool:
        with suppress(BlockingIOError):
            os.read(terminal, 65536)  # or it would wait for a reader
        return any(tmp_path.glob("detect/*/epochs.csv"))

    wait_for(trained)
    run = RunFolder(next(tmp_path.glob("detect/*")))
    os.close(terminal)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=120) == (0 if nohup else 143)
    assert run.description()["state"] == ("finished" if nohup else "preempted")
    assert list(run.weights.glob("*.pth"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_any_phase_ends_cleanly(number: int, notes: Path, tmp_path: Path) -> None:
    """A34: while torch is loaded, data are read, steps are made, epochs validated and saved; sent to the whole group,
    loader processes included. What was begun can go on; the exit code says who asked."""
    chance = random.Random(number)
    for _ in range(4):
        home = tmp_path / str(time.monotonic_ns())
        process = begin(
            "train", notes, "--epochs", "5000", "--home", home, *SETTINGS, "--set", "data.workers=2"
        )
        time.sleep(chance.uniform(1.0, 14.0))
        os.killpg(process.pid, number)
        printed, _ = process.communicate(timeout=90)
        code = 130 if number == signal.SIGINT else 143
        # before Python listens at all, the system's own answer stands
        assert process.returncode in (code, -number), printed
        assert "Traceback" not in printed, printed
        for run in map(RunFolder, home.glob("detect/*")):
            state = "stopped" if number == signal.SIGINT else "preempted"
            assert run.description()["state"] == state
            ready = lambda run=run: [record["type"] for record in read_events(run.events)].count("RunReady")
            before = ready()
            again = begin("resume", run.path)
            wait_for(lambda ready=ready, before=before: ready() > before)
            os.killpg(again.pid, signal.SIGKILL)
            again.communicate()


@pytest.mark.slow
def test_a_changed_configuration_is_shown_and_needs_a_yes(notes: Path, tmp_path: Path) -> None:
    """A12, A25, C1: without confirmation nothing changes and the exit code is 3; --yes goes on with the change."""
    stop = StopAt(2)
    run, _ = train(toy_config(notes), tmp_path, stop, signals=stop.signals)
    before = (run.path / "config.yaml").read_bytes()
    asked = begin("resume", run.path, "--set", "optimizer.lr=1e-3", "--set", "training.epochs=3")
    printed, _ = asked.communicate(timeout=60)
    assert asked.returncode == 3 and "optimizer.lr: 0.002 → 0.001  ⚠" in printed, printed
    assert (run.path / "config.yaml").read_bytes() == before
    agreed = begin("resume", run.path, "--set", "training.epochs=3", "--yes")
    printed, _ = agreed.communicate(timeout=120)
    assert agreed.returncode == 0 and "3/3" in printed, printed


@pytest.mark.slow
def test_two_processes_train_as_one(notes: Path, tmp_path: Path) -> None:
    """A27: torchrun on CPUs: the same global batch and nearly the same losses (batch norm sees half a batch each);
    only the leading process writes; the run can be stopped and resumed."""
    settings = [*SETTINGS, "--set", "training.epochs=4"]
    alone = begin("train", notes, "--home", tmp_path / "alone", *settings)
    printed, _ = alone.communicate(timeout=200)
    assert alone.returncode == 0, printed
    both = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "smartcash", "train", notes, "--home", tmp_path / "both", *settings),
        ],
        capture_output=True, text=True, env=ENGLISH, timeout=280,
    )  # fmt: skip
    assert both.returncode == 0, both.stdout + both.stderr
    assert len(list(tmp_path.glob("both/detect/*"))) == 1
    curves = []
    for home in ("alone", "both"):
        records = read_events(next(tmp_path.glob(f"{home}/detect/*/events.jsonl")))
        curves.append([record["row"]["train_loss"] for record in records if record["type"] == "EpochEnded"])
    assert curves[1] == pytest.approx(curves[0], rel=0.1)
    end = list(read_events(next(tmp_path.glob("both/detect/*/events.jsonl"))))[-1]
    assert end["type"] == RunFinished.__name__ and end["reason"] == "finished"

    home = tmp_path / "stopped"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "smartcash", "train", notes, "--home", home, *SETTINGS, "--set", "training.epochs=5000"),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENGLISH, start_new_session=True, text=True,
    )  # fmt: skip
    BEGUN.append(process)
    wait_for(lambda: list(home.glob("detect/*/epochs.csv")))
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=90)
    run = RunFolder(next(home.glob("detect/*")))
    assert run.description()["state"] == "preempted"
    epochs = len((run.path / "epochs.csv").read_text().splitlines()) + 1
    again = begin("resume", run.path, "--set", f"training.epochs={epochs}", "--yes")
    printed, _ = again.communicate(timeout=200)
    assert again.returncode == 0 and run.description()["state"] == "finished", printed


@pytest.mark.slow
def test_memory_and_open_files_do_not_grow_over_epochs(notes: Path, tmp_path: Path) -> None:
    """A28: over 30 epochs, loader processes and checkpoints included; in a process that has freed nothing before."""
    settings, seen = tmp_path / "config.yaml", tmp_path / "seen.json"
    settings.write_text(toy_config(notes, training={"epochs": 30}, data={"workers": 1}).to_yaml())
    code = f"""
import json, pathlib, psutil
from smartcash.domain.config import TrainConfig, read_yaml
from smartcash.domain.events import EpochEnded
from smartcash.worker import train
process, seen = psutil.Process(), []
def look(event):
    if isinstance(event, EpochEnded):
        seen.append((process.memory_info().rss, process.num_fds()))
train(TrainConfig.parse(read_yaml(pathlib.Path({str(settings)!r}))), pathlib.Path({str(tmp_path / "runs")!r}), look)
pathlib.Path({str(seen)!r}).write_text(json.dumps(seen))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=280)
    memory, files = zip(*json.loads(seen.read_text()))
    assert max(files[20:]) <= max(files[3:10])
    assert max(memory[20:]) < 1.05 * max(memory[3:10])


def test_a_configuration_folds_built_in_callbacks_into_its_sections() -> None:
    """A2: the five things of the document can be set; what every training has is written once."""
    config = TrainConfig.parse(
        {"training": {"callbacks": ["csv", {"use": "early_stopping", "options": {"patience": 4}}, "wandb"]}}
    )
    assert config.training.early_stopping.patience == 4
    assert [entry.use for entry in config.training.callbacks] == ["wandb"]


def test_a_line_that_is_no_command_is_left_out(tmp_path: Path) -> None:
    """D13: the control file is open to anyone; junk of any shape ends no training."""
    control = ControlFile(tmp_path / "control.jsonl")
    junk = [b"[" * 4000, b"{}", b"\xff\xfe", b'{"command": "epochs", "value": -1}', b'{"command": "dance"}']
    control.path.write_bytes(b"\n".join([*junk, b'{"command": "pause"}', b'{"command": "stop"']))
    assert control() == [Command("pause")]


def test_a_command_that_the_configuration_cannot_take_is_refused(notes: Path, tmp_path: Path) -> None:
    """D13, A11: fewer epochs than the warm-up has: a warning, and the training goes on as it was."""
    commander = Commander(tmp_path, {2: [Command("epochs", 1)]})
    config = toy_config(notes, training={"epochs": 3}, schedule={"warmup_epochs": 2})
    run, outcome = train(config, tmp_path, commander)
    warnings = [event.code for event in commander.heard if isinstance(event, Warned)]
    assert "command_refused" in warnings and outcome.progress.epoch == 3 == run.config().training.epochs
