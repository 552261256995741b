"""Callbacks: objects of the user's, or of a tracker, that are told what happens in a training.

A callback is any object with one or more of these methods; each gets one event (`domain.events`), never the
trainer, and may answer with a `Command` (`domain.ports`), for example to stop:

    on_run_start(RunStarted)      the configuration, before anything is built
    on_ready(RunReady)            everything is built
    on_epoch_start(EpochStarted)
    on_step_end(StepEnded)        every batch
    on_epoch_end(EpochEnded)      after validation, with the epoch's row
    on_checkpoint_saved(CheckpointSaved)
    on_run_end(RunFinished)       finished, stopped or pre-empted
    on_run_failed(RunFailed)

With `state_dict()` and `load_state_dict(state)` (plain values and tensors) its memory survives a resume, and goes back
with the training when a loss is not finite. `load_state_dict` is called between on_run_start and on_ready.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from smartcash.domain import events
from smartcash.domain.config import CallbackConfig
from smartcash.domain.errors import ConfigInvalid, Problem, TrainingFailed
from smartcash.domain.ports import Command

HOOKS: dict[type[events.Event], str] = {
    events.RunStarted: "on_run_start",
    events.RunReady: "on_ready",
    events.EpochStarted: "on_epoch_start",
    events.StepEnded: "on_step_end",
    events.EpochEnded: "on_epoch_end",
    events.CheckpointSaved: "on_checkpoint_saved",
    events.RunFinished: "on_run_end",
    events.RunFailed: "on_run_failed",
}
BUILT_IN = {
    "tensorboard": "smartcash.backend.trackers:TensorBoard",
    "mlflow": "smartcash.backend.trackers:MLflow",
    "wandb": "smartcash.backend.trackers:WeightsAndBiases",
}


@dataclass
class Entry:
    """One callback: how it is configured and what it can do. `alive` until it raises."""

    config: CallbackConfig
    callback: Any
    alive: bool = True


class Callbacks:
    """Tells callbacks of events. One that raises is named and never told again; if its `on_error` is "stop", the
    training is asked to stop, with a checkpoint, and `failure` says why."""

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.entries = list(entries)
        self.failure: TrainingFailed | None = None
        self._commands: list[Command] = []
        self._warnings: list[events.Warned] = []

    @classmethod
    def load(cls, configs: Sequence[CallbackConfig]) -> Callbacks:
        """Import and make all of them. Raises ConfigInvalid with every problem."""
        entries, problems = [], []
        for number, config in enumerate(configs):
            try:
                entries.append(Entry(config, _made(f"training.callbacks.{number}", config)))
            except ConfigInvalid as error:
                problems += error.problems
        if problems:
            raise ConfigInvalid(problems)
        return cls(entries)

    def __call__(self, event: events.Event) -> list[events.Warned]:
        """Tell everyone of `event`; answers a warning for each that has raised since the last call."""
        hook = HOOKS.get(type(event))
        if hook is not None:
            for entry in self.entries:
                self._tell(entry, hook, event)
        warnings, self._warnings = self._warnings, []
        return warnings

    def _tell(self, entry: Entry, hook: str, event: events.Event) -> None:
        method: Callable[[events.Event], object] | None = getattr(entry.callback, hook, None)
        if not entry.alive or method is None:
            return
        # a copy: what a callback does to the event's row must not reach the training
        answer, error = _asked(method, deepcopy(event))
        if isinstance(answer, Command):
            self._commands.append(answer)
        elif answer is not None:
            error = TypeError(f"{hook} returned {type(answer).__name__}; it may return None or a Command")
        if error is not None:
            # of a training that has ended, nothing is left to stop
            ended = isinstance(event, events.RunFinished | events.RunFailed)
            self._leave_out(entry, hook, error, "skip" if ended else entry.config.on_error)

    def _leave_out(self, entry: Entry, hook: str, error: Exception, on_error: str) -> None:
        entry.alive = False
        facts = _facts(entry, hook, error)
        if on_error == "stop":
            self.failure = self.failure or TrainingFailed("callback_failed", **facts)
            self._commands.append(Command("stop", source=f"callback {entry.config.use}"))
        self._warnings.append(events.Warned(f"callback_failed_{on_error}", facts))

    def commands(self) -> list[Command]:
        """What callbacks have asked for since the last call."""
        commands, self._commands = self._commands, []
        return commands

    def state_dict(self) -> dict[str, Any]:
        """The states of those that have one, by their place and name in the configuration: also of those that have
        raised, which may be mended before the run goes on.

        Raises TrainingFailed when one cannot tell its state and its `on_error` is "stop"."""
        state = {}
        for number, entry in enumerate(self.entries):
            method = getattr(entry.callback, "state_dict", None)
            if method is not None:
                answer, error = _asked(method)
                if error is None:
                    state[f"{number} {entry.config.use}"] = answer
                elif entry.alive:
                    self._state_failed(entry, "state_dict", error)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each its state back. Raises TrainingFailed when one cannot take it and its `on_error` is "stop"."""
        for number, entry in enumerate(self.entries):
            known = state.get(f"{number} {entry.config.use}")
            method = getattr(entry.callback, "load_state_dict", None)
            if known is not None and method is not None:
                _, error = _asked(method, known)
                if error is not None:
                    self._state_failed(entry, "load_state_dict", error)

    def _state_failed(self, entry: Entry, hook: str, error: Exception) -> None:
        """A checkpoint without the memory that it should hold must not take the place of one that holds it: so this
        ends the training at once, or never."""
        if entry.config.on_error == "stop":
            raise TrainingFailed("callback_failed", **_facts(entry, hook, error)) from error
        self._leave_out(entry, hook, error, "skip")


def _asked(method: Callable[..., object], *arguments: object) -> tuple[Any, Exception | None]:
    """What code of others answers, or what it raises, which may be anything."""
    try:
        return method(*arguments), None
    except Exception as error:  # noqa: BLE001 -- whoever asks makes it a named failure
        return None, error


def _facts(entry: Entry, hook: str, error: Exception) -> dict[str, Any]:
    trace = traceback.extract_tb(error.__traceback__)
    return {
        "callback": entry.config.use,
        "hook": hook,
        "error": f"{type(error).__name__}: {error}",
        "where": f"{Path(trace[-1].filename).name}:{trace[-1].lineno}" if trace else entry.config.use,
    }


def _made(field: str, config: CallbackConfig) -> object:
    """The callback that `config` describes. Raises ConfigInvalid when it cannot be made."""
    path = BUILT_IN.get(config.use, config.use)
    module, colon, name = path.partition(":")
    if not colon or not name:
        near = ", ".join(get_close_matches(config.use, BUILT_IN, n=3, cutoff=0.4)) or ", ".join(BUILT_IN)
        raise ConfigInvalid([Problem(field, "callback_form", config.use, {"near": near})])
    here = str(Path.cwd())
    if config.use not in BUILT_IN and here not in sys.path:
        sys.path.insert(0, here)  # a class of the user's lies beside where they work
    made, error = _asked(lambda: getattr(import_module(module), name)(**config.options))
    if isinstance(error, ConfigInvalid):
        raise ConfigInvalid([replace(problem, field=field) for problem in error.problems])
    if error is not None:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigInvalid([Problem(field, "callback_not_made", config.use, {"reason": reason})])
    named = [hook for hook in dir(made) if hook.startswith("on_") and callable(getattr(made, hook))]
    unknown = [hook for hook in named if hook not in HOOKS.values()]
    if unknown or not named:
        facts = {"unknown": ", ".join(unknown) or "-", "known": ", ".join(HOOKS.values())}
        raise ConfigInvalid([Problem(field, "callback_hooks", config.use, facts)])
    return made
