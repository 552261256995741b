"""`training_history.yaml`: what was trained and saved, kept through every crash, rebuilt from the sidecars.

    total_runs: 2                     # training runs, not saves
    last_resume: {"checkpoint": …, "timestamp": …}
    runs:
    - {"checkpoint_name": …, "timestamp": …, "is_best": …, "epoch": …, "metrics": …, …}

Each row is one line of JSON, which is YAML 1.2 as well: a row is written and read in microseconds, where
a YAML parser takes milliseconds (10,000 rows: 0.1 s instead of a minute). Files of another shape, such as
those of the earlier layout, are read by ruamel.yaml within limits.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from smartcash.domain.errors import CheckpointCorrupt, CheckpointError
from smartcash.handlers.checkpoint.checkpoint_utils import (
    HISTORY_NAME,
    CheckpointFolder,
    CheckpointInfo,
    not_readable,
    plain_metrics,
    to_json,
    writing,
)
from smartcash.utils.files import write_bytes
from smartcash.utils.i18n import text

_HEADER = "# SmartCash training history, format 1: one line for each checkpoint\n"
_OWN_LIMIT = 1 << 28  # bytes
_FOREIGN_LIMIT = 1 << 22  # bytes; ruamel.yaml reads about 100 kB a second
_DEPTH_LIMIT = 20


class CheckpointHistory:
    """The history of one folder. Every committed checkpoint has its row, also after it was cleaned up."""

    def __init__(self, folder: CheckpointFolder, logger: logging.Logger) -> None:
        self._folder = folder
        self._logger = logger
        self._cached: tuple[object, dict[str, Any]] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder.path / HISTORY_NAME

    def get(self) -> dict[str, Any]:
        """`{"total_runs", "runs", "last_resume"}`, checkpoints whose row was lost in a crash included."""
        return self._complete(self._read_or_rebuild())

    def record(self) -> None:
        """Write the rows that are missing. With the folder's lock held.

        A history that cannot be written is logged, not raised: the checkpoint itself is committed, and the
        next call writes the row.
        """
        try:
            before = self._read_or_rebuild()
            after = self._complete(before)
            if len(after["runs"]) != len(before["runs"]) or not self.path.exists():
                self._write(after)
        except CheckpointError as error:
            self._logger.error(text("checkpoint.history_late", reason=str(error)))

    def record_resume(self, checkpoint_name: str) -> None:
        """Note that a training continues from this checkpoint."""
        with self._folder.locked():
            history = self.get()
            history["last_resume"] = {"checkpoint": checkpoint_name, "timestamp": _now()}
            self._write(history)

    def export_json(self, path: Path) -> Path:
        """Write the same content as JSON; returns `path`. Raises CheckpointWriteFailed."""
        with writing(path):
            write_bytes(path, (json.dumps(self.get(), indent=2, ensure_ascii=False) + "\n").encode())
        return path

    def _complete(self, history: dict[str, Any]) -> dict[str, Any]:
        rows = list(history["runs"])
        named = {row.get("checkpoint_name") for row in rows}
        rows += [_row(info) for info in self._folder.infos() if info.name not in named]
        runs = {row.get("run_id") for row in rows}
        return {"total_runs": len(runs), "last_resume": history["last_resume"], "runs": rows}

    def _read_or_rebuild(self) -> dict[str, Any]:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return {"total_runs": 0, "last_resume": None, "runs": []}
        except OSError as error:
            raise not_readable(self.path, error) from error
        stamp = stat.st_size, stat.st_mtime_ns, stat.st_ino
        if self._cached is not None and self._cached[0] == stamp:
            return self._cached[1]
        try:
            history = read_history(self.path)
        except CheckpointCorrupt as error:
            with self._folder.locked():
                moved = self._folder.quarantine(self.path)
            self._logger.warning(text("checkpoint.history_rebuilt", reason=str(error), path=str(moved)))
            return {"total_runs": 0, "last_resume": None, "runs": []}
        self._cached = stamp, history
        return history

    def _write(self, history: dict[str, Any]) -> None:
        lines = [_HEADER, f"total_runs: {history['total_runs']}\n"]
        lines += [
            f"last_resume: {json.dumps(history['last_resume'])}\n",
            "runs:\n" if history["runs"] else "runs: []\n",
        ]
        lines += [f"- {json.dumps(row, allow_nan=False)}\n" for row in history["runs"]]
        with writing(self.path):
            write_bytes(self.path, "".join(lines).encode())
            stat = self.path.stat()
        self._cached = (stat.st_size, stat.st_mtime_ns, stat.st_ino), history


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _row(info: CheckpointInfo) -> dict[str, Any]:
    row = {
        "checkpoint_name": info.name,
        "timestamp": info.timestamp,
        "is_best": info.kind == "best",
        "epoch": info.epoch,
        "metrics": info.metrics,
        "step": info.step,
        "kind": info.kind,
        "sequence": info.sequence,
        "run_id": info.run_id,
        "backbone": info.backbone,
        "dataset": info.dataset,
    }
    converted: dict[str, Any] = to_json(row)
    return converted


def read_history(path: Path) -> dict[str, Any]:
    """Read a history of ours or of the earlier layout.

    Raises CheckpointNotFound if it cannot be opened, CheckpointCorrupt for anything else: aliases (a few
    bytes of them make gigabytes), Python tags, duplicate keys, wrong shapes, more than 4 MB of foreign
    YAML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_OWN_LIMIT + 1)
    except OSError as error:
        raise not_readable(path, error) from error
    try:
        if len(data) > _OWN_LIMIT:
            raise ValueError("too large")
        content = data.decode()
        history = _own(content.splitlines()) if content.startswith(_HEADER) else _foreign(content)
        if not isinstance(history["runs"], list) or not all(isinstance(row, dict) for row in history["runs"]):
            raise ValueError("runs is not a list of mappings")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, YAMLError) as error:
        raise CheckpointCorrupt(
            "checkpoint_history_damaged", path=str(path), reason=str(error)[:200]
        ) from error
    return {"total_runs": 0, "last_resume": history.get("last_resume"), "runs": history["runs"]}


def _own(lines: list[str]) -> dict[str, Any]:
    if not (
        lines[1].startswith("total_runs: ")
        and lines[2].startswith("last_resume: ")
        and lines[3].startswith("runs:")
    ):
        raise ValueError("not the lines of a history")
    if any(not line.startswith("- ") for line in lines[4:]):
        raise ValueError("a row does not start with '- '")
    return {
        "last_resume": json.loads(lines[2].removeprefix("last_resume: ")),
        "runs": [json.loads(line[2:]) for line in lines[4:]],
    }


def _foreign(content: str) -> dict[str, Any]:
    if len(content) > _FOREIGN_LIMIT:
        raise ValueError(f"more than {_FOREIGN_LIMIT} bytes")
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(content):
        if isinstance(event, AliasEvent):
            raise ValueError("it holds YAML aliases")
        kind = type(event).__name__
        depth += kind.endswith(("SequenceStartEvent", "MappingStartEvent")) - kind.endswith(
            ("SequenceEndEvent", "MappingEndEvent")
        )
        if depth > _DEPTH_LIMIT:
            raise ValueError(f"nested deeper than {_DEPTH_LIMIT}")
    loaded = YAML(typ="safe", pure=True).load(content)
    if not isinstance(loaded, dict):
        raise ValueError("not a mapping")
    history = {"last_resume": loaded.get("last_resume"), "runs": loaded.get("runs") or []}
    converted: dict[str, Any] = json.loads(json.dumps(to_json(plain_metrics(history)), default=str))
    return converted
