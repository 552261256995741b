"""The Training Manager: validates, shows what would change, asks for confirmation, records, and hands over.

One way for the web page, the command line, a notebook and Python:

    review = manager.check(values)                # all problems at once; every change, old → new; a token
    run = manager.apply(review)                   # refuses without the token that belongs to exactly these changes
    manager.wait_ready(run)                       # a worker has built everything and looked at the data
    manager.start(run)
    for event in manager.watch(run): ...
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock

from smartcash import __version__
from smartcash.domain.changes import FIXED_BY_WEIGHTS, Change, carried_over, changes_between
from smartcash.domain.config import TrainConfig, nested
from smartcash.domain.errors import ConfigInvalid, NotConfirmed, Problem, RunNotReady, RunNotResumable
from smartcash.domain.ports import CHANGED, Command, CommandName
from smartcash.domain.records import Change as LoggedChange
from smartcash.domain.records import Operation
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.event_log import has_stepped
from smartcash.services.run_store import RunFolder, find_run, settings_in
from smartcash.services.run_store import home as default_home
from smartcash.services.training_service import ENDED, TrainingService
from smartcash.services.workbench import backbone_problems
from smartcash.utils.files import write_bytes
from smartcash.utils.machine import (
    available_cores,
    free_disk,
    is_writable_folder,
    missing_drive,
    nearest_existing,
)

Values = TrainConfig | Mapping[str, Any] | Path | str
Run = RunFolder | str
WORKERS_PER_CORE = 4
EARLIER = 10  # configurations confirmed before that are kept: the newer ones may come to nothing
LEAST_FREE_MB = 100  # before anything is known of the size of the checkpoints


@dataclass(frozen=True)
class Review:
    """What `check` found. `config`: None when there are problems. `token`: belongs to exactly these changes from
    exactly that base; `run`: the folder of the run that would go on with them, empty for a new one."""

    config: TrainConfig | None
    problems: list[Problem]
    changes: list[Change]
    token: str
    run: str = ""
    first: bool = False  # nothing was trained or saved before, so there is nothing to compare with
    against: str = ""  # the id of the training that the changes are measured against; "": saved without one

    @property
    def ok(self) -> bool:
        """Whether it can be applied."""
        return not self.problems

    @property
    def significant(self) -> list[Change]:
        """The changes that need a second, separate confirmation."""
        return [change for change in self.changes if change.significant]


@dataclass(frozen=True)
class _Confirmed:
    """A configuration that was confirmed. `revision`: counts those of a home; `run`: the id of the run it was for, ""
    for one that was saved without a run."""

    revision: int
    config: TrainConfig
    run: str

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> _Confirmed:
        config = TrainConfig.parse(entry["config"])
        if "run" not in entry:  # of an earlier version, which kept the path of the data as it was typed
            config = config.anchored()
        return cls(int(entry["revision"]), config, str(entry.get("run", "")))

    def plain(self) -> dict[str, Any]:
        return {"revision": self.revision, "config": self.config.model_dump(mode="json"), "run": self.run}


@dataclass(frozen=True)
class _Base:
    """What a change is measured against. `revision` is another one when the base, or what was confirmed last, is;
    `run` and `first`: `against` and `first` of a review."""

    config: TrainConfig
    revision: str
    run: str = ""
    first: bool = False


class TrainingManager:
    """Decides about the trainings of one home (default: SMARTCASH_HOME or ./runs). `interface` names who speaks
    in the operation log: cli, python, web or notebook. `try_backbone`: what is wrong with the name of a backbone
    (it needs torch, so whoever has it at hand brings it; by default a worker is asked, which takes seconds)."""

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        interface: str = "python",
        try_backbone: Callable[[str], list[Problem]] = backbone_problems,
    ) -> None:
        self.home = Path(home) if home is not None else default_home()
        self.service = TrainingService(self.home)
        self.log = OperationLog(self.home / "operations.jsonl", interface)
        self._try_backbone = try_backbone
        self._confirmed = self.home / "confirmed.json"

    # configuration

    def check(self, values: Values, *, run: Run | None = None) -> Review:
        """Every problem of a configuration (a TrainConfig, nested mappings, a YAML file, or a run by its folder, id or
        name, which stands for what it was asked for), and every change against its base: the configuration of `run`,
        else the one last confirmed in this home that a training began with or that was saved by itself, else the
        defaults.

        Nothing is started or written. Does not raise for a wrong configuration. Raises RunNotResumable for a run
        that cannot go on, RunNotFound for a name that several runs have."""
        folder = None if run is None else self._resumable(run)
        named = str(folder.path) if folder else ""
        base = self._base(folder)
        try:
            config = _parsed(values, self.home)
        except ConfigInvalid as error:
            return Review(None, error.problems, [], "", named)
        problems = list(self._problems(config, folder))
        if (
            folder is None and config.model.backbone != base.config.model.backbone
        ):  # a run's own is fixed by its weights
            problems += self._try_backbone(config.model.backbone)
        changes = _changes(base, config)
        if folder is not None:
            fixed = [change for change in changes if change.field in FIXED_BY_WEIGHTS]
            facts = {"run": folder.id}
            problems += [Problem(change.field, "fixed_by_weights", change.new, facts) for change in fixed]
        token = "" if problems else _token(base.revision, config, changes)
        return Review(config, problems, changes, token, named, base.first, base.run)

    def confirmed(self) -> tuple[TrainConfig, str]:
        """The configuration last confirmed in this home, also when its training never began, and its revision; the
        defaults before there is one."""
        entries = self._entries()
        return (entries[0].config, str(entries[0].revision)) if entries else (TrainConfig(), "defaults")

    def apply(
        self, review: Review, token: str | None = None, *, significant: bool = False, confirmed: str = "token"
    ) -> RunFolder:
        """Confirm a review, make its run (or change the one that goes on) and have it prepared.

        Arguments and errors as those of `confirm`; RunNotResumable when the run has gone on meanwhile."""
        with self._confirmation(review, token, significant, confirmed) as (config, record):
            if review.run:
                folder = self._resumable(review.run)
                folder.change(config)
            else:
                facts = {"smartcash": __version__, "config_hash": config.hash(), "created": _now()}
                folder = self.service.create(config, facts)
            record(folder.id)
        if not review.run:
            self.service.prepare(folder)
        return folder

    def confirm(
        self, review: Review, token: str | None = None, *, significant: bool = False, confirmed: str = "token"
    ) -> TrainConfig:
        """Confirm a review and record it; what is done with the configuration is up to the caller.

        `token`: the one of the review, given back by whoever confirmed (default: the review's own).
        `significant`: the second confirmation, needed when there are significant changes. `confirmed` says in the
        log how it was: asked, token or --yes. Raises ConfigInvalid, NotConfirmed (stale or wrong token, missing
        second confirmation)."""
        with self._confirmation(review, token, significant, confirmed) as (config, record):
            record(self.find(review.run).id if review.run else "")
        return config

    def require_current(self, review: Review) -> None:
        """Raises NotConfirmed when a review's changes are measured against something else by now. For whoever goes on
        with it by himself and tells `started`."""
        with self._confirmation(review, None, True, ""):
            pass

    @contextmanager
    def _confirmation(
        self, review: Review, token: str | None, significant: bool, confirmed: str
    ) -> Iterator[tuple[TrainConfig, Callable[[str], None]]]:
        """Check the token; give the configuration, and what records it for a run once it is carried out."""
        if review.config is None or review.problems:
            raise ConfigInvalid(review.problems)
        self.home.mkdir(parents=True, exist_ok=True)
        with FileLock(self.home / ".confirmed.lock"):
            folder = self.find(review.run) if review.run else None
            base = self._base(folder)
            changes = _changes(base, review.config)
            wanted = _token(base.revision, review.config, changes)
            if (review.token if token is None else token) != wanted:
                raise NotConfirmed("token_stale")
            if any(change.significant for change in changes) and not significant:
                names = ", ".join(change.field for change in changes if change.significant)
                raise NotConfirmed("significant_unconfirmed", fields=names)
            config = review.config

            def record(run: str) -> None:
                asked = config if folder is None else carried_over(changes, folder.asked())
                self._record(asked, changes, run, confirmed)

            yield config, record

    def _record(self, asked: TrainConfig, changes: list[Change], run: str, confirmed: str) -> None:
        self._keep(asked, run)
        logged = tuple(LoggedChange(change.field, change.old, change.new) for change in changes)
        self.log.append(Operation("config-change", run, changes=logged, confirmed=confirmed))

    def _resumable(self, run: Run) -> RunFolder:
        """The run, if it can go on; nothing of another one may be changed. Raises RunNotResumable."""
        folder = self.find(run)
        self.service.require_resumable(folder)
        return folder

    def _base(self, folder: RunFolder | None) -> _Base:
        """What a change is measured against: a run that goes on, else the newest confirmed configuration that counts."""
        if folder is not None:
            config = folder.config()
            return _Base(config, config.hash())
        entries = self._entries()
        newest = entries[0].revision if entries else 0
        for entry in entries:
            if self._counts(entry):
                return _Base(entry.config, f"{newest}/{entry.revision}", entry.run)
        return _Base(TrainConfig(), f"{newest}/defaults", first=True)

    def _entries(self) -> list[_Confirmed]:
        """What was confirmed, newest first, back to one that counts."""
        if not self._confirmed.exists():
            return []
        known = json.loads(self._confirmed.read_text(encoding="utf-8"))
        return [_Confirmed.read(entry) for entry in (known, *known.get("earlier", ()))]

    def _counts(self, entry: _Confirmed) -> bool:
        """Whether later configurations are compared with it: one whose training never made a step, because it was
        refused or failed before, or was thrown away, is none that anybody has results of."""
        events = self.home.glob(f"*/{escape(entry.run)}/events.jsonl") if entry.run else ()
        return not entry.run or any(map(has_stepped, events))

    def _keep(self, config: TrainConfig, run: str) -> None:
        entries = self._entries()
        earlier = entries[:EARLIER]
        if not any(map(self._counts, earlier)):
            earlier += [entry for entry in entries[EARLIER:] if self._counts(entry)][:1]
        newest = _Confirmed(earlier[0].revision + 1 if earlier else 1, config, run)
        known = {**newest.plain(), "earlier": [entry.plain() for entry in earlier]}
        write_bytes(self._confirmed, (json.dumps(known, indent=1, ensure_ascii=False) + "\n").encode())

    def _problems(self, config: TrainConfig, folder: RunFolder | None) -> Iterator[Problem]:
        """What can be seen without loading anything heavy; the worker's check finds the rest."""
        if not config.data.path:
            yield Problem("data.path", "data_path_missing", "")
        elif not os.path.exists(config.data.path):  # noqa: PTH110  (a Path raises for a name that is too long)
            yield Problem("data.path", "data_path_wrong", config.data.path)
        cores = available_cores()
        if config.data.workers != "auto" and config.data.workers > WORKERS_PER_CORE * cores:
            facts = {"cores": cores, "limit": WORKERS_PER_CORE * cores}
            yield Problem("data.workers", "workers_many", config.data.workers, facts)
        if not is_writable_folder(self.home):
            nearest = {"nearest": str(nearest_existing(self.home))}
            yield Problem("home", "home_not_writable", str(self.home), nearest)
        elif (free_mb := free_disk(self.home) / 2**20) < LEAST_FREE_MB:
            short = {"free": round(free_mb), "needed": LEAST_FREE_MB, "folder": str(self.home)}
            yield Problem("checkpoint.keep_epochs", "disk_short", config.checkpoint.keep_epochs, short)
        if config.checkpoint.backup_dir:
            yield from self._backup_problems(config.checkpoint.backup_dir, folder)

    def _backup_problems(self, named: str, folder: RunFolder | None) -> Iterator[Problem]:
        target = Path(named).absolute()
        for inside in (self.home, *([] if folder is None else [folder.path])):
            if target.is_relative_to(inside.absolute()):
                yield Problem("checkpoint.backup_dir", "backup_inside", named, {"inside": str(inside)})
                return
        missing = missing_drive(target)
        if missing is not None:
            yield Problem("checkpoint.backup_dir", "backup_not_mounted", named, {"nearest": str(missing)})
        elif not is_writable_folder(target):
            nearest = {"nearest": str(nearest_existing(target))}
            yield Problem("checkpoint.backup_dir", "backup_not_writable", named, nearest)

    # running

    def wait_ready(self, run: Run, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the preparation and return the forecast (empty when the device was busy).

        Raises ConfigInvalid with every problem that the preparation found; RunNotReady when it was interrupted."""
        folder = self.find(run)
        state = self.service.wait(folder, ENDED, timeout_s)
        facts = folder.description()
        if state == "ready":
            forecast: dict[str, Any] = facts.get("forecast") or {}
            return forecast
        if facts.get("problems"):
            raise ConfigInvalid(
                [Problem(p["field"], p["code"], p["value"], p["facts"]) for p in facts["problems"]]
            )
        raise RunNotReady("run_not_ready", run=folder.id, state=state)

    def start(self, run: Run, *, confirmed: str = "none") -> None:
        """Train a run that is ready; it waits in line while the device is busy. Raises RunNotReady."""
        folder = self.find(run)
        self.service.start(folder)
        self.log.append(Operation("start", folder.id, confirmed=confirmed))

    def resume(self, run: Run, *, confirmed: str = "none") -> None:
        """Go on with a run in the background. Raises RunNotResumable."""
        folder = self.find(run)
        self.service.resume(folder)
        self.log.append(Operation("resume", folder.id, confirmed=confirmed))

    def extended(self, parent: Run, child: Run, epochs: int) -> None:
        """Record that a run was extended, as a child run."""
        before, after = self.find(parent), self.find(child)
        changes = (
            LoggedChange("parent", "", before.id),
            LoggedChange("training.epochs", before.config().training.epochs, epochs),
        )
        self.log.append(Operation("extend", after.id, changes=changes))

    def check_command(self, run: Run, name: CommandName, value: int | None) -> Review:
        """What a command with a number would change in the configuration of a run that is trained."""
        folder = self.find(run)
        return self._review_of(folder, folder.config(), nested(CHANGED[name], value))

    def check_extension(self, run: Run, epochs: int, policy: str = "rescale") -> Review:
        """What training a finished run on to `epochs` epochs in all would change, as a run of its own. `policy`: see
        `schedule.extension`. Raises RunNotResumable for a run that is not finished."""
        folder = self.find(run)
        state, own = self.service.state(folder), folder.config()
        if state != "finished":
            raise RunNotResumable("run_not_finished", run=folder.id, state=state)
        done = int(folder.description().get("epochs_done", 0))
        if epochs <= done:
            short = Problem("training.epochs", "extend_too_few", epochs, {"done": done})
            return Review(None, [short], [], "", str(folder.path))
        schedule = {"extension": policy, "extended_from": done}
        return self._review_of(folder, own, {"training": {"epochs": epochs}, "schedule": schedule})

    def extend(
        self, review: Review, token: str | None = None, *, significant: bool = False, confirmed: str = "token"
    ) -> RunFolder:
        """Make and prepare the child run of a review by `check_extension`; it is begun by `start`. Arguments and
        errors as those of `apply`."""
        if review.config is None or review.problems:
            raise ConfigInvalid(review.problems)
        config, parent = review.config, self.find(review.run)
        again = self.check_extension(parent, config.training.epochs, config.schedule.extension)
        if (review.token if token is None else token) != again.token:
            raise NotConfirmed("token_stale")
        if again.significant and not significant:
            names = ", ".join(change.field for change in again.significant)
            raise NotConfirmed("significant_unconfirmed", fields=names)
        known = parent.description()
        facts = {"smartcash": __version__, "config_hash": config.hash(), "created": _now()}
        facts |= {name: known[name] for name in ("data",) if name in known}
        child = self.service.create_child(parent, config, int(known.get("epochs_done", 0)), facts)
        logged = tuple(LoggedChange(change.field, change.old, change.new) for change in again.changes)
        changes = (LoggedChange("parent", "", parent.id), *logged)
        self.log.append(Operation("extend", child.id, changes=changes, confirmed=confirmed))
        self.service.prepare(child)
        return child

    def _review_of(self, folder: RunFolder, own: TrainConfig, over: Mapping[str, Any]) -> Review:
        """A review of a run's own configuration with `over` laid over it."""
        try:
            config = own.replaced(**over)
        except ConfigInvalid as error:
            return Review(None, error.problems, [], "", str(folder.path))
        changes = changes_between(own, config)
        return Review(config, [], changes, _token(own.hash(), config, changes), str(folder.path))

    def prepare(self, run: Run) -> None:
        """Have a run prepared again that is not active. Raises RunNotReady."""
        self.service.prepare(self.find(run))

    def resumed(self, run: Run, review: Review, how: str) -> None:
        """Record that a run went on in the foreground, with the changes of its review."""
        if review.changes:
            self.confirm(review, significant=True, confirmed=how)
        self.log.append(Operation("resume", self.find(run).id, confirmed=how))

    def command(
        self, run: Run, name: CommandName, value: int | None = None, *, confirmed: str = "none"
    ) -> None:
        """Send a command to a run that is being trained; it takes effect within one step.

        Raises RunNotReady, or ConfigInvalid for a number that the run's configuration cannot have."""
        folder = self.find(run)
        operation = {"pause": "pause", "continue": "continue"}.get(name, "stop")
        changes: tuple[LoggedChange, ...] = ()
        if name in CHANGED:
            own, operation = folder.config(), "config-change"
            differing = changes_between(own, own.replaced(**nested(CHANGED[name], value)))
            changes = tuple(LoggedChange(change.field, change.old, change.new) for change in differing)
        who = self.log.who
        self.service.send(folder, Command(name, value, f"{who.user}@{who.host} ({who.interface})"))
        self.log.append(Operation(operation, folder.id, changes=changes, confirmed=confirmed))

    def started(self, run: Run, review: Review, how: str) -> None:
        """Record that a run was begun in the foreground with a review that the user agreed to; whatever was confirmed
        for other runs since then, this one has begun."""
        folder = self.find(run)
        assert review.config is not None
        with FileLock(self.home / ".confirmed.lock"):
            self._record(review.config, review.changes, folder.id, how)
        self.log.append(Operation("start", folder.id))

    def state(self, run: Run) -> str:
        """How a run stands now."""
        return self.service.state(self.find(run))

    def watch(self, run: Run, after: int = 0) -> Iterator[dict[str, Any]]:
        """The run's events beyond number `after`, as they come, until it is no longer active."""
        return self.service.watch(self.find(run), after)

    def result(self, run: Run) -> dict[str, Any]:
        """What is recorded of a run: state, times, best epoch, figures of validation and test."""
        folder = self.find(run)
        state = self.service.state(folder)
        return {**folder.description(), "state": state}

    def find(self, run: Run) -> RunFolder:
        """The run of that id, beginning of an id, name, or folder; "latest" is the newest. Raises RunNotFound."""
        return run if isinstance(run, RunFolder) else find_run(run, self.home)


def _parsed(values: Values, home: Path) -> TrainConfig:
    if not isinstance(values, TrainConfig):
        plain = values if isinstance(values, Mapping) else settings_in(Path(values), home)
        values = TrainConfig.parse(plain)
    return values.anchored()


def _changes(base: _Base, config: TrainConfig) -> list[Change]:
    """Every difference; before anything was trained none of them breaks a comparison."""
    changes = changes_between(base.config, config)
    return [replace(change, why="") for change in changes] if base.first else changes


def _token(revision: str, config: TrainConfig, changes: list[Change]) -> str:
    """A hash of the base and of exactly these changes."""
    named = [[change.field, change.old, change.new, change.why] for change in changes]
    whole = json.dumps([revision, config.hash(), named], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
