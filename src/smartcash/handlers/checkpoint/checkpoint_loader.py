"""Loading and validating: nothing is unpickled but plain values and tensors, nothing is used unverified."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from smartcash.domain.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUntrusted,
    CheckpointWriteFailed,
)
from smartcash.domain.records import missing_parts
from smartcash.handlers.checkpoint.checkpoint_finder import CheckpointFinder
from smartcash.handlers.checkpoint.checkpoint_history import CheckpointHistory
from smartcash.handlers.checkpoint.checkpoint_saver import Stateful, plain_key, unwrapped
from smartcash.handlers.checkpoint.checkpoint_utils import (
    CheckpointFolder,
    CheckpointInfo,
    labels_of,
    not_readable,
    open_verified,
    plain,
    plain_metrics,
    verify_file,
    writing,
)
from smartcash.utils.files import remove, sha256_of, slug, temporary_beside
from smartcash.utils.i18n import text
from smartcash.utils.machine import require_room

_REQUIRED = ("epoch", "model_state_dict")
_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "sum")
# what torch.load and zipfile raise for bytes that are not a checkpoint
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    OSError, MemoryError, OverflowError, zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip


class CheckpointLoader:
    """Reads checkpoints of one folder, and single files from anywhere."""

    def __init__(
        self,
        folder: CheckpointFolder,
        finder: CheckpointFinder,
        history: CheckpointHistory,
        logger: logging.Logger,
    ) -> None:
        self._folder = folder
        self._finder = finder
        self._history = history
        self._logger = logger

    def load(
        self,
        path: Path | None,
        device: str | torch.device | None,
        model: nn.Module | None,
        optimizer: Stateful | None,
        scheduler: Stateful | None,
        which: str | int,
        strict: bool,
    ) -> dict[str, Any]:
        """Read one checkpoint and put its states into the objects given.

        With a path, exactly that file, or the error that says what is wrong with it. Without one, the
        newest good one in the order of `which`; a damaged one is passed over, logged, and named in the
        returned `fallback_from`.
        """
        if path is not None:
            checkpoint, used, wanted = self.read(path, device), path, path
        else:
            checkpoint, used, wanted = self._first_good(which, device)
        checkpoint["path"] = used
        checkpoint["fallback_from"] = None if used == wanted else wanted
        if used != wanted:
            self._logger.warning(text("checkpoint.fallback", wanted=str(wanted), used=str(used)))
        _restore(checkpoint, used, model, optimizer, scheduler, strict, self._logger)
        self._logger.info(text("checkpoint.loaded", path=str(used), epoch=checkpoint.get("epoch")))
        if used.parent == self._folder.path and optimizer is not None:
            self._history.record_resume(used.name)
        return checkpoint

    def _first_good(
        self, which: str | int, device: str | torch.device | None
    ) -> tuple[dict[str, Any], Path, Path]:
        order = self._finder.order(which)
        if not order:
            code = "checkpoint_no_epoch" if isinstance(which, int) else "checkpoint_none"
            raise CheckpointNotFound(code, folder=str(self._folder.path), epoch=which)
        first_error: CheckpointError | None = None
        for info in order:
            try:
                return self._read_committed(info, device), info.path, order[0].path
            except (CheckpointCorrupt, CheckpointNotFound, CheckpointUntrusted) as error:
                self._logger.warning(str(error))
                first_error = first_error or error
        assert first_error is not None
        raise first_error

    def read(self, path: Path, device: str | torch.device | None = None) -> dict[str, Any]:
        """The content of one file, tensors on `device` (default: CPU), verified as far as it can be.

        With a sidecar by size and SHA-256; without one (an earlier layout, a `.pt`) by the checksums in
        the file itself. Raises CheckpointNotFound, CheckpointCorrupt or CheckpointUntrusted.
        """
        info = self._folder.info_of(path)
        if info is not None:
            return self._read_committed(info, device)
        try:
            with path.open("rb") as file:
                return read_plain(file, path, device)
        except OSError as error:
            raise not_readable(path, error) from error

    def _read_committed(self, info: CheckpointInfo, device: str | torch.device | None) -> dict[str, Any]:
        with open_verified(info) as file:
            checkpoint = read_plain(file, info.path, device, checked=True)
        self._folder.trust(info)
        return checkpoint

    # without a model

    def metadata(self, path: Path) -> dict[str, Any]:
        """The facts in the sidecar, else what the file holds besides tensors."""
        info = self._folder.info_of(path)
        if info is not None:
            return info.to_dict()
        return {key: value for key, value in self.read(path).items() if not key.endswith("_state_dict")}

    def validate(self, path: Path) -> tuple[bool, dict[str, Any]]:
        """Read the whole file; `(valid, facts)`."""
        info: dict[str, Any] = {"path": str(path), "code": "ok", "smartcash": False}
        try:
            sidecar = self._folder.info_of(path)
            checkpoint = self.read(path)
            if checkpoint.get("epoch") is None:
                raise _incomplete(checkpoint, path, "epoch")
        except CheckpointError as error:
            return False, info | {"code": error.code, "message": str(error)}
        info["proof"] = "crc" if sidecar is None else "sha256"
        info["size"], info["epoch"] = path.stat().st_size, checkpoint["epoch"]
        proof = text(f"checkpoint.proof_{info['proof']}")
        facts = {"epoch": info["epoch"], "size": info["size"] / 1e6, "proof": proof}
        missing = missing_parts(checkpoint)
        info["smartcash"] = not missing
        info["message"] = (
            text("checkpoint.valid_foreign", missing=", ".join(missing), **facts)
            if missing
            else text("checkpoint.valid", **facts)
        )
        return True, info

    # the doctor

    def doctor(self, adopt: bool) -> dict[str, Any]:
        """Verify everything, set aside what is damaged, adopt on request, complete the history."""
        folder = self._folder
        with folder.locked():
            swept = folder.sweep()
            good: list[str] = []
            unreadable: list[str] = []
            damaged: list[dict[str, str]] = []

            def set_aside(path: Path, reason: str) -> None:
                moved = folder.quarantine(path)
                damaged.append({"name": path.name, "reason": reason, "moved_to": str(moved)})
                self._logger.warning(text("checkpoint.quarantined", path=str(moved), reason=reason))

            for info in folder.infos():
                try:
                    verify_file(info)
                    good.append(info.name)
                except CheckpointCorrupt as error:
                    set_aside(info.path, str(error))
                except CheckpointNotFound as error:  # it may be whole: nothing is moved
                    unreadable.append(info.name)
                    self._logger.warning(str(error))
            for sidecar in folder.damaged_sidecars():
                set_aside(
                    sidecar.with_suffix(".pth"),
                    CheckpointCorrupt("checkpoint_sidecar_damaged", path=str(sidecar)).message(),
                )
            adopted, left = self._without_sidecar(adopt, set_aside)
            self._history.record()
        report = {
            "folder": str(folder.path),
            "writable": os.access(folder.path, os.W_OK),
            "good": good,
            "damaged": damaged,
            "unverified": unreadable + left,
            "adopted": adopted,
            "swept": swept,
            "history_rows": len(self._history.get()["runs"]),
            "healthy": not damaged and not left and not unreadable,
        }
        facts: dict[str, Any] = {key: len(value) for key, value in report.items() if isinstance(value, list)}
        return report | {"summary": text("checkpoint.doctor_summary", **facts)}

    def _without_sidecar(
        self, adopt: bool, set_aside: Callable[[Path, str], None]
    ) -> tuple[list[str], list[str]]:
        """Judge the files without a sidecar; returns the names adopted and those that stay as they are."""
        readable: list[tuple[CheckpointInfo, dict[str, Any]]] = []
        left: list[str] = []
        for info in self._folder.unverified():
            try:
                content = self.read(info.path)
            except (CheckpointUntrusted, CheckpointNotFound) as error:
                self._logger.warning(str(error))
                left.append(info.name)
            except CheckpointCorrupt as error:
                if error.code in ("checkpoint_foreign", "checkpoint_incomplete"):  # it reads well
                    self._logger.warning(str(error))
                    left.append(info.name)
                else:
                    set_aside(info.path, str(error))
            else:
                if adopt and info.path.suffix == ".pth":
                    readable.append((info, content))
                else:
                    left.append(info.name)
        numbers = self._folder.oldest_free_sequences(len(readable))
        for (info, content), number in zip(readable, numbers, strict=True):
            self._folder.adopt(_described(info, content, number))
            self._logger.info(text("checkpoint.adopted", path=str(info.path)))
        return [info.name for info, _ in readable], left

    def import_untrusted(self, path: Path) -> Path:
        """Convert in a child process, check the result here, commit it."""
        if not path.is_file():
            raise CheckpointNotFound("checkpoint_not_found", path=str(path))
        with self._folder.locked():
            target = self._folder.path / f"smartcash_imported_{slug(path.stem)}.pth"
            temporary = temporary_beside(target)
            try:
                size = path.stat().st_size
                with writing(target):
                    require_room(target.parent, size)
                _convert_in_child(path, temporary)
                with temporary.open("rb") as file:
                    content = read_plain(file, path)
                facts = _facts_of(CheckpointInfo(path=target, sequence=0, kind="latest", epoch=0), content)
                sequence = self._folder.oldest_free_sequences(1)[0]
                with temporary.open("rb") as file:
                    info = replace(
                        facts, sequence=sequence, size=temporary.stat().st_size, sha256=sha256_of(file)
                    )
                with writing(target):
                    self._folder.commit(temporary, info)
            finally:
                remove(temporary)
            self._history.record()
        return target


def _described(info: CheckpointInfo, content: Mapping[str, Any], sequence: int) -> CheckpointInfo:
    """The facts of a file that is adopted: from its content, else from its name."""
    try:
        with info.path.open("rb") as file:
            sha256, size = sha256_of(file), info.path.stat().st_size
    except OSError as error:
        raise not_readable(info.path, error) from error
    return replace(_facts_of(info, content), sequence=sequence, sha256=sha256, size=size, state="ok")


def _facts_of(info: CheckpointInfo, content: Mapping[str, Any]) -> CheckpointInfo:
    config = content.get("config")
    backbone, dataset = labels_of(config) if isinstance(config, Mapping) else (None, None)
    metrics = content.get("metrics")
    epoch, step = content.get("epoch"), content.get("step")
    written = (
        datetime.fromtimestamp(info.path.stat().st_mtime, UTC) if info.path.exists() else datetime.now(UTC)
    )
    return replace(
        info,
        epoch=epoch if isinstance(epoch, int) else info.epoch,
        step=step if isinstance(step, int) else None,
        metrics=plain_metrics(metrics) if isinstance(metrics, Mapping) else {},
        backbone=backbone or info.backbone,
        dataset=dataset or info.dataset,
        timestamp=info.timestamp or written.isoformat(timespec="milliseconds"),
    )


def _convert_in_child(source: Path, target: Path) -> None:
    """Run `convert_pickled` in a process of its own, with an empty environment. Raises CheckpointCorrupt."""
    code = f"import sys; from {__name__} import convert_pickled; convert_pickled(*sys.argv[1:])"
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", code, str(source.absolute()), str(target)],
            capture_output=True,
            text=True,
            cwd=home,
            env={"PATH": os.defpath, "HOME": home, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [str(done.returncode)]
        raise CheckpointCorrupt("checkpoint_import_failed", path=str(source), reason=lines[-1][:300])


def convert_pickled(source: str, target: str) -> None:
    """Read ANY pickled checkpoint, running what it says, and write its plain values and tensors.

    The one place of the project without `weights_only=True`; called only in the child process of
    `import_untrusted`. Entries that are not plain are left out; a pickled model becomes its state.
    """
    content = torch.load(source, map_location="cpu", weights_only=False)
    if isinstance(content, nn.Module):
        content = {"model_state_dict": content.state_dict()}
    model = content.get("model_state_dict", content.get("state_dict", content.get("model")))
    if isinstance(model, nn.Module):
        model = model.float().state_dict()
    if model is None and all(isinstance(value, torch.Tensor) for value in content.values()):
        content, model = {}, content
    clone = lambda tensor: tensor.clone()
    state: dict[str, Any] = {"epoch": 0, "imported_from": Path(source).name}
    for key, value in {**content, "model_state_dict": model}.items():
        if key in ("model", "state_dict"):
            continue
        try:
            state[key] = plain(value, str(key), clone)
        except CheckpointWriteFailed as error:
            print(error, file=sys.stderr)
    torch.save(state, target)


def read_plain(
    file: BinaryIO, path: Path, device: str | torch.device | None = None, *, checked: bool = False
) -> dict[str, Any]:
    """Read an open checkpoint without running anything in it. `checked`: its hash was already compared.

    Raises CheckpointUntrusted if it names anything but plain values and tensors, CheckpointCorrupt if it
    is not a checkpoint at all.
    """
    try:
        if not checked:
            _check_archive(file, path)
        content = torch.load(file, map_location=device or "cpu", weights_only=True)
    except _UNREADABLE as error:
        foreign = _foreign_names(file)
        if foreign:
            raise CheckpointUntrusted(
                "checkpoint_untrusted", path=str(path), names=", ".join(foreign)
            ) from error
        raise CheckpointCorrupt("checkpoint_unreadable", path=str(path), reason=_first_line(error)) from error
    if not isinstance(content, Mapping):
        raise _incomplete(content, path, ", ".join(_REQUIRED))
    missing = [key for key in _REQUIRED if content.get(key) is None]
    if "model_state_dict" in missing:
        raise _incomplete(content, path, ", ".join(missing))
    return dict(content)


def _incomplete(content: object, path: Path, missing: str) -> CheckpointCorrupt:
    """What is wrong with a file that reads well and is no checkpoint: its weights are another program's, or it has none."""
    code = "checkpoint_foreign" if _has_tensors(content) else "checkpoint_incomplete"
    return CheckpointCorrupt(code, path=str(path), missing=missing)


def _has_tensors(content: object) -> bool:
    """Whether a tensor lies anywhere in mappings and lists; without recursion, whatever is read."""
    level = [content]
    while level:
        if any(isinstance(each, torch.Tensor) for each in level):
            return True
        level = [inner for each in level for inner in _inside(each)]
    return False


def _inside(content: object) -> Iterable[object]:
    if isinstance(content, Mapping):
        return content.values()
    return content if isinstance(content, list | tuple) else ()


def _check_archive(file: BinaryIO, path: Path) -> None:
    """Compare the CRC-32 of every record, which torch.load itself does not."""
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise CheckpointCorrupt("checkpoint_not_torch", path=str(path))
    with zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:
            raise CheckpointCorrupt("checkpoint_hash_differs", path=str(path))
    file.seek(0)


def _foreign_names(file: BinaryIO) -> list[str]:
    """Names in the pickle that plain tensors do not need; found by reading its opcodes, never by running."""
    try:
        file.seek(0)
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except _UNREADABLE:
        return []


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


# --- putting states into objects ---------------------------------------------------------------------


def _restore(
    checkpoint: dict[str, Any],
    path: Path,
    model: nn.Module | None,
    optimizer: Stateful | None,
    scheduler: Stateful | None,
    strict: bool,
    logger: logging.Logger,
) -> None:
    """All or nothing when strict: everything is compared before the first object changes."""
    fitting: dict[str, Any] = {}
    if model is not None:
        fitting, report = _compared(checkpoint["model_state_dict"], unwrapped(model))
        checkpoint.update(report)
        if any(report.values()):
            facts = {key: ", ".join(map(str, names[:8])) or "–" for key, names in report.items()}
            if strict:
                raise CheckpointMismatch("checkpoint_model_mismatch", path=str(path), **facts)
            logger.warning(text("checkpoint.partly_loaded", path=str(path), loaded=len(fitting), **facts))
    checkpoint["skipped"] = []
    parts: list[tuple[str, Stateful]] = []
    for name, part in (("optimizer_state_dict", optimizer), ("scheduler_state_dict", scheduler)):
        if part is None:
            continue
        problem = _part_problem(name, part, checkpoint.get(name))
        if problem is None:
            parts.append((name, part))
        elif strict:
            raise CheckpointMismatch("checkpoint_part_mismatch", path=str(path), part=name, reason=problem)
        else:
            checkpoint["skipped"].append(name)
            logger.warning(text("checkpoint.part_skipped", path=str(path), part=name, reason=problem))
    if model is not None:
        unwrapped(model).load_state_dict(fitting, strict=False)
    for name, part in parts:
        part.load_state_dict(checkpoint[name])


def _compared(state: Mapping[str, Any], model: nn.Module) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The entries that fit `model`, under its own names, and what does not fit, by name."""
    own = {plain_key(key): (key, value) for key, value in model.state_dict().items()}
    state = {plain_key(key): value for key, value in state.items()}
    if all(key.startswith("module.") for key in state) and not any(key.startswith("module.") for key in own):
        state = {
            key.removeprefix("module."): value for key, value in state.items()
        }  # written by others, from DDP
    shapes = {
        key: f"{key} {tuple(value.shape)} → {tuple(own[key][1].shape)}"
        for key, value in state.items()
        if key in own and isinstance(value, torch.Tensor) and isinstance(own[key][1], torch.Tensor)
        and value.shape != own[key][1].shape
    }  # fmt: skip
    fitting = {own[key][0]: value for key, value in state.items() if key in own and key not in shapes}
    return fitting, {
        "missing_keys": [key for key in own if key not in state],
        "unexpected_keys": [key for key in state if key not in own],
        "mismatched_shapes": list(shapes.values()),
    }


def _part_problem(name: str, part: Stateful, state: Any) -> str | None:
    """Why `state` does not fit, or None. For optimizers: groups, their sizes, the shapes of the moments."""
    if state is None:
        return text("checkpoint.part_absent")
    if not isinstance(part, torch.optim.Optimizer):
        return None
    own, saved = part.param_groups, state["param_groups"]
    sizes = [len(group["params"]) for group in own], [len(group["params"]) for group in saved]
    if sizes[0] != sizes[1]:
        return text("checkpoint.part_groups", own=str(sizes[0]), saved=str(sizes[1]))
    parameters = [parameter for group in own for parameter in group["params"]]
    numbers = [number for group in saved for number in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        for key, value in state["state"].get(number, {}).items():
            if key in _MOMENTS and isinstance(value, torch.Tensor) and value.shape != parameter.shape:
                return text(
                    "checkpoint.part_shape",
                    moment=key,
                    saved=str(tuple(value.shape)),
                    own=str(tuple(parameter.shape)),
                )
    return None
