"""What happens in a run: immutable facts, without words. Texts are made where they are shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all events. `to_dict` adds the type's name."""

    def to_dict(self) -> dict[str, Any]:
        return {"type": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class RunReady(Event):
    """Everything is built. `choices`: what "auto" became and why, as plain values."""

    run: str
    task: str
    backbone: str
    classes: tuple[str, ...]
    images: dict[str, int]
    epochs: int
    steps_per_epoch: int
    parameters: int
    choices: dict[str, Any]


@dataclass(frozen=True)
class DataFound(Event):
    """A finding about the data: its code and how often, with one example."""

    code: str
    severity: str
    count: int
    example: str


@dataclass(frozen=True)
class EpochStarted(Event):
    """Epoch `epoch` (1-based) of `epochs` begins."""

    epoch: int
    epochs: int


@dataclass(frozen=True)
class StepEnded(Event):
    """Progress: step within the epoch, running mean of the loss, images per second, seconds left in the run."""

    epoch: int
    step: int
    steps: int
    loss: float
    images_per_s: float
    eta_s: float


@dataclass(frozen=True)
class EvaluationStarted(Event):
    """The validation of an epoch, or the last test, begins."""

    epoch: int
    split: str


@dataclass(frozen=True)
class EpochEnded(Event):
    """One row of the epoch log: every loss part, metric, learning rate, time, images/s and peak memory."""

    epoch: int
    epochs: int
    row: dict[str, float | None]
    is_best: bool


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint was handed to the store."""

    epoch: int
    step: int
    path: str
    is_best: bool


@dataclass(frozen=True)
class Warned(Event):
    """A watchdog noticed something: a stable code and its facts."""

    code: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFinished(Event):
    """The training is over. `reason`: finished, early_stopped, stopped, preempted or time_up."""

    reason: str
    epoch: int
    best_epoch: int
    best_value: float | None
    monitor: str
    test: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class RunFailed(Event):
    """The run ended with an error."""

    error: str
    message: str
    traceback: str
