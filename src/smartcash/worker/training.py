"""Trains, goes on with, prepares and extends runs: reads a run folder, builds every part, and says in it how it ended."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch

from smartcash.backend.backbones import resolve_name
from smartcash.backend.builder import Built, build, choose_device, memory_left
from smartcash.backend.callbacks import Callbacks
from smartcash.backend.distributed import World, joined_world, started_by_torchrun
from smartcash.backend.forecast import Pace, checkpoints, measure
from smartcash.backend.formats import DataSet
from smartcash.backend.previews import Previews
from smartcash.backend.report import write_report
from smartcash.backend.trainer import (
    JUDGED,
    Outcome,
    Progress,
    at_epoch_start,
    fit,
    peak_memory_mb,
    restore,
)
from smartcash.backend.watchdogs import Watchdogs
from smartcash.domain.changes import FIXED_BY_WEIGHTS, changes_between
from smartcash.domain.config import TrainConfig, nested
from smartcash.domain.errors import (
    CheckpointError,
    ConfigInvalid,
    Gathered,
    OperationLogFailed,
    Problem,
    RunNotResumable,
    SmartCashError,
    TrainingFailed,
    VersionRefused,
)
from smartcash.domain.events import (
    Commanded,
    DataFound,
    EpochEnded,
    Event,
    RunChecked,
    RunFailed,
    RunFinished,
    RunReady,
    RunResumed,
    RunStarted,
    StepEnded,
    VersionKept,
    Warned,
)
from smartcash.domain.ports import CHANGED, Command, Control, EventSink
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.control import (
    ControlFile,
    Interrupted,
    Signals,
    listen_to_signals,
    reason_of_interrupt,
)
from smartcash.services.event_log import EventLog, finite
from smartcash.services.notifications import Notice, notify, target_problems
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder
from smartcash.services.training_service import TrainingService
from smartcash.services.workers import heartbeat
from smartcash.utils.i18n import text
from smartcash.utils.logger import get_logger, log_to
from smartcash.worker.data import facts_of, load_data
from smartcash.worker.facts import ended, environment, now, resources, results_of
from smartcash.worker.stores import ReadingStore, RetainingStore

STEP_INTERVAL_S = 0.5
STATES = {"finished": "finished", "early_stopped": "finished", "preempted": "preempted"}  # else stopped
# endings whose best checkpoint becomes a model version
VERSIONED = ("finished", "early_stopped", "kept_best")


def _nobody(event: Event) -> None:
    """Hears nothing."""


def train(
    config: TrainConfig,
    base: Path,
    listen: EventSink = _nobody,
    *,
    signals: Signals | None = None,
) -> tuple[RunFolder, Outcome]:
    """Run one training in this process, in a new folder below `base`; `listen` hears every event.

    Raises SmartCashError; whatever happens, the folder says how the run ended. `signals`: what already listens
    to Ctrl-C and SIGTERM; by default this listens itself. Interrupted: one came before the training began."""
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        world = stack.enter_context(joined_world())
        if not config.data.path:
            raise ConfigInvalid([Problem("data.path", "data_path_missing", "")])
        callbacks = _load_callbacks(config, world)
        asked = config.anchored()
        data = load_data(asked)
        config = asked.model_copy(update={"task": data.task})
        run = None
        if world.leads:
            facts = {**environment(), **facts_of(data), "config_hash": config.hash()}
            run = RunFolder.create(base, config, facts, asked=asked)
        run = RunFolder(world.from_leader(run.path if run else base))
        with _said_when_interrupted(run, world):
            return run, _Session(run, config, data, listen, signals, world, callbacks).train(None)


def resume(
    run: RunFolder,
    listen: EventSink = _nobody,
    *,
    config: TrainConfig | None = None,
    signals: Signals | None = None,
    commands: Control | None = None,
) -> Outcome:
    """Go on with a run from its newest checkpoint, as if it had never stopped: on the same machine, to the same
    bits. `config`: a changed configuration, which takes the place of the run's own. `commands`: what brings the
    run's commands (default: its control file, from now on).

    Raises RunNotResumable for a run that is finished, runs, or whose weights do not fit; else as `train`."""
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        world = stack.enter_context(joined_world())
        facts = run.description()
        if facts.get("state") == "finished":
            raise RunNotResumable("run_finished", run=run.id)
        own = run.config()
        config = config or own
        fixed = [change.field for change in changes_between(own, config) if change.field in FIXED_BY_WEIGHTS]
        if fixed:
            raise RunNotResumable("run_weights_fixed", run=run.id, fields=", ".join(fixed))
        callbacks = _load_callbacks(config, world)
        data = load_data(config)
        recorded = facts.get("data", {})
        if recorded.get("classes") not in (None, list(data.classes)):
            raise RunNotResumable("run_classes_differ", run=run.id, classes=", ".join(recorded["classes"]))
        session = _Session(run, config, data, listen, signals, world, callbacks, commands)
        parent = facts.get("parent")
        if parent and not parent.get("copied") and world.leads:
            _copy_from_parent(run, RunFolder(Path(parent["path"])))
        world.gather(None)
        state = session.newest()
        # what counts is what the checkpoint was trained on; before there is one, what the run was made for
        known, path = recorded.get("content_hash"), own.data.path
        if state is not None and "data_hash" in state:  # else `restore` says what this checkpoint lacks
            known, path = state["data_hash"], state["config"]["data"]["path"]
        session.other_data = known not in (None, data.content_hash)
        if session.other_data and config.data.path == path:
            raise RunNotResumable("run_data_differ", run=run.id, path=path)
        if session.other_data and world.leads:
            run.describe(facts_of(data))
        return session.train(state)


def check(run: RunFolder, *, measured: bool, signals: Signals | None = None) -> list[Problem]:
    """Prepare a run: see `_Session.check`. Raises nothing for what is wrong with configuration or data."""
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        stack.enter_context(heartbeat(run))
        config, found = run.config(), Gathered()
        data, callbacks = None, Callbacks()
        with found:
            callbacks = _load_callbacks(config, World())
        with found:
            data = load_data(config)
        if data is None:  # what needs no data is looked at all the same
            with found:
                choose_device(config.runtime.device)
            with found:
                resolve_name(config.model.backbone)
            run.describe(_checked(found.problems(), {}))
            return found.problems()
        config = config.model_copy(update={"task": data.task})
        session = _Session(run, config, data, _nobody, signals, World(), callbacks)
        return session.check(found, measured=measured)


def extend(
    parent: RunFolder,
    epochs: int,
    policy: str = "rescale",
    listen: EventSink = _nobody,
    *,
    signals: Signals | None = None,
) -> tuple[RunFolder, Outcome]:
    """Train an ended run on to `epochs` epochs in all, as a child run beside it that names its parent.

    `policy`: the course of the learning rate, see `schedule.extension`. Raises RunNotResumable, ConfigInvalid."""
    own, facts = parent.config(), parent.description()
    done = facts.get("epochs_done", 0)
    if facts.get("state") != "finished":
        raise RunNotResumable("run_not_finished", run=parent.id, state=str(facts.get("state")))
    if epochs <= done:
        raise ConfigInvalid([Problem("training.epochs", "extend_too_few", epochs, {"done": done})])
    config = own.replaced(training={"epochs": epochs}, schedule={"extension": policy, "extended_from": done})
    with ExitStack() as stack:
        signals = signals or stack.enter_context(listen_to_signals())
        kept = {name: facts[name] for name in ("data",) if name in facts}
        described = {**environment(), **kept, "config_hash": config.hash()}
        if started_by_torchrun():
            raise RunNotResumable("extend_alone", run=parent.id)
        child = TrainingService(parent.path.parent.parent).create_child(parent, config, done, described)
        with _said_when_interrupted(child, World()):
            return child, resume(child, listen, signals=signals)


@contextmanager
def _said_when_interrupted(run: RunFolder, world: World) -> Iterator[None]:
    """A new run whose training was interrupted before it began says so, and can go on."""
    try:
        yield
    except Interrupted as interrupted:
        if world.leads and run.description()["state"] == "created":
            run.describe({"state": interrupted.reason, "reason": interrupted.reason})
        raise


def _copy_from_parent(run: RunFolder, parent: RunFolder) -> None:
    """Give a child run its parent's best and latest checkpoints: it stands on its own from then on."""
    with CheckpointManager(output_dir=str(parent.weights), logger=get_logger("checkpoint")) as manager:
        found = [manager.find_best_checkpoint(), manager.find_latest_checkpoint()]
        wanted = [path for path in found if path is not None]
        if not wanted:
            raise RunNotResumable("run_without_checkpoint", run=parent.id, folder=str(parent.weights))
        manager.copy_to_drive(run.weights, paths=wanted)
    run.describe({"parent": {**run.description()["parent"], "copied": True}})


def _load_callbacks(config: TrainConfig, world: World) -> Callbacks:
    """Whoever is to be told of a training: of its steps now, of its end by `notify.targets`, which are looked at here
    too, before data are read or a folder is made. Raises ConfigInvalid with every problem."""
    if not world.leads:
        return Callbacks()
    problems = target_problems(config.notify.targets)
    try:
        callbacks = Callbacks.load(config.training.callbacks)
    except ConfigInvalid as error:
        raise ConfigInvalid([*error.problems, *problems]) from error
    if problems:
        raise ConfigInvalid(problems)
    return callbacks


class _Session:
    """One process's time with one run: from its claim on the folder to the state it leaves there."""

    def __init__(
        self,
        run: RunFolder,
        config: TrainConfig,
        data: DataSet,
        listen: EventSink,
        signals: Signals,
        world: World,
        callbacks: Callbacks,
        commands: Control | None = None,
    ) -> None:
        self.commands = commands or ControlFile(run.control)  # before anyone is told that it runs
        self.run, self.config, self.data, self.world = run, config, data, world
        self.listen, self.signals, self.callbacks = listen, signals, callbacks
        self.other_data = False  # than the checkpoint to go on from was trained on

    def newest(self) -> Mapping[str, Any] | None:
        """The state of the run's newest whole checkpoint; None when it was stopped before its first."""
        if not any(self.run.weights.glob("*.pth")):
            return None
        manager = CheckpointManager(output_dir=str(self.run.weights), logger=get_logger("checkpoint"))
        return manager.load_checkpoint(which="latest")

    def check(self, found: Gathered, *, measured: bool) -> list[Problem]:
        """Build everything and look at the data without training: the run becomes ready with a forecast, or failed
        with the problems, those `found` before among them. `measured`: a few steps are timed for the forecast, so
        the device must be free."""
        run, started = self.run, time.monotonic()
        with run.claimed(), EventLog(run.events) as log, log_to(run.path / "train.log"):
            built = None
            forecast: dict[str, Any] = {}
            with found:
                built = build(self.config, self.data)
            if built is not None:
                with found:
                    self._previews(built)
                run.describe({**facts_of(self.data), "choices": built.choices})
            if built is not None and measured and not found.errors:
                device = built.parts.precision.device
                try:
                    forecast = measure(built, time.monotonic() - started, lambda: peak_memory_mb(device))
                except TrainingFailed as error:  # the training has its own way back from it
                    get_logger("check").warning(text("train.no_forecast", reason=str(error)))
            problems = found.problems()
            if forecast and built is not None:
                problems = shortages(run, forecast, built.parts.precision.device)
            self.signals.raise_fallen()  # before anyone hears that it is ready
            ending = _checked(problems, forecast)
            log.append(RunChecked(ending["problems"], forecast))
            run.describe(ending)
        return problems

    def _previews(self, built: Built) -> Previews | None:
        wanted = built.config.training.previews
        if not self.world.leads or not (wanted.count or wanted.images):
            return None
        parts = built.parts
        return Previews(
            self.run.path / "previews", built.valid, built.classes, parts.preprocess, parts.precision, wanted
        )

    def train(self, state: Mapping[str, Any] | None) -> Outcome:
        """Build, then train from `state` (None: from the start); the run folder says how it ended."""
        if not self.world.leads:
            return self._fit(lambda event: None, state)
        run, started = self.run, time.monotonic()
        with run.claimed(), heartbeat(run), EventLog(run.events) as log, log_to(run.path / "train.log"):
            self.journal = _Journal(run, log, self.listen)
            emit = self._emitter(self.journal)
            begun = {"started": now(), "pid": os.getpid(), "host": platform.node(), "command": sys.argv}
            known = run.description()
            attempts = [*known.get("attempts", []), begun]
            # whoever made the run in the background did not know where it would be trained
            where = {} if known.get("started") else environment()
            try:
                here = {"worker": identity(os.getpid()), "attempts": attempts}
                run.describe({**where, "state": "running", "error": None, "ended": None, **here})
                outcome = self._fit(emit, state)
            except BaseException as error:
                # the one place that looks at every error: to record it, then to raise it again
                self.signals.immediate = False  # another signal must not fall in here
                ending = _failure(Interrupted(self.signals.fallen) if self.signals.fallen else error)
                if ending["state"] == "failed":
                    with suppress(OSError):  # a full disk, most likely the error itself
                        emit(RunFailed(type(error).__name__, ending["error"], traceback.format_exc()))
                raise
            else:
                self.signals()  # what comes now is too late
                ending = {"state": STATES.get(outcome.reason, "stopped"), "reason": outcome.reason}
                ending |= results_of(outcome)
            finally:
                begun |= {"ended": now(), "state": ending["state"], "resources": resources()}
                # what cannot be written after a failure must not hide the failure
                lenient = suppress(OSError) if ending["state"] == "failed" else nullcontext()
                becomes_version = ending.get("reason") in VERSIONED
                with lenient:
                    # whoever sees that it is over finds its version
                    meanwhile = {"state": "running"} if becomes_version else {}
                    run.describe({**ending, **ended(started), "attempts": attempts, **meanwhile})
                if becomes_version:
                    try:
                        self._register(emit, outcome)
                    finally:
                        run.describe({"state": ending["state"]})
                warnings = notify(self.config.notify.targets, self._notice(ending))
                with lenient:
                    for warning in warnings:
                        self.journal(warning)
        return outcome

    def _notice(self, ending: Mapping[str, Any]) -> Notice:
        reason = ending["error"] if ending["state"] == "failed" else ending["reason"]
        metrics = ending.get("test") or ending.get("valid") or {}
        return Notice(
            self.run.id,
            self.config.name,
            ending["state"],
            reason,
            str(self.run.path.absolute()),
            finite(metrics),
        )

    def _register(self, emit: EventSink, outcome: Outcome) -> None:
        """The best checkpoint becomes a model version, unless it is one already: no epoch since was better. What
        hinders that is a warning: the run is finished, and `smartcash models add` makes good for it."""
        versions = ModelVersions(self.run.path.parent.parent)
        try:
            known = {version.number for version in versions.versions()}
            version = versions.register_run(self.run)
            kept = version.number in known
            self.run.describe({"version_kept": kept})
            if kept:
                monitor, value = self.run.config().training.monitor, outcome.progress.best_value
                emit(VersionKept(version.name, version.run, version.epoch, monitor, value))
        except (CheckpointError, RunNotResumable, VersionRefused, OperationLogFailed) as error:
            emit(Warned("version_failed", {"run": self.run.id, "reason": str(error)}))

    def _emitter(self, journal: EventSink) -> EventSink:
        def emit(event: Event) -> None:
            if isinstance(event, RunFinished) and self.callbacks.failure is not None:
                raise self.callbacks.failure  # a training that a callback ended has failed, not finished
            try:
                journal(event)
            finally:  # a disk that is full does not keep the others from hearing of it
                warnings = self.callbacks(event)
            for warning in warnings:
                journal(warning)

        return emit

    def _fit(self, emit: EventSink, state: Mapping[str, Any] | None) -> Outcome:
        run, config, data, world = self.run, self.config, self.data, self.world
        if world.leads:
            plain = config.model_dump(mode="json")
            emit(RunStarted(run.id, str(run.path.absolute()), plain, resumed=state is not None))
            for code, count in data.report.counts().items():
                first = next(finding for finding in data.report.findings if finding.code == code)
                emit(DataFound(code, first.severity, count, first.example))
        built = build(config, data, world)
        previews = self._previews(built)
        progress = None
        if state is not None:
            progress = restore(built, state, self.callbacks)
            if self.other_data or state["steps_per_epoch"] != built.train.steps:
                progress = at_epoch_start(progress, built.train.steps)
        there = len(list(run.weights.glob("*.pth")))
        size, _, growth = checkpoints(built, progress.epoch if progress else 0, there)
        short = disk_shortage(run, growth * size / 2**20) if world.leads else []
        if short := world.from_leader(short):
            raise ConfigInvalid(short)
        if world.leads:
            self._describe(built, emit, state, progress)
        training = built.config.training
        manager = CheckpointManager(
            output_dir=str(run.weights), logger=get_logger("checkpoint"),
            monitor=training.monitor, mode=training.mode,
        )  # fmt: skip

        def control() -> list[Command]:
            heard = [*self.signals(), *self.callbacks.commands()]
            return [*heard, *self.commands()] if world.leads else heard

        watchdogs = Watchdogs(run.path, pretrained=config.model.pretrained)
        self.signals.immediate = False
        with manager:
            store = RetainingStore(manager, built.config, emit) if world.leads else ReadingStore(manager)
            outcome = fit(
                built, store, emit, control, progress,
                callbacks=self.callbacks, previews=previews, watchdogs=watchdogs,
                forecast=forecast_of(run),
            )  # fmt: skip
        if outcome.best is not None and outcome.reason in JUDGED and world.leads:
            write_report(run.path / "report", built, outcome)
        return outcome

    def _describe(
        self, built: Built, emit: EventSink, state: Mapping[str, Any] | None, progress: Progress | None
    ) -> None:
        run, data = self.run, self.data
        run.change(self.config)
        run.write_config(built.config)
        parameters = sum(p.numel() for p in built.parts.model.parameters())
        images = {split: len(samples) for split, samples in data.splits.items()}
        run.describe(
            {"choices": built.choices, "parameters": parameters, "resolved_hash": built.config.hash()}
        )
        emit(
            RunReady(
                run.id, data.task, built.config.model.backbone, data.classes, images,
                built.config.training.epochs, built.train.steps, parameters, built.choices,
            )
        )  # fmt: skip
        if state is not None and progress is not None:
            self.journal.rows = list(progress.rows)
            emit(RunResumed(progress.epoch + 1, progress.step, str(state["path"])))


def _failure(error: BaseException) -> dict[str, Any]:
    """What a run records of the error that ended it; a signal while it was built, or a second Ctrl-C, is none."""
    if isinstance(error, KeyboardInterrupt):
        reason = reason_of_interrupt(error)
        return {"state": reason, "reason": reason}
    message = str(error) if isinstance(error, SmartCashError) else f"{type(error).__name__}: {error}"
    return {"state": "failed", "error": message}


def _checked(problems: list[Problem], forecast: dict[str, Any]) -> dict[str, Any]:
    """What a run records of its check: ready, or failed and why."""
    plain = [asdict(problem) | {"message": problem.message()} for problem in problems]
    facts = {"problems": plain, "forecast": forecast}
    if not problems:
        return {"state": "ready", "error": None, **facts}
    error = "\n".join(f"{problem['field']}: {problem['message']}" for problem in plain)
    return {"state": "failed", "reason": "check", "error": error, **facts}


def shortages(run: RunFolder, forecast: Mapping[str, Any], device: torch.device) -> list[Problem]:
    """What this machine has too little of for a run with this forecast."""
    found = disk_shortage(run, forecast["disk_mb"])
    # what this process holds now, the training will hold instead
    on_card = device.type == "cuda"
    held = torch.cuda.memory_reserved(device) if on_card else psutil.Process().memory_info().rss
    room_mb = (memory_left(device) + held) / 2**20
    if room_mb < forecast["memory_mb"]:
        batch_size = int(forecast["batch_size"])
        facts = {
            "needed": forecast["memory_mb"],
            "free": round(room_mb),
            "fitting": max(1, batch_size // 2),
        }
        found.append(Problem("data.batch_size", "memory_short", batch_size, facts))
    return found


def disk_shortage(run: RunFolder, needed_mb: float) -> list[Problem]:
    """The problem of a run whose checkpoints grow by `needed_mb`, which its disk does not hold."""
    disk = psutil.disk_usage(str(run.path))
    free_mb = disk.free / 2**20
    if free_mb >= needed_mb or not disk.total:  # some drives that are mounted do not say
        return []
    facts = {"free": round(free_mb), "needed": round(needed_mb), "folder": str(run.path)}
    return [Problem("checkpoint.keep_epochs", "disk_short", facts=facts)]


def forecast_of(run: RunFolder) -> Pace | None:
    """The pace that a check of this run has measured."""
    pace = (run.description().get("forecast") or {}).get("pace")
    return Pace(**pace) if pace else None


class _Journal:
    """Writes what happens into the run folder and passes it on: all events but most of the steps, a row per
    epoch, and commands that change the configuration."""

    def __init__(self, run: RunFolder, log: EventLog, listen: EventSink) -> None:
        self.run, self.log, self.listen = run, log, listen
        self.rows: list[dict[str, float | None]] = []
        self._last_step_s = 0.0

    def __call__(self, event: Event) -> None:
        try:
            self._write(event)
        finally:
            self.listen(event)

    def _write(self, event: Event) -> None:
        if not isinstance(event, StepEnded) or self._due(event):
            self.log.append(event)
        match event:
            case EpochEnded(epoch=epoch, row=row):
                self.rows = [known for known in self.rows if (known["epoch"] or 0) < epoch] + [row]
                self.run.write_epochs(self.rows)
            case Commanded(name="epochs" | "patience" as name, value=value):
                self.run.change(self.run.config().replaced(**nested(CHANGED[name], value)))
            case Commanded(name="threads" as name, value=value):  # of this hour, not what was asked for
                self.run.write_config(self.run.config().replaced(**nested(CHANGED[name], value)))
            case Commanded(name="pause" | "continue" | "stop" | "preempt" | "keep_best" as name):
                self.run.describe({"state": {"pause": "paused", "continue": "running"}.get(name, "stopping")})

    def _due(self, event: StepEnded) -> bool:
        now = time.monotonic()
        if now - self._last_step_s < STEP_INTERVAL_S and event.step < event.steps:
            return False
        self._last_step_s = now
        return True
