"""A model version that answers many at once, and follows its alias.

Whoever asks prepares a picture with the version that is served at that moment, and that same version answers: while
an alias moves, the old one finishes what it was asked, and no answer is made of two. Pictures that wait together go
through the network together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from smartcash.backend.images import decode_image, read_header
from smartcash.backend.predictor import Outcome, Predictor, Prepared
from smartcash.domain.errors import ServingRefused, SmartCashError
from smartcash.domain.ports import ServingState
from smartcash.handlers.model_versions import ModelVersions
from smartcash.utils.logger import get_logger
from smartcash.worker.models import open_model

POLL_S = 0.2  # so often is looked whether the alias has moved
UPLOAD = "upload"  # how problems name a picture that came without a file


@dataclass(frozen=True)
class _Served:
    """One version, loaded. `since`: UTC, ISO 8601."""

    version: str
    sha256: str
    predictor: Predictor
    since: str


@dataclass(frozen=True)
class _Asked:
    """A picture that waits for its turn, the version that was asked, what makes words of its outcome, and where they
    go."""

    served: _Served
    picture: Prepared
    worded: Callable[[Outcome], dict[str, Any]]
    answer: Future[dict[str, Any]]


class ServedModel:
    """A version, also by the run it was made of, or whichever version has an alias, ready for any number of threads
    that ask.

    `max_batch` pictures at most go through the network together; the first of them waits at most `max_wait_ms` for
    others, and only while others are being read. Raises VersionNotFound, RunNotFound and CheckpointError as loading
    does."""

    def __init__(
        self,
        name: str,
        *,
        device: str = "auto",
        max_batch: int = 4,
        max_wait_ms: float = 5.0,
        max_pixels: int = 40_000_000,
    ) -> None:
        self.versions = ModelVersions()
        # an alias is followed; what a run was made into stays what it is
        self.name = name if self.versions.store.knows(name) else self.versions.find(name).name
        self.device = device
        self.max_batch, self.max_wait_s, self.max_pixels = max_batch, max_wait_ms / 1000, max_pixels
        self._served = self._load()
        self._trouble = ""
        self._reloads = self._batches = self._pictures = 0
        self._waiting: deque[_Asked] = deque()
        self._reading = 0  # pictures that are being prepared
        self._changed = threading.Condition()  # guards the two above
        self._closing = threading.Event()
        self._network = ThreadPoolExecutor(1, "network")
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True)
            for work in (self._answer_all, self._follow)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Answer what was asked, then end."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._network.shutdown()

    # asking

    def predict(self, picture: bytes, threshold: float | None = None) -> Future[dict[str, Any]]:
        """What is in a picture (the bytes of its file), as `Predictor.predict` says it, with `model`, the version
        that says so, and the picture's size in px.

        It is decoded here. Raises DataInvalid for what is no picture, ServingRefused for one that is too large."""
        served = self._served
        predictor, limits_C = served.predictor, served.predictor.limits(threshold)
        return self._ask(
            served,
            picture,
            limits_C.min(),
            lambda seen: predictor.describe(predictor.reaching(limits_C, seen)),
        )

    def count(self, picture: bytes, abstain: float | None = None) -> Future[dict[str, Any]]:
        """The money in a picture, as `Predictor.count` says it; else as `predict`."""
        served = self._served
        predictor, limits_C = served.predictor, served.predictor.limits()
        return self._ask(
            served,
            picture,
            predictor.lowest(limits_C, abstain),
            lambda seen: predictor.counted(limits_C, seen, abstain),
        )

    def state(self) -> ServingState:
        """What is served now, and how it has been going."""
        served = self._served
        return ServingState(
            self.name, served.version, served.sha256, served.predictor.task, served.predictor.classes,
            served.since, self._trouble, self._reloads, self._batches, self._pictures, len(self._waiting),
        )  # fmt: skip

    def _ask(
        self,
        served: _Served,
        data: bytes,
        lowest: float,
        worded: Callable[[Outcome], dict[str, Any]],
    ) -> Future[dict[str, Any]]:
        asked = None
        with self._changed:
            self._reading += 1
        try:
            picture = self._prepared(served, data, lowest)
            asked = _Asked(served, picture, worded, Future())
        finally:
            with self._changed:
                self._reading -= 1
                if asked is not None:
                    self._waiting.append(asked)
                self._changed.notify_all()
        return asked.answer

    def _prepared(self, served: _Served, data: bytes, lowest: float) -> Prepared:
        width, height = read_header(data, UPLOAD).size
        if width * height > self.max_pixels:
            limit = round(self.max_pixels / 1e6, 1)
            raise ServingRefused("picture_too_large", width=width, height=height, limit=limit)
        return served.predictor.prepared(decode_image(data, UPLOAD), lowest)

    # answering

    def _answer_all(self) -> None:
        while batch := self._next_batch():
            wanted = [asked for asked in batch if asked.answer.set_running_or_notify_cancel()]
            if not wanted:
                continue
            answers = self._network.submit(self._answers, wanted)  # in its own thread, which keeps its error
            wait([answers])
            error = answers.exception()
            for position, asked in enumerate(wanted):
                if error is not None:
                    asked.answer.set_exception(error)
                else:
                    asked.answer.set_result(answers.result()[position])

    def _next_batch(self) -> list[_Asked]:
        """The next pictures that one version was asked about; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            self._changed.wait_for(self._is_whole, self.max_wait_s)
            batch: list[_Asked] = []
            while (
                self._waiting
                and len(batch) < self.max_batch
                and (not batch or self._waiting[0].served is batch[0].served)
            ):
                batch.append(self._waiting.popleft())
            return batch

    def _is_whole(self) -> bool:
        """Whether waiting longer brings nothing: the batch is full, or nobody else is on the way."""
        return len(self._waiting) >= self.max_batch or not self._reading or self._closing.is_set()

    def _answers(self, batch: Sequence[_Asked]) -> list[dict[str, Any]]:
        served = batch[0].served
        model = {"name": self.name, "version": served.version, "sha256": served.sha256}
        answers = []
        for asked, outcome in zip(batch, served.predictor.together([asked.picture for asked in batch])):
            width, height = asked.picture.size
            facts = {"model": model, "picture": {"width_px": width, "height_px": height}}
            answers.append({**facts, **asked.worded(outcome)})
        self._batches += 1
        self._pictures += len(batch)
        return answers

    # following the alias

    def _follow(self) -> None:
        while not self._closing.wait(POLL_S):
            try:
                if self.versions.store.find(self.name).name != self._served.version:
                    self._served = self._load()
                    self._reloads += 1
                    get_logger("serve").info("%s: %s", self.name, self._served.version)
                self._trouble = ""
            except (SmartCashError, OSError) as error:  # the version that is loaded goes on answering
                if str(error) != self._trouble:
                    get_logger("serve").warning(str(error))
                self._trouble = str(error)

    def _load(self) -> _Served:
        version = self.versions.store.find(self.name)
        predictor, _ = open_model(version.name, self.device)
        # the first pass builds kernels: whoever asks first does not wait for them
        size = predictor.preprocess.image_size
        predictor(np.zeros((size, size, 3), np.uint8))
        return _Served(
            version.name, version.sha256, predictor, datetime.now(UTC).isoformat(timespec="seconds")
        )
