"""Asking before a change: what is it, which parts matter, yes or no."""

from __future__ import annotations

from collections.abc import Sequence

import click

from smartcash.domain.changes import Change
from smartcash.utils.i18n import text

NOT_CONFIRMED = 3


def confirmed_by(changes: Sequence[Change], yes: bool) -> str:
    """Show the changes and ask; significant ones are asked for a second time. Returns how they were confirmed, for
    the operation log; a no ends the program with exit code 3."""
    if not changes:
        return "none"
    click.echo(text("changes.title", count=len(changes)))
    for change in changes:
        click.echo(f"  • {change.message()}")
    if yes:
        return "--yes"
    agreed = _asked("changes.ask")
    if agreed and any(change.significant for change in changes):
        agreed = _asked("changes.ask_significant")
    if not agreed:
        click.echo(text("changes.refused"), err=True)
        raise SystemExit(NOT_CONFIRMED)
    return "asked"


def _asked(question: str) -> bool:
    try:
        return click.confirm(text(question), default=False)
    except click.Abort:  # no terminal to answer from
        return False
