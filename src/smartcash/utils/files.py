"""Files that are either the old one or the new one, never something in between.

Every durable write of the project goes through here: a temporary name in the same folder, fsync, rename,
fsync of the folder. Only what is done with these functions is covered by the fault tests.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import sys
import threading
import unicodedata
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from filelock import FileLock, Timeout

CHUNK = 1 << 22
# what a disk that is full or only to be read, or a folder of somebody else, answers to a write
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
_LARGE = 1 << 18
_FSYNC_THREADS = 8  # measured on ext4: 10,000 files take 1.2 s, one after the other 26 s
_DEVICE = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.ASCII | re.IGNORECASE
)  # to Windows, in any folder
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp")


def slug(label: object, limit: int = 48) -> str:
    """A label as a file name or part of one: ASCII letters, digits, `.`, `_`, `-`, at most `limit` of them, and on no
    system the name of a device."""
    ascii_text = unicodedata.normalize("NFKD", str(label)).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_text)[:limit].strip(".-_") or "unnamed"
    return f"x-{name}"[:limit] if _DEVICE.fullmatch(name) else name


def temporary_beside(path: Path) -> Path:
    """A new, hidden name in the folder of `path`; `temporary_target` recognises it again."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def temporary_target(name: str) -> str | None:
    """The file name that a temporary file was meant to become, or None if `name` is not one of ours."""
    match = _TEMPORARY.fullmatch(name)
    return match["name"] if match else None


class DurableFile:
    """A new file for writing that is fsynced by `finish` and, if `hashed`, hashed on the way. `mode`: who may read
    and write it, from its first byte on.

    Small pieces are gathered. Large ones (from 256 kB) are not copied: in a hashed file they must stay as
    they are until `finish`, because a second thread hashes them while the caller goes on. The disk starts
    every 4 MB, so that little is left for the fsync. Every method raises the OSError that the system gives.
    """

    def __init__(self, path: Path, *, hashed: bool = False, mode: int = 0o644) -> None:
        self.path = path
        self.size = 0
        self._sha256 = hashlib.sha256() if hashed else None
        self._hasher = ThreadPoolExecutor(1, "durable-file") if hashed else None
        self._gathered = bytearray()
        self._written = self._started = (
            0  # bytes given to the system, and those of them that the disk has begun
        )
        self._fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), mode)

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`; returns its length in bytes."""
        view = memoryview(data).cast("B")
        if len(view) >= _LARGE:
            self._write_gathered()
            self._put(view)
        else:
            self._gathered += view
            if len(self._gathered) >= CHUNK:
                self._write_gathered()
        self.size += len(view)
        return len(view)

    def _write_gathered(self) -> None:
        gathered, self._gathered = self._gathered, bytearray()
        self._put(memoryview(gathered))

    def _put(self, view: memoryview) -> None:
        if self._hasher is not None and self._sha256 is not None:
            self._hasher.submit(self._sha256.update, view)
        rest = view
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self._written += len(view)
        if sys.platform == "linux" and self._written - self._started >= CHUNK:  # begins, does not wait
            os.posix_fadvise(self._fd, self._started, self._written - self._started, os.POSIX_FADV_DONTNEED)
            self._started = self._written

    def finish(self) -> str:
        """Write the rest, fsync, close; returns the SHA-256 as hex ("" if not `hashed`)."""
        try:
            self._write_gathered()
            os.fsync(self._fd)
        finally:
            self.close()
        return "" if self._sha256 is None else self._sha256.hexdigest()

    def close(self) -> None:
        """Close without fsync; safe to call twice."""
        if self._hasher is not None:
            self._hasher.shutdown()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError inside the block names `path` if it names no file: a write to an open one does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o644) -> Iterator[DurableFile]:
    """`with atomic_write(path) as file: file.write(data)`: `path` appears whole and durable, or not at all.

    Raises OSError; the old file, if there was one, is then untouched and the temporary one is gone.
    """
    temporary = temporary_beside(path)
    try:
        file = DurableFile(temporary, mode=mode)
        try:
            with naming(path):
                yield file
                file.finish()
        finally:
            file.close()
        temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise
    fsync_folder(path.parent)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data`, atomically and durably."""
    with atomic_write(path, mode=mode) as file:
        file.write(data)


def copy_proven(source: BinaryIO, target: Path, sha256: str) -> bool:
    """Write the bytes of `source` in place as the file `target`, durably, and read them back from the disk.

    False, and no file, if what was read back has not this SHA-256. Raises OSError; then there is no file either.
    """
    try:
        remove(target)  # and never through a link that someone planted
        file = DurableFile(target)
        try:
            with naming(target):
                while chunk := source.read(CHUNK):
                    file.write(chunk)
                file.finish()
        finally:
            file.close()
        with target.open("rb") as written:
            forget_cached(written)
            same = sha256_of(written) == sha256
    except OSError:
        remove(target)
        raise
    if not same:
        remove(target)
    return same


def reason_of(error: Exception) -> str:
    """Why, in words: of an error of the system without its number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # FUSE mounts such as Drive cannot do it
            raise
    finally:
        os.close(fd)


def fsync_tree(folder: Path) -> None:
    """Make every file and every name below `folder` durable."""
    walked = [(Path(place), names) for place, _, names in os.walk(folder)]
    with ThreadPoolExecutor(_FSYNC_THREADS, "fsync") as pool:
        deque(pool.map(_fsync_file, (place / name for place, names in walked for name in names)), 0)
    for place, _ in walked:
        fsync_folder(place)


def _fsync_file(path: Path) -> None:
    with path.open("r+b") as file:  # Windows asks for the right to write
        os.fsync(file.fileno())


def remove(path: Path) -> bool:
    """Delete a file; False if there was none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def forget_cached(file: BinaryIO) -> None:
    """Ask the system to read an fsynced file from its disk again, so that reading back proves something."""
    if sys.platform == "linux":
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 (hex) of an open binary file from its beginning, streamed; leaves the position at the end."""
    file.seek(0)
    sha256 = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        sha256.update(view[:count])
    return sha256.hexdigest()


class FolderLock:
    """One writer per folder, among the threads of this process and among processes.

    The kernel drops the file lock with its owner, so a crash leaves no stale lock and a reused process id
    means nothing. Re-entrant. Raises TimeoutError after `timeout_s`.
    """

    def __init__(self, folder: Path, *, timeout_s: float = 600.0) -> None:
        self._threads = threading.RLock()
        self._timeout_s = timeout_s
        self._processes = FileLock(folder / ".lock", thread_local=False, poll_interval=0.005)

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def acquire(self, timeout_s: float | None = None) -> None:
        """Take the lock. Raises TimeoutError if another one holds it for `timeout_s`, or OSError."""
        patience_s = self._timeout_s if timeout_s is None else timeout_s
        late = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), self._processes.lock_file)
        if not self._threads.acquire(timeout=patience_s):
            raise late
        try:
            self._processes.acquire(timeout=patience_s)
        except Timeout:
            self._threads.release()
            raise late from None
        except BaseException:
            self._threads.release()
            raise

    def release(self) -> None:
        """Give the lock back, once per `acquire`."""
        try:
            self._processes.release()
        finally:
            self._threads.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
