"""`smartcash doctor`: is the installation sound, and everything in the home what it should be?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from smartcash.cli import language_option
from smartcash.utils.i18n import text

if TYPE_CHECKING:
    from smartcash.handlers.doctor import Diagnosis

_MARKS = {"ok": ("✓", "green"), "note": ("•", ""), "warning": ("!", "yellow"), "error": ("✗", "red")}


@language_option
@click.command("doctor", help=text("cli.doctor.help"), epilog=text("cli.doctor.example"))
@click.option("--fix", is_flag=True, help=text("cli.doctor.fix"))
@click.option("--deep", is_flag=True, help=text("cli.doctor.deep"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.runs.home"))
@click.option("--json", "as_json", is_flag=True, help=text("cli.json"))
def command(fix: bool, deep: bool, home: Path | None, as_json: bool) -> None:
    from smartcash.handlers.doctor import examine
    from smartcash.services.run_store import home as default_home

    found = examine(home or default_home(), _torch_facts(), fix=fix, deep=deep)
    findings = list(found if as_json else _shown(found))
    wrong = sum(finding.wrong for finding in findings)
    if as_json:
        rows = [finding.to_dict() for finding in findings]
        click.echo(json.dumps({"healthy": not wrong, "findings": rows}, indent=2))
    else:
        click.echo(f"\n{text('doctor.unhealthy' if wrong else 'doctor.healthy', count=wrong)}")
        if fixed := sum(finding.fixed for finding in findings):
            click.echo(text("doctor.put_right", count=fixed))
    if wrong:
        raise SystemExit(1)


def _torch_facts() -> dict[str, Any] | str:
    """What torch says of this machine, or why it cannot be loaded."""
    try:
        from smartcash.worker import torch_facts
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return torch_facts()


def _shown(findings: Iterable[Diagnosis]) -> Iterable[Diagnosis]:
    """Print each as it is found, below the name of its area."""
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            click.echo(click.style(text(f"doctor.area.{area}"), bold=True))
        mark, colour = ("✓", "green") if finding.fixed else _MARKS[finding.severity]
        click.echo(f"  {click.style(mark, fg=colour or None)} {finding.message()}")
        if advice := finding.advice():
            click.echo(f"      {advice}")
        yield finding
