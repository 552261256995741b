"""YOLO as Ultralytics, Roboflow and darknet write it: one text file per picture, boxes as fractions.

A `data.yaml` (any *.yaml with `names` or `nc`) names folders, lists of folders or .txt lists of pictures;
without one, folders `images` and `labels` and a `classes.txt` do. A line is `class cx cy w h`, or a polygon
`class x1 y1 x2 y2 x3 y3 …`, which becomes the box around it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

from smartcash.backend.formats.files import (
    SPLIT_WORDS,
    Listing,
    read_text,
    read_yaml,
    split_of,
)
from smartcash.backend.formats.model import DataSet, Findings, Format, Layout, Mark, Picture, free_name
from smartcash.backend.images import SUFFIXES
from smartcash.domain.errors import DataInvalid
from smartcash.utils.files import reason_of

_CLASS_FILES = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels")
_NO_LABELS = {*_CLASS_FILES, "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt"}


def recognises(listing: Listing) -> bool:
    return _yaml_of(listing) is not None or _has_labels_beside_images(listing)


def _yaml_of(listing: Listing) -> Path | None:
    """The data set's YAML: the named one, else data.yaml or the first at the top that names classes."""
    if listing.entry is not None:
        return listing.entry if listing.entry.suffix.lower() in (".yaml", ".yml") else None
    candidates = [path for path in listing.root.iterdir() if path.suffix.lower() in (".yaml", ".yml")]
    for path in sorted(candidates, key=lambda path: (path.stem != "data", path.name)):
        content = read_yaml(path)
        if isinstance(content, dict) and ("names" in content or "nc" in content):
            return path
    return None


def _has_labels_beside_images(listing: Listing) -> bool:
    texts = {path for path in listing.having(".txt") if path.name.lower() not in _NO_LABELS}
    return any(not texts.isdisjoint(_label_candidates(path)) for path in listing.images) if texts else False


def read(listing: Listing, findings: Findings) -> Layout:
    described = _yaml_of(listing)
    content = read_yaml(described) if described else {}
    if not isinstance(content, dict):
        raise DataInvalid("data_yaml_shape", path=str(described))
    names = _names(content)
    placed = _splits(content, described, listing, findings) if described else _by_folder(listing)
    pictures = []
    for split, images in placed.items():
        for path in dict.fromkeys(images):
            pictures.append(_picture(path, split or split_of(path, listing.root), findings, listing.root))
    _report_lonely_labels(listing, pictures, findings)
    highest = max((mark.label for picture in pictures for mark in picture.marks), default=-1)
    return Layout(
        _checked_names(names or _listed_names(listing), content, highest, listing, findings), pictures
    )


# --- class names ---------------------------------------------------------------------------------------


def _names(content: dict[str, Any]) -> list[str]:
    names = content.get("names") or []
    if isinstance(names, dict):
        numbers = {int(key): str(name) for key, name in names.items() if str(key).isdigit()}
        return [numbers.get(index, str(index)) for index in range(min(max(numbers, default=-1) + 1, 10_000))]
    return [str(name) for name in names] if isinstance(names, list) else [str(names)]


def _listed_names(listing: Listing) -> list[str]:
    for name in _CLASS_FILES:
        for path in listing.files:
            if path.name.lower() == name:
                return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    for path in listing.files:
        if path.name == "notes.json":  # Label Studio
            categories = json.loads(read_text(path)).get("categories", [])
            return [str(category["name"]) for category in categories]
    return []


def _checked_names(
    names: list[str], content: dict[str, Any], highest: int, listing: Listing, findings: Findings
) -> tuple[str, ...]:
    """Names made up from numbers where the data set gives none; too few for `nc` are filled up."""
    file = _yaml_of(listing) or listing.root
    count = int(content["nc"]) if str(content.get("nc", "")).isdigit() else 0
    if not names and (count or highest >= 0):
        findings.add("data_classes_guessed", file, count=count or highest + 1)
        return tuple(str(index) for index in range(min(count or highest + 1, 10_000)))
    if len(names) < count <= 10_000:
        findings.add("data_classes_few", file, names=len(names), count=count)
        names = names + [str(index) for index in range(len(names), count)]
    return tuple(names)


# --- pictures ------------------------------------------------------------------------------------------


def _by_folder(listing: Listing) -> dict[str | None, list[Path]]:
    return {None: listing.images}


def _splits(
    content: dict[str, Any], described: Path, listing: Listing, findings: Findings
) -> dict[str | None, list[Path]]:
    placed: dict[str | None, list[Path]] = {}
    for key, value in content.items():
        split = SPLIT_WORDS.get(str(key).casefold())
        if split is None or not value:
            continue
        for entry in value if isinstance(value, list) else [value]:
            found = _resolve(str(entry), str(content.get("path") or ""), described)
            if found is None:
                findings.add("data_split_missing", described, value=entry, split=split)
            else:
                placed.setdefault(split, []).extend(_images_at(found, listing.root, findings))
    return placed or _by_folder(listing)


def _resolve(entry: str, base: str, described: Path) -> Path | None:
    """The folder or list that `entry` means. Paths of another machine and Roboflow's `../train/images`
    are found by what of them exists beside the YAML."""
    here = described.parent
    parts = [part for part in PureWindowsPath(entry).parts if part not in (".", "\\", "/")]
    bare = [part for part in parts if part != ".." and not part.endswith((":", ":\\"))]
    candidates = [here / PureWindowsPath(base).as_posix() / PureWindowsPath(entry).as_posix()]
    candidates += [here.joinpath(*parts)] if not Path(entry).is_absolute() else []
    candidates += [here.joinpath(*bare[start:]) for start in range(len(bare))]
    candidates = [path.parent / "images" if path.name == "labels" else path for path in candidates]
    return next((path.resolve() for path in candidates if path.exists()), None)


def _images_at(place: Path, root: Path, findings: Findings) -> Iterable[Path]:
    if place.is_dir():
        images = Listing(place).images
        inner = place / "images"
        return [path for path in images if path.is_relative_to(inner)] if inner.is_dir() else images
    if place.suffix.lower() in SUFFIXES:
        return [place]
    images = []
    for number, line in enumerate(read_text(place).splitlines(), 1):
        if not (entry := line.strip().replace("\\", "/")):
            continue
        bases = (place.parent, root, *place.parent.parents)
        found = next((base / entry for base in bases[:4] if (base / entry).is_file()), None)
        if found is None:
            findings.add("data_image_missing", place, number, entry)
        else:
            images.append(found.resolve())
    return images


# --- labels --------------------------------------------------------------------------------------------


def _label_candidates(image: Path) -> list[Path]:
    """Where the label of `image` may lie: `labels` for the last `images` of the path, `labels` beside the
    folder, and the picture's own folder."""
    name = f"{image.stem}.txt"
    parts = image.parent.parts
    candidates = []
    for index in range(len(parts) - 1, 0, -1):
        if parts[index].casefold() == "images":
            candidates.append(Path(*parts[:index], "labels", *parts[index + 1 :], name))
            break
    return [*candidates, image.parent.parent / "labels" / name, image.parent / name]


def _picture(image: Path, split: str | None, findings: Findings, root: Path) -> Picture:
    candidates = _label_candidates(image)
    label = next((path for path in candidates if path.is_file()), None)
    if label is None:
        usual = candidates[0] if len(candidates) == 3 else candidates[-1]
        findings.add("data_label_missing", image, expected=findings.name(usual))
        return Picture(image, split, relative=True)
    return Picture(image, split, read_marks(label, findings), label, relative=True)


def read_marks(path: Path, findings: Findings) -> list[Mark]:
    """The boxes of one label file as fractions, xyxy; every line that is not one is a finding."""
    try:
        content = read_text(path)
    except (OSError, ValueError) as error:
        findings.add("data_label_unreadable", path, reason=reason_of(error))
        return []
    marks: dict[tuple[int, tuple[float, ...]], Mark] = {}
    polygons = 0
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        if (mark := _mark(line, number, path, findings)) is None:
            continue
        polygons += len(line.split()) > 6
        if (mark.label, mark.box) in marks:
            findings.add("data_line_twice", path, number, line.strip())
        marks.setdefault((mark.label, mark.box), mark)
    if polygons:
        findings.add("data_polygon", path, value=polygons)
    if not content.strip():
        findings.add("data_label_empty", path)
    return list(marks.values())


def _mark(line: str, number: int, path: Path, findings: Findings) -> Mark | None:
    text = line.strip()
    fields = text.split()
    if "," in text:
        fields = text.split(",") if len(fields) == 1 else text.replace(",", ".").split()
        findings.add("data_line_comma", path, number, text)
    try:
        values = [float(field) for field in fields]
    except ValueError:
        findings.add("data_line_broken", path, number, text)
        return None
    if len(values) == 6:
        findings.add("data_line_confidence", path, number, text)
        values.pop()
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        findings.add("data_line_broken", path, number, text)
        return None
    if not all(map(math.isfinite, values)):
        findings.add("data_box_not_finite", path, number, text)
        return None
    if max(map(abs, values[1:])) > 2:
        findings.add("data_box_pixels", path, number, text)
        return None
    if values[0] < 0 or not values[0].is_integer():
        findings.add("data_class_range", path, number, fields[0], classes="")
        return None
    if len(values) == 5:
        label, cx, cy, width, height = values
        box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    else:
        label, xs, ys = values[0], values[1::2], values[2::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    return Mark(int(label), box, number, text)


def _report_lonely_labels(listing: Listing, pictures: list[Picture], findings: Findings) -> None:
    used = {picture.label_file for picture in pictures}
    folders = {path.parent for path in used if path is not None}
    stems = {path.stem for path in listing.images}
    for path in listing.having(".txt"):
        lonely = path not in used and path.stem not in stems and path.name.lower() not in _NO_LABELS
        if lonely and (path.parent in folders or "labels" in path.parts):
            findings.add("data_label_alone", path)


# --- writing -------------------------------------------------------------------------------------------


def write(dataset: DataSet, out: Path) -> None:
    for split, samples in dataset.splits.items():
        images, labels = out / "images" / split, out / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for sample in samples:
            image = free_name(images, sample, taken)
            shutil.copyfile(sample.path, image)
            width, height = sample.size
            lines = []
            for label, (x1, y1, x2, y2) in zip(sample.labels_N.tolist(), sample.boxes_N4.tolist()):
                box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(" ".join([str(label), *(f"{value:.8f}" for value in box)]) + "\n")
            (labels / f"{image.stem}.txt").write_text("".join(lines), encoding="utf-8")
    described = [f"{'val' if split == 'valid' else split}: images/{split}" for split in dataset.splits]
    names = [
        f"  {index}: {json.dumps(name, ensure_ascii=False)}" for index, name in enumerate(dataset.classes)
    ]
    content = "\n".join(["path: .", *described, f"nc: {len(names)}", "names:", *names]) + "\n"
    (out / "data.yaml").write_text(content, encoding="utf-8")


FORMAT = Format("yolo", "detect", 10, recognises, read, write)
