"""What this machine gives to this process: cores, memory, disk."""

from __future__ import annotations

import ctypes
import errno
import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

CGROUP = Path("/sys/fs/cgroup")
KERNEL_TIMES = Path("/proc/stat")
OWN_MEMORY = Path("/proc/self/maps")
OWN_GROUPS = Path("/proc/self/cgroup")  # one line per hierarchy: number:controllers:path
CPU_FILES = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # of version 1; version 2 has both in cpu.max
# of a control group, version 2 and 1: the limit, what is in use, and in memory.stat the pages of files, those of
# shared memory among them
MEMORY_FILES = (
    ("memory.max", "memory.current", "file", "shmem"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem"),
)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc; mallopt(3)
MADV_HUGEPAGE, LARGE_PAGE = 14, 2**21  # mman.h of Linux; madvise(2)


def available_cores() -> int:
    """Cores this process may use: those it is bound to, and no more than its container or job has time on."""
    return min([len(bound_cores()), *map(math.ceil, _core_limits())])


def bound_cores() -> set[int]:
    """The numbers of the cores on which this process may run."""
    return os.sched_getaffinity(0) if sys.platform == "linux" else set(range(os.cpu_count() or 1))


class OtherPrograms:
    """How busy others keep the cores on which this process may run: what they compute there beside this process and
    those that it has begun. Programs that give way to all others (`nice`) do not count."""

    def __init__(self) -> None:
        self._last: _Spent | None = None

    def busy_cores(self) -> float:
        """The mean number of cores since the last call; some seconds should lie between two. 0.0 the first time, and
        where the system does not tell."""
        last, self._last = self._last, _spent()
        if last is None or self._last is None or self._last.moment_s <= last.moment_s:
            return 0.0
        if sys.platform != "linux" and self._last.processes != last.processes:
            return 0.0  # what those that have ended had computed is told on Linux alone
        cores, elapsed_s = self._last.cores, self._last.moment_s - last.moment_s
        others_s = cores * elapsed_s - (self._last.free_s - last.free_s) - (self._last.own_s - last.own_s)
        return min(float(cores), max(0.0, others_s / elapsed_s))


@dataclass(frozen=True)
class _Spent:
    """Seconds until now: of a clock, those in which this process's cores were free, and those that it and its own
    processes computed."""

    moment_s: float
    cores: int
    free_s: float
    own_s: float
    processes: frozenset[int]


def _spent() -> _Spent | None:
    """None where the system does not tell."""
    bound = bound_cores()
    try:
        free_s = _free_seconds()
        this = psutil.Process()
        own = [this, *this.children(recursive=True)]
        own_s = sum(map(_cpu_seconds, own))
    except (psutil.Error, OSError):
        return None
    if not bound <= free_s.keys() or not any(free_s.values()):
        return None  # a container or sandbox that shows other cores than there are, or never an idle one
    processes = frozenset(process.pid for process in own)
    return _Spent(time.monotonic(), len(bound), sum(free_s[core] for core in bound), own_s, processes)


def _free_seconds() -> dict[int, float]:
    """By the number of each core: how long it was idle, worked for programs that give way, or was taken from a virtual
    machine by its host."""
    if sys.platform != "linux":
        return {core: times.idle for core, times in enumerate(psutil.cpu_times(percpu=True))}
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for line in KERNEL_TIMES.read_text().splitlines():
        if core := re.match(r"cpu(\d+) ", line):
            _, _, nice, _, idle, waiting, _, _, stolen, *_ = [*line.split(), *["0"] * 8]  # proc_stat(5)
            found[int(core[1])] = sum(map(int, (nice, idle, waiting, stolen))) / ticks
    return found


def _cpu_seconds(process: psutil.Process) -> float:
    """What a process and those of its children that have ended have computed; none when it has ended itself."""
    try:
        spent = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent.user + spent.system + spent.children_user + spent.children_system)


def memory_bytes() -> tuple[int, int]:
    """Bytes in use and bytes there are: of the container or job that leaves the least, else of the machine."""
    machine = psutil.virtual_memory()
    whole = machine.total - machine.available, machine.total
    return min(_memory_limits(machine.total), key=lambda each: each[1] - each[0], default=whole)


def free_memory() -> int:
    """Bytes that this process can still take: what its container leaves, and never more than the machine has."""
    used, limit = memory_bytes()
    return max(0, min(limit - used, int(psutil.virtual_memory().available)))


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, until it ends.

    A training step takes and frees the same large blocks again and again; glibc gives each back to the system, which
    then hands out every page of it anew, zeroed: up to an eighth of a step. Linux is also asked to make what the memory
    grows by of large pages, which are found sooner. Other C libraries are left as they are."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
        _ask_for_large_pages(libc)


def _ask_for_large_pages(libc: ctypes.CDLL) -> None:
    """Have Linux make what the heap will grow by of large pages: it is grown now, by addresses that no one touches yet."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes, libc.madvise.argtypes = (
        [ctypes.c_void_p],
        [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int],
    )
    libc.free(libc.malloc(free_memory() // 2))
    for line in _content(OWN_MEMORY).splitlines():
        if line.endswith("[heap]"):
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            start = -(-start // LARGE_PAGE) * LARGE_PAGE
            libc.madvise(start, max(0, end - start), MADV_HUGEPAGE)


def _core_limits() -> Iterator[float]:
    """How many cores' time each control group of this process has, where that is limited."""
    for folder in _control_groups("cpu"):
        told = _content(folder / "cpu.max") or " ".join(_content(folder / name) for name in CPU_FILES)
        quota, period, *_ = *told.split(), "", ""
        if quota.isdigit() and period.isdigit():  # "max" or -1: no limit
            yield int(quota) / int(period)


def _memory_limits(machine_bytes: int) -> Iterator[tuple[int, int]]:
    """Bytes in use and the limit of each control group of this process that has less than the machine."""
    for folder in _control_groups("memory"):
        for limit_file, used_file, cached, shared in MEMORY_FILES:
            limit = _content(folder / limit_file).strip()  # none: "max", or in version 1 a very large number
            if not limit.isdigit() or int(limit) >= machine_bytes:
                continue
            # pages of files can be given back, so they are not in use; those of shared memory cannot. Old kernels and
            # sandboxes do not tell of all of it
            stat = dict(line.split() for line in _content(folder / "memory.stat").splitlines())
            reclaimable = int(stat.get(cached, 0)) - int(stat.get(shared, 0))
            yield int(_content(folder / used_file) or 0) - max(0, reclaimable), int(limit)


def _content(file: Path) -> str:
    """What a file of the kernel says; nothing where it does not exist."""
    return file.read_text() if file.is_file() else ""


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in and of those around them, as far as they can be seen:
    a container sees its own as the topmost."""
    for line in _content(OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = CGROUP / controller if controllers else CGROUP
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that there is."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if os.path.lexists(each))


def is_writable_folder(path: Path) -> bool:
    """Whether the folder can be written in, or made where it does not exist yet. Leaves nothing behind."""
    nearest = nearest_existing(path)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return False
    return psutil.disk_usage(str(nearest)).total > 0 or _takes_a_folder(nearest)


def _takes_a_folder(folder: Path) -> bool:
    """What has no size is a drive that does not say, or no disk at all, such as /proc: only trying tells."""
    try:
        with TemporaryDirectory(dir=folder):
            return True
    except OSError:
        return False


def free_disk(path: Path) -> int:
    """Free bytes on the disk on which `path` lies, or would lie."""
    return int(psutil.disk_usage(str(nearest_existing(path))).free)


def cache_folder() -> Path:
    """Where lies what can be made again, such as unpacked archives: `SMARTCASH_CACHE`, else the user's cache folder."""
    if named := os.environ.get("SMARTCASH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "smartcash"


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises the OSError of a full disk where `folder` lies on one that has less room; a drive that does not say how
    large it is passes. For what writes through a library that words a full disk in its own way."""
    disk = psutil.disk_usage(str(nearest_existing(folder)))
    if disk.total and disk.free < needed_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def missing_drive(path: Path) -> Path | None:
    """The root of the Google Drive on which `path` should lie, if that Drive is not mounted; else None."""
    roots = (
        Path(*path.parts[: position + 1])
        for position, part in enumerate(path.parts)
        if part in ("MyDrive", "Shareddrives") or path.parts[: position + 1] == ("/", "content", "drive")
    )
    return next((root for root in roots if not root.is_dir()), None)
