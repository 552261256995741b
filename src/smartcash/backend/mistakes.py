"""What is wrong in each picture, as a person sees it: at the model's threshold, every note shown once.

The kinds of a detector's mistakes are those of Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object
Detection Errors", section 2.2, with its limits (IoU 0.5 is right, below 0.1 is background) and in its order:

badly_placed   the right class, IoU with it 0.1 to 0.5
wrong_class    IoU 0.5 or more with a note of another class
double         IoU 0.5 or more with a note that a surer box has already found
background     IoU below 0.1 with every note: there is nothing
both           neither class nor place is right
missed         a note that no box is right about, and none of the first two kinds speaks of
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smartcash.backend.metrics import MATCH_IOU, Floats, Ints, Objects, match, once_each, overlaps
from smartcash.backend.resampling import ClassificationFigures, Judged, xywh

BACKGROUND_IOU = 0.1
KINDS = ("missed", "wrong_class", "badly_placed", "double", "background", "both")


@dataclass(frozen=True)
class Mistakes:
    """A model's answers to `images` pictures: the finds that count, once each (of a classifier the best class), and
    the notes that are there.

    `kind_N`: of each find, "" where it is right. `unfound_M`: which notes no find is right about; of these `missed_M`
    are the ones that no wrong find accounts for."""

    images: int
    found: Objects
    truth: Objects
    kind_N: tuple[str, ...]
    unfound_M: npt.NDArray[np.bool_]
    missed_M: npt.NDArray[np.bool_]

    @property
    def right_N(self) -> npt.NDArray[np.bool_]:
        return np.array([kind == "" for kind in self.kind_N], np.bool_)

    @property
    def right_I(self) -> Ints:
        """How many right finds each picture has."""
        return np.bincount(self.found.image_N[self.right_N], minlength=self.images)

    @property
    def wrong_I(self) -> Ints:
        """How many wrong ones."""
        return np.bincount(self.found.image_N[~self.right_N], minlength=self.images)

    @property
    def unfound_I(self) -> Ints:
        """How many notes of each picture no find is right about."""
        return np.bincount(self.truth.image_N[self.unfound_M], minlength=self.images)

    @property
    def weight_I(self) -> Floats:
        """How bad each picture is: one for every note not found, and for every wrong find, the surer the more."""
        wrong = self.found.where(~self.right_N)
        return self.unfound_I + np.bincount(
            wrong.image_N, weights=0.5 + wrong.scores_N / 2, minlength=self.images
        )

    def counts(self) -> dict[str, int]:
        """How many mistakes of each kind."""
        return {**{kind: self.kind_N.count(kind) for kind in KINDS}, "missed": int(self.missed_M.sum())}


def mistakes_of(judged: Judged) -> Mistakes:
    """The mistakes of a model whose answers have been judged."""
    if isinstance(judged, ClassificationFigures):
        return _of_classifier(judged)
    kept = judged.seen.found.where(judged.kept_N)
    found = kept.where(once_each(xywh(kept)))
    return find_mistakes(found, judged.seen.truth, judged.images)


def find_mistakes(found: Objects, truth: Objects, images: int) -> Mistakes:
    """The mistakes among these finds, once each."""
    pairs = overlaps(xywh(found), xywh(truth), BACKGROUND_IOU)
    same_K = found.labels_N[pairs.first_K] == truth.labels_N[pairs.second_K]
    match_N, _ = match(pairs.where(same_K & (pairs.iou_K >= MATCH_IOU)), found.scores_N)
    unfound_M = np.ones(len(truth), np.bool_)
    unfound_M[match_N[match_N >= 0]] = False
    missed_M = unfound_M.copy()
    kinds = []
    for row, matched in enumerate(match_N.tolist()):
        own_K = pairs.first_K == row
        iou_K, truth_K, right_class_K = pairs.iou_K[own_K], pairs.second_K[own_K], same_K[own_K]
        same_iou, other_iou = iou_K[right_class_K].max(initial=0.0), iou_K[~right_class_K].max(initial=0.0)
        if matched >= 0:
            kinds.append("")
        elif BACKGROUND_IOU <= same_iou < MATCH_IOU:
            kinds.append("badly_placed")
            missed_M[truth_K[right_class_K][iou_K[right_class_K].argmax()]] = False
        elif other_iou >= MATCH_IOU:
            kinds.append("wrong_class")
            missed_M[truth_K[~right_class_K][iou_K[~right_class_K].argmax()]] = False
        elif same_iou >= MATCH_IOU:
            kinds.append("double")
        else:
            kinds.append("both" if other_iou >= BACKGROUND_IOU else "background")
    return Mistakes(images, found, truth, tuple(kinds), unfound_M, missed_M)


def _of_classifier(judged: ClassificationFigures) -> Mistakes:
    found = Objects(
        np.arange(judged.images), np.zeros((judged.images, 4)), judged.predicted_I, judged.confidence_I
    )
    kinds = tuple("" if right else "wrong_class" for right in judged.right_I.tolist())
    none_M = np.zeros(judged.images, np.bool_)
    return Mistakes(judged.images, found, judged.seen.truth, kinds, none_M, none_M)
