"""What a process asks of the machine it runs on (utils/machine.py)."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat is Linux's own")
def test_other_programs_are_told_from_this_one_from_those_that_give_way_and_from_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A28: of ten seconds on the cores 2 and 6, this process computed four; numbers may have gaps."""
    monkeypatch.setattr(machine, "KERNEL_TIMES", tmp_path / "stat")
    monkeypatch.setattr(machine, "bound_cores", lambda: {2, 6})
    own, clock = iter([5.0, 9.0, 9.0]), iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(machine, "_cpu_seconds", lambda process: next(own))
    monkeypatch.setattr(machine.psutil.Process, "children", lambda self, recursive: [])
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    others = machine.OtherPrograms()

    def busy(*cores: str) -> float:
        (tmp_path / "stat").write_text("cpu  1 1 1 1\n" + "\n".join(cores) + "\nintr 7\n")
        return others.busy_cores()

    #             user nice system idle iowait irq softirq steal
    assert busy("cpu2 5000 100 100 300 50 0 0 50 0 0", "cpu4 1 1 1 1", "cpu6 9 0 0 200 0 0 0 0 0 0") == 0.0
    # 3 s idle, 1 s for a program that gives way, 1 s waiting for a disk, 1 s taken by the host: 14 of 20 s, 4 of them own
    told = busy("cpu2 5600 200 200 400 150 0 0 150 0 0", "cpu4 1 1 1 1", "cpu6 809 0 0 400 0 0 0 0 0 0")
    assert told == pytest.approx(1.0)
    assert busy("cpu0 1 0 0 1", "cpu1 1 0 0 1") == 0.0, "a container that shows other cores"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat is Linux's own")
def test_a_sandbox_that_tells_nothing_is_not_full_of_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A28: no file, or no core that was ever idle; a training must not end for it."""
    monkeypatch.setattr(machine, "KERNEL_TIMES", tmp_path / "stat")
    monkeypatch.setattr(machine, "bound_cores", lambda: {0})
    others = machine.OtherPrograms()
    assert others.busy_cores() == others.busy_cores() == 0.0
    (tmp_path / "stat").write_text("cpu  0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    assert others.busy_cores() == others.busy_cores() == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an ended process takes its figures along")
def test_a_program_of_somebody_else_keeps_a_core_busy() -> None:
    """A28: the real thing; begun by a process that ends at once, it is nobody's child here."""
    others = machine.OtherPrograms()
    others.busy_cores()
    orphan = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
    busy = "import time\nwhile time.process_time() < 2: pass"
    subprocess.run([sys.executable, "-c", orphan, busy], check=True)
    time.sleep(1.5)
    assert others.busy_cores() >= 0.25


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
