"""A real training, killed again and again at random moments, against one that nobody disturbs.

    python -m benchmarks.resume_kills DATA [--kills 50] [--epochs 4] [--every-steps 10] [--most-seconds 16] [--seed 0]

Every attempt is a process of its own (`smartcash train`, then `smartcash resume`), killed by SIGKILL with its whole
group at a random moment after its first event. Reported: how many went on, the most steps that a kill cost, and
whether the last state has the same SHA-256 as the undisturbed training's (model, averaged model, optimizer, schedule,
scaler, counters, best value; only times are left out). The exit code is 1 when anything differs or did not go on.

It is not part of `python -m benchmarks`: it takes long, and wants data of one's own.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from smartcash.backend.trainer import state_digest
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--every-steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-seconds", type=float, default=16.0, help="of training before a kill")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    settings = [f"checkpoint.every_steps={given.every_steps}", *given.settings]
    begin = ["train", str(given.data), "--epochs", str(given.epochs), "--yes"]
    begin += [part for setting in settings for part in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, disturbed = Path(folder, "a"), Path(folder, "b")
        started = time.monotonic()
        subprocess.run([*COMMAND, *begin, "--home", undisturbed], check=True, stdout=subprocess.DEVNULL)
        print(f"undisturbed: {time.monotonic() - started:.0f} s", flush=True)
        kills, resumed, lost = killed_often(
            begin, disturbed, given.kills, given.most_seconds, random.Random(given.seed)
        )
        same = state_of(undisturbed) == state_of(disturbed)
    print(
        f"{kills} kills, {resumed} attempts went on after one, {len(lost)} of them from a step of their own"
    )
    print(f"steps lost by a kill: at most {max(lost, default=0)} (interval {given.every_steps})")
    print("the last state is", "bit for bit the undisturbed one's" if same else "ANOTHER")
    return 0 if same and resumed == kills and max(lost, default=0) <= given.every_steps else 1


COMMAND = [sys.executable, "-m", "smartcash"]


def killed_often(
    begin: list[str], home: Path, kills: int, most_s: float, chance: random.Random
) -> tuple[int, int, list[int]]:
    """Train with so many kills, then to the end: how many kills, how many attempts trained on or finished after one,
    and for each that says where it went on, the steps that the kill before it cost. Ends when an attempt fails by
    itself."""
    arguments: list[str | Path] = [*begin, "--home", home]
    lost: list[int] = []
    reached = heard = went_on = 0
    for kill in count():
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        run = _run_in(home, process)
        resumed = _wait_for_first_step(run, heard, process)
        went_on += kill > 0
        if kill and resumed is not None:
            lost.append(reached - resumed)
        try:
            code = process.wait(None if kill == kills else chance.uniform(0.0, most_s))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            if code != 0:
                raise SystemExit(f"attempt {kill + 1} ended with {code} by itself")
            print(f"finished after {kill} kills", flush=True)
            return kill, went_on, lost
        reached, heard = _steps(run), _last_event(run)
        print(f"kill {kill + 1}: after step {reached}, {lost[-1:] or ''}", flush=True)
        arguments = ["resume", run.path]


def _run_in(home: Path, process: subprocess.Popen[bytes]) -> RunFolder:
    while not (found := list(home.glob("*/*/run.json"))):
        if process.poll() is not None:
            raise SystemExit(f"it ended with {process.returncode} before it had a run folder")
        time.sleep(0.05)
    return RunFolder(found[0].parent)


def _wait_for_first_step(run: RunFolder, after: int, process: subprocess.Popen[bytes]) -> int | None:
    """Wait until an attempt trains whose events come behind number `after`, or has ended; the step it went on from,
    None for the very first and for one that had nothing left to train."""
    while True:
        code = process.poll()  # before reading: what it wrote before its end is seen
        records = [r for r in read_events(run.events) if r["seq"] > after] if run.events.exists() else []
        if any(record["type"] == "EpochStarted" for record in records):
            resumed = [record["step"] for record in records if record["type"] == "RunResumed"]
            return resumed[0] if resumed else None
        if code is not None:
            if code != 0:
                raise SystemExit(f"it ended with {code} before it trained")
            return None
        time.sleep(0.05)


def _last_event(run: RunFolder) -> int:
    return max((record["seq"] for record in read_events(run.events)), default=0)


def _steps(run: RunFolder) -> int:
    return max((r["step_in_run"] for r in read_events(run.events) if r["type"] == "StepEnded"), default=0)


def state_of(home: Path) -> str:
    """SHA-256 of the newest state, times left out."""
    weights = next(home.glob("*/*/weights"))
    return state_digest(CheckpointManager(output_dir=str(weights)).load_checkpoint(which="latest"))


if __name__ == "__main__":
    sys.exit(main())
