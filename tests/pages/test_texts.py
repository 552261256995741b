"""The page's words: every text that its scripts name exists, and every text of [studio] is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import smartcash.ui
from smartcash.domain.config import field_names
from smartcash.utils.i18n import catalogue

WEB = Path(smartcash.ui.__file__).parent / "web"
SCRIPTS = "\n".join(path.read_text(encoding="utf-8") for path in [*WEB.glob("*.js"), *WEB.glob("pages/*.js")])
STUDIO = {key.removeprefix("studio.") for key in catalogue("en") if key.startswith("studio.")}
# t("runs.none"), and what stands in a choice: t(log ? "log.none" : "log.none_match")
NAMED = set(re.findall(r'"([a-z_]+(?:\.[a-z_]+)*)"', SCRIPTS))
# t(`act.${action}_done`), wordOr(`studio.choice.${each}`)
IN_PART = {
    (before.removeprefix("studio."), after)
    for before, after in re.findall(r"`((?:studio\.)?[a-z_]+(?:\.[a-z_]+)*\.)\$\{[^`]*\}([a-z_]*)`", SCRIPTS)
}


def test_every_text_that_a_script_names_exists() -> None:
    """A33."""
    asked = set(re.findall(r'\bt\("([^"]+)"', SCRIPTS))
    assert asked - STUDIO == set()


def test_every_text_that_a_script_names_in_part_has_one_of_that_beginning_and_end() -> None:
    """A33."""
    whole = set(catalogue("en"))
    missing = [
        (before, after)
        for before, after in IN_PART
        if not any(key.startswith((before, f"studio.{before}")) and key.endswith(after) for key in whole)
    ]
    assert missing == []


def test_no_text_of_the_page_is_left_over() -> None:
    def in_part(key: str) -> bool:
        return any(key.startswith(before) and key.endswith(after) for before, after in IN_PART)

    assert sorted(key for key in STUDIO if key not in NAMED and not in_part(key)) == []


def test_every_field_of_the_configuration_has_a_name_on_the_page() -> None:
    """A2, A33."""
    assert {f"field.{name}" for name in field_names()} == {key for key in STUDIO if key.startswith("field.")}


@pytest.mark.parametrize("name", ["index.html", "styles.css", "app.js"])
def test_no_file_of_the_page_names_another_host(name: str) -> None:
    """A33: nothing is fetched from elsewhere."""
    addresses = re.findall(r"https?://[^\s\"'<>)]+", (WEB / name).read_text(encoding="utf-8"))
    assert addresses == []
