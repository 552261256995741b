"""Trained models at work: found by name, evaluated, asked about pictures."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from smartcash.backend.drawing import draw_boxes
from smartcash.backend.formats import read_dataset, verify_images
from smartcash.backend.images import read_image, write_image
from smartcash.backend.predictor import Outcome, Predictor
from smartcash.backend.video import Source, Video, VideoFile, is_video
from smartcash.domain.errors import DataInvalid
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import find_run
from smartcash.services.thresholds import thresholds_of
from smartcash.utils.files import reason_of, sha256_of
from smartcash.utils.logger import get_logger


def load_state(name: str) -> tuple[Mapping[str, Any], Path]:
    """The content of the checkpoint at a path, of a version ("v3") or alias, or of the best one of a run (its folder,
    id or "latest").

    Raises VersionNotFound, RunNotFound or a CheckpointError."""
    path, versions = Path(name), ModelVersions()
    if not path.is_file() and versions.store.knows(name):
        path = versions.store.model_file(versions.find(name))
    if path.is_file():
        manager = CheckpointManager(output_dir=str(path.parent), logger=get_logger("checkpoint"))
        return manager.load_checkpoint(checkpoint_path=str(path)), path
    weights = find_run(name).weights
    manager = CheckpointManager(output_dir=str(weights), logger=get_logger("checkpoint"))
    state = manager.load_checkpoint(which="best")
    return state, Path(str(state["path"]))


def open_model(name: str, device: str = "auto") -> tuple[Predictor, Path]:
    """The model that `load_state` finds, with the limits that a report has chosen for it, and where. Raises as it
    does."""
    state, path = load_state(name)
    predictor = Predictor.from_state(state, device=device)
    with path.open("rb") as file:
        chosen = thresholds_of(path, sha256_of(file))
    if chosen is not None and set(chosen.classes) == set(predictor.classes):
        predictor.threshold = chosen.score
        predictor.class_thresholds, predictor.abstain = chosen.classes, chosen.abstain
    return predictor, path


def load(name: str, device: str = "auto") -> Predictor:
    """A model ready to look at pictures: `smartcash.load("produksi").predict("photo.jpg")`. `name` and errors as
    those of `open_model`."""
    return open_model(name, device)[0]


def evaluate_model(
    name: str, data_path: str, split: str, *, seed: int = 0, device: str = "auto"
) -> dict[str, Any]:
    """All figures of a model on one split of a data set, as plain values, at the threshold of its checkpoint: limits
    that a report has chosen since do not change what it was judged by.

    Classes are matched by name. Raises DataInvalid when the split or a class is missing."""
    state, path = load_state(name)
    predictor = Predictor.from_state(state, device=device)
    data = verify_images(read_dataset(data_path, task=predictor.task, seed=seed))
    if split not in data.splits:
        raise DataInvalid("split_missing", path=data_path, split=split, splits=", ".join(data.splits))
    unknown = [label for label in data.classes if label not in predictor.classes]
    if unknown:
        raise DataInvalid("classes_differ", unknown=", ".join(unknown), known=", ".join(predictor.classes))
    order = np.array([predictor.classes.index(label) for label in data.classes])
    samples = [replace(sample, labels_N=order[sample.labels_N]) for sample in data.splits[split]]
    result = predictor.evaluate(samples)
    return {
        "model": str(path),
        "data": str(data.source.absolute()),
        "split": split,
        "task": predictor.task,
        **result.to_dict(),
    }


def predict_files(
    name: str,
    sources: Sequence[Source],
    drawn: Path | None,
    *,
    threshold: float | None = None,
    device: str = "auto",
    every: int = 1,
    most: int | None = None,
) -> Generator[dict[str, Any], None, None]:
    """What a model says of each picture, and of every `every`-th frame of each video and camera (a number), `most` of
    them at most, as plain values; drawn pictures and videos go into the folder `drawn`.

    What cannot be read gives {"file", "error"}; the others go on."""
    predictor, _ = open_model(name, device)
    if drawn is not None:
        drawn.mkdir(parents=True, exist_ok=True)
    for source in sources:
        try:
            if isinstance(source, int) or is_video(source):
                yield from _watched(predictor, source, drawn, threshold, every, most)
            else:
                yield _looked_at(predictor, source, drawn, threshold)
        except DataInvalid as error:
            yield {"file": source_name(source), "error": str(error)}


def source_name(source: Source) -> str:
    """How answers name a file or a camera."""
    return f"camera:{source}" if isinstance(source, int) else str(source)


def _looked_at(
    predictor: Predictor, path: Path, drawn: Path | None, threshold: float | None
) -> dict[str, Any]:
    image = _picture(path)
    outcome = predictor(image, threshold)
    facts = {"file": str(path), **predictor.describe(outcome)}
    if drawn is not None:
        target = free_name(drawn, path)
        write_image(target, _with_boxes(predictor, image, outcome))
        facts["drawn"] = str(target)
    return facts


def _watched(
    predictor: Predictor,
    source: Source,
    drawn: Path | None,
    threshold: float | None,
    every: int,
    most: int | None,
) -> Iterator[dict[str, Any]]:
    """One answer per frame. The drawn video holds the frames that were looked at, as fast as they came."""
    with ExitStack() as stack:
        video = stack.enter_context(Video(source))
        written, target = None, None
        if drawn is not None:
            named = Path(f"camera-{source}") if isinstance(source, int) else source
            target = free_name(drawn, named, ".mp4")
            written = stack.enter_context(VideoFile(target, video.frames_per_s / every))
        for frame in islice(video.frames(every), most):
            outcome = predictor(frame.image_HW3, threshold)
            facts = {"file": source_name(source), "frame": frame.number, "time_s": frame.time_s}
            facts |= predictor.describe(outcome)
            if written is not None:
                written.write(_with_boxes(predictor, frame.image_HW3, outcome))
                facts["drawn"] = str(target)
            yield facts


def _with_boxes(predictor: Predictor, image_HW3: np.ndarray, outcome: Outcome) -> np.ndarray:
    """The picture with what was found; a classifier's answer is about the whole of it."""
    height, width = image_HW3.shape[:2]
    boxes_N4 = outcome.boxes_N4 if predictor.task == "detect" else np.array([[0, 0, width, height]])
    return draw_boxes(image_HW3, boxes_N4, outcome.labels_N, outcome.scores_N, predictor.classes)


def count_files(
    name: str,
    paths: list[Path],
    *,
    abstain: float | None = None,
    threshold: float | None = None,
    device: str = "auto",
) -> Iterator[dict[str, Any]]:
    """What money a model counts in each picture, as plain values: see `Predictor.count`.

    A picture that cannot be read gives {"file", "error"}; the others go on."""
    predictor, _ = open_model(name, device)
    for path in paths:
        try:
            image = _picture(path)
        except DataInvalid as error:
            yield {"file": str(path), "error": str(error)}
            continue
        yield {"file": str(path), **predictor.count(image, abstain, threshold)}


def _picture(path: Path) -> np.ndarray:
    """The picture at `path`. Raises DataInvalid, also where there is no such file or it may not be read."""
    try:
        return read_image(path)
    except OSError as error:
        reason = reason_of(error)
        raise DataInvalid("picture_unreadable", path=str(path), reason=reason) from error


def free_name(folder: Path, source: Path, suffix: str = ".jpg") -> Path:
    """A name for `source`'s drawing in `folder` that no file has yet."""
    target, number = folder / f"{source.stem}{suffix}", 1
    while target.exists():
        number += 1
        target = folder / f"{source.stem}-{number}{suffix}"
    return target
