"""`smartcash predict`: what a model sees in pictures, videos and through a camera."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from smartcash.cli import language_option
from smartcash.cli.options import TargetFile, json_option, models_home_option
from smartcash.utils.i18n import text

CSV_COLUMNS = ("file", "frame", "time_s", "class", "score", "value", "x1", "y1", "x2", "y2", "error")


@language_option
@click.command("predict", help=text("cli.predict.help"), epilog=text("cli.predict.example"))
@click.argument("model")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--camera", "cameras", type=click.IntRange(min=0), multiple=True, help=text("cli.predict.camera")
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=text("cli.predict.out"))
@click.option("--threshold", type=click.FloatRange(0, 1), help=text("cli.predict.threshold"))
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, help=text("cli.predict.every")
)
@click.option("--frames", type=click.IntRange(min=1), help=text("cli.predict.frames"))
@click.option("--csv", "csv_file", type=TargetFile(), help=text("cli.predict.csv"))
@click.option("--device", default="auto", show_default=True, help=text("cli.device"))
@json_option
@models_home_option
def command(
    model: str,
    images: tuple[Path, ...],
    cameras: tuple[int, ...],
    out: Path | None,
    threshold: float | None,
    every: int,
    frames: int | None,
    csv_file: Path | None,
    device: str,
    as_json: bool,
) -> None:
    if not images and not cameras:
        raise click.UsageError(text("predict.nothing_named"))
    sources: list[Path | int] = [*files_in(images), *cameras]
    from smartcash.utils.files import write_bytes
    from smartcash.worker import predict_files

    answers = predict_files(model, sources, out, threshold=threshold, device=device, every=every, most=frames)
    failed, interrupted = False, False
    rows: list[dict[str, Any]] = []
    try:
        for facts in answers:
            failed = failed or "error" in facts
            rows += _rows(facts) if csv_file is not None else []
            _show(facts, as_json)
    except KeyboardInterrupt:  # a camera has no end of its own
        interrupted = True
    finally:
        answers.close()
        if csv_file is not None:
            write_bytes(csv_file, _csv(rows).encode())
    if out is not None and not as_json:
        click.echo(text("predict.drawn", folder=out))
    if interrupted:
        sys.exit(130)
    if failed:
        sys.exit(1)


def _show(facts: dict[str, Any], as_json: bool) -> None:
    from smartcash.domain.banknotes import format_rupiah
    from smartcash.utils.printable import plain

    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    if "error" in facts:
        click.echo(plain(f"✗ {facts['error']}"), err=True)
        return
    seen = ", ".join(f"{row['class']} {row['score']:.0%}" for row in facts["found"]) or text(
        "predict.nothing"
    )
    total = "" if facts["total_rupiah"] is None else f"  =  {format_rupiah(facts['total_rupiah'])}"
    moment = f" {facts['time_s']:.2f} s" if "time_s" in facts else ""
    click.echo(plain(f"{facts['file']}{moment}: {seen}{total}"))


def _rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each thing found; one without a class where there is nothing."""
    common = {name: facts[name] for name in ("file", "frame", "time_s", "error") if name in facts}
    found: list[dict[str, Any]] = facts.get("found") or [{}]
    rows = []
    for row in found:
        own = {name: row[name] for name in ("class", "score", "value") if name in row}
        sides: zip[tuple[str, float]] = zip(("x1", "y1", "x2", "y2"), row.get("box_xyxy", []))
        rows.append(common | own | dict(sides))
    return rows


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    from smartcash.cli.tables import spreadsheet_cell

    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: spreadsheet_cell(each) if isinstance(each, str) else each for name, each in row.items()}
        for row in rows
    )
    return out.getvalue()


def files_in(given: tuple[Path, ...]) -> list[Path]:
    """Folders are opened, one level deep; hidden files are left out. A folder without a file is named, and the rest
    goes on; raises UsageError when nothing is left, or nothing of it exists."""
    if given and not any(map(os.path.lexists, given)):
        names = ", ".join(map(str, given[:5]))
        raise click.UsageError(text("predict.none_there", names=names, here=Path.cwd()))
    files: list[Path] = []
    empty: list[str] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(each for each in path.iterdir() if not each.name.startswith("."))
        found = [each for each in inside if each.is_file()]
        if not found:
            folders = ", ".join(each.name for each in inside[:5] if each.is_dir())
            told = text("predict.folder_of_folders", folder=path, folders=folders) if folders else ""
            empty.append(told or text("predict.folder_empty", folder=path))
        files += found
    if empty and not files:
        raise click.UsageError(" ".join(empty))
    for told in empty:
        click.echo(f"⚠ {told}", err=True)
    return files
