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

With `state_dict()` and `load_state_dict(state)` (plain values and tensors) its memory survives a resume.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    @classmethod
    def load(cls, configs: Sequence[CallbackConfig]) -> Callbacks:
        """Import and make all of them. Raises ConfigInvalid with every problem."""
        entries, problems = [], []
        for number, config in enumerate(configs):
            made = _make(f"training.callbacks.{number}", config)
            if isinstance(made, Problem):
                problems.append(made)
            else:
                entries.append(Entry(config, made))
        if problems:
            raise ConfigInvalid(problems)
        return cls(entries)

    def __call__(self, event: events.Event) -> list[events.Warned]:
        """Tell everyone of `event`; answers a warning for each that raised."""
        hook = HOOKS.get(type(event))
        warnings = []
        for entry in self.entries:
            method: Callable[[events.Event], object] | None = getattr(entry.callback, hook or "", None)
            if not entry.alive or method is None:
                continue
            try:
                answer = method(event)
                if isinstance(answer, Command):
                    self._commands.append(answer)
                elif answer is not None:
                    raise TypeError(
                        f"{hook} returned {type(answer).__name__}; it may return None or a Command"
                    )
            except Exception as error:  # noqa: BLE001 -- code of others may raise anything
                warnings.append(self._raised(entry, hook or "", error))
        return warnings

    def _raised(self, entry: Entry, hook: str, error: Exception) -> events.Warned:
        entry.alive = False
        where = traceback.extract_tb(error.__traceback__)[-1]
        facts: dict[str, Any] = {
            "callback": entry.config.use,
            "hook": hook,
            "error": f"{type(error).__name__}: {error}",
            "where": f"{Path(where.filename).name}:{where.lineno}",
        }
        if entry.config.on_error == "stop":
            self.failure = self.failure or TrainingFailed("callback_failed", **facts)
            self._commands.append(Command("stop", source=f"callback {entry.config.use}"))
        return events.Warned(f"callback_failed_{entry.config.on_error}", facts)

    def commands(self) -> list[Command]:
        """What callbacks have asked for since the last call."""
        commands, self._commands = self._commands, []
        return commands

    def state_dict(self) -> dict[str, Any]:
        """The states of those that have one, by their place and name in the configuration."""
        return {
            f"{number} {entry.config.use}": entry.callback.state_dict()
            for number, entry in enumerate(self.entries)
            if hasattr(entry.callback, "state_dict")
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for number, entry in enumerate(self.entries):
            known = state.get(f"{number} {entry.config.use}")
            if known is not None and hasattr(entry.callback, "load_state_dict"):
                entry.callback.load_state_dict(known)


def _make(field: str, config: CallbackConfig) -> object | Problem:
    """The callback that `config` describes, or why it cannot be made."""
    path = BUILT_IN.get(config.use, config.use)
    module_name, colon, class_name = path.partition(":")
    if not colon or not class_name:
        near = ", ".join(get_close_matches(config.use, BUILT_IN, n=3, cutoff=0.4)) or ", ".join(BUILT_IN)
        return Problem(field, "callback_form", config.use, {"near": near})
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # a class of the user's lies beside where they work
    try:
        made: object = getattr(import_module(module_name), class_name)(**config.options)
    except ConfigInvalid as error:
        return error.problems[0]
    except Exception as error:  # noqa: BLE001 -- code of others may raise anything
        reason = f"{type(error).__name__}: {error}"
        return Problem(field, "callback_not_made", config.use, {"reason": reason})
    named = [name for name in dir(made) if name.startswith("on_") and callable(getattr(made, name))]
    unknown = [name for name in named if name not in HOOKS.values()]
    if unknown or not named:
        facts = {"unknown": ", ".join(unknown) or "-", "known": ", ".join(HOOKS.values())}
        return Problem(field, "callback_hooks", config.use, facts)
    return made
