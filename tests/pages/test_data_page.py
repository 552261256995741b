"""The data page: a data set without splits becomes one that has them, all by mouse; and what else a newcomer stumbled
over on the pages of runs and models."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from smartcash.backend.formats import read_dataset
from smartcash.backend.samples import write_samples
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.thresholds import Thresholds, write_thresholds
from smartcash.utils.i18n import text

from .conftest import Studio, running, visiting
from .test_flow import Words
from .test_pages import AXE, CUT, violations

pytestmark = pytest.mark.slow
TELEPHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class, without splits; of one class there are two pictures."""
    folder = tmp_path_factory.mktemp("photos")
    write_samples(folder / "drawn", images=60, seed=4, task="classify", size_px=96)
    for number, picture in enumerate(sorted((folder / "drawn").rglob("*.jpg"))):
        place = folder / "foto saya" / picture.parent.name
        place.mkdir(parents=True, exist_ok=True)
        picture.rename(place / f"{number}.jpg")
    for spare in sorted((folder / "foto saya" / "5000").iterdir())[2:]:
        spare.unlink()
    shutil.rmtree(folder / "drawn")
    return folder / "foto saya"


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_data_set_without_splits_is_split_and_trained_on(
    browser: Browser, tmp_path: Path, photos: Path, language: str
) -> None:
    """A12, D10: what would be written is shown, and where; cancelled it is not; and on a telephone nothing is cut off."""
    t, home = Words(language), tmp_path / "home"
    with (
        running(home) as studio,
        visiting(
            browser, studio, language=language, refused=True, viewport=TELEPHONE, color_scheme="dark"
        ) as page,
    ):
        page.add_init_script(path=AXE)
        page.goto(studio.at(f"data?path={photos}"))
        form = page.locator("#split")
        expect(form).to_contain_text(t("data.split_missing"))
        expect(form.locator("[name=name]")).to_have_value(f"foto saya{t('data.split_ending')}")
        assert violations(page) == [] and page.evaluate(CUT) == []
        form.locator("[name=name]").fill("Uang <b>kami</b>")
        form.locator("[name=valid]").fill("20")
        form.locator("[name=test]").fill("46")  # more than may be
        look = page.get_by_role("button", name=t("data.split_look"))
        look.click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        form.locator("[name=test]").fill("10")
        look.click()
        dialog, target = page.get_by_role("dialog"), home / "data" / "Uang-b-kami-b"
        expect(dialog).to_contain_text(str(target))
        expect(dialog.locator(".notice")).not_to_have_count(0)  # of the class that is too small
        expect(dialog.get_by_role("button", name=t("cancel"))).to_be_focused()
        assert violations(page) == [] and page.evaluate(CUT) == []
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        assert not (home / "data").exists()

        look.click()
        dialog.get_by_role("button", name=t("data.split_write"), exact=True).click()
        expect(page.locator("[name=path]")).to_have_value(str(target))
        expect(page.locator(".bars")).to_be_visible()
        expect(page.locator(".toast a")).to_contain_text(str(target))
        assert set(read_dataset(target).splits) == {"train", "valid", "test"}
        expect(page.locator("#split")).not_to_have_attribute("open", "")  # it has splits now

        page.goto(studio.at(f"data?path={photos}"))
        form.locator("[name=name]").fill("Uang-b-kami-b")
        look.click()
        expect(page.locator("#splitting .failure")).to_have_text(
            text("errors.data_set_exists", language, path=str(target))
        )
        page.goto(studio.at(f"data?path={target}"))
        page.get_by_role("link", name=t("data.train")).click()
        expect(page.locator("[name='data.path']")).to_have_value(str(target))


def test_what_became_of_a_split_is_seen_also_where_none_was_missing(
    browser: Browser, tmp_path: Path, notes: Path
) -> None:
    """What was refused stands there, in a panel that was opened by hand, until the next look; that alone then."""
    t, data = Words("en"), tmp_path / f"{'x' * 50}" / "data.yaml"
    shutil.copytree(notes, data.parent)
    with running(tmp_path / "home") as studio, visiting(browser, studio, language="en") as page:
        page.goto(studio.at(f"data?path={data}"))
        page.locator("#split > summary").click()
        expect(page.locator("#split [name=name]")).to_have_value("x" * 42 + t("data.split_ending"))
        look, failures = page.get_by_role("button", name=t("data.split_look")), page.locator(".failure")
        look.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        next((data.parent / "images").rglob("*.jpg")).unlink()
        page.get_by_role("button", name=t("data.split_write"), exact=True).click()
        expect(failures).to_have_text(text("errors.split_stale", "en", path=str(data)))
        expect(page.locator("#split")).to_have_attribute("open", "")
        shutil.rmtree(data.parent)
        look.click()
        expect(failures).to_contain_text(text("errors.data_path_missing", "en", path=str(data)))
        expect(failures).to_have_count(1)


def test_what_is_being_made_can_be_cancelled_also_after_a_reload(
    browser: Browser, tmp_path: Path, photos: Path
) -> None:
    """A drawing, and the look at a split that waits for it; nothing of them stays."""
    t, home = Words("en"), tmp_path / "home"
    with running(home) as studio, visiting(browser, studio, language="en") as page:
        draw(page, studio, t)
        page.goto(studio.at(f"data?path={photos}"))
        page.get_by_role("button", name=t("data.split_look")).click()
        splitting = page.locator("#splitting")
        expect(splitting).to_contain_text(t("data.split_looking"))
        page.reload()
        expect(splitting).to_contain_text(t("data.split_looking"))
        splitting.get_by_role("button", name=t("cancel")).click()
        expect(splitting).to_contain_text(t("data.stopped"))
        page.reload()
        page.locator("#new > summary").click()
        drawing = page.locator("#new")
        drawing.get_by_role("button", name=t("cancel")).click()
        expect(drawing).to_contain_text(t("data.stopped"))
        assert [path.name for path in (home / "data").iterdir() if path.name != ".lock"] == []


def test_what_ended_while_another_page_was_shown_or_with_the_server_is_told(
    browser: Browser, tmp_path: Path
) -> None:
    """Once, where it was begun."""
    t = Words("en")
    with running(tmp_path / "home") as studio, visiting(browser, studio, language="en") as page:
        draw(page, studio, t)
        page.get_by_role("link", name=t("nav.runs"), exact=True).click()
        api = {
            "base_url": studio.at("api/v1/"),
            "headers": {"authorization": f"Bearer {studio.token}"},
            "timeout": 60,
        }
        with httpx.Client(**api) as client:
            (job,) = client.get("jobs").json()["jobs"]
            client.post(f"jobs/{job['id']}/stop")
            while client.get("events?mode=poll&wait=0").json()["state"]["jobs"][0]["state"] == "running":
                time.sleep(0.05)
        page.wait_for_timeout(1000)  # the page has heard of it too
        page.get_by_role("link", name=t("nav.data"), exact=True).click()
        expect(page.locator("#new")).to_contain_text(t("data.stopped"))

        draw(page, studio, t)
        studio.kill()
        studio.start()
        expect(page.locator("#new .failure")).to_have_text(text("errors.job_unknown", "en"))
        expect(page.get_by_role("button", name=t("data.draw_it"), exact=True)).to_be_enabled()


def draw(page: Page, studio: Studio, t: Words) -> None:
    """Begin a drawing that takes a minute."""
    page.goto(studio.at("data"))
    page.locator("[name=images]").fill("5000")
    page.get_by_role("button", name=t("data.draw_it"), exact=True).click()
    expect(page.locator("#new [role=status]")).to_contain_text(t("data.drawing"))


def test_a_run_that_has_no_other_beside_it_leads_to_training_one(
    browser: Browser, studio: Studio, home: Path
) -> None:
    """A16: there is nothing to add, and the button says so."""
    run = next(home.glob("*/*/run.json")).parent.name
    with visiting(browser, studio, language="en") as page:
        page.goto(studio.at(f"compare?runs={run}"))
        expect(page.locator("#no-other")).to_contain_text("No other run has trained yet.")
        expect(page.get_by_role("button", name="Add", exact=True)).to_be_disabled()
        page.locator("#no-other a").click()
        expect(page.locator("h1")).to_have_text("Train")


@pytest.mark.parametrize("language", ["id", "en"])
def test_previews_are_the_same_pictures_in_every_epoch_and_say_when_they_were_hard(
    browser: Browser, studio: Studio, home: Path, language: str
) -> None:
    """A6."""
    t = Words(language)
    run = next(home.glob("*/*/run.json")).parent.name
    with visiting(browser, studio, language=language) as page:
        page.goto(studio.at(f"runs/{run}"))
        captions = page.locator(".prints .print figcaption")
        expect(captions).to_have_count(3)
        shown = captions.all_inner_texts()
        hardness = [each.split(" · ")[0] for each in shown]
        assert hardness == [t("preview.worst"), t("preview.middle"), t("preview.best")]
        page.locator("#preview-epoch").press("Home")
        expect(page.locator("#preview-epoch")).to_have_attribute("aria-valuetext", "1")
        assert captions.all_inner_texts() == shown


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_try_tells_its_doubts_and_whether_being_sure_was_ever_measured(
    browser: Browser, tmp_path: Path, home: Path, notes: Path, language: str
) -> None:
    """D14, D15: as `smartcash count` does; and calls a picture by its name."""
    t = Words(language)
    shutil.copytree(home, tmp_path / "home")
    (version,) = ModelVersions(tmp_path / "home").versions()
    photo = next((notes / "images" / "test").glob("*.jpg"))
    with (
        running(tmp_path / "home") as studio,
        visiting(browser, studio, language=language, refused=True) as page,
    ):
        page.add_init_script(path=AXE)
        page.goto(studio.at("models/v1"))
        page.locator("#try").set_input_files(
            {"name": "<b>rusak</b>.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
        )
        expect(page.locator(".failure")).to_contain_text("<b>rusak</b>.jpg:")

        def said() -> dict[str, Any]:
            """What the server answers to the same picture."""
            return httpx.post(
                studio.at(f"api/v1/predict?model=v1&name={photo.name}"), content=photo.read_bytes(), timeout=60,
                headers={"authorization": f"Bearer {studio.token}"},
            ).json()  # fmt: skip

        first = said()
        assert first["file"] == photo.name and first["measured"] is False
        page.locator("#try").set_input_files(photo)
        expect(page.locator("#sum")).to_be_visible()
        expect(page.locator("#unmeasured")).to_contain_text(t("report.make").split()[-1])
        assert violations(page) == []

        least = 0.001  # so that the little that this model sees is doubted
        limits = Thresholds(
            version.sha256, "detect", "valid", "c0ffee", 40, least, dict.fromkeys(version.classes, least), 0.9, 0.99,
            True, 0.9, 1.0, "2026-11-22",
        )  # fmt: skip
        write_thresholds(Path(ModelVersions(tmp_path / "home").find("v1").path), limits)
        page.locator("#try").set_input_files(photo)
        expect(page.locator("#unmeasured")).to_have_count(0)
        second, told = said(), page.locator("#doubts li")
        scores = sorted((each["score"] for each in second["doubts"]), reverse=True)
        assert second["measured"] is True and len(scores) > 5
        expect(told).to_have_count(5)
        shown = [re.search(r"(\d+)\s?%", each) for each in told.all_inner_texts()]
        assert [each and int(each[1]) for each in shown] == [round(100 * score) for score in scores[:5]]
        expect(page.locator("#doubts")).to_contain_text(t("try.more_doubts", count=len(scores) - 5))
        assert violations(page) == []
