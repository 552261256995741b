"""A trained model, ready to look at pictures: made from a checkpoint's state, nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import nms

from smartcash.backend.boxes import select
from smartcash.backend.builder import build_model, choose_device, choose_dtype, set_threads
from smartcash.backend.data import EvalBatches, Pictures, PlainSamples, kept_side
from smartcash.backend.detector import Detector
from smartcash.backend.engine import Model, Precision, Result, evaluate
from smartcash.backend.formats import Sample, Task
from smartcash.backend.images import Pixels, pillow_pixels, read_image
from smartcash.backend.metrics import SAME_NOTE_IOU
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.banknotes import values_of
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import CheckpointMismatch
from smartcash.domain.records import missing_parts
from smartcash.utils.machine import available_cores

DEFAULT_THRESHOLD = 0.5
DOUBT = 0.5  # a note may be there from this part of the threshold on: then a count is not sure


@dataclass(frozen=True)
class Outcome:
    """What a model says of one picture. For detection, boxes in px of the upright picture, best first; for
    classification, one label, its probability as the score, and no boxes."""

    boxes_N4: np.ndarray
    scores_N: np.ndarray
    labels_N: np.ndarray

    def where(self, chosen_N: np.ndarray) -> Outcome:
        """Only the rows that are chosen."""
        boxes = self.boxes_N4[chosen_N] if len(self.boxes_N4) else self.boxes_N4  # a classifier has none
        return Outcome(boxes, self.scores_N[chosen_N], self.labels_N[chosen_N])


@dataclass(frozen=True)
class Prepared:
    """A picture as the network sees it. `size`: its own width and height in px, upright; `lowest`: the score from
    which on notes are wanted."""

    square_SS3: np.ndarray
    size: tuple[int, int]
    lowest: float


class Predictor:
    """`predictor(image)` → Outcome. Chosen on validation pictures: `threshold`, the score from which on notes count;
    `class_thresholds`, of each class its own in its place (all of them, or none); `abstain`, the score below which a
    possible note makes a count unsure (None: the threshold)."""

    def __init__(
        self,
        model: Model,
        classes: tuple[str, ...],
        preprocess: Preprocess,
        precision: Precision,
        threshold: float,
    ) -> None:
        self.model, self.classes, self.preprocess, self.precision = model, classes, preprocess, precision
        self.threshold = threshold
        self.class_thresholds: Mapping[str, float] = {}
        self.abstain: float | None = None

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], *, device: str = "auto", precision: str = "auto"
    ) -> Predictor:
        """From the content of a SmartCash checkpoint; its averaged weights are used.

        Raises CheckpointMismatch when it is not one of a training, or does not fit its own configuration."""
        missing = missing_parts(state)
        if missing:
            raise CheckpointMismatch("checkpoint_not_a_model", missing=", ".join(missing))
        config = TrainConfig.parse(state["config"]).replaced(model={"pretrained": False})
        set_threads(available_cores())
        place = choose_device(device)
        model = build_model(config, len(state["classes"]))
        try:
            model.load_state_dict(state["ema_state_dict"]["model"])
        except RuntimeError as error:
            raise CheckpointMismatch("checkpoint_weights_differ", reason=str(error)[:300]) from error
        model = model.to(place, memory_format=torch.channels_last).eval().requires_grad_(False)
        threshold = float((state.get("metrics") or {}).get("threshold", DEFAULT_THRESHOLD))
        return cls(
            model, tuple(state["classes"]), Preprocess.from_dict(dict(state["preprocess"])),
            Precision(place, choose_dtype(precision, place)), threshold,
        )  # fmt: skip

    @property
    def task(self) -> Task:
        return "detect" if isinstance(self.model, Detector) else "classify"

    def limits(self, threshold: float | None = None) -> np.ndarray:
        """The score from which on notes of each class count, (C,): `threshold` for all, else what was chosen."""
        if threshold is None and self.class_thresholds:
            return np.array([self.class_thresholds[name] for name in self.classes])
        return np.full(len(self.classes), self.threshold if threshold is None else threshold)

    def __call__(self, image_HW3: np.ndarray, threshold: float | None = None) -> Outcome:
        """Look at one upright RGB uint8 picture: the notes that reach `threshold`, by default what was chosen."""
        limits_C = self.limits(threshold)
        return self.reaching(limits_C, self.together([self.prepared(image_HW3, limits_C.min())])[0])

    def prepared(self, image_HW3: np.ndarray, lowest: float) -> Prepared:
        """An upright RGB uint8 picture for `together`; what is kept of it is as small as the network's input."""
        height, width = image_HW3.shape[:2]
        return Prepared(self.preprocess.image(image_HW3), (width, height), float(lowest))

    def reaching(self, limits_C: np.ndarray, seen: Outcome) -> Outcome:
        """The notes of an outcome that reach the limit of their class; the one label of a classifier always stays."""
        return seen.where(seen.scores_N >= limits_C[seen.labels_N]) if self.task == "detect" else seen

    @torch.inference_mode()
    def together(self, pictures: Sequence[Prepared]) -> list[Outcome]:
        """Look at several pictures in one pass of the network. What it says of each does not depend on the others,
        but for the last digits: kernels add up in another order."""
        squares_BSS3 = torch.from_numpy(np.stack([picture.square_SS3 for picture in pictures]))
        images = self.preprocess.normalize(squares_BSS3.permute(0, 3, 1, 2).to(self.precision.device))
        with self.precision.autocast():
            output = self.model(images)
        if not isinstance(self.model, Detector):
            return [_surest(each) for each in output.softmax(-1).cpu().numpy()]
        boxes_BA4, scores_BAC = self.model.decode(output)
        return [self._notes(*each) for each in zip(boxes_BA4, scores_BAC, pictures)]

    def _notes(self, boxes_A4: torch.Tensor, scores_AC: torch.Tensor, picture: Prepared) -> Outcome:
        found = select(boxes_A4, scores_AC, score_threshold=picture.lowest)
        once = nms(found[0], found[1], SAME_NOTE_IOU)  # one note is not two, whatever the classes say
        boxes, scores, labels = (tensor[once].cpu().numpy() for tensor in found)
        return Outcome(self.preprocess.boxes_back(boxes, *picture.size), scores, labels)

    def evaluate(
        self, samples: Sequence[Sample], on_image: Callable[[int, object], None] | None = None
    ) -> Result:
        """Every figure on samples whose labels index the model's own classes; notes are counted at `threshold`."""
        longest = kept_side(self.preprocess.image_size)
        batches = EvalBatches(PlainSamples(Pictures(samples, longest, keep=False), self.preprocess), 32, 0)
        threshold = self.threshold if self.task == "detect" else None
        return evaluate(
            self.model,
            batches,
            self.classes,
            self.preprocess,
            self.precision,
            threshold=threshold,
            on_image=on_image,
        )

    def predict(
        self, picture: str | os.PathLike[str] | Pixels | Image.Image, threshold: float | None = None
    ) -> dict[str, Any]:
        """What is in a picture, as plain values: `task`, `found` (class, score, value in Rupiah and, for detection,
        `box_xyxy` in px of the upright picture), `total_rupiah`.

        `picture`: a file, a Pillow image, or RGB uint8 pixels, height × width × 3. Raises DataInvalid for a file
        that is no picture, ValueError for pixels of another kind."""
        return self.describe(self(pixels_of(picture), threshold))

    def count(
        self, image_HW3: Pixels, abstain: float | None = None, threshold: float | None = None
    ) -> dict[str, Any]:
        """The money in one upright RGB picture, as plain values: `counts` (class, value, notes; every class),
        `total_rupiah`, `sure`, `doubts`, the possible notes that make it unsure, the `abstain` that was used, and whether
        it was `measured`: chosen by a report or by whoever asks, not taken from the training.

        Notes count from `threshold` on. A possible note that scores at least half of that, but below `abstain`, is a
        doubt: it may be one that was missed, or counted wrongly. So is a note from `abstain` on that only a `threshold`
        above the chosen one leaves out. The one note of a classifier always counts, and is in doubt below `abstain`.
        Both are by default what was chosen for this model; with an `abstain` of 0 nothing is in doubt."""
        limits_C = self.limits(threshold)
        return self.counted(limits_C, self(image_HW3, self.lowest(limits_C, abstain)), abstain)

    def lowest(self, limits_C: np.ndarray, abstain: float | None = None) -> float:
        """The score from which on `counted` must be shown every note."""
        possible = float(DOUBT * limits_C.min())
        return min(possible, self._abstain(abstain) or possible)

    def _abstain(self, asked: float | None) -> float:
        if asked is not None:
            return asked
        return float(self.limits().max()) if self.abstain is None else self.abstain

    def counted(self, limits_C: np.ndarray, seen: Outcome, abstain: float | None = None) -> dict[str, Any]:
        """What `count` says of an outcome that holds every note from the score `lowest` on."""
        measured = self.abstain is not None or abstain is not None
        abstain = self._abstain(abstain)
        counted = self.reaching(limits_C, seen)
        doubted = seen.where(self._in_doubt(limits_C, seen, abstain))
        notes = np.bincount(counted.labels_N, minlength=len(self.classes)).tolist()
        rows = zip(self.classes, values_of(self.classes), notes)
        return {
            "counts": [{"class": name, "value": value, "notes": count} for name, value, count in rows],
            "total_rupiah": self.describe(counted)["total_rupiah"],
            "sure": not len(doubted.scores_N),
            "doubts": self.describe(doubted)["found"],
            "abstain": abstain,
            "measured": measured,
        }

    def _in_doubt(self, limits_C: np.ndarray, seen: Outcome, abstain: float) -> np.ndarray:
        """Which notes, (N,), make a count unsure."""
        scores_N, limits_N = seen.scores_N, limits_C[seen.labels_N]
        unsure_N = scores_N < abstain
        if self.task != "detect" or not abstain:
            return unsure_N
        raised_N = limits_N > self.limits()[seen.labels_N]
        return np.where(unsure_N, scores_N >= DOUBT * limits_N, raised_N & (scores_N < limits_N))

    def describe(self, outcome: Outcome) -> dict[str, Any]:
        """An outcome as plain JSON values, with the sum in Rupiah where classes have a value."""
        values = values_of(self.classes)
        rows = []
        for position, (score, label) in enumerate(zip(outcome.scores_N.tolist(), outcome.labels_N.tolist())):
            row: dict[str, Any] = {
                "class": self.classes[label],
                "score": round(score, 4),
                "value": values[label],
            }
            if self.task == "detect":
                row["box_xyxy"] = [round(float(side), 1) for side in outcome.boxes_N4[position]]
            rows.append(row)
        known = [row["value"] for row in rows if row["value"] is not None]
        total = sum(known) if any(value is not None for value in values) else None
        return {"task": self.task, "found": rows, "total_rupiah": total}


def _surest(probabilities_C: np.ndarray) -> Outcome:
    """A classifier's answer: its one label."""
    best = int(probabilities_C.argmax())
    return Outcome(np.zeros((0, 4), np.float32), probabilities_C[best : best + 1], np.array([best]))


def pixels_of(picture: str | os.PathLike[str] | Pixels | Image.Image) -> Pixels:
    """A file, a Pillow image or an array as upright RGB uint8 pixels. Errors as those of `Predictor.predict`."""
    if isinstance(picture, Image.Image):
        return pillow_pixels(picture)
    if not isinstance(picture, np.ndarray):
        return read_image(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"RGB uint8 pixels (H, W, 3) are needed, these are {picture.dtype} {picture.shape}")
    return picture
