"""The report as one HTML file: no script, no request to anywhere, light or dark as the reader's system is."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from smartcash.backend.formats.model import DataSet, Finding, Sample, Severity, count_boxes, relative_name
from smartcash.backend.formats.writing import writing
from smartcash.backend.images import Pixels, read_image
from smartcash.utils.files import write_bytes
from smartcash.utils.i18n import current_language, text

EXAMPLES = 6  # findings shown of each code
PICTURES = 3  # of one finding
THUMB_PX = 176
_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --paper: #fff; --soft: #f2f4f7; --line: #d5dae1;
  --error: #b3261e; --warning: #8a5a00; --note: #3d5a80; --train: #3b6ea5; --valid: #c07a1a; --test: #5b8c3e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171c; --soft: #1f242c; --line: #39414d;
  --error: #ff8a80; --warning: #f0b849; --note: #9cc0e8; --train: #6da5e0; --valid: #e0a24d; --test: #8cc26a; } }
body { margin: 2rem auto; max-width: 68rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid var(--line); }
section { margin: 1.5rem 0; padding: .2rem 1rem; border-left: 4px solid var(--line); background: var(--soft); }
section.error { border-color: var(--error); } section.warning { border-color: var(--warning); }
section.note { border-color: var(--note); } b.error { color: var(--error); } b.warning { color: var(--warning); }
b.note { color: var(--note); } figure { display: inline-block; margin: .3rem .6rem .3rem 0; max-width: 176px; }
figcaption { font-size: .75rem; } img { display: block; max-width: 100%; } svg text { fill: currentColor; }
svg { max-width: 100%; } .train { fill: var(--train); } .valid { fill: var(--valid); } .test { fill: var(--test); }
"""


def write_page(dataset: DataSet, path: Path) -> None:
    """Write the report of `dataset`, its counts and small pictures of the examples, in this process's
    language. Raises DataInvalid when it cannot be written."""
    title = escape(text("health.title", name=dataset.source.absolute().name))
    counts = {name: count_boxes(samples, len(dataset.classes)) for name, samples in dataset.splits.items()}
    thumbs = _Thumbs(dataset)
    parts = [
        f'<!doctype html><html lang="{current_language()}"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
        f"<p>{escape(text('data.title', path=dataset.source, format=dataset.format, task=dataset.task))}<br>",
        f"{escape(text('data.hash', hash=dataset.content_hash))}</p>",
        f"<h2>{escape(text('health.counts'))}</h2>",
        _chart(dataset.classes, counts),
        _table(dataset, counts),
        f"<h2>{escape(text('health.findings'))}</h2>",
        *(_section(found, thumbs) for found in by_code(dataset)),
        *([] if dataset.report.findings else [f"<p>{escape(text('data.clean'))}</p>"]),
        "</body></html>\n",
    ]
    # a file name that is no UTF-8 stands in Python as lone surrogates, which cannot be written
    with writing(path):
        write_bytes(path, "\n".join(parts).encode("utf-8", "replace"))


def by_code(dataset: DataSet) -> list[list[Finding]]:
    """The findings, grave ones first, those of one code together."""

    def rank(finding: Finding) -> tuple[int, str]:
        return _SEVERITIES.index(finding.severity), finding.code

    return [list(found) for _, found in groupby(sorted(dataset.report.findings, key=rank), rank)]


def _section(found: Sequence[Finding], thumbs: _Thumbs) -> str:
    """All findings of one code: how grave, how many, what happened to them, and the first examples."""
    first = found[0]
    severity = f'<b class="{first.severity}">{escape(text(f"data.severity.{first.severity}"))}</b>'
    heading = escape(text(f"data.found.{first.code}", count=len(found)))
    done = escape(text(f"data.done.{first.done}"))
    lines = [
        f'<section class="{first.severity}"><h3>{severity}: {heading}</h3>',
        f"<p>{escape(text('health.done', done=done))} <small><code>{first.code}</code></small></p>",
    ]
    for finding in found[:EXAMPLES]:
        place = f"<code>{escape(finding.where)}</code>: " if finding.where else ""
        lines.append(f"<p>{place}{escape(finding.message())}</p>")
        lines += [thumbs.of(finding)]
    if len(found) > EXAMPLES:
        lines.append(f"<p>{escape(text('data.more', count=len(found) - EXAMPLES))}</p>")
    return "\n".join([*lines, "</section>"])


def _table(dataset: DataSet, counts: dict[str, np.ndarray]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in (text("data.class"), *counts))
    rows = [
        (name, *(int(number[label]) for number in counts.values()))
        for label, name in enumerate(dataset.classes)
    ]
    rows.append((text("data.images"), *(len(samples) for samples in dataset.splits.values())))
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _chart(classes: Sequence[str], counts: dict[str, np.ndarray]) -> str:
    """Bars of labels per class and split, one below the other."""
    most = max(1, *(int(number.max()) for number in counts.values()))
    step, top, left, width = 14, 24, 150, 480
    row = step * len(counts) + 10
    title = escape(text("health.counts"))
    lines = [
        f'<svg role="img" viewBox="0 0 720 {top + row * len(classes)}" width="720" font-size="12"><title>{title}</title>'
    ]
    for number, split in enumerate(counts):
        x = left + 90 * number
        lines.append(f'<rect class="{split}" x="{x}" y="2" width="12" height="12"/>')
        lines.append(f'<text x="{x + 17}" y="12">{split}</text>')
    for label, name in enumerate(classes):
        y = top + row * label
        shown = name if len(name) <= 20 else name[:19] + "…"
        lines.append(f'<text x="{left - 8}" y="{y + row / 2}" text-anchor="end">{escape(shown)}</text>')
        for number, (split, count) in enumerate(counts.items()):
            bar = width * int(count[label]) / most
            at = y + step * number
            lines.append(f'<rect class="{split}" x="{left}" y="{at}" width="{bar:.1f}" height="{step - 2}"/>')
            lines.append(f'<text x="{left + bar + 5:.1f}" y="{at + step - 4}">{int(count[label])}</text>')
    return "".join([*lines, "</svg>"])


class _Thumbs:
    """Small pictures of what findings are about: found by the picture's name or that of the label file it was read with."""

    def __init__(self, dataset: DataSet) -> None:
        self.root = dataset.root
        self.by_name = {relative_name(sample.path, dataset.root): sample for sample in dataset.samples}
        # a COCO document is of many pictures, and a finding in it names none
        self.by_label = {
            relative_name(sample.label_file, dataset.root): sample
            for sample in dataset.samples
            if sample.label_file is not None and sample.label_file.suffix.lower() != ".json"
        }

    def of(self, finding: Finding) -> str:
        """The finding's pictures as figures; none for what has no readable picture."""
        if (own := self.by_name.get(finding.file) or self.by_label.get(finding.file)) is None:
            return ""
        others = [self.by_name[name] for name in finding.also[: PICTURES - 1] if name in self.by_name]
        figures = [_figure(own, relative_name(own.path, self.root), finding.box)]
        figures += [_figure(sample, relative_name(sample.path, self.root), None) for sample in others]
        return "".join(figures)


def _figure(sample: Sample, name: str, box: Sequence[float] | None) -> str:
    image = read_image(sample.path)
    scale = min(1.0, THUMB_PX / max(image.shape[:2]))
    size = [max(1, round(side * scale)) for side in sample.size]
    small: Pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    for edges, colour in (
        *((edges, (255, 200, 0)) for edges in sample.boxes_N4),
        *([(box, (255, 0, 0))] if box else []),
    ):
        x1, y1, x2, y2 = (round(float(edge) * scale) for edge in edges)
        cv2.rectangle(small, (x1, y1), (x2, y2), colour, 1)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    data = base64.b64encode(encoded.tobytes()).decode()
    width, height = size
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="" width="{width}" height="{height}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
    )
