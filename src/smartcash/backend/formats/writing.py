"""A data set into a new folder, never over or into the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from smartcash.backend.formats.known import FORMATS
from smartcash.backend.formats.model import SPLITS, DataSet, Findings, Report
from smartcash.backend.formats.reading import hash_content
from smartcash.backend.formats.splitting import GroupsBy, split_by_groups
from smartcash.domain.errors import DataInvalid


def resplit(dataset: DataSet, *, seed: int = 0, groups_by: GroupsBy = "auto") -> DataSet:
    """The same pictures split anew, 70/15/15; groups as `split_by_groups` makes them.

    Findings about the former splits are left out of the report.
    """
    findings = Findings(dataset.root)
    unique = {sample.path: sample for sample in dataset.samples}
    made = split_by_groups(
        list(unique.values()), len(dataset.classes), dataset.root, seed, findings, groups_by=groups_by
    )
    findings.add("data_split_made", dataset.root, value=seed, **{key: len(made[key]) for key in SPLITS})
    former = ("data_split", "data_image_leak")
    kept = [finding for finding in dataset.report.findings if not finding.code.startswith(former)]
    splits = {split: tuple(made[split]) for split in SPLITS if made[split]}
    return replace(
        dataset,
        splits=splits,
        report=Report((*kept, *findings.all)),
        content_hash=hash_content(dataset.root, dataset.task, dataset.classes, splits),
        split_seed=seed,
    )


def write_dataset(dataset: DataSet, out: str | Path, *, format: str | None = None) -> None:
    """Write pictures (byte for byte) and cleaned labels to `out`: YOLO for detect, a folder per class for
    classify, or the named format. Raises DataInvalid when `out` holds files or lies in the data set."""
    folder = refuse_used(dataset, out)
    folder.mkdir(parents=True, exist_ok=True)
    FORMATS[format or {"detect": "yolo", "classify": "folders"}[dataset.task]].write(dataset, folder)


def refuse_used(dataset: DataSet, out: str | Path) -> Path:
    """`out` as a whole path. Raises DataInvalid when it holds files or lies in the data set."""
    folder = Path(out).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataInvalid("data_out_used", path=str(out))
    if folder.is_relative_to(dataset.root):
        raise DataInvalid("data_out_inside", path=str(out))
    return folder
