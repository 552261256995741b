"""Asking before a change: what is it, which parts matter, yes or no."""

from __future__ import annotations

import click

from smartcash.domain.changes import changes_between
from smartcash.domain.config import TrainConfig
from smartcash.utils.i18n import text

NOT_CONFIRMED = 3


def confirm_changes(old: TrainConfig, new: TrainConfig) -> None:
    """Show every difference and ask; a significant one is asked for a second time. No: exit code 3."""
    changes = changes_between(old, new)
    click.echo(text("changes.title", count=len(changes)))
    for change in changes:
        click.echo(f"  • {change.message()}")
    agreed = _asked("changes.ask")
    if agreed and any(change.significant for change in changes):
        agreed = _asked("changes.ask_significant")
    if not agreed:
        click.echo(text("changes.refused"), err=True)
        raise SystemExit(NOT_CONFIRMED)


def _asked(question: str) -> bool:
    try:
        return click.confirm(text(question), default=False)
    except click.Abort:  # no terminal to answer from
        return False
