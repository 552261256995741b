"""`smartcash extend`: train a finished run for more epochs, as a run of its own."""

from __future__ import annotations

from pathlib import Path

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text

POLICIES = ("rescale", "continue-constant", "restart-cosine")


@language_option
@click.command("extend", help=text("cli.extend.help"), epilog=text("cli.extend.example"))
@click.argument("run")
@click.option("--epochs", type=int, required=True, help=text("cli.extend.epochs"))
@click.option("--schedule", type=click.Choice(POLICIES), default="rescale", help=text("cli.extend.schedule"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.train.home"))
def command(run: str, epochs: int, schedule: str, home: Path | None) -> None:
    from smartcash.cli.running import foreground, turn_on
    from smartcash.domain.events import Event, RunStarted
    from smartcash.handlers.training_manager import TrainingManager
    from smartcash.services.run_store import find_run

    parent = find_run(run, home)
    manager = TrainingManager(parent.path.parent.parent, interface="cli")
    with foreground() as (display, signals), turn_on(manager.home, parent.config().runtime.device):
        from smartcash.worker import extend

        def listen(event: Event) -> None:
            if isinstance(event, RunStarted):
                manager.extended(parent, event.folder, epochs)
            display(event)

        policy = schedule.replace("-", "_")
        child, outcome = extend(parent, epochs, policy, listen, signals=signals)
        display.finish(child.path, outcome)
