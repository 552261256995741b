"""The Training Service: makes runs, has workers prepare and train them, knows how each truly stands.

    created → checking → ready → queued → running ⇄ paused → stopping → stopped, preempted
                       ↘ failed                             ↘ finished, failed; crashed, when the worker died

What is true is in the run folders and in which processes live. The service keeps nothing in memory: it may end and
come back at any time, and any number of them may look at the same home.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import RunNotReady, RunNotResumable
from smartcash.domain.ports import Command
from smartcash.domain.records import ACTIVE
from smartcash.services.control import send_command
from smartcash.services.event_log import EventTail
from smartcash.services.processes import HEARTBEAT
from smartcash.services.run_info import found_dead
from smartcash.services.run_store import RunFolder, RunStore
from smartcash.services.workers import Turns, begin_worker, end_orphans, last_lines
from smartcash.utils.files import UNWRITABLE
from smartcash.utils.logger import get_logger

RESUMABLE = ("stopped", "preempted", "failed", "crashed")
ENDED = ("ready", "finished", *RESUMABLE)
POLL_S = 0.2


class TrainingService:
    """Everything that is done with the runs of one home while they are prepared and trained."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = RunStore(home)

    def create(self, config: TrainConfig, facts: dict[str, Any]) -> RunFolder:
        """A new run folder in state "created"."""
        return RunFolder.create(self.home, config, facts)

    def create_child(
        self, parent: RunFolder, config: TrainConfig, epochs_done: int, facts: dict[str, Any]
    ) -> RunFolder:
        """A new run folder that goes on where `parent` ended, with its checkpoints, once it is trained. Trained again,
        it is a training of so many epochs from the start: where its parent ended is no part of what was asked for."""
        origin = {"id": parent.id, "path": str(parent.path.absolute()), "epoch": epochs_done}
        asked = parent.asked().replaced(training={"epochs": config.training.epochs})
        return RunFolder.create(self.home, config, {**facts, "parent": origin}, asked=asked)

    def prepare(self, run: RunFolder) -> None:
        """Have a worker build everything, check the data and forecast: the run becomes ready, or failed.

        Raises RunNotReady for a run that is active."""
        self._require(run, ("created", *ENDED), "run_active")
        self._begin(run, "check", "checking")

    def start(self, run: RunFolder) -> None:
        """Train a run that is ready, when the device is free. Raises RunNotReady."""
        self._require(run, ("ready",), "run_not_ready")
        self._begin(run, "train", "queued")

    def resume(self, run: RunFolder) -> None:
        """Go on with a run that was stopped, has failed or crashed. Raises RunNotResumable."""
        self.require_resumable(run)
        self._begin(run, "train", "queued")

    def require_resumable(self, run: RunFolder) -> None:
        """Raises RunNotResumable for a run that was not stopped, has not failed and did not crash."""
        state = self.state(run)
        if state not in RESUMABLE:
            code = "run_finished" if state == "finished" else "run_not_stopped"
            raise RunNotResumable(code, run=run.id, state=state)

    def send(self, run: RunFolder, command: Command) -> None:
        """Let a command reach a run's worker. Raises RunNotReady when there is none."""
        self._require(run, ("queued", "running", "paused", "stopping"), "run_not_active")
        send_command(run.control, command)

    def state(self, run: RunFolder) -> str:
        """How the run stands now; a worker that died is noticed here, and the run becomes "crashed", written down where
        that is possible."""
        facts = found_dead(run.path)
        if facts is None:
            return str(run.description().get("state"))
        end_orphans(facts.get("worker") or {})
        heard = run.path / HEARTBEAT
        ended = datetime.fromtimestamp(heard.stat().st_mtime, UTC) if heard.exists() else datetime.now(UTC)
        crashed = {"state": "crashed", "was": facts["state"], "ended": ended.isoformat(timespec="seconds")}
        try:
            run.describe({**crashed, "error": last_lines(run)})
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            get_logger("runs").debug("%s: %s", run.path, error)
        return "crashed"

    def settle(self) -> list[RunFolder]:
        """Look at every run that is said to be active; those that turn out to have crashed."""
        active = [RunFolder(Path(run.path)) for run in self.store.runs() if run.state in ACTIVE]
        return [run for run in active if self.state(run) == "crashed"]

    def dead(self) -> list[RunFolder]:
        """The runs that are said to be active and whose worker has died; looks only."""
        active = [RunFolder(Path(run.path)) for run in self.store.runs() if run.state in ACTIVE]
        return [run for run in active if found_dead(run.path)]

    def waiting(self, config: TrainConfig) -> list[RunFolder]:
        """The runs in line for the device of `config`."""
        return Turns(self.home, config.runtime.device).waiting()

    def wait(self, run: RunFolder, states: Sequence[str] = ENDED, timeout_s: float | None = None) -> str:
        """Return the run's state as soon as it is one of `states`. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (state := self.state(run)) not in states:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{run.id} is {state}")
            time.sleep(POLL_S)
        return state

    def watch(self, run: RunFolder, after: int = 0) -> Iterator[dict[str, Any]]:
        """The run's events beyond number `after`, as they come, until it is no longer active."""
        tail = EventTail(run.events, after)
        while True:
            state = self.state(run)
            while records := tail.read():
                yield from records
            if state not in ACTIVE:
                return
            time.sleep(POLL_S)

    def _begin(self, run: RunFolder, mode: str, state: str) -> None:
        run.describe({"state": state, "worker": {}, "error": None, "ended": None, "problems": []})
        run.describe({"worker": begin_worker(run, mode)})

    def _require(self, run: RunFolder, states: Sequence[str], code: str) -> None:
        state = self.state(run)
        if state not in states:
            raise RunNotReady(code, run=run.id, state=state)
