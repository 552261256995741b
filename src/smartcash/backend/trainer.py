"""fit(): the epochs of one run, from the first or from where a checkpoint left off."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import psutil
import torch

from smartcash.backend.builder import Built, first_closing_epoch, set_threads
from smartcash.backend.engine import EpochStats, Parts, Result, Step, evaluate, train_one_epoch
from smartcash.backend.forecast import Pace
from smartcash.backend.metrics import DetectionResult
from smartcash.backend.previews import Previews
from smartcash.backend.steering import Steering
from smartcash.backend.watchdogs import Watchdogs
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import CheckpointMismatch, CheckpointNotFound, TrainingFailed
from smartcash.domain.events import (
    CheckpointSaved,
    EarlyStopped,
    EpochEnded,
    EpochStarted,
    EvaluationStarted,
    PreviewsWritten,
    RolledBack,
    RunFinished,
    StepEnded,
    Warned,
)
from smartcash.domain.patience import is_better, waited
from smartcash.domain.ports import CheckpointStore, Control, EventSink

ROLLBACK_FACTOR = 0.5
# what of a checkpoint decides how the training goes on
DECISIVE = (
    "model_state_dict", "ema_state_dict", "optimizer_state_dict", "scheduler_state_dict", "scaler_state_dict",
    "rng", "progress", "step", "epoch",
)  # fmt: skip
# what only a clock or the memory showed
MEASURED = {
    "seconds", "waited_s", "elapsed_s", "train_s", "data_wait_s", "eval_s", "images_per_s", "peak_memory_mb",
}  # fmt: skip
# the columns of a row that say how the training went, not what the model is worth
NOT_MODEL = MEASURED | {"epoch", "lr", "lr_backbone", "grad_norm", "objects", "empty_batches"}
NOT_FINITE = ("loss_not_finite", "gradient_not_finite", "output_not_finite")
NEEDED = ("progress", "ema_state_dict", "optimizer_state_dict", "rng", "steps_per_epoch", "data_hash")
# endings after which the best weights are tested
JUDGED = ("finished", "early_stopped", "kept_best", "time_up")


class Stateful(Protocol):
    """Has a state of plain values and tensors that checkpoints carry."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class Progress:
    """Where a training stands: everything but the tensors. Saved with every checkpoint."""

    epoch: int = 0  # epochs completed, validation included
    step: int = 0  # batches done, over all epochs
    best_epoch: int = 0
    best_value: float | None = None
    seconds: float = 0.0
    rollbacks: int = 0  # times that a loss which was not finite sent the training back
    closing_from: int = 0  # first epoch (0-based) of the closing stage, as the epoch in work has it
    rows: list[dict[str, float | None]] = field(default_factory=list)
    stats: EpochStats = field(default_factory=EpochStats)  # of the epoch in work

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """From the plain values in a checkpoint."""
        return cls(**{**state, "stats": EpochStats(**state["stats"])})


@dataclass
class Outcome:
    """How a training ended. `reason`: finished, early_stopped, stopped, preempted, kept_best, time_up."""

    reason: str
    progress: Progress
    best: Result | None
    test: Result | None


class Run:
    """One training under way: what is built, where it stands, and who is told of it."""

    def __init__(
        self,
        built: Built,
        store: CheckpointStore,
        emit: EventSink,
        control: Control,
        progress: Progress,
        *,
        callbacks: Stateful,
        previews: Previews | None,
        watchdogs: Watchdogs,
        forecast: Pace | None,
        resumed: bool,
    ) -> None:
        self.built, self.store, self.emit, self.progress = built, store, emit, progress
        self.callbacks, self.previews, self.watchdogs = callbacks, previews, watchdogs
        self.steering = Steering(control, emit, built.parts.world, built.config, progress.seconds)
        self.clock = _Clock(built.parts.unfreeze_step, forecast)
        self.saver = _Saver(self, saved_step=progress.step if resumed else -1)
        self.best_result: Result | None = None
        self.best_state: dict[str, torch.Tensor] | None = None
        self.went_back_to: set[int] = set()  # steps

    def take_over_changes(self) -> None:
        """Epochs, patience and threads may have been changed on the way."""
        threads = self.steering.config.runtime.threads
        if threads != self.built.config.runtime.threads and threads != "auto":
            set_threads(threads)
        self.built.config = self.steering.config
        self.built.parts.schedule.epochs = self.steering.epochs


def fit(
    built: Built,
    store: CheckpointStore,
    emit: EventSink,
    control: Control,
    progress: Progress | None = None,
    *,
    callbacks: Stateful,
    previews: Previews | None = None,
    watchdogs: Watchdogs,
    forecast: Pace | None = None,
) -> Outcome:
    """Train to the end, to early stopping, or until a command; then test the best epoch's weights.

    With the `progress` that `restore` gave back, it goes on from there: the same bits as if it had never stopped.
    Checkpoints go to `store` at the start, within epochs as `checkpoint.every_steps` and `every_minutes` say,
    and at the end of every `every_epochs`-th epoch; a command to stop hands one over at the step it took effect.
    A checkpoint falls between two updates of the weights, never within an accumulation."""
    run = Run(
        built, store, emit, control, progress or Progress(),
        callbacks=callbacks, previews=previews, watchdogs=watchdogs, forecast=forecast,
        resumed=progress is not None,
    )  # fmt: skip
    if progress is None:
        run.saver.save({})  # a disk that cannot be written is found now, and there is always a way back
    reason = None
    while reason is None:
        try:
            reason = _epoch(run)
        except TrainingFailed as error:
            _roll_back(run, error)
    run.saver.finish()
    test = _test_best(run) if reason in JUDGED else None
    if run.steering.reason in ("stopped", "preempted"):
        reason = run.steering.reason  # also when it came while the best weights were tested
    progress = run.progress
    emit(
        RunFinished(
            reason, progress.epoch, progress.best_epoch, progress.best_value, built.config.training.monitor,
            test.to_dict() if test else {}, run.steering.seconds,
        )
    )  # fmt: skip
    return Outcome(reason, progress, run.best_result, test)


def _epoch(run: Run) -> str | None:
    """Train and validate the next epoch, or the rest of it. Returns why the training ends here, or None."""
    built, parts, progress, steering = run.built, run.built.parts, run.progress, run.steering
    epoch, steps = progress.epoch, built.train.steps
    if stopped := early_stopped(progress, steering.config):
        run.emit(stopped)
        return "early_stopped"
    if epoch >= steering.epochs:
        return "finished"
    if steering.after_epoch:
        return "stopped"
    if not steering.poll(epoch, progress.step, lambda: run.saver.save({})):
        run.saver.save({})
        return steering.reason

    run.emit(EpochStarted(epoch + 1, steering.epochs))
    run.take_over_changes()
    if not progress.stats.steps:  # the rest of an epoch goes on as it began, whatever was changed since
        progress.closing_from = first_closing_epoch(built.config)
    built.train.samples.closing_from = progress.closing_from
    ticker = _Ticker(run, epoch)

    def on_step(step: Step) -> bool:
        progress.step = step.step + 1
        ticker.step(step)
        if not step.updated:
            return True
        go_on = steering.poll(epoch, progress.step, lambda: run.saver.save({}))
        run.take_over_changes()
        if go_on:
            run.saver.save_if_due()  # before a validation too: it may take longer than the interval
        return go_on

    first_step = progress.step - epoch * steps
    train_one_epoch(
        parts, built.train, epoch, first_step, progress.stats, on_step, clock=lambda: steering.seconds
    )
    if progress.step < (epoch + 1) * steps:
        run.saver.save({})
        return steering.reason

    started = steering.seconds
    run.emit(EvaluationStarted(epoch + 1, "valid"))
    result = evaluate(
        parts.averaged.module, built.valid, built.classes, parts.preprocess, parts.precision,
        on_image=run.previews.watch if run.previews else None, go_on=_go_on(run),
    )  # fmt: skip
    if result is None:
        run.saver.save({})
        return steering.reason
    run.clock.validated(steering.seconds - started)
    _end_epoch(run, result, steering.seconds - started)
    return steering.reason


def _end_epoch(run: Run, result: Result, evaluation_s: float) -> None:
    """Write the epoch down: row, best, schedule, previews, warnings, checkpoint."""
    built, parts, progress = run.built, run.built.parts, run.progress
    training = built.config.training
    progress.epoch += 1
    progress.seconds = run.steering.seconds
    row = _row(progress, result, parts, evaluation_s)
    value = row.get(training.monitor)
    is_best = value is not None and is_better(value, progress.best_value, training.mode, 0.0)
    if is_best:
        progress.best_epoch, progress.best_value = progress.epoch, value
        run.best_result = result
        run.best_state = {name: tensor.clone() for name, tensor in parts.averaged.module.state_dict().items()}
    parts.schedule.epoch_ended(value, training.mode)
    progress.rows.append(row)
    progress.stats = EpochStats()
    run.emit(EpochEnded(progress.epoch, run.steering.epochs, row, is_best))
    if run.previews is not None:
        written = run.previews.end_epoch(progress.epoch, parts.averaged.module)
        if written is not None:
            run.emit(PreviewsWritten(progress.epoch, str(written)))
    for warning in run.watchdogs.epoch(progress.rows, training, built.train.steps):
        run.emit(warning)
    last = progress.epoch >= run.steering.epochs or early_stopped(progress, run.steering.config)
    due = progress.epoch % built.config.checkpoint.every_epochs == 0
    if is_best or due or last or run.steering.reason or run.steering.after_epoch:
        run.saver.save(_metrics(row), is_best=is_best)


def _go_on(run: Run) -> Callable[[], bool]:
    """What an evaluation asks between two batches. Processes have different numbers of them: several never ask."""
    if run.built.parts.world.size > 1:
        return lambda: True

    def go_on() -> bool:
        heard = run.steering.poll(run.progress.epoch, run.progress.step, lambda: run.saver.save({}))
        run.take_over_changes()
        return heard

    return go_on


def _test_best(run: Run) -> Result | None:
    """Put the best epoch's weights into the averaged model and test them. None when a command came between."""
    built, parts, progress = run.built, run.built.parts, run.progress
    if not progress.best_epoch:
        return None
    judge = partial(
        evaluate, parts.averaged.module, classes=built.classes, preprocess=parts.preprocess,
        precision=parts.precision, go_on=lambda: _go_on(run)() or run.steering.reason in JUDGED,
    )  # fmt: skip
    if run.best_state is None:  # found by an earlier process
        state = run.store.load_checkpoint(which="best")
        if state["progress"]["best_epoch"] != progress.best_epoch:
            run.emit(Warned("best_replaced", {"wanted": progress.best_epoch, "found": state["epoch"]}))
        run.best_state = state["ema_state_dict"]["model"]
    parts.averaged.module.load_state_dict(run.best_state)
    if run.best_result is None:
        run.best_result = judge(batches=built.valid)
    if built.test is None or run.best_result is None:
        return None
    run.emit(EvaluationStarted(progress.best_epoch, "test"))
    threshold = run.best_result.threshold if isinstance(run.best_result, DetectionResult) else None
    return judge(batches=built.test, threshold=threshold)


def _roll_back(run: Run, error: TrainingFailed) -> None:
    """Go back to the last checkpoint with half the learning rate, or give up and raise `error`; also when it says
    something else than that a number was not finite.

    A checkpoint from which it went wrong before already holds broken weights:
    in its place comes the best one, then the first, the weights that the run began with."""
    allowed = run.built.config.training.nan_rollbacks
    rollbacks = run.progress.rollbacks + 1
    if error.code not in NOT_FINITE or rollbacks > allowed:
        raise error
    run.saver.finish()
    run.built.parts.world.gather(None)  # nobody reads before the leader has written
    state = _sound_state(run)
    best_epoch = run.progress.best_epoch
    run.progress = restore(run.built, state, run.callbacks)
    if run.progress.best_epoch != best_epoch:  # found after the checkpoint that it goes back to
        run.best_result = run.best_state = None
    run.went_back_to.add(run.progress.step)
    run.progress.rollbacks, run.saver.saved_step = rollbacks, -1
    run.built.parts.schedule.factor = ROLLBACK_FACTOR**rollbacks
    run.emit(
        RolledBack(
            error.code, error.facts, run.progress.epoch + 1, run.progress.step,
            ROLLBACK_FACTOR**rollbacks, allowed - rollbacks,
        )
    )  # fmt: skip
    run.saver.save({})


def _sound_state(run: Run) -> dict[str, Any]:
    """The newest checkpoint that the training has not gone back to yet; else the best, else the first there is."""
    for which in ("latest", "best", 0):
        try:
            state = run.store.load_checkpoint(which=which)
        except CheckpointNotFound:
            continue  # of an earlier epoch, cleaned up
        if state["progress"]["step"] not in run.went_back_to:
            return state
    return run.store.load_checkpoint(which="best")


def training_state(built: Built, progress: Progress, callbacks: Stateful) -> dict[str, Any]:
    """What a checkpoint holds beside model, optimizer and schedule."""
    parts = built.parts
    return {
        "step": progress.step,
        "ema_state_dict": parts.averaged.state_dict(),
        "scaler_state_dict": parts.scaler.state_dict(),
        "rng": {"torch": torch.get_rng_state()},
        "callbacks": callbacks.state_dict(),
        "progress": asdict(progress),
        "steps_per_epoch": built.train.steps,
        "data_hash": built.data_hash,
        "classes": list(built.classes),
        "task": built.config.task,
        "preprocess": parts.preprocess.to_dict(),
    }


def state_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a checkpoint that decides how the training goes on: every tensor, counter and figure of
    model, averaged model, optimizer, schedule, scaler, random state and progress. What a clock or the memory showed
    is left out, so a training that was interrupted has the digests of one that was not."""
    whole = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            whole.update(f"{value.dtype}{tuple(value.shape)}".encode())
            whole.update(value.cpu().flatten().contiguous().view(torch.uint8).numpy())
        elif isinstance(value, Mapping):
            for key in sorted(value.keys() - MEASURED, key=str):
                whole.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            whole.update(repr(value).encode())

    for key in DECISIVE:
        add(state[key])
    return whole.hexdigest()


def restore(built: Built, state: Mapping[str, Any], callbacks: Stateful) -> Progress:
    """Put the state of a checkpoint into everything that was built; returns where it stands.

    Raises CheckpointMismatch when the checkpoint is not one of this configuration's model."""
    parts = built.parts
    missing = [key for key in NEEDED if not state.get(key)]
    if missing:
        raise CheckpointMismatch("checkpoint_not_a_training", missing=", ".join(missing))
    try:
        parts.model.load_state_dict(state["model_state_dict"])
        parts.averaged.load_state_dict(state["ema_state_dict"])
        if state["config"]["optimizer"]["name"] == built.config.optimizer.name:
            # learning rate, decay and the like are the configuration's, which may have changed
            groups = parts.optimizer.state_dict()["param_groups"]
            moments = state["optimizer_state_dict"]["state"]
            parts.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointMismatch("checkpoint_weights_differ", reason=str(error)[:300]) from error
    parts.optimizer.zero_grad(set_to_none=True)
    parts.schedule.load_state_dict(state["scheduler_state_dict"])
    if state["scaler_state_dict"]:
        parts.scaler.load_state_dict(state["scaler_state_dict"])
    callbacks.load_state_dict(state.get("callbacks") or {})
    torch.set_rng_state(state["rng"]["torch"])  # each step sets its own; what follows the last one has this
    progress = Progress.from_state(state["progress"])
    parts.schedule.set(max(0, progress.step - 1))  # the rates are those of the step that was done last
    return progress


def at_epoch_start(progress: Progress, steps: int) -> Progress:
    """The same progress with the epoch in work begun anew, counted in epochs of `steps` batches: after a change of
    the batch size or of the data, half an epoch means nothing."""
    return replace(progress, step=progress.epoch * steps, stats=EpochStats())


class _Saver:
    """Hands checkpoints to the store, and says that one is saved when the next is due, or at the end: asking
    earlier would wait for the disk."""

    def __init__(self, run: Run, saved_step: int) -> None:
        self.run = run
        self.pending: Callable[[], CheckpointSaved] | None = None
        self.saved_at, self.saved_step = time.monotonic(), saved_step

    def save(self, metrics: dict[str, float], *, is_best: bool = False) -> None:
        """Hand over the state as it is now; nothing when this very step is saved already."""
        run, progress = self.run, self.run.progress
        if self.saved_step == progress.step and not metrics:
            return
        self.announce()
        progress.seconds = run.steering.seconds
        parts = run.built.parts
        saved = run.store.save_checkpoint(
            parts.model, parts.optimizer, parts.schedule, run.built.config, progress.epoch, metrics, is_best,
            extra=training_state(run.built, progress, run.callbacks), kind=None if metrics else "latest",
        )  # fmt: skip
        epoch, step = progress.epoch, progress.step
        self.saved_at, self.saved_step = time.monotonic(), step
        self.pending = lambda: CheckpointSaved(epoch, step, str(saved["path"]), is_best, saved["saved_at"])

    def save_if_due(self) -> None:
        """Save within an epoch when so many steps or minutes have gone by."""
        rule = self.run.built.config.checkpoint
        steps = self.run.progress.step
        by_steps = rule.every_steps and steps % rule.every_steps == 0
        by_time = rule.every_minutes and time.monotonic() - self.saved_at >= 60 * rule.every_minutes
        if self.run.built.parts.world.any(bool(by_steps or by_time)):
            self.save({})

    def announce(self) -> None:
        if self.pending is not None:
            self.run.emit(self.pending())
            self.pending = None

    def finish(self) -> None:
        self.announce()
        self.run.store.wait()


class _Clock:
    """Measures the pace of a training and says how long it will still take. What was not yet seen (the steps after
    the backbone is unfrozen, a validation) is taken from the `forecast`, in proportion to what was."""

    def __init__(self, unfreeze_step: int, forecast: Pace | None) -> None:
        self.unfreeze_step, self.forecast = unfreeze_step, forecast
        self._seen: dict[str, float] = {}  # moving means, seconds
        self._last: float | None = None

    def begin(self) -> None:
        """An epoch begins; its first step builds kernels and is not counted."""
        self._last = None

    def step(self, step: int, now: float) -> None:
        """Step number `step` is done at `now`, in seconds without pauses."""
        if self._last is not None:
            self._see("frozen_step_s" if step < self.unfreeze_step else "step_s", now - self._last)
        self._last = now

    def validated(self, seconds: float) -> None:
        self._see("validation_s", seconds)

    def _see(self, what: str, seconds: float) -> None:
        known = self._seen.get(what)
        self._seen[what] = seconds if known is None else known + (seconds - known) / 20

    def left(self, step: int, steps: int, epochs: int) -> float | None:
        """Seconds for the rest of a training of `epochs` epochs of `steps` steps, `step` of them done."""
        steps_s = {name: self._seen[name] for name in ("frozen_step_s", "step_s") if name in self._seen}
        if not steps_s:
            return None
        known = asdict(self.forecast) if self.forecast else {}
        seen = "step_s" if "step_s" in steps_s else "frozen_step_s"
        ratio = steps_s[seen] / known[seen] if known.get(seen) else 1.0
        pace = Pace(
            **{
                name: self._seen.get(name, known[name] * ratio if name in known else fallback)
                for name, fallback in (
                    ("frozen_step_s", steps_s[seen]),
                    ("step_s", steps_s[seen]),
                    ("validation_s", 0.0),
                )
            }
        )
        validations = epochs - step // steps
        return pace.seconds(epochs * steps - step, max(0, self.unfreeze_step - step), validations)


class _Ticker:
    """Turns steps into events, and asks the watchdogs about each."""

    def __init__(self, run: Run, epoch: int) -> None:
        self.run, self.epoch = run, epoch
        run.clock.begin()

    def step(self, step: Step) -> None:
        run, stats = self.run, self.run.progress.stats
        steps = run.built.train.steps
        run.clock.step(step.step, run.steering.seconds)
        rates = {group["name"]: group["lr"] for group in run.built.parts.optimizer.param_groups}
        event = StepEnded(
            epoch=self.epoch + 1,
            step=step.step - self.epoch * steps + 1,
            steps=steps,
            step_in_run=step.step + 1,
            losses=step.losses,
            loss=stats.losses["loss"],
            lr=rates["head"],
            images_per_s=stats.images / max(stats.seconds, 1e-9),
            eta_s=run.clock.left(step.step + 1, steps, run.steering.epochs),
        )
        run.emit(event)
        alone = run.built.parts.precision.device.type == "cpu" and run.built.parts.world.size == 1
        threads = torch.get_num_threads() if alone else None
        for warning in run.watchdogs.step(event, step.grad_norm, threads):
            run.emit(warning)


def _row(progress: Progress, result: Result, parts: Parts, evaluation_s: float) -> dict[str, float | None]:
    """One line of `epochs.csv`."""
    stats = progress.stats
    losses = {
        f"train_{name}" if name == "loss" else f"train_{name}_loss": value
        for name, value in stats.losses.items()
    }
    rates = {group["name"]: group["lr"] for group in parts.optimizer.param_groups}
    return {
        "epoch": progress.epoch,
        **losses,
        **result.scalars(),
        "lr": rates.get("head", 0.0),
        "lr_backbone": rates.get("backbone", 0.0),
        "grad_norm": stats.grad_norm,
        "objects": stats.objects,
        "empty_batches": stats.empty,
        "images_per_s": stats.images / stats.seconds if stats.seconds else None,
        "train_s": stats.seconds,
        "data_wait_s": stats.waited_s,
        "eval_s": evaluation_s,
        "elapsed_s": progress.seconds,
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


def early_stopped(progress: Progress, config: TrainConfig) -> EarlyStopped | None:
    """The verdict when the last `patience` watched epochs brought no improvement of `min_delta`, else None."""
    rule = config.training.early_stopping
    found = waited(progress.rows, config)
    if not rule.patience or found.epochs < rule.patience:
        return None
    return EarlyStopped(
        progress.epoch,
        rule.monitor,
        rule.mode,
        found.best_epoch,
        found.best,
        rule.patience,
        rule.min_delta,
    )
