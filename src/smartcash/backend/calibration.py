"""How far scores can be trusted, and the limits that follow: from which score on a note counts, below which not to
answer. Limits are chosen on the validation pictures only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smartcash.backend.metrics import (
    CALIBRATION_BINS,
    Floats,
    Ints,
    Objects,
    best_threshold,
    exact_pictures,
    once_each,
)
from smartcash.backend.mistakes import find_mistakes
from smartcash.backend.predictor import DOUBT
from smartcash.backend.resampling import (
    FEWEST_PICTURES,
    ClassificationFigures,
    DetectionFigures,
    Estimate,
    Judged,
    estimate,
    resamples,
    xywh,
)
from smartcash.domain.banknotes import values_of

TARGET = 0.99  # of the pictures that are answered, this share should be right
CHANCE = 0.05  # that a promise is wrong
LEAST_SCORE = 0.05  # below it a detector's boxes are of no use to anybody, and there are many


@dataclass(frozen=True)
class Reliability:
    """Stated certainty and share of right answers in CALIBRATION_BINS bins of equal width, empty ones left out; `ece`
    is the expected calibration error, the mean gap between the two weighted by `count` (Guo et al. 2017, eq. 3; of
    boxes as Küppers et al. 2020, without their place)."""

    count: tuple[int, ...]
    certainty: tuple[float, ...]
    right: tuple[Estimate, ...]
    ece: Estimate


def reliability(judged: Judged) -> Reliability | None:
    """Of a classifier's best classes, or of a detector's boxes from LEAST_SCORE on, once each; None without any."""
    picture_N, score_N, right_N = _answers(judged)
    if not len(score_N):
        return None
    bin_N = np.clip(np.ceil(score_N * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)

    def in_bins(values_N: Floats | npt.NDArray[np.bool_]) -> Floats:
        """Sums per picture and bin."""
        cell_N = picture_N * CALIBRATION_BINS + bin_N
        sums = np.bincount(cell_N, weights=values_N, minlength=judged.images * CALIBRATION_BINS)
        return sums.reshape(judged.images, CALIBRATION_BINS)

    count_IB, right_IB, score_IB = in_bins(np.ones(len(score_N))), in_bins(right_N), in_bins(score_N)
    used_B = count_IB.sum(axis=0) > 0
    drawn_RI, once_1I = resamples(judged.images), np.ones((1, judged.images))

    def shares(weights_RI: Floats) -> tuple[Floats, Floats]:
        count_RB, right_RB, score_RB = (weights_RI @ each for each in (count_IB, right_IB, score_IB))
        share_RB = np.where(count_RB > 0, right_RB / np.maximum(count_RB, 1), np.nan)
        return share_RB, np.abs(score_RB - right_RB).sum(axis=1) / np.maximum(count_RB.sum(axis=1), 1)

    (share_1B, ece_1), (share_RB, ece_R) = shares(once_1I), shares(drawn_RI)
    right = tuple(estimate(share_1B[0, each], share_RB[:, each]) for each in np.flatnonzero(used_B))
    ece = estimate(ece_1[0], ece_R)
    assert ece is not None
    return Reliability(
        tuple(count_IB.sum(axis=0)[used_B].astype(int).tolist()),
        tuple((score_IB.sum(axis=0)[used_B] / count_IB.sum(axis=0)[used_B]).tolist()),
        tuple(each for each in right if each is not None),
        ece,
    )


def _answers(judged: Judged) -> tuple[Ints, Floats, npt.NDArray[np.bool_]]:
    """Picture, score and rightness of every answer."""
    if isinstance(judged, ClassificationFigures):
        return np.arange(judged.images), judged.confidence_I, judged.right_I
    found = judged.seen.found
    found = found.where(found.scores_N >= LEAST_SCORE)
    found = found.where(once_each(xywh(found)))
    return found.image_N, found.scores_N, find_mistakes(found, judged.seen.truth, judged.images).right_N


@dataclass(frozen=True)
class Limits:
    """See `services.thresholds.Thresholds`. `curve`: what every other limit of abstaining would give."""

    score: float
    classes: dict[str, float]
    abstain: float
    target: float
    reached: bool
    sure: float
    right_when_sure: float | None
    curve: dict[str, list[Any]]


def choose_limits(judged: Judged) -> Limits:
    """Limits for a model whose answers to the validation pictures have been judged.

    A class with notes in fewer than FEWEST_PICTURES pictures has the common score; so have all, if limits of their own
    would count fewer pictures exactly. A picture is answered when no note that is possible at all, from half of its
    class's score on, is below the limit of abstaining; of a detector this is at least the common score, since a note
    just below it is in doubt whatever the validation pictures say."""
    if isinstance(judged, ClassificationFigures):
        score, chosen_C = 0.0, np.zeros(len(judged.classes))
    else:
        score, own_C = _own_scores(judged)
        common_C = np.full(len(judged.classes), score)
        own_I, common_I = (_answered(judged, score_C)[1] for score_C in (own_C, common_C))
        chosen_C = own_C if own_I.sum() >= common_I.sum() else common_C
    weakest_I, right_I = _answered(judged, chosen_C)
    value_K = np.unique(weakest_I)
    between_K = (value_K[1:] + value_K[:-1]) / 2  # half-way, so that none sits on a single picture
    limit_K = np.append(score, between_K[between_K > score])
    sure_K = np.array([(weakest_I >= limit).mean() for limit in limit_K])
    right_K = [_share_right(weakest_I, right_I, limit) for limit in limit_K.tolist()]
    rank_K = [-1.0 if share is None else share for share in right_K]
    good_K = [position for position, share in enumerate(rank_K) if share >= TARGET]
    chosen = good_K[0] if good_K else int(np.argmax(rank_K))
    curve = {"abstain": limit_K.tolist(), "sure": sure_K.tolist(), "right_when_sure": right_K}
    return Limits(
        score, dict(zip(judged.classes, chosen_C.tolist())), float(limit_K[chosen]), TARGET, bool(good_K),
        float(sure_K[chosen]), right_K[chosen], curve,
    )  # fmt: skip


def promise(sure: float, images: int) -> float:
    """The most that limits chosen on `images` pictures can promise of pictures like them: were all of the share `sure`
    counted exactly, the one-sided 95 % lower bound of the share that is: CHANCE^(1/n) for n of n (Clopper and Pearson,
    1934)."""
    return float(CHANCE ** (1 / max(1, round(sure * images))))


def short_of_target(limits: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a report's `limits`, which reached their target on its pictures, can promise for having so few: `count` of
    those that were sure, and the `bound`, in words. None where that is the target, or it was not reached at all."""
    bound = promise(limits["sure"], limits["images"])
    if not limits["reached"] or bound >= limits["target"]:
        return None
    return {"count": round(limits["sure"] * limits["images"]), "bound": f"{bound:.0%}"}


def share_answered(judged: Judged, limits: Limits) -> tuple[float, float | None]:
    """The share of the pictures that these limits answer, and the share of those that are counted exactly."""
    weakest_I, right_I = _answered(judged, np.array([limits.classes[name] for name in judged.classes]))
    return float((weakest_I >= limits.abstain).mean()), _share_right(weakest_I, right_I, limits.abstain)


def _share_right(weakest_I: Floats, right_I: npt.NDArray[np.bool_], limit: float) -> float | None:
    answered_I = weakest_I >= limit
    return float(right_I[answered_I].mean()) if answered_I.any() else None


def _answered(judged: Judged, score_C: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The score of the weakest possible note in each picture (1 without any), and which pictures are counted exactly:
    the sum, or every class where none is worth money."""
    if isinstance(judged, ClassificationFigures):
        return judged.confidence_I, judged.right_I
    found: Objects = judged.seen.found
    own_N = score_C[found.labels_N]
    possible = found.where(found.scores_N >= DOUBT * own_N)
    possible = possible.where(once_each(xywh(possible)))
    weakest_I = np.ones(judged.images)
    np.minimum.at(weakest_I, possible.image_N, possible.scores_N)
    counted, there = xywh(found.where(found.scores_N >= own_N)), xywh(judged.seen.truth)
    count_I, sum_I = exact_pictures(counted, there, judged.images, values_of(judged.classes))
    return weakest_I, count_I if sum_I is None else sum_I


def _own_scores(judged: DetectionFigures) -> tuple[float, Floats]:
    """The best score for all classes together, and for each its own where it has pictures enough."""
    found, right_N = judged.seen.found, judged.right_TN[0]
    score, _ = best_threshold(found.scores_N, right_N, len(judged.seen.truth))
    own_C = np.full(len(judged.classes), score)
    for label in np.flatnonzero((judged.support_IC > 0).sum(axis=0) >= FEWEST_PICTURES).tolist():
        of_class_N = found.labels_N == label
        support = int(judged.support_IC[:, label].sum())
        own_C[label], _ = best_threshold(found.scores_N[of_class_N], right_N[of_class_N], support)
    return score, own_C
