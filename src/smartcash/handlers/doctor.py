"""The doctor: is this installation sound, and is everything in the home what it should be?

It looks, and changes nothing unless it is told to fix (what a crashed save left among checkpoints is completed or
removed by whoever opens that folder next, so also here). What it fixes loses nothing: a dead run is marked as crashed, so
that it can be resumed; damaged checkpoints are set aside; what crashed saves left is removed; the index is read anew.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

from smartcash import __version__
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, SmartCashError
from smartcash.domain.records import RunInfo
from smartcash.handlers.checkpoint import CheckpointInfo, CheckpointManager
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.run_info import is_alive, read_run
from smartcash.services.run_store import RunStore
from smartcash.services.training_service import TrainingService
from smartcash.services.workers import stale_tickets
from smartcash.utils.files import reason_of, remove, temporary_target
from smartcash.utils.i18n import current_language, text
from smartcash.utils.machine import (
    available_cores,
    free_disk,
    free_memory,
    is_writable_folder,
    memory_bytes,
    nearest_existing,
)

LEAST_PYTHON = (3, 11)
LOW_MEMORY_MB, LOW_DISK_MB = 1024, 1024
LITTER_S = 600.0  # a temporary file that nobody has touched for so long is nobody's
# name, least version, extra; a requirement for certain platforms or Pythons only does not match
_REQUIREMENT = re.compile(
    r"([\w.-]+)(?:\[[^]]*\])?\s*\(?(?:>=\s*([\d.]+))?[^;]*(?:;\s*extra\s*==\s*['\"]([\w-]+)['\"])?\s*"
)


@dataclass(frozen=True)
class Diagnosis:
    """One thing looked at. `area`: machine, packages or home; `severity`: ok, note, warning or error; `code` and
    `facts`: its texts `doctor.<code>` and, with a way out, `doctor.advice.<code>`; `fixed`: it was put right now."""

    area: str
    severity: str
    code: str
    facts: dict[str, Any] = field(default_factory=dict)
    fixed: bool = False

    @property
    def wrong(self) -> bool:
        """Whether something is to be done."""
        return self.severity in ("warning", "error") and not self.fixed

    def message(self, language: str | None = None) -> str:
        """What was found, in words."""
        return text(f"doctor.{self.code}", language, **self.facts)

    def advice(self, language: str | None = None) -> str:
        """What to do, or what was done; "" when there is nothing."""
        if self.severity == "ok":
            return ""
        return text(f"doctor.{'done' if self.fixed else 'advice'}.{self.code}", language, **self.facts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values with the words."""
        shown = {"message": self.message(), "advice": self.advice()}
        facts = {"severity": self.severity, "code": self.code, "facts": self.facts, "fixed": self.fixed}
        return {"area": self.area, **facts, **shown}


def examine(
    home: Path, torch_facts: Mapping[str, Any] | str, *, fix: bool = False, deep: bool = False
) -> Iterator[Diagnosis]:
    """Look at machine, packages and the home, in this order; findings come as they are made.

    `torch_facts`: `worker.torch_facts()`, or why torch could not be loaded. `fix`: put right what can be without
    a loss. `deep`: read every checkpoint and compare its checksum, instead of its size only."""
    yield from _machine(home)
    yield from _packages(torch_facts)
    if not home.is_dir():
        yield Diagnosis("home", "note", "home_missing", {"home": str(home)})
        return
    yield from _home(home, fix, deep)


def _machine(home: Path) -> Iterator[Diagnosis]:
    facts = {"smartcash": __version__, "python": platform.python_version(), "platform": platform.platform()}
    old = sys.version_info[:2] < LEAST_PYTHON
    yield Diagnosis("machine", "error" if old else "ok", "python", facts)
    cores = {"cores": available_cores(), "machine": os.cpu_count() or 1}
    yield Diagnosis("machine", "ok", "cores", cores)
    used, limit = memory_bytes()
    free = free_memory() >> 20
    memory = {"total": limit >> 20, "free": free, "used": used >> 20}
    yield Diagnosis("machine", "warning" if free < LOW_MEMORY_MB else "ok", "memory", memory)
    free = free_disk(home) >> 20
    disk = {"free": free, "home": str(home)}
    yield Diagnosis("machine", "warning" if free < LOW_DISK_MB else "ok", "disk", disk)
    if not is_writable_folder(home):
        nearest = str(nearest_existing(home))
        yield Diagnosis("machine", "error", "home_not_writable", {"home": str(home), "nearest": nearest})
    encoding = (sys.stdout.encoding or "").lower()
    spoken = {"spoken": current_language(), "encoding": encoding}
    yield Diagnosis("machine", "ok" if "utf" in encoding else "note", "language", spoken)


def _packages(torch_facts: Mapping[str, Any] | str) -> Iterator[Diagnosis]:
    missing: dict[str, list[str]] = {}
    old: dict[str, list[str]] = {}  # of those, what is there in a version that is too old
    extras: list[str] = metadata("smartcash").get_all("Provides-Extra") or []
    required: list[str] = metadata("smartcash").get_all("Requires-Dist") or []
    for line in required:
        match = _REQUIREMENT.fullmatch(line)
        if match is None:
            continue
        name, least, extra = match[1], match[2] or "", match[3] or ""
        if not _is_installed(name, least):
            wanted = f"{name}>={least}" if least else name
            missing.setdefault(extra, []).append(wanted)
            if _is_installed(name, ""):
                old.setdefault(extra, []).append(wanted)
    core = missing.get("", [])
    if core:
        yield Diagnosis("packages", "error", "packages_missing", {"packages": " ".join(core)})
    else:
        yield Diagnosis(
            "packages", "ok", "packages", {"count": sum("extra ==" not in line for line in required)}
        )
    if whole := [extra for extra in extras if extra not in missing]:
        yield Diagnosis("packages", "ok", "extras", {"extras": ", ".join(whole)})
    for extra in extras:
        if extra in missing and old.get(extra) == missing[extra]:
            facts = {"extra": extra, "packages": ", ".join(old[extra])}
            yield Diagnosis("packages", "note", "extra_old", facts)
    if absent := [extra for extra in extras if extra in missing and old.get(extra) != missing[extra]]:
        facts = {"extras": ", ".join(absent), "first": absent[0]}
        yield Diagnosis("packages", "note", "extras_missing", facts)
    if isinstance(torch_facts, str):
        yield Diagnosis("packages", "error", "torch_broken", {"reason": torch_facts})
        return
    yield Diagnosis(
        "packages", "ok", "torch", {key: torch_facts[key] for key in ("torch", "device", "precision")}
    )
    weights = ", ".join(torch_facts["weights"])
    yield Diagnosis("packages", "ok" if weights else "note", "weights", {"weights": weights or "–"})


def _is_installed(name: str, least: str) -> bool:
    try:
        found = version(name)
    except PackageNotFoundError:
        return False
    return _numbers(found) >= _numbers(least)


def _numbers(release: str) -> list[int]:
    return [int(part) for part in re.match(r"[\d.]*", release)[0].split(".") if part]  # type: ignore[index]


def _home(home: Path, fix: bool, deep: bool) -> Iterator[Diagnosis]:
    """One part after the other: what cannot be read is a finding, and the rest is looked at all the same."""
    service = TrainingService(home)
    try:
        runs = service.store.runs()
        at_work = {run.id for run in runs if is_alive(Path(run.path))}
    except OSError as error:
        yield _unreadable(error)
        return
    yield Diagnosis("home", "ok", "runs", {"count": len(runs), "home": str(home)})
    for run in runs:
        if run.state == "broken":
            why = text(f"runs.broken.{run.reason}", detail=run.detail)
            yield Diagnosis("home", "error", "run_broken", {"run": run.id, "reason": why, "path": run.path})
    resting = [run for run in runs if run.id not in at_work]
    parts = [
        # before the dead are marked, which changes the folders that it compares with
        _index(service.store, resting, fix),
        _dead_runs(service, fix),
        _queue(home, fix),
        _litter(home, [Path(run.path) for run in runs if run.id in at_work], fix),
        _operation_log(home),
        _data(home),
        *(_checkpoints(run, fix, deep) for run in resting if (Path(run.path) / "weights").is_dir()),
    ]
    for part in parts:
        try:
            yield from part
        except (SmartCashError, OSError) as error:
            yield _unreadable(error)


def _unreadable(error: SmartCashError | OSError) -> Diagnosis:
    place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return Diagnosis("home", "error", "unreadable", {"reason": f"{place}{reason_of(error)}"})


def _dead_runs(service: TrainingService, fix: bool) -> Iterator[Diagnosis]:
    for run in service.dead():
        finding = Diagnosis(
            "home", "warning", "run_dead", {"run": run.id, "state": run.description()["state"]}
        )
        if fix:
            service.state(run)
        yield replace(finding, fixed=fix)


def _queue(home: Path, fix: bool) -> Iterator[Diagnosis]:
    tickets = stale_tickets(home)
    if tickets:
        if fix:
            for ticket in tickets:
                remove(ticket)
        yield Diagnosis("home", "warning", "tickets_stale", {"count": len(tickets)}, fixed=fix)


def _litter(home: Path, at_work: list[Path], fix: bool) -> Iterator[Diagnosis]:
    """What crashed writes left; among checkpoints the CheckpointManager takes care of it."""
    old = time.time() - LITTER_S
    found = []
    for folder, _, names in os.walk(home):
        place = Path(folder)
        if place.name != "weights" and not any(place.is_relative_to(run) for run in at_work):
            litter = (place / name for name in names if temporary_target(name) is not None)
            found += [path for path in litter if _written(path) < old]
    if found:
        if fix:
            for path in found:
                remove(path)
        facts = {"count": len(found), "example": str(found[0])}
        yield Diagnosis("home", "warning", "litter", facts, fixed=fix)


def _written(path: Path) -> float:
    """When a file was last written; one that is gone by now counts as new."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def _index(store: RunStore, resting: list[RunInfo], fix: bool) -> Iterator[Diagnosis]:
    """Does the index say what the folders say? An edited config.yaml is not noticed by it; a run at work may have
    gone on between the two looks, so it is left out."""
    stale = [run.id for run in resting if read_run(Path(run.path)) != run]
    if stale:
        if fix:
            store.rebuild()
        facts = {"count": len(stale), "example": stale[0]}
        yield Diagnosis("home", "warning", "index_stale", facts, fixed=fix)


def _operation_log(home: Path) -> Iterator[Diagnosis]:
    log = OperationLog(home / "operations.jsonl")
    found = log.verify()
    if found.alteration is not None:
        reason = found.alteration.message()
        yield Diagnosis("home", "error", "log_altered", {"path": str(log.path), "reason": reason})
    else:
        yield Diagnosis("home", "ok", "log", {"count": found.entries})


def _data(home: Path) -> Iterator[Diagnosis]:
    """The data set of the configuration last confirmed."""
    confirmed = home / "confirmed.json"
    if not confirmed.exists():
        return
    try:
        known = json.loads(confirmed.read_text(encoding="utf-8"))
        path = TrainConfig.parse(known["config"]).data.path
    except (ValueError, KeyError, TypeError, ConfigInvalid) as error:
        facts = {"path": str(confirmed), "reason": f"{type(error).__name__}: {error}"}
        yield Diagnosis("home", "error", "confirmed_broken", facts)
        return
    there = Path(path).exists()
    yield Diagnosis("home", "ok" if there else "warning", "data" if there else "data_missing", {"path": path})


def _checkpoints(run: RunInfo, fix: bool, deep: bool) -> Iterator[Diagnosis]:
    folder = Path(run.path) / "weights"
    with CheckpointManager(folder) as manager:
        infos = manager.list_checkpoints()
        bad = [
            info.name for info in infos if not (_reads_well(manager, info) if deep else _looks_whole(info))
        ]
        if bad and fix:
            manager.doctor()
    facts = {"run": run.id, "count": len(infos), "folder": str(folder), "files": ", ".join(bad)}
    if bad:
        yield Diagnosis("home", "error", "checkpoints_damaged", facts, fixed=fix)
    else:
        yield Diagnosis("home", "ok", "checkpoints_read" if deep else "checkpoints", facts)


def _reads_well(manager: CheckpointManager, info: CheckpointInfo) -> bool:
    """Also of weights of another program: nobody here can make checkpoints of them, and they are left alone."""
    good, facts = manager.validate_checkpoint(info.path)
    return good or (
        info.state == "unverified"
        and facts["code"] in ("checkpoint_foreign", "checkpoint_incomplete", "checkpoint_untrusted")
    )


def _looks_whole(info: CheckpointInfo) -> bool:
    """Its size is the one written down; one whose sidecar is there and not believed is not whole."""
    if info.state == "unverified":
        return not info.sidecar.exists()
    return info.path.is_file() and info.path.stat().st_size == info.size
