"""Processes as they can be recognised later: a number, the moment it began, and the machine; numbers are used
again."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from smartcash.domain.records import ACTIVE

HEARTBEAT = "heartbeat"
SILENT_S = 30.0  # an observer on another machine gives a worker up after so long without a heartbeat
SAME_START_S = 1.0
STARTING_S = 5.0  # a worker without its identity yet is given so long


def identity(pid: int) -> dict[str, Any]:
    """What to write down about a process."""
    try:
        begun = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        begun = time.time()
    return {"pid": pid, "begun": begun, "host": platform.node()}


def is_alive(folder: Path, worker: Mapping[str, Any]) -> bool:
    """Whether the worker that a run folder names still runs: on this machine by looking at the process, on another
    one by the heartbeat in the folder. What the folder says may have any shape."""
    if worker.get("host") != platform.node():
        try:
            return time.time() - (folder / HEARTBEAT).stat().st_mtime < SILENT_S
        except OSError:
            return False
    try:
        process = psutil.Process(worker["pid"])
        return is_same(process, worker) and bool(process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, ValueError, TypeError, OverflowError):
        return False


def is_same(process: psutil.Process, worker: Mapping[str, Any]) -> bool:
    """Whether a process with a worker's number is that worker: its number may be another's by now."""
    return bool(abs(process.create_time() - float(worker["begun"])) < SAME_START_S)


def has_died(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a run with these facts in its `run.json` is said to be active, and nobody is at work on it."""
    worker = facts.get("worker") or {}
    if facts.get("state") not in ACTIVE or is_alive(folder, worker):
        return False
    return bool(worker) or time.time() - (folder / "run.json").stat().st_mtime >= STARTING_S
