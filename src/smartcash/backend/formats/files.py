"""Files of a data set: what lies in its folder, and reading small text files that others wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from smartcash.backend.images import SUFFIXES
from smartcash.domain.config import yaml_problem
from smartcash.domain.errors import DataInvalid, Problem

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
MAX_TEXT_BYTES = 16 * 2**20
MAX_YAML_BYTES = 2**20
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}


class Listing:
    """A folder and all files below it, in a stable order, without hidden ones and system litter.

    `entry` is the file the user named (data.yaml, annotations.json), if it was one. From a `confined` folder
    (an unpacked zip) no path may lead outside.
    """

    def __init__(self, root: Path, entry: Path | None = None, *, confined: bool = False) -> None:
        self.root = root
        self.entry = entry
        self.confined = confined
        self.hidden = 0

    @cached_property
    def files(self) -> list[Path]:
        return list(self._walk(self.root, set()))

    @cached_property
    def images(self) -> list[Path]:
        return [path for path in self.files if path.suffix.lower() in SUFFIXES]

    def having(self, *suffixes: str) -> list[Path]:
        """Files with one of these suffixes (lower case)."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def _walk(self, folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
        """Files first, then folders, by name; symbolic links are followed, but never in a circle."""
        status = folder.stat()
        if (status.st_dev, status.st_ino) in above:
            return
        above = above | {(status.st_dev, status.st_ino)}
        folders = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: natural_key(entry.name)):
                if entry.name.startswith(".") or entry.name.lower() in _JUNK:
                    self.hidden += 1
                elif entry.is_dir():
                    folders.append(folder / entry.name)
                elif entry.is_file():
                    yield folder / entry.name
        for inner in folders:
            yield from self._walk(inner, above)


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key under which "2000" stands before "10000"."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part], name


def split_of(path: Path, root: Path) -> str | None:
    """The split that a folder between `root` and the file names, the outermost first; else None."""
    parts = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else path.parts[:-1]
    for part in parts:
        if (split := SPLIT_WORDS.get(part.casefold())) is not None:
            return split
    return None


def read_text(path: Path) -> str:
    """The text of a small file, with or without byte order mark.

    Raises ValueError when it is too large or no text, OSError when it cannot be read.
    """
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
        raise ValueError(f"{size // 2**20} MB")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in data:
            raise ValueError("binary") from None
        return data.decode("latin-1")  # class names from an old Windows tool


def read_yaml(path: Path) -> object:
    """A small YAML file in which every scalar stays the text that was written: `001`, `1.000`, `no`.

    Raises DataInvalid for anything that is not plain, small YAML (size, aliases and depth are limited).
    """
    if path.stat().st_size > MAX_YAML_BYTES:
        raise _bad_yaml(path, "> 1 MB")
    try:
        content = read_text(path)
    except ValueError as error:
        raise _bad_yaml(path, " ".join(str(error).split())[:200]) from error
    try:
        depth = aliases = 0
        for event in YAML(typ="base", pure=True).parse(content):
            depth += isinstance(event, MappingStartEvent | SequenceStartEvent)
            depth -= isinstance(event, MappingEndEvent | SequenceEndEvent)
            aliases += isinstance(event, AliasEvent)
            if depth > 20 or aliases > 100:
                raise _bad_yaml(path, "depth > 20" if depth > 20 else "aliases > 100")
        return YAML(typ="base", pure=True).load(content)
    except YAMLError as error:
        problem = yaml_problem(path.name, error, content)
        raise DataInvalid("data_yaml", [problem], path=str(path)) from error


def _bad_yaml(path: Path, reason: str) -> DataInvalid:
    return DataInvalid(
        "data_yaml", [Problem(path.name, "data_yaml_broken", None, {"reason": reason})], path=str(path)
    )
