"""From the samples of a data set to batches of tensors."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from smartcash.backend.augment import Augment
from smartcash.backend.criterion import Targets
from smartcash.backend.distributed import World
from smartcash.backend.formats import Sample
from smartcash.backend.images import read_image
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.sampler import EpochBatches
from smartcash.utils.machine import available_cores

CACHE_FACTOR = 1.5  # enough for a zoom-in of as much


def kept_side(image_size: int) -> int:
    """The longest side, px, at which pictures are kept for an input of `image_size`. It is the same wherever a model is
    judged: shrunk in other steps, a picture is another one, and so are the figures."""
    return round(CACHE_FACTOR * image_size)


@dataclass
class Batch:
    """images_B3HW uint8 RGB, channels last in memory; targets padded; `indices`: the pictures' place in the split."""

    images_B3HW: Tensor
    targets: Targets
    indices: list[int]

    def pin_memory(self) -> Batch:
        """The batch with its pictures where a card can fetch them by itself; called by torch's loader."""
        return replace(self, images_B3HW=self.images_B3HW.pin_memory())


class Pictures:
    """The pictures of a split, decoded, shrunk to at most `longest_px`, and kept in memory if `keep`."""

    def __init__(self, samples: Sequence[Sample], longest_px: int, *, keep: bool) -> None:
        self.samples = samples
        self.longest_px = longest_px
        self._kept: list[np.ndarray | None] | None = [None] * len(samples) if keep else None

    def __len__(self) -> int:
        return len(self.samples)

    def fill(self, threads: int) -> None:
        """Decode everything now, before loader processes are forked and share it."""
        if self._kept is not None:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(self.image, range(len(self))))

    def image(self, index: int) -> np.ndarray:
        """Picture `index`, RGB uint8 (H, W, 3)."""
        if self._kept is not None:
            kept = self._kept[index]
            if kept is not None:
                return kept
        image = read_image(self.samples[index].path)
        size = self._size(image.shape[1], image.shape[0])
        if size != (image.shape[1], image.shape[0]):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if self._kept is not None:
            self._kept[index] = image
        return image

    def labelled(self, index: int) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
        """Of picture `index`, which is not decoded for it: its size (width, height), its boxes in px of that, and its
        labels."""
        sample = self.samples[index]
        width, height = self._size(*sample.size)
        scale = np.array([width / sample.size[0], height / sample.size[1]] * 2, np.float32)
        return (width, height), sample.boxes_N4 * scale, sample.labels_N

    def fetch(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture `index` with its boxes (px of that picture) and labels."""
        _, boxes, labels = self.labelled(index)
        return self.image(index), boxes, labels

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """The size in which a picture of that size is kept."""
        longest = max(width, height)
        if longest <= self.longest_px:
            return width, height
        ratio = self.longest_px / longest
        return max(1, round(width * ratio)), max(1, round(height * ratio))


Item = tuple[int, Tensor, np.ndarray, np.ndarray]  # index, picture, boxes, labels


class Samples(Dataset[Item]):
    """key → sample; those of a batch are made by as many threads as torch uses, which is one in a loader process."""

    def begin(self, key: Any) -> Callable[[], Item]:
        """Decide everything about a sample; what comes back makes it."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Item:
        return self.begin(key)()

    def __getitems__(self, keys: Sequence[Any]) -> list[Item]:
        """The samples of a batch, for torch's loader."""
        # deciding is Python's own work, and two threads at that would only wait for each other's lock
        begun = [self.begin(key) for key in keys]
        places = iter(range(len(keys)))  # some samples cost four times as much as others
        made: dict[int, Item] = {}

        def make() -> None:
            for place in places:
                made[place] = begun[place]()

        others = [_pool().submit(make) for _ in range(min(torch.get_num_threads(), len(keys)) - 1)]
        make()
        for other in others:
            other.result()
        return [made[place] for place in range(len(keys))]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), "samples")


class TrainSamples(Samples):
    """(epoch, index) → augmented sample."""

    def __init__(self, pictures: Pictures, augment: Augment, closing_from: int) -> None:
        self.pictures, self.augment, self.closing_from = pictures, augment, closing_from

    def begin(self, key: tuple[int, int]) -> Callable[[], Item]:
        epoch, index = key
        image, boxes, labels = self.augment.begin(
            epoch, index, self.pictures, closing_stage=epoch >= self.closing_from
        )
        return lambda: (index, to_tensor(image()), boxes, labels)


class PlainSamples(Samples):
    """index → the preprocessed picture with its boxes in px of the square."""

    def __init__(self, pictures: Pictures, preprocess: Preprocess) -> None:
        self.pictures, self.preprocess = pictures, preprocess

    def __len__(self) -> int:
        return len(self.pictures)

    def begin(self, index: int) -> Callable[[], Item]:
        size, boxes, labels = self.pictures.labelled(index)
        placed = self.preprocess.boxes(boxes, *size)
        return lambda: (index, to_tensor(self.preprocess.image(self.pictures.image(index))), placed, labels)


def to_tensor(image_HW3: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 → (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image_HW3)).permute(2, 0, 1)


def collate(items: list[Item]) -> Batch:
    """Samples → Batch; boxes are padded to the largest number in the batch."""
    most = max(len(labels) for *_, labels in items)
    boxes_BM4 = torch.zeros(len(items), most, 4)
    labels_BM = torch.zeros(len(items), most, dtype=torch.long)
    valid_BM = torch.zeros(len(items), most, dtype=torch.bool)
    for row, (_, _, boxes, labels) in enumerate(items):
        boxes_BM4[row, : len(boxes)] = torch.from_numpy(np.asarray(boxes, np.float32))
        labels_BM[row, : len(labels)] = torch.from_numpy(np.asarray(labels, np.int64))
        valid_BM[row, : len(labels)] = True
    # channels last in memory, as the pictures are
    images_BHW3 = torch.stack([image.permute(1, 2, 0) for _, image, _, _ in items])
    return Batch(
        images_BHW3.permute(0, 3, 1, 2),
        Targets(boxes_BM4, labels_BM, valid_BM),
        [index for index, *_ in items],
    )


class TrainBatches:
    """The training batches of any epoch, from any step on."""

    def __init__(
        self,
        samples: TrainSamples,
        batch_size: int,
        seed: int,
        workers: int,
        weights: np.ndarray | None,
        *,
        pin: bool = False,
        world: World | None = None,
    ) -> None:
        self.samples, self.batch_size, self.seed, self.workers, self.weights, self.pin = (
            samples,
            batch_size,
            seed,
            workers,
            weights,
            pin,
        )
        self.world = world or World()

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return EpochBatches(len(self.samples.pictures), self.batch_size, self.seed, 0).steps

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[Batch, None, None]:
        """The batches of `epoch`, beginning with step `first_step`. To be closed: see `_batches`."""
        order = EpochBatches(
            len(self.samples.pictures),
            self.batch_size,
            self.seed,
            epoch,
            first_step=first_step,
            weights=self.weights,
            rank=self.world.rank,
            world=self.world.size,
        )
        return _batches(_loader(self.samples, workers=self.workers, pin=self.pin, batch_sampler=order))


class EvalBatches:
    """A whole split in order, in batches; the last one may be smaller. Of several processes each takes its share."""

    def __init__(
        self, samples: PlainSamples, batch_size: int, workers: int, world: World | None = None
    ) -> None:
        self.samples, self.batch_size, self.workers = samples, batch_size, workers
        self.world = world or World()

    def __iter__(self) -> Generator[Batch, None, None]:
        """This process's share of the split, in order. To be closed: see `_batches`."""
        share = range(self.world.rank, len(self.samples), self.world.size)
        return _batches(
            _loader(self.samples, workers=self.workers, pin=False, sampler=share, batch_size=self.batch_size)
        )

    def sample(self, index: int) -> Sample:
        """Sample `index` of the split, as it was read."""
        return self.samples.pictures.samples[index]

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)


def _loader(samples: Dataset, *, workers: int, pin: bool, **how: object) -> DataLoader:
    # a generator of its own: a loader must not touch the global one, which the training's randomness comes from
    return DataLoader(
        samples, num_workers=workers, collate_fn=collate, pin_memory=pin, generator=torch.Generator(),
        worker_init_fn=_start_worker, **how,
    )  # fmt: skip


def _batches(loader: DataLoader) -> Generator[Batch, None, None]:
    """The batches of a loader. Closing it ends the loader processes: since they are deaf to SIGTERM, one that is still
    there when this process exits would be waited for without end."""
    with _deaf():  # processes are begun here, and must not be hit before they are deaf themselves
        batches = iter(loader)
    try:
        yield from batches
    finally:
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()  # what its `__del__` does, but a traceback may keep it alive


FOR_THE_GROUP = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def _deaf() -> Iterator[None]:
    """Hold signals for the group back until the end of the block, and in processes begun in it for good."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_GROUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker: int) -> None:
    """In a new loader process: one thread, and deaf to signals for the group. Its parent decides when to stop."""
    for number in FOR_THE_GROUP:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
