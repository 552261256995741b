"""Points in time as a person types and reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from smartcash.utils.i18n import text

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType):
    """`2026-11-01`, `2026-11-01T08:00` (local time) or `12h`, `7d`, `4w` ago → a datetime with its zone."""

    name = "text"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if ago := re.fullmatch(r"(\d{1,6})([hdw])", value):
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(text("cli.log.when_wrong", value=value), param, ctx)


def shown(time: str) -> str:
    """A time from a file (UTC, ISO 8601, or "") in the zone of this machine, to the minute."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M") if time else ""
