"""What a workbench answers about data sets, as plain values. Nothing here loads torch: a look at a data set, or a
drawing, begins seconds sooner.

To add a question, write a function of plain values and name it in QUESTIONS. A data set that was read is kept for the
next question.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from smartcash.backend.formats import (
    DataSet,
    Sample,
    facts_of,
    read_dataset,
    resplit,
    shares_of,
    task_named,
    verify_images,
    write_dataset,
)
from smartcash.backend.formats.model import Finding
from smartcash.backend.formats.writing import refuse_used
from smartcash.backend.health import examine
from smartcash.backend.images import Pixels, read_image
from smartcash.backend.samples import write_samples
from smartcash.domain.banknotes import values_of
from smartcash.domain.errors import DataInvalid, NotConfirmed
from smartcash.utils.i18n import text

SHOWN_FINDINGS = 500
SPLIT_FINDINGS = ("data_split_no_groups", "data_split_class", "data_class_starved")
JPEG_QUALITY = 85

Values = Mapping[str, Any]


@lru_cache(maxsize=4)
def data_set(path: str, form: str, task: str, seed: int) -> DataSet:
    return read_dataset(path, task=task_named(task), format=form, seed=seed)


def check_data(path: str, form: str = "auto", task: str = "auto", seed: int = 0) -> Values:
    """Everything that the health checks find, and what is in each split."""
    data_set.cache_clear()  # asked again, because something was put right
    data = examine(data_set(path, form, task, seed))
    findings = sorted(
        data.report.findings, key=lambda each: ("error", "warning", "note").index(each.severity)
    )
    return {
        **facts_of(data), "values": values_by_class(data.classes), "findings_total": len(findings),
        "findings": [finding.to_dict() for finding in findings[:SHOWN_FINDINGS]],
    }  # fmt: skip


def draw_samples(path: str, images: int, task: Literal["detect", "classify"]) -> Values:
    """Draw a data set of specimen notes into a new folder, as `smartcash data sample` does."""
    summary = write_samples(Path(path), images=images, task=task)
    return {"images": summary.images, "notes": summary.notes, "seconds": round(summary.seconds, 1)}


def plan_split(
    path: str, target: str, seed: int, valid: int, test: int, form: str = "auto", task: str = "auto"
) -> Values:
    """What `smartcash data split` would write into the new folder `target`, with so many percent for valid and test:
    pictures and labels of every split, their bytes, how many pictures are left out because they cannot be used, and
    what is strange about the split."""
    data = _split_anew(path, form, task, seed, valid, test)
    if Path(target).resolve().is_relative_to(data.root):
        raise DataInvalid("split_home_inside", path=path, folder=str(Path(target).parent))
    refuse_used(data, target)
    return {
        **facts_of(data), "values": values_by_class(data.classes), "images": len(data.samples),
        "bytes": sum(sample.path.stat().st_size for sample in data.samples),
        "left_out": _left_out(data.report.findings),
        "findings": [_told(each) for each in data.report.findings if each.code in SPLIT_FINDINGS],
    }  # fmt: skip


def _left_out(findings: Iterable[Finding]) -> int:
    """How many pictures are there that cannot be used."""
    found = (
        each
        for each in findings
        if each.code.startswith("data_image_")
        and each.done in ("dropped", "ignored")
        and each.code != "data_image_missing"
    )
    return len({(name, each.value) for each in found for name in (each.file, *each.also)})


def _told(finding: Finding) -> Values:
    """A finding about a split, which is called as the page calls it."""
    if "split" in finding.facts:
        named = text(f"studio.split.{finding.facts['split']}")
        finding = replace(finding, facts={**finding.facts, "split": named})
    return finding.to_dict()


def write_split(
    path: str,
    out: str,
    content_hash: str,
    seed: int,
    valid: int,
    test: int,
    form: str = "auto",
    task: str = "auto",
) -> Values:
    """Write the planned split with this content into a new folder. Raises NotConfirmed when it would be another one,
    because the data set has changed since."""
    data = _split_anew(path, form, task, seed, valid, test)
    if data.content_hash != content_hash:
        raise NotConfirmed("split_stale", path=path)
    write_dataset(data, out)
    return {"images": len(data.samples)}


def _split_anew(path: str, form: str, task: str, seed: int, valid: int, test: int) -> DataSet:
    data = verify_images(read_dataset(path, task=task_named(task), format=form, seed=seed))
    return resplit(data, seed=seed, shares=shares_of(valid, test))


def list_pictures(
    path: str, split: str, label: str = "", offset: int = 0, limit: int = 24,
    form: str = "auto", task: str = "auto", seed: int = 0,
) -> Values:  # fmt: skip
    """A page of a split's pictures with their boxes; those with the class `label`, if one is named."""
    data = data_set(path, form, task, seed)
    samples = _split(data, split)
    chosen = list(range(len(samples)))
    if label:
        if label not in data.classes:
            raise DataInvalid("classes_differ", unknown=label, known=", ".join(data.classes))
        number = data.classes.index(label)
        chosen = [index for index in chosen if number in samples[index].labels_N]
    page = chosen[offset : offset + limit]
    rows = [{"index": index, **_described(data, samples[index])} for index in page]
    return {
        "total": len(chosen),
        "classes": list(data.classes),
        "values": values_by_class(data.classes),
        "pictures": rows,
    }


def show_picture(
    path: str, split: str, index: int, size: int, form: str = "auto", task: str = "auto", seed: int = 0
) -> str:
    """One picture as a JPEG of at most `size` px, in base64."""
    samples = _split(data_set(path, form, task, seed), split)
    if not 0 <= index < len(samples):
        raise DataInvalid("picture_absent", path=path, split=split, index=index, count=len(samples))
    return jpeg_of(_shrunk(read_image(samples[index].path), size))


def _split(data: DataSet, split: str) -> tuple[Sample, ...]:
    if split not in data.splits:
        raise DataInvalid("split_missing", path=str(data.source), split=split, splits=", ".join(data.splits))
    return data.splits[split]


def _described(data: DataSet, sample: Sample) -> Values:
    width, height = sample.size
    boxes = boxes_of(data, sample.boxes_N4, sample.labels_N)
    return {"name": sample.path.name, "width": width, "height": height, "boxes": boxes}


def boxes_of(data: DataSet, boxes_N4: np.ndarray, labels_N: np.ndarray) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"class": data.classes[label]} for label in labels_N.tolist()]
    for row, box in zip(rows, boxes_N4.tolist()):
        row["box_xyxy"] = [round(side, 1) for side in box]
    return rows


def values_by_class(classes: tuple[str, ...]) -> dict[str, int | None]:
    return dict(zip(classes, values_of(classes)))


def _shrunk(image: Pixels, longest_px: int) -> Pixels:
    height, width = image.shape[:2]
    ratio = longest_px / max(height, width)
    if ratio >= 1:
        return image
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def jpeg_of(image: Pixels) -> str:
    _, written = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return base64.b64encode(written.tobytes()).decode()


QUESTIONS: dict[str, Callable[..., Any]] = {
    "check_data": check_data,
    "draw_samples": draw_samples,
    "list_pictures": list_pictures,
    "plan_split": plan_split,
    "show_picture": show_picture,
    "write_split": write_split,
}
