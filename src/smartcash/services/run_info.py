"""A run folder → one RunInfo. The folder may come from anywhere: nothing in it is trusted to have its shape."""

from __future__ import annotations

import csv
import json
import math
import re
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from smartcash.domain.errors import RunRefused
from smartcash.domain.records import OVER, RunInfo
from smartcash.services import processes
from smartcash.services.labels import read_labels
from smartcash.utils.printable import plain

MAX_BYTES = 4_000_000
# what a list shows of config.yaml; reading only that takes an eighth of the time
_WANTED = ("name:", "notes:", "tags:", "model:", "training:")
_WANTED_INSIDE = ("  backbone:", "  epochs:", "  monitor:", "  mode:")


class _Broken(Exception):
    """A file that is not what it should be: a code of [runs.broken], and the place."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


def read_run(path: Path) -> RunInfo:
    """The run in the folder `path`; one whose files cannot be read has the state "broken". Never raises for
    what is in the folder."""
    first = RunInfo(plain(path.name), str(path), plain(path.parent.name), "broken")
    try:
        return _read(path, first)
    except _Broken as error:
        return RunInfo(
            first.id, first.path, first.task, "broken", reason=error.code, detail=plain(error.detail)
        )


def is_alive(path: Path) -> bool:
    """Is the run in the folder `path` at work? It has not ended, and its worker lives, whatever else in the folder
    cannot be read. Where `run.json` itself cannot, its heartbeat says so."""
    try:
        facts = _json(path / "run.json")
    except _Broken:
        return processes.is_alive(path, {})
    state, worker = facts.get("state"), facts.get("worker")
    ended = isinstance(state, str) and state in OVER
    return not ended and isinstance(worker, dict) and processes.is_alive(path, worker)


def found_dead(path: Path) -> dict[str, Any] | None:
    """What `run.json` says of the run in the folder `path` if it is said to be active and nobody is at work on it;
    None of any other, and where it cannot be read."""
    try:
        facts = _json(path / "run.json")
        if not isinstance(facts.get("worker") or {}, dict) or not processes.has_died(path, facts):
            return None
        again = _json(path / "run.json")  # it may have ended properly in between
    except _Broken:
        return None
    return facts if again.get("state") == facts["state"] else None


def _read(path: Path, first: RunInfo) -> RunInfo:
    facts, config = _json(path / "run.json"), _config(path / "config.yaml")
    model, training = _table(config, "model"), _table(config, "training")
    data, state = _table(facts, "data"), _text(facts, "state")
    if not state:
        raise _Broken("value", "run.json: state")
    tags, notes, locked = _tags(config), _text(config, "notes"), False
    reason, detail = _text(facts, "reason"), _text(facts, "error")
    try:
        if (labels := read_labels(path)) is not None:
            tags, notes = tuple(map(plain, labels.tags)), plain(labels.notes)
            locked = labels.locked
    except RunRefused as error:  # the run is whole; what is said of it is not, so it is kept from harm
        locked, reason, detail = True, "labels", plain(str(error.facts["reason"]))
    done, best, best_epoch = _progress(path, facts, training)
    monitor = _text(training, "monitor")
    return RunInfo(
        id=first.id, path=first.path, task=_text(data, "task") or first.task, state=state,
        name=_text(config, "name"), backbone=_text(model, "backbone"),
        dataset=Path(_text(data, "path")).name, epochs_done=done, epochs=_number(training, "epochs", int),
        best_value=best, best_epoch=best_epoch, monitor="" if monitor == "auto" else monitor,
        metrics={plain(k): float(v) for k, v in _table(facts, "valid").items() if _is_number(v)},
        started=_time(facts, "started"), ended=_time(facts, "ended"), elapsed_s=_number(facts, "elapsed_s", float),
        tags=tags, notes=notes, locked=locked, parent=_text(_table(facts, "parent"), "id"), reason=reason, detail=detail,
    )  # fmt: skip


def _progress(
    path: Path, facts: dict[str, Any], training: dict[str, Any]
) -> tuple[int, float | None, int | None]:
    """Epochs done, best value and its epoch: what the end recorded; of a run at work again, or whose process died
    before it could record anything, what `epochs.csv` says."""
    recorded = _number(facts, "best_value", float), _number(facts, "best_epoch", int)
    done = _number(facts, "epochs_done", int)
    if "epochs_done" in facts and facts["state"] in OVER and facts["state"] != "crashed":
        return done or 0, *recorded
    raw = _bytes(path / "epochs.csv") if (path / "epochs.csv").exists() else b""
    try:
        rows = list(csv.DictReader(raw.decode("utf-8", "replace").splitlines()))
    except csv.Error as error:
        raise _Broken("not_csv", f"epochs.csv: {error}") from error
    values = [
        (_figure(row.get(_text(training, "monitor")) or ""), epoch) for epoch, row in enumerate(rows, 1)
    ]
    known = [(value, epoch) for value, epoch in values if value is not None]
    if not known:
        return len(rows), None, None
    choose = min if training.get("mode") == "min" else max
    value, epoch = choose(known, key=lambda pair: pair[0])
    return len(rows), value, epoch


def _figure(value: str) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bytes(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would never end
            raise _Broken("not_a_file", path.name)
        if found.st_size > MAX_BYTES:
            raise _Broken("too_large", path.name)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _Broken("missing", path.name) from error
    except OSError as error:
        raise _Broken("unreadable", f"{path.name}: {error.strerror}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise _Broken("not_json", f"{path.name}: {error}") from error
    if not isinstance(facts, dict):
        raise _Broken("not_json", path.name)
    return facts


def _config(path: Path) -> dict[str, Any]:
    """The parts of `config.yaml` that a list shows. In YAML a line that begins in column 0 begins a field, so
    fields can be cut out unread; likewise those inside a section that is indented by two."""
    try:
        wanted = ""
        for block in re.split(r"^(?=\w)", _bytes(path).decode(), flags=re.MULTILINE):
            if block.startswith(_WANTED):
                first, *inner = re.split(r"^(?=  \w)", block, flags=re.MULTILINE)
                wanted += first + "".join(each for each in inner if each.startswith(_WANTED_INSIDE))
        values = YAML(typ="safe", pure=True).load(wanted) or {}
    except (YAMLError, ValueError, RecursionError) as error:
        raise _Broken("not_yaml", path.name) from error
    if not isinstance(values, dict):
        raise _Broken("not_yaml", path.name)
    return values


def _table(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key) or {}
    if not isinstance(value, dict):
        raise _Broken("value", key)
    return value


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise _Broken("value", key)
    return plain(value or "")


def _tags(config: Mapping[str, Any]) -> tuple[str, ...]:
    tags = config.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise _Broken("value", "tags")
    return tuple(map(plain, tags))


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**63  # beyond, float() overflows
    return type(value) is float and math.isfinite(value)


def _number(values: Mapping[str, Any], key: str, kind: type) -> Any:
    """A finite number of one kind (a whole one counts as float), or None if there is none."""
    value = values.get(key)
    if value is None:
        return None
    if not _is_number(value) or (kind is int and type(value) is not int):
        raise _Broken("value", key)
    return kind(value)


def _time(values: Mapping[str, Any], key: str) -> str:
    """A time as UTC in ISO 8601, or ""."""
    value = _text(values, key)
    if not value:
        return ""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise _Broken("value", key) from error
    if moment.tzinfo is None:
        raise _Broken("value", key)
    try:
        return moment.astimezone(UTC).isoformat(timespec="seconds")
    except OverflowError as error:
        raise _Broken("value", key) from error
