"""Model versions on the disk, and the files that bear an alias.

<home>/versions.json      the next number, each alias with its history, the numbers that were deleted
<home>/models/v3/         model.pth  version.json  labels.json: appears whole; only the labels change later
<home>/models/<alias>/    model.pth  metadata.json: the version that bears the alias now

A version's folder is made under a hidden name and renamed when everything in it is on the disk and read back.

Of an alias, `model.pth` is replaced first and `metadata.json` last, each at once. The metadata holds the SHA-256 of
its model. A reader reads the metadata, then the model, and compares: where they differ a change is under way (or its
writer was killed), and it reads both again, or takes the file that `file` in the metadata names, which lies in the
version's own folder and never changes. So nobody has to use a mixed pair.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from smartcash.domain.errors import (
    CheckpointCorrupt,
    CheckpointWriteFailed,
    RunRefused,
    VersionNotFound,
    VersionRefused,
)
from smartcash.domain.records import AliasEvent, ModelVersion
from smartcash.services.event_log import finite
from smartcash.services.labels import FILE as LABELS_FILE
from smartcash.services.labels import Labels, read_labels, write_labels
from smartcash.utils.files import (
    copy_proven,
    fsync_folder,
    reason_of,
    sha256_of,
    temporary_beside,
    temporary_target,
    write_bytes,
)
from smartcash.utils.i18n import text
from smartcash.utils.logger import get_logger

MODEL, RECORD, METADATA = "model.pth", "version.json", "metadata.json"
FORMAT = 1
_NUMBERED = re.compile(r"v?([1-9]\d{0,8})")
_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,31}")
# words that mean something else as the name of a model, and names that Windows keeps for itself
_TAKEN = re.compile(r"latest|v\d*|con|prn|aux|nul|com\d|lpt\d")
_UNFINISHED = re.compile(r"\.v\d+\.[0-9a-f]{8}")  # a version being made or taken away
_OURS = (MODEL, RECORD, METADATA, LABELS_FILE, "versions.json")  # written only while `changing` is held
_LABELS = ("tags", "notes", "locked", "aliases", "path")
_RECORDED = tuple(each.name for each in fields(ModelVersion) if each.name not in _LABELS)


@dataclass(frozen=True)
class Book:
    """What `versions.json` holds. `aliases`: oldest event first. `deleted`: number → what it was."""

    next_number: int = 1
    aliases: dict[str, tuple[AliasEvent, ...]] = field(default_factory=dict)
    deleted: dict[int, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class VersionFinding:
    """Something in the store that is not as it was written: where, and a code of [models.finding]."""

    place: str
    code: str
    facts: dict[str, str] = field(default_factory=dict)

    def message(self, language: str | None = None) -> str:
        """The finding in words, with the way out."""
        return text(f"models.finding.{self.code}", language, place=self.place, **self.facts)


def number_in(name: str) -> int | None:
    """3 for "v3" and "3", None for anything else."""
    found = _NUMBERED.fullmatch(name)
    return int(found[1]) if found else None


def _refuse_newer(path: Path, form: int) -> None:
    """Raises VersionRefused for a file of a later format."""
    if form > FORMAT:
        raise VersionRefused("version_newer", path=str(path), found=form, known=FORMAT)


def check_alias(alias: str) -> None:
    """Raises VersionRefused for a word that cannot be an alias."""
    if not _ALIAS.fullmatch(alias) or _TAKEN.fullmatch(alias):
        raise VersionRefused("alias_wrong", alias=alias)


class VersionStore:
    """The versions of one home. What changes something is called while `changing` is held."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "models"
        self._book_path = home / "versions.json"

    # reading

    def book(self) -> Book:
        """Aliases and numbers. Raises VersionRefused when the file is none of ours."""
        try:
            values = json.loads(self._book_path.read_bytes())
            _refuse_newer(self._book_path, values["format"])
            aliases = {
                a: tuple(AliasEvent(**event) for event in events) for a, events in values["aliases"].items()
            }
            deleted = {int(number): dict(facts) for number, facts in values["deleted"].items()}
            return Book(int(values["next_number"]), aliases, deleted)
        except FileNotFoundError:
            return Book()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            facts = {"path": str(self._book_path), "reason": f"{type(error).__name__}: {error}"}
            raise VersionRefused("versions_broken", **facts) from error

    def versions(self) -> list[ModelVersion]:
        """All versions, newest first. One whose record cannot be read is named in the log and left out."""
        book, found = self.book(), []
        for folder in self._folders(book):
            try:
                found.append(self._read(folder, book))
            except VersionRefused as error:
                get_logger("models").warning(str(error))
        return sorted(found, key=lambda version: version.number, reverse=True)

    def find(self, name: str) -> ModelVersion:
        """The version with this number ("v3", "3") or alias. Raises VersionNotFound, VersionRefused."""
        book = self.book()
        number = number_in(name)
        if number is None and name in book.aliases:
            number = book.aliases[name][-1].version
        if number is None or number in book.deleted or not (self._path(number) / RECORD).is_file():
            raise VersionNotFound("version_not_found", name=name, home=str(self.home))
        return self._read(self._path(number), book)

    def knows(self, name: str) -> bool:
        """Whether `name` is written like a version's, with its v (a bare number may begin a run's id), or is an
        alias."""
        return (name.startswith("v") and number_in(name) is not None) or name in self.book().aliases

    def model_file(self, version: ModelVersion) -> Path:
        """The version's `model.pth`, compared with its SHA-256. Raises CheckpointCorrupt."""
        path = Path(version.path) / MODEL
        if not _is(path, version.sha256):
            raise CheckpointCorrupt("checkpoint_hash_differs", path=str(path))
        return path

    def findings(self) -> Iterator[VersionFinding]:
        """Read every file and compare it with its hash; everything that is wrong, one after the other."""
        book = self.book()
        for folder in self._folders(book):
            try:
                version = self._read(folder, book)
            except VersionRefused as error:
                yield VersionFinding(str(folder), "record", {"reason": str(error.facts.get("reason", error))})
                continue
            if not _is(folder / MODEL, version.sha256):
                yield VersionFinding(str(folder / MODEL), "model")
        for alias in book.aliases:
            try:
                version = self.find(alias)
            except (VersionNotFound, VersionRefused):
                yield VersionFinding(str(self.folder / alias), "alias_lost", {"alias": alias})
                continue
            if not (self.is_published(alias, version) and _is(self.folder / alias / MODEL, version.sha256)):
                yield VersionFinding(
                    str(self.folder / alias), "alias", {"alias": alias, "version": version.name}
                )

    def _folders(self, book: Book) -> list[Path]:
        """The folders of all versions, oldest first; without one whose deletion a kill left undone."""
        if not self.folder.is_dir():
            return []
        numbers = {number_in(path.name) for path in self.folder.iterdir() if path.name.startswith("v")}
        return [self._path(number) for number in sorted(filter(None, numbers - set(book.deleted)))]

    def _path(self, number: int) -> Path:
        return self.folder / f"v{number}"

    def _read(self, folder: Path, book: Book) -> ModelVersion:
        """Raises VersionRefused for a record with any differing byte."""
        path = folder / RECORD
        try:
            facts = json.loads(path.read_bytes())
            if facts.pop("check") != _check(facts):
                raise ValueError(text("models.altered"))
            _refuse_newer(path, facts.pop("format"))
            facts["classes"] = tuple(facts["classes"])
            version = ModelVersion(path=str(folder), **facts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise VersionRefused("version_broken", path=str(path), reason=reason) from error
        aliases = tuple(
            alias for alias, events in book.aliases.items() if events[-1].version == version.number
        )
        try:
            labels = read_labels(folder) or Labels()
        except RunRefused as error:  # what is said of it cannot be read, so it is kept from harm
            get_logger("models").warning(str(error))
            labels = Labels(locked=True)
        return replace(version, **asdict(labels) | {"tags": tuple(labels.tags)}, aliases=aliases)

    # changing

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One change at a time over all processes; what a killed one left half done is completed or removed first.

        Raises CheckpointWriteFailed when the disk refuses the change."""
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.home / ".versions.lock", poll_interval=0.005)
            with lock:
                self._settle(self.book())
                yield

    def _settle(self, book: Book) -> None:
        for number in book.deleted:
            if self._path(number).exists():
                self._take_away(number)
        for path in self.folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path)
        for folder in (self.home, *(path for path in self.folder.iterdir() if path.is_dir())):
            for litter in folder.glob(".*.tmp"):
                if temporary_target(litter.name) in _OURS:
                    litter.unlink()
        for alias, events in book.aliases.items():
            path = self._path(events[-1].version)
            try:
                version = self._read(path, book)
                if not self.is_published(alias, version):
                    self.publish(alias, version, events[-1], self.stage(alias, version))
            # `findings` says so; other changes go on, above all those that make room on a full disk
            except (VersionRefused, CheckpointCorrupt, CheckpointWriteFailed, OSError) as error:
                get_logger("models").warning(str(error))

    def add(self, model: Path, version: ModelVersion, labels: Labels) -> ModelVersion:
        """Keep a copy of `model`, read back and compared, under the next number.

        Raises CheckpointWriteFailed."""
        book = self.book()
        # a number that is known from anywhere is not given twice, even if a kill kept `next_number` from being
        # written, or an older versions.json was put back
        given = {int(folder.name[1:]) for folder in self._folders(book)} | set(book.deleted)
        given |= {event.version for events in book.aliases.values() for event in events}
        number = max([book.next_number, *(each + 1 for each in given)])
        made = self.folder / f".v{number}.{secrets.token_hex(4)}"
        made.mkdir()
        try:
            _copy(model, made / MODEL, version.sha256)
            version = replace(version, number=number, path=str(self._path(number)))
            facts = {"format": FORMAT, **{name: getattr(version, name) for name in _RECORDED}}
            plain = json.loads(json.dumps(finite(facts)))
            write_bytes(made / RECORD, _json({**plain, "check": _check(plain)}))
            if labels != Labels():
                write_labels(made, labels)
            fsync_folder(made)
            made.rename(self._path(number))
        except BaseException:
            shutil.rmtree(made)
            raise
        fsync_folder(self.folder)
        self._write(replace(book, next_number=number + 1))
        return self._read(self._path(number), book)

    def mend(self, version: ModelVersion, model: Path) -> None:
        """Put the bytes of `model` in the place of the version's own, if those are missing or damaged."""
        path = Path(version.path) / MODEL
        if not _is(path, version.sha256):
            staged = temporary_beside(path)
            _copy(model, staged, version.sha256)
            staged.replace(path)
            fsync_folder(path.parent)

    def delete(self, version: ModelVersion, time: str) -> None:
        """Take a version away for good; its number is not given again."""
        book = self.book()
        gone = {"time": time, "run": version.run, "sha256": version.sha256}
        self._write(replace(book, deleted={**book.deleted, version.number: gone}))
        self._take_away(version.number)

    def _take_away(self, number: int) -> None:
        hidden = self.folder / f".v{number}.{secrets.token_hex(4)}"
        self._path(number).rename(hidden)
        fsync_folder(self.folder)
        shutil.rmtree(hidden)

    def label(self, version: ModelVersion, labels: Labels) -> ModelVersion:
        """Replace tags, notes and lock."""
        write_labels(Path(version.path), labels)
        return replace(version, tags=labels.tags, notes=labels.notes, locked=labels.locked)

    def stage(self, alias: str, version: ModelVersion) -> Path:
        """Lay a proven copy of the model beside the alias's own, under another name: all that can fail for want of
        room is done before anything is changed. Raises CheckpointWriteFailed, CheckpointCorrupt."""
        source = self.model_file(version)
        target = self.folder / alias / MODEL
        target.parent.mkdir(exist_ok=True)
        staged = temporary_beside(target)
        _copy(source, staged, version.sha256)
        return staged

    def give(self, alias: str, event: AliasEvent) -> None:
        """Write down that `alias` is another version's from now on."""
        book = self.book()
        events = (*book.aliases.get(alias, ()), event)
        self._write(replace(book, aliases={**book.aliases, alias: events}))

    def publish(self, alias: str, version: ModelVersion, event: AliasEvent, staged: Path) -> None:
        """Put the staged copy in its place, and last the metadata, which make it count."""
        folder = self.folder / alias
        staged.replace(folder / MODEL)
        fsync_folder(folder)
        facts = {
            "alias": alias, "version": version.number, "since": event.time, "sha256": version.sha256,
            "size": version.size, "file": f"../{version.name}/{MODEL}", "task": version.task,
            "backbone": version.backbone, "classes": list(version.classes), "threshold": version.threshold,
            "metrics": version.metrics, "run": version.run, "config_hash": version.config_hash,
            "data_hash": version.data.get("content_hash"),
        }  # fmt: skip
        write_bytes(folder / METADATA, _json(facts))

    def is_published(self, alias: str, version: ModelVersion) -> bool:
        """Whether the alias's files are those of `version`, as far as the metadata say, which are written last."""
        try:
            facts = json.loads((self.folder / alias / METADATA).read_bytes())
            return (facts["version"], facts["sha256"]) == (version.number, version.sha256)
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def _write(self, book: Book) -> None:
        facts = {
            "format": FORMAT,
            "next_number": book.next_number,
            "aliases": {alias: [asdict(event) for event in events] for alias, events in book.aliases.items()},
            "deleted": book.deleted,
        }
        write_bytes(self._book_path, _json(facts))


def _json(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()


def _check(facts: Mapping[str, Any]) -> str:
    """The SHA-256 of a record, whatever its layout."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _is(path: Path, sha256: str) -> bool:
    """Whether there is a file at `path` with this hash."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return sha256_of(file) == sha256


def _copy(source: Path, target: Path, sha256: str) -> None:
    with source.open("rb") as original:
        same = copy_proven(original, target, sha256)
    if not same:
        raise CheckpointWriteFailed("checkpoint_copy_differs", path=str(target))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """The operating system's refusals as an error of ours."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or path)
        raise CheckpointWriteFailed("versions_unwritable", path=place, reason=reason_of(error)) from error
