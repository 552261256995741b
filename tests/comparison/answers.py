"""Made-up answers to made-up pictures."""

from __future__ import annotations

import numpy as np

from smartcash.backend.metrics import Objects
from smartcash.backend.seen import Seen

CLASSES = ("1000", "2000", "5000")


def objects(rows: list[tuple[int, list[float], int, float]]) -> Objects:
    """(picture, box xyxy, label, score) in picture order."""
    return Objects(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float64),
    )


def detected(seed: int, images: int = 30, *, misses: float = 0.2, classes: tuple[str, ...] = CLASSES) -> Seen:
    """A detector's answers to pictures with up to four notes: shifted, with wrong classes, doubles and ghosts. The
    notes are the same whatever the seed."""
    there, here = np.random.default_rng(1), np.random.default_rng(seed)
    truth: list[tuple[int, list[float], int, float]] = []
    found: list[tuple[int, list[float], int, float]] = []
    for image in range(images):
        for _ in range(int(there.integers(0, 5))):
            left, top = there.uniform(0, 300, 2)
            box = [left, top, left + there.uniform(60, 120), top + there.uniform(30, 60)]
            label = int(there.integers(len(classes)))
            truth.append((image, box, label, 1.0))
            for _ in range(int(here.integers(1, 3))):
                if here.random() < misses:
                    continue
                moved = (np.array(box) + here.normal(0, 5, 4)).tolist()
                said = label if here.random() < 0.85 else int(here.integers(len(classes)))
                found.append((image, moved, said, float(here.uniform(0.2, 1))))
        if here.random() < 0.3:
            left, top = here.uniform(0, 300, 2)
            ghost = [left, top, left + 80, top + 40]
            found.append((image, ghost, int(here.integers(len(classes))), float(here.uniform(0.01, 0.7))))
    names = tuple(f"images/{index:03}.jpg" for index in range(images))
    return Seen("detect", classes, names, 0.4, objects(found), objects(truth))


def classified(seed: int, images: int = 60, classes: int = 6, sharpness: float = 2.0) -> Seen:
    """A classifier's answers; the classes of the pictures are the same whatever the seed."""
    there, here = np.random.default_rng(1), np.random.default_rng(seed)
    labels_I = there.integers(0, classes, images)
    logits_IC = here.normal(0, 1, (images, classes))
    logits_IC[np.arange(images), labels_I] += sharpness
    probabilities_IC = np.exp(logits_IC) / np.exp(logits_IC).sum(axis=1, keepdims=True)
    none = [0.0] * 4
    found = [
        (image, none, label, float(probabilities_IC[image, label]))
        for image in range(images)
        for label in range(classes)
    ]
    truth = [(image, none, int(label), 1.0) for image, label in enumerate(labels_I)]
    names = tuple(f"{index:03}.jpg" for index in range(images))
    known = tuple(f"note {index}" for index in range(classes))
    return Seen("classify", known, names, 0.5, objects(found), objects(truth))
