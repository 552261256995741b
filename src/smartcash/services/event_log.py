"""A run's events: one JSON line each in `events.jsonl`, numbered, in order."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from smartcash.domain.events import Event


class EventLog:
    """Appends events; the sequence goes on where the file ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sequence = 0
        for record in read_events(path):
            self._sequence = record["seq"]
        _end_with_newline(path)
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
    """All whole events of a file, in order; a last line that a crash cut short is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n") and line.strip():
                record: dict[str, Any] = json.loads(line)
                yield record


def finite(value: Any) -> Any:
    """The same plain value with NaN and infinities as None: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _end_with_newline(path: Path) -> None:
    """Cut off a last line without an end: its writer died in the middle of it."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
