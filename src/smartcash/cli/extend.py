"""`smartcash extend`: train a finished run for more epochs, as a run of its own."""

from __future__ import annotations

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text

POLICIES = ("rescale", "continue-constant", "restart-cosine")


@language_option
@click.command("extend", help=text("cli.extend.help"), epilog=text("cli.extend.example"))
@click.argument("run")
@click.option("--epochs", type=int, required=True, help=text("cli.extend.epochs"))
@click.option("--schedule", type=click.Choice(POLICIES), default="rescale", help=text("cli.extend.schedule"))
def command(run: str, epochs: int, schedule: str) -> None:
    from smartcash.cli.running import foreground
    from smartcash.services.run_store import find_run

    parent = find_run(run)
    with foreground() as (display, signals):
        from smartcash.worker import extend

        child, outcome = extend(parent, epochs, schedule.replace("-", "_"), display, signals=signals)
        display.finish(child.path, outcome)
