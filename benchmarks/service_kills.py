"""Background runs whose worker, whose service, or both are killed by SIGKILL at random moments.

    python -m benchmarks.service_kills [--rounds 100] [--most-seconds 8] [--seed 0]

In every round a process of its own holds the Training Service and begins a run, resumes one, waits with one for a busy
device, or watches one at work. After a random time the run's worker, that process, or both are killed. Then, for
somebody who was not there (`smartcash runs show`, another process), the state must be true within ten seconds: active
if and only if a worker lives. Nothing of a dead worker's process group may be left. A run whose service alone was
killed must not have noticed. And the run must go on until it has trained another step.

Printed: every round, then the counts. The exit code is 1 when any of this failed. It is not part of
`python -m benchmarks`: a hundred rounds take half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.toys import toy_values
from smartcash import TrainingManager
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder
from smartcash.services.training_service import ACTIVE, RESUMABLE
from smartcash.services.workers import Turns

TRUE_WITHIN_S = 10.0
GOES_ON_WITHIN_S = 120.0
VICTIMS = ("worker", "service", "both")
BEGINNINGS = ("begin", "begin", "wait", "resume", "resume", "watch")

# holds the Training Service: begins a new run, or goes on with the one named, and watches it
HOLDER = """
import json, sys
from smartcash import TrainingManager
from smartcash.services.training_service import RESUMABLE
manager, values, named = TrainingManager(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
if named:
    run = manager.find(named[0])
    if manager.state(run) in RESUMABLE:
        manager.resume(run)
else:
    run = manager.apply(manager.check(values), significant=True)
    manager.wait_ready(run)
    manager.start(run)
for event in manager.watch(run):
    pass
"""


@dataclass(frozen=True)
class Round:
    """What was done, what the run was at when it was struck, and what came of it. `problem`: empty when all held."""

    beginning: str
    victim: str
    at: str
    shown: str
    true_s: float
    on_s: float
    problem: str


class Untrue(Exception):
    """Something that must hold after a kill did not."""


def drill(home: Path, values: dict[str, Any], rounds: int, most_s: float, seed: int) -> Iterator[Round]:
    """So many rounds in `home`; ends with nobody at work. `most_s`: the longest time until the kill."""
    chance = random.Random(seed)
    run: RunFolder | None = None
    try:
        for number in range(rounds):
            beginning = "begin" if run is None else chance.choice(BEGINNINGS)
            victim, wait_s = VICTIMS[number % len(VICTIMS)], chance.uniform(0.3, most_s)
            try:
                done, run = _round(home, values, beginning, victim, wait_s, run)
            except Untrue as untrue:
                done, run = Round(beginning, victim, "", "", 0.0, 0.0, str(untrue)), None
                for each in _runs(home):  # the next round begins with none
                    _kill(workers_of(each))
                    each.path.rename(home.with_name(f"{home.name}-{each.id}"))
            yield done
    finally:
        for each in _runs(home):
            _kill(workers_of(each))


def _round(
    home: Path, values: dict[str, Any], beginning: str, victim: str, wait_s: float, run: RunFolder | None
) -> tuple[Round, RunFolder | None]:
    """One round; returns it and the run that trains now, None if there is none. Raises Untrue."""
    if run is not None and beginning != "watch":
        _kill(workers_of(run))
        _true_state(home, run)
        if beginning in ("begin", "wait"):  # it has shown what it can
            shutil.rmtree(run.path)
            run = None
    with ExitStack() as stack:
        if beginning == "wait":
            stack.enter_context(Turns(home, "auto").at_once())
        known = [] if run is None else [run.id]
        command = [sys.executable, "-c", HOLDER, str(home), json.dumps(values), *known]
        holder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(_end, holder)
        time.sleep(wait_s)
        run = run or _newest(home)
        if run is None:  # the service has not come so far: only it can be killed
            _end(holder)
            victim, run = "service", _newest(home)
        if run is None:
            return Round(beginning, victim, "nothing", "nothing", 0.0, 0.0, ""), None
        at = str(run.description()["state"])
        struck = workers_of(run) if victim != "service" else []
        if victim != "worker":
            _end(holder)
        _kill(struck)
        began = time.monotonic()
        try:
            shown = _true_state(home, run)
            true_s = time.monotonic() - began
            # without a worker its service was struck before it had begun one
            begun = bool(run.description().get("worker"))
            if victim == "service" and begun and at in ("ready", *ACTIVE) and shown in ("crashed", "failed"):
                raise Untrue(f"{shown}, and only its service was killed")
            if left := _in_groups_of(struck):
                raise Untrue(f"left of the dead worker: {left}")
            stack.close()  # nobody holds the device or the service any more
            began = time.monotonic()
            _goes_on(home, run)
        except Untrue as untrue:
            raise Untrue(f"struck at {at}: {untrue}") from untrue
        return Round(beginning, victim, at, shown, true_s, time.monotonic() - began, ""), run


def shown_state(home: Path, run: RunFolder) -> str:
    """The state that the command line shows, asked in a process of its own."""
    command = [sys.executable, "-m", "smartcash", "runs", "show", run.id, "--home", str(home), "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode:
        raise Untrue(f"runs show ended with {answer.returncode}: {answer.stderr}")
    return str(json.loads(answer.stdout)["state"])


def _true_state(home: Path, run: RunFolder) -> str:
    """The state shown, once it is true. Raises Untrue when it is not in time."""
    deadline = time.monotonic() + TRUE_WITHIN_S
    while True:
        shown, workers = shown_state(home, run), workers_of(run)
        if (shown in ACTIVE) == bool(workers):
            return shown
        if time.monotonic() > deadline:
            raise Untrue(f"shown as {shown} with {len(workers)} workers")


def _goes_on(home: Path, run: RunFolder) -> None:
    """Bring the run back to training, whatever it is at, as a stranger would. Raises Untrue."""
    manager, deadline = TrainingManager(home), time.monotonic() + GOES_ON_WITHIN_S
    steps = _steps(run)
    try:
        state = manager.service.wait(
            run, ("created", "ready", "queued", "running", *RESUMABLE), GOES_ON_WITHIN_S
        )
        if state == "created":
            manager.service.prepare(run)
            state = manager.service.wait(run, timeout_s=GOES_ON_WITHIN_S)
        if state == "ready":
            manager.start(run)
        elif state in RESUMABLE:
            manager.resume(run)
    except TimeoutError as late:
        raise Untrue(str(late)) from late
    while _steps(run) <= steps:
        state = manager.state(run)
        if state not in ACTIVE or time.monotonic() > deadline:
            raise Untrue(f"does not go on: {state}, {run.description().get('error')}")
        time.sleep(0.1)


def workers_of(run: RunFolder) -> list[psutil.Process]:
    """The living worker processes of a run, found without asking its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()  # empty for one that has ended and was not yet waited for
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if "worker" in command and str(run.path.absolute()) in command:
            found.append(process)
    return found


def _in_groups_of(dead: list[psutil.Process]) -> list[int]:
    """The living processes in the process groups that the dead ones led."""
    leaders, found = {process.pid for process in dead}, []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) in leaders and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _runs(home: Path) -> list[RunFolder]:
    """The runs of the home, oldest first."""
    found = (path.parent for path in home.glob("*/*/run.json"))
    return [RunFolder(path) for path in sorted(found, key=lambda path: path.name)]


def _newest(home: Path) -> RunFolder | None:
    return next(reversed(_runs(home)), None)


def _steps(run: RunFolder) -> int:
    """How many steps its events tell of; those that a kill undid count too."""
    return sum(record["type"] == "StepEnded" for record in read_events(run.events))


def broken_records(home: Path) -> list[str]:
    """What is wrong with the records that are left: events with a gap, an altered operation log."""
    found = []
    for path in sorted(home.glob("*/*/events.jsonl")):
        numbers = [record["seq"] for record in read_events(path)]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"{path}: a gap")
    if TrainingManager(home).log.verify().alteration is not None:
        found.append("the operation log")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--most-seconds", type=float, default=8.0, help="until a kill")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    done: list[Round] = []
    with tempfile.TemporaryDirectory() as folder:
        values = toy_values(Path(folder, "notes"), 20, training={"epochs": 50_000})
        home = Path(folder, "home")
        for each in drill(home, values, given.rounds, given.most_seconds, given.seed):
            done.append(each)
            outcome = each.problem or f"{each.shown} after {each.true_s:.1f} s, on after {each.on_s:.1f} s"
            print(f"{len(done)}: {each.beginning}; {each.victim} killed at {each.at}: {outcome}", flush=True)
        records = broken_records(home)
    times = [each.true_s for each in done if not each.problem]
    problems = [each.problem for each in done if each.problem]
    print(f"\n{len(done)} rounds: {_counts(each.victim for each in done)}")
    print(
        f"begun by: {_counts(each.beginning for each in done)}; struck at: {_counts(each.at for each in done)}"
    )
    print(f"true and gone on: {len(times)} of {len(done)}; records broken: {len(records)}")
    if times:
        print(f"true after {statistics.median(times):.1f} s (median), {max(times):.1f} s (most)")
    for problem in (*problems, *records):
        print(f"PROBLEM: {problem}")
    return 1 if problems or records else 0


def _counts(words: Iterator[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common())


if __name__ == "__main__":
    sys.exit(main())
