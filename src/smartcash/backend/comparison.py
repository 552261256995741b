"""Several models' answers to the same pictures, held against those of the first: plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from smartcash.backend.metrics import Objects
from smartcash.backend.mistakes import Mistakes
from smartcash.backend.resampling import (
    LOWER_IS_BETTER,
    Figures,
    Judged,
    delta,
    estimate,
    resamples,
)
from smartcash.domain.banknotes import values_of

OF_CLASSES = {"detect": ("ap50_95", "recall", "precision"), "classify": ("recall", "precision", "f1")}
SHOWN = 12  # pictures side by side


def rows_of(models: Sequence[Judged]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The figures of the whole split and those of its classes, each with its interval, and for every model but the
    first the paired difference from it. All have seen the same pictures and know the same classes."""
    first = models[0]
    once_1I, drawn_RI = np.ones((1, first.images)), resamples(first.images)
    now, drawn = ([judged.all_figures(weights) for judged in models] for weights in (once_1I, drawn_RI))
    whole = [
        _row(name, first.images, [each[0] for each in now], [each[0] for each in drawn]) for name in now[0][0]
    ]
    classes = []
    for label, (name, value) in enumerate(zip(first.classes, values_of(first.classes))):
        support_I = first.support_IC[:, label]
        pictures = int((support_I > 0).sum())
        of_model = [[each[1][label] for each in sides] for sides in (now, drawn)]
        metrics = [_row(metric, pictures, *of_model) for metric in OF_CLASSES[first.seen.task]]
        facts = {"name": name, "value": value, "support": int(support_I.sum()), "images": pictures}
        classes.append({**facts, "metrics": metrics})
    return whole, classes


def _row(name: str, pictures: int, now: Sequence[Figures], drawn: Sequence[Figures]) -> dict[str, Any]:
    """One figure of every model. `pictures`: how many it rests on."""
    sides = [(float(one[name][0]), many[name]) for one, many in zip(now, drawn)]
    estimates = [estimate(*side) for side in sides]
    deltas = [None, *(delta(name, pictures, sides[0], side) for side in sides[1:])]
    return {
        "name": name,
        "higher_is_better": name not in LOWER_IS_BETTER,
        "values": [each and asdict(each) for each in estimates],
        "deltas": [each and asdict(each) for each in deltas],
    }


def agreement_of(models: Sequence[Mistakes]) -> dict[str, Any]:
    """In how many pictures all models, no model, or only one side of each pair makes no mistake."""
    clean_MI = np.stack([(each.wrong_I + each.unfound_I) == 0 for each in models])
    first_I = clean_MI[0]
    others = [int((clean_I & ~first_I).sum()) for clean_I in clean_MI[1:]]
    return {
        "all_right": int(clean_MI.all(axis=0).sum()),
        "all_wrong": int((~clean_MI).all(axis=0).sum()),
        "only": [int((first_I & ~clean_MI[1:].any(axis=0)).sum()), *others],
    }


def most_telling(models: Sequence[Mistakes], count: int = SHOWN) -> list[int]:
    """The pictures to show: where the models' mistakes differ most; then those that all have wrong."""
    weight_MI = np.stack([each.weight_I for each in models])
    spread_I, all_I = weight_MI.max(axis=0) - weight_MI.min(axis=0), weight_MI.sum(axis=0)
    order = sorted(range(weight_MI.shape[1]), key=lambda index: (-spread_I[index], -all_I[index], index))
    return [index for index in order if all_I[index] > 0][:count]


def shown_answer(mistakes: Mistakes, classes: Sequence[str], index: int, ratio: float) -> dict[str, Any]:
    """What a model says of one picture; boxes times `ratio`."""
    rows = np.flatnonzero(mistakes.found.image_N == index)
    rows = rows[np.argsort(-mistakes.found.scores_N[rows], kind="stable")]
    found = marks(mistakes.found.where(rows), classes, ratio)
    for mark, row in zip(found, rows.tolist()):
        mark |= {
            "score": round(float(mistakes.found.scores_N[row]), 4),
            "right": mistakes.kind_N[row] == "",
            "kind": mistakes.kind_N[row],
        }
    return {
        "right": int(mistakes.right_I[index]),
        "missed": int(mistakes.unfound_I[index]),
        "wrong": int(mistakes.wrong_I[index]),
        "found": found,
    }


def marks(objects: Objects, classes: Sequence[str], ratio: float) -> list[dict[str, Any]]:
    """Classes and, where there are any, boxes times `ratio`."""
    made = []
    for box, label in zip(objects.boxes_N4, objects.labels_N.tolist()):
        mark: dict[str, Any] = {"class": classes[label]}
        if box.any():
            mark["box_xyxy"] = [round(float(side) * ratio, 1) for side in box]
        made.append(mark)
    return made
