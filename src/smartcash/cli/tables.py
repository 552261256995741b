"""Tables: lists of runs and operations, and the final ones of a training: one row per class, the whole set
below. Those take a result in its JSON form (`DetectionResult.to_dict()`), so that they also show what another
process has written to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smartcash.domain.banknotes import colour_of, display_names
from smartcash.utils.i18n import text

NOT_DEFINED = "–"
UNBOUNDED = 10_000  # characters of a line


def detection_table(figures: Mapping[str, Any]) -> Table:
    """AP, precision, recall and F1 per class; below it threshold, IoU and what was counted exactly."""
    table = _table(figures, "support", "ap50", "ap50_95", "precision", "recall", "f1")
    table.add_row(
        text("tables.all"),
        str(figures["support"]),
        *(_figure(figures[name]) for name in ("mAP50", "mAP50_95", "precision", "recall", "f1")),
        style="bold",
    )
    table.caption = _caption(figures, ["threshold", "mean_iou"], ["exact_sum", "exact_count"])
    return table


def classification_table(figures: Mapping[str, Any]) -> Table:
    """Precision, recall and F1 per class; below it the accuracy and the calibration error."""
    table = _table(figures, "support", "precision", "recall", "f1")
    table.add_row(
        text("tables.all"),
        str(figures["images"]),
        *(_figure(figures[name]) for name in ("precision", "recall", "f1")),
        style="bold",
    )
    top5 = ["accuracy_top5"] if "accuracy_top5" in figures else []
    table.caption = _caption(figures, ["accuracy", *top5], ["ece"])
    return table


def list_table(area: str, columns: Sequence[str], whole: Sequence[str]) -> Table:
    """An empty table whose heads are the texts `<area>.<column>`; the columns in `whole` are never shortened."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        head = text(f"{area}.{column}")
        table.add_column(head, no_wrap=column in whole, overflow="fold", min_width=len(head))
    return table


def show_list(table: Table, spare: Sequence[str] = (), *, stderr: bool = False) -> None:
    """Print a table without the columns that are empty; into a file or a pipe it is as wide as it needs. On a terminal
    that is too narrow it does without those with the heads `spare`, one after the other."""
    table.columns = [column for column in table.columns if any(map(str, column.cells))]
    for head in spare:
        if is_too_wide(table):
            table.columns = [column for column in table.columns if column.header != head]
    _console(stderr).print(table)


def is_too_wide(table: Table) -> bool:
    """Whether the terminal is too narrow for a table as it is."""
    console = _console()
    return console.measure(table, options=console.options.update(width=UNBOUNDED)).maximum > console.width


def _console(stderr: bool = False) -> Console:
    """As wide as the terminal; a file or a pipe has no width."""
    width = None if Console(stderr=stderr).is_terminal else UNBOUNDED
    return Console(highlight=False, width=width, stderr=stderr)


def spreadsheet_cell(value: str) -> str:
    """What begins like a formula of a spreadsheet gets an apostrophe, so that no name is computed."""
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _table(figures: Mapping[str, Any], *columns: str) -> Table:
    """A table with one row per class, its last one closed by a line."""
    classes: Sequence[Mapping[str, Any]] = figures["classes"]
    has_values = any(row["value"] is not None for row in classes)
    table = Table(caption_justify="left", caption_style="")
    table.add_column(text("tables.denomination" if has_values else "tables.class"), no_wrap=True)
    for column in columns:
        table.add_column(text(f"tables.{column}"), justify="right", no_wrap=True)
    for shown, row in zip(display_names([row["name"] for row in classes]), classes):
        counts, rest = str(row[columns[0]]), columns[1:]
        table.add_row(_swatch(row["value"], shown), counts, *(_figure(row[name]) for name in rest))
    table.add_section()
    return table


def _swatch(value: int | None, name: str) -> Text:
    """The name behind a square in the note's colour."""
    colour = colour_of(value)
    if colour is None:
        return Text(name)
    return Text.assemble(("■ ", "rgb({},{},{})".format(*colour)), name)


def _caption(figures: Mapping[str, Any], *lines: Sequence[str]) -> str:
    """The figures of the whole set, line by line; one that is left out of the result shows as a dash."""
    named = [[f"{text(f'metrics.{name}')} {_figure(figures.get(name))}" for name in line] for line in lines]
    named[0].insert(0, text("tables.images_counted", count=figures["images"]))
    return "\n".join(" · ".join(line) for line in named)


def _figure(value: float | None) -> str:
    return NOT_DEFINED if value is None else f"{value:.3f}"
