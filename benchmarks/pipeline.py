"""What stands around the net: pictures in, figures out.

Pictures: decoding, augmentation from the memory cache and whole batches, images/s on one core. Figures: the
evaluation of 1,000 images × 100 boxes against pycocotools, whose average precision must come out the same.
Validation: 1,000 pictures from the memory cache through the default detector to every figure, against its forward pass
alone on the same batches; goal: ≤ 10 % more.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.measuring import medians, options, print_table
from smartcash.backend.augment import PRESETS, Augment
from smartcash.backend.builder import build, set_threads
from smartcash.backend.data import (
    EvalBatches,
    Pictures,
    PlainSamples,
    TrainBatches,
    TrainSamples,
    kept_side,
)
from smartcash.backend.engine import evaluate
from smartcash.backend.formats import read_dataset
from smartcash.backend.images import read_image
from smartcash.backend.metrics import DetectionMetrics
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig
from smartcash.utils.machine import available_cores

IMAGE_PX, BATCH, CLASSES = 320, 16, 7
HALF = (0.5, 0.5, 0.5)


def main() -> int:
    """Measure and print; 1 when the figures differ from those of pycocotools."""
    small = options(__doc__).small
    validation(images=60 if small else 1000, repeat=1 if small else 3)
    set_threads(1)
    pictures(images=46 if small else 240, repeat=1 if small else 5)
    return figures(images=50 if small else 1000, repeat=1 if small else 3)


def validation(images: int, repeat: int) -> None:
    """One table: a whole validation against the bare forward pass, on all cores."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        write_samples(notes, images=60, size_px=IMAGE_PX)
        config = TrainConfig.parse(
            {
                "data": {"path": str(notes), "image_size": IMAGE_PX, "batch_size": BATCH},
                "training": {"epochs": 1},
            }
        )
        built = build(config, read_dataset(notes))
        parts = built.parts
        few = [sample for samples in read_dataset(notes).splits.values() for sample in samples]
        samples = list(itertools.islice(itertools.cycle(few), images))
        cached = Pictures(samples, kept_side(IMAGE_PX), keep=True)
        cached.fill(available_cores())
        batches = EvalBatches(PlainSamples(cached, parts.preprocess), BATCH, 0)
        inputs = [parts.preprocess.normalize(batch.images_B3HW) for batch in itertools.islice(batches, 4)]
        parts.model.eval()

        @torch.no_grad()
        def bare() -> None:
            for number in range(-(-images // BATCH)):
                with parts.precision.autocast():
                    parts.model(inputs[number % len(inputs)])

        def whole() -> None:
            evaluate(parts.model, batches, built.classes, parts.preprocess, parts.precision)

        times = medians({"the forward pass alone": bare, "a whole validation": whole}, repeat)
    print_table(
        f"Validation of {images:,} pictures at {IMAGE_PX} px, {torch.get_num_threads()} threads",
        ("", "s", "ratio"),
        [(name, value, value / times["the forward pass alone"]) for name, value in times.items()],
    )


def pictures(images: int, repeat: int) -> None:
    """One table: images/s of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        write_samples(notes, images=images, size_px=kept_side(IMAGE_PX))
        samples = read_dataset(notes).splits["train"]
        preprocess = Preprocess(IMAGE_PX, HALF, HALF)
        cached = Pictures(samples, kept_side(IMAGE_PX), keep=True)
        cached.fill(1)
        augment = Augment(PRESETS["detect"]["banknote"], preprocess, 0)
        plain = PlainSamples(cached, preprocess)
        batches = TrainBatches(TrainSamples(cached, augment, 10**9), BATCH, 0, 0, None)
        epochs = itertools.count()

        def each(action: Callable[[int], object]) -> Callable[[], None]:
            return lambda: [action(index) for index in range(len(samples))] and None

        def augmented() -> None:
            epoch = next(epochs)
            for index in range(len(samples)):
                augment(epoch, index, cached)

        actions: dict[str, Callable[[], object]] = {
            "decoding a file": each(lambda index: read_image(samples[index].path)),
            "preprocessing, from memory": each(lambda index: plain[index]),
            "augmentation (banknote), from memory": augmented,
            "the same in batches, normalised": lambda: [
                preprocess.normalize(batch.images_B3HW) for batch in batches.epoch(next(epochs))
            ],
        }
        times = medians(actions, repeat)
    counts = dict.fromkeys(actions, len(samples)) | {"the same in batches, normalised": batches.steps * BATCH}
    rates = {name: counts[name] / value for name, value in times.items()}
    decoding = rates["decoding a file"]
    print_table(
        f"Pictures of {kept_side(IMAGE_PX)} px to {IMAGE_PX} px, one thread",
        ("", "images/s", "ratio"),
        [(name, rate, rate / decoding) for name, rate in rates.items()],
    )


def figures(images: int, repeat: int, boxes: int = 100) -> int:
    """One table: ours against pycocotools."""
    found, truth = made_up(images, boxes)
    results: dict[str, tuple[float, float]] = {}

    def ours() -> None:
        metrics = DetectionMetrics([f"class {index}" for index in range(CLASSES)])
        for predictions, truths in zip(found, truth):
            metrics.update(predictions, truths)
        result = metrics.compute()
        results["ours"] = (result.mAP50, result.mAP50_95)

    annotations, guesses = as_coco(found, truth)

    def pycocotools() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            stats = reference(annotations, guesses)
        results["pycocotools"] = (stats[1], stats[0])

    times = medians({"pycocotools (AP only)": pycocotools, "SmartCash (every figure)": ours}, repeat)
    peer = times["pycocotools (AP only)"]
    print_table(
        f"Evaluation of {images:,} images × {boxes} boxes",
        ("", "s", "ratio", "mAP50", "mAP50-95"),
        [
            (name, value, peer / value, *(f"{ap:.12f}" for ap in results[key]))
            for (name, value), key in zip(times.items(), ("pycocotools", "ours"))
        ],
    )
    if not np.allclose(results["ours"], results["pycocotools"], rtol=0, atol=1e-9):
        print("the figures differ", file=sys.stderr)
        return 1
    return 0


def made_up(images: int, boxes: int, classes: int = CLASSES) -> tuple[list[tuple], list[tuple]]:
    """Predictions (boxes, scores, labels) and truths (boxes, labels); most predictions lie near a truth."""
    rng = np.random.default_rng(0)
    found, truth = [], []
    for _ in range(images):
        corners = rng.uniform(0, 400, (12, 2))
        true = np.concatenate((corners, corners + rng.uniform(20, 150, (12, 2))), 1)
        labels = rng.integers(0, classes, 12)
        origin = rng.integers(0, 12, boxes)
        near = true[origin] + rng.normal(0, 8, (boxes, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        guess = np.where(rng.random(boxes) < 0.8, labels[origin], rng.integers(0, classes, boxes))
        found.append((near, rng.random(boxes), guess))
        truth.append((true, labels))
    return found, truth


def as_coco(found: list[tuple], truth: list[tuple]) -> tuple[dict, list[dict]]:
    """The same as pycocotools takes it; making this is not timed."""

    def described(image: int, box: np.ndarray, label: int) -> dict:
        left, top, right, bottom = map(float, box)
        size = [left, top, right - left, bottom - top]
        area = size[2] * size[3]
        return {"image_id": image, "category_id": int(label), "bbox": size, "area": area, "iscrowd": 0}

    annotations = [
        described(image, box, label)
        for image, (boxes, labels) in enumerate(truth)
        for box, label in zip(boxes, labels)
    ]
    guesses = [
        described(image, box, label) | {"score": float(score)}
        for image, (boxes, scores, labels) in enumerate(found)
        for box, score, label in zip(boxes, scores, labels)
    ]
    return {
        "images": [{"id": image} for image in range(len(truth))],
        "categories": [{"id": index} for index in range(CLASSES)],
        "annotations": [{"id": number, **note} for number, note in enumerate(annotations, 1)],
    }, guesses


def reference(annotations: dict, guesses: list[dict]) -> np.ndarray:
    """pycocotools' twelve figures; the first is mAP50-95, the second mAP50."""
    coco = COCO()
    coco.dataset = annotations
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes([dict(guess) for guess in guesses]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


if __name__ == "__main__":
    sys.exit(main())
