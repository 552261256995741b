"""`smartcash answer`: a workbench, which the web page's server starts. One question a line, one answer a line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from smartcash.cli import language_option
from smartcash.domain.errors import SmartCashError
from smartcash.utils.files import reason_of
from smartcash.utils.i18n import text


@language_option
@click.command("answer", hidden=True, help=text("cli.answer.help"), epilog=text("cli.answer.example"))
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help=text("cli.runs.home"))
def command(home: Path | None) -> None:
    if home is not None:
        os.environ["SMARTCASH_HOME"] = str(home)
    # what libraries print must not come between the answers
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if sys.platform != "win32":
        os.nice(5)  # a training goes before a look at a picture
    while line := _next_line():
        answers.write(_answered(line) + b"\n")
        answers.flush()


def _next_line() -> bytes:
    """The next question; empty when nobody asks any more, or has not for long."""
    import select

    from smartcash.services.workbench import IDLE_S

    if sys.platform != "win32" and not select.select([0], [], [], IDLE_S)[0]:
        return b""
    return sys.stdin.buffer.readline()


def _unreadable(error: OSError) -> SmartCashError:
    """A path that cannot be looked at: too long, forbidden, a loop of links."""
    from smartcash.domain.errors import DataInvalid

    return DataInvalid("picture_unreadable", path=str(error.filename), reason=reason_of(error))


def _answer(question: str, facts: Mapping[str, Any]) -> Any:
    """The answer to a question as plain JSON values. Raises SmartCashError, or KeyError for an unknown question."""
    from smartcash.services.event_log import finite
    from smartcash.worker import data_answers

    if question in data_answers.QUESTIONS:
        return finite(data_answers.QUESTIONS[question](**facts))
    from smartcash.worker import answers  # loads torch: seconds

    return finite(answers.QUESTIONS[question](**facts))


def _answered(line: bytes) -> bytes:
    from smartcash.utils.i18n import set_language

    question = json.loads(line)
    set_language(question.pop("language"))
    try:
        found = {"answer": _answer(question.pop("ask"), question)}
    except (SmartCashError, OSError) as caught:
        error = caught if isinstance(caught, SmartCashError) else _unreadable(caught)
        problems = [
            {"field": p.field, "code": p.code, "value": str(p.value), "facts": p.facts}
            for p in error.as_problems()
            if p.field
        ]
        found = {
            "error": {"code": error.code, "facts": error.facts, "message": str(error), "problems": problems}
        }
    return json.dumps(found, default=str).encode()
