"""fit(): the epochs of one run, from the first or from where a checkpoint left off."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
import torch

from smartcash.backend.builder import Built
from smartcash.backend.engine import EpochStats, Parts, Result, evaluate, train_one_epoch
from smartcash.backend.metrics import DetectionResult
from smartcash.domain.events import (
    CheckpointSaved,
    EpochEnded,
    EpochStarted,
    EvaluationStarted,
    RunFinished,
    StepEnded,
    Warned,
)
from smartcash.domain.ports import CheckpointStore, EventSink, StopSignal

EVENT_INTERVAL_S = 0.5

# the columns of a row that say how the training went, not what the model is worth
NOT_MODEL = {
    *(
        "epoch",
        "lr",
        "lr_backbone",
        "grad_norm",
        "images_per_s",
        "train_s",
        "eval_s",
        "elapsed_s",
        "peak_memory_mb",
    ),
}


@dataclass
class Progress:
    """Where a training stands: everything but the tensors. Saved with every checkpoint."""

    epoch: int = 0  # epochs completed
    step: int = 0  # optimizer batches done, over all epochs
    best_epoch: int = 0
    best_value: float | None = None
    seconds: float = 0.0
    rows: list[dict[str, float | None]] = field(default_factory=list)


@dataclass
class Outcome:
    """How a training ended. `reason`: finished, early_stopped, stopped, preempted, time_up."""

    reason: str
    progress: Progress
    best: Result | None
    test: Result | None


def fit(
    built: Built, store: CheckpointStore, emit: EventSink, stop: StopSignal, progress: Progress | None = None
) -> Outcome:
    """Train to the end, to early stopping, or until `stop` gives a reason; then test the best epoch's weights.

    Every epoch ends with a checkpoint handed to `store` (`checkpoint.every_epochs`); a stop within an epoch
    hands one over at the step it stopped at."""
    progress = progress or Progress()
    config, parts = built.config, built.parts
    epochs, monitor, mode = config.training.epochs, config.training.monitor, config.training.mode
    started = time.monotonic() - progress.seconds
    limit_s = (config.training.max_hours or math.inf) * 3600
    reason, best_result, best_state = "finished", None, None
    stall, saver = StallWatch(), _Saver(built, store, emit)

    for epoch in range(progress.epoch, epochs):
        emit(EpochStarted(epoch + 1, epochs))
        ticker = _Ticker(emit, epoch, built.train.steps, epochs, started)
        first_step = progress.step - epoch * built.train.steps
        asked: list[str] = []

        def on_step(
            step: int,
            losses: dict[str, float],
            images: int,
            ticker: _Ticker = ticker,
            asked: list[str] = asked,
        ) -> bool:
            progress.step = step + 1
            ticker.step(step, losses, images)
            why = stop() or ("time_up" if time.monotonic() - started > limit_s else None)
            if why:
                asked.append(why)
            return not why

        stats = train_one_epoch(parts, built.train, epoch, first_step, on_step)
        if asked and progress.step < (epoch + 1) * built.train.steps:
            reason = asked[0]
            progress.seconds = time.monotonic() - started
            saver.save(progress, {}, is_best=False)
            break

        emit(EvaluationStarted(epoch + 1, "valid"))
        evaluation_started = time.monotonic()
        result = evaluate(
            parts.averaged.module, built.valid, built.classes, parts.preprocess, parts.precision
        )
        progress.epoch = epoch + 1
        progress.seconds = time.monotonic() - started
        row = _row(epoch + 1, stats, result, parts, time.monotonic() - evaluation_started, progress.seconds)
        value = row.get(monitor)
        is_best = value is not None and _better(value, progress.best_value, mode, 0.0)
        if is_best:
            progress.best_epoch, progress.best_value = epoch + 1, value
            best_result = result
            best_state = {name: tensor.clone() for name, tensor in parts.averaged.module.state_dict().items()}
        parts.schedule.epoch_ended(value if value is not None else math.inf, mode)
        progress.rows.append(row)
        emit(EpochEnded(epoch + 1, epochs, row, is_best))
        for warning in stall.look(row, epoch + 1, epochs):
            emit(warning)
        if is_best or (epoch + 1) % config.checkpoint.every_epochs == 0 or epoch + 1 == epochs or asked:
            saver.save(progress, _metrics(row), is_best=is_best)
        if asked:
            reason = asked[0]
            break
        if _is_stalled(progress, config.training.early_stopping, mode, monitor):
            reason = "early_stopped"
            break

    saver.finish()
    test = None
    if best_state is not None:
        parts.averaged.module.load_state_dict(best_state)
    if built.test is not None and reason in ("finished", "early_stopped") and best_result is not None:
        emit(EvaluationStarted(progress.best_epoch, "test"))
        threshold = best_result.threshold if isinstance(best_result, DetectionResult) else None
        test = evaluate(
            parts.averaged.module,
            built.test,
            built.classes,
            parts.preprocess,
            parts.precision,
            threshold=threshold,
        )
    emit(
        RunFinished(
            reason, progress.epoch, progress.best_epoch, progress.best_value, monitor, test.to_dict() if test else {},
            time.monotonic() - started,
        )
    )  # fmt: skip
    return Outcome(reason, progress, best_result, test)


def training_state(built: Built, progress: Progress) -> dict[str, Any]:
    """What a checkpoint holds beside model, optimizer and schedule."""
    parts = built.parts
    return {
        "step": progress.step,
        "ema_state_dict": parts.averaged.state_dict(),
        "scaler_state_dict": parts.scaler.state_dict(),
        "rng": {"torch": torch.get_rng_state()},
        "progress": asdict(progress),
        "classes": list(built.classes),
        "task": built.config.task,
        "preprocess": parts.preprocess.to_dict(),
    }


class _Saver:
    """Hands checkpoints to the store, and says that one is saved when the next is due, or at the end: asking
    earlier would wait for the disk."""

    def __init__(self, built: Built, store: CheckpointStore, emit: EventSink) -> None:
        self.built, self.store, self.emit = built, store, emit
        self.pending: Callable[[], CheckpointSaved] | None = None

    def save(self, progress: Progress, metrics: dict[str, float], *, is_best: bool) -> None:
        self.announce()
        parts = self.built.parts
        saved = self.store.save_checkpoint(
            parts.model, parts.optimizer, parts.schedule, self.built.config, progress.epoch, metrics, is_best,
            extra=training_state(self.built, progress),
        )  # fmt: skip
        epoch, step = progress.epoch, progress.step
        self.pending = lambda: CheckpointSaved(epoch, step, str(saved["path"]), is_best)

    def announce(self) -> None:
        if self.pending is not None:
            self.emit(self.pending())
            self.pending = None

    def finish(self) -> None:
        self.announce()
        self.store.wait()


class _Ticker:
    """Turns steps into at most two progress events a second."""

    def __init__(self, emit: EventSink, epoch: int, steps: int, epochs: int, started: float) -> None:
        self.emit, self.epoch, self.steps, self.epochs = emit, epoch, steps, epochs
        self.begun = self.last = time.monotonic()
        self.first: int | None = None
        self.loss = 0.0

    def step(self, step: int, losses: dict[str, float], images: int) -> None:
        now = time.monotonic()
        within = step - self.epoch * self.steps
        self.first = within if self.first is None else self.first
        done = within - self.first + 1
        self.loss += (losses["loss"] - self.loss) / done
        if now - self.last < EVENT_INTERVAL_S and within + 1 < self.steps:
            return
        self.last = now
        per_step = (now - self.begun) / done
        left = self.epochs * self.steps - step - 1
        self.emit(
            StepEnded(
                self.epoch + 1,
                within + 1,
                self.steps,
                self.loss,
                images / max(now - self.begun, 1e-9),
                left * per_step,
            )
        )


class StallWatch:
    """Names a training whose boxes are good while its classes do not come: the silent failure of detectors."""

    def __init__(self) -> None:
        self.told = False

    def look(self, row: dict[str, float | None], epoch: int, epochs: int) -> list[Warned]:
        """Warnings for this epoch's row, each at most once a run."""
        mean_iou, found = row.get("mean_iou"), row.get("mAP50")
        if self.told or mean_iou is None or found is None or epoch < max(3, epochs // 2):
            return []
        if mean_iou > 0.75 and found < 0.5:
            self.told = True
            return [
                Warned(
                    "classes_not_learnt",
                    {"epoch": epoch, "mean_iou": round(mean_iou, 3), "mAP50": round(found, 3)},
                )
            ]
        return []


def _row(
    epoch: int, stats: EpochStats, result: Result, parts: Parts, evaluation_s: float, seconds: float
) -> dict[str, float | None]:
    """One line of `epochs.csv`."""
    losses = {
        f"train_{name}" if name == "loss" else f"train_{name}_loss": value
        for name, value in stats.losses.items()
    }
    rates = {group["name"]: group["lr"] for group in parts.optimizer.param_groups}
    return {
        "epoch": epoch,
        **losses,
        **result.scalars(),
        "lr": rates.get("head", 0.0),
        "lr_backbone": rates.get("backbone", 0.0),
        "grad_norm": stats.grad_norm,
        "images_per_s": stats.images / stats.seconds if stats.seconds else None,
        "train_s": stats.seconds,
        "eval_s": evaluation_s,
        "elapsed_s": seconds,
        "peak_memory_mb": peak_memory_mb(parts.precision.device),
    }


def _metrics(row: dict[str, float | None]) -> dict[str, float]:
    """The figures of a row that describe the model, for the checkpoint."""
    return {name: value for name, value in row.items() if value is not None and name not in NOT_MODEL}


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far: of the card on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # POSIX only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _better(value: float, best: float | None, mode: str, margin: float) -> bool:
    if math.isnan(value):
        return False
    return best is None or (value < best - margin if mode == "min" else value > best + margin)


def _is_stalled(progress: Progress, rule: Any, mode: str, monitor: str) -> bool:
    """True when the last `patience` watched epochs brought no improvement of `min_delta`."""
    if not rule.patience:
        return False
    best, since = None, 0
    for row in progress.rows:
        value = row.get(monitor)
        if row["epoch"] is None or row["epoch"] < rule.start_epoch:
            continue
        if value is not None and _better(value, best, mode, rule.min_delta):
            best, since = value, 0
        else:
            since += 1
    return since >= rule.patience
