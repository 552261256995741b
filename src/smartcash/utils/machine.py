"""What this machine gives to this process: cores, memory, disk."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc; mallopt(3)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> tuple[int, int]:
    """Bytes in use and bytes there are: of this container where it has a limit, else of the machine."""
    machine = psutil.virtual_memory()
    limit_file = CGROUP / "memory.max"
    if (
        limit_file.is_file()
        and (limit := limit_file.read_text().strip()).isdigit()
        and int(limit) < machine.total
    ):
        # pages of files can be given back, so they are not in use; those of shared memory cannot
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        reclaimable = int(stat["file"]) - int(stat["shmem"])
        return int((CGROUP / "memory.current").read_text()) - reclaimable, int(limit)
    return machine.total - machine.available, machine.total


def free_memory() -> int:
    """Bytes that this process can still take: what its container leaves, and never more than the machine has."""
    used, limit = memory_bytes()
    return max(0, min(limit - used, int(psutil.virtual_memory().available)))


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, until it ends.

    A training step takes and frees the same large blocks again and again; glibc gives each back to the system, which
    then hands out every page of it anew, zeroed: up to an eighth of a step. Other C libraries are left as they are."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that there is."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if os.path.lexists(each))


def is_writable_folder(path: Path) -> bool:
    """Whether the folder can be written in, or made where it does not exist yet. Writes nothing."""
    nearest = nearest_existing(path)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def free_disk(path: Path) -> int:
    """Free bytes on the disk on which `path` lies, or would lie."""
    return int(psutil.disk_usage(str(nearest_existing(path))).free)


def missing_drive(path: Path) -> Path | None:
    """The root of the Google Drive on which `path` should lie, if that Drive is not mounted; else None."""
    roots = (
        Path(*path.parts[: position + 1])
        for position, part in enumerate(path.parts)
        if part in ("MyDrive", "Shareddrives") or path.parts[: position + 1] == ("/", "content", "drive")
    )
    return next((root for root in roots if not root.is_dir()), None)
