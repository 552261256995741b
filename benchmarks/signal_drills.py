"""A real training, asked to end by a signal in each of its phases, resumed, and compared with one that nobody asked.

    python -m benchmarks.signal_drills [--drills 30] [--seed 0]

Phases: while it is built, in a training step, in a validation, while a checkpoint is written, and in its loader
processes (they get the signal alone and must not heed it, then the whole group does). Signals: SIGINT, SIGTERM, SIGHUP,
to the whole process group as a terminal or a scheduler sends them. Every drill is a process of its own: it must end
with the documented exit code and without a traceback, lose no step, and `smartcash resume` must bring it to the same
last state as the undisturbed training's: SHA-256 of model, averaged model, optimizer, schedule, scaler, counters and
best value; only times are left out.

Printed: every drill, then the counts. The exit code is 1 when any of this failed. It is not part of
`python -m benchmarks`: thirty drills take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.toys import assignments, toy_values
from smartcash.backend.trainer import state_digest
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder

PHASES = ("building", "step", "validation", "saving", "loader")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
COMMAND = [sys.executable, "-m", "smartcash"]
EPOCHS = 3
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Drill:
    """One drill: where the signal fell, how long the process took to end, what went wrong (empty: nothing)."""

    phase: str
    signal: str
    at: str
    ended_s: float
    problem: str


class Differs(Exception):
    """Something that must hold after a signal did not."""


class Training:
    """A training process of its own with its run folder, which is there when this is made."""

    def __init__(self, arguments: list[str], home: Path) -> None:
        self.output = home.with_suffix(".log")
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments, "--home", str(home)],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.until(lambda: list(home.glob("*/*/run.json")))
        self.run = RunFolder(next(home.glob("*/*/run.json")).parent)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait, looking every few milliseconds. Raises Differs if it ends or takes too long."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Differs(f"ended or stuck before the signal: {self.printed()}")
            time.sleep(0.002)

    def types(self) -> list[str]:
        """The kinds of its events so far."""
        return [record["type"] for record in read_events(self.run.events)]

    def printed(self) -> str:
        return self.output.read_text(errors="replace")[-2000:]


def drill(values: list[str], phase: str, number: signal.Signals, home: Path, chance: random.Random) -> Drill:
    """Train in `home`, send the signal in the phase, look at what is left, and go on to the end."""
    training = Training(["train", *values], home)
    try:
        _come_to(training, phase, number, chance)
        at = _latest(training)
        os.killpg(training.process.pid, number)
        began = time.monotonic()
        code = training.process.wait(PATIENCE_S)
        ended_s = time.monotonic() - began
    except subprocess.TimeoutExpired:
        return Drill(phase, number.name, at, PATIENCE_S, "it does not end")
    finally:
        if training.process.poll() is None:
            os.killpg(training.process.pid, signal.SIGKILL)
            training.process.wait()
    problem = _wrong_after(training, number, code) or _wrong_after_resuming(training, home)
    return Drill(phase, number.name, at, ended_s, problem)


def _come_to(training: Training, phase: str, number: signal.Signals, chance: random.Random) -> None:
    """Wait until the training is in the phase, at a random place of it."""
    if phase == "building":
        time.sleep(chance.uniform(0.0, 1.0))
        return
    epoch = chance.randrange(1, EPOCHS)
    training.until(lambda: training.types().count("EpochStarted") >= epoch)
    if phase == "validation":
        training.until(lambda: training.types().count("EvaluationStarted") >= epoch)
    elif phase == "saving":
        time.sleep(chance.uniform(0.0, 0.3))
        training.until(lambda: list(training.run.weights.glob(".*.tmp")))
    elif phase == "loader":
        process = psutil.Process(training.process.pid)
        training.until(process.children)
        known = len(training.types())
        for child in process.children():
            child.send_signal(number)
        training.until(lambda: len(training.types()) > known)
    else:
        time.sleep(chance.uniform(0.0, 0.5))


def _latest(training: Training) -> str:
    """The newest event, as the place where the signal falls."""
    return next(reversed(training.types()), "nothing")


def _wrong_after(training: Training, number: signal.Signals, code: int) -> str:
    """What is wrong with an ended process and what it left; empty if nothing is."""
    state = training.run.description()["state"]
    wanted = "stopped" if number == signal.SIGINT else "preempted"
    if code != CODES[number] or "Traceback" in training.printed():
        return f"exit code {code}: {training.printed()}"
    if state != wanted:
        return f"state {state}, not {wanted}"
    return ""


def _wrong_after_resuming(training: Training, home: Path) -> str:
    """Go on to the end; what is wrong, empty if nothing is: steps lost, or another exit code than 0."""
    records = list(read_events(training.run.events))
    done = max((each["step_in_run"] for each in records if each["type"] == "StepEnded"), default=0)
    answer = subprocess.run(
        [*COMMAND, "resume", str(training.run.path)],
        capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    if answer.returncode:
        return f"resume ended with {answer.returncode}: {answer.stderr}"
    after = list(read_events(training.run.events))[len(records) :]
    resumed = [each["step"] for each in after if each["type"] == "RunResumed"]
    if done > (resumed[0] if resumed else 0):
        return f"{done} steps were made, and it went on from {resumed}"
    return ""


def state_of(home: Path) -> str:
    """SHA-256 of the newest state in the home's one run, times left out."""
    weights = next(home.glob("*/*/weights"))
    return state_digest(CheckpointManager(output_dir=str(weights)).load_checkpoint(which="latest"))


def drills(folder: Path, count: int, seed: int) -> Iterator[Drill]:
    """So many drills, phases and signals in turn, each compared with one undisturbed training."""
    chance = random.Random(seed)
    notes = toy_values(
        folder / "notes",
        60,
        training={"epochs": EPOCHS, "early_stopping": {"patience": 50}},
        checkpoint={"every_steps": 1},
        data={"workers": 2},
    )
    values = [notes["data"].pop("path"), "--yes", *assignments(notes)]
    whole = Training(["train", *values], folder / "whole")
    if whole.process.wait(PATIENCE_S) != 0:
        raise SystemExit(whole.printed())
    wanted = state_of(folder / "whole")
    for number in range(count):
        home = folder / f"drill-{number}"
        phase, sent = PHASES[number % len(PHASES)], SIGNALS[number // len(PHASES) % len(SIGNALS)]
        try:
            done = drill(values, phase, sent, home, chance)
        except (Differs, psutil.NoSuchProcess) as error:
            done = Drill(phase, sent.name, "", 0.0, str(error))
        if not done.problem and state_of(home) != wanted:
            done = Drill(phase, sent.name, done.at, done.ended_s, "another last state")
        shutil.rmtree(home)
        yield done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    done: list[Drill] = []
    with tempfile.TemporaryDirectory() as folder:
        for each in drills(Path(folder), given.drills, given.seed):
            done.append(each)
            outcome = each.problem or f"ended in {each.ended_s:.1f} s, resumed to the same bits"
            print(f"{len(done)}: {each.signal} in {each.phase} (after {each.at}): {outcome}", flush=True)
    good = [each for each in done if not each.problem]
    for words in ("phase", "signal", "at"):
        counts = Counter(getattr(each, words) for each in done)
        print(f"{words}: {', '.join(f'{word} {count}' for word, count in counts.most_common())}")
    print(f"{len(good)} of {len(done)} ended cleanly, lost no step and came to the same bits")
    if good:
        print(f"the slowest took {max(each.ended_s for each in good):.1f} s to end")
    return 0 if len(good) == len(done) else 1


if __name__ == "__main__":
    sys.exit(main())
