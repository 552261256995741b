"""The health of a data set: what is readable, and still makes a model worse or its score too good.

    data = examine(read_dataset("notes/"))   # every picture decoded once; what was found is in data.report
    write_page(data, Path("health.html"))
    fixes = fix(data, Path("notes-fixed"))

To add a check, write a function (data, looks, findings) in the file of its subject and name it in CHECKS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from smartcash.backend.formats.alike import Look, looks
from smartcash.backend.formats.model import DataSet, Findings, Report
from smartcash.backend.formats.reading import without_broken
from smartcash.backend.health import boxes, classes, copies, pictures
from smartcash.backend.health.fixing import Fixes, fix
from smartcash.backend.health.page import write_page

Check = Callable[[DataSet, Mapping[Path, Look], Findings], None]

CHECKS: tuple[Check, ...] = (
    pictures.sizes,
    pictures.contents,
    copies.look_alikes,
    classes.counts,
    classes.names,
    boxes.outliers,
    boxes.doubles,
    boxes.copied,
)


def examine(dataset: DataSet, *, workers: int | None = None) -> DataSet:
    """The data set with everything the checks found in its report, without pictures that cannot be decoded.

    Decodes every picture once, with `workers` threads (default: one per core, at most 8). Raises DataInvalid
    when no training picture is left.
    """
    paths = list(dict.fromkeys(sample.path for sample in dataset.samples))
    seen = dict(zip(paths, looks(paths, workers)))
    broken = {path: look for path, look in seen.items() if not isinstance(look, Look)}
    dataset = without_broken(dataset, broken)
    good = {path: look for path, look in seen.items() if isinstance(look, Look)}
    findings = Findings(dataset.root)
    for check in CHECKS:
        check(dataset, good, findings)
    return replace(dataset, report=Report((*dataset.report.findings, *findings.all)))


__all__ = ["CHECKS", "Check", "Fixes", "examine", "fix", "write_page"]
