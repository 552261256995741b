"""How long a training will take, and how much memory and disk: measured on a few steps, before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from smartcash.backend.builder import Built
from smartcash.backend.engine import EpochStats, Step, evaluate, train_one_epoch
from smartcash.backend.optim import kept_per_weight

WARM_STEPS, TIMED_STEPS, EVALUATED_BATCHES = 3, 5, 3
KINDS_OF_CHECKPOINTS = 3  # best, latest, epoch


@dataclass(frozen=True)
class Pace:
    """Seconds of one step while the backbone is frozen and after, and of one validation."""

    frozen_step_s: float
    step_s: float
    validation_s: float

    def seconds(self, steps: int, frozen_steps: int, validations: int) -> float:
        """The time of so many steps, of which `frozen_steps` with a frozen backbone, and validations."""
        frozen = min(steps, frozen_steps)
        return frozen * self.frozen_step_s + (steps - frozen) * self.step_s + validations * self.validation_s


def measure(built: Built, build_s: float, peak_memory_mb: Callable[[], float]) -> dict[str, Any]:
    """A forecast as plain values: `duration_s` of the whole run, `memory_mb`, `disk_mb`, `checkpoints`, `pace`.

    It trains a few steps, so what was built is not the beginning of a training any more. `build_s`: what building
    took; `peak_memory_mb`: called after the steps."""
    steps, epochs = built.train.steps, built.config.training.epochs
    frozen_steps = min(built.parts.unfreeze_step, steps * epochs)
    first_trained = -(-frozen_steps // steps)
    trained_s = _step_seconds(built, first_trained)
    frozen_s = _step_seconds(built, 0) if frozen_steps else trained_s
    pace = Pace(frozen_s, trained_s, _image_seconds(built) * len(built.valid.samples))
    tested = len(built.test.samples) if built.test else 0
    last = pace.validation_s * tested / max(1, len(built.valid.samples))
    size, written, most = checkpoints(built)
    return {
        "duration_s": round(build_s + pace.seconds(steps * epochs, frozen_steps, epochs) + last, 1),
        "memory_mb": round(peak_memory_mb()),
        "batch_size": built.train.batch_size,
        "disk_mb": round(most * size / 2**20, 1),
        "checkpoint_mb": round(size / 2**20, 1),
        "checkpoints": written,
        "pace": asdict(pace),
    }


def _step_seconds(built: Built, epoch: int) -> float:
    """The mean time of a step of that epoch, loading included, once the kernels are built."""
    ends: list[float] = []
    wanted = 1 + WARM_STEPS + TIMED_STEPS

    def on_step(step: Step) -> bool:
        ends.append(time.perf_counter())
        return len(ends) < wanted

    while len(ends) < wanted:  # an epoch may be shorter than that
        train_one_epoch(built.parts, built.train, epoch, 0, EpochStats(), on_step)
    return (ends[-1] - ends[WARM_STEPS]) / (len(ends) - 1 - WARM_STEPS)


def _image_seconds(built: Built) -> float:
    """The mean time of looking at one validation picture."""
    moments = [time.perf_counter()]
    parts = built.parts

    def go_on() -> bool:
        moments.append(time.perf_counter())
        return len(moments) <= EVALUATED_BATCHES

    evaluate(
        parts.averaged.module, built.valid, built.classes, parts.preprocess, parts.precision, go_on=go_on
    )
    batches = len(moments) - 1
    if batches > 1:  # the first one builds the kernels
        moments, batches = moments[1:], batches - 1
    seen = min(batches * built.valid.batch_size, len(built.valid.samples))
    return (moments[-1] - moments[0]) / max(1, seen)


def checkpoints(built: Built, done: int = 0, there: int = 0) -> tuple[int, int, int]:
    """About the bytes of one checkpoint (weights, averaged weights and what the optimizer keeps), how many epochs after
    the `done` ones write one, and by about how many those on the disk, of which `there` are now, grow."""
    rule, parts = built.config.checkpoint, built.parts
    never_trained = {id(parameter) for parameter in parts.frozen}
    weights = sum(t.numel() * t.element_size() for t in parts.model.state_dict().values())
    trained = sum(
        p.numel() * p.element_size() for p in parts.model.parameters() if id(p) not in never_trained
    )
    size = 2 * weights + kept_per_weight(built.config.optimizer) * trained
    # an epoch ends with one file at most, be it the best or the newest; those after so many minutes are guessed to be
    # no more than the epochs
    epochs = built.config.training.epochs - done
    within = epochs if rule.every_minutes else 0
    if rule.every_steps:
        within += epochs * built.train.steps // rule.every_steps
    # one more than is kept: old ones go before the next save
    room = KINDS_OF_CHECKPOINTS * rule.keep_epochs + 1 - there
    return (
        size,
        math.ceil(epochs / rule.every_epochs),
        max(1, min(room, epochs + 1 + min(within, rule.keep_epochs))),
    )
