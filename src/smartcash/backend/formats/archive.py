"""Data sets in a zip: unpacked once into a cache folder, and only when it is safe.

An archive's folder in the cache is named by its SHA-256, so the same zip is unpacked once, and may be deleted at any
time.
"""

from __future__ import annotations

import hashlib
import re
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from smartcash.domain.errors import DataInvalid
from smartcash.utils.files import naming
from smartcash.utils.machine import cache_folder, free_disk

MAX_FILES = 500_000
MAX_BYTES = 64 * 2**30
MAX_RATIO = 200  # a picture hardly shrinks in a zip; text and bitmaps stay below this
_RATIO_FREE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20


def unpacked(path: Path) -> Path:
    """The folder with the content of the zip at `path`.

    Raises DataInvalid for names that lead outside, links, passwords, bombs and damaged archives; nothing is
    left behind then.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    target = cache_folder().resolve() / "zip" / digest[:32]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked(archive, path)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="unpacking-") as temporary:
                _extract(archive, entries, Path(temporary) / "data", path)
                try:
                    (Path(temporary) / "data").rename(target)
                except OSError:
                    if not target.is_dir():  # else another process was faster: the same content
                        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, FileExistsError) as error:
        raise DataInvalid("data_zip_broken", path=str(path), reason=str(error)) from error
    return target


def _checked(archive: zipfile.ZipFile, path: Path) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files to extract with their safe relative names, without system litter."""

    def refuse(reason: str) -> DataInvalid:
        return DataInvalid("data_zip_unsafe", path=str(path), reason=reason)

    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise refuse(f"{len(infos)} files > {MAX_FILES}")
    total = sum(info.file_size for info in infos)
    if total > MAX_BYTES or total > _RATIO_FREE_BYTES + MAX_RATIO * path.stat().st_size:
        raise refuse(f"{path.stat().st_size} → {total} bytes")
    if total > (free := free_disk(cache_folder())):
        facts = {"needed": -(-total >> 20), "free": free >> 20, "folder": str(cache_folder())}
        raise DataInvalid("data_zip_no_room", path=str(path), **facts)
    entries = []
    for info in infos:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or re.match("[A-Za-z]:", info.filename):
            raise refuse(info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise refuse(f"{info.filename} → symbolic link")
        if info.flag_bits & 1:
            raise refuse("password")
        if not info.is_dir() and "__MACOSX" not in name.parts:
            entries.append((info, name))
    return entries


def _extract(
    archive: zipfile.ZipFile, entries: list[tuple[zipfile.ZipInfo, PurePosixPath]], out: Path, path: Path
) -> None:
    """Write every file, never more bytes than it declares."""
    out.mkdir()
    for info, name in entries:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with naming(target), archive.open(info) as source, target.open("xb") as file:
            while piece := source.read(_PIECE_BYTES):
                written += len(piece)
                if written > info.file_size:
                    raise DataInvalid("data_zip_unsafe", path=str(path), reason=info.filename)
                file.write(piece)
