"""Notifications: whoever the configuration names is told how a run ended; none of them can harm the run."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from smartcash.domain.errors import ConfigInvalid, TrainingFailed
from smartcash.domain.events import Event, StepEnded, Warned
from smartcash.domain.ports import Command
from smartcash.services.control import Signals
from smartcash.services.event_log import read_events
from smartcash.services.notifications import Notice, notify, shown, target_problems
from smartcash.services.run_store import RunFolder
from smartcash.utils.i18n import text
from smartcash.worker import train

from .conftest import toy_config

NOTICE = Notice("20260101-000000-abcd", "mine", "finished", "early_stopped", "/runs/x", {"mAP50": 0.5})


class Received(list[dict[str, Any]]):
    """The JSON that a server was sent; `url` is its address, with something secret in it."""

    url = ""


@contextmanager
def server(status: int = 200, hold: threading.Event | None = None) -> Iterator[Received]:
    """A real web server on this machine that answers `status`, after `hold` where given."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(
                {**json.loads(content), "_path": self.path, "_type": self.headers["Content-Type"]}
            )
            if hold is not None:
                hold.wait(30)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{received.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        received.url = f"http://127.0.0.1:{running.server_address[1]}/hooks/s3cret"
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            if hold is not None:
                hold.set()
            running.shutdown()
            thread.join()


def test_a_webhook_is_sent_the_facts(english: None) -> None:
    """A23: run, state, reason, metrics, folder and host, as JSON."""
    with server() as received:
        assert notify((received.url,), NOTICE) == []
    (sent,) = received
    assert sent["_type"].startswith("application/json")
    assert {name: sent[name] for name in ("run", "name", "state", "reason", "folder", "metrics")} == {
        "run": NOTICE.run, "name": "mine", "state": "finished", "reason": "early_stopped", "folder": "/runs/x",
        "metrics": {"mAP50": 0.5},
    }  # fmt: skip
    assert sent["host"]


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_an_answer_that_is_no_yes_is_a_warning_without_the_secret(status: int) -> None:
    """A23: nothing is sent anywhere that the user did not name."""
    with server(status) as received:
        (warning,) = notify((received.url,), NOTICE)
    assert len(received) == 1
    assert warning.code == "notification_failed" and str(status) in warning.facts["reason"]
    assert "s3cret" not in str(warning) and warning.facts["target"].startswith("http://127.0.0.1")
    assert text("warnings.notification_failed", "en", **warning.facts)
    assert text("warnings.notification_failed", "id", **warning.facts)


def test_servers_that_hang_delay_the_end_by_the_limit_in_all_and_others_are_told() -> None:
    """A23."""
    with server(hold=threading.Event()) as hanging, server() as prompt:
        started = time.monotonic()
        warnings = notify((hanging.url, prompt.url, hanging.url), NOTICE, limit_s=0.5)
        assert time.monotonic() - started < 2
    assert len(warnings) == 2 and len(prompt) == 1


def test_nobody_at_the_other_end_is_a_warning() -> None:
    """A23."""
    with server() as gone:
        pass
    warnings = notify((gone.url, "http://no-such-host.invalid/x"), NOTICE)
    assert [warning.code for warning in warnings] == ["notification_failed"] * 2


def test_the_bell_rings_and_the_desktop_shows_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, english: None
) -> None:
    """A23: words are arguments, never a script."""
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/shown\nexit 1\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("sys.platform", "linux")
    assert notify(("bell",), Notice("id", "$(touch x)", "failed", "why", "/f")) == []
    words = (tmp_path / "shown").read_text()
    assert "Training $(touch x) has failed" in words and "why\n/f on " in words


def test_targets_that_cannot_work_are_refused_without_showing_what_is_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A23, A10: a word, an address without a host, an address that needs a package."""
    monkeypatch.setattr("smartcash.services.notifications.find_spec", lambda name: None)
    problems = target_problems(
        ["bell", "doorbell", "https://", "tgram://s3cret/1", "http://host/x", "http://[a/x"]
    )
    assert [(problem.field, problem.code) for problem in problems] == [
        ("notify.targets.1", "notify_target"),
        ("notify.targets.2", "notify_target"),
        ("notify.targets.3", "extra_missing"),
        ("notify.targets.5", "notify_target"),
    ]
    assert 'pip install "smartcash[notify]"' in problems[2].message("en")
    assert "s3cret" not in problems[2].message("id")
    assert shown("https://user:pw@host:8/s3cret?x") == "https://host/…"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own
def test_apprise_carries_what_is_no_webhook() -> None:
    """A23: through its own JSON scheme to a real server; an address it does not know is a problem."""
    pytest.importorskip("apprise", reason="extra notify: pip install apprise")
    assert [problem.code for problem in target_problems(["nosuchscheme://x"])] == ["notify_target"]
    with server() as received:
        target = received.url.replace("http://", "json://")
        assert target_problems([target]) == []
        assert notify((target,), NOTICE) == []
    assert "mine" in received[0]["title"]
    (warning,) = notify((target,), NOTICE)
    assert "s3cret" not in str(warning)


@pytest.fixture
def finished(notes: Path, tmp_path: Path) -> Callable[..., tuple[RunFolder, list[Event]]]:
    """Trains a toy that tells `targets`."""

    def training(targets: list[str], stop: str = "", **over: Any) -> tuple[RunFolder, list[Event]]:
        heard: list[Event] = []
        signals = Signals()

        def listen(event: Event) -> None:
            heard.append(event)
            if stop and isinstance(event, StepEnded):
                signals._commands.append(Command(stop))  # type: ignore[arg-type]

        config = toy_config(
            notes, name="toy", notify={"targets": targets}, **{"training": {"epochs": 1}, **over}
        )
        run, _ = train(config, tmp_path, listen, signals=signals)
        return run, heard

    return training


def test_a_finished_and_a_preempted_run_tell(finished: Callable[..., Any]) -> None:
    """A23."""
    with server() as received:
        run, _ = finished([received.url])
        finished([received.url], stop="preempt")
    first, second = received
    assert (first["run"], first["name"], first["state"]) == (run.id, "toy", "finished")
    assert first["folder"] == str(run.path) and "mAP50_95" in first["metrics"]
    assert (second["state"], second["reason"]) == ("preempted", "preempted")


def test_a_failed_run_tells_why_and_a_failing_notification_is_only_a_warning(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A23: the error of the run stays the error; its folder holds the warning."""
    (tmp_path / "stumbling.py").write_text("class Stumbles:\n    def on_step_end(self, event): 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    config = {"training": {"epochs": 1, "callbacks": ["stumbling:Stumbles"]}}
    with server(500) as received:
        with pytest.raises(TrainingFailed):
            train(toy_config(notes, notify={"targets": [received.url]}, **config), tmp_path)
    assert received[0]["state"] == "failed" and "ZeroDivisionError" in received[0]["reason"]
    run = RunFolder(next(tmp_path.glob("detect/*")))
    assert run.description()["state"] == "failed"
    last = list(read_events(run.events))[-1]
    assert last["type"] == Warned.__name__ and last["code"] == "notification_failed"
    with pytest.raises(ConfigInvalid):
        train(toy_config(notes, notify={"targets": ["doorbell"]}), tmp_path)
