"""Every page, in a real browser, on a real home: what stands on it, that nobody is kept out, and nothing from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from zipfile import ZipFile

import axe_playwright_python
import pytest
import torch
from playwright.sync_api import Browser, Page, Route, expect

from smartcash.domain.config import TrainConfig
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import RunFolder
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
    """A33; nothing is cut off, and each has a title of its own."""
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
            assert page.evaluate(CUT) == [], place


# What a telephone does not show whole: words that stand beyond the edge of what holds them, but in a table that fades
# where it goes on.
CUT = """() => [...document.querySelectorAll("a, button, h1, h2, h3, label, p, dt, dd, th, td, summary, small, code")]
    .filter((each) => each.checkVisibility() && each.textContent.trim() && !each.closest(".table.on, .unseen, .skip"))
    .filter((each) => {
        const { left, right } = each.getBoundingClientRect();
        const beyond = left < -1 || right > document.documentElement.clientWidth + 1;
        return beyond || (getComputedStyle(each).overflowX !== "visible" && each.scrollWidth > each.clientWidth + 1);
    })
    .map((each) => `${each.tagName} ${each.className} ${each.textContent.trim().slice(0, 60)}`)"""


def test_a_finished_run_leads_to_its_model_and_the_list_of_models_back_to_the_run(
    browser: Browser, studio: Studio, home: Path
) -> None:
    """A19: the version is a link, Try opens it where it is tried; models show their run's name, and what a figure is."""
    run = next(home.glob("*/*/run.json")).parent.name
    with visiting(browser, studio, language="en") as page:
        page.goto(studio.at(f"runs/{run}"))
        page.locator("header.head").get_by_role("link", name="v1").click()
        expect(page.locator("h1")).to_have_text("v1")
        page.goto(studio.at(f"runs/{run}"))
        page.get_by_role("link", name="Try it").click()
        expect(page.locator("#try")).to_be_focused()
        expect(page.locator(".drop")).to_be_in_viewport(ratio=1)
        page.goto(studio.at("models"))
        row = page.locator("tbody tr").first
        expect(row).to_contain_text("mAP50-95")
        row.get_by_role("link", name="contoh").click()
        expect(page.locator("h1")).to_have_text("contoh")


def version_of(home: Path, figure: float, data: str) -> None:
    """A model version with this figure of the test pictures of some data, made without a training."""
    config = TrainConfig.parse({"task": "detect"})
    facts = {
        "state": "finished",
        "best_epoch": 1,
        "valid": {"mAP50_95": figure},
        "test": {"mAP50_95": figure},
    }
    run = RunFolder.create(home, config, {**facts, "data": {"content_hash": data}})
    model = torch.nn.Linear(2, 2)
    extra = {
        "classes": ["1000"],
        "preprocess": {"image_size": 64},
        "ema_state_dict": {"model": model.state_dict()},
    }
    with CheckpointManager(output_dir=str(run.weights)) as manager:
        manager.save_checkpoint(model, None, None, config, 1, {"mAP50_95": figure}, True, extra=extra)
    ModelVersions(home).register_run(run)


def test_before_a_worse_model_takes_an_alias_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    """A16, A17: the figures side by side with the difference; none where they were measured on different data."""
    home = tmp_path / "home"
    for figure, data in ((0.7, "a"), (0.2, "a"), (0.9, "b")):
        version_of(home, figure, data)
    versions = ModelVersions(home)
    versions.apply(versions.check_promote(1, "produksi"))
    with running(home) as studio, visiting(browser, studio, language="id") as page:
        page.add_init_script(path=AXE)
        for version, cells, told in (
            ("v2", ["0,700", "0,200", "-0,500"], "v2 lebih buruk daripada v1: mAP50-95."),
            ("v3", ["0,700", "0,900"], "tidak bisa dibandingkan"),
        ):
            page.goto(studio.at(f"models/{version}"))
            page.get_by_role("button", name=text("studio.models.promote", "id"), exact=True).click()
            page.get_by_role("dialog").get_by_role("button", name=text("studio.next", "id")).click()
            dialog = page.get_by_role("dialog")
            expect(dialog.locator("tr", has_text="mAP50-95").locator("td")).to_have_text(cells)
            expect(dialog.locator(".notice.warned")).to_contain_text(told)
            assert violations(page) == []


def test_a_file_that_is_no_picture_is_said_once_and_takes_the_answer_before_away(
    browser: Browser, studio: Studio, notes: Path
) -> None:
    """A34."""
    with visiting(browser, studio, language="en", refused=True) as page:
        page.goto(studio.at("models/v1"))
        for _ in range(2):
            page.locator("#try").set_input_files(next((notes / "images" / "test").glob("*.jpg")))
            expect(page.locator("#sum")).to_contain_text("Rp", timeout=60_000)
            expect(page.locator(".failure")).to_have_count(0)
            page.locator("#try").set_input_files(next((notes / "labels" / "test").glob("*.txt")))
            expect(page.locator(".failure")).to_be_visible()
            expect(page.locator("#sum")).to_have_count(0)
            expect(page.locator(".print")).to_have_count(0)
        said = page.locator(".failure").inner_text()
        assert said.count("This picture cannot be used") == 1


def test_one_point_of_a_chart_has_a_place_on_its_axis(browser: Browser, studio: Studio) -> None:
    """A5: in the first epoch too."""
    axes = """async () => {
        const { reach } = await import(new URL("chart.js", document.baseURI).href);
        return [["epoch", 1, 1], ["epoch", 0.2, 0.7], ["epoch", 0.2, 7.5], ["time", 12, 12], ["step", 3, 40]]
            .map(([axis, low, high]) => reach(axis)(null, low, high));
    }"""
    with visiting(browser, studio) as page:
        assert page.evaluate(axes) == [[0, 1], [0, 1], [0.2, 7.5], [0, 12], [3, 40]]


def test_what_is_changed_is_asked_for_before_it_is_sent(browser: Browser, tmp_path: Path) -> None:
    """A12: the server refuses nothing that a reader does in good order, nor what is typed wrongly."""
    with running(tmp_path / "new") as studio, visiting(browser, studio, language="en") as page:
        page.goto(studio.at("train"))
        page.locator("[name='data.path']").fill(str(tmp_path))
        page.locator("[name='training.epochs']").fill("many")
        page.get_by_role("button", name="Save & prepare").click()
        expect(page.locator("#f-training-epochs-wrong")).to_be_visible()
        page.locator("[name='training.epochs']").fill("7")
        page.get_by_role("button", name="Save only").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("7")
        dialog.get_by_role("button", name="Apply").click()
        expect(page.locator("ul.differences")).to_have_count(0)
        expect(page.locator("[name='training.epochs']")).to_have_value("7")


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


@pytest.mark.parametrize("language", ["id", "en"])
def test_who_has_no_data_gets_some_in_the_browser_and_trains_on_it(
    browser: Browser, tmp_path: Path, notes: Path, language: str
) -> None:
    """A33: sample notes are drawn, or a zip is uploaded, which may be called off; then it is shown, and one click away
    from a training."""

    def words(key: str) -> str:
        return text(f"studio.{key}", language)

    home, zipped = tmp_path / "new", tmp_path / "Foto saya.zip"
    shutil.make_archive(str(zipped.with_suffix("")), "zip", notes)
    large = tmp_path / "besar.zip"
    with ZipFile(large, "w") as archive:
        archive.writestr("noise.bin", os.urandom(32_000_000))
    with running(home) as studio, visiting(browser, studio, language=language) as page:
        page.add_init_script(path=AXE)
        page.goto(studio.at(""))
        page.get_by_role("link", name=words("first.get")).click()
        expect(page.locator(".empty h2")).to_have_text(words("data.none"))
        page.locator("[name=images]").fill("30")
        page.get_by_role("button", name=words("data.draw_it"), exact=True).click()
        expect(page.locator(".bars")).to_be_visible(timeout=60_000)
        drawn = home / "data" / words("data.sample_name")
        expect(page.locator("[name=path]")).to_have_value(str(drawn))
        page.get_by_role("link", name=words("data.train")).click()
        expect(page.locator("[name='data.path']")).to_have_value(str(drawn))

        page.goto(studio.at("data"))
        page.locator("#new > summary").click()
        page.locator("#upload").set_input_files(notes / "data.yaml")
        expect(page.locator(".failure")).to_contain_text("data.yaml")
        assert violations(page) == []
        assert studio.process is not None
        studio.process.send_signal(
            signal.SIGSTOP
        )  # more than lies between the browser and the server is under way
        page.locator("#upload").set_input_files(large)
        cancel = page.get_by_role("button", name=words("cancel"))
        expect(cancel).to_be_visible()
        expect(page.locator(".failure")).to_have_count(0)
        assert violations(page) == []
        cancel.click()
        expect(page.locator("#upload")).to_be_attached()
        studio.process.send_signal(signal.SIGCONT)
        page.locator("#upload").set_input_files(zipped)
        expect(page.locator("[name=path]")).to_have_value(str(home / "data" / "Foto-saya.zip"))
        expect(page.locator(".bars")).to_be_visible(timeout=60_000)
        expect(page.locator(".prints .print")).not_to_have_count(0)
        assert sorted(path.name for path in (home / "data").iterdir()) == sorted(
            [".lock", "Foto-saya.zip", drawn.name]
        )


def test_a_drawing_that_was_begun_elsewhere_takes_nobody_away(
    browser: Browser, tmp_path: Path, notes: Path
) -> None:
    """Who looks at another data set is told of it, and stays there."""
    with running(tmp_path) as studio, visiting(browser, studio) as page:
        page.goto(studio.at(f"data?path={notes}"))
        expect(page.locator(".bars")).to_be_visible(timeout=60_000)
        page.evaluate(
            """fetch("api/v1/data/samples", {method: "POST", headers: {"Content-Type": "application/json"},
            body: JSON.stringify({name: "lain", images: 300})})"""
        )
        drawing = page.locator("#new [role=status]")
        expect(drawing).to_have_count(1)
        expect(page.locator(".toast a")).to_contain_text(str(tmp_path / "data" / "lain"), timeout=60_000)
        expect(page.locator("[name=path]")).to_have_value(str(notes))
        expect(drawing).to_have_count(0)
        page.locator(".toast a").click()
        expect(page.locator("[name=path]")).to_have_value(str(tmp_path / "data" / "lain"))


def test_of_two_zips_that_are_dropped_at_once_one_is_sent_and_its_end_is_told_however_it_is(
    browser: Browser, tmp_path: Path, notes: Path
) -> None:
    zipped = Path(shutil.make_archive(str(tmp_path / "foto"), "zip", notes))
    twice = """bytes => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(bytes)], "foto.zip"));
        for (const _ of [1, 2]) document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer: files}));
    }"""
    with running(tmp_path / "home") as studio, visiting(browser, studio) as page:
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url) if "uploads" in request.url else None)
        page.goto(studio.at("data"))
        page.evaluate(twice, list(zipped.read_bytes()))
        expect(page.locator("[name=path]")).to_have_value(str(tmp_path / "home" / "data" / "foto.zip"))
        expect(page.locator(".bars")).to_be_visible(timeout=60_000)
        assert len(sent) == 1
        page.route(
            "**/uploads?*", lambda route: route.fulfill(body="<html>", content_type="application/json")
        )
        page.locator("#new > summary").click()
        page.locator("#upload").set_input_files(zipped)  # a proxy in between may answer anything
        expect(page.locator(".failure")).to_be_visible()
        expect(page.locator("#upload")).to_be_attached()


def test_what_to_do_first_stands_still_once_it_is_there(browser: Browser, tmp_path: Path) -> None:
    """The button that is pressed first is not another one a moment later."""
    with running(tmp_path) as studio, visiting(browser, studio) as page:
        held: list[Route] = []
        page.route("**/api/v1/data/sets", lambda route: held.append(route))
        page.goto(studio.at(""))
        expect(page.locator(".empty li")).to_have_count(4)
        page.wait_for_timeout(300)
        expect(page.locator(".empty a.button")).to_have_count(0)
        assert held
        for route in held:  # a slow start may ask twice
            route.continue_()
        expect(page.locator(".empty a.button")).to_have_count(2)
        expect(page.locator(".empty a.primary")).to_have_text(text("studio.first.get", "id"))


def test_a_run_that_does_not_exist_and_a_server_that_is_gone_are_told(browser: Browser, home: Path) -> None:
    """A34."""
    with running(home) as studio:
        with visiting(browser, studio) as page:
            dead = "20990101-000000-dead"
            for place, named, key in (
                (f"runs/{dead}", dead, "runs"), (f"compare?runs={dead},x", dead, "runs"), ("models/v9", "v9", "models"),
            ):  # fmt: skip
                page.goto(studio.at(place))
                expect(page.locator(".failure")).to_contain_text(named)
                expect(page.locator(".failure")).not_to_contain_text("smartcash ")  # no advice for a terminal
                page.locator(".failure").get_by_role("link", name=text(f"studio.{key}.all", "id")).click()
                expect(page.locator("h1")).to_have_text(text(f"studio.nav.{key}", "id"))
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
