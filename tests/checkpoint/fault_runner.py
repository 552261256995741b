"""Runs under the preloaded shim: injects one fault after the other, each in a forked child, and judges.

    LD_PRELOAD=fault_shim.so python fault_runner.py SCENARIO FOLDER FAULTS…   (prints one JSON object)

A scenario is set up with acknowledged saves, then armed. Afterwards a fresh manager opens the folder and
the promise of the documentation is checked; what is broken is listed, by fault and call.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import shutil
import sys
import traceback
from pathlib import Path

import torch
import torch._dynamo  # optimizers load it; not again in every child

from smartcash.domain.errors import CheckpointError
from smartcash.handlers.checkpoint import CheckpointManager

RECORD, KILL, FAIL_ONCE, FAIL_FROM, HALF_AND_KILL = range(5)
FAULTS = {
    "kill": (KILL, 0),
    "half-write-kill": (HALF_AND_KILL, 0),
    "EIO": (FAIL_ONCE, errno.EIO),
    "ENOSPC": (FAIL_FROM, errno.ENOSPC),
    "EDQUOT": (FAIL_FROM, errno.EDQUOT),
    "EFBIG": (FAIL_FROM, errno.EFBIG),
    "EACCES": (FAIL_ONCE, errno.EACCES),
    "EROFS": (FAIL_FROM, errno.EROFS),
}
CONFIG = {"model": {"backbone": "toy"}, "data": {"name": "faults"}}
quiet = logging.getLogger("faults")
quiet.setLevel(logging.CRITICAL + 1)


def toy(epoch: int) -> torch.nn.Module:
    """A model whose every weight is the epoch: what is loaded can be judged without a reference file."""
    model = torch.nn.Linear(32, 16)
    torch.nn.init.constant_(model.weight, epoch)
    torch.nn.init.constant_(model.bias, epoch)
    return model


def save(manager: CheckpointManager, epoch: int, ack: Path) -> None:
    """Save and, once committed, acknowledge outside the folder under test."""
    model = toy(epoch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager.save_checkpoint(model, optimizer, None, CONFIG, epoch, {"loss": 1 / epoch})["path"]
    with ack.open("a") as file:
        file.write(f"{epoch}\n")


def open_manager(folder: Path, **options: object) -> CheckpointManager:
    return CheckpointManager(folder / "weights", quiet, epoch_every=0, **options)  # type: ignore[arg-type]


def prepare(folder: Path, ack: Path) -> None:
    manager = open_manager(folder)
    for epoch in (1, 2, 3):
        save(manager, epoch, ack)
    manager.close()


def act(scenario: str, folder: Path, ack: Path) -> None:
    """The armed part."""
    manager = open_manager(folder, async_save=scenario != "save-sync")
    if scenario in ("save", "save-sync"):
        save(manager, 4, ack)
    elif scenario == "cleanup":
        manager.cleanup_checkpoints(max_checkpoints=1, keep_best=False)
    elif scenario == "history":
        model = toy(0)
        manager.load_checkpoint(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        manager.export_history_to_json()
    elif scenario == "copy":
        manager.copy_to_drive(folder / "drive", best_only=False)
    elif scenario == "doctor":
        manager.doctor(adopt=True)
    manager.close()


def child(
    scenario: str, folder: Path, ack: Path, arm: tuple[int, int, int], shim: ctypes.CDLL, log: str
) -> None:
    """0: done; 3: a named error, after which a new save must work; 1: anything else."""
    status = 0
    shim.fault_arm(str(folder).encode(), arm[0], ctypes.c_long(arm[1]), arm[2], log.encode())
    try:
        act(scenario, folder, ack)
    except CheckpointError:
        status = 3
    shim.fault_disarm()
    if arm[0] == RECORD:
        (folder.parent / "count").write_text(str(shim.fault_count()))
    if status == 3:
        manager = open_manager(folder)
        save(manager, 5, ack)
        manager.close()
    os._exit(status)


def run(
    scenario: str, folder: Path, arm: tuple[int, int, int], shim: ctypes.CDLL, log: str = ""
) -> list[str]:
    """One fault; returns what of the promise is broken."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folder.parent / "prepared", folder)
    if scenario == "doctor":
        next((folder / "weights").glob("*000002.json")).unlink()
        next((folder / "weights").glob("*000001.pth")).write_bytes(b"damaged")
    ack = folder.parent / "ack"
    shutil.copy(folder.parent / "prepared-ack", ack)
    pid = os.fork()
    if pid == 0:
        try:
            child(scenario, folder, ack, arm, shim, log)
        except BaseException:  # noqa: BLE001  (judged by the parent as broken)
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    broken = (
        ["something else than a CheckpointError was raised"] if os.waitstatus_to_exitcode(status) == 1 else []
    )
    return broken + judge(folder, max(map(int, ack.read_text().split())), scenario)


def judge(folder: Path, acknowledged: int, scenario: str) -> list[str]:
    """The promise, checked by a fresh manager."""
    broken = []
    manager = open_manager(folder)
    newest = manager.load_checkpoint(which="latest")
    if newest["epoch"] < acknowledged:
        broken.append(f"epoch {acknowledged} was acknowledged, {newest['epoch']} loads")
    if scenario != "doctor" and newest["fallback_from"] is not None:
        broken.append("the newest listed checkpoint is damaged")
    if not all((value == newest["epoch"]).all() for value in newest["model_state_dict"].values()):
        broken.append("silently wrong: weights of another epoch")
    best = manager.load_checkpoint(manager.find_best_checkpoint())
    if best["epoch"] != newest["epoch"]:
        broken.append("best is not the best")
    listed = {info.name for info in manager.list_checkpoints() if info.state == "ok"}
    if not listed <= {row["checkpoint_name"] for row in manager.get_training_history()["runs"]}:
        broken.append("a history row is lost")
    litter = [
        p.name for p in manager.output_dir.iterdir() if p.name.endswith(".tmp") or p.name.startswith(".del")
    ]
    loose = [info.name for info in manager.list_checkpoints() if info.state != "ok"]
    if litter or (loose and scenario != "doctor"):
        broken.append(f"litter: {litter + loose}")
    if scenario == "copy":
        manager.copy_to_drive(folder / "drive", best_only=False)
        for copy in (folder / "drive").iterdir():
            valid, info = manager.validate_checkpoint(copy.with_suffix(".pth"))
            if not valid or info["proof"] != "sha256":
                broken.append(f"a copy is damaged after copying again: {copy.name}")
    return broken


def main() -> None:
    scenario, place, *faults = sys.argv[1:]
    torch.set_num_threads(1)
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    base = Path(place)
    pid = os.fork()
    if pid == 0:
        prepare(base / "prepared", base / "prepared-ack")
        os._exit(0)
    os.waitpid(pid, 0)
    folder = base / "weights-under-test"
    broken = {"RECORD 0": run(scenario, folder, (RECORD, 0, 0), shim)}
    calls = int((base / "count").read_text())
    for fault in faults:
        action, error = FAULTS[fault]
        for call in range(1, calls + 1):
            broken[f"{fault} {call}"] = run(scenario, folder, (action, call, error), shim)
    print(
        json.dumps(
            {"calls": calls, "cases": len(broken) - 1, "broken": {k: v for k, v in broken.items() if v}}
        )
    )


if __name__ == "__main__":
    main()
