"""Watchdogs: what goes wrong in a training without an error, named with its cause and what to do.

They see facts and answer with warnings (`domain.events.Warned`; the words are in the locale files,
`warnings.<code>`). A loss that is not finite is no warning: the engine raises, the trainer goes back.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from smartcash.domain.config import TrainingConfig
from smartcash.domain.events import StepEnded, Warned
from smartcash.utils.machine import OtherPrograms, bound_cores, memory_bytes

Row = Mapping[str, float | None]

SPIKE_FACTOR, SPIKE_WINDOW, SPIKE_LEAST = 5.0, 50, 20
DEAD_NORM, DEAD_STEPS = 1e-10, 5
STARVED_SHARE = 0.3
COLLAPSE_SHARE = 0.5
EMPTY_SHARE = 0.5
CHECKPOINTS_TO_FIT = 3
LOW_DISK_BYTES = 500 * 2**20
LOW_MEMORY_SHARE = 0.05
LOOK_S, LOOKS = 10.0, 2  # at what other programs do, and how often in a row they must do it
ROUNDED = 0.25  # of a core, that one more thread may share
CROWD_CORES, CROWD_SHARE = 0.4, 0.05  # of the cores: less than either is what a system does for itself


class Watchdogs:
    """Looks at every step and every epoch of one training, whose files go into `folder`; `pretrained`: its backbone
    began with ImageNet weights. Each warning comes once; that of a metric again after it had recovered, that of a
    spike once an epoch."""

    def __init__(self, folder: Path, *, pretrained: bool) -> None:
        self.folder, self.pretrained = folder, pretrained
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._dead_steps = 0
        self._told: set[str] = set()
        self._others, self._looked, self._crowded_looks = OtherPrograms(), time.monotonic(), 0

    def step(self, event: StepEnded, grad_norm: float | None, threads: int | None = None) -> list[Warned]:
        """`grad_norm`: before clipping, None where the weights were not updated. `threads`: with how many the CPU
        computes, None where another device does, or several processes together."""
        found: list[Warned] = []
        loss = event.losses["loss"]
        if len(self._losses) >= SPIKE_LEAST:
            usual = statistics.median(self._losses)
            if usual > 0 and loss > SPIKE_FACTOR * usual:
                facts = {
                    "epoch": event.epoch,
                    "step": event.step,
                    "loss": round(loss, 3),
                    "usual": round(usual, 3),
                }
                found += self._once("loss_spike", facts, each=event.epoch)
        self._losses.append(loss)
        if grad_norm is not None:
            self._dead_steps = self._dead_steps + 1 if grad_norm < DEAD_NORM else 0
            if self._dead_steps == DEAD_STEPS:
                found += self._once(
                    "gradient_dead", {"epoch": event.epoch, "step": event.step, "steps": DEAD_STEPS}
                )
        if threads is not None and time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            found += self._crowded(threads)
        return found

    def epoch(self, rows: Sequence[Row], training: TrainingConfig, steps: int) -> list[Warned]:
        """`rows`: the epoch log so far, its last one new. `steps`: batches of an epoch."""
        row = rows[-1]
        epoch = round(row["epoch"] or 0)
        return [
            *self._classes_not_learnt(row, epoch, training.epochs),
            *self._collapsed(rows, epoch, training),
            *self._starved(row, epoch),
            *self._without_objects(row, epoch, steps),
            *self._disk(),
            *self._memory(),
        ]

    def _once(self, code: str, facts: dict[str, object], each: int = 0) -> list[Warned]:
        key = f"{code} {each}"
        if key in self._told:
            return []
        self._told.add(key)
        return [Warned(code, facts)]

    def _crowded(self, threads: int) -> list[Warned]:
        """Threads wait for each other many times in a step: one that has to share its core holds up all."""
        cores, busy = len(bound_cores()), self._others.busy_cores()
        # where many cores are busy, sharing half of them is still better than leaving nearly all to others
        fitting = max(1, cores // 2, math.floor(cores - busy + ROUNDED))
        crowded = busy >= max(CROWD_CORES, CROWD_SHARE * cores) and fitting < threads
        self._crowded_looks = self._crowded_looks + 1 if crowded else 0
        if self._crowded_looks < LOOKS:
            return []
        facts = {"busy": round(busy, 1), "cores": cores, "threads": threads, "fitting": fitting}
        return self._once("cores_crowded", {**facts, "run": str(self.folder)})

    def _classes_not_learnt(self, row: Row, epoch: int, epochs: int) -> list[Warned]:
        """Good boxes while the classes do not come: the silent failure of detectors."""
        mean_iou, found = row.get("mean_iou"), row.get("mAP50")
        if mean_iou is None or found is None or epoch < max(3, epochs // 2):
            return []
        if mean_iou > 0.75 and found < 0.5:
            facts = {"epoch": epoch, "mean_iou": round(mean_iou, 3), "mAP50": round(found, 3)}
            # what is frozen or slowed is a pretrained backbone only
            return self._once("classes_not_learnt" if self.pretrained else "classes_slow_from_scratch", facts)
        return []

    def _collapsed(self, rows: Sequence[Row], epoch: int, training: TrainingConfig) -> list[Warned]:
        values = [value for row in rows if (value := row.get(training.monitor)) is not None]
        if len(values) < 3:
            return []
        earlier, now = values[:-1], values[-1]
        lowest = training.mode == "min"
        best = min(earlier) if lowest else max(earlier)
        if (now > best / COLLAPSE_SHARE) if lowest else (now < best * COLLAPSE_SHARE):
            facts = {
                "epoch": epoch,
                "monitor": training.monitor,
                "now": round(now, 3),
                "best": round(best, 3),
            }
            return self._once("metric_collapsed", facts)
        self._told.discard("metric_collapsed 0")
        return []

    def _starved(self, row: Row, epoch: int) -> list[Warned]:
        waited, whole = row.get("data_wait_s"), row.get("train_s")
        if waited is None or not whole or waited < STARVED_SHARE * whole or whole < 1:
            return []
        return self._once("data_starved", {"epoch": epoch, "share": round(100 * waited / whole)})

    def _without_objects(self, row: Row, epoch: int, steps: int) -> list[Warned]:
        empty = row.get("empty_batches")
        if empty is None or empty < EMPTY_SHARE * steps:
            return []
        return self._once("batches_empty", {"epoch": epoch, "empty": round(empty), "steps": steps})

    def _disk(self) -> list[Warned]:
        sizes = [path.stat().st_size for path in self.folder.glob("weights/*.pth")]
        needed = max(LOW_DISK_BYTES, CHECKPOINTS_TO_FIT * max(sizes, default=0))
        free = psutil.disk_usage(str(self.folder)).free
        if free >= needed:
            return []
        facts = {"free": round(free / 2**20), "needed": round(needed / 2**20), "folder": str(self.folder)}
        return self._once("disk_low", facts)

    def _memory(self) -> list[Warned]:
        used, limit = memory_bytes()
        if limit - used >= LOW_MEMORY_SHARE * limit:
            return []
        return self._once(
            "memory_low", {"free": round((limit - used) / 2**20), "limit": round(limit / 2**20)}
        )
