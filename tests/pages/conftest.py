"""A browser, a studio of its own process, and a home with toy trainings in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from smartcash.backend.samples import write_samples
from smartcash.domain.config import merge
from smartcash.handlers.training_manager import TrainingManager

TOY: dict[str, Any] = {
    "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
    "data": {"image_size": 64, "batch_size": 4, "workers": 0},
    "training": {"epochs": 3, "previews": {"count": 3}},
    "runtime": {"threads": 1},
}
expect.set_options(timeout=30_000)


@dataclass
class Studio:
    """A running server: its address with the token, and its port."""

    home: Path
    port: int = 0
    address: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin, at the same port as before if there was one."""
        command = [sys.executable, "-m", "smartcash", "studio", "--no-browser"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), "--home", str(self.home)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "SMARTCASH_LANG": "en"},
        )  # fmt: skip
        said = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said += line
            if found := re.search(r"http://\S+token=\S+", line):
                self.address = found.group()
                self.port = urlsplit(self.address).port or 0
                return
        raise AssertionError(f"the studio did not start: {said}")

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def at(self, path: str, base: str | None = None) -> str:
        """The address of a page; `base`: reached through a proxy."""
        return f"{base or f'http://127.0.0.1:{self.port}'}/{path}"

    @property
    def token(self) -> str:
        return self.address.split("token=")[1]


@contextmanager
def running(home: Path) -> Iterator[Studio]:
    """A studio of a home, ended at the end."""
    studio = Studio(home)
    studio.start()
    try:
        yield studio
    finally:
        studio.kill()


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures of notes."""
    folder = tmp_path_factory.mktemp("notes") / "notes"
    write_samples(folder, images=24, seed=3, size_px=160)
    return folder


def toy(notes: Path, **over: object) -> dict[str, Any]:
    """Settings that train in seconds."""
    return merge(merge(TOY, {"data": {"path": str(notes)}}), over)


def trained(home: Path, values: dict[str, Any]) -> str:
    """The id of a run that was trained to its end in `home`."""
    manager = TrainingManager(home)
    run = manager.apply(manager.check(values), significant=True)
    manager.wait_ready(run, timeout_s=120)
    manager.start(run)
    state = manager.service.wait(run, timeout_s=120)
    assert state == "finished", run.description()
    return run.id


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, notes: Path) -> Path:
    """A home with one finished toy run, which became version 1."""
    folder = tmp_path_factory.mktemp("home")
    trained(folder, toy(notes, name="contoh"))
    return folder


@pytest.fixture(scope="session")
def studio(home: Path) -> Iterator[Studio]:
    """A studio that tests look at and do not change."""
    with running(home) as found:
        yield found


@dataclass
class Watched:
    """What a browser did besides what it was told to."""

    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    def hear(self, said: ConsoleMessage, refused: bool) -> None:
        """What the console shows: a normal act must not look like a failure there."""
        provoked = not refused and re.search(r"status of 4(22|28)", said.text)
        if "Content Security Policy" in said.text or provoked:
            self.errors.append(f"{said.text} {said.location}")


@contextmanager
def visiting(
    browser: Browser,
    studio: Studio,
    *,
    language: str = "id",
    base: str | None = None,
    refused: bool = False,
    **more: Any,
) -> Iterator[Page]:
    """A page that is signed in, in a browser of its own. A request to another host, an error of a script, a refusal
    of the content policy, and a request that the server refuses as wrong or unconfirmed (but where `refused` says that
    this is what is tried) fail the test."""
    locale = {"id": "id-ID", "en": "en-GB"}[language]
    context: BrowserContext = browser.new_context(locale=locale, **more)
    watched = Watched()
    context.on("request", lambda request: watched.hosts.add(urlsplit(request.url).hostname or ""))
    context.on("weberror", lambda error: watched.errors.append(str(error.error)))
    context.on("console", lambda said: watched.hear(said, refused))
    page = context.new_page()
    page.goto(studio.at(f"?token={studio.token}", base))
    expect(page.locator("h1")).to_be_visible()
    try:
        yield page
    finally:
        context.close()
    assert watched.errors == []
    assert watched.hosts <= {"127.0.0.1", ""}
