"""Asking before a change: what is it, which parts matter, yes or no."""

from __future__ import annotations

from collections.abc import Sequence

import click

from smartcash.domain.changes import Change
from smartcash.utils.i18n import text

NOT_CONFIRMED = 3


def confirmed_by(
    changes: Sequence[Change], yes: bool, *, significant: str = "changes.ask_significant", quiet: bool = False
) -> str:
    """Show the changes and ask; significant ones are asked for a second time, with the text `significant`. Returns
    how they were confirmed, for the operation log; a no ends the program with exit code 3. `quiet`: the changes go
    to stderr, because stdout is for another program."""
    if not changes:
        return "none"
    click.echo(text("changes.title", count=len(changes)), err=quiet)
    for change in changes:
        click.echo(f"  • {change.message()}", err=quiet)
    if yes:
        return "--yes"
    agreed = _asked("changes.ask", quiet)
    if agreed and any(change.significant for change in changes):
        agreed = _asked(significant, quiet)
    if not agreed:
        click.echo(text("changes.refused"), err=True)
        raise SystemExit(NOT_CONFIRMED)
    return "asked"


def _asked(question: str, quiet: bool) -> bool:
    try:
        return click.confirm(text(question), default=False, err=quiet)
    except click.Abort:  # no terminal to answer from
        return False
