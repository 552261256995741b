"""Notifications: whoever `notify.targets` names is told when a run ends, however it ends.

bell              the terminal's bell, and a desktop notification where there is a program for it
http(s)://…       a webhook: one POST of a `Notice` as JSON; redirects are not followed
anything else     an address that apprise knows (mail, Telegram, Slack, …; extra `notify`)

A target that cannot be reached is a warning: the run has ended as it has.
"""

from __future__ import annotations

import json
import platform
import shutil
import string
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http.client import HTTPException, HTTPMessage
from importlib.util import find_spec
from typing import IO
from urllib.parse import quote, urlsplit

from smartcash.domain.errors import Problem
from smartcash.domain.events import Warned
from smartcash.utils.i18n import decimal, text

LIMIT_S = 10.0
BELL = "bell"
WEB = ("http", "https")

# an Apple script that takes its words as arguments: what stands in a run's name is never run
_APPLE_SCRIPT = (
    *("-e", "on run words"),
    *("-e", "display notification (item 2 of words) with title (item 1 of words)"),
    *("-e", "end run"),
)


@dataclass(frozen=True)
class Notice:
    """What a target is told. `state`: finished, stopped, preempted or failed; `reason`: how it came to that, for a
    failed run its error; `metrics`: of the test split, else of the validation split."""

    run: str
    name: str
    state: str
    reason: str
    folder: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    host: str = field(default_factory=platform.node)

    @property
    def title(self) -> str:
        """One line, in the user's language."""
        return text(f"notify.{self.state}", run=self.name or self.run)

    @property
    def body(self) -> str:
        """A few lines, in the user's language."""
        shown = " · ".join(
            f"{name} {decimal(value, '.3f')}" for name, value in self.metrics.items() if value is not None
        )
        place = text("notify.place", folder=self.folder, host=self.host)
        return "\n".join(line for line in (self.reason, shown, place) if line)


def target_problems(targets: Sequence[str]) -> list[Problem]:
    """What is wrong with the targets themselves, before a run begins; nobody is contacted."""
    problems = []
    for number, target in enumerate(targets):
        place = f"notify.targets.{number}"
        try:
            address = urlsplit(target)
        except ValueError:  # http://[ and the like
            problems.append(Problem(place, "notify_target", target))
            continue
        if target == BELL or (address.scheme in WEB and address.hostname):
            continue
        if address.scheme in WEB or "://" not in target:
            problems.append(Problem(place, "notify_target", shown(target)))
        elif find_spec("apprise") is None:
            facts = {"package": "apprise", "extra": "notify"}
            problems.append(Problem(place, "extra_missing", shown(target), facts))
        elif not _apprise(target):
            problems.append(Problem(place, "notify_target", shown(target)))
    return problems


def notify(targets: Sequence[str], notice: Notice, limit_s: float = LIMIT_S) -> list[Warned]:
    """Tell all targets at once; returns after `limit_s` at the latest, with a warning for each that was not told."""
    answers: dict[int, str] = {}

    def tell(number: int, target: str) -> None:
        try:
            _sender(target)(target, notice)
            answers[number] = ""
        except (OSError, HTTPException, subprocess.SubprocessError, ValueError, Refused) as error:
            answers[number] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=tell, args=each, daemon=True) for each in enumerate(targets)]
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = text("notify.late", seconds=round(limit_s))
    reasons = [answers.get(number, late) for number in range(len(targets))]
    return [
        Warned(
            "notification_failed", {"target": shown(target), "reason": reason.replace(target, shown(target))}
        )
        for target, reason in zip(targets, reasons)
        if reason
    ]


def shown(target: str) -> str:
    """A target without what may be secret in it: the path and the user of an address."""
    scheme, mark, _ = target.partition("://")
    if not mark:
        return target
    # only a webhook's host is public: in an apprise address a token may stand in its place
    return f"{scheme}://{urlsplit(target).hostname or ''}/…" if scheme in WEB else f"{scheme}://…"


class Refused(Exception):
    """apprise knows the address but could not deliver."""


def _sender(target: str) -> Callable[[str, Notice], None]:
    if target == BELL:
        return _ring
    return _post if urlsplit(target).scheme in WEB else _send_by_apprise


def _ring(target: str, notice: Notice) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\a")
        sys.stderr.flush()
    command: list[str] = []
    if sys.platform == "darwin" and (program := shutil.which("osascript")):
        command = [program, *_APPLE_SCRIPT, notice.title, notice.body]
    elif program := shutil.which("notify-send"):
        command = [program, "--app-name=SmartCash", "--", notice.title, notice.body]
    if command:
        # a machine without a desktop answers with an error: there, the bell is all there is
        subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect stays what it is, an answer that is not 2xx: facts go where the user said, or nowhere."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _post(target: str, notice: Notice) -> None:
    content = json.dumps(asdict(notice), ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "SmartCash"}
    address = quote(target, safe=string.punctuation)  # a path may be written as people write it
    request = urllib.request.Request(address, content, headers, method="POST")
    urllib.request.build_opener(_NoRedirect).open(request, timeout=LIMIT_S).close()


def _apprise(target: str) -> object:
    """apprise with this one target; None for an address that it does not know."""
    import apprise

    teller = apprise.Apprise()
    return teller if teller.add(target) else None


def _send_by_apprise(target: str, notice: Notice) -> None:
    teller = _apprise(target)
    if not teller.notify(title=notice.title, body=notice.body):  # type: ignore[attr-defined]
        raise Refused(text("notify.refused"))
