"""What a process asks of the machine it runs on (utils/machine.py)."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from smartcash.utils import machine


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes the place of /sys/fs/cgroup; the process is in /job/step of every hierarchy."""
    (tmp_path / "own").write_text(
        "5:memory:/job/step\n2:cpu,cpuacct:/job/step\n1:name=systemd:/\n0::/job/step\n"
    )
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    return tmp_path


def written(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_tightest_group_around_a_process_is_its_memory(groups: Path) -> None:
    """A28: a container sees its own group as the topmost, a job of a cluster lies below; pages of files can be given
    back, those of shared memory, in which loader processes hand pictures over, cannot."""
    stat = "anon 300000\nfile 600000\nshmem 200000"
    written(groups, memory__max="9000000", memory__current="900000", memory__stat=stat)
    assert machine.memory_bytes() == (500_000, 9_000_000)
    written(groups / "job" / "step", memory__max="1000000", memory__current="900000", memory__stat=stat)
    assert machine.memory_bytes() == (500_000, 1_000_000) and machine.free_memory() == 500_000
    written(groups, memory__max="max")
    written(groups / "job" / "step", memory__max="max")
    assert machine.memory_bytes()[1] > 9_000_000


def test_the_memory_of_an_older_container_is_known_too(groups: Path) -> None:
    """A28: control groups of version 1, where no limit is a very large number."""
    facts = {"memory__usage_in_bytes": "900000", "memory__stat": "total_cache 600000\ntotal_shmem 200000"}
    written(groups / "memory", memory__limit_in_bytes=str(2**63 - 4096), **facts)
    written(groups / "memory" / "job", memory__limit_in_bytes="1000000", **facts)
    assert machine.memory_bytes() == (500_000, 1_000_000)


@pytest.mark.parametrize("stat", [None, "total_cache 600000"])
def test_what_a_kernel_does_not_tell_is_not_asked_for(groups: Path, stat: str | None) -> None:
    """A28, A34: an old kernel has no total_shmem, a sandbox no memory.stat; without a limit nothing is read."""
    written(groups / "memory", memory__limit_in_bytes=str(2**63 - 4096))
    assert machine.memory_bytes()[1] < 2**60
    written(groups / "memory", memory__limit_in_bytes="1000000", memory__usage_in_bytes="900000")
    if stat:
        written(groups / "memory", memory__stat=stat)
    assert machine.memory_bytes() == (300_000 if stat else 900_000, 1_000_000)


def test_no_more_threads_than_a_container_has_time_for(groups: Path) -> None:
    """A28, D7: 64 threads on two cores' time would each wait for the others."""
    bound = machine.available_cores()
    written(groups / "job", cpu__max="max 100000")
    written(groups / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert machine.available_cores() == bound
    written(groups / "job", cpu__max="50000 100000")
    assert machine.available_cores() == 1
    (groups / "job" / "cpu.max").unlink()
    written(groups / "cpu" / "job" / "step", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert machine.available_cores() == 1


def test_what_other_programs_compute_is_told_from_what_this_one_does() -> None:
    """A28: a process of somebody else keeps a core busy; what this one and its own processes do is left out."""
    others = machine.OtherPrograms()
    spin_for(1.0)
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"], check=True)
    quiet = others.busy_cores()
    assert quiet <= len(machine.bound_cores()) - 0.2, "whatever else runs, this process had a share"
    # begun by a process that ends at once, it is nobody's child here
    orphan = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
    busy = "import time\nwhile time.process_time() < 2: pass"
    subprocess.run([sys.executable, "-c", orphan, busy], check=True)
    others.busy_cores()
    time.sleep(1.5)
    assert others.busy_cores() >= 0.25


def spin_for(seconds: float) -> None:
    """Compute for so long."""
    while seconds > 0:
        started = time.process_time()
        sum(range(100_000))
        seconds -= time.process_time() - started


def test_a_sandbox_that_tells_of_no_idle_core_is_not_full_of_other_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A28."""
    never = namedtuple("never", "user idle")(0.0, 0.0)
    monkeypatch.setattr(machine.psutil, "cpu_times", lambda percpu: [never] * 64)
    others = machine.OtherPrograms()
    time.sleep(0.01)
    assert others.busy_cores() == 0.0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_is_not_handed_out_anew():
    """D7: a large tensor that is made again and again costs page faults once."""
    code = """
import resource, torch
from smartcash.utils.machine import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    given_back, kept = map(int, told.split())
    assert kept < given_back / 10


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
@pytest.mark.skipif(
    not LARGE_PAGES.is_file() or "[madvise]" not in LARGE_PAGES.read_text(),
    reason="this system gives large pages to nobody, or to everybody",
)
def test_what_is_taken_after_that_is_made_of_large_pages():
    """D7: the heap has grown by addresses alone; what then is put there lies in pages of two megabytes."""
    code = """
import psutil, torch
from pathlib import Path
from smartcash.utils.machine import keep_freed_memory
def large():
    heaps = Path("/proc/self/smaps").read_text().split("[heap]")[1:]
    return sum(int(heap.split("AnonHugePages:")[1].split()[0]) for heap in heaps) // 1024
before = psutil.Process().memory_info().rss
keep_freed_memory()
grown = psutil.Process().memory_info().rss - before
kept = torch.ones(64_000_000)
print(grown // 2**20, large())
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    grown_mb, large_mb = map(int, told.split())
    assert grown_mb < 16
    assert large_mb > 128  # half of it at least: memory may be in small pieces
