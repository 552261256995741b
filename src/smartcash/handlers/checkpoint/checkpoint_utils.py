"""What the other checkpoint files share: names, the sidecar, the folder with its index, plain values.

A checkpoint is two files. `<name>.pth` holds the state; `<name>.json`, the sidecar, is written last and is
the commit mark: without a valid one a `.pth` does not count. Everything that only needs facts (listing,
filtering, choosing) reads sidecars and never unpickles.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel
from rich.table import Table

from smartcash.domain.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointWriteFailed,
)
from smartcash.utils.files import (
    DurableFile,
    FolderLock,
    fsync_folder,
    reason_of,
    remove,
    sha256_of,
    slug,
    temporary_beside,
    temporary_target,
    write_bytes,
)
from smartcash.utils.i18n import text

_Stamp = tuple[tuple[int, int, int], ...]
FORMAT = 1
KINDS = ("best", "latest", "epoch")
HISTORY_NAME = "training_history.yaml"
QUARANTINE = "quarantine"
_SIDECAR_LIMIT = 1 << 20  # bytes; ours have about 1,000
_SEQUENCE = re.compile(r"_\d{8}_\d{6}_(\d{6,})\.(?:pth|json)$")
_DELETING = ".deleting-"
_EARLIER_NAME = re.compile(
    r"smartcash_(?P<labels>.+?)_(?P<kind>best|latest|epoch)(?:(?:_epoch)?_(?P<epoch>\d{1,7}))?_(?P<time>\d{8}_\d{6})(?:_-?\d+)?"
)


# --- names -------------------------------------------------------------------------------------------


def checkpoint_name(
    backbone: str | None, dataset: str | None, kind: str, epoch: int, timestamp: str, sequence: int
) -> str:
    """`smartcash_{backbone}_{dataset}_{kind}[_epoch_{n}]_{YYYYmmdd_HHMMSS}_{sequence}.pth`; only a label."""
    when = re.sub(r"[-:]", "", timestamp[:19]).replace("T", "_")
    number = f"_epoch_{epoch}" if kind == "epoch" else ""
    labels = f"{slug(backbone or 'unknown')}_{slug(dataset or 'unknown')}"
    return f"smartcash_{labels}_{kind}{number}_{when}_{sequence:06d}.pth"


# --- plain values ------------------------------------------------------------------------------------


def config_mapping(config: object) -> dict[str, Any]:
    """A configuration as plain values: a `TrainConfig` (or another pydantic model), a mapping, or None."""
    if config is None:
        return {}
    if isinstance(config, BaseModel):
        return config.model_dump(mode="json")
    if isinstance(config, Mapping):
        return dict(config)
    raise CheckpointWriteFailed("checkpoint_not_plain", where="config", kind=type(config).__qualname__)


def labels_of(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Backbone and data set that a configuration names.

    `model.backbone`; `data.source`, else `data.name`, else the last part of `data.path`.
    """
    model, data = (
        part if isinstance(part, Mapping) else {} for part in (config.get("model"), config.get("data"))
    )
    path = data.get("path")
    dataset = data.get("source") or data.get("name") or (PurePath(str(path)).name if path else None)
    backbone = model.get("backbone")
    return (str(backbone) if backbone else None), (str(dataset) if dataset else None)


def plain_number(value: object) -> object:
    """numpy scalars and tensors of one element become Python numbers; anything else stays."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.detach().cpu().item()
    return value


_LEAVES = frozenset(
    (
        type(None), bool, int, float, complex, str, bytes, bytearray,
        torch.dtype, torch.device, torch.Size,
    )
)  # fmt: skip


class _NotPlain(Exception):
    """Something that is neither a plain value nor a tensor; `where` grows on the way up."""

    def __init__(self, value: object) -> None:
        self.kind = type(value).__qualname__
        self.where: list[str] = []


def plain(value: Any, where: str, copy: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A copy of `value` that holds plain Python values and tensors only; `copy` copies a tensor.

    Raises CheckpointWriteFailed that names the place of anything else, so that what is written can always
    be read with `weights_only=True`.
    """
    try:
        with torch.no_grad():
            return _plain(value, copy)
    except _NotPlain as error:
        place = ".".join([where, *error.where])
        raise CheckpointWriteFailed("checkpoint_not_plain", where=place, kind=error.kind) from None


def _plain(value: Any, copy: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    # 4,000 values in an AdamW state of efficientnet_b4, while the training waits: hence no path is built
    # unless something is wrong
    kind = type(value)
    if kind is torch.Tensor:
        return copy(value)
    if kind in _LEAVES:
        return value
    key: Any = ""
    try:
        if kind is dict:
            copied: Any = {}
            for key, item in value.items():
                copied[key if type(key) in _KEYS else _plain_key(key)] = _plain(item, copy)
            return copied
        if kind in (list, tuple, set):
            items: list[Any] = []
            for item in value:
                key = len(items)
                items.append(_plain(item, copy))
            return kind(items)
        if isinstance(value, Counter):
            return Counter(_plain(dict(value), copy))
        if isinstance(value, OrderedDict):  # a model's state: `_metadata` has the versions of its layers
            copied = OrderedDict()
            for key, item in value.items():
                copied[key] = _plain(item, copy)
            copied.__dict__.update(_plain(dict(value.__dict__), copy))
            return copied
        if isinstance(value, Mapping):
            return _plain(dict(value), copy)
    except _NotPlain as error:
        if key != "":
            error.where.insert(0, str(key))
        raise
    if isinstance(value, torch.Tensor):
        return copy(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PurePath):
        return str(value)
    raise _NotPlain(value)


_KEYS = frozenset((type(None), bool, int, float, str, bytes, tuple))


def _plain_key(key: object) -> object:
    key = plain_number(key)
    if type(key) not in _KEYS:
        raise _NotPlain(key)
    return key


def plain_metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metrics as JSON has them: numbers, text, None, and lists and mappings of them."""

    def convert(value: Any, where: str) -> Any:
        value = plain_number(value)
        if type(value) in (type(None), bool, int, float, str):
            return value
        if isinstance(value, Mapping):
            return {str(key): convert(item, f"{where}.{key}") for key, item in value.items()}
        if isinstance(value, torch.Tensor | np.ndarray):
            return value.tolist()
        if isinstance(value, list | tuple):
            return [convert(item, f"{where}.{position}") for position, item in enumerate(value)]
        raise CheckpointWriteFailed("checkpoint_not_plain", where=where, kind=type(value).__qualname__)

    converted: dict[str, Any] = convert(metrics or {}, "metrics")
    return converted


_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: Any) -> Any:
    """Replace numbers that JSON does not have by "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


# --- the sidecar -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """The facts of one checkpoint, as its sidecar has them.

    `sequence` grows with every save in the folder and is what "newest" means; clocks are only labels.
    `size` is in bytes, `sha256` is that of the `.pth`. `state` is "ok" for a committed checkpoint and
    "unverified" for a file without a sidecar (an earlier layout), whose other facts come from its name.
    """

    path: Path
    sequence: int
    kind: str
    epoch: int | None
    step: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    monitor: str | None = None
    mode: str | None = None
    value: float | None = None
    backbone: str | None = None
    dataset: str | None = None
    run_id: str | None = None
    timestamp: str = ""
    size: int = 0
    sha256: str = ""
    format: int = FORMAT
    versions: dict[str, str] = field(default_factory=dict)
    state: str = "ok"

    @property
    def name(self) -> str:
        """The file name of the `.pth`."""
        return self.path.name

    @property
    def sidecar(self) -> Path:
        """The path of the sidecar."""
        return self.path.with_suffix(".json")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        facts = asdict(self)
        facts["path"] = str(self.path)
        converted: dict[str, Any] = to_json(facts)
        return converted


_SIDECAR_FIELDS = tuple(f.name for f in fields(CheckpointInfo) if f.name not in ("path", "state"))


def sidecar_bytes(info: CheckpointInfo) -> bytes:
    """The sidecar of `info`: one JSON object; `check` is the SHA-256 of all that is before it."""
    facts = {"checkpoint": info.name, **{name: to_json(getattr(info, name)) for name in _SIDECAR_FIELDS}}
    return _checked(facts)


def _checked(facts: dict[str, Any]) -> bytes:
    body = json.dumps(facts, allow_nan=False)
    return f'{body[:-1]}, "check": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()


def read_sidecar(path: Path) -> CheckpointInfo:
    """Read and check one sidecar. Raises FileNotFoundError, CheckpointCorrupt for any differing bit, or CheckpointMismatch
    for a whole one of a later format: whoever takes that for damaged would set good files aside."""
    with path.open("rb") as file:
        data = file.read(_SIDECAR_LIMIT)
    try:
        facts = json.loads(data)
        del facts["check"]
        whole = _checked(facts) == data
        if whole and facts["format"] > FORMAT:
            raise CheckpointMismatch("checkpoint_newer", path=str(path), found=facts["format"], known=FORMAT)
        if not whole or facts.pop("checkpoint") != f"{path.stem}.pth" or set(facts) != set(_SIDECAR_FIELDS):
            raise CheckpointCorrupt("checkpoint_sidecar_damaged", path=str(path))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointCorrupt("checkpoint_sidecar_damaged", path=str(path)) from error
    facts["metrics"] = from_json(facts["metrics"])
    return CheckpointInfo(path=path.with_suffix(".pth"), **facts)


@contextmanager
def open_verified(info: CheckpointInfo) -> Iterator[BinaryIO]:
    """The open `.pth` of `info`, after comparing its size and SHA-256 with the sidecar on disk.

    The hash is taken from the very file handle that is given, so nothing can be exchanged in between.
    Raises CheckpointNotFound or CheckpointCorrupt.
    """
    try:
        on_disk = read_sidecar(info.sidecar)
        with info.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != on_disk.size:
                facts = {"path": str(info.path), "size": size, "expected": on_disk.size}
                raise CheckpointCorrupt("checkpoint_size_differs", **facts)
            if sha256_of(file) != on_disk.sha256:
                raise CheckpointCorrupt("checkpoint_hash_differs", path=str(info.path))
            file.seek(0)
            yield file
    except OSError as error:
        raise not_readable(info.path, error) from error


def verify_file(info: CheckpointInfo) -> None:
    """Raise CheckpointNotFound or CheckpointCorrupt unless the file is the one that was written."""
    with open_verified(info):
        pass


# --- errors of the operating system ------------------------------------------------------------------

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


def write_failed(path: Path, error: OSError) -> CheckpointWriteFailed:
    """The named error for an OSError while writing `path`."""
    if error.errno in _NO_SPACE:
        return CheckpointWriteFailed("checkpoint_disk_full", path=str(path), reason=str(error.strerror))
    if error.errno in _NO_PERMISSION:
        return CheckpointWriteFailed("checkpoint_no_permission", path=str(path), reason=str(error.strerror))
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return CheckpointWriteFailed("checkpoint_not_a_folder", path=str(path))
    return CheckpointWriteFailed("checkpoint_write_failed", path=str(path), reason=reason_of(error))


def not_readable(path: Path, error: OSError) -> CheckpointNotFound:
    """The named error for an OSError while reading `path`: it may be whole, but cannot be had now."""
    if isinstance(error, FileNotFoundError):
        return CheckpointNotFound("checkpoint_not_found", path=str(path))
    return CheckpointNotFound("checkpoint_forbidden", path=str(path), reason=str(error.strerror))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into the CheckpointWriteFailed that names `path`."""
    try:
        yield
    except OSError as error:
        raise write_failed(path, error) from error


# --- the folder --------------------------------------------------------------------------------------


class _Index(NamedTuple):
    names: set[str]  # of all files in the folder
    facts: dict[str, CheckpointInfo | None]  # by sidecar name; None: damaged
    ordered: list[CheckpointInfo]  # the good ones, oldest first
    loose: list[str]  # checkpoint files without a good sidecar


class CheckpointFolder:
    """One folder of checkpoints: what is committed in it, and the steps that add and remove.

    `infos` is answered from an index in memory that one `listdir` keeps true (sidecars are never changed
    in place); it can always be rebuilt. Nothing here holds tensors.
    """

    def __init__(self, path: Path, logger: logging.Logger) -> None:
        self.path = path
        self.logger = logger
        self.lock = FolderLock(path)
        self._index = _Index(set(), {}, [], [])  # replaced as one
        self._verified: dict[str, _Stamp] = {}  # checkpoint name → what stat said when it was verified

    def create(self) -> None:
        """Make the folder. Raises CheckpointWriteFailed."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Make the folder and remove the litter of a crash, unless someone is writing in it just now.

        A folder that only can be read is no obstacle: what is in it can be listed and loaded.
        """
        self.create()
        try:
            self.lock.acquire(0)
        except OSError:
            return
        try:
            removed = self.sweep()
        except OSError as error:
            self.logger.warning(
                text("checkpoint.litter_stays", path=str(self.path), reason=str(error.strerror))
            )
        else:
            if removed:
                self.logger.info(text("checkpoint.swept", names=", ".join(removed)))
        finally:
            with writing(self.path):
                self.lock.release()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one that changes this folder. Raises CheckpointWriteFailed if it cannot be had."""
        self.create()
        with writing(self.path):
            self.lock.acquire()
        try:
            yield
        finally:
            with writing(self.path):
                self.lock.release()

    # what is there

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self.path))  # noqa: PTH208  (20,000 names: 8 ms, as Paths 40 ms)
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise CheckpointNotFound("checkpoint_folder_unreadable", path=str(self.path)) from error

    def infos(self) -> list[CheckpointInfo]:
        """Every committed checkpoint, oldest first."""
        return list(self._look().ordered)

    def _look(self) -> _Index:
        """The index as the folder now is; two listings of 20,000 names that agree cost 10 ms."""
        names, index = self._names(), self._index
        if names == index.names:
            return index
        sidecars = {n for n in names if n.endswith(".json") and n[0] != "." and f"{n[:-5]}.pth" in names}
        facts = {name: index.facts[name] for name in sidecars & index.facts.keys()}
        for name in sidecars - index.facts.keys():
            try:
                facts[name] = self._read(name)
            except OSError as error:  # perhaps only now: look again next time
                path, names = self.path / name, set()
                self.logger.warning(text("checkpoint.unreadable", path=str(path), reason=str(error.strerror)))
        ordered = sorted((info for info in facts.values() if info is not None), key=lambda i: i.sequence)
        loose = [
            name
            for name in names
            if name[0] != "." and name.endswith((".pth", ".pt"))
            and (name.endswith(".pt") or facts.get(f"{name[:-4]}.json") is None)
        ]  # fmt: skip
        self._index = _Index(names, facts, ordered, loose)
        return self._index

    def _read(self, name: str) -> CheckpointInfo | None:
        try:
            return read_sidecar(self.path / name)
        except CheckpointCorrupt as error:
            self.logger.warning(str(error))
            return None

    def unverified(self) -> list[CheckpointInfo]:
        """Files without a valid sidecar: of an earlier layout, or whose sidecar was lost; oldest first."""
        found = [_facts_from_name(self.path / name) for name in self._look().loose]
        return sorted(found, key=lambda info: (info.timestamp, info.name))

    def everything(self) -> list[CheckpointInfo]:
        """Committed and unverified checkpoints, oldest first, the unverified before all."""
        ordered = self.infos()
        return self.unverified() + ordered if self._index.loose else ordered

    def info_of(self, path: Path) -> CheckpointInfo | None:
        """The facts of the `.pth` at `path`, in any folder; None without a sidecar.

        Raises CheckpointCorrupt.
        """
        try:
            return replace(read_sidecar(path.with_suffix(".json")), path=path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise not_readable(path, error) from error

    def damaged_sidecars(self) -> list[Path]:
        """Sidecars that cannot be read, and those whose `.pth` is gone."""
        names = self._names()
        committed = {info.sidecar.name for info in self.infos()}
        named = {info.path.with_suffix(".json").name for info in self.unverified()}
        ours = {n for n in names - committed if n.startswith("smartcash_") and n.endswith(".json")}
        return [self.path / n for n in sorted(ours | (named & names))]

    def oldest_free_sequences(self, count: int) -> range:
        """Numbers for checkpoints that are older than every committed one. With the lock held."""
        first = min([info.sequence for info in self.infos()], default=1)
        return range(first - count, first)

    def next_sequence(self) -> int:
        """One more than the highest sequence in use. Call it with the lock held.

        File names count too: the sidecar of the newest may be damaged.
        """
        numbers = [info.sequence for info in self.infos()]
        numbers += [int(match[1]) for name in self._names() if (match := _SEQUENCE.search(name))]
        return max(numbers, default=0) + 1

    # is it whole

    def verify(self, info: CheckpointInfo) -> None:
        """Raise CheckpointCorrupt or CheckpointNotFound unless size and SHA-256 agree with the sidecar.

        A file that was verified before and whose size, modification time and inode are the same is not
        read again.
        """
        stamp = self._stamp(info)
        if stamp is not None and self._verified.get(info.name) == stamp:
            return
        verify_file(info)
        self.trust(info, stamp)

    def trust(self, info: CheckpointInfo, stamp: _Stamp | None = None) -> None:
        """Remember that the file, as it now is, was verified (or written) by this process."""
        stamp = stamp or self._stamp(info)
        if stamp is not None:
            self._verified[info.name] = stamp

    @staticmethod
    def _stamp(info: CheckpointInfo) -> _Stamp | None:
        try:
            stats = info.path.stat(), info.sidecar.stat()
        except OSError:
            return None
        return tuple((stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats)

    def newest_good(
        self, candidates: Iterable[CheckpointInfo]
    ) -> tuple[CheckpointInfo | None, list[CheckpointInfo]]:
        """The first of `candidates` that verifies, and those before it that did not (each is logged)."""
        skipped: list[CheckpointInfo] = []
        for info in candidates:
            try:
                self.verify(info)
            except CheckpointError as error:
                self.logger.warning(str(error))
                skipped.append(info)
            else:
                return info, skipped
        return None, skipped

    # changes, all with the lock held

    def commit(self, temporary: Path, info: CheckpointInfo) -> None:
        """Give the finished, fsynced `temporary` its name, and its sidecar, the commit mark. Raises OSError.

        The temporary sidecar is durable before the first rename: a crash between the two leaves proof of
        whose file it is, and `sweep` completes the save.
        """
        sidecar = temporary_beside(info.sidecar)
        try:
            file = DurableFile(sidecar)
            file.write(sidecar_bytes(info))
            file.finish()
            temporary.replace(info.path)
            sidecar.replace(info.sidecar)
        except OSError:
            remove(sidecar)
            remove(info.path)
            raise
        fsync_folder(self.path)
        self.trust(info)

    def adopt(self, info: CheckpointInfo) -> None:
        """Write the sidecar of a `.pth` that is already in its place. Raises CheckpointWriteFailed."""
        with writing(info.sidecar):
            write_bytes(info.sidecar, sidecar_bytes(info))

    def delete(self, infos: Iterable[CheckpointInfo]) -> list[Path]:
        """Delete checkpoints; returns the paths that are really gone. Raises CheckpointWriteFailed.

        The sidecar is renamed to a marker first: from then on the checkpoint does not count, and a crash
        leaves a marker that the next start finishes.
        """
        gone = []
        for info in infos:
            with writing(info.path):
                marker = self.path / f"{_DELETING}{info.path.stem}.json"
                info.sidecar.replace(marker)
                remove(info.path)
                remove(marker)
            self._verified.pop(info.name, None)
            gone.append(info.path)
        if gone:
            with writing(self.path):
                fsync_folder(self.path)
        return gone

    def sweep(self) -> list[str]:
        """Finish or remove what a crashed save or cleanup left, nothing else; returns the names removed."""
        removed = []
        names = self._names()
        for name in sorted(names):
            target = temporary_target(name)
            if target is not None and target.endswith(".json"):
                removed += self._settle(name, target)
            elif target is not None:
                removed += [name] if remove(self.path / name) else []
            elif name.startswith(_DELETING):
                stem = name[len(_DELETING) : -len(".json")]
                removed += [n for n in (f"{stem}.pth", name) if remove(self.path / n)]
        if removed:
            fsync_folder(self.path)
        return removed

    def _settle(self, name: str, target: str) -> list[str]:
        """A save that stopped between its two renames: complete it if its file is whole, else undo it."""
        temporary, sidecar = self.path / name, self.path / target
        checkpoint = sidecar.with_suffix(".pth")
        if checkpoint.exists() and not sidecar.exists():
            temporary.replace(sidecar)
            try:
                verify_file(read_sidecar(sidecar))
            except (CheckpointCorrupt, CheckpointNotFound):
                return [n for n in (sidecar.name, checkpoint.name) if remove(self.path / n)]
            fsync_folder(self.path)
            return []
        return [name] if remove(temporary) else []

    def quarantine(self, path: Path) -> Path:
        """Move a damaged file and its sidecar into `quarantine/`; returns the new path."""
        folder = self.path / QUARANTINE
        with writing(folder):
            folder.mkdir(exist_ok=True)
            target = folder / path.name
            number = 1
            while target.exists():
                target = folder / f"{path.stem}.{number}{path.suffix}"
                number += 1
            if path.with_suffix(".json").exists():
                path.with_suffix(".json").replace(target.with_suffix(".json"))
            if path.exists():
                path.replace(target)
            fsync_folder(folder)
            fsync_folder(self.path)
        return target


def checkpoint_table(infos: Iterable[CheckpointInfo], folder: Path) -> Table:
    """The checkpoints as a table for terminal and notebook."""
    table = Table(title=text("checkpoint.table_title", path=str(folder)), title_justify="left")
    for column in ("number", "kind", "epoch", "value", "size", "file"):
        right = column in ("number", "epoch", "size")
        table.add_column(
            text(f"checkpoint.column_{column}"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=column != "file",
        )
    for info in infos:
        verified = info.state == "ok"
        table.add_row(
            str(info.sequence) if verified else "–",
            text(f"checkpoint.kind_{info.kind}" if verified else "checkpoint.state_unverified"),
            "–" if info.epoch is None else str(info.epoch),
            "–" if info.value is None else f"{info.monitor} {info.value:.4g}",
            f"{info.size / 1e6:.1f} MB",
            info.name,
            style="bold green" if verified and info.kind == "best" else None,
        )
    return table


def _facts_from_name(path: Path) -> CheckpointInfo:
    match = _EARLIER_NAME.fullmatch(path.stem)
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    if match is None:
        return CheckpointInfo(path=path, sequence=0, kind="latest", epoch=None, size=size, state="unverified")
    backbone, _, dataset = match["labels"].rpartition("_")
    day, clock = match["time"].split("_")
    when = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
    return CheckpointInfo(
        path=path,
        sequence=0,
        kind=match["kind"],
        epoch=int(match["epoch"]) if match["epoch"] else None,
        backbone=backbone or None,
        dataset=dataset or None,
        timestamp=when,
        size=size,
        state="unverified",
    )
