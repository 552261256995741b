"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from smartcash.utils.i18n import set_language

# a busy machine is no failure: no example is held against the clock
settings.register_profile("smartcash", deadline=None)
settings.load_profile("smartcash")


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
