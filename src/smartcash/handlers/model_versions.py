"""Model versions: every finished run gets a number; aliases such as `produksi` say which number is in use.

    versions = ModelVersions()
    review = versions.check_promote(3, "produksi")      # what would change; nothing is changed yet
    versions.apply(review)                              # refuses without the token that belongs to it
    versions.served("produksi", at=moment)              # which version had the alias then
    versions.apply(versions.check_rollback("produksi"), significant=True)

What is done with an alias, and a deletion, is written to the operation log before it takes effect: a kill between the
two leaves an entry without effect, never an effect without an entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smartcash.domain.errors import (
    CheckpointMismatch,
    NotConfirmed,
    RunNotFound,
    RunNotResumable,
    SmartCashError,
    VersionNotFound,
    VersionRefused,
)
from smartcash.domain.records import AliasEvent, Change, ModelVersion, Operation, RunFilter, missing_parts
from smartcash.domain.weighing import Weighing, weighed
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.labels import Labels
from smartcash.services.run_store import RunFolder, RunStore, find_run
from smartcash.services.run_store import home as default_home
from smartcash.services.version_store import (
    Book,
    VersionFinding,
    VersionStore,
    check_alias,
)
from smartcash.utils.logger import get_logger

_ENVIRONMENT = ("smartcash", "python", "packages", "host", "platform")


@dataclass(frozen=True)
class VersionReview:
    """A change of aliases or versions before it is made. `operation`: promote, roll-back or delete; `alias`: ""
    for a delete. `token`: belongs to exactly this change as things stand now. `weighing`: the figures of the version that
    has the alias beside those of the one that is to get it; None where no version has it, or one that cannot be read."""

    operation: str
    alias: str
    version: int
    changes: list[Change]
    token: str
    weighing: Weighing | None = None

    @property
    def significant(self) -> list[Change]:
        """The changes that need a second, separate confirmation."""
        return [change for change in self.changes if change.significant]


class ModelVersions:
    """The model versions of one home (default: SMARTCASH_HOME or ./runs). `interface` names who speaks in the
    operation log: cli, python, web or notebook."""

    def __init__(self, home: Path | str | None = None, interface: str = "python") -> None:
        self.home = Path(home) if home is not None else default_home()
        self.store = VersionStore(self.home)
        self.log = OperationLog(self.home / "operations.jsonl", interface)

    # looking

    def versions(self) -> list[ModelVersion]:
        """All versions, newest first."""
        return self.store.versions()

    def find(self, name: str) -> ModelVersion:
        """The version with this number ("v3", "3") or alias; else the one that was made of the run with this id (or
        the beginning of it), folder or name, or of the "latest".

        Raises VersionNotFound, also for a run of which none or several were made, and for a name that several runs
        with versions have; RunNotFound when none of these has one."""
        try:
            return self.store.find(name)
        except VersionNotFound:
            if self.store.knows(name):
                raise
        runs = RunStore(self.home)
        try:
            run = runs.find(name).id
        except RunNotFound as error:
            if error.code != "run_ambiguous":
                raise VersionNotFound("version_not_found", name=name, home=str(self.home)) from error
            meant = {each.id for each in runs.runs() if each.id.startswith(name) or each.name == name}
            listed = ", ".join(f"{each.name} ({each.run})" for each in self.versions() if each.run in meant)
            if not listed:
                raise
            raise VersionNotFound("version_ambiguous", name=name, versions=listed) from error
        made = [each for each in self.versions() if each.run == run]
        if not made:  # its best checkpoint may be its parent's, and a version of old
            number = find_run(name, self.home).description().get("version")
            made = [each for each in self.versions() if each.number == number]
        if not made:
            raise VersionNotFound("version_of_run_none", run=run)
        if len(made) > 1:
            listed = ", ".join(each.name for each in made)
            raise VersionNotFound("version_of_run_many", run=run, versions=listed)
        return made[0]

    def aliases(self) -> dict[str, int]:
        """Each alias and the number of its version now."""
        return {alias: events[-1].version for alias, events in self.store.book().aliases.items()}

    def history(self, alias: str) -> list[AliasEvent]:
        """Everything that happened to an alias, oldest first. Raises VersionRefused for one that nobody gave."""
        return list(_events(self.store.book(), alias))

    def served(self, alias: str, at: datetime | None = None) -> int | None:
        """The number of the version that had `alias` at a moment (with its zone; default: now); None before its
        first. The version may have been deleted since. Raises VersionRefused for an alias that nobody gave."""
        until = at or datetime.now(UTC)
        passed = [event for event in self.history(alias) if datetime.fromisoformat(event.time) <= until]
        return passed[-1].version if passed else None

    def before(self, alias: str) -> int | None:
        """The number of the version that a roll back of `alias` would go to; None when there is none.

        Raises VersionRefused for an alias that nobody gave."""
        book = self.store.book()
        earlier = [number for number in _before(_events(book, alias)) if number not in book.deleted]
        return earlier[-1] if earlier else None

    def verify(self) -> list[VersionFinding]:
        """Read every file again and compare it with its hash, and the aliases' history with the operation log."""
        logged = {each.seq: each for each in self.log.operations()}
        found = list(self.store.findings())
        for alias, events in self.store.book().aliases.items():
            for event in events:
                entry = logged.get(event.seq)
                named = entry and (
                    entry.operation,
                    entry.version,
                    entry.time,
                    [c.field for c in entry.changes],
                )
                if named != (event.operation, f"v{event.version}", event.time, [f"alias.{alias}"]):
                    facts = {"alias": alias, "version": f"v{event.version}", "time": event.time}
                    found.append(VersionFinding(str(self.home / "versions.json"), "unlogged", facts))
        return found

    # adding

    def register_run(self, run: RunFolder) -> ModelVersion:
        """Make the best checkpoint of a run a version, and note its number in the run. Done again it changes
        nothing and returns the same. Raises RunNotResumable without a whole checkpoint, or a CheckpointError."""
        from smartcash.handlers.checkpoint import CheckpointManager  # torch is loaded here, not for a list

        manager = CheckpointManager(output_dir=str(run.weights), logger=get_logger("checkpoint"))
        best = manager.find_best_checkpoint()
        if best is None:
            raise RunNotResumable("run_without_checkpoint", run=run.id, folder=str(run.weights))
        version = self._add(best, manager.load_checkpoint(best), run)
        if run.description().get("version") != version.number:
            run.describe({"version": version.number})
        return version

    def register_missing(self) -> list[ModelVersion]:
        """Register every run of `missing`. One that cannot be does not keep the others from it: each such is named
        in the program's log, and the first error is raised at the end."""
        added, errors = [], []
        for name in self.missing():
            try:
                added.append(self.register_run(find_run(name, self.home)))
            except SmartCashError as error:
                get_logger("models").warning("%s: %s", name, error)
                errors.append(error)
        if errors:
            raise errors[0]
        return added

    def missing(self) -> list[str]:
        """The ids of the finished runs of this home that never became versions, oldest first; one whose version was
        deleted stays out."""
        deleted = (str(facts["run"]) for facts in self.store.book().deleted.values())
        known = {*(version.run for version in self.versions()), *deleted}
        runs = RunStore(self.home).runs(RunFilter(state="finished"), sort="id")
        return [
            run.id
            for run in runs
            if run.id not in known and RunFolder(Path(run.path)).description().get("version") is None
        ]

    def add(self, name: str) -> ModelVersion:
        """Make a version of a run (its folder, id or "latest": its best checkpoint) or of a checkpoint's file.

        Raises RunNotFound or a CheckpointError."""
        path = Path(name)
        if not path.is_file():
            return self.register_run(find_run(name, self.home))
        from smartcash.handlers.checkpoint import CheckpointManager  # torch is loaded here, not for a list

        manager = CheckpointManager(output_dir=str(path.parent), logger=get_logger("checkpoint"))
        above = path.absolute().parent.parent
        run = RunFolder(above) if (above / "run.json").is_file() else None
        return self._add(path, manager.load_checkpoint(path), run)

    def _add(self, path: Path, state: Mapping[str, Any], run: RunFolder | None) -> ModelVersion:
        missing = missing_parts(state)
        if missing:
            raise CheckpointMismatch("checkpoint_not_a_model", missing=", ".join(missing))
        with path.open("rb") as file:
            version = _described(path, state, run, hashlib.file_digest(file, "sha256").hexdigest())
        with self.store.changing():
            for known in self.store.versions():
                if known.sha256 == version.sha256:
                    self.store.mend(known, path)
                    return known
            config = version.config
            labels = Labels(tuple(config.get("tags") or ()), str(config.get("notes") or ""))
            added = self.store.add(path, version, labels)
            self.log.append(Operation("register", added.run, added.name))
        return added

    # aliases

    def check_promote(self, number: int, alias: str) -> VersionReview:
        """What giving `alias` to a version would change. Raises VersionNotFound, or VersionRefused for a word that
        cannot be an alias and for a version that has it already."""
        check_alias(alias)
        version, book = self.store.find(str(number)), self.store.book()
        events = book.aliases.get(alias, ())
        if events and events[-1].version == number:
            raise VersionRefused("alias_there", alias=alias, version=version.name)
        old = f"v{events[-1].version}" if events else None
        review = _review(book, "promote", alias, number, [Change(f"alias.{alias}", old, version.name)])
        return replace(review, weighing=self._weighing(old, version))

    def check_rollback(self, alias: str, to: int | None = None) -> VersionReview:
        """What taking `alias` back would change: to the version that had it before, or to an earlier one, `to`.

        Raises VersionRefused when nothing came before, or `to` never had the alias; VersionNotFound for a version
        that was deleted."""
        book = self.store.book()
        now = _events(book, alias)[-1].version
        before = [number for number in _before(book.aliases[alias]) if number not in book.deleted]
        if to is None and not before:
            raise VersionRefused("alias_no_earlier", alias=alias, version=f"v{now}")
        number = before[-1] if to is None else to
        version = self.store.find(str(number))
        if number == now:
            raise VersionRefused("alias_there", alias=alias, version=version.name)
        if all(event.version != number for event in book.aliases[alias]):
            raise VersionRefused("alias_never", alias=alias, version=version.name)
        change = Change(f"alias.{alias}", f"v{now}", version.name, "rollback")
        review = _review(book, "roll-back", alias, number, [change])
        return replace(review, weighing=self._weighing(f"v{now}", version))

    def check_delete(self, number: int) -> VersionReview:
        """What deleting a version would change. Raises VersionNotFound, or VersionRefused for one that is locked or
        has an alias."""
        version, book = self.store.find(str(number)), self.store.book()
        if version.locked:
            raise VersionRefused("version_locked", version=version.name)
        if version.aliases:
            raise VersionRefused("version_in_use", version=version.name, aliases=", ".join(version.aliases))
        change = Change(version.name, version.run or version.checkpoint, None, "deletion")
        return _review(book, "delete", "", number, [change])

    def apply(
        self,
        review: VersionReview,
        token: str | None = None,
        *,
        significant: bool = False,
        confirmed: str = "token",
    ) -> ModelVersion:
        """Carry out a review; returns the version that it is about.

        `token`: the one of the review, given back by whoever confirmed (default: the review's own). `significant`:
        the second confirmation, which rolling back and deleting need. `confirmed` says in the log how it was: asked,
        token or --yes. Raises NotConfirmed (a token of another change, or things have changed since; no second
        confirmation), CheckpointCorrupt for a version whose file is damaged, CheckpointWriteFailed."""
        with self.store.changing():
            now = self._again(review)
            if (review.token if token is None else token) != now.token:
                raise NotConfirmed("token_stale")
            if now.significant and not significant:
                names = ", ".join(change.field for change in now.significant)
                raise NotConfirmed("version_unconfirmed", fields=names)
            version = self.store.find(str(now.version))
            operation = Operation(now.operation, version.run, version.name, tuple(now.changes), confirmed)
            if now.operation == "delete":
                self.store.delete(version, self.log.append(operation).time)
                return version
            staged = self.store.stage(now.alias, version)
            entry = self.log.append(operation)
            event = AliasEvent(version.number, entry.time, now.operation, entry.seq)
            self.store.give(now.alias, event)
            self.store.publish(now.alias, version, event, staged)
            return self.store.find(version.name)

    def _weighing(self, old: str | None, new: ModelVersion) -> Weighing | None:
        """None where there is no old version, or none that can be read."""
        known = next((each for each in self.versions() if each.name == old), None)
        return None if known is None else weighed(known, new)

    def _again(self, review: VersionReview) -> VersionReview:
        """The same review as things stand now."""
        if review.operation == "promote":
            return self.check_promote(review.version, review.alias)
        if review.operation == "roll-back":
            return self.check_rollback(review.alias, review.version)
        return self.check_delete(review.version)

    # labels

    def tag(self, name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> ModelVersion:
        """Add and remove tags. Raises VersionNotFound, LabelsRefused."""
        return self._label("tag", name, lambda old: old.changed(add_tags=add, remove_tags=remove))

    def note(self, name: str, notes: str) -> ModelVersion:
        """Replace the notes. Raises VersionNotFound, LabelsRefused."""
        return self._label("note", name, lambda old: old.changed(notes=notes))

    def lock(self, name: str) -> ModelVersion:
        """Protect a version from being deleted. Raises VersionNotFound."""
        return self._label("lock", name, lambda old: old.changed(locked=True))

    def unlock(self, name: str) -> ModelVersion:
        """Take the protection away. Raises VersionNotFound."""
        return self._label("unlock", name, lambda old: old.changed(locked=False))

    def _label(self, operation: str, name: str, change: Callable[[Labels], Labels]) -> ModelVersion:
        number = self.find(name).name
        with self.store.changing():
            version = self.store.find(number)
            old = Labels(version.tags, version.notes, version.locked)
            new = change(old)
            if new == old:
                return version
            self.log.append(Operation(operation, version.run, version.name, old.changes_to(new)))
            return self.store.label(version, new)


def _events(book: Book, alias: str) -> tuple[AliasEvent, ...]:
    if alias not in book.aliases:
        known = ", ".join(sorted(book.aliases))
        raise VersionRefused("alias_unknown" if known else "alias_none", alias=alias, known=known)
    return book.aliases[alias]


def _before(events: Sequence[AliasEvent]) -> list[int]:
    """The versions below the present one, as a pile: a promotion lays one on top, a roll back takes off all that
    lies above the one it goes back to. So two roll backs go two versions back, not back and forth."""
    pile: list[int] = []
    for event in events:
        if event.operation == "roll-back" and event.version in pile:
            while pile[-1] != event.version:
                pile.pop()
        else:
            pile.append(event.version)
    return pile[:-1]


def _review(book: Book, operation: str, alias: str, number: int, changes: list[Change]) -> VersionReview:
    """With a token for exactly this change, as long as nothing happens to the alias in between."""
    events = [event.seq for event in book.aliases.get(alias, ())]
    whole = json.dumps([operation, alias, number, events, [[c.field, c.old, c.new] for c in changes]])
    return VersionReview(operation, alias, number, changes, hashlib.sha256(whole.encode()).hexdigest())


def _described(path: Path, state: Mapping[str, Any], run: RunFolder | None, sha256: str) -> ModelVersion:
    """What is known of a checkpoint and the run that made it, as a version that has no number yet."""
    facts = run.description() if run is not None else {}
    config, epoch = dict(state["config"]), int(state["epoch"])
    own = {name: float(value) for name, value in dict(state.get("metrics") or {}).items()}
    is_best = facts.get("best_epoch") == epoch  # what the run's end recorded is about this very checkpoint
    metrics = {
        "valid": (is_best and facts.get("valid")) or own,
        "test": (is_best and facts.get("test")) or {},
    }
    environment: dict[str, Any] = {name: facts[name] for name in _ENVIRONMENT if name in facts}
    data = dict(facts.get("data") or {"path": (config.get("data") or {}).get("path", "")})
    return ModelVersion(
        number=0, path="", created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=str(config["task"]), backbone=str(config["model"]["backbone"]), classes=tuple(state["classes"]),
        run=run.id if run is not None else "", parent=str((facts.get("parent") or {}).get("id", "")),
        checkpoint=path.name, epoch=epoch, config=config,
        config_hash=str(facts.get("resolved_hash") or facts.get("config_hash") or ""), data=data,
        code=str(facts.get("git") or ""), environment=environment or {"versions": dict(state.get("versions") or {})},
        metrics=metrics, threshold=metrics["valid"].get("threshold"),
        started=str(facts.get("started") or ""), ended=str(facts.get("ended") or ""),
        elapsed_s=facts.get("elapsed_s"), sha256=sha256, size=path.stat().st_size,
    )  # fmt: skip
