"""The whole way by mouse: form → what changes → prepare → start → pause → go on → end → served → rolled back → exported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.operation_log import OperationLog
from smartcash.handlers.training_manager import TrainingManager
from smartcash.utils.i18n import text

from .conftest import Studio, running, toy, trained, visiting

pytestmark = pytest.mark.slow
MINUTE = 60_000


class Words:
    """The page's words in one language."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, key: str, **facts: object) -> str:
        return text(f"studio.{key}", self.language, **facts)


def fill(page: Page, field: str, value: str) -> None:
    """Type into a field of the form, opening its group."""
    entry = page.locator(f"[name='{field}']")
    group = page.locator("details.group", has=entry)
    if group.count() and group.get_attribute("open") is None:
        group.locator("summary").click()
    if entry.evaluate("element => element.tagName") == "SELECT":
        entry.select_option(value)
    elif entry.get_attribute("type") == "checkbox":
        entry.set_checked(value == "true")
    else:
        entry.fill(value)


def fill_toy(page: Page, notes: Path, **more: str) -> None:
    """Settings that train in seconds, by hand."""
    values = {
        "data.path": str(notes), "model.backbone": "mobilenetv4_conv_small", "model.pretrained": "false",
        "data.image_size": "64", "data.batch_size": "4", "data.workers": "0", "runtime.threads": "1",
        "training.previews.count": "3",
    }  # fmt: skip
    for field, value in {**values, **more}.items():
        fill(page, field, value)


def confirm(page: Page, *, significant: bool = False) -> None:
    """Agree in the dialog that shows what changes; a significant change needs the second word."""
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    yes = dialog.locator(".acts button").last
    expect(dialog.locator(".acts button").first).to_be_focused()
    if significant:
        expect(yes).to_be_disabled()
        dialog.get_by_role("checkbox").check()
    yes.click()
    expect(dialog).to_have_count(0)


@pytest.mark.parametrize("language", ["id", "en"])
def test_from_the_form_to_a_served_and_exported_model(
    browser: Browser, tmp_path: Path, notes: Path, language: str
) -> None:
    """A1, A2, A4, A5, A6, A12, A13, A17, A19, A20, A22, A23, A25, D13."""
    t = Words(language)
    home = tmp_path / "home"
    first = trained(home, toy(notes, name="pertama", training={"epochs": 1}))
    with running(home) as studio, visiting(browser, studio, language=language) as page:
        page.get_by_role("link", name=t("home.train")).first.click()
        fill_toy(page, notes)
        fill(page, "optimizer.lr", "-1")
        page.get_by_role("button", name=t("train.prepare")).click()
        expect(page.locator("[name='optimizer.lr']")).to_be_focused()
        expect(page.locator("#f-optimizer-lr-wrong")).to_be_visible()
        fill(page, "optimizer.lr", "0,001")  # a comma, as one types it here
        fill(page, "name", "kedua")
        fill(page, "training.epochs", "400")
        expect(page.locator("#f-optimizer-lr-wrong")).to_have_count(0)
        page.reload()  # the draft is kept
        expect(page.locator("[name='training.epochs']")).to_have_value("400")
        page.get_by_role("button", name=t("train.prepare")).click()
        confirm(page, significant=True)

        expect(page.locator("#ready")).to_be_visible(timeout=MINUTE)
        page.get_by_role("button", name=t("act.start"), exact=True).click()
        expect(page.locator("#facts")).to_be_visible(timeout=MINUTE)
        expect(page.locator(".chart")).to_have_count(4)
        expect(page).to_have_title(re.compile(r"^\d+\s?% · kedua · SmartCash$"))
        page.get_by_role("button", name=t("act.pause"), exact=True).click()
        expect(page.locator("header.head .state.paused")).to_be_visible()
        page.get_by_role("button", name=t("act.continue"), exact=True).click()
        expect(page.locator("header.head .state.running")).to_be_visible()
        expect(page.locator(".prints .print")).not_to_have_count(0)
        page.get_by_role("button", name=t("act.end")).click()
        page.get_by_role("dialog").get_by_role("button", name=t("act.keep_best")).click()
        expect(page.locator("header.head .state.stopped")).to_be_visible(timeout=MINUTE)
        expect(page.locator(".toast").filter(has_text="kedua")).to_be_visible()  # word of the end

        second = page.url.split("/")[-1].split("?")[0]
        serve(page, studio, t, "v1")
        serve(page, studio, t, "v2")
        page.goto(studio.at("models"))
        page.get_by_role("button", name=t("models.back_to", version="v1")).click()
        confirm(page, significant=True)
        back = t("models.rolled_back", alias=t("models.alias_first"), version="v1")
        expect(page.locator(".toast").filter(has_text=back)).to_be_visible()
        assert ModelVersions(home).aliases() == {t("models.alias_first"): 1}

        page.goto(studio.at("models/v2"))
        page.locator("select").first.select_option("safetensors")
        page.get_by_role("button", name=t("export.begin")).click()
        expect(page.get_by_text(t("export.verified"))).to_be_visible(timeout=2 * MINUTE)
        page.locator("#try").set_input_files(next((notes / "images" / "test").glob("*.jpg")))
        expect(page.locator("#sum")).to_contain_text("Rp", timeout=MINUTE)

        page.goto(studio.at("log"))
        page.get_by_role("button", name=t("log.verify")).click()
        expect(page.locator("main .notice")).to_be_visible()
    operations = OperationLog(home / "operations.jsonl").operations()
    done = {each.operation for each in operations if each.run != first or each.operation == "roll-back"}
    for operation in (
        "config-change",
        "start",
        "pause",
        "continue",
        "stop",
        "register",
        "promote",
        "roll-back",
        "export",
    ):
        assert operation in done, operation
    config = TrainingManager(home).find(second).config()
    assert (config.optimizer.lr, config.training.epochs, config.name) == (0.001, 400, "kedua")


def serve(page: Page, studio: Studio, t: Words, version: str) -> None:
    """Promote a version under the name that the page proposes."""
    page.goto(studio.at(f"models/{version}"))
    page.get_by_role("button", name=t("models.promote"), exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=t("next")).click()
    confirm(page)
    expect(page.locator("header.head .tag")).to_be_visible()
