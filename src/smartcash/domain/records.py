"""Records that outlive a process: a run as lists show it, a model version, the entries of the operation log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from smartcash.utils.i18n import text
from smartcash.utils.printable import plain

INTERFACES = ("cli", "python", "web", "notebook")

# how a person agreed: was asked and said yes, sent a page's token, gave --yes, or nothing had to be agreed to
CONFIRMATIONS = ("none", "asked", "token", "--yes")

# what a checkpoint of a SmartCash training holds and a prediction needs, and of what kind it is
_MODEL_PARTS = {"config": (dict,), "classes": (list, tuple), "preprocess": (dict,), "ema_state_dict": (dict,)}

MOST_TAGS, LONGEST_TAG, LONGEST_NOTES = 20, 40, 10_000  # tags; characters

# every operation has its name in the locales: [operations]
OPERATIONS = (
    *("config-change", "start", "pause", "continue", "stop", "resume", "extend"),
    *("register", "promote", "roll-back", "export", "delete", "cleanup", "copy-to-drive", "import"),
    *("tag", "note", "lock", "unlock", "trash", "restore", "empty-trash", "repair"),
    "advise",
)

# somebody is at work on a run in one of these
ACTIVE = ("checking", "queued", "running", "paused", "stopping")
# a run in one of these changes no more by itself; "broken" stands in for a state that cannot be read
OVER = frozenset({"finished", "stopped", "failed", "preempted", "crashed", "broken"})


def missing_parts(checkpoint: Mapping[str, Any]) -> list[str]:
    """What a prediction needs and a checkpoint lacks, or holds in another form; nothing for one of a training."""
    return [
        key
        for key, kinds in _MODEL_PARTS.items()
        if not isinstance(part := checkpoint.get(key), kinds) or not part
    ]


def tag_fits(tag: str) -> bool:
    """Whether `tag` is one line of 1 to LONGEST_TAG characters, not only blanks, none that a terminal would obey."""
    return bool(tag.strip()) and len(tag) <= LONGEST_TAG and plain(tag) == tag and not {"\n", "\t"} & set(tag)


@dataclass(frozen=True)
class Change:
    """One field's difference; both sides are plain values. `why`: the reason code of a significant one
    (`changes.why.<why>`), else empty; the operation log does not keep it."""

    field: str
    old: Any
    new: Any
    why: str = ""

    @property
    def significant(self) -> bool:
        """Whether it needs a second, separate confirmation."""
        return bool(self.why)

    def message(self, language: str | None = None) -> str:
        """The change in one line; a significant one says why it is."""
        line = f"{self.field}: {_shown(self.old)} → {_shown(self.new)}"
        return f"{line}  ⚠ {text(f'changes.why.{self.why}', language)}" if self.why else line


def _shown(value: object) -> str:
    return "–" if value in (None, "", [], ()) else str(value)


@dataclass(frozen=True)
class Actor:
    """Who did something: the account, the machine, and one of INTERFACES."""

    user: str
    host: str
    interface: str


@dataclass(frozen=True)
class Operation:
    """One entry of the operation log. The log fills in `who`, `seq` (from 1) and `time` (UTC, ISO 8601).

    `result` is "done"; or the code of the error that refused it, "export_failed" for an export that failed; of a
    repair what was mended: "head_lost", or "cut:<bytes>" for a torn line. Raises ValueError for a word not listed
    above."""

    operation: str
    run: str = ""
    version: str = ""
    changes: tuple[Change, ...] = ()
    confirmed: str = "none"
    result: str = "done"
    who: Actor = Actor("", "", "python")
    seq: int = 0
    time: str = ""

    def __post_init__(self) -> None:
        for value, known in (
            (self.operation, OPERATIONS),
            (self.confirmed, CONFIRMATIONS),
            (self.who.interface, INTERFACES),
        ):
            if value not in known:
                raise ValueError(f"{value!r}: not one of {', '.join(known)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the order in which the log writes them."""
        first = {"seq": self.seq, "time": self.time, "who": asdict(self.who)}
        changes = [{"field": each.field, "old": each.old, "new": each.new} for each in self.changes]
        return {**first, **{k: v for k, v in asdict(self).items() if k not in first}, "changes": changes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Operation:
        """The entry that `to_dict` gave. Raises KeyError, TypeError or ValueError for anything else."""
        words = {key: values[key] for key in ("operation", "run", "version", "confirmed", "result", "time")}
        who = Actor(**values["who"])
        texts = [*words.values(), who.user, who.host, who.interface]
        if type(values["seq"]) is not int or not all(isinstance(each, str) for each in texts):
            raise TypeError("an entry of the operation log has a value of another type")
        return cls(
            **words, who=who, seq=values["seq"], changes=tuple(Change(**each) for each in values["changes"])
        )


@dataclass(frozen=True)
class RunInfo:
    """One run, as lists show it.

    `state` is that of `run.json`, or "broken" when its files cannot be read: then `reason` is a code with a
    text in the locales ([runs.broken]) and `detail` the place. Of a run that has ended, `reason` says why
    (finished, early_stopped, stopped, preempted, time_up) and `detail` the error of a failed one. Times are
    UTC, ISO 8601, or ""."""

    id: str
    path: str
    task: str
    state: str
    name: str = ""
    backbone: str = ""
    dataset: str = ""
    epochs_done: int = 0
    epochs: int | None = None
    best_value: float | None = None
    best_epoch: int | None = None
    monitor: str = ""
    metrics: dict[str, float] = field(default_factory=dict)  # of the best epoch on the validation pictures
    started: str = ""
    ended: str = ""
    elapsed_s: float | None = None
    tags: tuple[str, ...] = ()
    notes: str = ""
    locked: bool = False
    parent: str = ""
    reason: str = ""
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ModelVersion:
    """A trained model that was given a number, with all that is known of its making.

    `metrics`: "valid" and "test", each name → value. `threshold`: the score above which notes count, chosen on the
    validation pictures; None for a classifier. `run` is "" for a checkpoint without a run, `code` the revision of
    the source. `sha256` and `size` (bytes) are those of `model.pth`. Times are UTC, ISO 8601, or ""."""

    number: int
    path: str
    created: str
    task: str
    backbone: str
    classes: tuple[str, ...]
    run: str
    parent: str
    checkpoint: str
    epoch: int
    config: dict[str, Any]
    config_hash: str
    data: dict[str, Any]
    code: str
    environment: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    threshold: float | None
    started: str
    ended: str
    elapsed_s: float | None
    sha256: str
    size: int
    tags: tuple[str, ...] = ()
    notes: str = ""
    locked: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How people write it: v3."""
        return f"v{self.number}"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class AliasEvent:
    """An alias was given to a version. `operation`: promote or roll-back; `seq`: its entry in the operation log."""

    version: int
    time: str
    operation: str
    seq: int


@dataclass(frozen=True)
class RunFilter:
    """Which runs: all conditions must hold; an empty one always does.

    `backbone`, `dataset` and `text` are parts of words, upper or lower case alike; `text` is looked for in id,
    name, backbone, data set, tags and notes. `bounds`: a metric's name, or "best" for the watched value →
    (least, most), either None. `since` and `until` bound the start."""

    state: str = ""
    task: str = ""
    backbone: str = ""
    dataset: str = ""
    tag: str = ""
    text: str = ""
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None

    def admits(self, run: RunInfo) -> bool:
        """Does `run` meet every condition?"""
        return (
            self.state in ("", run.state)
            and self.task in ("", run.task)
            and (not self.tag or self.tag in run.tags)
            and self.backbone.casefold() in run.backbone.casefold()
            and self.dataset.casefold() in run.dataset.casefold()
            and (not self.text or self.text.casefold() in _words(run))
            and all(_within(run, name, *limits) for name, limits in self.bounds.items())
            and (self.since is None or (bool(run.started) and _moment(run) >= self.since))
            and (self.until is None or (bool(run.started) and _moment(run) <= self.until))
        )


def _words(run: RunInfo) -> str:
    return "\n".join((run.id, run.name, run.backbone, run.dataset, *run.tags, run.notes)).casefold()


def _moment(run: RunInfo) -> datetime:
    return datetime.fromisoformat(run.started)


def _within(run: RunInfo, name: str, least: float | None, most: float | None) -> bool:
    value = run.best_value if name in ("best", run.monitor) else run.metrics.get(name)
    return value is not None and (least is None or value >= least) and (most is None or value <= most)
