"""What can be put right without asking, in a new folder; the original is never touched."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from smartcash.backend.formats.model import DataSet, Finding, Findings, Sample, relative_name
from smartcash.backend.formats.writing import refuse_used, write_dataset, writing
from smartcash.backend.images import decode_image, read_bytes, read_header, write_image
from smartcash.utils.files import write_bytes

_READ_EVERYWHERE = ("JPEG", "MPO", "PNG", "WEBP", "BMP")
_CHANGED = ("dropped", "clipped", "converted", "split")
_KEPT_FIRST = ("test", "valid", "train")  # of copies across splits, the one in train goes


@dataclass(frozen=True)
class Fixes:
    """What was changed and what is left for a person to judge; both in `fixes.json` of the new folder."""

    out: Path
    changes: tuple[Finding, ...]
    left: tuple[Finding, ...]


def fix(dataset: DataSet, out: Path) -> Fixes:
    """Write the data set to the new folder `out`, with only unambiguous things changed.

    Labels are written as they were read: without duplicate lines, boxes without area or outside, clipped to
    the picture. Of byte-identical pictures with the same labels one is kept, in test before valid before
    train. A picture that other tools may not read (GIF, TIFF, AVIF, CMYK, 16 bit, animations …) becomes a
    PNG. Raises DataInvalid when `out` holds files, lies in the data set or cannot be written.
    """
    refuse_used(dataset, out)
    findings = Findings(dataset.root)
    with TemporaryDirectory() as folder:
        unique = _without_copies(dataset, findings)
        write_dataset(_readable_everywhere(unique, Path(folder), findings), out)
    left_over = Counter(relative_name(sample.path, dataset.root) for sample in unique.samples)
    solved = {"data_image_leak", "data_image_repeated"}

    def is_solved(finding: Finding) -> bool:
        return finding.code in solved and sum(left_over[name] for name in (finding.file, *finding.also)) <= 1

    reported = dataset.report.findings
    changes = (*(finding for finding in reported if finding.done in _CHANGED), *findings.all)
    left = tuple(finding for finding in reported if finding.done not in _CHANGED and not is_solved(finding))
    fixes = Fixes(out, changes, left)
    content = {
        "source": str(dataset.source.absolute()),
        "content_hash": dataset.content_hash,
        "changes": [finding.to_dict() for finding in changes],
        "left": [finding.to_dict() for finding in left],
    }
    with writing(out):
        write_bytes(out / "fixes.json", json.dumps(content, indent=2).encode())
    return fixes


def _without_copies(dataset: DataSet, findings: Findings) -> DataSet:
    """Of byte-identical pictures with the same labels only one; where labels differ, nobody knows which.

    A split of which more than half would go is a copy of the others: nothing is taken from it.
    """
    copies: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for split in _KEPT_FIRST:
        for sample in dataset.splits.get(split, ()):
            copies[sample.digest].append((split, sample))
    gone: dict[tuple[str, Path], Path] = {}
    for (_, first), *others in copies.values():
        if all(first.same_labels(sample) for _, sample in others):
            gone |= {(split, sample.path): first.path for split, sample in others}
    taken = Counter(split for split, _ in gone)
    emptied = [split for split, count in taken.items() if 2 * count > len(dataset.splits[split])]
    gone = {place: first for place, first in gone.items() if place[0] not in emptied}
    for (split, path), first in gone.items():
        findings.add(
            "data_image_copy_removed", path, value=split, also=[first], others=findings.name(first)
        )  # fmt: skip
    splits = {
        split: kept
        for split, found in dataset.splits.items()
        if (kept := tuple(sample for sample in found if (split, sample.path) not in gone))
    }
    return replace(dataset, splits=splits)


def _readable_everywhere(dataset: DataSet, folder: Path, findings: Findings) -> DataSet:
    """The same samples; what other tools may not read lies in `folder` as PNG."""

    def checked(number: int, sample: Sample) -> Sample:
        data = read_bytes(sample.path)
        if (kind := _rare_kind(data, sample.path)) is None:
            return sample
        findings.add("data_image_encoded", sample.path, value=kind)
        target = folder / str(number) / f"{sample.path.stem}.png"
        target.parent.mkdir(exist_ok=True)
        write_image(target, decode_image(data, sample.path))
        return replace(sample, path=target)

    numbered = enumerate(dataset.samples)
    return replace(
        dataset,
        splits={
            split: tuple(checked(*next(numbered)) for _ in found) for split, found in dataset.splits.items()
        },
    )


def _rare_kind(data: bytes, path: Path) -> str | None:
    """What makes a picture unreadable elsewhere; None for what every tool reads."""
    header = read_header(data, path)
    if header.plain:
        return None
    if header.kind not in _READ_EVERYWHERE:
        return header.kind
    with Image.open(io.BytesIO(data)) as image:
        if header.kind == "WEBP" and image.is_animated:  # type: ignore[attr-defined]
            return "WEBP (animated)"
        rare = image.mode == "CMYK" or image.mode.startswith(("I", "F"))
        return f"{header.kind} ({image.mode})" if rare else None
