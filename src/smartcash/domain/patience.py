"""How long a training has waited for an improvement: for the trainer, and for whoever shows how much is left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from smartcash.domain.config import TrainConfig


@dataclass(frozen=True)
class Waited:
    """`epochs`: watched epochs since the best one. `best` and `best_epoch`: its value, None and 0 before there is one."""

    epochs: int
    best_epoch: int
    best: float | None


def is_better(value: float, best: float | None, mode: str, margin: float) -> bool:
    """Whether `value` beats `best` by more than `margin`; NaN never does."""
    if math.isnan(value):
        return False
    return best is None or (value < best - margin if mode == "min" else value > best + margin)


def waited(rows: Iterable[Mapping[str, float | None]], config: TrainConfig) -> Waited:
    """The state of early stopping after the epochs of `rows`. `config` is resolved: nothing in it is "auto"."""
    rule = config.training.early_stopping
    best, best_epoch, since = None, 0, 0
    for row in rows:
        value, epoch = row.get(rule.monitor), int(row["epoch"] or 0)
        if epoch < rule.start_epoch:
            continue
        if value is not None and is_better(value, best, rule.mode, rule.min_delta):
            best, best_epoch, since = value, epoch, 0
        elif epoch > config.schedule.extended_from:  # an extended run has its patience anew
            since += 1
    return Waited(since, best_epoch, best)
