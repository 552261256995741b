"""`smartcash report`: how good a model is, and where it gives way."""

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
@click.command("report", help=text("cli.report.help"), epilog=text("cli.report.example"))
@click.argument("model", metavar="VERSION|RUN")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), help=text("cli.compare.split"))
@click.option("--data", default="", help=text("cli.report.data"))
@click.option("--html", "html", type=TargetFile(), help=text("cli.compare.html"))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=text("cli.report.out"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.runs.home"))
@click.option("--device", default="auto", show_default=True, help=text("cli.device"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
def command(
    model: str,
    split: str | None,
    data: str,
    html: Path | None,
    out: Path | None,
    home: Path | None,
    device: str,
    as_json: bool,
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from smartcash.worker import report

    with tempfile.TemporaryDirectory(prefix="smartcash-") as scratch:
        folder = out or (Path(scratch) if html is not None else None)
        with Progress(transient=True, console=Console(stderr=True)) as progress:
            bar = progress.add_task(text("report.looking"), total=None)
            facts = report(
                model, split=split or "", data=data, home=home, out=folder, device=device,
                listen=lambda what, done, total: progress.update(bar, completed=done, total=total),
            )  # fmt: skip
        if html is not None and folder is not None:
            from smartcash.backend.card_page import card_page
            from smartcash.utils.files import write_bytes

            write_bytes(html, card_page(facts, lambda name: (folder / name).read_bytes()))
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

    counts = {name: facts[name] for name in ("split", "images", "objects", "resamples")}
    click.echo(text("report.title", name=facts["model"]["name"]))
    click.echo(text("compare.judged_on", data=plain(facts["data"]), **counts))
    if facts["chosen_on"]:
        click.echo(f"⚠ {text('compare.chosen_on')}")
    if facts["seen_in_training"]:
        leak = {"name": facts["model"]["name"], "count": facts["seen_in_training"], "images": facts["images"]}
        click.echo(f"⚠ {text('compare.leak', **leak)}")
    table = list_table("compare", ["figure"], whole=["figure"])
    table.add_column(text("report.interval"), justify="right", no_wrap=True)
    for row in facts["metrics"]:
        table.add_row(Text(text(f"metrics.{row['name']}")), _estimate(row["value"]))
    show_list(table)
    metric = list(facts["robustness"]["plain"])[-1]
    hard = list_table("report", ["hardships"], whole=["hardships"])
    for level in range(4):
        hard.add_column(text(f"report.levels.{level}"), justify="right", no_wrap=True)
    plain_one = _estimate(facts["robustness"]["plain"][metric])
    for hardship in facts["robustness"]["hardships"]:
        cells = (_estimate(level["figures"][metric]) for level in hardship["levels"])
        hard.add_row(Text(text(f"report.hardship.{hardship['name']}")), plain_one, *cells)
    click.echo(
        text("report.robustness_of", metric=text(f"metrics.{metric}"), images=facts["robustness"]["images"])
    )
    show_list(hard)
    found = {kind: count for kind, count in facts["mistakes"]["counts"].items() if count}
    kinds = ", ".join(f"{text('report.kind.' + kind)} {count}" for kind, count in found.items())
    click.echo(text("report.mistakes_line", kinds=kinds or "–"))
    from smartcash.backend.calibration import short_of_target

    limits = facts["limits"]
    chosen = {
        "images": limits["images"],
        "abstain": f"{limits['abstain']:.2f}",
        "target": f"{limits['target']:.0%}",
    }
    click.echo(text("report.limits_how", **chosen))
    click.echo(text("report.limits_kept" if limits["kept"] else "report.limits_not_kept"))
    if not limits["reached"]:
        click.echo(f"⚠ {text('report.limit_not_reached', **chosen)}")
    if few := short_of_target(limits):
        click.echo(f"⚠ {text('report.limit_few', **few)}")
    pace = facts["pace"]
    click.echo(
        text(
            "report.pace_line", p50=f"{pace['p50_ms']:.1f}", p95=f"{pace['p95_ms']:.1f}", threads=pace["threads"],
            picture=" × ".join(map(str, pace["picture"])), megabytes=f"{facts['model']['size_bytes'] / 1e6:.1f}",
        )
    )  # fmt: skip


def _estimate(estimate: Mapping[str, float] | None) -> str:
    return "–" if estimate is None else "{value:.3f} ({low:.3f}–{high:.3f})".format(**estimate)
