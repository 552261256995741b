"""Every exception of SmartCash, one tree:

    SmartCashError            code + facts; its text comes from the locale files (`errors.<code>`)
    ├── ConfigInvalid         all problems of a configuration at once
    ├── DataInvalid           a data set that cannot be read, or problems that `strict` made fatal
    ├── WeightsUnavailable    pretrained weights that cannot be had
    ├── BackboneUnknown       no such backbone, or one that gives no strides 8/16/32
    ├── TrainingFailed        the training cannot go on (non-finite loss, out of memory, …)
    ├── RunNotFound           no such run folder or checkpoint
    ├── RunNotResumable       a run that cannot go on, or not in that way
    ├── RunNotReady           a run that is not in the state that the request needs
    ├── NotConfirmed          a change without the confirmation that belongs to it
    ├── RunRefused            a change that a run's state forbids: locked, running, name taken
    ├── LabelsRefused         a tag or a note that cannot be kept
    ├── VersionNotFound       no such model version or alias
    ├── VersionRefused        a change of versions or aliases that is not possible as they stand
    ├── ComparisonRefused     runs or versions that cannot be held against each other
    ├── OperationLogFailed    the operation log cannot be read or written
    ├── ServingRefused        a model that cannot be served like that, or a request that it does not answer
    ├── AdviceRefused         an advice that cannot be begun or gone on with
    ├── ExportRefused         an export that its format, or what is installed, cannot do
    ├── ExportFailed          an export that broke off, was changed, or does not say what the model says
    ├── ServerRefused         the web page's server cannot begin
    ├── WorkbenchFailed       the worker process that answers for the page died over a question
    └── CheckpointError       everything the CheckpointManager raises
        ├── CheckpointNotFound
        ├── CheckpointCorrupt     the bytes are not what was written
        ├── CheckpointUntrusted   it holds more than plain tensors: refused before any code runs
        ├── CheckpointMismatch    it does not fit the model, optimizer or scheduler
        └── CheckpointWriteFailed disk full, no permission, input/output error

An error names the thing, the value, the reason and the way out. `code` is stable and documented; facts
are plain values (str, int, float), so an error can travel between processes and languages.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from smartcash.utils.i18n import text

WHOLE = "."  # in place of a file: the data set as a whole


@dataclass(frozen=True)
class Problem:
    """One failed check: where (`field`: a config key, or a file and line), the value, a code and its facts."""

    field: str
    code: str
    value: object = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def message(self, language: str | None = None) -> str:
        """The problem in words, with the way out. A code with a dot is that of an error: `errors.<code>`."""
        key = self.code if "." in self.code else f"problems.{self.code}"
        return text(key, language, field=self.field, value=self.value, **self.facts)


class SmartCashError(Exception):
    """Base of all errors that a user can meet. `exit_code` is what the command line answers; `about` the field of
    a configuration that the error is mostly about, or ""."""

    exit_code = 1
    about = ""

    def __init__(self, code: str, **facts: object) -> None:
        super().__init__(code, facts)
        self.code = code
        self.facts = facts

    def message(self, language: str | None = None) -> str:
        """The error in words, with the way out."""
        return text(f"errors.{self.code}", language, **self.facts)

    def as_problems(self) -> list[Problem]:
        """The error as problems of a configuration."""
        return [Problem(self.about, f"errors.{self.code}", facts=dict(self.facts))]

    def __str__(self) -> str:
        return self.message()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.code, self.facts)


def _rebuild(kind: type[SmartCashError], code: str, facts: dict[str, object]) -> SmartCashError:
    return kind(code, **facts)


class _WithProblems(SmartCashError):
    """An error that carries every problem found, so that a form can mark each field."""

    def __init__(self, code: str, problems: list[Problem], **facts: object) -> None:
        super().__init__(code, count=len(problems), **facts)
        self.problems = problems

    def message(self, language: str | None = None) -> str:
        lines = [
            f"  • {problem.message(language)}"
            if problem.field in ("", WHOLE)
            else f"  • {problem.field}: {problem.message(language)}"
            for problem in self.problems
        ]
        return "\n".join([super().message(language), *lines])

    def as_problems(self) -> list[Problem]:
        return self.problems or super().as_problems()

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {key: value for key, value in self.facts.items() if key != "count"}
        return _rebuild_with_problems, (type(self), self.code, self.problems, facts)


def _rebuild_with_problems(
    kind: type[_WithProblems], code: str, problems: list[Problem], facts: dict[str, object]
) -> _WithProblems:
    return kind(code, problems, **facts)


class ConfigInvalid(_WithProblems):
    """A configuration with at least one problem; `problems` lists all of them."""

    exit_code = 2

    def __init__(self, problems: list[Problem], code: str = "config_invalid") -> None:
        super().__init__(code, problems)

    def __reduce__(self) -> tuple[Any, ...]:
        return ConfigInvalid, (self.problems, self.code)


class Gathered:
    """Errors of checks that do not need each other, to be told together:

    found = Gathered()
    with found: ...    # as often as there are checks; a SmartCashError ends only its own block
    found.raise_any()
    """

    def __init__(self) -> None:
        self.errors: list[SmartCashError] = []

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, SmartCashError):
            self.errors.append(error)
        return isinstance(error, SmartCashError)

    def problems(self) -> list[Problem]:
        """All of them as problems of a configuration."""
        return [problem for error in self.errors for problem in error.as_problems()]

    def raise_any(self) -> None:
        """Raise the one error there is, or ConfigInvalid with the problems of several."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ConfigInvalid(self.problems())


class DataInvalid(_WithProblems):
    """A data set that cannot be used; `problems` lists every finding that made it so (may be empty)."""

    exit_code = 2
    about = "data.path"

    def __init__(self, code: str, problems: list[Problem] | None = None, **facts: object) -> None:
        super().__init__(code, problems or [], **facts)


class WeightsUnavailable(SmartCashError):
    """Pretrained weights that can be had neither from disk nor from the hub."""

    exit_code = 2
    about = "model.pretrained"


class BackboneUnknown(SmartCashError):
    """No such backbone, or one without feature maps at strides 8, 16 and 32."""

    exit_code = 2
    about = "model.backbone"


class TrainingFailed(SmartCashError):
    """The training cannot go on."""


class RunNotFound(SmartCashError):
    """No such run folder or checkpoint."""

    exit_code = 2


class RunNotResumable(SmartCashError):
    """A run that cannot go on, or not in that way."""

    exit_code = 2


class RunNotReady(SmartCashError):
    """A run that is not in the state that the request needs."""

    exit_code = 2


class NotConfirmed(SmartCashError):
    """A change that was not confirmed, or whose confirmation no longer fits what it was about."""

    exit_code = 3


class RunRefused(SmartCashError):
    """A change of a run that its state forbids: it is locked or running, or its place is taken."""


class LabelsRefused(SmartCashError):
    """A tag or a note of a run or a version that is too long, or holds what a terminal would obey; too many tags."""

    exit_code = 2


class VersionNotFound(SmartCashError):
    """No such model version or alias."""

    exit_code = 2


class VersionRefused(SmartCashError):
    """A change of model versions or aliases that is not possible as they stand."""


class ComparisonRefused(SmartCashError):
    """Runs or versions that cannot be held against each other: too few, too many, of different tasks, or no data set
    that all can be judged on."""

    exit_code = 2


class OperationLogFailed(SmartCashError):
    """The operation log cannot be read or written."""


class ServingRefused(SmartCashError):
    """A model that cannot be served in the way that was asked for, or a request to it that gets no answer."""

    exit_code = 2


class AdviceRefused(SmartCashError):
    """An advice on backbones that cannot be begun or gone on with."""

    exit_code = 2


class ExportRefused(SmartCashError):
    """An export that its format cannot do, or whose packages are not installed; a file that is no export."""

    exit_code = 2


class ExportFailed(SmartCashError):
    """An export that broke off or was changed, or a file that does not say what its model says."""


class ServerRefused(SmartCashError):
    """The web page's server cannot begin: its port is taken or may not be used, or its process ended."""


class WorkbenchFailed(SmartCashError):
    """The worker process that answers questions about data and models died over one."""


class CheckpointError(SmartCashError):
    """Base of everything the CheckpointManager raises."""


class CheckpointNotFound(CheckpointError):
    """No checkpoint at that path, epoch or label."""


class CheckpointCorrupt(CheckpointError):
    """The bytes are not the ones that were written."""


class CheckpointUntrusted(CheckpointError):
    """The file holds more than plain values and tensors; it was refused before any of its code ran."""


class CheckpointMismatch(CheckpointError):
    """The checkpoint does not fit the model, optimizer or scheduler."""


class CheckpointWriteFailed(CheckpointError):
    """A save, copy or history write did not reach the disk."""
