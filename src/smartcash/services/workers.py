"""Worker processes: begun, recognised, found dead, and their turns on a device.

A worker is `python -m smartcash worker RUN`: detached, leader of its own process group, and known by its number
*and* the moment it began, since numbers are used again. While it lives it touches `heartbeat` in the run folder,
which tells observers on other machines. One worker at a time has a device; the next waits its turn in a process that
costs next to nothing, so that a queue needs nobody to look after it.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from smartcash.services.processes import HEARTBEAT, identity, is_alive, is_same
from smartcash.services.run_store import RunFolder
from smartcash.utils.files import write_bytes

HEARTBEAT_S = 2.0
TURN_POLL_S = 0.5
LAST_LINES = 20


def begin_worker(run: RunFolder, mode: str) -> dict[str, Any]:
    """Start a detached worker in `mode` ("check" or "train"); returns how to recognise it."""
    command = [sys.executable, "-m", "smartcash", "worker", str(run.path.absolute()), mode]
    with (run.path / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    # its end is noticed by looking; this only lets the system forget it
    threading.Thread(target=process.wait, daemon=True).start()
    return identity(process.pid)


def end_orphans(worker: Mapping[str, Any]) -> int:
    """Kill what a dead worker of this machine left of its process group (loader processes); how many there were."""
    pid = worker.get("pid")
    if worker.get("host") != platform.node() or not isinstance(pid, int) or not hasattr(os, "getpgid"):
        return 0
    try:
        # dead, and not yet fetched by whoever began it, it holds its number all the same
        if not is_same(psutil.Process(pid), worker):
            return 0
    except psutil.NoSuchProcess:
        pass
    except (KeyError, ValueError, TypeError, OverflowError):
        return 0
    orphans = 0
    for process in psutil.process_iter():
        try:
            if process.pid != pid and os.getpgid(process.pid) == pid:
                os.kill(process.pid, signal.SIGKILL)
                orphans += 1
        except (ProcessLookupError, PermissionError):
            continue
    return orphans


def last_lines(run: RunFolder) -> str:
    """The end of what the worker printed."""
    try:
        whole = (run.path / "worker.log").read_bytes()[-20_000:]
    except FileNotFoundError:
        return ""
    return "\n".join(whole.decode(errors="replace").splitlines()[-LAST_LINES:])


@contextmanager
def heartbeat(run: RunFolder) -> Iterator[None]:
    """Touch the run's heartbeat file until the end of the block."""
    done = threading.Event()

    def beat() -> None:
        while True:
            (run.path / HEARTBEAT).touch()
            if done.wait(HEARTBEAT_S):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def device_key(device: str) -> str:
    """The name of what trainings on `device` share: every further card is one of its own; the first card, which
    `auto` and `cuda` mean where there is one, and everything else are together."""
    return device.replace(":", "-") if device.startswith("cuda:") and device != "cuda:0" else "default"


class Turns:
    """Whose turn it is on a device, first come, first served, among the runs of one home."""

    def __init__(self, home: Path, device: str) -> None:
        key = device_key(device)
        self.folder = home / ".queue" / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(home / ".queue" / f"{key}.lock")

    @contextmanager
    def at_once(self) -> Iterator[bool]:
        """Hold the device if it is free; gives False, and holds nothing, if it is not."""
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            self.lock.release()

    @contextmanager
    def waited_for(self, run: RunFolder, given_up: Callable[[], bool]) -> Iterator[bool]:
        """Wait in line and hold the device until the end of the block; gives False if `given_up` came first."""
        ticket = self.folder / f"{time.time_ns():020}-{secrets.token_hex(2)}"
        # whose it is, since another worker of the same run may come after this one; whole at once: an empty one is stale
        facts = {"run": str(run.path.absolute()), "worker": identity(os.getpid())}
        write_bytes(ticket, json.dumps(facts).encode())
        try:
            while not (held := self._first(ticket) and self._acquired()):
                if given_up():
                    break
                time.sleep(TURN_POLL_S)
        finally:
            ticket.unlink(missing_ok=True)
        try:
            yield held
        finally:
            if held:
                self.lock.release()

    def waiting(self) -> list[RunFolder]:
        """The runs in line, the next one first."""
        found = map(_facts, self._tickets())
        return [RunFolder(Path(facts["run"])) for facts in found if facts]

    def _tickets(self) -> list[Path]:
        """Tickets of living workers; those of dead ones are taken away."""
        living = []
        for ticket in _tickets_in(self.folder):
            if is_stale(ticket):
                ticket.unlink(missing_ok=True)
            else:
                living.append(ticket)
        return living

    def _first(self, ticket: Path) -> bool:
        return next(iter(self._tickets()), ticket) == ticket

    def _acquired(self) -> bool:
        try:
            self.lock.acquire(blocking=False)
        except Timeout:
            return False
        return True


def is_stale(ticket: Path) -> bool:
    """Whether nobody waits in line with this ticket any more: its worker is gone, or it is none."""
    facts = _facts(ticket)
    return facts is None or not is_alive(Path(facts["run"]), facts["worker"])


def _facts(ticket: Path) -> dict[str, Any] | None:
    """{run: its folder, worker: whose ticket it is}; None for a file that is gone, or none of ours."""
    try:
        facts = json.loads(ticket.read_bytes())
        whole = isinstance(facts["run"], str) and isinstance(facts["worker"], dict)
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return dict(facts) if whole else None


def stale_tickets(home: Path) -> list[Path]:
    """The tickets in all lines of a home that nobody waits with; looks only."""
    lines = [folder for folder in sorted(home.glob(".queue/*")) if folder.is_dir()]
    return [ticket for folder in lines for ticket in _tickets_in(folder) if is_stale(ticket)]


def _tickets_in(folder: Path) -> list[Path]:
    """The tickets of a line, the oldest first; one that is just being written is none yet."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
