"""What a page lives through: a reload, eight tabs, a server that is killed, proxies, a long history."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from smartcash.domain.records import ACTIVE
from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder

from .conftest import Studio, running, toy, visiting
from .proxies import proxied

pytestmark = pytest.mark.drills


@pytest.fixture
def at_work(tmp_path: Path, notes: Path) -> Iterator[tuple[Studio, str]]:
    """A studio, and a run that trains until the test is over."""
    manager = TrainingManager(tmp_path / "home")
    run = manager.apply(manager.check(toy(notes, name="lama", training={"epochs": 5000})), significant=True)
    manager.wait_ready(run, timeout_s=120)
    manager.start(run)
    manager.service.wait(run, ("running",), timeout_s=120)
    with running(manager.home) as studio:
        yield studio, run.id
    if manager.service.state(run) in ACTIVE:
        manager.command(run, "stop")
        manager.service.wait(run, timeout_s=120)


def test_a_queued_run_says_what_it_waits_for_and_its_end_is_told_in_a_hidden_tab(
    browser: Browser, at_work: tuple[Studio, str], notes: Path
) -> None:
    """A23, D12: the chip stays with the run that trains; the queued one begins by itself when that one has ended."""
    studio, before = at_work
    manager = TrainingManager(studio.home)
    run = manager.apply(manager.check(toy(notes, name="antre")), significant=True)
    manager.wait_ready(run, timeout_s=120)
    manager.start(run)
    hidden = """Object.defineProperty(document, "hidden", { get: () => true });
        window.told = [];
        window.Notification = class { static permission = "granted"; constructor(...said) { told.push(said); } };"""
    with visiting(browser, studio, language="en") as page:
        page.add_init_script(hidden)
        page.goto(studio.at(f"runs/{run.id}"))
        expect(page.locator("main")).to_contain_text("This run is in the queue")
        expect(page.locator("main").get_by_role("link", name="lama")).to_be_visible()
        expect(page.locator("#chip")).to_contain_text("lama")
        assert page.locator(".chart").count() == 0
        manager.command(RunFolder(next(studio.home.glob(f"*/{before}"))), "stop")
        expect(page.locator(".chart canvas").first).to_be_visible(timeout=120_000)
        manager.service.wait(run, timeout_s=120)
        page.wait_for_function("() => told.length === 2", timeout=30_000)
        (title, first), (_, second) = page.evaluate("() => told")
    assert title == "SmartCash"
    assert (first["tag"], second["tag"]) == (before, run.id)
    assert "lama" in first["body"] and "antre" in second["body"]


def points(page: Page) -> int:
    """The last step that the page shows."""
    return int(page.locator("#figures").get_attribute("data-step") or 0)


def test_a_reload_in_mid_run_loses_nothing(browser: Browser, at_work: tuple[Studio, str]) -> None:
    """A4, D12."""
    studio, run = at_work
    with visiting(browser, studio) as page:
        page.goto(studio.at(f"runs/{run}"))
        expect(page.locator("#figures")).not_to_have_attribute("data-step", "0")
        before = points(page)
        page.reload()
        expect(page.locator("#figures")).to_be_visible()
        assert points(page) >= before
        again = points(page)
        page.wait_for_function(f"() => Number(document.getElementById('figures').dataset.step) > {again}")
        page.locator(".chart").first.get_by_role("button", name="Tabel").click()
        columns = page.evaluate(
            "async run => (await (await fetch(new URL(`api/v1/runs/${run}/metrics`, document.baseURI))).json()).step",
            run,
        )
        assert columns == sorted(set(columns))


def test_eight_tabs_share_one_stream(browser: Browser, at_work: tuple[Studio, str]) -> None:
    """A32, D12: browsers allow six connections to one host."""
    studio, run = at_work
    streams: list[str] = []
    with visiting(browser, studio) as first:
        context = first.context
        context.on(
            "request",
            lambda asked: (
                streams.append(asked.url)
                if "/events?" in asked.url and "mode=poll" not in asked.url
                else None
            ),
        )
        tabs = [first, *(context.new_page() for _ in range(7))]
        for tab in tabs:
            tab.goto(studio.at(f"runs/{run}"))
        for tab in tabs:
            expect(tab.locator(".dot.live")).to_be_visible()
            now = points(tab)
            tab.bring_to_front()
            tab.wait_for_function(f"() => Number(document.getElementById('figures').dataset.step) > {now}")
        opened = len(streams)
        assert opened <= 10  # the leader opens it anew as it learns what the others follow
        tabs[0].close()  # the leader leaves, another takes over
        now = points(tabs[1])
        tabs[1].bring_to_front()
        tabs[1].wait_for_function(f"() => Number(document.getElementById('figures').dataset.step) > {now}")


def test_a_killed_server_comes_back_to_the_same_page_and_the_draft_is_kept(
    browser: Browser, at_work: tuple[Studio, str]
) -> None:
    """A26, D12."""
    studio, run = at_work
    with visiting(browser, studio) as page:
        page.goto(studio.at("train"))
        page.locator("[name='name']").fill("draf saya")
        page.evaluate("() => { window.same = true; }")
        studio.kill()
        expect(page.locator(".dot.lost")).to_be_visible()
        studio.start()
        expect(page.locator(".dot.live")).to_be_visible()
        assert page.evaluate("() => window.same")
        expect(page.locator("[name='name']")).to_have_value("draf saya")
        page.goto(studio.at(f"runs/{run}"))
        expect(page.locator("#figures")).not_to_have_attribute("data-step", "0")
        studio.kill()
        expect(page.locator(".dot.lost")).to_be_visible()
        gone = points(page)
        studio.start()
        expect(page.locator(".dot.live")).to_be_visible()
        page.wait_for_function(f"() => Number(document.getElementById('figures').dataset.step) > {gone}")


def test_beneath_a_path_of_a_proxy_everything_works(browser: Browser, at_work: tuple[Studio, str]) -> None:
    """A32: Jupyter's and Colab's proxies."""
    studio, run = at_work
    with proxied(studio.port, "/user/ani/proxy/8765") as base, visiting(browser, studio, base=base) as page:
        page.goto(studio.at(f"runs/{run}", base))
        expect(page.locator(".dot.live")).to_be_visible()
        now = points(page)
        page.wait_for_function(f"() => Number(document.getElementById('figures').dataset.step) > {now}")
        expect(page.locator(".prints image").first).to_be_visible()
        page.locator("nav a").nth(2).click()
        expect(page).to_have_url(f"{base}/runs")
        page.locator("tbody a").first.click()
        expect(page).to_have_url(f"{base}/runs/{run}")
        page.go_back()
        expect(page).to_have_url(f"{base}/runs")


def test_behind_a_proxy_that_lets_no_stream_through_the_page_asks_again_and_again(
    browser: Browser, at_work: tuple[Studio, str]
) -> None:
    """A32."""
    studio, run = at_work
    with proxied(studio.port, holds_back=True) as base, visiting(browser, studio, base=base) as page:
        page.goto(studio.at(f"runs/{run}", base))
        expect(page.locator(".dot.poll")).to_be_visible()
        now = points(page)
        page.wait_for_function(f"() => Number(document.getElementById('figures').dataset.step) > {now}")


def test_through_kills_and_reloads_the_page_has_every_step_of_the_log_once_and_in_order(
    browser: Browser, at_work: tuple[Studio, str]
) -> None:
    """A4, A26, D12: twenty of them at random, and then as the chart's own file has them."""
    studio, run = at_work
    troubles = random.Random(0).choices(("kill", "reload"), k=20)
    with visiting(browser, studio) as page:
        page.goto(studio.at(f"runs/{run}?x=step"))
        for trouble in troubles:
            now = points(page)
            page.wait_for_function(f"() => Number(document.getElementById('figures')?.dataset.step) > {now}")
            if trouble == "kill":
                studio.kill()
                expect(page.locator(".dot.lost")).to_be_visible()
                studio.start()
                expect(page.locator(".dot.live")).to_be_visible()
            else:
                page.reload()
                expect(page.locator("#figures")).to_be_visible()
        last = points(page)
        page.wait_for_function(f"() => Number(document.getElementById('figures').dataset.step) > {last}")
        steps = steps_of(page)
    log = next(studio.home.glob(f"*/{run}/events.jsonl"))
    written = [each["step_in_run"] for each in read_events(log) if each["type"] == "StepEnded"]
    assert steps == written[: len(steps)]
    assert steps[-1] > last


def test_a_long_run_is_shown_whole(browser: Browser, home: Path, tmp_path: Path) -> None:
    """D12: thinned, to its last step, and its course is asked for once; how quickly is a benchmark's."""
    count = 20_000
    own = tmp_path / "home"
    shutil.copytree(home, own)
    folder = next(own.glob("*/*/run.json")).parent
    lengthen(folder / "events.jsonl", count)
    asked: list[str] = []
    with running(own) as studio, visiting(browser, studio) as page:
        page.on("request", lambda each: asked.append(each.url) if "/metrics" in each.url else None)
        page.goto(studio.at(f"runs/{folder.name}?x=step"))
        expect(page.locator("#figures")).to_have_attribute("data-step", str(count))
        steps = steps_of(page)
    assert steps == sorted(set(steps))
    assert (len(steps), steps[-1]) == (2000, count)
    assert len(asked) == 1


def steps_of(page: Page) -> list[int]:
    """The steps in the file of the last chart, which has nothing but steps."""
    with page.expect_download() as download:
        page.locator(".chart").last.get_by_role("button", name="CSV").click()
    _, *rows = download.value.path().read_text(encoding="utf-8").splitlines()
    return [int(row.split(",")[0]) for row in rows]


def lengthen(log: Path, count: int) -> None:
    """Repeat the steps of a run's log until it has `count` of them, each with its own number and time."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    step = next(each for each in records if each["type"] == "StepEnded")
    with log.open("w") as file:
        for number in range(1, count + 1):
            epoch, within = divmod(number - 1, 1000)
            own = {
                "seq": number,
                "time": step["time"] + number / 20,
                "epoch": epoch + 1,
                "step": within + 1,
                "steps": 1000,
            }
            loss = 3 / (1 + number / count * 9) + (number * 7919 % 100) / 500
            file.write(json.dumps({**step, **own, "step_in_run": number, "loss": loss}) + "\n")


def test_the_javascript_of_the_page_is_light(browser: Browser, studio: Studio, home: Path) -> None:
    """What a run's page, the largest, brings over the wire."""
    run = next(home.glob("*/*/run.json")).parent.name
    sizes: dict[str, int] = {}
    with visiting(browser, studio) as page:
        page.on(
            "response",
            lambda got: (
                sizes.__setitem__(got.url, got.request.sizes()["responseBodySize"])
                if re.search(r"\.js$", got.url)
                else None
            ),
        )
        page.goto(studio.at(f"runs/{run}"))
        page.wait_for_selector(".chart canvas")
    total = sum(sizes.values())
    print(f"JavaScript over the wire: {total / 1000:.0f} kB in {len(sizes)} files")
    assert total < 150_000


def test_a_report_card_is_made_from_the_page_of_a_version(browser: Browser, studio: Studio) -> None:
    """D14: a button, minutes of work beside the page, and a page that needs no script."""
    with visiting(browser, studio, language="en") as page:
        page.goto(studio.at("models/v1"))
        page.get_by_role("button", name="Make a report card").click()
        expect(page.locator("#report")).to_contain_text("is being made")
        page.reload()
        link = page.get_by_role("link", name="Open the report card")
        expect(link).to_be_visible(timeout=240_000)
        with page.context.expect_page() as opened:
            link.click()
        card = opened.value
        expect(card.locator("h1")).to_have_text("Report card: v1")
        expect(card.locator("svg").first).to_be_visible()
        assert card.locator("script").count() == 0


def test_a_report_card_that_cannot_be_made_says_why(browser: Browser, home: Path, tmp_path: Path) -> None:
    """D14: here the version's file is damaged."""
    copy = tmp_path / "home"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns(".reports"))
    (copy / "models" / "v1" / "model.pth").write_bytes(b"damaged")
    with running(copy) as studio, visiting(browser, studio, language="en") as page:
        page.goto(studio.at("models/v1"))
        page.get_by_role("button", name="Make a report card").click()
        expect(page.locator("main")).to_contain_text("model.pth", timeout=60_000)
        expect(page.get_by_role("button", name="Make a report card")).to_be_visible()
