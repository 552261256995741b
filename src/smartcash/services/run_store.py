"""Run folders: made, described, found, listed, trashed.

<home>/index.sqlite      a cache over the run folders; deleting it loses nothing
<home>/<task>/<run-id>/  asked.yaml  config.yaml  run.json  labels.json  events.jsonl  epochs.csv  train.log
                         weights/  previews/  report/
<home>/.trash/<task>/<run-id>/
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from smartcash.domain.changes import carried_over, changes_between
from smartcash.domain.config import ScheduleConfig, TrainConfig, read_yaml
from smartcash.domain.errors import ConfigInvalid, Problem, RunNotFound, RunNotResumable, RunRefused
from smartcash.domain.records import ACTIVE, OVER, Change, RunFilter, RunInfo
from smartcash.services.event_log import finite
from smartcash.services.labels import Labels, read_labels, refuse_if_locked, write_labels
from smartcash.services.run_info import found_dead, is_alive, read_run
from smartcash.utils.files import UNWRITABLE, fsync_folder, remove, write_bytes
from smartcash.utils.logger import get_logger

DATA = "data"  # the folder of a home with data sets, whatever files these hold
EXTENDING = ("extension", "extended_from")  # of the schedule: where the parent of a run ended
MOST_NAMED = 5  # runs that an error lists
ROOM_FOR_A_RECORD = 1 << 18  # bytes free; below, a disk counts as full


def home() -> Path:
    """Where runs live: `SMARTCASH_HOME`, else ./runs."""
    return Path(os.environ.get("SMARTCASH_HOME") or "runs")


def _new_folder(parent: Path) -> Path:
    """A folder that only this call has made, named by the second and four random digits."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        path = parent / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        try:
            path.mkdir()
        except FileExistsError:  # another run of this second drew the same digits
            continue
        return path


class RunFolder:
    """One run's folder. Every file in it is either whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, base: Path, config: TrainConfig, description: dict[str, Any], *, asked: TrainConfig | None = None
    ) -> RunFolder:
        """Make a folder with an id that sorts by time and never collides, and write config and description. `asked`:
        what was asked for, where `config` knows more already."""
        run = cls(_new_folder(base / config.task))
        with ExitStack() as undone:
            undone.callback(shutil.rmtree, run.path, ignore_errors=True)
            run._write_asked(asked or config)
            run.write_config(config)
            run.describe({"id": run.id, "state": "created", **description})
            undone.pop_all()
        return run

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def control(self) -> Path:
        return self.path / "control.jsonl"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the run for this process alone; the system lets go of it when the process ends, however it does.

        Raises RunNotResumable when another process holds it."""
        lock = FileLock(self.path / "run.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            pid = str(self.description().get("attempts", [{}])[-1].get("pid", "?"))
            raise RunNotResumable("run_running", run=self.id, pid=pid) from error
        try:
            yield
        finally:
            lock.release()

    def config(self) -> TrainConfig:
        """The configuration of the run, resolved once training has begun."""
        return TrainConfig.from_yaml(self.path / "config.yaml")

    def write_config(self, config: TrainConfig) -> None:
        write_bytes(self.path / "config.yaml", config.to_yaml().encode())

    def asked(self) -> TrainConfig:
        """The configuration as it was asked for, with every "auto": what to train again with. Of a run from before
        this was kept, `config`, without what it extends."""
        path = self.path / "asked.yaml"
        if path.exists():
            return TrainConfig.from_yaml(path)
        return self.config().replaced(schedule={name: getattr(ScheduleConfig(), name) for name in EXTENDING})

    def change(self, config: TrainConfig) -> None:
        """Take another configuration from now on; what it changes was asked for too."""
        if changes := changes_between(self.config(), config):
            try:
                self._write_asked(carried_over(changes, self.asked()))
            except ConfigInvalid as error:  # written by hand; the training itself does not need it
                get_logger("runs").warning("%s: %s", self.path / "asked.yaml", error)
            self.write_config(config)

    def _write_asked(self, config: TrainConfig) -> None:
        write_bytes(self.path / "asked.yaml", config.to_yaml().encode())

    def description(self) -> dict[str, Any]:
        """The facts in `run.json`."""
        facts: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return facts

    def describe(self, facts: dict[str, Any]) -> None:
        """Lay `facts` over those in `run.json`; safe with other processes that do the same."""
        with FileLock(self.path / ".run.json.lock"):
            known = self.description() if (self.path / "run.json").exists() else {}
            whole = json.dumps(finite({**known, **facts}), indent=2, ensure_ascii=False)
            write_bytes(self.path / "run.json", (whole + "\n").encode())

    def write_epochs(self, rows: list[dict[str, float | None]]) -> None:
        """All rows so far as `epochs.csv`; a column that only some rows have is blank in the others."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: "" if v is None else v for k, v in finite(row).items()} for row in rows])
        write_bytes(self.path / "epochs.csv", text.getvalue().encode())


def settings_in(path: Path, base: Path | None = None) -> dict[str, Any]:
    """The settings in a YAML file, or those that a run was asked for, whose folder this is, or what it is called
    (see `find_run`) where there is no such file or folder.

    Raises ConfigInvalid for anything else, RunNotFound for a name that several runs have."""
    if path.is_file():
        return read_yaml(path)
    run = RunFolder(path)
    if not (path / "config.yaml").is_file():
        try:
            run = find_run(str(path), base)
        except RunNotFound as error:
            if error.code != "run_not_found":
                raise
            problem = Problem(str(path), "config_or_run_unknown", facts={"home": str(base or home())})
            raise ConfigInvalid([problem]) from error
    return run.asked().model_dump(mode="json")


def find_run(name: str, base: Path | None = None) -> RunFolder:
    """The run at a path, or below `base` (default `home()`) by its id, the beginning of it, or the name that its
    configuration gives it; "latest" is the newest.

    Raises RunNotFound."""
    base = base or home()
    found = [path.parent for path in base.glob("*/*/run.json") if path.parent.parent.name != DATA]
    return RunFolder(_meant(name, found, base, read_run, anywhere=True))


def _meant(
    name: str, folders: Sequence[Path], base: Path, read: Callable[[Path], RunInfo], *, anywhere: bool
) -> Path:
    """The folder among `folders` that a person means by `name`: the newest for "latest", the one of exactly this
    id, the one at this path (`anywhere`: it need not be among them), the only one whose id begins so, the only one
    that is named so; of a run and those that it was extended to, the last.

    Raises RunNotFound."""
    if name == "latest" and folders:
        return max(folders, key=lambda path: path.name)
    matching = [path for path in folders if name and path.name == name]
    if not matching and name and os.path.isfile(f"{name}/run.json"):  # noqa: PTH113  (a Path raises for a long name)
        matching = [path for path in folders if path.resolve() == Path(name).resolve()]
        if not matching and anywhere:
            return Path(name)
    elif not matching and name:
        matching = [path for path in folders if path.name.startswith(name)]
        if len(matching) != 1:
            named = [(path, run) for path in folders if (run := read(path)).name == name]
            extended = {run.parent for _, run in named}
            matching = [path for path, run in named if run.id not in extended] or matching
    if not matching and os.path.isfile(name):  # noqa: PTH113  (as above)
        raise RunNotFound("run_is_a_file", name=name)
    if len(matching) > 1:
        newest = sorted((path.name for path in matching), reverse=True)[:MOST_NAMED]
        runs = ", ".join(newest) + (", …" if len(matching) > MOST_NAMED else "")
        raise RunNotFound("run_ambiguous", name=name, home=str(base), count=len(matching), runs=runs)
    if not matching:
        raise RunNotFound("run_not_found", name=name, home=str(base))
    return matching[0]


# what a list can be sorted by → the value; None sorts last either way round
SORTS: dict[str, Callable[[RunInfo], Any]] = {
    "id": lambda run: run.id,
    "name": lambda run: run.name.casefold() or None,
    "task": lambda run: run.task,
    "state": lambda run: run.state,
    "backbone": lambda run: run.backbone or None,
    "dataset": lambda run: run.dataset.casefold() or None,
    "epochs": lambda run: run.epochs_done,
    "best": lambda run: run.best_value,
    "started": lambda run: run.started or None,
    "ended": lambda run: run.ended or None,
    "elapsed": lambda run: run.elapsed_s,
}

# told of a run and its changes once nothing stands in the way of a change, before anything is changed
Record = Callable[[RunInfo, tuple[Change, ...]], object]


def _unrecorded(run: RunInfo, changes: tuple[Change, ...]) -> None:
    """Nobody keeps a log."""


# inode, mtime_ns and size of run.json; until the run has ended also of epochs.csv
_Stamp = tuple[int, int, int]
_Key = tuple[_Stamp | None, _Stamp | None]


class RunStore:
    """All runs below `home`: listed, found, labelled, trashed. Safe to use from several threads and processes.

    The folders are the truth. A folder is read again when its `run.json` (of a run that has not ended also
    `epochs.csv`) has another time, size or inode than it had; labels written by hand show after `rebuild`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.trash_folder = home / ".trash"
        self._index = _Index(home / "index.sqlite")
        self._known: dict[str, tuple[_Key, RunInfo]] | None = None
        self._threads = threading.RLock()

    def runs(
        self, wanted: RunFilter | None = None, *, sort: str = "-id", limit: int | None = None, offset: int = 0
    ) -> list[RunInfo]:
        """The runs that `wanted` admits, by one of SORTS ("-" before it: falling); newest first by default.

        Raises KeyError for another `sort`."""
        ordered = _ordered(self._all(), wanted, sort)
        return ordered[offset : None if limit is None else offset + limit]

    def find(self, name: str) -> RunInfo:
        """The run with this id, folder, beginning of an id, or name; "latest" is the newest. Raises RunNotFound."""
        return self._one(name, self._all())

    def label(
        self,
        name: str,
        record: Record = _unrecorded,
        *,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        notes: str | None = None,
        locked: bool | None = None,
    ) -> RunInfo:
        """Change tags, notes or lock of a run and return it; `record` is not called when nothing changes. Raises
        RunNotFound, LabelsRefused, or RunRefused if its labels cannot be read."""
        with self._changing():
            run = self.find(name)
            old = read_labels(Path(run.path)) or Labels(run.tags, run.notes, run.locked)
            new = old.changed(add_tags=add_tags, remove_tags=remove_tags, notes=notes, locked=locked)
            if new != old:
                record(run, old.changes_to(new))
                write_labels(Path(run.path), new)
            return replace(run, tags=new.tags, notes=new.notes, locked=new.locked)

    def trash(self, name: str, record: Record = _unrecorded) -> RunInfo:
        """Move a run's folder to the trash; returns the run as it lies there.

        Raises RunNotFound, or RunRefused for a run that is at work or locked."""
        with self._changing():
            run = self.find(name)
            source = Path(run.path)
            refuse_if_locked(source)
            if is_alive(source):
                raise RunRefused("run_at_work", run=run.id)
            # the folder it lies in, not the task that its files name: those may say anything
            return self._move(run, self.trash_folder / source.parent.name / source.name, record)

    def trashed(self, wanted: RunFilter | None = None, *, sort: str = "-id") -> list[RunInfo]:
        """Like `runs`, in the trash."""
        found = [read_run(path) for path in self.trash_folder.glob("*/*") if path.is_dir()]
        return _ordered(found, wanted, sort)

    def find_trashed(self, name: str) -> RunInfo:
        """Like `find`, in the trash. Raises RunNotFound."""
        return self._one(name, self.trashed())

    def restore(self, name: str, record: Record = _unrecorded) -> RunInfo:
        """Move a run back from the trash. Raises RunNotFound, or RunRefused if its place is taken."""
        with self._changing():
            run = self.find_trashed(name)
            source = Path(run.path)
            return self._move(run, self.home / source.parent.name / source.name, record)

    def empty_trash(self, only: Collection[str] | None = None, record: Record = _unrecorded) -> list[RunInfo]:
        """Delete the runs with the ids `only` (default: everything) in the trash for good; returns what is gone."""
        with self._changing():
            gone = [run for run in self.trashed() if only is None or run.id in only]
            for run in gone:
                record(run, ())
                shutil.rmtree(run.path)
            return gone

    def rebuild(self) -> int:
        """Throw the index away and read every folder anew; returns the number of runs."""
        with self._threads:
            self._index.delete()
            self._known = {}
            return len(self._all())

    def _one(self, name: str, runs: Iterable[RunInfo]) -> RunInfo:
        by_folder = {Path(run.path): run for run in runs}
        return by_folder[_meant(name, list(by_folder), self.home, by_folder.__getitem__, anywhere=False)]

    def _move(self, run: RunInfo, target: Path, record: Record) -> RunInfo:
        if target.exists():
            raise RunRefused("run_place_taken", path=str(target))
        record(run, ())
        source = Path(run.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        fsync_folder(target.parent)
        fsync_folder(source.parent)
        return read_run(target)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time over all processes: labels are read, changed and written back."""
        if not self.home.is_dir():
            raise RunNotFound("run_not_found", name="", home=str(self.home))
        with FileLock(self.home / ".runs.lock", poll_interval=0.005):
            yield

    def _all(self) -> list[RunInfo]:
        """Every run as its folder says now; what has not changed is taken from memory or the index."""
        with self._threads:
            known = self._index.load() if self._known is None else self._known
            now: dict[str, tuple[_Key, RunInfo]] = {}
            changed = []
            for path in self._folders():
                old = known.get(path)
                described = _stamp(path + "/run.json")
                if (
                    old is not None
                    and old[0][0] == described
                    and old[1].state != "broken"
                    and (old[1].state in OVER or old[0][1] == _stamp(path + "/epochs.csv"))
                ):
                    now[path] = old
                elif described is not None or (Path(path) / "config.yaml").exists():
                    progress = _stamp(
                        path + "/epochs.csv"
                    )  # before reading: a change meanwhile shows next time
                    now[path] = (described, progress), read_run(Path(path))
                    if old != now[path]:
                        changed.append(path)
            gone = [path for path in known if path not in now]
            if changed or gone:
                self._index.save({path: now[path] for path in changed}, gone)
            self._known = now
            return [_as_it_stands(run) for _, run in now.values()]

    def _folders(self) -> Iterator[str]:
        """The paths of all folders that may be runs."""
        if not self.home.is_dir():
            return
        with os.scandir(self.home) as tasks:
            for task in tasks:
                if not task.name.startswith(".") and task.name != DATA and task.is_dir():
                    with os.scandir(task.path) as runs:
                        for run in runs:
                            if not run.name.startswith(".") and run.is_dir():
                                yield run.path


def _as_it_stands(run: RunInfo) -> RunInfo:
    """A run whose worker has died is written down as crashed by whoever notices; where nothing can be written, a list
    says so all the same."""
    folder = Path(run.path)
    if run.state not in ACTIVE or _takes_writes(folder):
        return run
    return replace(run, state="crashed") if found_dead(folder) else run


def _takes_writes(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= ROOM_FOR_A_RECORD


def _ordered(runs: Iterable[RunInfo], wanted: RunFilter | None, sort: str) -> list[RunInfo]:
    """The runs that `wanted` admits, by one of SORTS; those without the value come last, newest first."""
    value = SORTS[sort.removeprefix("-")]
    found = [run for run in runs if wanted is None or wanted.admits(run)]
    found.sort(key=lambda run: run.id, reverse=True)
    known = [run for run in found if value(run) is not None]
    known.sort(key=value, reverse=sort.startswith("-"))
    return [*known, *(run for run in found if value(run) is None)]


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116  (a Path for each of 20,000 files takes 40 ms)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


_PATH, _TAGS = ([each.name for each in fields(RunInfo)].index(name) for name in ("path", "tags"))


class _Index:
    """What the run folders held when they were last read, in SQLite. Only a cache: whatever is wrong with the
    file, it is as if it were empty; where it cannot be written, it stays as it is."""

    SCHEMA = 1

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, tuple[_Key, RunInfo]]:
        """Folder → key and run; empty if there is no index, or one that is damaged or of another version."""
        if not self.path.exists():
            return {}
        try:
            with closing(sqlite3.connect(self.path)) as db:
                if not self._is_ours(db):
                    return {}
                rows = db.execute("SELECT place, facts, crc FROM runs").fetchall()
            return dict(self._row(*row) for row in rows)
        except (sqlite3.Error, ValueError, TypeError):
            self.delete()
            return {}

    def save(self, changed: Mapping[str, tuple[_Key, RunInfo]], gone: Iterable[str]) -> None:
        """Write what has changed. Another process that is writing for long, or a folder without permission,
        leaves the index as it is: what it lacks is read from the folders again."""
        rows = []
        for path, (key, run) in changed.items():
            facts = json.dumps([key, astuple(replace(run, path=""))]).encode()
            rows.append((self._place(path), facts, zlib.crc32(facts)))
        try:
            with closing(sqlite3.connect(self.path)) as db, db:
                if not self._is_ours(db):
                    db.execute("DROP TABLE IF EXISTS runs")
                    db.execute("CREATE TABLE runs (place BLOB PRIMARY KEY, facts BLOB, crc INTEGER)")
                    db.execute(f"PRAGMA user_version = {self.SCHEMA}")
                db.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", rows)
                db.executemany("DELETE FROM runs WHERE place = ?", [(self._place(path),) for path in gone])
        except sqlite3.Error as error:
            get_logger("runs").debug("%s: %s", self.path, error)

    def delete(self) -> None:
        """Remove the index, if it is there and this account may."""
        try:
            remove(self.path)
            remove(self.path.with_name(f"{self.path.name}-journal"))
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            get_logger("runs").debug("%s: %s", self.path, error)

    def _is_ours(self, db: sqlite3.Connection) -> bool:
        return bool(db.execute("PRAGMA user_version").fetchone()[0] == self.SCHEMA)

    def _place(self, path: str) -> bytes:
        """The folder as bytes, from `home` on: names need not be text, and the home may be moved."""
        return os.fsencode(os.path.relpath(path, self.path.parent))

    def _row(self, place: bytes, facts: bytes, crc: int) -> tuple[str, tuple[_Key, RunInfo]]:
        if zlib.crc32(facts) != crc:
            raise ValueError(place)
        (described, progress), values = json.loads(facts)
        path = values[_PATH] = f"{self.path.parent}{os.sep}{os.fsdecode(place)}"
        values[_TAGS] = tuple(values[_TAGS])
        key = (described and tuple(described), progress and tuple(progress))
        return path, (key, RunInfo(*values))
