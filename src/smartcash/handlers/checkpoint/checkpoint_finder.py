"""Finding and filtering: reads sidecars only; a path that is returned was verified."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smartcash.handlers.checkpoint.checkpoint_utils import CheckpointFolder, CheckpointInfo
from smartcash.utils.i18n import text


class CheckpointFinder:
    """Questions to one folder. "Newest" is always by sequence, never by a clock."""

    def __init__(self, folder: CheckpointFolder, logger: logging.Logger) -> None:
        self._folder = folder
        self._logger = logger

    def best(self) -> Path | None:
        """The newest checkpoint marked best that verifies; if there is none, the newest that verifies."""
        info, skipped = self._folder.newest_good(self.order("best"))
        if info is not None and info.kind != "best":
            self._logger.warning(text("checkpoint.no_best", path=str(info.path), skipped=len(skipped)))
        return self._path(info)

    def latest(self) -> Path | None:
        """The newest checkpoint of any kind that verifies."""
        return self._path(self._folder.newest_good(self.order("latest"))[0])

    def by_epoch(self, epoch: int) -> Path | None:
        """The newest checkpoint of that epoch that verifies."""
        of_epoch = [info for info in self.order("latest") if info.epoch == epoch]
        return self._path(self._folder.newest_good(of_epoch)[0])

    def order(self, which: str | int) -> list[CheckpointInfo]:
        """What to try, one after the other: for "best", "latest" or an epoch number; then the older ones."""
        newest_first = self._folder.infos()[::-1]
        if which == "latest":
            return newest_first
        if which == "best":
            wanted = [info for info in newest_first if info.kind == "best"]
            return wanted + [info for info in newest_first if info.kind != "best"]
        if isinstance(which, int):
            wanted = [info for info in newest_first if info.epoch == which]
            oldest = wanted[-1].sequence if wanted else 0
            return wanted + [info for info in newest_first if info.sequence < oldest] if wanted else []
        raise ValueError(f'which={which!r}: choose "best", "latest" or an epoch number')

    def all(self) -> list[CheckpointInfo]:
        """Every checkpoint, newest first; files without a sidecar come last, with state "unverified"."""
        return self._folder.everything()[::-1]

    def filter(
        self,
        backbone: str | None,
        dataset: str | None,
        min_epoch: int | None,
        max_epoch: int | None,
        kind: str | None,
        min_metrics: Mapping[str, float] | None,
        max_metrics: Mapping[str, float] | None,
    ) -> list[CheckpointInfo]:
        """Committed checkpoints that meet every condition given, newest first."""
        found = self._folder.infos()[::-1]
        if backbone is not None:
            names = _same({info.backbone for info in found}, backbone)
            found = [info for info in found if info.backbone in names]
        if dataset is not None:
            names = _same({info.dataset for info in found}, dataset)
            found = [info for info in found if info.dataset in names]
        if kind is not None:
            found = [info for info in found if info.kind == kind]
        if min_epoch is not None or max_epoch is not None:
            lowest, highest = min_epoch or 0, math.inf if max_epoch is None else max_epoch
            found = [info for info in found if info.epoch is not None and lowest <= info.epoch <= highest]
        for name, bound in (min_metrics or {}).items():
            found = [info for info in found if _number(info.metrics.get(name)) >= bound]
        for name, bound in (max_metrics or {}).items():
            found = [info for info in found if _number(info.metrics.get(name)) <= bound]
        return found

    def _path(self, info: CheckpointInfo | None) -> Path | None:
        if info is None and (unverified := self._folder.unverified()):
            self._logger.warning(
                text("checkpoint.only_unverified", count=len(unverified), path=str(self._folder.path))
            )
        return None if info is None else info.path


def _same(labels: set[str | None], wanted: str) -> set[str | None]:
    return {label for label in labels if label is not None and label.casefold() == wanted.casefold()}


def _number(value: Any) -> float:
    """NaN, which meets no bound, for what is not a number."""
    return float(value) if isinstance(value, int | float) else float("nan")
