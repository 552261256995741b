"""COCO JSON: pictures, boxes (x, y, width, height in px) and categories in one file per split.

Found as `train/_annotations.coco.json` (Roboflow), `annotations/instances_train2017.json`, or any .json up
to two folders deep with `images`, `annotations` and `categories`. A picture is looked up by its file name
among the files of the data set, nearest first, so names from another machine work and none leads outside.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from smartcash.backend.formats.files import SPLIT_WORDS, Listing, natural_key, split_of
from smartcash.backend.formats.model import DataSet, Findings, Format, Layout, Mark, Picture, free_name
from smartcash.domain.errors import DataInvalid

_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_MAX_JSON_BYTES = 2**30


def recognises(listing: Listing) -> bool:
    return bool(_documents(listing))


def _documents(listing: Listing) -> list[Path]:
    """The annotation files; beside COCO's own `instances_*` its keypoint files do not count."""
    if listing.entry is not None:
        found = [listing.entry] if listing.entry.suffix.lower() == ".json" else []
    else:
        found = [path for path in listing.having(".json") if len(path.relative_to(listing.root).parts) <= 3]
    found = [path for path in found if path.stat().st_size <= _MAX_JSON_BYTES and _has_keys(path)]
    instances = [path for path in found if path.name.startswith("instances_")]
    return instances or found


def _has_keys(path: Path) -> bool:
    data = path.read_bytes()
    return all(key in data for key in _KEYS)


def read(listing: Listing, findings: Findings) -> Layout:
    documents = [(path, _load(path)) for path in _documents(listing)]
    names = _class_names([document for _, document in documents])
    number = {name: index for index, name in enumerate(names)}
    nearby = _Pictures(listing.images)
    pictures: list[Picture] = []
    for path, document in documents:
        pictures += _read_document(path, document, number, nearby, listing, findings)
    used = {picture.path for picture in pictures}
    for image in listing.images:
        if image not in used:
            findings.add("data_image_unlisted", image)
    return Layout(names, pictures)


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataInvalid("data_json", path=str(path), reason=str(error)) from error
    parts = {key: content.get(key) for key in ("images", "annotations", "categories")}
    for key, records in parts.items():
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise DataInvalid("data_json", path=str(path), reason=f"{key}: no list of objects")
    return parts


def _class_names(documents: list[dict[str, list[dict[str, Any]]]]) -> tuple[str, ...]:
    """Names in the order of the files, without Roboflow's empty category 0 that only groups the others."""
    used = {str(note.get("category_id")) for document in documents for note in document["annotations"]}
    names: dict[str, None] = {}
    for document in documents:
        groups = {category.get("supercategory") for category in document["categories"]}
        for category in document["categories"]:
            name, key = str(category.get("name", category.get("id"))), str(category.get("id"))
            if key == "0" and key not in used and name in groups and len(document["categories"]) > 1:
                continue
            names.setdefault(name)
    return tuple(names)


class _Pictures:
    """Looks up pictures of the data set by the file name that an annotation gives."""

    def __init__(self, images: list[Path]) -> None:
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for path in images:
            self.by_name[path.name].append(path)

    def find(self, file_name: str, document: Path, split: str | None) -> Path | None:
        """The picture with this name that fits best: same trailing folders, then split, then nearness."""
        wanted = [part for part in PurePosixPath(file_name.replace("\\", "/")).parts if part != ".."]
        year = re.sub(r"^.*_", "", document.stem)  # instances_train2017 → train2017

        def fit(path: Path) -> tuple[bool, bool, bool, int]:
            return (
                list(path.parts[-len(wanted) :]) == wanted,
                year in path.parts,
                split_of(path, document.parent.parent) == split,
                sum(one == other for one, other in zip(path.parts, document.parts)),
            )

        return max(self.by_name.get(wanted[-1], []), key=fit, default=None) if wanted else None


def _read_document(
    path: Path,
    document: dict[str, list[dict[str, Any]]],
    number: dict[str, int],
    nearby: _Pictures,
    listing: Listing,
    findings: Findings,
) -> list[Picture]:
    words = re.findall(r"[a-z]+", path.stem.casefold())
    split = split_of(path, listing.root) or next((SPLIT_WORDS[w] for w in words if w in SPLIT_WORDS), None)
    label_of = {
        str(category.get("id")): number.get(str(category.get("name", category.get("id"))))
        for category in document["categories"]
    }
    by_id: dict[str, Picture] = {}
    for record in document["images"]:
        name = str(record.get("file_name", ""))
        found = nearby.find(name, path, split)
        if found is None:
            findings.add("data_image_missing", path, value=name)
            by_id[str(record.get("id"))] = Picture(Path(name), None)  # its boxes are lost with it
            continue
        width, height = record.get("width"), record.get("height")
        declared = (width, height) if isinstance(width, int) and isinstance(height, int) else None
        own = split or split_of(found, listing.root)
        by_id[str(record.get("id"))] = Picture(found, own, label_file=path, declared=declared)
    for note in document["annotations"]:
        picture = by_id.get(str(note.get("image_id")))
        if picture is None:
            findings.add("data_label_alone", path, value=f"id {note.get('id')}")
        elif picture.label_file is not None:
            mark = _mark(note, picture, label_of, findings)
            picture.marks += [mark] if mark else []
    return [picture for picture in by_id.values() if picture.label_file is not None]


def _mark(
    note: dict[str, Any], picture: Picture, label_of: dict[str, int | None], findings: Findings
) -> Mark | None:
    file = picture.label_file or picture.path
    shown = f"{picture.path.name}: {note.get('bbox')}"
    label = label_of.get(str(note.get("category_id")))
    if label is None:
        findings.add("data_class_unknown", file, value=note.get("category_id"))
        return None
    if note.get("iscrowd"):
        findings.add("data_crowd", file, value=shown)
        return None
    box = note.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
        x, y, width, height = map(float, box)
        return Mark(label, (x, y, x + width, y + height), value=shown)
    polygons = note.get("segmentation")
    points = [value for polygon in polygons for value in polygon] if isinstance(polygons, list) else []
    if len(points) < 6 or not all(isinstance(value, int | float) for value in points):
        findings.add("data_no_box", file, value=shown)
        return None
    findings.add("data_polygon", file, value=1)
    return Mark(
        label, (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])), value=shown
    )


def write(dataset: DataSet, out: Path) -> None:
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(dataset.classes)]
    for split, samples in dataset.splits.items():
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for image_id, sample in enumerate(samples, 1):
            path = free_name(folder, sample, taken)
            shutil.copyfile(sample.path, path)
            width, height = sample.size
            images.append({"id": image_id, "file_name": path.name, "width": width, "height": height})
            for label, (x1, y1, x2, y2) in zip(sample.labels_N.tolist(), sample.boxes_N4.tolist()):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": label + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        images.sort(key=lambda image: natural_key(str(image["file_name"])))
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "_annotations.coco.json").write_text(
            json.dumps(content, ensure_ascii=False), encoding="utf-8"
        )


FORMAT = Format("coco", "detect", 20, recognises, read, write)
