"""A ZIP file without compression, written in one pass, whose records can be mapped into memory."""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

ALIGNMENT = 64  # bytes; as torch.save aligns
_MANY = 0xFFFFFFFF  # "see the 64-bit field": sizes and offsets are always given there
_DATE = 0x21  # 1980-01-01, the first day that the format knows: equal content, equal bytes
_PADDING = 0x4246  # the field that torch.save pads with


class Sink(Protocol):
    """Where the bytes go; `size` is how many have gone there."""

    size: int

    def write(self, data: bytes | memoryview) -> int: ...


class StoredZip:
    """Writes records into `file`, which is empty; never seeks, so that a hash can be taken on the way.

    Every record starts at a multiple of 64 bytes and has its CRC-32. All sizes are 64-bit fields, for small
    files too: there is one form, and the tests see it.
    """

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._directory: list[bytes] = []

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Append one record; `name` is ASCII. What the sink raises goes through."""
        offset, size, path = self._file.size, len(data), name.encode("ascii")
        described = struct.pack(
            "<5H3L", 45, 0, 0, 0, _DATE, zlib.crc32(data), _MANY, _MANY
        )  # 45: a reader needs ZIP64; no flags, stored, no time
        sizes = struct.pack("<2H2Q", 1, 16, size, size)
        padding = -(offset + 30 + len(path) + len(sizes) + 4) % ALIGNMENT
        extra = sizes + struct.pack("<2H", _PADDING, padding) + bytes(padding)
        self._file.write(b"PK\3\4" + described + struct.pack("<2H", len(path), len(extra)) + path + extra)
        self._file.write(data)
        place = struct.pack("<2H3Q", 1, 24, size, size, offset)
        self._directory.append(
            b"PK\1\2" + struct.pack("<H", 45) + described
            + struct.pack("<5H2L", len(path), len(place), 0, 0, 0, 0, _MANY) + path + place
        )  # fmt: skip

    def finish(self) -> None:
        """Append the directory; nothing can be added afterwards."""
        start, count, directory = self._file.size, len(self._directory), b"".join(self._directory)
        end = struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, len(directory), start)
        locator = struct.pack("<LQL", 0, start + len(directory), 1)
        few = struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, _MANY, _MANY, 0)
        self._file.write(directory + b"PK\6\6" + end + b"PK\6\7" + locator + b"PK\5\6" + few)
