"""Records three saves and a cleanup under the shim, then replays every prefix on two lazy disks."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

import torch
from fault_runner import RECORD, open_manager, save

from smartcash.domain.errors import CheckpointNotFound


def recorded(base: Path, shim: ctypes.CDLL) -> tuple[list[tuple[str, str, str, bytes]], list[int]]:
    """The file calls, and after how many of them each epoch was acknowledged."""
    folder, log, ack = base / "power", base / "log", base / "ack"
    folder.mkdir()
    manager = open_manager(folder)
    shim.fault_arm(str(folder).encode(), RECORD, ctypes.c_long(0), 0, str(log).encode())
    acknowledged = []
    for epoch in (1, 2, 3):
        save(manager, epoch, ack)
        acknowledged.append(log.stat().st_size)
    manager.cleanup_checkpoints(max_checkpoints=2, keep_best=False)
    shim.fault_disarm()
    manager.close()
    data, calls, at, counts = log.read_bytes(), [], 0, [0, 0, 0]
    while at < len(data):
        end = data.index(b"\n", at)
        call, a, b, size = data[at:end].decode().split("\t")
        at = end + 1
        content = b""
        if call == "write":
            content, at = data[at : at + int(size)], at + int(size)
        calls.append((call, a, b, content))
        for number, position in enumerate(acknowledged):
            counts[number] += at <= position
    return calls, counts


def disk_after(calls: list[tuple[str, str, str, bytes]], lazy_names: bool) -> dict[str, bytes]:
    """What a disk holds after these calls and a loss of power: path → content."""
    inodes: list[list[bytearray]] = []  # [all bytes, fsynced bytes]
    now: dict[str, int] = {}
    durable: dict[str, int] = {}
    for call, a, b, content in calls:
        if call == "open" and a not in now:
            inodes.append([bytearray(), bytearray()])
            now[a] = len(inodes) - 1
        elif call == "write":
            inodes[now[a]][0] += content
        elif call == "fsync" and a in now:
            inodes[now[a]][1][:] = inodes[now[a]][0]
        elif call == "fsync":
            durable = dict(now)
        elif call == "rename":
            now[b] = now.pop(a)
        elif call == "unlink":
            now.pop(a, None)
    names = durable if lazy_names else now
    return {path: bytes(inodes[inode][1]) for path, inode in names.items()}


def main() -> None:
    base = Path(sys.argv[1])
    torch.set_num_threads(1)
    calls, acknowledged = recorded(base, ctypes.CDLL(os.environ["LD_PRELOAD"]))
    folder, broken = base / "power", 0
    for prefix in range(len(calls) + 1):
        newest = sum(prefix >= count for count in acknowledged)
        for lazy_names in (True, False):
            shutil.rmtree(folder)
            (folder / "weights").mkdir(parents=True)
            for path, content in disk_after(calls[:prefix], lazy_names).items():
                Path(path).write_bytes(content)
            manager = open_manager(folder)
            try:
                epoch = manager.load_checkpoint(which="latest")["epoch"]
            except CheckpointNotFound:
                epoch = 0
            leftovers = [p.name for p in (folder / "weights").iterdir() if p.name.endswith(".tmp")]
            if epoch < newest or leftovers or (not manager.get_training_history()["runs"] and newest):
                broken += 1
                print(
                    f"prefix {prefix}, lazy names {lazy_names}: {newest} acknowledged, {epoch} loads",
                    file=sys.stderr,
                )
    print(f"{2 * (len(calls) + 1)} prefixes, {broken} broken")


if __name__ == "__main__":
    main()
