"""Points in time as a person types and reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from smartcash.utils.i18n import text

_DATE = r"\d{4}-?\d{2}-?\d{2}|\d{4}-?W\d{2}(-?\d)?"
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType):  # type: ignore[type-arg]  # only newer ones take any
    """`2026-11-01`, `2026-11-01T08:00` (local time) or `12h`, `7d`, `4w` ago → a datetime with its zone. A date
    alone is its first moment, with `end` its last."""

    name = "time"

    def __init__(self, *, end: bool = False) -> None:
        self.end = end

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if ago := re.fullmatch(r"(\d{1,6})([hdw])", value):
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            moment = datetime.fromisoformat(value)
            if self.end and re.fullmatch(_DATE, value):
                moment += timedelta(days=1) - timedelta.resolution
            return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(text("cli.log.when_wrong", value=value), param, ctx)


def shown(time: str) -> str:
    """A time from a file (UTC, ISO 8601, or "") in the zone of this machine, to the minute."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M") if time else ""
