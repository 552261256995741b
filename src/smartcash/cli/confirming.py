"""Asking before a change: what is it, which parts matter, yes or no."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from smartcash.domain.records import Change
from smartcash.utils.i18n import text

NOT_CONFIRMED = 3


def confirmed_by(
    changes: Sequence[Change],
    yes: bool,
    *,
    ask: str = "changes.ask",
    significant: str = "changes.ask_significant",
    quiet: bool = False,
) -> str:
    """Show the changes and ask with the text `ask`; significant ones are asked for a second time, with the text
    `significant`. Returns how they were confirmed, for the operation log; a no ends the program with exit code 3.
    `quiet`: everything goes to stderr, because stdout is for another program."""
    if not changes:
        return "none"
    click.echo(text("changes.title", count=len(changes)), err=quiet)
    for change in changes:
        click.echo(f"  • {change.message()}", err=quiet)
    if yes:
        return "--yes"
    agreed = asked(text(ask), quiet)
    if agreed and any(change.significant for change in changes):
        agreed = asked(text(significant), quiet)
    if not agreed:
        refuse("changes.refused" if sys.stdin.isatty() else "changes.unasked")
    return "asked"


def asked(question: str, quiet: bool = False) -> bool:
    """Whether the person says yes; where there is no terminal to answer from, nobody does."""
    try:
        return click.confirm(question, default=False, err=quiet)
    except click.Abort:
        click.echo(err=quiet)  # the question stands there without an end of its line
        return False


def refuse(words: str) -> NoReturn:
    """Say that nothing was done, with the text `words`, and end with exit code 3."""
    click.echo(text(words), err=True)
    raise SystemExit(NOT_CONFIRMED)
