"""What all tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from smartcash.utils.i18n import set_language

# a busy machine is no failure: no example is held against the clock
settings.register_profile("smartcash", deadline=None)
settings.load_profile("smartcash")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# without these, a Chromium run by root does not start, and it asks its maker for updates
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder with the real photo sets (SMARTCASH_PHOTOS, else shared/datasets beside the checkout)."""
    named = os.environ.get("SMARTCASH_PHOTOS")
    folder = Path(named) if named else Path(__file__).parents[1] / ".." / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip(f"no real photos at {folder}: set SMARTCASH_PHOTOS")
    return folder.resolve()


@pytest.fixture
def english() -> Iterator[None]:
    """Texts in English, whatever the machine speaks."""
    set_language("en")
    yield
    set_language(None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium, else Playwright's own. In CI a missing one is a failure."""
    with sync_playwright() as playwright:
        named = next(filter(None, map(shutil.which, BROWSERS)), None)
        if named is None and not Path(playwright.chromium.executable_path).exists():
            missing = "no Chromium: apt-get install chromium, or python -m playwright install chromium"
            if os.environ.get("CI"):
                pytest.fail(missing)
            pytest.skip(missing)
        browser = playwright.chromium.launch(executable_path=named, args=FLAGS)
        yield browser
        browser.close()
