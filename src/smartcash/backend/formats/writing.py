"""A data set into a new folder, never over or into the original."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

from smartcash.backend.formats.known import FORMATS
from smartcash.backend.formats.model import SPLITS, DataSet, Findings, Report, Sample
from smartcash.backend.formats.reading import hash_content
from smartcash.backend.formats.splitting import SHARES, GroupsBy, split_by_groups
from smartcash.domain.errors import DataInvalid


def resplit(
    dataset: DataSet,
    *,
    seed: int = 0,
    groups_by: GroupsBy = "auto",
    shares: Mapping[str, float] = SHARES,
) -> DataSet:
    """The same pictures split anew, by default 70/15/15; groups as `split_by_groups` makes them.

    Findings about the former splits are left out of the report; a class that is not in every new one is a finding.
    Raises DataInvalid when a split would stay empty.
    """
    findings = Findings(dataset.root)
    made = split_by_groups(
        dataset.pictures, len(dataset.classes), dataset.root, seed, findings, shares, groups_by
    )
    if not all(made.values()):
        groups = len({sample.group for samples in made.values() for sample in samples})
        raise DataInvalid(
            "data_split_too_small", path=str(dataset.source), images=len(dataset.pictures), groups=groups,
            splits=", ".join(made),
        )  # fmt: skip
    findings.add(
        "data_split_made", dataset.root, value=seed, **{key: len(made.get(key, ())) for key in SPLITS}
    )
    _report_absent(made, dataset.classes, findings)
    former = ("data_split", "data_image_leak", "data_class_absent", "data_class_starved")
    kept = [finding for finding in dataset.report.findings if not finding.code.startswith(former)]
    splits = {split: tuple(made[split]) for split in SPLITS if split in made}
    return replace(
        dataset,
        splits=splits,
        report=Report((*kept, *findings.all)),
        content_hash=hash_content(dataset.root, dataset.task, dataset.classes, splits),
        split_seed=seed,
    )


def _report_absent(made: Mapping[str, Sequence[Sample]], classes: Sequence[str], findings: Findings) -> None:
    """Classes without a picture in a split."""
    for label, name in enumerate(classes):
        having = {
            split: sum(label in sample.labels_N for sample in samples) for split, samples in made.items()
        }
        if not having["train"]:
            findings.add("data_class_starved", findings.root, value=name, split="train")
        count = sum(having.values())
        for split in ("valid", "test"):
            if count and not having.get(split, count):
                findings.add("data_split_class", findings.root, value=name, split=split, count=count)


def write_dataset(dataset: DataSet, out: str | Path, *, format: str | None = None) -> None:
    """Write pictures (byte for byte) and cleaned labels to `out`: YOLO for detect, a folder per class for
    classify, or the named format. Raises DataInvalid as `refuse_used`, and when the disk refuses."""
    folder = refuse_used(dataset, out)
    with writing(folder, {sample.path for sample in dataset.samples}):
        folder.mkdir(parents=True, exist_ok=True)
        FORMATS[format or {"detect": "yolo", "classify": "folders"}[dataset.task]].write(dataset, folder)


def refuse_used(dataset: DataSet, out: str | Path) -> Path:
    """`out` as a whole path. Raises DataInvalid when it holds files, lies in the data set or cannot be written."""
    folder = Path(out).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataInvalid("data_out_used", path=str(out))
    if folder.is_relative_to(dataset.root):
        raise DataInvalid("data_out_inside", path=str(out))
    refuse_unwritable(next(each for each in (folder, *folder.parents) if each.exists()))
    return folder


def refuse_unwritable(folder: Path) -> None:
    """Raises DataInvalid when there is no such folder or it takes no file."""
    with writing(folder), TemporaryFile(dir=folder):
        pass


@contextmanager
def writing(place: Path, read: Collection[Path] = ()) -> Iterator[None]:
    """What the operating system refuses becomes a DataInvalid; `read`: the files that are only read."""
    try:
        yield
    except OSError as error:
        # of a copy that failed, the second name is the new file
        path, reason = error.filename2 or error.filename or place, error.strerror or type(error).__name__
        is_read = error.filename2 is None and Path(path) in read
        code = "picture_unreadable" if is_read else "data_out_unwritable"
        raise DataInvalid(code, path=str(path), reason=reason) from error
