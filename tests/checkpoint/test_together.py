"""Many threads, many processes, a crash while holding the lock, a loss of power."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_toys import CONFIG, Toy

from smartcash.domain.errors import CheckpointNotFound
from smartcash.handlers.checkpoint import CheckpointManager

HERE = Path(__file__).parent


def mixed(manager: CheckpointManager, worker: int, operations: int) -> list[str]:
    """A random mixture of saves, questions, loads and cleanups; returns the names saved."""
    import torch

    choose, model, saved = random.Random(worker), torch.nn.Linear(4, 4), []
    for turn in range(operations):
        dice = choose.random()
        if dice < 0.15:
            result = manager.save_checkpoint(model, None, None, CONFIG, worker * 1000 + turn, {"loss": dice})
            saved.append(result["path"].name)
        elif dice < 0.2:
            manager.cleanup_checkpoints(max_checkpoints=4, keep_best=False)
        elif dice < 0.4:
            try:
                manager.load_checkpoint(which="latest")
            except CheckpointNotFound:
                assert turn < 100  # only before the first save of anyone
        elif dice < 0.6:
            manager.find_best_checkpoint()
        elif dice < 0.8:
            manager.filter_checkpoints(min_epoch=turn)
        else:
            manager.get_training_history()
    return saved


@pytest.mark.parametrize(
    "operations", [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.slow)]
)
def test_sixteen_threads_of_mixed_operations_lose_no_row_and_tear_no_file(
    manager: CheckpointManager, reopened: Callable[[], CheckpointManager], operations: int
) -> None:
    """B28, faults 8 and 9: also cleanup against load."""
    saved: list[str] = []
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            saved.extend(mixed(manager, worker, operations))
        except BaseException as error:  # noqa: BLE001  (reported below)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    fresh = reopened()
    rows = [row["checkpoint_name"] for row in fresh.get_training_history()["runs"]]
    assert sorted(rows) == sorted(saved) and len(set(saved)) == len(saved)
    assert all(fresh.validate_checkpoint(info.path)[0] for info in fresh.list_checkpoints())
    assert fresh.doctor()["healthy"]


PROCESSES = """
import logging, os, sys
sys.path.insert(0, sys.argv[1])
import torch._dynamo
from smartcash.handlers.checkpoint import CheckpointManager
from test_together import mixed
quiet = logging.getLogger("quiet"); quiet.setLevel(logging.CRITICAL); torch.set_num_threads(1)
children = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        with CheckpointManager(sys.argv[2], quiet, epoch_every=0) as manager:
            saved = mixed(manager, number, int(sys.argv[3]))
        os.write(1, "".join(name + "\\n" for name in saved).encode())
        os._exit(0)
    children.append(pid)
sys.exit(sum(os.waitpid(pid, 0)[1] for pid in children) != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "operations", [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.slow)]
)
def test_four_processes_in_one_folder_lose_no_row_and_tear_no_file(
    folder: Path, reopened: Callable[[], CheckpointManager], operations: int
) -> None:
    """B28, fault 8."""
    command = [sys.executable, "-c", PROCESSES, HERE, folder, str(operations)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fresh = reopened()
    rows = [row["checkpoint_name"] for row in fresh.get_training_history()["runs"]]
    assert sorted(rows) == sorted(done.stdout.split()) and rows
    assert fresh.doctor()["healthy"] and 2 <= fresh.get_training_history()["total_runs"] <= 4


HOLDER = """
import sys, time
from pathlib import Path
from smartcash.utils.files import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_crash_that_held_the_lock_blocks_nobody(manager: CheckpointManager, toy: Toy, folder: Path) -> None:
    """Fault 10: the kernel drops the lock with its owner; process ids mean nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        CheckpointManager(folder)  # a start does not wait for a writer
        result = toy.save(manager, 1)
        time.sleep(0.2)
        waited = not result.done()
        holder.send_signal(signal.SIGKILL)
    assert waited and result["sequence"] == 1


@pytest.mark.slow
def test_after_a_loss_of_power_at_any_point_the_newest_acknowledged_checkpoint_loads(
    shim: Path, tmp_path: Path
) -> None:
    """Fault 16: every file call is recorded; at each prefix what was not fsynced is dropped, then opened.

    Two disks: one that keeps names only after the fsync of their folder, and one that keeps them at once
    but not the bytes of files that were not fsynced.
    """
    done = subprocess.run(
        [sys.executable, HERE / "power_runner.py", tmp_path],
        env={**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    match = re.fullmatch(r"(\d+) prefixes, 0 broken\n", done.stdout)
    assert match and int(match[1]) > 100, done.stdout
