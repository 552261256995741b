"""What a run records of the machine, the code and its results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from smartcash import __version__
from smartcash.backend.backbones import resolve_name, weights_at_hand
from smartcash.backend.builder import choose_device, choose_dtype
from smartcash.backend.trainer import (
    Outcome,
    peak_memory_mb,
)
from smartcash.domain.errors import BackboneUnknown, Problem

LOGGED = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "hotcoco")


def environment() -> dict[str, Any]:
    """Where and with what a run happened."""
    return {
        "smartcash": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in LOGGED},
        "git": git_revision(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "command": sys.argv,
        "pid": os.getpid(),
        "started": now(),
    }


def torch_facts() -> dict[str, Any]:
    """What a training would compute with on this machine, as plain values; for `smartcash doctor`."""
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    return {
        "torch": torch.__version__,
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "weights": weights_at_hand(),
    }


def backbone_problems(name: str) -> list[Problem]:
    """Nothing for the name of a backbone that timm knows."""
    try:
        resolve_name(name)
    except BackboneUnknown as error:
        return error.as_problems()
    return []


def resources() -> dict[str, float]:
    """What this process has used so far."""
    times = psutil.Process().cpu_times()
    facts = {"cpu_s": round(times.user + times.system, 1)}
    facts["peak_memory_mb"] = round(peak_memory_mb(torch.device("cpu")), 1)
    if torch.cuda.is_available():
        facts["peak_gpu_memory_mb"] = round(peak_memory_mb(torch.device("cuda")), 1)
    return facts


def git_revision() -> str | None:
    """The revision of the checkout this code runs from, "+changes" if it was edited; None for an installed one."""
    folder = Path(__file__).parent
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def results_of(outcome: Outcome) -> dict[str, Any]:
    """What a run records of its results."""
    return {
        "epochs_done": outcome.progress.epoch,
        "best_epoch": outcome.progress.best_epoch,
        "best_value": outcome.progress.best_value,
        "valid": outcome.best.scalars() if outcome.best else {},
        "test": outcome.test.scalars() if outcome.test else {},
    }


def ended(started: float) -> dict[str, Any]:
    return {
        "ended": now(),
        "elapsed_s": round(time.monotonic() - started, 1),
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
