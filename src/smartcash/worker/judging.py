"""Models and data sets that are judged: each model looks at each picture once, and its answers are kept.

<run>/report/seen/<split>-<key>.safetensors, or <home>/models/v3/report/seen/… where a version's run is gone. The key
is made of the checkpoint's SHA-256, the data's content hash, the split and what was changed in the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from smartcash.backend.comparison import marks
from smartcash.backend.formats import DataSet, Sample, read_dataset, task_named
from smartcash.backend.formats.model import relative_name
from smartcash.backend.images import read_image, write_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.seen import Change, Seen, look, read_seen, write_seen
from smartcash.domain.errors import DataInvalid, RunNotResumable
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.comparison import Contender
from smartcash.services.version_store import VersionStore
from smartcash.utils.files import sha256_of
from smartcash.utils.logger import get_logger

SHOWN_PX = 640


@dataclass(frozen=True)
class Pictures:
    """The split of a data set that models are judged on."""

    data: DataSet
    split: str

    @classmethod
    def read(cls, path: str, split: str, like: Contender) -> Pictures:
        """The data set at `path`, split as for the training of `like` where it has no split of its own. `split`: "" for
        the test pictures, or the validation ones where there are none. Raises DataInvalid."""
        data = read_dataset(path, task=task_named(like.task), seed=like.config.seed)
        chosen = split or ("test" if "test" in data.splits else "valid")
        if chosen not in data.splits:
            raise DataInvalid("split_missing", path=path, split=chosen, splits=", ".join(data.splits))
        return cls(data, chosen)

    @cached_property
    def by_name(self) -> dict[str, Sample]:
        """Every picture by its name in `Seen`, also those that cannot be read."""
        root = self.data.root
        return {relative_name(sample.path, root): sample for sample in self.data.splits[self.split]}

    def of_split(self, split: str) -> Pictures:
        """Another split of the same data."""
        return Pictures(self.data, split)


class JudgedModel:
    """A run's best checkpoint or a version, which is opened only when it must look at something new."""

    def __init__(self, side: Contender, home: Path, device: str = "auto") -> None:
        """Raises CheckpointCorrupt for a version whose file was altered, RunNotResumable without a checkpoint."""
        self.side, self.device = side, device
        store = VersionStore(home)
        if side.version is not None and side.place == side.version.name:
            self.checkpoint, self.sha256 = store.model_file(side.version), side.version.sha256
        else:
            assert side.run is not None
            best = self._manager(side.run.weights).find_best_checkpoint()
            if best is None:
                raise RunNotResumable("run_without_checkpoint", run=side.run.id, folder=str(side.run.weights))
            with best.open("rb") as file:
                self.checkpoint, self.sha256 = best, sha256_of(file)

    @property
    def report_folder(self) -> Path:
        """Where what is found out about it is kept."""
        run = self.side.run
        return (self.checkpoint.parent if run is None else run.path) / "report"

    @cached_property
    def predictor(self) -> Predictor:
        """The model itself. Raises a CheckpointError."""
        state = self._manager(self.checkpoint.parent).load_checkpoint(checkpoint_path=str(self.checkpoint))
        return Predictor.from_state(state, device=self.device)

    def seen(self, pictures: Pictures, count: int = 0, change: Change | None = None, name: str = "") -> Seen:
        """Its answers to the pictures, or to `count` of them spread evenly; kept ones where there are any. `change`
        alters each picture first, and `name` says how. Raises DataInvalid for classes that it does not know."""
        count = 0 if count >= len(pictures.by_name) else count
        about = {
            "checkpoint": self.sha256, "data": pictures.data.content_hash, "split": pictures.split,
            "pictures": str(count or "all"), "change": name,
        }  # fmt: skip
        key = hashlib.sha256("\n".join(about.values()).encode()).hexdigest()[:16]
        path = self.report_folder / "seen" / f"{pictures.split}-{key}.safetensors"
        seen = read_seen(path, about)
        if seen is None:
            samples = self._spread(list(pictures.by_name.values()), count)
            seen = look(self.predictor, self._labelled(samples, pictures.data), pictures.data.root, change)
            write_seen(path, seen, about)
        return seen

    def _labelled(self, samples: Sequence[Sample], data: DataSet) -> list[Sample]:
        """The samples with labels that index the model's own classes."""
        known = self.predictor.classes
        unknown = [label for label in data.classes if label not in known]
        if unknown:
            raise DataInvalid("classes_differ", unknown=", ".join(unknown), known=", ".join(known))
        order = np.array([known.index(label) for label in data.classes])
        return [replace(sample, labels_N=order[sample.labels_N]) for sample in samples]

    @staticmethod
    def _spread(samples: Sequence[Sample], count: int) -> Sequence[Sample]:
        if not count:
            return samples
        return [samples[index] for index in np.linspace(0, len(samples) - 1, count).round().astype(int)]

    @staticmethod
    def _manager(folder: Path) -> CheckpointManager:
        return CheckpointManager(output_dir=str(folder), logger=get_logger("checkpoint"))


def trained_on(side: Contender, pictures: Pictures) -> int | None:
    """How many of the pictures were among those that it was trained with, byte for byte; None: its data set is no
    longer what it was, so that nobody knows."""
    data = pictures.data
    if side.data.content_hash != data.content_hash:
        if not side.data.path or not Path(side.data.path).exists():
            return None
        data = read_dataset(side.data.path, task=task_named(side.task), seed=side.config.seed)
        if data.content_hash != side.data.content_hash:
            return None
    learnt = {sample.digest for sample in data.splits["train"]}
    return sum(sample.digest in learnt for sample in pictures.data.splits[pictures.split])


def shown(
    seen: Seen, index: int, number: int, pictures: Pictures, out: Path | None
) -> tuple[dict[str, Any], float]:
    """One picture with what is in it, and the px of the stored picture per px of the original; written into `out`,
    at most SHOWN_PX long, as 000.jpg and so on by its `number`."""
    sample = pictures.by_name[seen.names[index]]
    ratio = min(1.0, SHOWN_PX / max(sample.size))
    width, height = (max(1, round(side * ratio)) for side in sample.size)
    file = f"{number:03}.jpg"
    if out is not None:
        small = cv2.resize(read_image(sample.path), (width, height), interpolation=cv2.INTER_AREA)
        write_image(out / file, small, quality=85)  # type: ignore[arg-type]
    truth = marks(seen.of_picture(index)[1], seen.classes, ratio)
    return {
        "file": file,
        "source": seen.names[index],
        "width": width,
        "height": height,
        "truth": truth,
    }, ratio
