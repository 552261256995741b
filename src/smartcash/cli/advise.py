"""`smartcash advise`: which backbone for these data on this machine."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartcash.cli import language_option
from smartcash.cli.options import TargetFile, json_option
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.domain.advice import Advice, Step

_BUDGET = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Budget(click.ParamType):  # type: ignore[type-arg]  # only newer ones take any
    """30m, 2h, 90s or 1h30m, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = _BUDGET.fullmatch(str(value).strip().lower())
        if not value or found is None:
            self.fail(text("advice.budget_wrong", value=value), param, ctx)
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return float(hours * 3600 + minutes * 60 + seconds)


@language_option
@click.command("advise", help=text("cli.advise.help"), epilog=text("cli.advise.example"))
@click.argument("data", required=False, default="")
@click.option("--backbones", help=text("cli.advise.backbones"))
@click.option("--budget", type=Budget(), help=text("cli.advise.budget"))
@click.option("--resume", "advice_id", metavar="ADVICE", help=text("cli.advise.resume"))
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help=text("cli.train.set"))
@click.option("--html", "page", type=TargetFile(), help=text("cli.advise.html"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.train.home"))
@click.option("--yes", is_flag=True, help=text("cli.train.yes"))
@json_option
def command(
    data: str,
    backbones: str | None,
    budget: float | None,
    advice_id: str | None,
    assignments: tuple[str, ...],
    page: Path | None,
    home: Path | None,
    yes: bool,
    as_json: bool,
) -> None:
    from smartcash.cli.confirming import confirmed_by
    from smartcash.cli.running import backbone_problems
    from smartcash.domain.config import parse_assignments
    from smartcash.domain.errors import ConfigInvalid
    from smartcash.handlers.advice import Advisor
    from smartcash.services.control import listen_to_signals, reason_of_interrupt

    wanted = bool(data and backbones and budget)
    if wanted == bool(advice_id) or (advice_id and assignments):
        raise click.UsageError(text("advice.usage"))
    advisor = Advisor(home, _measured, interface="cli", try_backbone=backbone_problems)
    if advice_id:
        advice = advisor.find(advice_id)
    else:
        names = [name.strip() for name in str(backbones).split(",")]
        review = advisor.check(data, names, budget or 0.0, parse_assignments(assignments))
        if review.problems:
            raise ConfigInvalid(review.problems)
        how = confirmed_by(review.changes, yes, quiet=as_json)
        advice = advisor.begin(review, confirmed=how)
    try:
        with listen_to_signals() as signals:

            def listen(advice: Advice, step: Step, record: Mapping[str, Any] | None) -> None:
                signals.raise_fallen()
                if not as_json:
                    _tell(advice, step, record)

            advice = advisor.run(advice, listen)
    except KeyboardInterrupt as interrupted:
        click.echo(text("advice.interrupted", advice=advice.id), err=True)
        sys.exit(130 if reason_of_interrupt(interrupted) == "stopped" else 143)
    if page is not None:
        from smartcash.ui.advice import advice_page
        from smartcash.utils.files import write_bytes

        write_bytes(page, advice_page(advice).encode())
    if as_json:
        click.echo(json.dumps(plain(advice), indent=2, ensure_ascii=False))
        return
    _show(advice)
    if page is not None:
        click.echo(text("advice.page", path=page))


def plain(advice: Advice) -> dict[str, Any]:
    """An advice with what follows from it: the front, the recommended backbone, and a reason for each."""
    from dataclasses import asdict

    from smartcash.domain.advice import front, reasons, recommended

    choice = recommended(advice.rated)
    return {
        **advice.to_dict(),
        "front": [trial.backbone for trial in front(advice.rated)],
        "recommended": choice.backbone if choice else None,
        "reasons": {backbone: asdict(reason) for backbone, reason in reasons(advice).items()},
    }


def _measured(run: Any) -> dict[str, float]:
    from smartcash.worker.advising import measure_speed

    return measure_speed(run)


def _tell(advice: Advice, step: Step, record: Mapping[str, Any] | None) -> None:
    """One line when a training begins, and one for each of its epochs."""
    from smartcash.cli.progress import duration
    from smartcash.domain.advice import RATED

    backbone = advice.trials[step.trial].backbone
    if record is None:
        seconds = duration(max(0.0, step.limit_s - advice.trials[step.trial].trained_s))
        click.echo(
            text("advice.step", round=step.round, rounds=step.rounds, backbone=backbone, duration=seconds)
        )
    elif record["type"] == "EpochEnded":
        row = record["row"]
        name, value = next(((name, row[name]) for name in RATED if row.get(name) is not None), ("–", None))
        figure = "" if value is None else f"{value:.3f}"
        click.echo(text("advice.epoch", epoch=record["epoch"], name=name, value=figure))


def _show(advice: Advice) -> None:
    from rich.text import Text

    from smartcash.cli.tables import list_table, show_list
    from smartcash.domain.advice import recommended
    from smartcash.ui.advice import COLUMNS, notes_of, rows_of, words_of
    from smartcash.utils.printable import plain

    table = list_table("advice.column", COLUMNS, whole=COLUMNS)
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows_of(advice):
        table.add_row(*(Text(row[name]) for name in COLUMNS))
    click.echo()
    show_list(table)
    words, choice = words_of(advice), recommended(advice.rated)
    if choice is not None:
        said = text("advice.recommended", backbone=choice.backbone, reason=words.pop(choice.backbone))
        click.echo(f"★ {said}")
        click.echo(text("advice.go_on", version=choice.version) if choice.version else "")
    for backbone, said in words.items():
        click.echo(plain(f"  {backbone}: {said}"))
    for note in notes_of(advice):
        click.echo(f"  {note}")
