"""`smartcash benchmark`: how fast, how large and how good a model and its exported files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from smartcash.cli import language_option
from smartcash.cli.options import TargetFile, models_home_option
from smartcash.utils.i18n import text

COLUMNS = ("file", "format", "precision", "state", "p50", "p95", "throughput", "size", "metric")


@language_option
@click.command("benchmark", help=text("cli.benchmark.help"), epilog=text("cli.benchmark.example"))
@click.argument("run")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=3.0, show_default=True,
              help=text("cli.benchmark.seconds"))  # fmt: skip
@click.option("--threads", type=click.IntRange(1, 1024), help=text("cli.benchmark.threads"))
@click.option("--html", "html", type=TargetFile(), help=text("cli.compare.html"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
@models_home_option
def command(run: str, seconds: float, threads: int | None, html: Path | None, as_json: bool) -> None:
    from smartcash.worker import benchmark_exports

    rows = list(benchmark_exports(run, seconds=seconds, threads=threads or 0))
    if html is not None:
        from smartcash.backend.benchmark_page import benchmark_page
        from smartcash.utils.files import write_bytes

        write_bytes(html, benchmark_page(rows))
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from smartcash.cli.tables import list_table, show_list

    table = list_table("benchmark.column", COLUMNS, whole=("file", "p50", "p95"))
    for row in rows:
        if "error" in row:
            click.echo(text("benchmark.error", **row), err=True)
            continue
        table.add_row(*_cells(row))
    click.echo(text("benchmark.title", threads=rows[0]["threads"]))
    show_list(table)
    if html is not None:
        click.echo(text("compare.written", path=html))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from smartcash.backend.benchmark_page import file_of, metric_of

    state = text(f"benchmark.state.{row['state']}") if row["state"] else ""
    return (
        file_of(row), row["format"], row["precision"], state, f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}",
        f"{row['images_per_s']:.1f}", f"{row['size_bytes'] / 1e6:.1f}", metric_of(row),
    )  # fmt: skip
