"""The operation log: who did what, when, on whose word; append-only and hash-chained.

`<home>/operations.jsonl` holds one JSON object a line. Its last field `sha256` is the SHA-256 of all of the
line before that field; `previous` is the `sha256` of the line above, 64 zeros in the first. So a changed,
missing, inserted or moved line no longer fits its neighbours. `operations.head.json` beside it holds the number
of entries and the last hash, so that lines taken off the end are missed too.

What this cannot prove: the chain holds no secret. Whoever may write both files can write a whole new log, or
everything from some line on, with hashes that fit, or one more entry at the end, or delete both files. To
notice that too, keep the count and the last hash (`smartcash log verify` prints them) or an export where that
person cannot write.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from smartcash.domain.errors import OperationLogFailed
from smartcash.domain.records import Actor, Operation
from smartcash.services.event_log import finite
from smartcash.utils.files import reason_of, write_bytes
from smartcash.utils.i18n import text
from smartcash.utils.logger import get_logger

BEGINNING = "0" * 64
HEAD_LOST = "head_lost"
_SEALED = re.compile(rb'(?P<body>\{.*),"sha256":"(?P<sha256>[0-9a-f]{64})"\}')


@dataclass(frozen=True)
class Alteration:
    """The first thing wrong: line number (from 1) and one of altered, missing, inserted, reordered, cut_short,
    head_lost. Where a line was rewritten together with all hashes after it, only the last line can be named."""

    line: int
    reason: str

    def message(self, language: str | None = None) -> str:
        """What is wrong, in words."""
        return text(f"operation_log.{self.reason}", language, line=self.line)


@dataclass(frozen=True)
class Verification:
    """What `verify` found. `torn_bytes`: the beginning of an entry whose writer was killed; no alteration."""

    entries: int
    last_sha256: str
    alteration: Alteration | None
    torn_bytes: int


@dataclass(frozen=True)
class _Head:
    """The end of the log as last written: entries, hash of the last one, size in bytes."""

    count: int
    sha256: str
    size: int


@dataclass(frozen=True)
class _Line:
    """A line as read. `sound`: its own hash is right."""

    seq: int
    previous: str
    sha256: str
    sound: bool
    operation: Operation | None


class OperationLog:
    """Appends to and reads the log at `path`. Any number of processes and threads may append."""

    def __init__(self, path: Path, interface: str = "python") -> None:
        self.path = path
        self.who = Actor(_user(), platform.node(), interface)
        self._head_path = path.with_name(f"{path.stem}.head.json")
        self._lock = FileLock(path.with_name(f".{path.stem}.lock"), poll_interval=0.005)

    def append(self, operation: Operation) -> Operation:
        """Write one entry and return it with `seq`, `time` and `who`. It is on the disk when this returns.

        What a killed writer left of a line is cut off first; that is said in the program's log and in an entry of
        its own. Nothing is mended that somebody altered: `verify` goes on finding it.
        Raises OperationLogFailed when the disk refuses."""
        with _disk_errors("operation_log_unwritable", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self.path.open("a+b") as file:
                head, repaired = self._end(file)
                for what in repaired:
                    get_logger("operations").warning(
                        text("operation_log.repaired", path=self.path, what=what)
                    )
                    head, _ = self._write(file, head, Operation("repair", result=what))
                _, written = self._write(file, head, operation)
        return written

    def operations(
        self, *, run: str = "", operation: str = "", since: datetime | None = None
    ) -> list[Operation]:
        """The entries, oldest first, that concern `run` (an id), are of one kind and not older than `since`.

        A line that cannot be read is left out here and named by `verify`. Raises OperationLogFailed."""
        _, lines, _ = self._read()
        entries = (line.operation for line in lines if line.operation is not None)
        return [
            each
            for each in entries
            if run in ("", each.run)
            and operation in ("", each.operation)
            and (since is None or datetime.fromisoformat(each.time) >= since)
        ]

    def count(self) -> int:
        """How many entries there are, as last written; 0 without a head."""
        head = self._head()
        return 0 if head is None else head.count

    def verify(self) -> Verification:
        """Check every line against its own hash, its neighbours and the head. Raises OperationLogFailed."""
        head, lines, torn = self._read()
        last = lines[-1].sha256 if lines else BEGINNING
        return Verification(len(lines), last, _first_alteration(lines, head, bool(torn)), len(torn))

    def _write(self, file: BinaryIO, head: _Head, operation: Operation) -> tuple[_Head, Operation]:
        """Append one line, then the head: a kill between the two leaves one whole entry, which `_end` takes in."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = replace(operation, seq=head.count + 1, time=time, who=self.who)
        # ASCII: no encoding, no line separator of Unicode and no lone surrogate can break a line
        whole = json.dumps(finite({**entry.to_dict(), "previous": head.sha256}), separators=(",", ":"))
        body = whole[:-1].encode()
        sha256 = hashlib.sha256(body).hexdigest()
        file.write(body + f',"sha256":"{sha256}"}}\n'.encode())
        file.flush()
        os.fsync(file.fileno())
        head = _Head(entry.seq, sha256, file.seek(0, os.SEEK_END))
        self._write_head(head)
        return head, entry

    def _write_head(self, head: _Head) -> None:
        write_bytes(self._head_path, (json.dumps(asdict(head)) + "\n").encode())

    def _end(self, file: BinaryIO) -> tuple[_Head, list[str]]:
        """Where to go on, and what was repaired: a torn line, a lost head."""
        head, size = self._head(), file.seek(0, os.SEEK_END)
        repaired = []
        if head is None and size == 0:
            head = _Head(0, BEGINNING, 0)
            self._write_head(head)  # before the first line: from now on a log without a head has lost it
        elif head is None:
            file.seek(0)
            lines = file.read().split(b"\n")[:-1]
            last = _parsed(lines[-1]) if lines else None
            head = _Head(len(lines), last.sha256 if last else BEGINNING, sum(len(line) + 1 for line in lines))
            repaired.append(HEAD_LOST)
        file.seek(max(0, min(head.size, size) - 1))
        before, rest = file.read(1) if head.size else b"\n", file.read()
        if size >= head.size and before == b"\n":
            whole = rest.rfind(b"\n") + 1
            # one entry can be whole without its head; more were not written here, and stay to be found
            raw = rest[:whole].split(b"\n")[0]
            line = _parsed(raw)
            if line.sound and (line.seq, line.previous) == (head.count + 1, head.sha256):
                head = _Head(line.seq, line.sha256, head.size + len(raw) + 1)
                self._write_head(head)  # before the next line: this writer may be killed too
            if torn := len(rest) - whole:
                file.truncate(size - torn)
                repaired.append(f"cut:{torn}")
        elif size and (before + rest)[-1:] != b"\n":
            file.write(b"\n")  # the lines above were altered; their remains stay to be seen
        return head, repaired

    def _head(self) -> _Head | None:
        """The head file, or None if it is missing or not one."""
        try:
            values = json.loads(self._head_path.read_bytes())
            head = _Head(**values)
        except (FileNotFoundError, ValueError, TypeError):
            return None
        whole = type(head.count) is type(head.size) is int and isinstance(head.sha256, str)
        return head if whole and head.count >= 0 and head.size >= 0 else None

    def _read(self) -> tuple[_Head | None, list[_Line], bytes]:
        """Head, lines and torn rest that belong together, without the lock: a copy on a read-only disk is
        verified too. While a writer is between two heads it is read again."""
        with _disk_errors("operation_log_unreadable", self.path):
            while True:
                head = self._head()
                data = self.path.read_bytes() if self.path.exists() else b""
                if self._head() == head:
                    *lines, torn = data.split(b"\n")
                    return head, [_parsed(line) for line in lines], torn


def _parsed(raw: bytes) -> _Line:
    """A line as far as it can be read."""
    sealed = _SEALED.fullmatch(raw)
    sha256 = sealed["sha256"].decode() if sealed else ""
    sound = sealed is not None and hashlib.sha256(sealed["body"]).hexdigest() == sha256
    try:
        values = json.loads(raw)
        operation = Operation.from_dict(values)
        if datetime.fromisoformat(operation.time).tzinfo is None:
            raise ValueError(operation.time)
        previous = str(values["previous"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return _Line(0, "", sha256, False, None)
    return _Line(operation.seq, previous, sha256, sound, operation)


def _first_alteration(lines: Sequence[_Line], head: _Head | None, torn: bool) -> Alteration | None:
    """Follow the chain from the first line; where it breaks, the rest of the file says what happened."""
    following = defaultdict(list)  # (seq, previous) → where the entry stands that continues it
    for place, line in enumerate(lines):
        if line.sound:
            following[line.seq, line.previous].append(place)
    continued = {line.previous for line in lines if line.sound} | ({head.sha256} if head else set())
    copies = Counter(line.sha256 for line in lines)
    last = BEGINNING
    for place, line in enumerate(lines):
        number = place + 1
        wanted = following[number, last]
        if place in wanted:
            others = (lines[other] for other in wanted if other != place)
            if line.sha256 not in continued and any(other.sha256 in continued for other in others):
                return Alteration(number, "inserted")
            if line.operation and (line.operation.operation, line.operation.result) == ("repair", HEAD_LOST):
                return Alteration(number, HEAD_LOST)
            last = line.sha256
            continue
        if wanted:
            moved = line.sound and line.seq > number and copies[line.sha256] == 1
            return Alteration(number, "reordered" if moved else "inserted")
        if not line.sound:
            return Alteration(number, "altered")
        if line.seq != number:
            return Alteration(number, "missing" if line.seq > number else "inserted")
        # the right number behind the wrong line: whoever is continued is genuine
        return Alteration(max(1, place) if line.sha256 in continued else number, "altered")
    return _against_head(lines, head, torn)


def _against_head(lines: Sequence[_Line], head: _Head | None, torn: bool) -> Alteration | None:
    """Is the end of the chain the one that was written last? One entry more is a writer killed before the head."""
    count = len(lines)
    if head is None:
        return Alteration(count, HEAD_LOST) if count else None
    if head.count > count:
        return Alteration(count + 1, "cut_short" if torn else "missing")
    if head.count and lines[head.count - 1].sha256 != head.sha256:
        return Alteration(head.count, "altered")
    return Alteration(head.count + 1, "inserted") if count > head.count + 1 else None


def _user() -> str:
    """The account's name; its number where it has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


@contextmanager
def _disk_errors(code: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OperationLogFailed(code, path=str(path), reason=reason_of(error)) from error
