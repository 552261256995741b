"""Training images per second: SmartCash against Ultralytics yolo11n, on the same drawn pictures.

Both run their whole loop (loading, augmentation, forward, backward, optimizer, averaged weights) at 320 px and
batch 16, from scratch unless a row says otherwise, each with its own defaults on this machine; neither validates
nor saves in the timed part. GFLOPs are those of one forward at 320 px, counted by the same counter
(torch.utils.flop_counter), so that the cost of the nets can be compared.

Ultralytics is AGPL-3.0. It is installed only into bench-out/peers and run there as a process; no code of
SmartCash imports it. A peer that cannot be installed or run is named, and the exit code is 1.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import options, print_table
from smartcash.backend.builder import build
from smartcash.backend.engine import EpochStats, Parts, Step, forward_loss, prepare_step, train_one_epoch
from smartcash.backend.formats import read_dataset
from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig

PEERS = Path(__file__).parents[1] / "bench-out" / "peers"
DRIVER = Path(__file__).with_name("ultralytics_driver.py")
IMAGE_PX, BATCH = 320, 16
MINUTES = 30

SCRATCH = {"pretrained": False, "freeze_epochs": 0, "frozen_stages": 0, "freeze_norm": False}
OURS: dict[str, dict[str, Any]] = {
    "mobilenetv4_conv_small": {"backbone": "mobilenetv4_conv_small", "scale": "n", **SCRATCH},
    "cs3darknet_s": {"backbone": "cs3darknet_s", "scale": "n", **SCRATCH},
    "efficientnet_lite0, fine-tuned, defaults": {"backbone": "efficientnet_lite0"},
}


@dataclass(frozen=True)
class Speed:
    """What one training showed. `bare`: images/s of forward, backward and optimizer on one batch."""

    images_per_s: float
    gflops: float
    parameters: int
    threads: int
    bare: float | None = None


def main() -> int:
    """Measure and print; 1 when the peer is missing."""
    small = options(__doc__).small
    warmup, steps = (1, 3) if small else (6, 30)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "notes"
        write_samples(data, images=46 if small else 480, size_px=IMAGE_PX)  # 32 or 336 to train: full batches
        ours = {name: ours_of(data, model, warmup, steps) for name, model in OURS.items()}
        peer = peer_of(data, warmup, steps)
    report(ours, peer)
    return 0 if peer else 1


def ours_of(data: Path, model: dict[str, Any], warmup: int, steps: int) -> Speed:
    """The speed of SmartCash's loop over `steps` steps after `warmup`, the backbone already unfrozen."""
    config = TrainConfig.parse(
        {"data": {"path": str(data), "image_size": IMAGE_PX, "batch_size": BATCH}, "model": model}
    )
    built = build(config, read_dataset(data))
    ends: list[float] = []

    def on_step(step: Step) -> bool:
        ends.append(time.perf_counter())
        return len(ends) <= warmup + steps

    first = -(-built.parts.unfreeze_step // built.train.steps)
    for epoch in itertools.count(first):
        train_one_epoch(built.parts, built.train, epoch, 0, EpochStats(), on_step)
        if len(ends) > warmup + steps:
            break
    batch = next(built.train.epoch(first))
    step = first * built.train.steps

    def bare_step() -> None:
        prepare_step(built.parts, step)
        images = built.parts.preprocess.normalize(batch.images_B3HW.to(built.parts.precision.device))
        forward_loss(built.parts, images, batch, step)["loss"].backward()
        built.parts.optimizer.step()
        built.parts.optimizer.zero_grad(set_to_none=True)

    return Speed(
        images_per_s=steps * BATCH / (ends[-1] - ends[warmup]),
        gflops=gflops(built.parts),
        parameters=sum(p.numel() for p in built.parts.model.parameters()),
        threads=torch.get_num_threads(),
        bare=BATCH / mean_seconds(bare_step, max(1, steps // 3)),
    )


def mean_seconds(action: Callable[[], None], repeat: int) -> float:
    """The mean time of a call, after one unmeasured."""
    action()
    started = time.perf_counter()
    for _ in range(repeat):
        action()
    return (time.perf_counter() - started) / repeat


def gflops(parts: Parts) -> float:
    """10⁹ floating-point operations of one forward pass of one picture; a multiply-add counts as two."""
    parts.model.eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        parts.model(torch.zeros(1, 3, IMAGE_PX, IMAGE_PX, device=parts.precision.device))
    return counter.get_total_flops() / 1e9


def peer_of(data: Path, warmup: int, steps: int) -> Speed | None:
    """The speed of Ultralytics' loop, from its own process; None, said aloud, when it cannot be had."""
    wanted = {
        "model": "yolo11n.yaml", "data": str(data / "data.yaml"), "imgsz": IMAGE_PX, "batch": BATCH,
        "warmup": warmup, "steps": steps,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings, result = Path(folder) / "settings.json", Path(folder) / "result.json"
        settings.write_text(json.dumps(wanted))
        quiet = {
            "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": folder,
            "WANDB_MODE": "disabled",
        }  # fmt: skip
        try:
            subprocess.run(
                [peer_python(), DRIVER, settings, result],  # it looks for the pictures from where it stands
                cwd=data, env=os.environ | quiet, check=True, timeout=60 * MINUTES,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            facts = json.loads(result.read_text())
        except subprocess.CalledProcessError as error:
            print(f"no Ultralytics:\n{(error.stdout or '')[-2000:]}", file=sys.stderr)
            return None
        except (subprocess.TimeoutExpired, OSError) as error:
            print(f"no Ultralytics: {error}", file=sys.stderr)
            return None
    print(f"Ultralytics {facts['version']}, torch {facts['torch']}; ours: torch {torch.__version__}")
    return Speed(facts["images_per_s"], facts["gflops"], facts["parameters"], facts["threads"])


def peer_python() -> Path:
    """The interpreter of the peers' environment, which is made when it is missing or has another torch.

    Raises CalledProcessError with pip's words when the install fails."""
    python = PEERS / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    same = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
    ready = PEERS / "installed.txt"
    if ready.is_file() and ready.read_text() == " ".join(same):
        return python
    print(f"installing Ultralytics into {PEERS.relative_to(PEERS.parents[1])} …", flush=True)
    for command in (
        [sys.executable, "-m", "venv", PEERS],
        [python, "-m", "pip", "install", "--quiet", "ultralytics", *same],
    ):
        subprocess.run(
            command,
            check=True,
            timeout=60 * MINUTES,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    ready.write_text(" ".join(same))
    return python


def report(ours: dict[str, Speed], peer: Speed | None) -> None:
    """Two tables: against the peer, and the loop against its own bare step."""
    named = ({"Ultralytics yolo11n": peer} if peer else {}) | ours
    rows = []
    for name, speed in named.items():
        work = speed.images_per_s * speed.gflops
        rows.append(
            (
                name, speed.threads, speed.parameters / 1e6, speed.gflops, speed.images_per_s,
                speed.images_per_s / peer.images_per_s if peer else None,
                work / (peer.images_per_s * peer.gflops) if peer else None,
            )
        )  # fmt: skip
    print_table(
        f"Training, whole loop, {IMAGE_PX} px, batch {BATCH}",
        ("", "threads", "M parameters", "GFLOPs", "images/s", "ratio", "ratio of images/s × GFLOPs"),
        rows,
    )
    print_table(
        "The loop against forward + backward + optimizer on one batch (goal: ≥ 0.95)",
        ("", "bare images/s", "loop / bare"),
        [(name, speed.bare, speed.images_per_s / speed.bare) for name, speed in ours.items() if speed.bare],
    )


if __name__ == "__main__":
    sys.exit(main())
