"""Boxes that are legal and yet odd: far from the rest of their class, drawn twice, copied from a neighbour."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smartcash.backend.formats.alike import Look
from smartcash.backend.formats.model import DataSet, Findings, Sample
from smartcash.backend.overlap import iou

WHOLE = 0.99  # of both sides
LEAST_BOXES = 20  # of a class, to say what is usual in it
SIGMAS = 6.0
MIN_FACTOR = 4.0  # of the side (root of the area): below it a size is no outlier, however alike the rest
MIN_LENGTH_FACTOR = 3.0  # of the elongation
MIN_DISTANCE = 0.3  # of the picture, from the usual place
DOUBLE_IOU = 0.90
COPIED_PICTURES, COPIED_SHARE = 10, 0.05


@dataclass(frozen=True, slots=True)
class _Boxes:
    """All boxes of a set, row by row: which sample, which label, xyxy in px and as fractions."""

    samples: list[Sample]
    boxes_N4: NDArray[np.float64]
    fractions_N4: NDArray[np.float64]
    labels_N: NDArray[np.int64]


def _all_boxes(dataset: DataSet) -> _Boxes:
    samples = dataset.pictures
    counts = [len(sample.boxes_N4) for sample in samples]
    boxes = np.concatenate([np.zeros((0, 4)), *(sample.boxes_N4 for sample in samples)])
    sizes = np.repeat(np.array([sample.size * 2 for sample in samples], np.float64), counts, axis=0)
    owners = [sample for sample, count in zip(samples, counts) for _ in range(count)]
    labels = [sample.labels_N for sample in samples if len(sample.boxes_N4)]
    return _Boxes(owners, boxes, boxes / sizes, np.concatenate([np.zeros(0, np.int64), *labels]))


def outliers(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """Boxes that cover the whole picture, or whose size, shape or place is far from the rest of their class.

    Far: six robust standard deviations (of the median absolute deviation) and a factor that a person would
    see. A box at the picture's edge belongs to a cut object, so its size and shape say nothing.
    """
    every = _all_boxes(dataset)
    sides = every.boxes_N4[:, 2:] - every.boxes_N4[:, :2]
    extent = every.fractions_N4[:, 2:] - every.fractions_N4[:, :2]
    whole = (extent >= WHOLE).all(axis=1)
    cut = (every.fractions_N4.min(axis=1, initial=1) < 0.005) | (
        every.fractions_N4.max(axis=1, initial=0) > 0.995
    )
    size = np.log(extent.prod(axis=1)) / 2
    length = np.log(sides.max(axis=1, initial=1e-9) / sides.min(axis=1, initial=1e9))
    centre = (every.fractions_N4[:, 2:] + every.fractions_N4[:, :2]) / 2
    verdicts: dict[str, NDArray[np.bool_]] = {
        name: np.zeros(len(whole), bool) for name in ("small", "large", "long", "far")
    }
    for label in range(len(dataset.classes)):
        own = np.flatnonzero((every.labels_N == label) & ~whole)
        if len(own) < LEAST_BOXES:
            continue
        by_size = _deviation(size[own], np.log(MIN_FACTOR))
        verdicts["small"][own] = (by_size < 0) & ~cut[own]
        verdicts["large"][own] = by_size > 0
        verdicts["long"][own] = (_deviation(length[own], np.log(MIN_LENGTH_FACTOR)) > 0) & ~cut[own]
        off = np.stack([_deviation(centre[own, axis], MIN_DISTANCE) for axis in (0, 1)])
        verdicts["far"][own] = (off != 0).any(axis=0) & ~cut[own]
    for code, found in (
        ("data_box_whole", whole),
        *((f"data_box_{name}", found) for name, found in verdicts.items()),
    ):
        for index in np.flatnonzero(found):
            sample, box = every.samples[index], every.boxes_N4[index]
            shown = "{:.0f}×{:.0f} px".format(*sides[index])
            findings.add(
                code, sample.path, value=shown, box=box, name=dataset.classes[every.labels_N[index]]
            )  # fmt: skip


def _deviation(values: NDArray[np.float64], least: float) -> NDArray[np.int64]:
    """-1 or 1 for values that lie far below or above the rest, by `least` at the least; else 0."""
    middle = np.median(values)
    sigma = 1.4826 * np.median(np.abs(values - middle))
    off = values - middle
    far: NDArray[np.int64] = np.where(np.abs(off) > max(SIGMAS * sigma, least), np.sign(off), 0).astype(
        np.int64
    )
    return far


def doubles(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """Two boxes around the same object, not equal to the pixel: with the same class or with two."""
    for sample in dataset.pictures:
        boxes = sample.boxes_N4.astype(np.float64)
        overlap = np.triu(iou(boxes, boxes), 1)
        for i, j in np.argwhere((overlap >= DOUBLE_IOU) & (overlap < 1)):
            one, other = (dataset.classes[sample.labels_N[index]] for index in (i, j))
            code = "data_box_double" if one == other else "data_box_double_classes"
            findings.add(code, sample.path, value=one, box=boxes[i], other=other)


def copied(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """The very same box, as fractions, in many pictures that are no copies of each other: a label that was
    copied along instead of drawn."""
    every = _all_boxes(dataset)
    places: dict[tuple[float, ...], dict[str, int]] = defaultdict(dict)
    for index, (sample, fractions) in enumerate(zip(every.samples, every.fractions_N4)):
        if (fractions[2:] - fractions[:2]).min() < WHOLE:
            places[tuple(fractions.round(3).tolist())].setdefault(sample.group, index)
    least = max(COPIED_PICTURES, COPIED_SHARE * len(dataset.samples))
    for place, found in places.items():
        if len(found) >= least:
            first, *rest = found.values()
            also = [every.samples[index].path for index in rest]
            findings.add(
                "data_box_copied",
                every.samples[first].path,
                value=" ".join(f"{value:g}" for value in place),
                box=every.boxes_N4[first],
                also=also,
                count=len(found),
            )
