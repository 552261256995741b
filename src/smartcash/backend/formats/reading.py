"""From a path to a clean data set: find the format, read it, look at every file, clean every box, split."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smartcash.backend.formats import splitting
from smartcash.backend.formats.archive import unpacked
from smartcash.backend.formats.files import SPLIT_WORDS, Listing
from smartcash.backend.formats.known import FORMATS
from smartcash.backend.formats.model import (
    SPLITS,
    DataSet,
    Findings,
    Format,
    Layout,
    Picture,
    Report,
    Sample,
    Task,
    count_boxes,
    relative_name,
)
from smartcash.backend.images import (
    SUFFIXES,
    Header,
    decode_image,
    is_complete,
    read_bytes,
    read_header,
    read_image,
    upright_boxes,
)
from smartcash.domain.errors import DataInvalid
from smartcash.utils.machine import available_cores

_KINDS_OF_SUFFIX = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".webp": ("WEBP",),
    ".gif": ("GIF",),
    ".bmp": ("BMP", "DIB"),
}
_SHOWN_PROBLEMS = 20
_DATA_SUFFIXES = (".yaml", ".yml", ".json", ".xml")


def read_dataset(
    path: str | os.PathLike[str],
    *,
    task: Task | None = None,
    format: str = "auto",
    seed: int = 0,
    strict: bool = False,
) -> DataSet:
    """Read the data set at `path`: a folder, a zip, a YOLO data.yaml or a COCO .json.

    `task` and `format` (a name in FORMATS) narrow the search. Missing splits are made with `seed`, by groups.
    Every strange thing is in the report; `strict` makes errors and warnings fatal. Raises DataInvalid when
    nothing can be read, or when no class, no training picture or no box is left.
    """
    source = Path(path)
    top = _locate(source)
    with _named_by(source, top):
        form, listing = _recognise(top, task, format)
        findings = Findings(listing.root)
        layout = _confined(form.read(listing, findings), listing, findings)
    if not layout.classes:
        raise _unusable("data_no_class", findings, path)
    _report_other_labels(form, layout, listing, findings)
    if listing.hidden:
        findings.add("data_hidden", listing.root, value=listing.hidden)

    placed = _clean(layout, form.task, findings)
    splits, split_seed = _split(placed, len(layout.classes), listing.root, seed, findings)
    _report_copies(splits, form.task, findings)
    if not splits.get("train"):
        raise _unusable("data_no_train", findings, path)
    boxes = count_boxes(splits["train"], len(layout.classes))
    if not boxes.any():
        raise _unusable("data_no_boxes", findings, path)
    for name in np.array(layout.classes)[boxes == 0]:
        findings.add("data_class_starved", listing.root, value=name, split="train")

    report = findings.report()
    if strict and (problems := report.problems("error", "warning")):
        raise DataInvalid("data_strict", problems, path=str(path))
    ordered = {split: tuple(splits[split]) for split in SPLITS if splits.get(split)}
    content_hash = hash_content(listing.root, form.task, layout.classes, ordered)
    return DataSet(
        source, listing.root, form.task, form.name, layout.classes, ordered, report, content_hash, split_seed
    )


def hash_content(
    root: Path, task: Task, classes: tuple[str, ...], splits: dict[str, tuple[Sample, ...]]
) -> str:
    """The content hash that `DataSet` documents, as hex."""
    content = hashlib.sha256(json.dumps([task, classes]).encode())
    for split in sorted(splits):
        content.update(f"\n{split}\n".encode())
        for sample in sorted(splits[split], key=lambda sample: relative_name(sample.path, root)):
            facts = [relative_name(sample.path, root), sample.size, sample.digest, len(sample.labels_N)]
            content.update(json.dumps(facts).encode())
            content.update(sample.boxes_N4.astype("<f4").tobytes())
            content.update(sample.labels_N.astype("<i8").tobytes())
    return content.hexdigest()


# --- finding the data and its format -------------------------------------------------------------------


def _locate(path: Path) -> Listing:
    """The folder to look into; a zip is unpacked."""
    if not path.exists():
        raise DataInvalid("data_path_missing", path=str(path))
    place = path.resolve()
    if place.is_dir():
        return Listing(place)
    if place.suffix.lower() == ".zip":
        return Listing(unpacked(path), confined=True)
    if place.suffix.lower() in (".yaml", ".yml", ".json"):
        return Listing(place.parent, place)
    raise DataInvalid("data_path_file", path=str(path))


@contextmanager
def _named_by(source: Path, top: Listing) -> Iterator[None]:
    """Errors about the folder of an unpacked zip, or a file in it, name the zip instead."""
    try:
        yield
    except DataInvalid as error:
        place = Path(str(error.facts.get("path", "")))
        if top.confined and place.is_relative_to(top.root):
            error.facts["path"] = str(source / place.relative_to(top.root))
        raise


def _recognise(top: Listing, task: Task | None, name: str) -> tuple[Format, Listing]:
    """The format of the data and the listing of its own folder, which may lie alone in other folders."""
    if name != "auto" and name not in FORMATS:
        raise DataInvalid("data_format_unknown", value=name, names=", ".join(FORMATS))
    wanted = [FORMATS[name]] if name != "auto" else list(FORMATS.values())
    other = None
    for listing in reversed(_nested(top)):
        for form in wanted:
            if form.recognises(listing):
                if task in (None, form.task):
                    return form, listing
                other = other or form
    if other is not None:
        raise DataInvalid("data_task", path=str(top.root), task=task, found=other.task, format=other.name)
    raise DataInvalid("data_format_none", path=str(top.root), images=len(top.images))


def _nested(top: Listing) -> list[Listing]:
    """The folder and, while it holds but one folder and no data of its own, the folders inside."""
    chain = [top]
    while top.entry is None and len(chain) < 5:
        inside = [path for path in chain[-1].root.iterdir() if not path.name.startswith((".", "__"))]
        folders = [path for path in inside if path.is_dir()]
        data = any(path.suffix.lower() in {*SUFFIXES, *_DATA_SUFFIXES} for path in inside if path.is_file())
        if len(folders) != 1 or data or folders[0].name.casefold() in {*SPLIT_WORDS, "images"}:
            break
        chain.append(Listing(folders[0], confined=top.confined))
    return chain


def _confined(layout: Layout, listing: Listing, findings: Findings) -> Layout:
    """The layout without pictures that lie outside a folder that must not be left."""
    if not listing.confined:
        return layout
    inside = []
    for picture in layout.pictures:
        if picture.path.is_relative_to(listing.root):
            inside.append(picture)
        else:
            findings.add("data_image_outside", listing.root, value=picture.path.name)
    return Layout(layout.classes, inside)


def _unusable(code: str, findings: Findings, path: str | os.PathLike[str]) -> DataInvalid:
    """The whole cannot be used; the first grave findings tell why."""
    problems = findings.report().problems("error", "warning")
    return DataInvalid(code, problems[:_SHOWN_PROBLEMS], path=str(path))


def _report_other_labels(form: Format, layout: Layout, listing: Listing, findings: Findings) -> None:
    """Labels of another format beside the one that was read: they are not used, and nobody should think so."""
    if form.name == "voc":
        stems = {(picture.path.parent, picture.path.stem) for picture in layout.pictures}
        others = [path for path in listing.having(".txt") if (path.parent, path.stem) in stems]
    else:
        others = listing.having(".xml")
    for path in others:
        findings.add("data_label_other", path, value=path.suffix.lower(), format=form.name)


# --- looking at every file -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """What one reading of a picture's bytes tells."""

    header: Header
    digest: str


def _look(path: Path) -> _Look:
    """Header and digest; a file without a proper end is decoded, for only that shows whether it is cut."""
    data = read_bytes(path)
    header = read_header(data, path)
    if not is_complete(data, header):
        decode_image(data, path)
    return _Look(header, hashlib.sha256(data).hexdigest())


def _look_or_error(path: Path) -> _Look | DataInvalid | OSError:
    try:
        return _look(path)
    except (DataInvalid, OSError) as error:
        return error


def _clean(layout: Layout, task: Task, findings: Findings) -> dict[str | None, list[Sample]]:
    """Samples by split (None: not assigned); what cannot be used becomes a finding."""
    paths = list(dict.fromkeys(picture.path for picture in layout.pictures))
    with ThreadPoolExecutor(min(8, available_cores())) as pool:
        looks = dict(zip(paths, pool.map(_look_or_error, paths)))
    for path, look in looks.items():
        if not isinstance(look, _Look):
            report_broken(path, look, findings)
        elif look.header.kind not in _KINDS_OF_SUFFIX.get(path.suffix.lower(), (look.header.kind,)):
            findings.add("data_image_suffix", path, value=look.header.kind)

    placed: dict[str | None, list[Sample]] = defaultdict(list)
    for picture in layout.pictures:
        look = looks[picture.path]
        if not isinstance(look, _Look):
            continue
        if task == "classify":
            boxes, labels = np.zeros((0, 4), np.float32), np.array([picture.label], np.int64)
        else:
            boxes, labels = _boxes(picture, look.header, len(layout.classes), findings)
        group = relative_name(picture.path, findings.root)
        file = picture.label_file
        sample = Sample(picture.path, look.header.size, boxes, labels, group, look.digest, file)
        placed[picture.split].append(sample)
    return placed


def report_broken(path: Path, error: DataInvalid | OSError, findings: Findings) -> None:
    """One finding for a picture that cannot be read."""
    if isinstance(error, DataInvalid):
        problem = error.problems[0]
        findings.add(problem.code, path, value=problem.value, **problem.facts)
    else:
        findings.add("data_image_forbidden", path, reason=error.strerror or type(error).__name__)


def _boxes(
    picture: Picture, header: Header, classes: int, findings: Findings
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The picture's boxes (float32 xyxy px, upright, inside, unique) and labels; the rest become findings."""
    file = picture.label_file or picture.path
    width, height = header.size
    raw = np.array([mark.box for mark in picture.marks], np.float64).reshape(-1, 4)
    boxes = (
        raw * (width, height, width, height)
        if picture.relative
        else _to_pixels(raw, picture, header, findings)
    )
    labels = np.array([mark.label for mark in picture.marks], np.int64)

    clipped = boxes.clip(0, (width, height, width, height))
    with np.errstate(invalid="ignore"):
        extent = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
        left = (clipped[:, 2:] - clipped[:, :2]).min(axis=1, initial=np.inf)
        beyond = np.abs(boxes - clipped).max(axis=1, initial=0)
    verdicts = [
        ("data_class_range", (labels < 0) | (labels >= classes)),
        ("data_box_not_finite", ~np.isfinite(boxes).all(axis=1)),
        ("data_box_negative", extent < -1e-3),
        ("data_box_zero", extent < 1e-3),
        ("data_box_outside", left < 1e-3),
    ]
    dropped = np.zeros(len(boxes), bool)
    for code, found in verdicts:
        for index in np.flatnonzero(found & ~dropped):
            mark = picture.marks[index]
            value = mark.label if code == "data_class_range" else mark.value
            findings.add(
                code, file, mark.line, value, **({"classes": classes} if code == "data_class_range" else {})
            )
        dropped |= found
    for index in np.flatnonzero((beyond > 1.01) & ~dropped):
        mark = picture.marks[index]
        findings.add("data_box_clipped", file, mark.line, mark.value, pixels=round(float(beyond[index]), 1))

    seen: dict[bytes, set[int]] = defaultdict(set)
    kept = []
    final = clipped.astype(np.float32)
    for index in np.flatnonzero(~dropped):
        mark, here = picture.marks[index], seen[final[index].tobytes()]
        if mark.label in here:
            findings.add("data_line_twice", file, mark.line, mark.value)
            continue
        if here:
            findings.add("data_box_two_classes", file, mark.line, mark.value)
        here.add(mark.label)
        kept.append(index)
    return final[kept], labels[kept]


def _to_pixels(
    boxes: NDArray[np.float64], picture: Picture, header: Header, findings: Findings
) -> NDArray[np.float64]:
    """Boxes in px as annotated → px of the upright picture, when the annotation declares another size."""
    file, declared = picture.label_file or picture.path, picture.declared
    if declared is None or min(declared) <= 0 or declared == header.size or not len(boxes):
        return boxes
    shown, real = "×".join(map(str, declared)), "×".join(map(str, header.size))
    if declared == header.stored:
        findings.add("data_box_rotated", file, value=shown, real=real)
        return upright_boxes(boxes, header)
    scale = np.array(header.size) / np.array(declared)
    if abs(scale[0] / scale[1] - 1) < 0.02:
        findings.add("data_box_rescaled", file, value=shown, real=real)
        rescaled: NDArray[np.float64] = boxes * np.tile(scale, 2)
        return rescaled
    findings.add("data_size_wrong", file, value=shown, real=real)
    return boxes


# --- splits --------------------------------------------------------------------------------------------


def _split(
    placed: dict[str | None, list[Sample]], classes: int, root: Path, seed: int, findings: Findings
) -> tuple[dict[str, list[Sample]], int | None]:
    """The splits as given where they are whole; else made by groups. Second: the seed, if any was made."""
    splits = {split: samples for split, samples in placed.items() if split is not None}
    train_paths = {sample.path for sample in splits.get("train", ())}
    for split in ("valid", "test"):
        if splits.get(split) and {sample.path for sample in splits[split]} <= train_paths:
            findings.add("data_split_same", root, value=split)
            del splits[split]
    if not any(splits.values()):
        everything = placed.get(None, [])
        made = splitting.split_by_groups(everything, classes, root, seed, findings)
        findings.add("data_split_made", root, value=seed, **{key: len(made.get(key, ())) for key in SPLITS})
        return made, seed
    splits["train"] = splits.get("train", []) + placed.get(None, [])
    if splits.get("valid"):
        if not splits.get("test"):
            findings.add("data_split_no_test", root)
        return {
            split: splitting.grouped(samples, root, look=False) for split, samples in splits.items()
        }, None
    made = splitting.split_by_groups(
        splits["train"], classes, root, seed, findings, shares={"train": 0.85, "valid": 0.15}
    )
    findings.add(
        "data_split_valid", root, value=seed, train=len(made["train"]), valid=len(made.get("valid", ()))
    )
    if splits.get("test"):
        made["test"] = splitting.grouped(splits["test"], root, look=False)
    else:
        findings.add("data_split_no_test", root)
    return made, seed


def _report_copies(splits: dict[str, list[Sample]], task: Task, findings: Findings) -> None:
    """Byte-identical pictures: across splits (a leak), with different labels, or simply twice."""
    copies: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for split, samples in splits.items():
        for sample in samples:
            copies[sample.digest].append((split, sample))
    contradictory: set[str] = set()
    for digest, found in copies.items():
        if len(found) < 2:
            continue
        (_, first), *others = found
        also = [sample.path for _, sample in others]
        names = findings.names(also)
        if not all(first.same_labels(sample) for _, sample in others):
            code = "data_image_two_classes" if task == "classify" else "data_image_two_labels"
            findings.add(code, first.path, also=also, others=names)
            if task == "classify":
                contradictory.add(digest)
                continue
        if len({split for split, _ in found}) > 1:
            places = " + ".join({split: 0 for split, _ in found})
            findings.add("data_image_leak", first.path, also=also, others=names, splits=places)
        elif len({sample.path for _, sample in found}) > 1:
            findings.add("data_image_repeated", first.path, also=also, others=names)
    if contradictory:
        for split, samples in splits.items():
            splits[split] = [sample for sample in samples if sample.digest not in contradictory]


# --- decoding every picture ----------------------------------------------------------------------------


def verify_images(dataset: DataSet, *, workers: int | None = None) -> DataSet:
    """The data set without pictures that cannot be fully decoded; each such one is an error in the report.

    `read_dataset` has looked at every header and decoded only files without a proper end. This decodes all,
    with `workers` threads (default: one per core, at most 8), so that no picture fails in a later epoch.
    """
    paths = [sample.path for sample in dataset.samples]
    with ThreadPoolExecutor(workers or min(8, available_cores())) as pool:
        errors = list(pool.map(_decoding_error, paths))
    return without_broken(dataset, {path: error for path, error in zip(paths, errors) if error is not None})


def without_broken(dataset: DataSet, broken: Mapping[Path, DataInvalid | OSError]) -> DataSet:
    """The data set without these pictures, each an error in the report. Raises DataInvalid when no training
    picture is left."""
    if not broken:
        return dataset
    findings = Findings(dataset.root)
    for path, error in broken.items():
        report_broken(path, error, findings)
    splits = {
        split: kept
        for split, found in dataset.splits.items()
        if (kept := tuple(sample for sample in found if sample.path not in broken))
    }
    if not splits.get("train"):
        raise _unusable("data_no_train", findings, dataset.source)
    report = Report((*dataset.report.findings, *findings.all))
    content_hash = hash_content(dataset.root, dataset.task, dataset.classes, splits)
    return replace(dataset, splits=splits, report=report, content_hash=content_hash)


def _decoding_error(path: Path) -> DataInvalid | OSError | None:
    try:
        read_image(path)
    except (DataInvalid, OSError) as error:
        return error
    return None
