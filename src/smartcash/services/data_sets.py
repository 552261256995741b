"""Data sets that are made from the page, drawn or uploaded: each below `<home>/data`, where every command can read it.

What stands there under a name is whole, and nothing that stands there is ever overwritten."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from smartcash.domain.errors import DataInvalid
from smartcash.utils.files import (
    DurableFile,
    FolderLock,
    fsync_folder,
    remove,
    slug,
    temporary_beside,
    temporary_target,
)
from smartcash.utils.machine import free_disk

ZIP = b"PK\3\4"
UNPACKED = 2  # a zip is unpacked to be read, so it may take half of what is free
STALE_S = 86_400  # nobody has written to it for so long: its maker was killed


class DataSets:
    """The data sets of one home that were made from the page. Safe to use from several threads and processes."""

    def __init__(self, home: Path) -> None:
        self.folder = home.absolute() / "data"

    def paths(self) -> list[Path]:
        """Those that are there, newest first."""
        if not self.folder.is_dir():
            return []
        there = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        found = [path for path in there if path.is_dir() or path.suffix == ".zip"]
        return sorted(found, key=lambda path: path.lstat().st_mtime, reverse=True)

    def room(self) -> int:
        """So many bytes a zip may have."""
        return free_disk(self.folder) // UNPACKED

    def begin(self, name: str) -> Path:
        """A hidden place in the folder, where nothing is yet. What others left at theirs when they were killed is swept
        away. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if temporary_target(path.name) and path.lstat().st_mtime < time.time() - STALE_S:
                self.discard(path)
        return temporary_beside(self.folder / slug(name))

    def keep(self, place: Path, name: str, suffix: str = "") -> Path:
        """Move what stands at `place` to its name: as near to `name` as is safe, with a number where that is taken.
        Raises OSError."""
        stem = slug(name)
        with FolderLock(self.folder):
            names = chain([stem], (f"{stem}-{number}" for number in count(2)))
            paths = (self.folder / f"{each}{suffix}" for each in names)
            target = next(path for path in paths if not os.path.lexists(path))
            place.rename(target)
        fsync_folder(self.folder)
        return target

    def pictures(self, place: Path) -> int:
        """How many pictures have been drawn there."""
        return sum(name.endswith(".jpg") for _, _, names in os.walk(place) for name in names)

    def discard(self, place: Path) -> None:
        """Delete what stands at `place`, if anything."""
        if place.is_dir():
            shutil.rmtree(place)
        else:
            remove(place)

    def receive(self, name: str, announced: int) -> Upload:
        """A zip of `announced` bytes (0: not told) is about to come. Raises DataInvalid."""
        return Upload(self, name, announced)


class Upload:
    """A zip that comes in pieces. `finish` keeps it; `close` leaves nothing behind of one that was not finished. Every
    method but `close` raises DataInvalid: for what is no zip, is too large, or cannot be written."""

    def __init__(self, sets: DataSets, name: str, announced: int) -> None:
        self.sets, self.name = sets, name
        self._room = sets.room()
        self._refuse_above_room(announced)
        with self._writing():
            self._place = sets.begin(name)
            self._file = DurableFile(self._place)

    def write(self, piece: bytes) -> None:
        """Take the next piece."""
        if not self._file.size and not piece.startswith(ZIP):
            raise self._no_zip()
        self._refuse_above_room(self._file.size + len(piece))
        with self._writing():
            self._file.write(piece)

    def finish(self) -> Path:
        """All has come: the path under which it is kept."""
        with self._writing():
            self._file.finish()
            if not zipfile.is_zipfile(self._place):
                raise self._no_zip()
            name = self.name.replace("\\", "/").rpartition("/")[2]
            return self.sets.keep(self._place, name[:-4] if name.lower().endswith(".zip") else name, ".zip")

    def close(self) -> None:
        self._file.close()
        self.sets.discard(self._place)

    def _refuse_above_room(self, size: int) -> None:
        if size > self._room:
            told = [f"{each / 1e6:.0f} MB" for each in (size, self._room)]
            raise DataInvalid("upload_above_room", name=self.name, size=told[0], room=told[1])

    def _no_zip(self) -> DataInvalid:
        return DataInvalid("upload_no_zip", name=self.name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            folder = str(self.sets.folder)
            raise DataInvalid("upload_unwritable", name=self.name, folder=folder, reason=reason) from error
