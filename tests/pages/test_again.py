"""Train again like a run, and an extension that was never better: what the page says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.run_store import RunFolder, find_run
from smartcash.utils.i18n import text

from .conftest import running, toy, trained, visiting

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("typed", [None, 1])
def test_training_again_like_a_run_changes_only_what_is_typed(
    browser: Browser, tmp_path: Path, notes: Path, typed: int | None
) -> None:
    """A1, A12, C1: nothing, or the epochs alone, however short; a preparation that failed meanwhile is nothing to
    compare with, and its configuration, confirmed last, is not the one that is prepared."""
    home = tmp_path / "home"
    first = trained(home, toy(notes, name="pertama"))
    manager = TrainingManager(home)
    failed = manager.apply(
        manager.check(toy(notes, name="salah", data={"batch_size": 4096})), significant=True
    )
    manager.service.wait(failed, ("failed",), timeout_s=120)
    with running(home) as studio, visiting(browser, studio, language="en") as page:
        page.goto(studio.at(f"runs/{first}"))
        page.get_by_role("link", name=text("studio.act.again", "en")).click()
        aside = page.locator("aside")
        expect(aside.get_by_text(text("studio.changes.none", "en"))).to_be_visible()
        expect(aside.get_by_role("link")).to_have_attribute("href", studio.at(f"runs/{first}"))
        expect(page.locator("[name='schedule.warmup_epochs']")).to_have_value("auto")
        prepare = page.get_by_role("button", name=text("studio.train.prepare", "en"))
        dialog = page.get_by_role("dialog")
        if typed is None:
            prepare.click()
        else:
            page.locator("[name='training.epochs']").fill(str(typed))
            expect(aside.locator(".differences li")).to_have_count(1)
            expect(aside.locator(".warn")).to_have_count(0)
            prepare.click()
            expect(dialog.locator("tbody tr")).to_have_count(1)
            dialog.locator(".acts button").last.click()
        expect(page.locator("#ready")).to_be_visible(timeout=60_000)
        expect(dialog).to_have_count(0)
        made, asked = find_run("latest", home), find_run(first, home).asked()
        assert made.id not in (first, failed.id)
        assert made.asked() == (asked.replaced(training={"epochs": typed}) if typed else asked)


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_run_whose_configuration_cannot_be_read_is_none_to_train_again_like(
    browser: Browser, tmp_path: Path, home: Path, language: str
) -> None:
    """No button leads there; an address that does says why nothing was taken over."""
    shutil.copytree(home, tmp_path / "home")
    run = RunFolder(next((tmp_path / "home").glob("*/*/run.json")).parent)
    for name in ("asked.yaml", "config.yaml"):
        (run.path / name).write_text("training: {epochs: many}\n")
    with (
        running(tmp_path / "home") as studio,
        visiting(browser, studio, language=language) as page,
    ):
        page.goto(studio.at(f"runs/{run.id}"))
        expect(page.locator(".tabs")).to_be_visible()
        expect(page.get_by_role("link", name=text("studio.act.again", language))).to_have_count(0)
        page.goto(studio.at(f"train?from={run.id}"))
        expect(page.locator(".toast")).to_contain_text(text("studio.train.from_none", language, run=run.id))
        expect(page).to_have_url(studio.at("train"))


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_run_whose_best_epoch_is_still_its_parents_says_so(
    browser: Browser, tmp_path: Path, notes: Path, language: str
) -> None:
    """A15, D3."""
    home = tmp_path / "home"
    worst = {"epochs": 1, "monitor": "exact_sum", "mode": "min"}  # none can be less right than the first
    parent = trained(home, toy(notes, training=worst))
    manager = TrainingManager(home)
    child = manager.extend(manager.check_extension(parent, 2), significant=True)
    manager.wait_ready(child, timeout_s=120)
    manager.start(child)
    manager.service.wait(child, ("finished",), timeout_s=120)
    with running(home) as studio, visiting(browser, studio, language=language) as page:
        page.goto(studio.at(f"runs/{child.id}"))
        kept = page.locator("#kept")
        expect(kept).to_contain_text(
            {"id": "Epoch terbaik masih epoch 1", "en": "The best epoch is still epoch 1"}[language]
        )
        expect(kept).to_contain_text("v1")
        expect(kept.get_by_role("link")).to_have_attribute("href", studio.at(f"runs/{parent}"))
        page.goto(studio.at(f"runs/{child.id}?tab=story"))
        told = text("studio.story.version_kept", language, epoch=1, version="v1")
        expect(page.get_by_text(told)).to_be_visible()
        page.goto(studio.at(f"runs/{parent}"))
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("#kept")).to_have_count(0)
