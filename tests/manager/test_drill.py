"""The drill: at twenty random moments a worker, the process that holds the Training Service, or both are killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from smartcash import TrainingManager
from smartcash.services.run_store import RunFolder
from smartcash.services.training_service import ACTIVE, RESUMABLE

Toy = Callable[..., dict[str, Any]]
MOMENTS, SEEN_WITHIN_S = 20, 10.0
KINDS = ("worker", "holder", "both")

# brings the newest run of a home a step on its way, whatever happened to it, and watches it
HOLDER = """
import json, sys
from pathlib import Path
from smartcash import TrainingManager
manager = TrainingManager(sys.argv[1])
runs = [run for run in manager.service.store.runs() if run.state != "broken"]
if not runs:
    manager.apply(manager.check(json.loads(sys.argv[2])), significant=True)
    runs = manager.service.store.runs()
run = manager._run(runs[0].id)
state = manager.state(run)
if state == "created":
    manager.service.prepare(run)
if state in ("created", "checking"):
    manager.wait_ready(run)
if manager.state(run) == "ready":
    manager.start(run)
elif manager.state(run) not in ("checking", "queued", "running"):
    manager.resume(run)
for event in manager.watch(run):
    pass
"""


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


def killed(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def newest(home: Path) -> RunFolder | None:
    runs = [run for run in TrainingManager(home).service.store.runs() if run.state != "broken"]
    return RunFolder(Path(runs[0].path)) if runs else None


def true_state(home: Path, run: RunFolder) -> str:
    """The state that somebody who was not there sees, once it agrees with the processes there are."""
    manager, deadline = TrainingManager(home), time.monotonic() + SEEN_WITHIN_S
    while True:
        state = manager.state(run)
        if (state in ACTIVE) == bool(workers_of(run)):
            return state
        assert time.monotonic() < deadline, f"{state}, while the workers are {workers_of(run)}"
        time.sleep(0.1)


def goes_on(home: Path, run: RunFolder) -> None:
    """A stranger brings the run back to training."""
    manager = TrainingManager(home)
    state = manager.service.wait(run, ("created", "ready", "running", *RESUMABLE), timeout_s=120)
    if state == "created":
        manager.service.prepare(run)
        state = manager.service.wait(run, timeout_s=120)
    if state == "ready":
        manager.start(run)
    elif state in RESUMABLE:
        manager.resume(run)
    before = len([row for row in events(run) if row["type"] == "EpochEnded"])
    deadline = time.monotonic() + 120
    while len([row for row in events(run) if row["type"] == "EpochEnded"]) <= before:
        assert time.monotonic() < deadline, f"{manager.state(run)}: {run.description().get('error')}"
        time.sleep(0.2)
    assert manager.state(run) == "running"


def events(run: RunFolder) -> list[dict[str, Any]]:
    if not run.events.exists():
        return []
    return [json.loads(line) for line in run.events.read_bytes().split(b"\n")[:-1]]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_is_killed_the_state_is_true_and_the_run_goes_on(toy: Toy, tmp_path: Path) -> None:
    """A26, A34: preparing, queueing, training and resuming; the state is true within ten seconds, the events have no
    gap, and every fifth time a stranger brings the run back to training."""
    chance, home = random.Random(20), tmp_path / "home"
    values = json.dumps(toy(training={"epochs": 50_000, "previews": {"count": 0}}))
    seen: list[str] = []
    try:
        for moment in range(1, MOMENTS + 1):
            holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(home), values])
            kind = KINDS[moment % len(KINDS)]
            time.sleep(chance.uniform(0.3, 7.0))
            run = newest(home)
            if kind != "worker":
                holder.kill()
                holder.wait()
            if kind != "holder" and run is not None:
                killed(workers_of(run))
            run = newest(home)
            if run is not None:
                seen.append(f"{kind}: {true_state(home, run)}")
                if moment % 5 == 0:
                    goes_on(home, run)
            holder.kill()
            holder.wait()
        run = newest(home)
        assert run is not None and any("crashed" in each for each in seen), seen
        goes_on(home, run)
        manager = TrainingManager(home)
        manager.command(run, "stop")
        assert manager.service.wait(run, RESUMABLE, timeout_s=60) == "stopped"
        numbers = [row["seq"] for row in events(run)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert manager.log.verify().alteration is None
    finally:
        if (run := newest(home)) is not None:
            killed(workers_of(run))
    print("\n".join(seen))
