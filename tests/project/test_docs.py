"""The documentation says what the code does: generated pages, commands, fields, links (A33)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import click
import pytest

from smartcash.backend.formats.known import FORMATS
from smartcash.backend.formats.model import KINDS
from smartcash.domain.config import DataConfig, field_names
from smartcash.utils.i18n import LANGUAGES, catalogue

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = ("configuration", "commands", "errors", "findings")
TEXTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)>\s]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`[^`\n]+`")


def page(language: str, name: str) -> str:
    return (DOCS / language / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def written_anew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference pages as docs/make_reference.py writes them now."""
    out = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, DOCS / "make_reference.py", "--out", out], check=True, timeout=240)
    return out


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", GENERATED)
def test_generated_page_is_up_to_date(written_anew: Path, language: str, name: str) -> None:
    fresh = (written_anew / language / f"{name}.md").read_text(encoding="utf-8")
    assert page(language, name) == fresh, "run: python docs/make_reference.py"


def command_names() -> list[str]:
    """`smartcash data check` and so on, groups too."""
    from importlib import import_module

    from smartcash.cli import COMMANDS

    def below(command: click.Command, parent: str) -> list[str]:
        name = f"{parent} {command.name}"
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        return [name, *(each for one in inner for each in below(one, name))]

    modules = (import_module(f"smartcash.cli.{module}") for module in COMMANDS.values())
    return [name for module in modules for name in below(module.command, "smartcash")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_command_is_documented(language: str) -> None:
    headings = re.findall(r"^#+ (smartcash .+)$", page(language, "commands"), re.MULTILINE)
    assert headings == command_names()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_configuration_field_is_documented(language: str) -> None:
    sections = re.split(r"^## ", page(language, "configuration"), flags=re.MULTILINE)[1:]
    documented = set()
    for section in sections:
        title, _, body = section.partition("\n")
        prefix = f"{title.strip('`')}." if title.startswith("`") else ""
        documented |= {prefix + leaf for leaf in re.findall(r"^\| `([^`]+)`", body, re.MULTILINE)}
    assert documented == set(field_names())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_and_every_finding_is_documented(language: str) -> None:
    errors = {key.partition(".")[2] for key in catalogue(language) if key.startswith("errors.")}
    assert errors <= set(re.findall(r"^\| `([^`]+)`", page(language, "errors"), re.MULTILINE))
    assert set(re.findall(r"^\| `([^`]+)`", page(language, "findings"), re.MULTILINE)) == set(KINDS)


def test_the_configuration_offers_exactly_the_formats_that_can_be_read() -> None:
    assert set(get_args(DataConfig.model_fields["format"].annotation)) == {"auto", *FORMATS}


def test_both_languages_have_the_same_pages() -> None:
    """A33."""
    in_english, in_indonesian = ({path.name for path in (DOCS / each).glob("*.md")} for each in ("en", "id"))
    assert in_english == in_indonesian
    beside = [{path.name.partition(".")[0] for path in DOCS.glob(f"*.{each}.md")} for each in LANGUAGES]
    assert beside[0] == beside[1]
    assert (ROOT / "README.md").is_file() == (ROOT / "README.id.md").is_file()


@pytest.mark.parametrize("name", sorted(path.stem for path in (DOCS / "en").glob("*.md")))
def test_a_page_has_the_same_shape_in_both_languages(name: str) -> None:
    """As many headings, tables' rows and code blocks: a section added in one language only is noticed."""

    def shape(language: str) -> list[str]:
        outside = FENCE.sub("```", page(language, name))
        return re.findall(r"^(#+ |```|\|)", outside, re.MULTILINE)

    assert shape("en") == shape("id")


def test_every_page_can_be_reached_from_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    reached = set(re.findall(r"([\w/.-]+\.(?:md|ipynb))$", config.partition("nav:")[2], re.MULTILINE))
    pages = {path.relative_to(DOCS) for suffix in ("md", "ipynb") for path in DOCS.rglob(f"*.{suffix}")}
    assert reached == {path.as_posix() for path in pages if path.parts[0] != "dev"}


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_and_picture_resolves(text: Path) -> None:
    outside_code = SPAN.sub("", FENCE.sub("", text.read_text(encoding="utf-8")))
    broken = []
    for groups in LINK.findall(outside_code):
        target = next(filter(None, groups))
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (text.parent / unquote(file)).resolve() if file else text
        known = place.exists() and (not anchor or place.suffix != ".md" or anchor in anchors(place))
        broken += [] if known else [target]
    assert not broken


def anchors(path: Path) -> set[str]:
    """What can be linked to in a page: its headings, as MkDocs and GitHub name them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"\s+", "-", heading) for heading in plain}


@pytest.mark.parametrize("text", [*TEXTS, ROOT / "mkdocs.yml"], ids=lambda path: path.name)
def test_no_page_names_a_folder_of_the_machine_it_was_written_on(text: Path) -> None:
    assert not re.findall(r"/(?:root|home|work|Users|opt)/\w*", text.read_text(encoding="utf-8"))
