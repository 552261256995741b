"""The composition root: reads a run folder, builds every part, trains. Nothing else knows all layers."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smartcash import __version__
from smartcash.backend.augment import Augment, resolve_parts
from smartcash.backend.builder import build, choose_image_size
from smartcash.backend.data import CACHE_FACTOR, Pictures
from smartcash.backend.drawing import contact_sheet, draw_boxes
from smartcash.backend.formats import DataSet, read_dataset, verify_images
from smartcash.backend.images import read_image, write_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.report import write_report
from smartcash.backend.trainer import Outcome, fit
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, DataInvalid, Problem, SmartCashError
from smartcash.domain.events import DataFound, EpochEnded, Event, RunFailed, RunReady
from smartcash.domain.ports import EventSink
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.services.event_log import EventLog
from smartcash.services.run_store import RunFolder, find_run
from smartcash.utils.logger import get_logger, log_to

LOGGED = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "hotcoco")


def train(
    config: TrainConfig, base: Path, listen: EventSink = lambda event: None
) -> tuple[RunFolder, Outcome]:
    """Run one training in this process, in a new folder below `base`; `listen` hears every event.

    Raises SmartCashError; whatever happens, the folder says how the run ended."""
    if not config.data.path:
        raise ConfigInvalid([Problem("data.path", "data_path_missing", "")])
    data = load_data(config)
    config = config.model_copy(update={"task": data.task})
    run = RunFolder.create(base, config, {**environment(), **facts_of(data), "config_hash": config.hash()})
    started = time.monotonic()
    with EventLog(run.events) as log, log_to(run.path / "train.log"), stop_on_signals() as stop:
        rows: list[dict[str, float | None]] = []

        def emit(event: Event) -> None:
            log.append(event)
            if isinstance(event, EpochEnded):
                rows.append(event.row)
                run.write_epochs(rows)
            listen(event)

        try:
            run.describe({"state": "running"})
            outcome = _train(run, config, data, emit, stop)
        except BaseException as error:
            # the one place that looks at every error: to record it, then to raise it again
            message = str(error) if isinstance(error, SmartCashError) else f"{type(error).__name__}: {error}"
            emit(RunFailed(type(error).__name__, message, traceback.format_exc()))
            run.describe({"state": "failed", "error": message, **_ended(started)})
            raise
        state = {"finished": "finished", "early_stopped": "finished", "preempted": "preempted"}.get(
            outcome.reason, "stopped"
        )
        run.describe({"state": state, "reason": outcome.reason, **results_of(outcome), **_ended(started)})
    return run, outcome


def _train(
    run: RunFolder, config: TrainConfig, data: DataSet, emit: EventSink, stop: Callable[[], str | None]
) -> Outcome:
    for code, count in data.report.counts().items():
        example = next(finding for finding in data.report.findings if finding.code == code)
        emit(DataFound(code, example.severity, count, example.where))
    built = build(config, data)
    run.write_config(built.config)
    parameters = sum(p.numel() for p in built.parts.model.parameters())
    images = {split: len(samples) for split, samples in data.splits.items()}
    run.describe({"choices": built.choices, "parameters": parameters})
    emit(
        RunReady(
            run.id, data.task, built.config.model.backbone, data.classes, images, built.config.training.epochs,
            built.train.steps, parameters, built.choices,
        )
    )  # fmt: skip
    training = built.config.training
    store = CheckpointManager(
        output_dir=str(run.weights),
        logger=get_logger("checkpoint"),
        monitor=training.monitor,
        mode=training.mode,
    )
    with store:
        outcome = fit(built, RetainingStore(store, built.config), emit, stop)
    if outcome.best is not None:
        write_report(run.path / "report", built, outcome)
    return outcome


class RetainingStore:
    """A CheckpointManager that deletes old epochs as the configuration says, before each save: by then the
    one before is on the disk, so that training never waits for a write."""

    def __init__(self, manager: CheckpointManager, config: TrainConfig) -> None:
        self.manager, self.keep = manager, config.checkpoint.keep_epochs

    def save_checkpoint(self, *parts: Any, **named: Any) -> Mapping[str, Any]:
        self._clean_up()
        return self.manager.save_checkpoint(*parts, **named)

    def wait(self) -> None:
        self.manager.wait()
        self._clean_up()

    def _clean_up(self) -> None:
        self.manager.cleanup_checkpoints(
            max_checkpoints=self.keep, keep_best=False, keep_latest=True, max_epochs=self.keep
        )


def load_data(config: TrainConfig) -> DataSet:
    """The data set of a configuration, every picture decoded once so that none fails in epoch 7."""
    task = None if config.task == "auto" else config.task
    data = read_dataset(
        config.data.path, task=task, format=config.data.format, seed=config.seed, strict=config.data.strict
    )
    data = verify_images(data)
    if config.data.strict and (problems := data.report.problems("error", "warning")):
        raise DataInvalid("data_strict", problems, path=config.data.path)
    return data


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], str | None]]:
    """Ctrl-C, SIGTERM and SIGHUP ask the training to stop at the next step; a second Ctrl-C interrupts it."""
    asked: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def ask(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append("stopped" if number == signal.SIGINT else "preempted")

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment() -> dict[str, Any]:
    """Where and with what a run happened."""
    return {
        "smartcash": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in LOGGED},
        "git": git_revision(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "command": sys.argv,
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_revision() -> str | None:
    """The revision of the checkout this code runs from, "+changes" if it was edited; None for an installed one."""
    folder = Path(__file__).parent
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def facts_of(data: DataSet) -> dict[str, Any]:
    """What a run records of its data."""
    return {
        "data": {
            "path": str(data.root),
            "format": data.format,
            "task": data.task,
            "classes": list(data.classes),
            "images": {split: len(samples) for split, samples in data.splits.items()},
            "content_hash": data.content_hash,
            "split_seed": data.split_seed,
            "findings": data.report.counts(),
        }
    }


def results_of(outcome: Outcome) -> dict[str, Any]:
    """What a run records of its results."""
    return {
        "epochs_done": outcome.progress.epoch,
        "best_epoch": outcome.progress.best_epoch,
        "best_value": outcome.progress.best_value,
        "valid": outcome.best.scalars() if outcome.best else {},
        "test": outcome.test.scalars() if outcome.test else {},
    }


def _ended(started: float) -> dict[str, Any]:
    return {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(time.monotonic() - started, 1),
    }


def open_model(name: str, device: str = "auto") -> tuple[Predictor, Path]:
    """The model at a checkpoint's path, or the best one of a run (its folder, id or "latest").

    Raises RunNotFound or a CheckpointError."""
    path = Path(name)
    if path.is_file():
        manager = CheckpointManager(output_dir=str(path.parent), logger=get_logger("checkpoint"))
        state = manager.load_checkpoint(checkpoint_path=str(path))
        return Predictor.from_state(state, device=device), path
    weights = find_run(name).weights
    manager = CheckpointManager(output_dir=str(weights), logger=get_logger("checkpoint"))
    state = manager.load_checkpoint(which="best")
    return Predictor.from_state(state, device=device), Path(str(state["path"]))


def evaluate_model(
    name: str, data_path: str, split: str, *, seed: int = 0, device: str = "auto"
) -> dict[str, Any]:
    """All figures of a model on one split of a data set, as plain values.

    Classes are matched by name. Raises DataInvalid when the split or a class is missing."""
    predictor, path = open_model(name, device)
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
        "data": str(data.root),
        "split": split,
        "task": predictor.task,
        **result.to_dict(),
    }


def predict_files(
    name: str, paths: list[Path], drawn: Path | None, *, threshold: float | None = None, device: str = "auto"
) -> Iterator[dict[str, Any]]:
    """What a model says of each picture, as plain values; drawn pictures go into the folder `drawn`.

    A picture that cannot be read gives {"file", "error"}; the others go on."""
    predictor, _ = open_model(name, device)
    if drawn is not None:
        drawn.mkdir(parents=True, exist_ok=True)
    for path in paths:
        try:
            image = read_image(path)
        except DataInvalid as error:
            yield {"file": str(path), "error": str(error)}
            continue
        outcome = predictor(image, threshold)
        facts = predictor.describe(path, outcome)
        if drawn is not None and predictor.task == "detect":
            target = free_name(drawn, path)
            write_image(
                target,
                draw_boxes(image, outcome.boxes_N4, outcome.labels_N, outcome.scores_N, predictor.classes),
            )
            facts["drawn"] = str(target)
        yield facts


def free_name(folder: Path, source: Path) -> Path:
    """A name for `source`'s drawing in `folder` that no file has yet."""
    target, number = folder / f"{source.stem}.jpg", 1
    while target.exists():
        number += 1
        target = folder / f"{source.stem}-{number}.jpg"
    return target


def preview_data(config: TrainConfig, out: Path, count: int = 24) -> Path:
    """A contact sheet of augmented training samples with their boxes, as the first epoch would see them."""
    data = load_data(config)
    parts = resolve_parts(config.augment, data.task)
    size = choose_image_size(data) if config.data.image_size == "auto" else config.data.image_size
    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), config.data.resize)
    pictures = Pictures(data.splits["train"], round(size * CACHE_FACTOR), keep=False)
    augment = Augment(parts, preprocess, config.seed)
    sheet, captions = [], []
    for index in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int).tolist():
        image, boxes, labels = augment(0, index, pictures.fetch, len(pictures))
        if data.task == "detect":
            image = draw_boxes(image, boxes, labels, None, data.classes)
        sheet.append(image)
        captions.append(
            pictures.samples[index].path.name if data.task == "detect" else data.classes[labels[0]]
        )
    write_image(out, contact_sheet(sheet, columns=6, captions=captions))
    return out
