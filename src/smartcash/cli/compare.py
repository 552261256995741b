"""`smartcash compare`: runs and versions side by side."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from smartcash.cli import language_option
from smartcash.cli.options import TargetFile
from smartcash.utils.i18n import text


@language_option
@click.command("compare", help=text("cli.compare.help"), epilog=text("cli.compare.example"))
@click.argument("models", metavar="VERSION|RUN…", nargs=-1, required=True)
@click.option("--split", type=click.Choice(["train", "valid", "test"]), help=text("cli.compare.split"))
@click.option("--data", default="", help=text("cli.compare.data"))
@click.option("--html", "html", type=TargetFile(), help=text("cli.compare.html"))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=text("cli.compare.out"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.runs.home"))
@click.option("--device", default="auto", show_default=True, help=text("cli.device"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
def command(
    models: tuple[str, ...],
    split: str | None,
    data: str,
    html: Path | None,
    out: Path | None,
    home: Path | None,
    device: str,
    as_json: bool,
) -> None:
    from smartcash.worker import compare

    with tempfile.TemporaryDirectory(prefix="smartcash-") as scratch:
        folder = out or (Path(scratch) if html is not None else None)
        facts = compare(*models, split=split or "", data=data, home=home, out=folder, device=device)
        if html is not None and folder is not None:
            from smartcash.backend.comparison_page import comparison_page
            from smartcash.utils.files import write_bytes

            write_bytes(html, comparison_page(facts, lambda name: (folder / name).read_bytes()))
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False).encode("utf-8", "replace").decode())
        return
    _show(facts)
    if html is not None:
        click.echo(text("compare.written", path=html))


def _show(facts: Mapping[str, Any]) -> None:
    from rich.text import Text

    from smartcash.cli.tables import list_table, show_list
    from smartcash.utils.printable import plain

    judged, names = facts["judged"], [model["name"] for model in facts["models"]]
    counts = {name: judged[name] for name in ("split", "images", "objects", "resamples")}
    click.echo(text("compare.judged_on", data=plain(judged["data"]), **counts))
    if judged["chosen_on"]:
        click.echo(f"⚠ {text('compare.chosen_on')}")
    for name, known in zip(names, judged["seen_in_training"]):
        if known:
            click.echo(f"⚠ {text('compare.leak', name=name, count=known, images=judged['images'])}")
    table = list_table("compare", ["figure"], whole=["figure"])
    for head in (*names, *(text("compare.less", name=name, first=names[0]) for name in names[1:])):
        table.add_column(Text(head), justify="right", no_wrap=True)
    for row in judged["metrics"]:
        table.add_row(
            Text(text(f"metrics.{row['name']}")),
            *map(_estimate, row["values"]),
            *map(_delta, row["deltas"][1:]),
        )
    table.add_section()
    for each in judged["classes"]:
        row = each["metrics"][0]
        if each["support"]:
            shown = f"{plain(each['name'])}: {text('tables.' + row['name'])}"
            table.add_row(Text(shown), *map(_estimate, row["values"]), *map(_delta, row["deltas"][1:]))
    show_list(table)
    agreement = judged["agreement"]
    only = ", ".join(f"{name} {count}" for name, count in zip(names, agreement["only"]))
    totals = {"right": agreement["all_right"], "wrong": agreement["all_wrong"], "images": judged["images"]}
    click.echo(text("compare.agreement", only=only, **totals))
    click.echo()
    if not facts["config"]:
        click.echo(text("compare.same_config"))
    else:
        differing = list_table("compare", ["field"], whole=["field"])
        for name in names:
            differing.add_column(Text(name), overflow="fold")
        for each in facts["config"]:
            mark = " ⚠" if each["why"] else ""
            cells = (Text("–" if value in (None, "", []) else plain(str(value))) for value in each["values"])
            differing.add_row(Text(each["field"] + mark), *cells)
        show_list(differing)
    if facts["data"]["same"]:
        click.echo(text("compare.same_data", hash=facts["data"]["sets"][0]["content_hash"][:16]))
    for each in facts["data"]["differences"]:
        if not facts["data"]["same"]:
            values = " | ".join(plain(str(value)) for value in each["values"])
            click.echo(f"{each['what']}: {values}")


def _estimate(estimate: Mapping[str, float] | None) -> str:
    return "–" if estimate is None else "{value:.3f} ({low:.3f}–{high:.3f})".format(**estimate)


def _delta(delta: Mapping[str, Any] | None) -> str:
    if delta is None:
        return "–"
    figures = "{value:+.3f} ({low:+.3f} … {high:+.3f})".format(**delta)
    return f"{figures} {text('compare.verdict.' + delta['verdict'])}"
