"""`smartcash resume`: go on with a run that was stopped, killed or has failed."""

from __future__ import annotations

from pathlib import Path

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text


@language_option
@click.command("resume", help=text("cli.resume.help"), epilog=text("cli.resume.example"))
@click.argument("run")
@click.option("--data", type=click.Path(path_type=Path), help=text("cli.resume.data"))
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help=text("cli.resume.set"))
@click.option("--yes", is_flag=True, help=text("cli.resume.yes"))
def command(run: str, data: Path | None, assignments: tuple[str, ...], yes: bool) -> None:
    from smartcash.domain.config import merge, parse_assignments
    from smartcash.services.run_store import find_run

    folder = find_run(run)
    own = folder.config()
    changed = parse_assignments(assignments)
    if data is not None:
        changed = merge(changed, {"data": {"path": str(data.absolute())}})
    config = own.replaced(**changed)
    if config != own and not yes:
        from smartcash.cli.confirming import confirm_changes

        confirm_changes(own, config)

    from smartcash.cli.running import foreground

    with foreground() as (display, signals):
        from smartcash.worker import resume

        outcome = resume(folder, display, config=config, signals=signals)
        display.finish(folder.path, outcome)
