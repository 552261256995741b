"""What a page shows of one run: progress, story, log, previews, figures, checkpoints, files.

Only looks. A run folder may come from anywhere: what has not the shape it should have is refused, never passed on, and
no file outside of the folder is opened.
"""

from __future__ import annotations

import csv
import json
import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, RunNotFound, RunRefused
from smartcash.domain.patience import waited
from smartcash.domain.records import RunInfo
from smartcash.services.event_log import EventTail, finite
from smartcash.utils.files import temporary_target
from smartcash.utils.printable import plain

STEP = b'"type": "StepEnded"'  # in a line of the log; inside a text its quotes would be escaped
LAST_BYTES = 1 << 16  # of the events: some 200 steps
MAX_BYTES = 8_000_000
LINE_BYTES = 400  # of the log: guessed, to begin reading near the wanted line
SIDECAR = ("kind", "epoch", "step", "metrics", "monitor", "value", "size", "sha256", "timestamp", "sequence")
_PICTURE = re.compile(r"\d{3,6}\.jpg")
_EPOCH_FILE = re.compile(r"epoch_(\d{4,})\.json")
_HIDDEN_SUFFIXES = (".lock", ".tmp")


class RunView:
    """One run, looked at: its folder, and what lists know of it."""

    def __init__(self, info: RunInfo) -> None:
        self.info, self.path = info, Path(info.path)

    # how far it is

    def last_seq(self) -> int:
        """The number of the last event; 0 when there is none."""
        return max((int(record["seq"]) for record in self._last_events()), default=0)

    def progress(self) -> dict[str, Any]:
        """How far the run is, from its last events; figures that are not known yet are None. `phase`: wait (queued,
        being prepared or paused), train, validate or test. `share`: of all steps, 0 … 1; `eta_s`: seconds left."""
        found: dict[str, Any] = {
            "run": self.info.id, "name": self.info.name, "task": self.info.task, "state": self.info.state,
            "phase": "wait", "epoch": self.info.epochs_done, "epochs": self.info.epochs, "step": None,
            "steps": None, "step_in_run": None, "total_steps": None, "share": None, "eta_s": None, "loss": None,
            "lr": None, "images_per_s": None, "time": None, "seq": 0, "best_value": self.info.best_value,
            "best_epoch": self.info.best_epoch, "monitor": self.info.monitor, **self._patience(),
        }  # fmt: skip
        for record in self._last_events():
            found["seq"] = record["seq"]
            kind = record.get("type")
            if kind == "StepEnded":
                names = (
                    "epoch",
                    "step",
                    "steps",
                    "step_in_run",
                    "loss",
                    "lr",
                    "images_per_s",
                    "eta_s",
                    "time",
                )
                found |= {name: _number(record.get(name)) for name in names} | {"phase": "train"}
            elif kind == "EpochStarted":
                found |= {name: _number(record.get(name)) for name in ("epoch", "epochs", "time")}
                found |= {"phase": "train", "step": 0}
            elif kind == "EvaluationStarted":
                found["phase"] = "test" if record.get("split") == "test" else "validate"
        if self.info.state != "running":
            found["phase"] = "wait"
        if found["steps"] and found["epochs"]:
            found["total_steps"] = found["steps"] * found["epochs"]
            found["share"] = min(1.0, (found["step_in_run"] or 0) / found["total_steps"])
        return found

    def config(self) -> TrainConfig:
        """The configuration of the run. Raises ConfigInvalid for one of another version, or written by hand."""
        path = self.path / "config.yaml"
        return _config(path, path.stat().st_mtime_ns)

    def asked(self) -> TrainConfig:
        """What the run was asked for: see `RunFolder.asked`. Raises ConfigInvalid as `config`."""
        path = self.path / "asked.yaml"
        return _config(path, path.stat().st_mtime_ns) if self._is_own(path) else self.config()

    def _patience(self) -> dict[str, Any]:
        """`patience`: the epochs that early stopping waits (None: it is off, or not settled yet), and how many of
        them are left."""
        try:
            config = self.config() if self._is_own(self.path / "config.yaml") else None
        except ConfigInvalid:
            config = None
        if config is None:
            return {"patience": None, "patience_left": None}
        rule = config.training.early_stopping
        if not rule.patience or rule.monitor == "auto":
            return {"patience": rule.patience or None, "patience_left": rule.patience or None}
        left = max(0, rule.patience - waited(self._rows(), config).epochs)
        return {"patience": rule.patience, "patience_left": left}

    def _last_events(self) -> Iterator[dict[str, Any]]:
        """The events at the end of the log; of the steps among them the last one alone, since all are asked once a
        second."""
        events = self.path / "events.jsonl"
        if not events.is_file():
            return
        with events.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LAST_BYTES))
            lines = file.read().split(b"\n")[(1 if size > LAST_BYTES else 0) : -1]
        found: list[dict[str, Any]] = []
        step_found = False
        for line in reversed(lines):
            if STEP in line and step_found:
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and type(record.get("seq")) is int:
                step_found = step_found or STEP in line
                found.append(record)
        yield from reversed(found)

    # what happened

    def story(self, after: int = 0, limit: int = 500) -> list[dict[str, Any]]:
        """The first `limit` events beyond number `after`, without the steps."""
        tail = EventTail(self.path / "events.jsonl", after)
        found: list[dict[str, Any]] = []
        while len(found) < limit and (records := tail.read()):
            found += [finite(record) for record in records if record.get("type") != "StepEnded"]
        return found[:limit]

    def log(self, *, before: int | None = None, after: int | None = None, lines: int = 200) -> dict[str, Any]:
        """Whole lines of `train.log` that end at byte `before` (default: the end of the file), the last `lines` of
        them; or those that begin at byte `after`, the first `lines`. `start` and `end`: their place in bytes."""
        path = self.path / "train.log"
        size = path.stat().st_size if self._is_own(path) else 0
        if not size:
            return {"lines": [], "start": 0, "end": 0, "size": 0}
        with path.open("rb") as file:
            if after is not None:
                file.seek(min(after, size))
                start, read = file.tell(), file.read(lines * LINE_BYTES)
                whole = read[: read.rfind(b"\n") + 1]
                rows = whole.splitlines(keepends=True)[:lines]
            else:
                end = size if before is None else min(before, size)
                start = max(0, end - lines * LINE_BYTES)
                file.seek(start)
                read = file.read(end - start)
                whole = read[: read.rfind(b"\n") + 1]
                if start:
                    start += whole.find(b"\n") + 1
                    whole = whole[whole.find(b"\n") + 1 :]
                rows = whole.splitlines(keepends=True)
                start += sum(map(len, rows[:-lines]))
                rows = rows[-lines:]
        shown = [plain(row.decode(errors="replace").rstrip("\r\n")) for row in rows]
        return {"lines": shown, "start": start, "end": start + sum(map(len, rows)), "size": size}

    def epochs(self) -> dict[str, list[float | None]]:
        """`epochs.csv` by column; a value that is no finite number is None."""
        rows = self._rows()
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}

    def _rows(self) -> list[dict[str, float | None]]:
        path = self.path / "epochs.csv"
        if not self._is_own(path):
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        rows = []
        for number, row in enumerate(csv.DictReader(lines), 1):
            values = {plain(name): _parsed(value) for name, value in row.items() if isinstance(name, str)}
            epoch = values.get("epoch")
            rows.append({**values, "epoch": float(number) if epoch is None else epoch})
        return rows

    # what came of it

    def description(self) -> dict[str, Any]:
        """The facts in `run.json`."""
        return self._json(self.path / "run.json")

    def report(self) -> dict[str, Any] | None:
        """Every figure of the best epoch on validation and test; None before there are any."""
        path = self.path / "report" / "metrics.json"
        return self._json(path) if path.exists() else None

    def previews(self) -> dict[str, Any]:
        """Classes, pictures and the epochs whose predictions are kept; see `backend.previews`."""
        folder = self.path / "previews"
        if not (folder / "index.json").exists():
            return {"classes": [], "pictures": [], "epochs": []}
        index = self._json(folder / "index.json")
        classes, pictures = (
            each if isinstance(each, list) else [] for each in (index.get("classes"), index.get("pictures"))
        )
        epochs = (_EPOCH_FILE.fullmatch(path.name) for path in folder.iterdir())
        return {
            "classes": [each for each in classes if isinstance(each, str)],
            "pictures": [each for each in pictures if isinstance(each, dict)],
            "epochs": sorted(int(found[1]) for found in epochs if found),
        }

    def preview(self, epoch: int) -> dict[str, Any]:
        """What was found in the pictures after an epoch. Raises RunNotFound."""
        return self._json(self.path / "previews" / f"epoch_{epoch:04}.json")

    def preview_picture(self, name: str) -> Path:
        """The file of a preview's picture. Raises RunNotFound."""
        if not _PICTURE.fullmatch(name):
            raise RunNotFound("run_file_missing", run=self.info.id, name=name)
        return self.file(f"previews/{name}")

    def checkpoints(self) -> list[dict[str, Any]]:
        """The facts of every committed checkpoint, newest first, as their sidecars have them; `state`: ok, or broken
        for one whose sidecar cannot be read."""
        found = []
        for path in (self.path / "weights").glob("*.json"):
            weights = path.with_suffix(".pth")
            if weights.is_file():
                try:
                    kept = self._json(path)
                    facts = {name: kept.get(name) for name in SIDECAR} | {"state": "ok"}
                except (RunRefused, RunNotFound):
                    facts = dict.fromkeys(SIDECAR) | {"state": "broken"}
                found.append({"name": plain(weights.name), **facts})
        return sorted(
            found, key=lambda each: str(each["name"])[-10:], reverse=True
        )  # they end in their number

    def is_saved(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return any(path.with_suffix(".pth").is_file() for path in (self.path / "weights").glob("*.json"))

    def files(self) -> list[dict[str, Any]]:
        """Every file of the run that may be downloaded: its path below the folder, size in bytes, time."""
        found = []
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if self._may_be_had(path, name):
                known = path.stat()
                found.append({"path": plain(name), "size": known.st_size, "modified": known.st_mtime})
        return found

    def file(self, name: str) -> Path:
        """The file with this path below the run's folder. Raises RunNotFound, also for what lies outside of it."""
        path = self.path / name
        if "\0" in name or not self._may_be_had(path, name):
            raise RunNotFound("run_file_missing", run=self.info.id, name=plain(name))
        return path

    def _may_be_had(self, path: Path, name: str) -> bool:
        hidden = any(part.startswith(".") for part in name.split("/")) or path.suffix in _HIDDEN_SUFFIXES
        return not hidden and temporary_target(path.name) is None and self._is_own(path)

    def _is_own(self, path: Path) -> bool:
        """Whether it is an ordinary file that really lies in the folder: no link, no pipe, nothing through a link."""
        try:
            ordinary = stat.S_ISREG(path.lstat().st_mode)
        except OSError:
            return False
        return ordinary and os.path.realpath(path).startswith(os.path.realpath(self.path) + os.sep)

    def _json(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.path).as_posix()
        if not self._is_own(path):
            raise RunNotFound("run_file_missing", run=self.info.id, name=name)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"{path.stat().st_size} bytes")
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict):
                raise ValueError(type(values).__name__)
        except (OSError, ValueError, RecursionError) as error:
            raise RunRefused("run_file_broken", run=self.info.id, name=name, reason=str(error)) from error
        found: dict[str, Any] = finite(values)
        return found


@lru_cache(maxsize=32)
def _config(path: Path, changed_ns: int) -> TrainConfig:
    """The configuration in a file that was last changed then: reading YAML takes 40 ms, and progress is looked at
    every second."""
    return TrainConfig.from_yaml(path)


def _parsed(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return finite(number)  # type: ignore[no-any-return]


def _number(value: object) -> float | int | None:
    """A number of JSON, or None for anything else."""
    if type(value) is int and abs(value) < 2**53:
        return value
    return finite(value) if type(value) is float else None
