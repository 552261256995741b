"""Every page, in a real browser, on a real home: what stands on it, that nobody is kept out, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, expect

from smartcash.utils.i18n import text

from .conftest import Studio, running, visiting

pytestmark = pytest.mark.slow
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
PAGES = ("", "train", "runs", "runs?trash=1", "compare", "models", "models/v1", "data", "log", "settings")
TABS = ("watch", "result", "config", "checkpoints", "exports", "story", "files")


def violations(page: Page) -> list[str]:
    """What axe-core finds, each with its place."""
    found = page.evaluate(
        "async () => (await axe.run()).violations.flatMap(v => v.nodes.map(n => `${v.id}: ${n.target} ${n.failureSummary}`))"
    )
    return [str(each) for each in found]


def settled(page: Page) -> None:
    """Nothing is loading any more."""
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_timeout(300)
    expect(page.locator("main .failure")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_keeps_anybody_out(browser: Browser, studio: Studio, home: Path, theme: str) -> None:
    """A33; axe-core finds nothing on any page, in light and dark, nor on a telephone."""
    run = next(home.glob("*/*/run.json")).parent.name
    places = [*PAGES, *(f"runs/{run}?tab={tab}" for tab in TABS)]
    size = {"width": 390, "height": 844} if theme == "dark" else {"width": 1440, "height": 900}
    with visiting(
        browser, studio, language="en" if theme == "dark" else "id", color_scheme=theme, viewport=size
    ) as page:
        page.add_init_script(path=AXE)
        for place in places:
            page.goto(studio.at(place))
            settled(page)
            assert violations(page) == [], place


@pytest.mark.parametrize("language", ["id", "en"])
def test_every_page_speaks_the_language_of_the_browser_and_changes_it_in_place(
    browser: Browser, studio: Studio, language: str
) -> None:
    """A33."""
    other = {"id": "en", "en": "id"}[language]
    names = {"": "home", "train": "train", "runs": "runs", "models": "models", "data": "data", "log": "log"}
    with visiting(browser, studio, language=language) as page:
        for place, name in names.items():
            page.goto(studio.at(place))
            expect(page.locator("h1")).to_have_text(text(f"studio.nav.{name}", language))
            assert page.locator("html").get_attribute("lang") == language
            assert not re.search(r"\b(studio|config|runs)\.[a-z_]+", page.locator("body").inner_text())
        page.locator(f".foot button[lang={other}]").click()
        expect(page.locator("h1")).to_have_text(text("studio.nav.log", other))
        page.reload()
        expect(page.locator("h1")).to_have_text(text("studio.nav.log", other))


@pytest.mark.parametrize("language", ["id", "en"])
def test_no_page_scrolls_sideways_on_a_telephone(
    browser: Browser, studio: Studio, home: Path, language: str
) -> None:
    """A33; and each has a title of its own, and shows in its line of pages where one is."""
    run = next(home.glob("*/*/run.json")).parent.name
    places = [*PAGES, *(f"runs/{run}?tab={tab}" for tab in TABS), "models/v99", "nowhere"]
    size = {"width": 390, "height": 844}
    with visiting(browser, studio, language=language, viewport=size) as page:
        for place in places:
            page.goto(studio.at(place))
            expect(page.locator("h1")).not_to_be_empty()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], place
            assert re.fullmatch(r"\S.* · SmartCash", page.title()), place
            for chosen in page.locator("nav [aria-current], [role=tab][aria-selected=true]").all():
                expect(chosen).to_be_in_viewport(ratio=1)


def test_a_word_of_the_page_fits_its_count(browser: Browser, studio: Studio) -> None:
    """A33: as `text` does it in Python."""
    counted = """async () => {
        const { t } = await import(new URL("words.js", document.baseURI).href);
        return ["0", 1, "1", 21].map((count) => t("train.changes", { count }));
    }"""
    with visiting(browser, studio, language="en") as page:
        said = page.evaluate(counted)
    assert said == ["0 changes", "1 change", "1 change", "21 changes"]
    assert said == [text("studio.train.changes", "en", count=count) for count in (0, 1, 1, 21)]


def test_the_figures_on_an_axis_are_as_far_apart_as_its_lines(browser: Browser, studio: Studio) -> None:
    """A5: a step of 2.5 or 0.25 is not rounded away."""
    axis = """async () => {
        const { ticked } = await import(new URL("chart.js", document.baseURI).href);
        return [[12.5, 2.5], [0.25, 0.25], [20, 5], [0.2, 0.1]].map(([value, step]) => ticked(value, step));
    }"""
    with visiting(browser, studio, language="id") as page:
        assert page.evaluate(axis) == ["12,5", "0,25", "20", "0,2"]


def test_an_empty_home_says_what_to_do_first(browser: Browser, tmp_path: Path) -> None:
    """A33: each page has a state for nothing."""
    with running(tmp_path / "new") as studio, visiting(browser, studio) as page:
        expect(page.locator(".empty h2")).to_have_text(text("studio.first.title", "id"))
        for place, key in {
            "runs": "runs.none", "models": "models.none", "log": "log.none", "compare": "compare.least", "data": "data.none",
        }.items():  # fmt: skip
            page.goto(studio.at(place))
            expect(page.locator(".empty h2")).to_have_text(text(f"studio.{key}", "id"))


def test_a_run_that_does_not_exist_and_a_server_that_is_gone_are_told(browser: Browser, home: Path) -> None:
    """A34."""
    with running(home) as studio:
        with visiting(browser, studio) as page:
            page.goto(studio.at("runs/20990101-000000-dead"))
            expect(page.locator(".failure")).to_contain_text("20990101-000000-dead")
            page.goto(studio.at("runs"))
            expect(page.locator(".dot.live")).to_be_visible()
            page.wait_for_timeout(3000)  # the other pages are fetched
            studio.kill()
            expect(page.locator(".dot.lost")).to_be_visible()
            page.get_by_role("link", name=text("studio.nav.models", "id"), exact=True).click()
            expect(page.locator(".failure")).to_contain_text(text("studio.unreachable.title", "id"))
            studio.start()
            expect(page.locator(".dot.live")).to_be_visible()
            expect(page.locator("main .failure")).to_have_count(0)  # it loads by itself what it could not


def test_a_finished_run_shows_charts_previews_and_figures(
    browser: Browser, studio: Studio, home: Path
) -> None:
    """A5, A6, A10, A14, A22."""
    run = next(home.glob("*/*/run.json")).parent.name
    with visiting(browser, studio, language="en", viewport={"width": 1280, "height": 900}) as page:
        page.goto(studio.at(f"runs/{run}"))
        expect(page.locator(".chart")).to_have_count(4)
        expect(page.locator(".prints .print")).to_have_count(3)
        expect(page.locator(".chart .unseen").filter(has_text="lowest")).not_to_have_count(0)
        page.locator("#preview-epoch").press("Home")
        expect(page.locator("#preview-epoch")).to_have_attribute("aria-valuetext", "1")
        with page.expect_download() as loss:
            page.locator(".chart").first.get_by_role("button", name="CSV").click()
        header, *rows = loss.value.path().read_text().splitlines()
        assert header.startswith('"epoch",') and len(rows) >= 3  # steps are gathered by time, epochs are not
        with page.expect_download() as drawn:
            page.locator(".chart").first.get_by_role("button", name="PNG").click()
        assert drawn.value.path().read_bytes().startswith(b"\x89PNG")
        page.locator(".chart").first.get_by_role("button", name="Table").click()
        expect(page.locator(".chart").first.locator("tbody tr")).not_to_have_count(0)
        page.get_by_role("tab", name="Results").click()
        expect(page.locator("table.matrix")).to_be_visible()
        page.reload()  # the tab stands in the address
        expect(page.locator("table.matrix")).to_be_visible()


def test_the_keyboard_alone_goes_everywhere(browser: Browser, studio: Studio) -> None:
    """A33: skip link, tabs by arrows, a dialog that is left with Escape and gives the focus back."""
    with visiting(browser, studio, language="en") as page:
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        page.goto(studio.at("runs"))
        edit = page.get_by_role("button", name="Edit").first
        edit.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(edit).to_be_focused()


def test_hostile_words_in_a_run_are_words(browser: Browser, home: Path, studio: Studio) -> None:
    """Names and notes from the disk are shown, never obeyed."""
    from smartcash.handlers.run_history import RunHistory

    run = next(home.glob("*/*/run.json")).parent.name
    history = RunHistory(home)
    evil = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    history.note(run, evil)
    with visiting(browser, studio) as page:
        page.goto(studio.at("runs"))
        expect(page.locator("main")).to_contain_text("<img src=x")
        page.goto(studio.at(f"runs/{run}?tab=config"))
        expect(page.locator("main")).to_contain_text("<script>")
        assert "taken" not in page.title()
    history.note(run, "")
