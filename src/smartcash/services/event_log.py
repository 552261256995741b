"""A run's events: one JSON line each in `events.jsonl`, numbered, in order."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import lt
from pathlib import Path
from typing import IO, Any, BinaryIO

from pydantic_core import from_json

from smartcash.domain.events import Event

BLOCK = 1 << 17  # bytes that a tail reads at a time: their events fit into the cache of a processor
NEAR = 1 << 14  # bytes that are sooner read through than halved again


class EventLog:
    """Appends events; the sequence goes on where the file ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sequence = _prepared(path)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def append(self, event: Event) -> None:
        """Write one event, with its number and the time (seconds since 1970)."""
        self._sequence += 1
        record = {"seq": self._sequence, "time": round(time.time(), 3), **finite(event.to_dict())}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """All whole events of a file, in order; a last line that a crash cut short is left out, and so is one that a
    disk has damaged: the gap in `seq` shows it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and (event := _event(line)) is not None:
                yield event


def has_stepped(path: Path) -> bool:
    """Whether a training got as far as a step."""
    return any(event.get("type") == "StepEnded" for event in read_events(path))


def tail_events(
    path: Path, after: int = 0, *, stop: Callable[[], bool] = lambda: False, poll_s: float = 0.1
) -> Iterator[dict[str, Any]]:
    """Every whole event with a number above `after`, in order: those that are there, then each as it is appended.

    Waits `poll_s` between looks at the end of the file, for ever, or until `stop()`; what was written before
    that is still yielded. The file need not exist yet, and its writer may die and be started again."""
    tail = EventTail(path, after)
    while True:
        stopping = stop()
        while events := tail.read():
            yield from events
        if stopping:
            return
        time.sleep(poll_s)


class EventTail:
    """One reader's place in an event file; any number of them read without loss. Never blocks.

    The first look at a file finds its place by halving: numbers only grow along the file, so some twenty lines
    are read however long it is, and no index has to be kept beside it."""

    def __init__(self, path: Path, after: int = 0) -> None:
        self.path, self.after = path, after
        self._place = str(path)
        self._offset: int | None = None

    def has_grown(self) -> bool:
        """Whether there is anything behind the place. The cheapest look: the stream takes it forty times a second."""
        try:
            return os.stat(self._place).st_size != self._offset  # noqa: PTH116
        except FileNotFoundError:
            return False

    def read(self) -> list[dict[str, Any]]:
        """The next whole events, some hundred kilobytes of them at most; empty when there is none yet.

        A whole line that is no event (a disk's damage) is passed over; the gap in `seq` shows it."""
        if not self.has_grown():
            return []
        try:
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError:
            return []
        found: list[dict[str, Any]] = []
        with file:
            size = file.seek(0, 2)
            if self._offset is None or size < self._offset:  # shorter: another file has taken its place
                self._offset = _place_after(file, self.after, size)
            file.seek(self._offset)
            while not found and (block := file.read(BLOCK)):
                while b"\n" not in block and (more := file.read(BLOCK)):
                    block += more
                # a last line without its end is left: its writer may go on, or be replaced by one that cuts it
                *lines, rest = block.split(b"\n")
                if not lines:
                    break
                self._offset = file.seek(-len(rest), 1)
                found += self._beyond(_events(lines))
        return found

    def _beyond(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those with a number above `after`, which becomes the greatest. Whole lists at a time, as in `_events`."""
        numbers = [event["seq"] for event in events]
        if not numbers or (numbers[0] > self.after and all(map(lt, numbers, numbers[1:]))):
            found = events
        else:  # read from before the place, or damaged
            greatest = accumulate([self.after, *numbers], max)
            found = [event for event, before in zip(events, greatest) if event["seq"] > before]
        self.after = max([self.after, *numbers])
        return found


def _place_after(file: BinaryIO, after: int, size: int) -> int:
    """A byte offset where a line begins, close before the first event with a number above `after`."""
    low, high = 0, size if after > 0 else 0
    while high - low > NEAR:
        middle = (low + high) // 2
        file.seek(middle)
        # the rest of the line that `middle` cuts, then one whole line
        lines = file.read(NEAR).split(b"\n", 2)
        event = _event(lines[1]) if len(lines) == 3 else None
        if event is None or event["seq"] > after:
            high = middle
        else:
            low = middle + len(lines[0]) + 1 + len(lines[1]) + 1
    return low


def _events(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The events on whole lines, which are read as one array: that takes half the time, and counts where a page
    opens a run of 100,000 steps. Where one of them is damaged they are read one by one."""
    try:
        records = from_json(b"[%s]" % b",".join(lines))
    except ValueError:
        records = []
    if len(records) != len(lines):
        return [event for event in map(_event, lines) if event is not None]
    return [record for record in records if _is_event(record)]


def _event(line: bytes) -> dict[str, Any] | None:
    """The event on a line, or None if it is none. pydantic's reader takes a quarter of the time of json's."""
    try:
        record = from_json(line)
    except ValueError:
        return None
    return record if _is_event(record) else None


def _is_event(record: object) -> bool:
    return type(record) is dict and type(record.get("seq")) is int


def finite(value: Any, deepest: int = 100) -> Any:
    """The same plain value with NaN and infinities as None: JSON has neither. What lies deeper than `deepest` lists
    and objects is None too: nothing of ours does, and Python's stack has an end."""
    if isinstance(value, dict | list | tuple) and not deepest:
        return None
    if isinstance(value, dict):
        return {key: finite(item, deepest - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item, deepest - 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _prepared(path: Path) -> int:
    """Cut off a last line without an end (its writer died in the middle of it), and return the number of the last
    line, 0 if there is none. Read from the end: the last event says it, and damaged lines behind it had the next
    numbers."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size, span = file.seek(0, 2), NEAR
        while True:
            start = max(0, size - span)
            file.seek(start)
            *lines, torn = file.read().split(b"\n")
            whole = lines if start == 0 else lines[1:]
            for damaged, line in enumerate(reversed(whole)):
                if (event := _event(line)) is not None:
                    file.truncate(size - len(torn))
                    return int(event["seq"]) + damaged
            if start == 0:
                file.truncate(size - len(torn))
                return len(whole)
            span *= 8
