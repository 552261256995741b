"""What a model said of every picture of a split, and what was there: looked at once, judged as often as one likes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from smartcash.backend.boxes import select
from smartcash.backend.data import Pictures, kept_side
from smartcash.backend.detector import Detector
from smartcash.backend.formats.model import Sample, Task, relative_name
from smartcash.backend.images import Pixels
from smartcash.backend.metrics import Floats, Ints, Objects
from smartcash.backend.predictor import Predictor
from smartcash.domain.errors import DataInvalid
from smartcash.utils.files import write_bytes
from smartcash.utils.logger import get_logger

BATCH = 32  # that of an evaluation, so that its figures come out the same
FORMAT = "2"
_ARRAYS = ("image", "boxes", "scores", "labels", "true_image", "true_boxes", "true_labels")

# picture, boxes_N4 and number of a sample → the changed picture, and where the same boxes are in it
Change = Callable[[Pixels, np.ndarray, int], tuple[Pixels, np.ndarray]]


@dataclass(frozen=True)
class Seen:
    """Pictures by name (relative to the data set), what was `found` in them, and the `truth`; both index `classes`.
    `threshold`: the score from which on the model's notes count.

    Boxes are xyxy in px of the upright picture (of a changed one, as the model was shown it). A classifier has a row
    per picture and class instead, in that order, with the probability as score and an empty box."""

    task: Task
    classes: tuple[str, ...]
    names: tuple[str, ...]
    threshold: float
    found: Objects
    truth: Objects

    @property
    def probabilities_IC(self) -> Floats:
        """A classifier's, one row per picture."""
        return self.found.scores_N.reshape(len(self.names), -1)

    def with_classes(self, classes: Sequence[str]) -> Seen:
        """The same with other indices: `classes` holds all of its own. A classifier's gives new ones probability 0."""
        index_C = np.array([classes.index(name) for name in self.classes])
        truth = replace(self.truth, labels_N=index_C[self.truth.labels_N])
        if self.task == "detect":
            found = replace(self.found, labels_N=index_C[self.found.labels_N])
            return replace(self, classes=tuple(classes), found=found, truth=truth)
        wide_IC = np.zeros((len(self.names), len(classes)))
        wide_IC[:, index_C] = self.probabilities_IC
        return replace(self, classes=tuple(classes), found=_probabilities(wide_IC), truth=truth)

    def of_picture(self, index: int) -> tuple[Objects, Objects]:
        """What was found in one picture, best first, and what is there."""
        found, truth = (rows.where(rows.image_N == index) for rows in (self.found, self.truth))
        return found.where(np.argsort(-found.scores_N, kind="stable")), truth


@torch.inference_mode()
def look(predictor: Predictor, samples: Sequence[Sample], root: Path, change: Change | None = None) -> Seen:
    """Show every picture to the model, as an evaluation does; with `change`, a changed one. The samples' labels
    index the model's classes. A picture that cannot be read is named in the log and left out, as in a training; raises
    DataInvalid when none is left."""
    pictures = Pictures(samples, kept_side(predictor.preprocess.image_size), keep=False)
    names: list[str] = []
    found: list[tuple[np.ndarray, ...]] = []
    truth: list[tuple[np.ndarray, ...]] = []
    waiting: list[tuple[np.ndarray, tuple[int, int]]] = []
    for index, sample in enumerate(samples):
        try:
            image, boxes, _ = pictures.fetch(index)
        except (DataInvalid, OSError) as error:
            get_logger("models").warning(str(error))
            continue
        if change is None:
            boxes, size = sample.boxes_N4, sample.size
        else:
            image, boxes = change(image, boxes, index)
            size = (image.shape[1], image.shape[0])
        names.append(relative_name(sample.path, root))
        truth.append((boxes.astype(np.float32), np.ones(len(sample.labels_N)), sample.labels_N))
        waiting.append((predictor.preprocess.image(image), size))
        if len(waiting) == BATCH:
            found += _outcomes(predictor, waiting)
            waiting = []
    if waiting:
        found += _outcomes(predictor, waiting)
    if not names:
        raise DataInvalid("pictures_unreadable", path=str(root))
    if predictor.task == "classify":
        said = _probabilities(np.stack([scores for _, scores, _ in found]))
    else:
        said = _rows(found)
    return Seen(predictor.task, predictor.classes, tuple(names), predictor.threshold, said, _rows(truth))


def _outcomes(
    predictor: Predictor, waiting: Sequence[tuple[np.ndarray, tuple[int, int]]]
) -> list[tuple[np.ndarray, ...]]:
    """(boxes in px of the picture, scores, labels) of each picture: its square and its own (width, height)."""
    model, preprocess = predictor.model, predictor.preprocess
    images_B3HW = torch.from_numpy(np.stack([square for square, _ in waiting])).permute(0, 3, 1, 2)
    inputs = preprocess.normalize(images_B3HW.to(predictor.precision.device))
    with predictor.precision.autocast():
        output = model(inputs)
    if not isinstance(model, Detector):
        none, labels = np.zeros((len(predictor.classes), 4)), np.arange(len(predictor.classes))
        return [(none, row, labels) for row in output.softmax(-1).float().cpu().numpy()]
    boxes_BA4, scores_BAC = model.decode(output)
    outcomes = []
    for boxes_A4, scores_AC, size in zip(boxes_BA4, scores_BAC, (size for _, size in waiting)):
        boxes, scores, labels = (part.cpu().numpy() for part in select(boxes_A4, scores_AC))
        outcomes.append((preprocess.boxes_back(boxes, *size), scores, labels))
    return outcomes


def _rows(per_picture: Sequence[tuple[np.ndarray, ...]]) -> Objects:
    """The rows of all pictures in one table, in picture order."""
    count_I = [len(labels) for _, _, labels in per_picture]
    boxes = [np.asarray(boxes, np.float64).reshape(-1, 4)[: len(labels)] for boxes, _, labels in per_picture]
    # a classifier's truth is a label without a box
    boxes = [
        rows if len(rows) == count else np.zeros((count, 4))
        for rows, count in zip(boxes, count_I, strict=True)
    ]
    return Objects(
        np.repeat(np.arange(len(per_picture)), count_I),
        np.concatenate([*boxes, np.zeros((0, 4))]),
        np.concatenate([*(labels for *_, labels in per_picture), np.zeros(0)]).astype(np.int64),
        np.concatenate([*(scores for _, scores, _ in per_picture), np.zeros(0)]).astype(np.float64),
    )


def _probabilities(probabilities_IC: Floats) -> Objects:
    images, classes = probabilities_IC.shape
    labels_N: Ints = np.tile(np.arange(classes), images)
    return Objects(
        np.repeat(np.arange(images), classes),
        np.zeros((images * classes, 4)),
        labels_N,
        probabilities_IC.reshape(-1).astype(np.float64),
    )


# ---------------------------------------------------------------- kept on disk


def write_seen(path: Path, seen: Seen, about: Mapping[str, str]) -> None:
    """Keep it with what it is `about` (checkpoint, data, split …) and a SHA-256 over everything. Raises OSError."""
    arrays = {
        name: np.ascontiguousarray(array) for name, array in zip(_ARRAYS, _arrays_of(seen), strict=True)
    }
    facts = {
        "format": FORMAT, "task": seen.task, "classes": json.dumps(seen.classes), "names": json.dumps(seen.names),
        "threshold": repr(seen.threshold), **about,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(arrays, {**facts, "check": _check(facts, arrays)}))


def read_seen(path: Path, about: Mapping[str, str]) -> Seen | None:
    """What `write_seen` kept about exactly this; None if there is nothing, or it is damaged, so that one looks again."""
    try:
        with safe_open(path, "numpy") as file:
            facts: dict[str, Any] = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        check = facts.pop("check", "")
        wanted = {"format": FORMAT, **about}
        if check != _check(facts, arrays) or any(facts.get(key) != value for key, value in wanted.items()):
            return None
        image, boxes, scores, labels, true_image, true_boxes, true_labels = arrays.values()
        return Seen(
            facts["task"], tuple(json.loads(facts["classes"])), tuple(json.loads(facts["names"])),
            float(facts["threshold"]), _widened(image, boxes, labels, scores),
            _widened(true_image, true_boxes, true_labels, np.ones(len(true_labels))),
        )  # fmt: skip
    except (FileNotFoundError, SafetensorError, ValueError, KeyError):
        return None


def _arrays_of(seen: Seen) -> tuple[np.ndarray, ...]:
    """As small as they can be without a loss: a model's boxes and scores are float32 themselves."""
    found, truth = seen.found, seen.truth
    return (
        *(
            found.image_N.astype(np.int32),
            found.boxes_N4.astype(np.float32),
            found.scores_N.astype(np.float32),
        ),
        *(found.labels_N.astype(np.int32), truth.image_N.astype(np.int32), truth.boxes_N4.astype(np.float32)),
        truth.labels_N.astype(np.int32),
    )


def _widened(
    image_N: np.ndarray, boxes_N4: np.ndarray, labels_N: np.ndarray, scores_N: np.ndarray
) -> Objects:
    return Objects(
        image_N.astype(np.int64),
        boxes_N4.astype(np.float64),
        labels_N.astype(np.int64),
        scores_N.astype(np.float64),
    )


def _check(facts: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) of the facts and, in the order of their names, the arrays with their shapes."""
    sha256 = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha256.update(
            f"{name} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
        )
    return sha256.hexdigest()
