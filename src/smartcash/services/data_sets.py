"""Data sets that are made from the page, drawn, uploaded or split: each below `<home>/data`, where every command can
read it.

What stands there under a name is whole, and nothing that stands there is ever overwritten."""

from __future__ import annotations

import math
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import psutil

from smartcash.domain.errors import DataInvalid
from smartcash.services.run_store import DATA
from smartcash.utils.files import (
    DurableFile,
    FolderLock,
    fsync_folder,
    fsync_tree,
    reason_of,
    remove,
    slug,
    temporary_beside,
    temporary_target,
)
from smartcash.utils.machine import cache_folder, nearest_existing

ZIP = b"PK\3\4"
SHARE = 2  # half of what is free may be taken: trainings and what unpacks a zip need room too
TEXTS = (".txt", ".yaml")  # of a data set: its labels and its description
PICTURE_BYTES = 30_000  # of a disk that a drawn picture and its label take; measured: 26.5 kB on ext4
STALE_S = 86_400  # nobody has written to it for so long: its maker was killed


class DataSets:
    """The data sets of one home that were made from the page. Safe to use from several threads and processes. What
    makes one raises DataInvalid for all that the disk answers to a write."""

    def __init__(self, home: Path) -> None:
        self.folder = home.absolute() / DATA

    def paths(self) -> list[Path]:
        """Those that are there, newest first."""
        if not self.folder.is_dir():
            return []
        there = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        found = [path for path in there if path.is_dir() or path.suffix == ".zip"]
        return sorted(found, key=_last_written, reverse=True)

    def room(self) -> int | None:
        """So many bytes a new data set may have; None: the drive does not say how large it is."""
        return _room(self.folder)

    def upload_room(self) -> tuple[int | None, Path]:
        """So many bytes a zip may have, and the folder whose disk says so: it is kept in one, and unpacked into the
        cache, which may lie on another disk."""
        rooms = [(_room(folder), folder) for folder in (self.folder, cache_folder().absolute())]
        return min(rooms, key=lambda each: math.inf if each[0] is None else each[0])

    def begin(self, name: str) -> Path:
        """A hidden place in the folder, where nothing is yet. What others left at theirs when they were killed is swept
        away."""
        with self.writing(name):
            self.folder.mkdir(parents=True, exist_ok=True)
            oldest = time.time() - STALE_S
            hidden = [path for path in self.folder.iterdir() if temporary_target(path.name)]
            if stale := [path for path in hidden if _last_written(path) < oldest]:
                with FolderLock(self.folder):  # of two that sweep one finds nothing
                    for path in stale:
                        self.discard(path)
        return temporary_beside(self.folder / slug(name))

    def begin_drawing(self, name: str, images: int) -> Path:
        """A hidden place for so many drawn pictures. Raises DataInvalid also when there is no room for them."""
        self._refuse_above_room("samples_above_room", images * PICTURE_BYTES, name=name, images=images)
        return self.begin(name)

    def check_copy(self, name: str, size: int) -> None:
        """Raises DataInvalid when a data set of `size` bytes that is to have exactly this name finds something in its
        place, or no room."""
        self.target(name)
        self._refuse_above_room("split_above_room", size, name=name)

    def target(self, name: str) -> Path:
        """Where a data set of exactly this name will stand, as near to `name` as is safe. Raises DataInvalid when
        something stands there."""
        path = self.folder / slug(name)
        if os.path.lexists(path):
            raise DataInvalid("data_set_exists", path=str(path))
        return path

    def keep(self, place: Path, name: str, suffix: str = "", *, numbered: bool = True) -> Path:
        """Move what stands at `place` to its name: as near to `name` as is safe; where that is taken, with a number if
        it may be `numbered`. All of it is on the disk before it has the name."""
        stem = slug(name)
        with self.writing(name):
            if place.is_dir():
                fsync_tree(place)
            with FolderLock(self.folder):
                if numbered:
                    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
                    paths = (self.folder / f"{each}{suffix}" for each in names)
                    target = next(path for path in paths if not os.path.lexists(path))
                else:
                    target = self.target(name)
                place.rename(target)
            fsync_folder(self.folder)
        return target

    def pictures(self, place: Path) -> int:
        """How many pictures stand there."""
        return sum(not name.endswith(TEXTS) for _, _, names in os.walk(place) for name in names)

    def discard(self, place: Path) -> None:
        """Delete what stands at `place`, if anything."""
        if place.is_dir():
            shutil.rmtree(place)
        elif os.path.lexists(place):  # a disk that can only be read refuses to delete even what is not there
            remove(place)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """What the disk answers to a write inside the block is said of the data set `name`."""
        try:
            yield
        except OSError as error:
            raise self.unwritable(name, reason_of(error)) from error

    def unwritable(self, name: str, reason: str) -> DataInvalid:
        return DataInvalid("data_set_unwritable", name=name, folder=str(self.folder), reason=reason)

    def _refuse_above_room(self, code: str, needed: int, **facts: str | int) -> None:
        room = self.room()
        if room is not None and needed > room:
            sizes = {"size": _megabytes(needed), "room": _megabytes(room), "folder": str(self.folder)}
            raise DataInvalid(code, None, **facts, **sizes)

    def receive(self, name: str, announced: int) -> Upload:
        """A zip of `announced` bytes (0: not told) is about to come. Raises DataInvalid."""
        return Upload(self, name, announced)


class Upload:
    """A zip that comes in pieces. `finish` keeps it; `close` leaves nothing behind of one that was not finished. Every
    method but `close` raises DataInvalid: for what is no zip, is too large, or cannot be written."""

    def __init__(self, sets: DataSets, name: str, announced: int) -> None:
        self.sets, self.name = sets, name
        self._room, self._tight = sets.upload_room()
        self._refuse_above_room(announced)
        self._place = sets.begin(name)
        with sets.writing(name):
            self._file = DurableFile(self._place)

    def write(self, piece: bytes) -> None:
        """Take the next piece."""
        if not self._file.size and not piece.startswith(ZIP):
            raise self._no_zip()
        self._refuse_above_room(self._file.size + len(piece))
        with self.sets.writing(self.name):
            self._file.write(piece)

    def finish(self) -> Path:
        """All has come: the path under which it is kept."""
        with self.sets.writing(self.name):
            self._file.finish()
        if not zipfile.is_zipfile(self._place):
            raise self._no_zip()
        name = self.name.replace("\\", "/").rpartition("/")[2]
        return self.sets.keep(self._place, name[:-4] if name.lower().endswith(".zip") else name, ".zip")

    def close(self) -> None:
        self._file.close()
        self.sets.discard(self._place)

    def _refuse_above_room(self, size: int) -> None:
        if self._room is not None and size > self._room:
            told = [_megabytes(each) for each in (size, self._room)]
            raise DataInvalid(
                "upload_above_room", name=self.name, size=told[0], room=told[1], folder=str(self._tight)
            )

    def _no_zip(self) -> DataInvalid:
        return DataInvalid("upload_no_zip", name=self.name)


def _room(folder: Path) -> int | None:
    """The part of the free disk of `folder` that may be taken, bytes; None: it does not say how large it is."""
    disk = psutil.disk_usage(str(nearest_existing(folder)))
    return int(disk.free) // SHARE if disk.total else None


def _last_written(path: Path) -> float:
    """When something was last written there, s since 1970. What has gone meanwhile, kept or discarded, is not old."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return math.inf


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
