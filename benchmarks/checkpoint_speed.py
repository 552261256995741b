"""How long a save blocks, how long until it is durable, how fast a big folder answers. Prints ratios.

    python benchmarks/checkpoint_speed.py [--folder DIR] [--repeat 5] [--small]

Bytes: efficientnet_b4 with AdamW moments (about 233 MB). Floors: one plain memory copy of the same bytes
into memory that exists; a raw write + fsync + rename + fsync of the folder of the same bytes. `torch.save`
is timed as people use it. All take turns in one process on one file system, every file is new (deleting the
last one is not timed), and a ratio is the median of the ratios of the rounds: a slow moment of the disk
meets both sides. "durable" is all of a save, from the call to the commit: copy, archive, hash, fsync,
sidecar, history. It uses two threads, so the number of usable cores is printed.
"""

from __future__ import annotations

import argparse
import json
import logging
import operator
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch

from smartcash.handlers.checkpoint import CheckpointInfo, CheckpointManager
from smartcash.handlers.checkpoint.checkpoint_utils import checkpoint_name, sidecar_bytes
from smartcash.utils.files import CHUNK, fsync_folder

CONFIG = {"model": {"backbone": "efficientnet_b4"}, "data": {"name": "rupiah"}}


def state(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model and its AdamW after one step, so that the moments exist."""
    model = timm.create_model(name, pretrained=False)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def raw_write(data: memoryview, path: Path) -> None:
    """What cannot be done with less: the bytes, their fsync, the name, its fsync."""
    temporary = path.with_suffix(".tmp")
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    for start in range(0, len(data), CHUNK):
        os.write(fd, data[start : start + CHUNK])
    os.fsync(fd)
    os.close(fd)
    temporary.replace(path)
    fsync_folder(path.parent)


def torch_save_durably(content: object, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def saves(folder: Path, repeat: int, small: bool) -> tuple[float, dict[str, list[float]]]:
    """Megabytes, and the seconds of every round."""
    model, optimizer = state("efficientnet_lite0" if small else "efficientnet_b4")
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    tensors = list(content["model"].values()) + [
        t for s in content["optimizer"]["state"].values() for t in s.values() if isinstance(t, torch.Tensor)
    ]
    size = sum(t.numel() * t.element_size() for t in tensors)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8)
    target = source.clone()
    data = memoryview(source.numpy())
    times: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        times.setdefault(name, []).append(value)

    with CheckpointManager(folder / "weights", logger=quiet()) as manager:

        def save(epoch: int) -> None:
            manager.save_checkpoint(model, optimizer, None, CONFIG, epoch, {"loss": 1.0 / epoch})

        note("first save, blocked", seconds(lambda: save(1)))
        manager.wait()
        for turn in range(repeat):
            note("memory copy", seconds(lambda: target.copy_(source)))
            note("raw write + fsync", seconds(lambda: raw_write(data, folder / "raw")))
            (folder / "raw").unlink()
            started = time.perf_counter()
            save(turn + 2)
            note("blocked", time.perf_counter() - started)
            manager.wait()
            note("durable", time.perf_counter() - started)
            note("torch.save", seconds(lambda: torch.save(content, folder / "torch.pth")))
            note(
                "torch.save + fsync + rename", seconds(lambda: torch_save_durably(content, folder / "d.pth"))
            )
            (folder / "d.pth").unlink()
            manager.cleanup_checkpoints(1, keep_best=False, max_epochs=0)
            note("load, verified", seconds(lambda: manager.load_checkpoint(which="latest")))
            note("torch.load", seconds(lambda: torch.load(folder / "torch.pth", weights_only=True)))
            (folder / "torch.pth").unlink()
    return size / 1e6, times


def make_checkpoints(folder: Path, count: int) -> None:
    """`count` checkpoints: small files, real sidecars."""
    folder.mkdir()
    for number in range(1, count + 1):
        kind = ("best", "latest", "epoch")[number % 3]
        timestamp = "2026-01-01T00:00:00.000+00:00"
        name = checkpoint_name("efficientnet_b4", "rupiah", kind, number, timestamp, number)
        info = CheckpointInfo(
            path=folder / name, sequence=number, kind=kind, epoch=number, metrics={"loss": 1 / number},
            monitor="loss", mode="min", value=1 / number, backbone="efficientnet_b4", dataset="rupiah",
            timestamp=timestamp, size=1, sha256="ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        )  # fmt: skip
        info.path.write_bytes(b"a")
        info.sidecar.write_bytes(sidecar_bytes(info))


def big_folder(folder: Path, count: int) -> dict[str, float]:
    """Questions to a folder of `count` checkpoints."""
    make_checkpoints(folder, count)
    manager = CheckpointManager(folder, logger=quiet())
    answers = {"list, cold": seconds(manager.list_checkpoints)}
    for name, question in {
        "list": manager.list_checkpoints,
        "find_best": manager.find_best_checkpoint,
        "find_latest": manager.find_latest_checkpoint,
        "filter": lambda: manager.filter_checkpoints("efficientnet_b4", "rupiah", count // 2),
    }.items():
        question()
        answers[name] = statistics.median(seconds(question) for _ in range(9))
    return answers


def quiet() -> logging.Logger:
    logger = logging.getLogger("benchmark")
    logger.setLevel(logging.CRITICAL)
    return logger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--small", action="store_true", help="efficientnet_lite0 instead of efficientnet_b4")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        megabytes, times = saves(folder, options.repeat, options.small)
        answers = big_folder(folder / "many", options.count)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    print(f"{megabytes:.0f} MB, {cores} usable cores, {options.repeat} rounds")
    t = {name: statistics.median(values) for name, values in times.items()}
    for name, value in t.items():
        low, high = min(times[name]) * 1000, max(times[name]) * 1000
        print(f"{name:32} {value * 1000:9.1f} ms  ({low:.0f} to {high:.0f})")
    ratios = {
        f"{above} / {below}{aim}": statistics.median(map(operator.truediv, times[above], times[below]))
        for above, below, aim in (
            ("blocked", "memory copy", "  (≤ 1.5)"),
            ("blocked", "torch.save", "  (≤ 0.25)"),
            ("durable", "raw write + fsync", "  (≤ 1.6)"),
            ("torch.save + fsync + rename", "raw write + fsync", ""),
            ("durable", "torch.save + fsync + rename", ""),
            ("load, verified", "torch.load", ""),
        )
    }
    for name, value in ratios.items():
        print(f"{name:52} {value:5.2f}")
    for name, value in answers.items():
        print(
            f"{options.count} checkpoints, {name:12} {value * 1000:8.1f} ms"
            + ("" if "cold" in name else "  (≤ 50)")
        )
    if options.json:
        options.json.write_text(
            json.dumps({"cores": cores, "seconds": times, "ratios": ratios, "answers": answers}, indent=2)
        )


if __name__ == "__main__":
    main()
