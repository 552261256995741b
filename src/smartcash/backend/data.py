"""From the samples of a data set to batches of tensors."""

from __future__ import annotations

import multiprocessing
import signal
from abc import ABC, abstractmethod
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


@dataclass(frozen=True)
class Begun:
    """A sample about which everything is decided: its place in the split, its boxes (px of the square) and labels, and
    what draws its picture: RGB uint8 (S, S, 3)."""

    index: int
    draw: Callable[[], np.ndarray]
    boxes_N4: np.ndarray
    labels_N: np.ndarray


class Samples(Dataset[Batch], ABC):
    """Keys → a batch, drawn by as many threads as torch uses, which is one in a loader process. Single samples are not
    handed out."""

    def __init__(self, pictures: Pictures, image_size: int) -> None:
        self.pictures, self.image_size = pictures, image_size

    def __len__(self) -> int:
        return len(self.pictures)

    @abstractmethod
    def begin(self, key: Any) -> Begun:
        """Decide everything about a sample."""

    def __getitems__(self, keys: Sequence[Any]) -> Batch:
        """All samples of a batch, for torch's loader."""
        # deciding is Python's own work, and two threads at that would only wait for each other's lock
        begun = [self.begin(key) for key in keys]
        # channels last in memory, as pictures are; each is copied by the thread that has just drawn it
        images_BHW3 = np.empty((len(keys), self.image_size, self.image_size, 3), np.uint8)
        rows = iter(range(len(keys)))  # some samples cost four times as much as others

        def draw() -> None:
            for row in rows:
                images_BHW3[row] = begun[row].draw()

        others = [_pool().submit(draw) for _ in range(min(torch.get_num_threads(), len(keys)) - 1)]
        draw()
        for other in others:
            other.result()
        return Batch(
            torch.from_numpy(images_BHW3).permute(0, 3, 1, 2),
            _padded([one.boxes_N4 for one in begun], [one.labels_N for one in begun]),
            [one.index for one in begun],
        )


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), "samples")


def _padded(boxes: list[np.ndarray], labels: list[np.ndarray]) -> Targets:
    """The boxes (N, 4) and labels (N,) of each sample, padded to the largest number among them."""
    most = max(map(len, labels))
    boxes_BM4 = np.zeros((len(boxes), most, 4), np.float32)
    labels_BM = np.zeros((len(boxes), most), np.int64)
    valid_BM = np.zeros((len(boxes), most), np.bool_)
    for row, (boxes_N4, labels_N) in enumerate(zip(boxes, labels)):
        boxes_BM4[row, : len(boxes_N4)] = boxes_N4  # none for a classifier
        labels_BM[row, : len(labels_N)] = labels_N
        valid_BM[row, : len(labels_N)] = True
    return Targets(torch.from_numpy(boxes_BM4), torch.from_numpy(labels_BM), torch.from_numpy(valid_BM))


class TrainSamples(Samples):
    """(epoch, index) → augmented sample."""

    def __init__(self, pictures: Pictures, augment: Augment, closing_from: int) -> None:
        super().__init__(pictures, augment.preprocess.image_size)
        self.augment, self.closing_from = augment, closing_from

    def begin(self, key: tuple[int, int]) -> Begun:
        epoch, index = key
        closing_stage = epoch >= self.closing_from
        return Begun(index, *self.augment.begin(epoch, index, self.pictures, closing_stage=closing_stage))


class PlainSamples(Samples):
    """index → the preprocessed picture."""

    def __init__(self, pictures: Pictures, preprocess: Preprocess) -> None:
        super().__init__(pictures, preprocess.image_size)
        self.preprocess = preprocess

    def begin(self, index: int) -> Begun:
        size, boxes, labels = self.pictures.labelled(index)
        return Begun(
            index,
            lambda: self.preprocess.image(self.pictures.image(index)),
            self.preprocess.boxes(boxes, *size),
            labels,
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
        samples, num_workers=workers, collate_fn=_whole, pin_memory=pin, generator=torch.Generator(),
        worker_init_fn=_start_worker, **how,
    )  # fmt: skip


def _whole(batch: Batch) -> Batch:
    """For torch's loader: the samples come as a batch already."""
    return batch


def _batches(loader: DataLoader) -> Generator[Batch, None, None]:
    """The batches of a loader. Closing it ends the loader processes: since they are deaf to SIGTERM, one that is still
    there when this process exits would be waited for without end."""
    there, batches = multiprocessing.active_children(), None
    try:
        with _deaf():  # processes are begun here, and must not be hit before they are deaf themselves
            batches = iter(loader)
        yield from batches
    finally:
        begun = []
        try:
            if isinstance(batches, _MultiProcessingDataLoaderIter):
                begun = batches._workers
                batches._shutdown_workers()  # what its `__del__` does, but a traceback may keep it alive
            elif batches is None:  # a signal fell while they were begun
                begun = [one for one in multiprocessing.active_children() if one not in there]
        finally:
            for process in begun:
                process.kill()


FOR_THE_GROUP = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def _deaf() -> Iterator[None]:
    """Hold signals for the group back: in processes begun in this block for good, in this one, unless another thread
    takes them, until its end."""
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
