"""Training images per second: SmartCash against the smallest detectors of its peers, on the same drawn pictures.

Both run their whole loop (loading, augmentation, forward, backward, optimizer, averaged weights) at 320 px and
batch 16, from scratch unless a row says otherwise, each with its own defaults on this machine; neither validates
nor saves in the timed part. GFLOPs are those of one forward at 320 px, counted by the same counter
(torch.utils.flop_counter), so that the cost of the nets can be compared.

A peer that cannot be installed or run is named, and the exit code is 1.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import options, print_table
from benchmarks.peers import SMALLEST, Peer, PeerMissing, training
from smartcash.backend.builder import build
from smartcash.backend.engine import EpochStats, Parts, Step, forward_loss, prepare_step, train_one_epoch
from smartcash.backend.formats import read_dataset
from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig

IMAGE_PX, BATCH = 320, 16

SCRATCH = {"pretrained": False, "freeze_epochs": 0, "frozen_stages": 0, "freeze_norm": False}
OURS: dict[str, dict[str, Any]] = {
    "mobilenetv4_conv_small_050": {"backbone": "mobilenetv4_conv_small_050", "scale": "n", **SCRATCH},
    "mobilenetv4_conv_small": {"backbone": "mobilenetv4_conv_small", "scale": "n", **SCRATCH},
    "cs3darknet_s": {"backbone": "cs3darknet_s", "scale": "n", **SCRATCH},
    "efficientnet_lite0, fine-tuned, defaults": {"backbone": "efficientnet_lite0"},
}


@dataclass(frozen=True)
class Speed:
    """What one training showed. `loop`, `bare`: median seconds of a step of the whole loop, and of forward, backward
    and optimizer on one batch, measured in turns."""

    images_per_s: float
    gflops: float
    parameters: int
    threads: int
    loop: float | None = None
    bare: float | None = None


def main() -> int:
    """Measure and print; 1 when the peer is missing."""
    small = options(__doc__).small
    warmup, steps, rounds = (1, 3, 1) if small else (6, 30, 6)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "notes"
        write_samples(data, images=46 if small else 480, size_px=IMAGE_PX)  # 32 or 336 to train: full batches
        ours = {name: ours_of(data, model, rounds) for name, model in OURS.items()}
        peers = {str(peer): peer_of(peer, data, warmup, steps) for peer in SMALLEST}
    report(ours, {name: speed for name, speed in peers.items() if speed})
    return 0 if all(peers.values()) else 1


def ours_of(data: Path, model: dict[str, Any], rounds: int) -> Speed:
    """The speed of SmartCash's loop, the backbone already unfrozen, and of its bare step: an epoch of the one and half as
    many of the other in turns, after a round that is not counted."""
    config = TrainConfig.parse(
        {"data": {"path": str(data), "image_size": IMAGE_PX, "batch_size": BATCH}, "model": model}
    )
    built = build(config, read_dataset(data))
    first = -(-built.parts.unfreeze_step // built.train.steps)
    batch = next(built.train.epoch(first))

    def epoch(number: int) -> list[float]:
        """Seconds of each of its steps."""
        ends = [time.perf_counter()]

        def on_step(step: Step) -> bool:
            ends.append(time.perf_counter())
            return True

        train_one_epoch(built.parts, built.train, number, 0, EpochStats(), on_step)
        return [end - start for start, end in itertools.pairwise(ends)]

    def bare_step() -> float:
        """Its seconds."""
        started = time.perf_counter()
        prepare_step(built.parts, first * built.train.steps)
        images = built.parts.preprocess.normalize(batch.images_B3HW.to(built.parts.precision.device))
        forward_loss(built.parts, images, batch, first * built.train.steps)["loss"].backward()
        built.parts.optimizer.step()
        built.parts.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started

    loop: list[float] = []
    bare: list[float] = []
    for number in range(rounds + 1):
        steps = epoch(first + number)
        others = [bare_step() for _ in range(len(steps) // 2)]
        if number:
            loop += steps
            bare += others
    return Speed(
        images_per_s=BATCH * len(loop) / sum(loop),
        gflops=gflops(built.parts),
        parameters=sum(p.numel() for p in built.parts.model.parameters()),
        threads=torch.get_num_threads(),
        loop=statistics.median(loop),
        bare=statistics.median(bare),
    )


def gflops(parts: Parts) -> float:
    """10⁹ floating-point operations of one forward pass of one picture; a multiply-add counts as two."""
    parts.model.eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        parts.model(torch.zeros(1, 3, IMAGE_PX, IMAGE_PX, device=parts.precision.device))
    return counter.get_total_flops() / 1e9


def peer_of(peer: Peer, data: Path, warmup: int, steps: int) -> Speed | None:
    """The speed of a peer's loop, from its own process; None, said aloud, when it cannot be had."""
    try:
        with training(peer, data, imgsz=IMAGE_PX, batch=BATCH, warmup=warmup, steps=steps) as told:
            facts = next(told)
    except (PeerMissing, StopIteration) as error:
        print(f"no {peer}:\n{error}", file=sys.stderr)
        return None
    print(f"{facts['package']} {facts['version']}, torch {facts['torch']}; ours: torch {torch.__version__}")
    return Speed(facts["images_per_s"], facts["gflops"], facts["parameters"], facts["threads"])


def report(ours: dict[str, Speed], peers: dict[str, Speed]) -> None:
    """Two tables: against the peers, and the loop against its own bare step."""
    rows = []
    for name, speed in (peers | ours).items():
        ratios = [
            ratio
            for peer in peers.values()
            for ratio in (
                speed.images_per_s / peer.images_per_s,
                speed.images_per_s * speed.gflops / (peer.images_per_s * peer.gflops),
            )
        ]
        rows.append(
            (name, speed.threads, speed.parameters / 1e6, speed.gflops, speed.images_per_s, *ratios)
        )  # fmt: skip
    print_table(
        f"Training, whole loop, {IMAGE_PX} px, batch {BATCH}; × images/s of a peer, and per GFLOP",
        (
            *("", "threads", "M parameters", "GFLOPs", "images/s"),
            *(word for name in peers for word in (f"× {name}", "per GFLOP")),
        ),
        rows,
    )
    print_table(
        "The loop against forward + backward + optimizer on one batch, median images/s (goal: ≥ 0.95)",
        ("", "bare", "loop", "loop / bare"),
        [
            (name, BATCH / speed.bare, BATCH / speed.loop, speed.bare / speed.loop)
            for name, speed in ours.items()
            if speed.bare and speed.loop
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
