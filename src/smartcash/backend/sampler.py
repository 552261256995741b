"""Which samples make which batch: a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

ORDER_STREAM = 999_983  # keeps the order's generator apart from those of the samples


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for one epoch, from `first_step` on.

    Every batch is full: the last one is filled up from the start of the epoch's order, so that shapes stay
    fixed (oneDNN builds its kernels once per shape). With several processes, each takes its share of every
    global batch. `weights` (one per sample) draws with replacement instead: class balance."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        epoch: int,
        *,
        first_step: int = 0,
        weights: np.ndarray | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, epoch
        self.first_step, self.weights, self.rank, self.world = first_step, weights, rank, world
        self.steps = steps_per_epoch(count, batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((self.seed, self.epoch, ORDER_STREAM))
        wanted = self.steps * self.batch_size
        if self.weights is None:
            order = np.resize(rng.permutation(self.count), wanted)
        else:
            order = rng.choice(self.count, wanted, p=self.weights / self.weights.sum())
        for step in range(self.first_step, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch[self.rank :: self.world]]

    def __len__(self) -> int:
        return self.steps - self.first_step


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches that show every sample at least once."""
    return -(-count // batch_size)


def balance_weights(labels: list[np.ndarray], classes: int) -> np.ndarray:
    """A weight per sample so that rare classes are drawn about as often as common ones.

    A sample weighs as its rarest class: sqrt(mean frequency / frequency), bounded to 10 (repeat-factor
    sampling, Gupta et al. 2019, LVIS). A sample without objects weighs 1."""
    frequency = np.bincount(
        [int(label) for sample in labels for label in set(sample.tolist())], minlength=classes
    )
    present = frequency[frequency > 0]
    factor = np.ones(classes)
    factor[frequency > 0] = np.clip(np.sqrt(present.mean() / present), 1.0, 10.0) if len(present) else 1.0
    return np.array([factor[sample].max() if len(sample) else 1.0 for sample in labels])
