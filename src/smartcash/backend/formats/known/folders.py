"""A folder per class, with or without split folders around: for classification.

    notes/1000/a.jpg            notes/train/1000/a.jpg
    notes/2000/b.jpg            notes/valid/1000/c.jpg

Class names keep their text and stand in natural order (2000 before 10000), or in the order of a
`classes.txt` beside the folders.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from smartcash.backend.formats.files import SPLIT_WORDS, Listing, natural_key, read_text
from smartcash.backend.formats.model import DataSet, Findings, Format, Layout, Picture, free_name

_NOT_CLASSES = {"images", "labels", "annotations", "jpegimages", "imagesets"}


def _class_of(path: Path, root: Path) -> tuple[str | None, str] | None:
    """(split, class name) of a picture by its folders; None when it lies in no class folder."""
    folders = path.relative_to(root).parts[:-1]
    split = SPLIT_WORDS.get(folders[0].casefold()) if folders else None
    inner = folders[1:] if split else folders
    return (split, inner[0]) if inner and inner[0].casefold() not in _NOT_CLASSES else None


def recognises(listing: Listing) -> bool:
    return any(_class_of(path, listing.root) for path in listing.images)


def read(listing: Listing, findings: Findings) -> Layout:
    placed = [(path, _class_of(path, listing.root)) for path in listing.images]
    classes = _class_names(listing.root, {place[1] for _, place in placed if place})
    number = {name: index for index, name in enumerate(classes)}
    pictures = []
    for path, place in placed:
        if place is None:
            findings.add("data_image_unlisted", path)
        else:
            pictures.append(Picture(path, place[0], label=number[place[1]]))
    return Layout(classes, pictures)


def _class_names(root: Path, found: set[str]) -> tuple[str, ...]:
    """The order of classes.txt where it names exactly these folders, else the natural one."""
    listed = root / "classes.txt"
    if listed.is_file():
        names = [line.strip() for line in read_text(listed).splitlines() if line.strip()]
        if len(names) == len(set(names)) and found <= set(names):
            return tuple(names)
    return tuple(sorted(found, key=natural_key))


def write(dataset: DataSet, out: Path) -> None:
    taken: dict[Path, set[str]] = {}
    for split, samples in dataset.splits.items():
        for sample in samples:
            folder = out / split / dataset.classes[int(sample.labels_N[0])]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sample.path, free_name(folder, sample, taken.setdefault(folder, set())))
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in dataset.classes), encoding="utf-8")


FORMAT = Format("folders", "classify", 90, recognises, read, write)
