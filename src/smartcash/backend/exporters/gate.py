"""The gate: an exported file, loaded into its own runtime, against the model, on the same pictures.

The file's side uses the preprocessing that its metadata name, so that a wrong one shows as a wrong result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from smartcash.backend.boxes import select
from smartcash.backend.data import Pictures
from smartcash.backend.exporters.model import Outputs, Run, Suppression
from smartcash.backend.metrics import ClassificationMetrics, DetectionMetrics
from smartcash.backend.overlap import iou
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.errors import DataInvalid
from smartcash.domain.exports import ExportRequest, Proof

# What a file may differ by: box in px of the input, score 0…1, share of equal best classes (with NMS: of
# detections that both sides have). Reduced precision is judged by what it costs in accuracy.
LIMITS: dict[str, dict[str, float]] = {
    "fp32": {"box_px": 1e-2, "score": 1e-3, "agreement": 1.0},
    "fp16": {"drop": 0.005},
    "int8": {"drop": 0.02},
}
# a file of reduced precision, run again elsewhere, against what it gave when it was made
AGAIN = {"box_px": 1.0, "score": 0.05}
SCORES_SEEN = 0.05  # of reduced precision, the differences are those of candidates that score more
SINGLE_CALLS, TOGETHER = 4, 4
MATCH_IOU = 0.5


@dataclass(frozen=True)
class Evidence:
    """Pictures for a proof. `kind`: "validation" (of the very data that the model was trained with), "other" (of data
    that are not the same, or not known to be) or "drawn". `labelled`: their labels index the model's classes."""

    kind: str
    pictures: Pictures
    labelled: bool

    def fetch(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Pictures.fetch`. Raises DataInvalid, also for a picture that is gone meanwhile."""
        try:
            return self.pictures.fetch(row)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DataInvalid("picture_unreadable", path=str(error.filename), reason=reason) from error


@dataclass
class Differences:
    """The largest differences so far, and how often both sides said the same."""

    box_px: float | None = None
    score: float = 0.0
    same: int = 0
    asked: int = 0

    @property
    def agreement(self) -> float | None:
        return self.same / self.asked if self.asked else None

    def add(self, ours: Outputs, theirs: Outputs, *, seen: float = -1.0) -> None:
        """Compare the outputs for one batch; of raw candidates only those that score above `seen` with us."""
        if "box" in ours:
            self._add_detections(ours, theirs)
            return
        name = "scores" if "scores" in ours else "probabilities"
        counted = ours[name] > seen
        self.score = _larger(self.score, (ours[name] - theirs[name])[counted])
        if "boxes" in ours:
            differing = (ours["boxes"] - theirs["boxes"])[counted.any(-1)]
            self.box_px = _larger(self.box_px or 0.0, differing)
        for mine, other in zip(ours[name], theirs[name]):
            # a tie within the tolerance is no disagreement
            self.same += bool(mine.flat[other.argmax()] >= mine.max() - LIMITS["fp32"]["score"])
            self.asked += 1

    def _add_detections(self, ours: Outputs, theirs: Outputs) -> None:
        self.box_px = self.box_px or 0.0
        self.asked += max(len(ours["score"]), len(theirs["score"]))
        free = set(range(len(theirs["score"])))
        overlap = iou(ours["box"], theirs["box"])
        for row in range(len(ours["score"])):
            fitting = [
                other for other in free
                if ours["image"][row] == theirs["image"][other] and ours["label"][row] == theirs["label"][other]
                and overlap[row, other] >= MATCH_IOU
            ]  # fmt: skip
            if fitting:
                nearest = min(fitting, key=lambda other: abs(ours["box"][row] - theirs["box"][other]).max())
                free.remove(nearest)
                self.same += 1
                self.box_px = _larger(self.box_px, ours["box"][row] - theirs["box"][nearest])
                self.score = _larger(self.score, ours["score"][row] - theirs["score"][nearest])

    def exceeded(self, limits: Mapping[str, float]) -> str:
        """The first figure that is over its limit, or ""; a difference that is not a number is."""
        for name in ("box_px", "score"):
            value = getattr(self, name)
            if name in limits and value is not None and not value <= limits[name]:
                return name
        agreed = self.agreement is None or self.agreement >= limits.get("agreement", 0.0)
        return "" if agreed else "agreement"


def _larger(known: float, differences: np.ndarray) -> float:
    return float(np.max(np.abs(differences), initial=known)) if differences.size else known


def squares(preprocess: Preprocess, images: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures as the network's input, normalised float32 (B, 3, S, S)."""
    stacked = torch.from_numpy(np.stack([preprocess.image(image) for image in images])).permute(0, 3, 1, 2)
    return np.ascontiguousarray(preprocess.normalize(stacked).numpy())


def model_run(predictor: Predictor, request: ExportRequest, rule: Suppression) -> Run:
    """The model itself, as it was trained, with the outputs that the file should have."""

    @torch.inference_mode()
    def run(images_BCHW: np.ndarray) -> Outputs:
        images = torch.from_numpy(images_BCHW).contiguous(memory_format=torch.channels_last)
        output = predictor.model(images)
        if predictor.task == "classify":
            return {"probabilities": output.softmax(-1).numpy()}
        boxes_BA4, scores_BAC = predictor.model.decode(output)
        if request.nms:
            return suppressed(boxes_BA4, scores_BAC, rule)
        return {"boxes": boxes_BA4.numpy(), "scores": scores_BAC.numpy()}

    return run


def suppressed(boxes_BA4: Tensor, scores_BAC: Tensor, rule: Suppression) -> Outputs:
    """The detections of a batch, as a file with NMS gives them."""
    found: list[tuple[Tensor, ...]] = []
    for image, (boxes, scores) in enumerate(zip(boxes_BA4, scores_BAC)):
        every = scores.numel()
        box, score, label = select(
            boxes,
            scores,
            score_threshold=rule.threshold,
            iou_threshold=rule.iou,
            limit=every,
            candidates=every,
        )
        once = nms(box, score, rule.same_note_iou)
        found.append((torch.full((len(once),), image), box[once], score[once], label[once]))
    image, box, score, label = (torch.cat(parts).numpy() for parts in zip(*found))
    best = np.argsort(-score, kind="stable")
    return {"image": image[best], "box": box[best], "score": score[best], "label": label[best]}


def prove(
    predictor: Predictor,
    run: Run,
    metadata: Mapping[str, Any],
    request: ExportRequest,
    rule: Suppression,
    evidence: Evidence,
) -> Proof:
    """Run the file and the model on the evidence, one picture at a time and several together, and judge.

    `metadata`: those that the file itself holds."""
    theirs = Preprocess.from_dict(metadata["input"]["preprocess"])
    ours, model = predictor.preprocess, model_run(predictor, request, rule)
    differences, calls = Differences(), set()
    tallies = [_Tally(predictor.classes, predictor.task), _Tally(predictor.classes, predictor.task)]
    limits = LIMITS[request.precision]
    seen = -1.0 if request.precision == "fp32" else SCORES_SEEN
    for rows in _calls(len(evidence.pictures), request.batch):
        calls.add(len(rows))
        fetched = [evidence.fetch(row) for row in rows]
        images = [image for image, *_ in fetched]
        outputs = model(squares(ours, images)), run(squares(theirs, images))
        if not all(np.isfinite(values).all() for values in outputs[1].values()):
            return Proof("failed", "not_finite", evidence.kind, len(evidence.pictures), limits=limits)
        differences.add(*outputs, seen=seen)
        if evidence.labelled:
            once = fetched[: len(set(rows))]
            for tally, preprocess, output in zip(tallies, (ours, theirs), outputs):
                tally.add(output, once, preprocess)
    proof = Proof(
        "verified", "", evidence.kind, len(evidence.pictures), tuple(sorted(calls)), differences.box_px,
        differences.score, differences.agreement, limits=limits,
    )  # fmt: skip
    if evidence.labelled:
        values = [tally.value() for tally in tallies]
        proof = replace(proof, metric=tallies[0].name, metric_torch=values[0], metric_file=values[1])
    return _judged(proof, differences)


def _judged(proof: Proof, differences: Differences) -> Proof:
    reason = differences.exceeded(proof.limits)
    if "drop" in proof.limits:
        if proof.drop is None:
            return replace(proof, state="unverified", reason="no_metric")
        reason = "" if proof.drop <= proof.limits["drop"] else "drop"
    if reason:
        return replace(proof, state="failed", reason=reason)
    if differences.agreement is None:
        return replace(proof, state="unverified", reason="nothing_detected")
    return proof


def _calls(count: int, batch: int | None) -> Iterator[list[int]]:
    """Which pictures go into which call; a file for a fixed number gets some twice rather than too few."""
    if batch is not None:
        for first in range(0, count, batch):
            yield [min(row, count - 1) for row in range(first, first + batch)]
        return
    singles = min(SINGLE_CALLS, count)
    yield from ([row] for row in range(singles))
    for first in range(singles, count, TOGETHER):
        yield list(range(first, min(count, first + TOGETHER)))


class _Tally:
    """One side's accuracy on labelled pictures."""

    def __init__(self, classes: tuple[str, ...], task: str) -> None:
        self.name = "mAP50_95" if task == "detect" else "accuracy"
        self.metrics = DetectionMetrics(classes) if task == "detect" else ClassificationMetrics(classes)

    def add(
        self,
        outputs: Outputs,
        fetched: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
        preprocess: Preprocess,
    ) -> None:
        if isinstance(self.metrics, ClassificationMetrics):
            labels = np.array([labels[0] for *_, labels in fetched])
            self.metrics.update(outputs["probabilities"][: len(labels)], labels, probabilities=True)
            return
        for row, (image, boxes, labels) in enumerate(fetched):
            height, width = image.shape[:2]
            found, scores, classes = detections(outputs, row)
            back = preprocess.boxes_back(found, width, height)
            self.metrics.update((back, scores, classes), (boxes, labels))

    def value(self) -> float | None:
        result = self.metrics.compute()
        return result.scalars().get(self.name)


def detections(outputs: Outputs, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and labels of one picture of a batch, from outputs with or without NMS."""
    if "box" in outputs:
        its = outputs["image"] == row
        return outputs["box"][its], outputs["score"][its], outputs["label"][its]
    raw = (torch.from_numpy(np.array(outputs[name][row])) for name in ("boxes", "scores"))
    boxes, scores, labels = select(*raw)
    return boxes.numpy(), scores.numpy(), labels.numpy()


def prove_again(
    run: Run, metadata: Mapping[str, Any], precision: str, batch: int | None, reference: Reference
) -> Proof:
    """Run the file on the pictures that travel with it and compare with what was given then: by the model for fp32,
    by the file itself for reduced precision, or by the model where the file could not be run."""
    preprocess = Preprocess.from_dict(metadata["input"]["preprocess"])
    limits = LIMITS["fp32"] if precision == "fp32" else AGAIN
    seen = -1.0 if precision == "fp32" else SCORES_SEEN
    differences = Differences()
    count = len(reference.images)
    for row in range(count):
        rows = [row] * (batch or 1)
        outputs = run(squares(preprocess, [reference.images[each] for each in rows]))
        differences.add(reference.outputs[row], first_picture(outputs), seen=seen)
    proof = Proof(
        "verified", "", "reference", count, (batch or 1,), differences.box_px, differences.score,
        differences.agreement, limits=limits,
    )  # fmt: skip
    return _judged(proof, differences)


@dataclass(frozen=True)
class Reference:
    """Drawn pictures that travel with a file, and the outputs that belong to each."""

    images: list[np.ndarray]
    outputs: list[Outputs]

    @property
    def holds_anything(self) -> bool:
        """Whether there is anything to compare."""
        return any(map(says_anything, self.outputs))


def says_anything(outputs: Outputs) -> bool:
    """False for a file with NMS that detects nothing."""
    return all(map(len, outputs.values()))


def first_picture(outputs: Outputs) -> Outputs:
    """The first picture's part of a batch's outputs."""
    if "image" in outputs:
        its = outputs["image"] == 0
        return {name: values[its] for name, values in outputs.items()}
    return {name: values[:1] for name, values in outputs.items()}
