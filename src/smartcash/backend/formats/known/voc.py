"""Pascal VOC: one .xml per picture, boxes in px; splits by `ImageSets/Main/*.txt` or by folder.

The picture lies beside its .xml or in a folder near it (JPEGImages, images) under the same stem; `filename`
inside is only asked when none has the stem. Class names stand in natural order, or as a classes.txt says.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

from smartcash.backend.formats.files import SPLIT_WORDS, Listing, natural_key, read_text, split_of
from smartcash.backend.formats.model import DataSet, Findings, Format, Layout, Mark, Picture, free_name
from smartcash.utils.files import reason_of


def recognises(listing: Listing) -> bool:
    return any(_is_annotation(path) for path in listing.having(".xml")[:20])


def _is_annotation(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<annotation" in file.read(4096)


def read(listing: Listing, findings: Findings) -> Layout:
    images: dict[str, list[Path]] = defaultdict(list)
    for path in listing.images:
        images[path.stem].append(path)
    listed = _image_sets(listing, findings, set(images))
    names: dict[str, int] = {}
    pictures = []
    for path in listing.having(".xml"):
        if (parsed := _parse(path, findings)) is None:
            continue
        picture = _picture(path, parsed, images, names, findings)
        if picture is None:
            findings.add("data_label_alone", path)
        elif listed and path.stem not in listed:
            findings.add("data_image_unlisted", picture.path)
        else:
            picture.split = listed.get(path.stem) or split_of(path, listing.root)
            pictures.append(picture)
    pictures += _without_label(listing, {picture.path for picture in pictures}, listed, findings)
    return _in_order(Layout(tuple(names), pictures), listing)


def _image_sets(listing: Listing, findings: Findings, stems: set[str]) -> dict[str, str]:
    """stem → split from ImageSets/Main; `trainval` only counts where neither of its halves is given."""
    lists = {
        path.stem: path
        for path in listing.having(".txt")
        if path.parent.name == "Main" and path.stem.casefold() in {*SPLIT_WORDS, "trainval"}
    }
    if len(lists) > 1:
        lists = {
            name: path
            for name, path in lists.items()
            if name != "trainval" or not {"train", "val"} & {*lists}
        }
    listed: dict[str, str] = {}
    for name, path in lists.items():
        for line, entry in enumerate(read_text(path).splitlines(), 1):
            stem = entry.split()[0] if entry.split() else ""
            if stem in stems:
                listed[stem] = SPLIT_WORDS.get(name.casefold(), "train")
            elif stem:
                findings.add("data_image_missing", path, line, stem)
    return listed


def _parse(path: Path, findings: Findings) -> tuple[ElementTree.Element, list[int]] | None:
    """The annotation and the lines on which its objects begin; entities are refused unread."""
    try:
        content = read_text(path)
        if "<!ENTITY" in content or "<!DOCTYPE" in content:
            raise ValueError("DOCTYPE")
        root = ElementTree.fromstring(content.lstrip())
    except (OSError, ValueError, ElementTree.ParseError) as error:
        findings.add("data_label_unreadable", path, reason=reason_of(error))
        return None
    lines = [
        number for number, line in enumerate(content.splitlines(), 1) for _ in range(line.count("<object>"))
    ]
    return root, lines


def _picture(
    path: Path,
    parsed: tuple[ElementTree.Element, list[int]],
    images: dict[str, list[Path]],
    names: dict[str, int],
    findings: Findings,
) -> Picture | None:
    root, lines = parsed
    claimed = PureWindowsPath(root.findtext("filename", "").strip()).stem
    candidates = images.get(path.stem) or images.get(claimed)
    if not candidates:
        return None
    near = max(candidates, key=lambda image: sum(a == b for a, b in zip(image.parts, path.parts)))
    objects = root.findall("object")
    marks = []
    for index, found in enumerate(objects):
        line = lines[index] if len(lines) == len(objects) else None
        name = found.findtext("name", "").strip()
        corners = [found.findtext(f"bndbox/{corner}", "") for corner in ("xmin", "ymin", "xmax", "ymax")]
        shown = f"{name} {' '.join(corners)}"
        if not name:
            findings.add("data_class_unknown", path, line, name)
            continue
        try:
            x1, y1, x2, y2 = (float(corner) for corner in corners)
        except ValueError:
            findings.add("data_no_box", path, line, shown)
            continue
        marks.append(Mark(names.setdefault(name, len(names)), (x1, y1, x2, y2), line, shown))
    if not objects:
        findings.add("data_label_empty", path)
    width, height = root.findtext("size/width", ""), root.findtext("size/height", "")
    declared = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
    return Picture(near, None, marks, path, declared=declared)


def _without_label(
    listing: Listing, used: set[Path], listed: dict[str, str], findings: Findings
) -> list[Picture]:
    """Pictures that have no .xml: background, unless the image sets leave them out."""
    pictures = []
    for path in listing.images:
        if path in used or (listed and path.stem not in listed):
            continue
        findings.add("data_label_missing", path, expected=f"{path.stem}.xml")
        pictures.append(Picture(path, listed.get(path.stem) or split_of(path, listing.root)))
    return pictures


def _in_order(layout: Layout, listing: Listing) -> Layout:
    """The same layout with the classes of classes.txt, or in natural order."""
    order = sorted(layout.classes, key=natural_key)
    if (file := listing.root / "classes.txt").is_file():
        listed = [line.strip() for line in read_text(file).splitlines() if line.strip()]
        if set(layout.classes) <= set(listed) and len(listed) == len(set(listed)):
            order = listed
    for picture in layout.pictures:
        picture.marks = [
            Mark(order.index(layout.classes[mark.label]), mark.box, mark.line, mark.value)
            for mark in picture.marks
        ]
    return Layout(tuple(order), layout.pictures)


def write(dataset: DataSet, out: Path) -> None:
    images, annotations, sets = out / "JPEGImages", out / "Annotations", out / "ImageSets" / "Main"
    for folder in (images, annotations, sets):
        folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for split, samples in dataset.splits.items():
        stems = []
        for sample in samples:
            path = free_name(images, sample, taken)
            shutil.copyfile(sample.path, path)
            stems.append(path.stem)
            root = ElementTree.Element("annotation")
            ElementTree.SubElement(root, "filename").text = path.name
            size = ElementTree.SubElement(root, "size")
            for name, value in zip(("width", "height", "depth"), (*sample.size, 3)):
                ElementTree.SubElement(size, name).text = str(value)
            for label, box in zip(sample.labels_N.tolist(), sample.boxes_N4.tolist()):
                found = ElementTree.SubElement(root, "object")
                ElementTree.SubElement(found, "name").text = dataset.classes[label]
                corners = ElementTree.SubElement(found, "bndbox")
                for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box):
                    ElementTree.SubElement(corners, name).text = str(value)
            tree = ElementTree.ElementTree(root)
            ElementTree.indent(tree)
            tree.write(annotations / f"{path.stem}.xml", encoding="utf-8")
        name = "val" if split == "valid" else split
        (sets / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in dataset.classes), encoding="utf-8")


FORMAT = Format("voc", "detect", 30, recognises, read, write)
