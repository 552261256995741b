"""The words of a data set: samples, findings, the report, the set itself, and what a format offers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from smartcash.backend.formats.files import Listing
from smartcash.domain.errors import WHOLE, Problem

Task = Literal["detect", "classify"]
Severity = Literal["error", "warning", "note"]
SPLITS = ("train", "valid", "test")


def task_named(name: str) -> Task | None:
    """The task with this name; None for one that is yet to be found out ("auto")."""
    return next((task for task in get_args(Task) if task == name), None)


# Every finding: how grave it is and what was done about the thing concerned. Texts: `problems.<code>`.
KINDS: dict[str, tuple[Severity, str]] = {
    # pictures
    "data_image_empty": ("error", "dropped"),
    "data_image_lfs": ("error", "dropped"),
    "data_image_text": ("error", "dropped"),
    "data_image_heic": ("error", "dropped"),
    "data_image_truncated": ("error", "dropped"),
    "data_image_unknown": ("error", "dropped"),
    "data_image_unreadable": ("error", "dropped"),
    "data_image_depth": ("error", "dropped"),
    "data_image_bomb": ("error", "dropped"),
    "data_image_huge": ("error", "dropped"),
    "data_image_forbidden": ("error", "dropped"),
    "data_image_missing": ("error", "dropped"),
    "data_image_outside": ("error", "dropped"),
    "data_image_two_classes": ("error", "dropped"),
    "data_image_unlisted": ("warning", "ignored"),
    "data_image_two_labels": ("warning", "kept"),
    "data_image_leak": ("warning", "kept"),
    "data_image_repeated": ("note", "kept"),
    "data_image_suffix": ("note", "kept"),
    "data_image_leak_alike": ("warning", "kept"),
    "data_image_leak_name": ("note", "kept"),
    "data_image_alike": ("note", "kept"),
    "data_image_alike_labels": ("warning", "kept"),
    "data_image_tiny": ("warning", "kept"),
    "data_image_large": ("note", "kept"),
    "data_image_sizes": ("note", "kept"),
    "data_image_blank": ("warning", "kept"),
    "data_image_gray": ("note", "kept"),
    "data_image_copy_removed": ("note", "dropped"),
    "data_image_encoded": ("note", "converted"),
    # labels
    "data_label_missing": ("warning", "background"),
    "data_label_alone": ("warning", "ignored"),
    "data_label_other": ("note", "ignored"),
    "data_label_unreadable": ("error", "dropped"),
    "data_label_empty": ("note", "background"),
    "data_line_broken": ("error", "dropped"),
    "data_line_confidence": ("warning", "converted"),
    "data_line_comma": ("warning", "converted"),
    "data_line_twice": ("warning", "dropped"),
    "data_class_range": ("error", "dropped"),
    "data_class_unknown": ("error", "dropped"),
    "data_classes_guessed": ("warning", "converted"),
    "data_classes_few": ("warning", "converted"),
    "data_class_no_note": ("warning", "kept"),
    "data_class_same_value": ("note", "kept"),
    "data_polygon": ("note", "converted"),
    "data_crowd": ("note", "dropped"),
    "data_no_box": ("warning", "dropped"),
    # boxes
    "data_box_zero": ("warning", "dropped"),
    "data_box_negative": ("error", "dropped"),
    "data_box_not_finite": ("error", "dropped"),
    "data_box_pixels": ("error", "dropped"),
    "data_box_outside": ("error", "dropped"),
    "data_box_clipped": ("warning", "clipped"),
    "data_box_two_classes": ("warning", "kept"),
    "data_box_rotated": ("note", "converted"),
    "data_box_rescaled": ("warning", "converted"),
    "data_size_wrong": ("warning", "kept"),
    "data_box_whole": ("warning", "kept"),
    "data_box_double": ("warning", "kept"),
    "data_box_double_classes": ("warning", "kept"),
    "data_box_small": ("note", "kept"),
    "data_box_large": ("note", "kept"),
    "data_box_long": ("note", "kept"),
    "data_box_far": ("note", "kept"),
    "data_box_copied": ("note", "kept"),
    # the whole
    "data_split_missing": ("warning", "ignored"),
    "data_split_same": ("warning", "split"),
    "data_split_made": ("note", "split"),
    "data_split_valid": ("note", "split"),
    "data_split_no_test": ("note", "kept"),
    "data_split_no_groups": ("warning", "split"),
    "data_split_class": ("warning", "kept"),
    "data_class_starved": ("warning", "kept"),
    "data_class_absent": ("warning", "kept"),
    "data_class_few": ("note", "kept"),
    "data_class_ratio": ("note", "kept"),
    "data_hidden": ("note", "ignored"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One strange thing: which file (relative to the data set) and line, the value found there, its code.

    `also` names the other pictures concerned; `box` is the place in the picture, xyxy in px, upright."""

    code: str
    file: str
    line: int | None = None
    value: str | None = None
    facts: dict[str, object] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None

    @property
    def severity(self) -> Severity:
        return KINDS[self.code][0]

    @property
    def done(self) -> str:
        """What was done about it: dropped, clipped, converted, kept, ignored, background or split."""
        return KINDS[self.code][1]

    @property
    def where(self) -> str:
        """The file, and the line in it; "" for what is about the whole."""
        if self.file == WHOLE:
            return ""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def example(self) -> str:
        """What stands for the finding where there is room for a name only: its place, or the class or split that it
        is about; "" if there is none."""
        return self.where or self.value or ""

    def problem(self) -> Problem:
        return Problem(self.where or WHOLE, self.code, self.value, self.facts)

    def message(self, language: str | None = None) -> str:
        """The finding in words, with the way out."""
        return self.problem().message(language)

    def to_dict(self) -> dict[str, object]:
        """The finding as plain values, its message in the language of this process."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "value": self.value,
            "done": self.done,
            "also": list(self.also),
            "box": None if self.box is None else list(self.box),
            "message": self.message(),
        }


@dataclass(frozen=True)
class Report:
    """All findings, in the order they were met."""

    findings: tuple[Finding, ...] = ()

    def of(self, *severities: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity in severities)

    def counts(self) -> dict[str, int]:
        """code → how many."""
        return dict(Counter(finding.code for finding in self.findings))

    def problems(self, *severities: Severity) -> list[Problem]:
        return [finding.problem() for finding in self.of(*severities)]


class Findings:
    """Collects findings while a data set is read; names files relative to `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.all: list[Finding] = []

    def add(
        self,
        code: str,
        file: Path | str,
        line: int | None = None,
        value: object = None,
        *,
        also: Iterable[Path] = (),
        box: Iterable[float] | None = None,
        **facts: object,
    ) -> None:
        shown = None if value is None else str(value)[:120]
        place = None if box is None else tuple(round(float(side), 1) for side in box)
        others = tuple(self.name(path) for path in also)
        self.all.append(Finding(code, self.name(file), line, shown, facts, others, place))  # type: ignore[arg-type]

    def name(self, file: Path | str) -> str:
        return relative_name(Path(file), self.root)

    def names(self, files: Sequence[Path]) -> str:
        """The first five names, and how many more there are."""
        more = [f"+{len(files) - 5}"] if len(files) > 5 else []
        return ", ".join([*(self.name(file) for file in files[:5]), *more])

    def report(self) -> Report:
        return Report(tuple(self.all))


def relative_name(path: Path, root: Path) -> str:
    """`path` below `root` with forward slashes; for a file elsewhere its last three parts."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return "/".join(path.parts[-3:]) if path.is_absolute() else path.as_posix()


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture with its annotations.

    `size` is (width, height) in px, upright. `boxes_N4` is float32 xyxy in px of the upright picture, inside
    it, with positive area; (0, 4) when there is none, and always for classify. `labels_N` is int64; for
    classify it holds exactly one label. Samples of one `group` (copies, bursts, near-duplicates) belong in
    one split. `digest` is the SHA-256 of the file's bytes; `label_file` is where the annotations were read.
    """

    path: Path
    size: tuple[int, int]
    boxes_N4: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    group: str
    digest: str = ""
    label_file: Path | None = None

    def same_labels(self, other: Sample) -> bool:
        """Whether both have the same boxes and labels, in the same order."""
        return np.array_equal(self.labels_N, other.labels_N) and np.array_equal(self.boxes_N4, other.boxes_N4)


@dataclass(frozen=True)
class DataSet:
    """What `read_dataset` found. `splits` has the keys "train", "valid" and, when there is one, "test".

    `source` is the path that was given, by which people know the data; `root` is the folder that was read: the same,
    one inside, or, for a zip, where it was unpacked.

    `content_hash` is the SHA-256 over the task, the class names and, split by split, every sample's name
    relative to the root, size, picture digest, boxes and labels: the same data gives the same hash on any
    machine, in any folder, zipped or not. `split_seed` is set when the split (or valid) is our own.
    """

    source: Path
    root: Path
    task: Task
    format: str
    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    report: Report
    content_hash: str
    split_seed: int | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples, split after split."""
        return tuple(sample for split in self.splits.values() for sample in split)

    @property
    def pictures(self) -> tuple[Sample, ...]:
        """One sample of each picture, also of one that is in several splits."""
        return tuple({sample.path: sample for sample in self.samples}.values())


@dataclass(frozen=True, slots=True)
class Mark:
    """One box as it stands in a label file: xyxy in the picture's unit; `value` is its text there."""

    label: int
    box: tuple[float, float, float, float]
    line: int | None = None
    value: str = ""


@dataclass(slots=True)
class Picture:
    """One picture as a format found it, before anybody looked at the pixels.

    `relative`: boxes are fractions of the upright picture, else px. `declared`: the (width, height) that the
    annotation claims, for boxes in px. For classify `label` is the class and there are no marks.
    """

    path: Path
    split: str | None
    marks: list[Mark] = field(default_factory=list)
    label_file: Path | None = None
    relative: bool = False
    declared: tuple[int, int] | None = None
    label: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What a format read: the class names in their order and the pictures."""

    classes: tuple[str, ...]
    pictures: list[Picture]


@dataclass(frozen=True, slots=True)
class Format:
    """A data format: one file in `formats/known` that defines `FORMAT`; nothing else need be told.

    Formats are asked in the order of `rank`. `read` may raise DataInvalid for what makes the whole
    unreadable. `write` writes a data set into an empty folder such that `read` gives it back.
    """

    name: str
    task: Task
    rank: int
    recognises: Callable[[Listing], bool]
    read: Callable[[Listing, Findings], Layout]
    write: Callable[[DataSet, Path], None]


def count_boxes(samples: Iterable[Sample], classes: int) -> NDArray[np.int64]:
    """How many labels of each class; shape (classes,)."""
    labels = [sample.labels_N for sample in samples]
    return np.bincount(np.concatenate([*labels, np.empty(0, np.int64)]), minlength=classes)


def facts_of(dataset: DataSet) -> dict[str, Any]:
    """What is in a data set, as plain values: its splits with their labels per class, and how often what was found."""
    splits = {
        name: {
            "images": len(samples),
            "groups": len({sample.group for sample in samples}),
            "background": sum(len(sample.labels_N) == 0 for sample in samples),
            "labels": dict(zip(dataset.classes, count_boxes(samples, len(dataset.classes)).tolist())),
        }
        for name, samples in dataset.splits.items()
    }
    return {
        "path": str(dataset.source), "format": dataset.format, "task": dataset.task, "classes": list(dataset.classes),
        "splits": splits, "split_seed": dataset.split_seed, "content_hash": dataset.content_hash,
        "counts": dataset.report.counts(),
    }  # fmt: skip


def free_name(folder: Path, sample: Sample, taken: set[str]) -> Path:
    """A path in `folder` for the sample's picture: its own name, else with a piece of its digest. Stems in
    `taken` (case-blind, as some file systems are) are avoided; the new one is added."""
    stem, count = sample.path.stem, 0
    while stem.casefold() in taken:
        count += 1
        stem = f"{sample.path.stem}_{sample.digest[:8]}_{count}"
    taken.add(stem.casefold())
    return folder / (stem + sample.path.suffix)
