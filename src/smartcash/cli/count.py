"""`smartcash count`: the money in pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from smartcash.cli import language_option
from smartcash.cli.options import TargetFile, json_option, models_home_option
from smartcash.cli.predict import files_in
from smartcash.utils.i18n import text

SHOWN_DOUBTS = 5  # of one picture; --json has all


@language_option
@click.command("count", help=text("cli.count.help"), epilog=text("cli.count.example"))
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--threshold", type=click.FloatRange(0, 1), help=text("cli.predict.threshold"))
@click.option("--abstain", type=click.FloatRange(0, 1), help=text("cli.count.abstain"))
@click.option("--csv", "csv_file", type=TargetFile(), help=text("cli.count.csv"))
@click.option("--device", default="auto", show_default=True, help=text("cli.device"))
@json_option
@models_home_option
def command(
    model: str,
    images: tuple[Path, ...],
    threshold: float | None,
    abstain: float | None,
    csv_file: Path | None,
    device: str,
    as_json: bool,
) -> None:
    files = files_in(images)
    from smartcash.utils.files import write_bytes
    from smartcash.worker import count_files

    counted: list[dict[str, Any]] = []
    for facts in count_files(model, files, abstain=abstain, threshold=threshold, device=device):
        counted.append(facts)
        if not as_json:
            click.echo(f"✗ {facts['error']}" if "error" in facts else _line(facts), err="error" in facts)
    good = [facts for facts in counted if "error" not in facts]
    if csv_file is not None:
        write_bytes(csv_file, _csv(counted).encode())
    if as_json:
        click.echo(json.dumps({"pictures": counted, "total": total(good)}, indent=2, ensure_ascii=False))
    elif good:
        _show_total(total(good))
        if not all(facts["measured"] for facts in good):
            told = text("count.unmeasured", abstain=f"{good[0]['abstain']:.0%}", model=model)
            click.echo(f"⚠ {told}")
    if len(good) < len(counted):
        raise SystemExit(1)


def total(pictures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All pictures together: notes of every class, their sum (None where no class has a value), how many pictures,
    and how many of them are not sure."""
    counts: dict[str, dict[str, Any]] = {}
    for picture in pictures:
        for row in picture["counts"]:
            known = counts.setdefault(row["class"], {**row, "notes": 0})
            known["notes"] += row["notes"]
    sums = [picture["total_rupiah"] for picture in pictures if picture["total_rupiah"] is not None]
    return {
        "counts": list(counts.values()),
        "total_rupiah": sum(sums) if sums else None,
        "pictures": len(pictures),
        "not_sure": sum(not picture["sure"] for picture in pictures),
    }


def _line(facts: dict[str, Any]) -> str:
    """A picture's notes and their sum; where it is not sure, the likeliest of what might be there, a line each."""
    from smartcash.domain.banknotes import format_rupiah

    names = _names(facts["counts"])
    notes = ", ".join(f"{row['notes']} × {names[row['class']]}" for row in facts["counts"] if row["notes"])
    value = "" if facts["total_rupiah"] is None else f"  =  {format_rupiah(facts['total_rupiah'])}"
    line = f"{facts['file']}: {notes or text('predict.nothing')}{value}"
    if facts["sure"]:
        return line
    doubts = sorted(facts["doubts"], key=lambda row: row["score"], reverse=True)
    lines = [f"{line}  ⚠ {text('count.not_sure')}"]
    lines += [f"    {names[row['class']]}  {row['score']:.0%}" for row in doubts[:SHOWN_DOUBTS]]
    if len(doubts) > SHOWN_DOUBTS:
        lines.append(f"    {text('count.more_doubts', count=len(doubts) - SHOWN_DOUBTS)}")
    return "\n".join(lines)


def _show_total(whole: dict[str, Any]) -> None:
    from rich.text import Text

    from smartcash.cli.tables import list_table, show_list
    from smartcash.domain.banknotes import format_rupiah

    names = _names(whole["counts"])
    table = list_table(
        "count.column", ("denomination", "notes", "sum"), whole=("denomination", "notes", "sum")
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for row in sorted(whole["counts"], key=lambda row: row["value"] or 0):
        if row["notes"]:
            value = "" if row["value"] is None else format_rupiah(row["value"] * row["notes"])
            table.add_row(Text(names[row["class"]]), str(row["notes"]), value)
    if table.rows:
        click.echo()
        show_list(table)
    value = "" if whole["total_rupiah"] is None else format_rupiah(whole["total_rupiah"])
    click.echo(text("count.total", total=value or "–", pictures=whole["pictures"]))
    if whole["not_sure"]:
        click.echo(f"⚠ {text('count.unsure_pictures', count=whole['not_sure'])}")


def _names(counts: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Class → how it is shown."""
    from smartcash.domain.banknotes import display_names

    classes = [row["class"] for row in counts]
    return dict(zip(classes, display_names(classes)))


def _csv(pictures: Sequence[dict[str, Any]]) -> str:
    """One row per picture: a column for each class, the sum, and whether it is sure."""
    from smartcash.cli.tables import spreadsheet_cell as cell

    classes = next(([row["class"] for row in each["counts"]] for each in pictures if "counts" in each), [])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", *map(cell, classes), "total_rupiah", "sure", "error"])
    for each in pictures:
        if "error" in each:
            writer.writerow([cell(each["file"]), *("" for _ in classes), "", "", cell(each["error"])])
        else:
            notes = (row["notes"] for row in each["counts"])
            writer.writerow([cell(each["file"]), *notes, each["total_rupiah"], str(each["sure"]).lower(), ""])
    return out.getvalue()
