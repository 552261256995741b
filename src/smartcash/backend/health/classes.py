"""Classes: how many examples each has where, and what their names say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from smartcash.backend.formats.alike import Look
from smartcash.backend.formats.model import DataSet, Findings, count_boxes
from smartcash.domain.banknotes import values_of

LEAST = {"train": 20, "valid": 5, "test": 5}  # labels per class; below it a figure per class says little
MAX_RATIO = 10  # of the commonest class to the rarest


def counts(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """Classes absent from a split, rare in one, and a set in which some are far more common than others."""
    found = {name: count_boxes(samples, len(dataset.classes)) for name, samples in dataset.splits.items()}
    for label, name in enumerate(dataset.classes):
        here = {split: int(numbers[label]) for split, numbers in found.items()}
        if absent := [split for split, count in here.items() if count == 0 and here["train"]]:
            findings.add("data_class_absent", dataset.root, value=name, split=", ".join(absent))
        if few := [
            f"{split} {count}/{LEAST[split]}" for split, count in here.items() if 0 < count < LEAST[split]
        ]:
            findings.add("data_class_few", dataset.root, value=name, few=", ".join(few))
    train = found["train"]
    common, rare = int(train.argmax()), int(np.where(train, train, train.max()).argmin())
    if train[common] > MAX_RATIO * train[rare]:
        findings.add(
            "data_class_ratio",
            dataset.root,
            value=dataset.classes[rare],
            count=int(train[rare]),
            common=dataset.classes[common],
            most=int(train[common]),
        )


def names(dataset: DataSet, looks: Mapping[Path, Look], findings: Findings) -> None:
    """A name that is no banknote among names that are, and two names for the same note."""
    values = values_of(dataset.classes)
    known = sum(value is not None for value in values)
    if known < 2 or known * 2 < len(values):
        return
    same: dict[int, list[str]] = defaultdict(list)
    for name, value in zip(dataset.classes, values):
        if value is None:
            findings.add("data_class_no_note", dataset.root, value=name)
        else:
            same[value].append(name)
    for value, found in same.items():
        if len(found) > 1:
            findings.add("data_class_same_value", dataset.root, value=", ".join(found), amount=value)
