"""What `smartcash benchmark` measured as a page: a table whose bars are its chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from smartcash.backend.pages import page, paragraph, table
from smartcash.utils.i18n import decimal, text

BAR_PX = 110
BARRED = {"p50": "p50_ms", "p95": "p95_ms", "throughput": "images_per_s", "size": "size_bytes"}
COLUMNS = ("file", "state", *BARRED, "metric")


def benchmark_page(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """`rows`: as `benchmark_exports` yields them, the model's own first. Bars of a column have one scale; the speed
    stands also as a multiple of the model's own."""
    measured = [row for row in rows if "error" not in row]
    most = {key: max(row[key] for row in measured) for key in BARRED.values()}
    own = measured[0]["images_per_s"]
    cells = [
        (
            _name(row),
            _state(row),
            *(_bar(row, key, most[key], own) for key in BARRED.values()),
            metric_of(row),
        )
        for row in measured
    ]
    failed = [paragraph(f"{row['file']}: {row['error']}", "note") for row in rows if "error" in row]
    head = [escape(text(f"benchmark.column.{column}")) for column in COLUMNS]
    about = paragraph(text("benchmark.title", threads=measured[0]["threads"]), "dim")
    return page(text("benchmark.page", name=measured[0]["file"]), [about, table(head, cells), *failed])


def file_of(row: Mapping[str, Any]) -> str:
    """The name of the file; the model itself has none of a runtime's."""
    return text("benchmark.model") if row["format"] == "torch" else str(row["file"])


def metric_of(row: Mapping[str, Any]) -> str:
    """The accuracy, and what the export costs of it."""
    if row["value"] is None:
        return "–"
    lost = "" if row["drop"] is None else f" ({decimal(-row['drop'], '+z.4f')})"  # z: a zero has no minus
    return f"{row['metric']} {decimal(row['value'], '.4f')}{lost}"


def _name(row: Mapping[str, Any]) -> str:
    return f"{escape(file_of(row))}<br><small>{escape(row['format'])} · {escape(row['precision'])}</small>"


def _state(row: Mapping[str, Any]) -> str:
    return escape(text(f"benchmark.state.{row['state']}")) if row["state"] else "–"


def _bar(row: Mapping[str, Any], key: str, most: float, own: float) -> str:
    value = row[key] / 1e6 if key == "size_bytes" else row[key]
    width = BAR_PX * row[key] / most if most else 0
    ratio = f" <small>× {decimal(row[key] / own, '.1f')}</small>" if key == "images_per_s" and own else ""
    return f'{decimal(value, ".1f")}{ratio}<br><span class="bar" style="width: {width:.0f}px"></span>'
