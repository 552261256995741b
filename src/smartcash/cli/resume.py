"""`smartcash resume`: go on with a run that was stopped, killed or has failed."""

from __future__ import annotations

from pathlib import Path

import click

from smartcash.cli import language_option, leads
from smartcash.utils.i18n import text


@language_option
@click.command("resume", help=text("cli.resume.help"), epilog=text("cli.resume.example"))
@click.argument("run")
@click.option("--data", type=click.Path(path_type=Path), help=text("cli.resume.data"))
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help=text("cli.resume.set"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.train.home"))
@click.option("--yes", is_flag=True, help=text("cli.resume.yes"))
@click.option("--background", is_flag=True, help=text("cli.train.background"))
def command(
    run: str, data: Path | None, assignments: tuple[str, ...], home: Path | None, yes: bool, background: bool
) -> None:
    from smartcash.cli.confirming import confirmed_by
    from smartcash.cli.running import foreground, turn_on
    from smartcash.domain.config import merge, parse_assignments
    from smartcash.domain.errors import ConfigInvalid
    from smartcash.domain.events import Event, RunStarted
    from smartcash.handlers.training_manager import TrainingManager
    from smartcash.services.run_store import find_run

    folder = find_run(run, home)
    changed = parse_assignments(assignments)
    if data is not None:
        changed = merge(changed, {"data": {"path": str(data.absolute())}})
    manager = TrainingManager(folder.path.parent.parent, interface="cli")
    review = manager.check(merge(folder.config().model_dump(mode="json"), changed), run=folder)
    if review.config is None or review.problems:
        raise ConfigInvalid(review.problems)
    how = confirmed_by(review.changes, yes) if leads() else ""
    if background:
        if review.changes:
            manager.apply(review, significant=True, confirmed=how)
        manager.resume(folder, confirmed=how)
        click.echo(text("train.in_background", run=folder.id))
        return

    with foreground() as (display, signals), turn_on(manager.home, review.config.runtime.device):
        from smartcash.worker import resume

        def listen(event: Event) -> None:
            if isinstance(event, RunStarted):
                manager.resumed(folder, review, how)
            display(event)

        outcome = resume(folder, listen, config=review.config, signals=signals)
        display.finish(folder.path, outcome)
