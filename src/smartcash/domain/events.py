"""What happens in a run: immutable facts, without words. Texts are made where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Event:
    """Base of all events. `to_dict` adds the type's name."""

    def to_dict(self) -> dict[str, Any]:
        return {"type": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class RunStarted(Event):
    """A worker has begun with a run. `config`: the configuration as plain values. `resumed`: it had begun before."""

    run: str
    folder: str
    config: dict[str, Any]
    resumed: bool


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
class RunChecked(Event):
    """A preparation has ended. `problems`: why the run cannot start, each with field, code, value and facts; none:
    it is ready, and `forecast` says what it will take (empty when the device was busy)."""

    problems: list[dict[str, Any]]
    forecast: dict[str, Any]


@dataclass(frozen=True)
class DataFound(Event):
    """A kind of finding about the data: its code, how often, and an example of where, "" if it has no place or name."""

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
class RunResumed(Event):
    """The training goes on after `step` steps, from a checkpoint; what was logged beyond that step counts no more."""

    epoch: int
    step: int
    checkpoint: str


@dataclass(frozen=True)
class StepEnded(Event):
    """One batch: its number within the epoch and in the whole run (1-based), its loss parts, the running mean of
    the loss over the epoch, learning rate of the head, images per second, seconds left in the run (None: not known
    yet)."""

    epoch: int
    step: int
    steps: int
    step_in_run: int
    losses: dict[str, float]
    loss: float
    lr: float
    images_per_s: float
    eta_s: float | None


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
    """A checkpoint is on the disk since `saved_at` (s since 1970): it is said when the next is due, because to ask
    earlier would hold the training up. None: not told, as by earlier versions."""

    epoch: int
    step: int
    path: str
    is_best: bool
    saved_at: float | None = None


@dataclass(frozen=True)
class Warned(Event):
    """A watchdog noticed something: a stable code and its facts."""

    code: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Commanded(Event):
    """A command took effect after `step` steps. `value`: its number; `was`: the one before."""

    name: str
    value: int | None
    was: int | None
    source: str
    epoch: int
    step: int


@dataclass(frozen=True)
class RolledBack(Event):
    """A loss was not finite; the training goes on from an earlier step with `lr_factor` of the learning rate."""

    cause: str
    facts: dict[str, Any]
    epoch: int
    step: int
    lr_factor: float
    left: int


@dataclass(frozen=True)
class EarlyStopped(Event):
    """`patience` epochs after `best_epoch` nothing was better by `min_delta`."""

    epoch: int
    monitor: str
    mode: str
    best_epoch: int
    best_value: float | None
    patience: int
    min_delta: float


@dataclass(frozen=True)
class PreviewsWritten(Event):
    """The predictions of this epoch for the fixed pictures are in a file."""

    epoch: int
    path: str


@dataclass(frozen=True)
class RunFinished(Event):
    """The training is over. `reason`: finished, early_stopped, stopped, preempted, kept_best or time_up."""

    reason: str
    epoch: int
    best_epoch: int
    best_value: float | None
    monitor: str
    test: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class VersionKept(Event):
    """The best checkpoint of a run was the model version `version` before, so no new one was made: its epoch `epoch`
    was trained by `run`, perhaps this one's parent, and none since was better by `monitor`."""

    version: str
    run: str
    epoch: int
    monitor: str
    value: float | None


@dataclass(frozen=True)
class RunFailed(Event):
    """The run ended with an error."""

    error: str
    message: str
    traceback: str


_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}


def from_record(record: Mapping[str, Any]) -> Event | None:
    """The event of one line of an event log; None for a kind, or a shape, of another version."""
    kind = _TYPES.get(str(record.get("type")))
    if kind is None:
        return None
    names = {each.name for each in fields(kind)}
    given = {name: value for name, value in record.items() if name in names}
    needed = {e.name for e in fields(kind) if e.default is MISSING and e.default_factory is MISSING}
    return kind(**given) if needed <= given.keys() else None
