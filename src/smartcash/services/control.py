"""How wishes reach a training that runs: a file of commands in its run folder, and signals."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from smartcash.domain.ports import CHANGED, COMMANDS, Command
from smartcash.utils.logger import get_logger

_MAX_LINE = 4096


class ControlFile:
    """`control.jsonl`: one command a line, appended by anyone, read by the one worker of the run.

    A worker hears what is appended after it began: a pause of yesterday is not meant for today's resume."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = path.stat().st_size if path.exists() else 0

    def __call__(self) -> list[Command]:
        """The commands since the last call. A line that is no command is logged and left out."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return []
        if size <= self._read:
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            added = file.read(size - self._read)
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        return [command for line in whole.splitlines() if (command := _parsed(line)) is not None]


def send_command(path: Path, command: Command) -> None:
    """Append a command to the control file at `path`."""
    record = {"command": command.name, "value": command.value, "source": command.source, "time": time.time()}
    line = (json.dumps(record) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def _parsed(line: bytes) -> Command | None:
    record: object = None
    if len(line) <= _MAX_LINE:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
    if isinstance(record, Mapping):
        name, value, source = record.get("command"), record.get("value"), record.get("source", "")
        known = next((command for command in COMMANDS if command == name), None)
        number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100_000
        fits = number if known in CHANGED else number or value is None
        if known is not None and isinstance(source, str) and fits:
            return Command(known, value if number else None, source[:200])
    get_logger("control").warning("not a command: %r", line[:200])
    return None


class Interrupted(KeyboardInterrupt):
    """A signal came before there was a training to stop. `reason`: stopped (the user) or preempted (the system)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP as commands. While `immediate`, a signal raises Interrupted where it falls;
    otherwise it waits to be polled, and a second Ctrl-C raises KeyboardInterrupt.

    Not everything raised arrives: a callback from C, a destructor or a bare `except` in somebody's library drops
    it. So what fell there is a command as well; until that is polled, `fallen` is the reason."""

    def __init__(self) -> None:
        self.immediate = True
        self.fallen = ""
        self._commands: list[Command] = []
        self._told = False

    def __call__(self) -> list[Command]:
        """What has come since the last call."""
        commands, self._commands, self.fallen = self._commands, [], ""
        return commands

    def raise_fallen(self) -> None:
        """Raise Interrupted once more for a signal that fell and was not polled: somebody may have dropped it."""
        if self.fallen:
            raise Interrupted(self.fallen)

    def hear(self, number: int, frame: object) -> None:
        """The handler."""
        by_user = number == signal.SIGINT
        if self._told and by_user and not self.immediate:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        self._commands.append(Command("stop" if by_user else "preempt", source=name))
        if self.immediate:
            self.fallen = "stopped" if by_user else "preempted"
            raise Interrupted(self.fallen)
        self._told = True


def reason_of_interrupt(error: KeyboardInterrupt) -> str:
    """stopped, or preempted: how a run says that it was ended by this."""
    return error.reason if isinstance(error, Interrupted) else "stopped"


@contextmanager
def listen_to_signals() -> Iterator[Signals]:
    """Hear signals until the end of the block. Outside the main thread Python hears none; a SIGHUP that is ignored, as
    under nohup, stays so.

    Raises Interrupted at the end of a block in which a signal fell and was not polled, whatever became of it there."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [number for name in names if (number := getattr(signal, name, None)) is not None]
    before = {
        number: signal.signal(number, signals.hear)
        for number in numbers
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN
    }
    report = sys.unraisablehook

    def report_others(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Interrupted):  # that one is kept
            report(dropped)

    sys.unraisablehook = report_others
    try:
        yield signals
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
        # before Python 3.12, for one, a class that is being made puts what was raised within it into a RuntimeError
        signals.raise_fallen()
