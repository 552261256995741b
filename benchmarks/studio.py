"""What the studio costs and how quick it is: its server with readers, its page in a browser, a training beside it.

    python -m benchmarks.studio [--only server page live training] [--readers 5] [--rate 20] [--seconds 20] [--pairs 5]

server: its share of a core with `readers` clients, and from an event to a client, while this process writes `rate`
events a second beside `points` that are there already. page: from the address to charts, of runs with 20,000 and
100,000 steps, at first and again. live: the server's share with `readers` tabs of one browser, and from an event until
it is seen. training: steps a second and processor time of a step, with the page in a hidden
tab and without, in turns. All but the first need a Chromium (`make browser`). Times need a machine that does nothing
else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from playwright.sync_api import BrowserContext, sync_playwright

from benchmarks.measuring import running_studio
from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig
from smartcash.domain.events import StepEnded
from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.event_log import EventLog, read_events
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder
from smartcash.ui.guard import TOKEN_FILE

LENGTHS = (20_000, 100_000)
OPENED = 4  # times, the first of them on a server that was just begun
WARM_S = 2.0
# without these, a Chromium run by root does not start, and it asks its maker for updates
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-sync",
)
TOY: dict[str, Any] = {
    "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
    "data": {"image_size": 64, "batch_size": 4, "workers": 0},
    "training": {"previews": {"count": 3}},
    "runtime": {"threads": 1},
}
# a driven browser shows every one of its tabs, so the page is told what a tab behind others is told
HIDDEN = "Object.defineProperty(document, 'hidden', { get: () => true });"
SEEN = """async seconds => {
  const seen = {}, until = Date.now() + 1000 * seconds;
  while (Date.now() < until) {
    await new Promise(requestAnimationFrame);
    seen[document.getElementById("figures").dataset.step] ??= Date.now() / 1000;
  }
  return seen;
}"""


def step(number: int) -> StepEnded:
    losses = {"class": 1.1 / number, "box": 0.2 / number, "dfl": 1.2 / number, "loss": 3.1 / number}
    epoch, place = divmod(number - 1, 100)
    return StepEnded(epoch + 1, place + 1, 100, number, losses, 3.1 / number, 2e-3, 14.26, 535.7)


@dataclass
class Server:
    """A studio in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    token: str

    def client(self) -> httpx.Client:
        known = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"{self.address}/api/v1/", headers=known, timeout=60)

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    with running_studio(home) as (process, address):
        token = json.loads((home / TOKEN_FILE).read_text())["token"]
        yield Server(process, address.partition("/?")[0], token)


@contextmanager
def browsing(server: Server) -> Iterator[BrowserContext]:
    """A browser that is signed in."""
    with sync_playwright() as playwright:
        named = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=named, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        page.goto(f"{server.address}/?token={server.token}")
        page.wait_for_selector("h1")
        page.close()
        yield context
        browser.close()


def written(home: Path, points: int) -> RunFolder:
    """A run at work, by this process, with so many steps."""
    config = TrainConfig.parse({"task": "detect", "training": {"epochs": 2000}})
    run = RunFolder.create(home, config, {"state": "running", "worker": identity(os.getpid())})
    with EventLog(run.events) as log:
        for number in range(1, points + 1):
            log.append(step(number))
    return run


def write_on(run: RunFolder, points: int, rate: float, seconds: float) -> tuple[int, float]:
    """Go on writing: how many steps there are then, and how long it took."""
    began, number = time.monotonic(), points
    with EventLog(run.events) as log:
        while time.monotonic() < began + seconds:
            number += 1
            log.append(step(number))
            time.sleep(max(0.0, began + (number - points) / rate - time.monotonic()))
    return number, time.monotonic() - began


# --- the server


def messages(response: httpx.Response) -> Iterator[dict[str, Any]]:
    event = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: ") and event == "run":
            yield json.loads(line.removeprefix("data: "))


class Reader(threading.Thread):
    """Follows the run and keeps how old each event was when it came, ms."""

    def __init__(self, client: httpx.Client, after: str) -> None:
        super().__init__(daemon=True)
        self.client, self.after, self.delays_ms = client, after, list[float]()

    def run(self) -> None:
        # the server is killed at the end
        with (
            suppress(httpx.TransportError),
            self.client.stream("GET", "events", params={"after": self.after}) as response,
        ):
            for batch in messages(response):
                now = time.time()
                self.delays_ms += [(now - moment) * 1000 for moment in batch["steps"].get("time", [])]


def server(home: Path, options: argparse.Namespace) -> None:
    run = written(home, options.points)
    with serving(home) as studio:
        with studio.client() as own:
            for name, params in (("first", {}), ("again", {}), ("as float32", {"format": "f32"})):
                began = time.perf_counter()
                size = len(own.get(f"runs/{run.id}/metrics", params=params).content)
                took = (time.perf_counter() - began) * 1000
                print(f"metrics of {options.points} points, {name}: {took:.0f} ms, {size / 1000:.0f} kB")
        readers = [Reader(studio.client(), f"{run.id}:{options.points}") for _ in range(options.readers)]
        for reader in readers:
            reader.start()
        time.sleep(WARM_S)
        before = studio.cpu_s()
        last, took_s = write_on(run, options.points, options.rate, options.seconds)
        share = (studio.cpu_s() - before) / took_s
        time.sleep(0.5)
        memory = psutil.Process(studio.process.pid).memory_info().rss >> 20
        delays = np.array([delay for reader in readers for delay in reader.delays_ms])
    print(
        f"server with {options.readers} readers at {options.rate:g} events/s: {share:.2%} of a core, {memory} MB"
    )
    p50, p95 = np.percentile(delays, [50, 95])
    expected = options.readers * (last - options.points)
    print(f"event to client: p50 {p50:.0f} ms, p95 {p95:.0f} ms; {len(delays)} of {expected} events came")


# --- its page


def trained(home: Path, epochs: int) -> tuple[TrainingManager, RunFolder]:
    """A small training that has begun."""
    write_samples(home.parent / "notes", images=24, seed=3, size_px=160)
    manager = TrainingManager(home)
    values = {**TOY, "data": {**TOY["data"], "path": str(home.parent / "notes")}}
    values["training"] = {**TOY["training"], "epochs": epochs}
    run = manager.apply(manager.check(values), significant=True)
    manager.wait_ready(run, timeout_s=300)
    manager.start(run)
    return manager, run


def lengthen(log: Path, count: int) -> None:
    """Repeat the first step of a run's log until it has `count`, each with its own number and time."""
    first = next(each for each in read_events(log) if each["type"] == "StepEnded")
    with log.open("w") as file:
        for number in range(1, count + 1):
            epoch, within = divmod(number - 1, 1000)
            place = {"epoch": epoch + 1, "step": within + 1, "steps": 1000, "step_in_run": number}
            loss = 3 / (1 + number / count * 9) + (number * 7919 % 100) / 500
            own = {"seq": number, "time": first["time"] + number / 20, "loss": loss}
            file.write(json.dumps({**first, **own, **place}) + "\n")


def page(home: Path, options: argparse.Namespace) -> None:
    manager, run = trained(home, 3)
    state = manager.service.wait(run, timeout_s=300)
    assert state == "finished", state
    for count in LENGTHS:
        lengthen(run.events, count)
        with serving(home) as studio, browsing(studio) as context:
            tab, taken, cpu = context.new_page(), list[float](), list[float]()
            for _ in range(OPENED):
                tab.goto("about:blank")
                began, before = time.monotonic(), studio.cpu_s()
                tab.goto(f"{studio.address}/runs/{run.id}")
                tab.wait_for_selector(".chart canvas")
                tab.wait_for_function(
                    f"() => Number(document.getElementById('figures')?.dataset.step) >= {count}"
                )
                taken.append(time.monotonic() - began)
                cpu.append(studio.cpu_s() - before)
        print(
            f"{count} points: first {taken[0]:.2f} s, then {min(taken[1:]):.2f} s to charts; "
            f"the server computed {cpu[0]:.2f} s, then {min(cpu[1:]):.2f} s"
        )


def live(home: Path, options: argparse.Namespace) -> None:
    run = written(home, options.points)
    with serving(home) as studio, browsing(studio) as context:
        tabs = [context.new_page() for _ in range(options.readers)]
        for tab in tabs:
            tab.goto(f"{studio.address}/runs/{run.id}")
            tab.wait_for_selector(".dot.live")
            tab.wait_for_selector("#figures")
        time.sleep(WARM_S)
        writer = threading.Thread(
            target=write_on, args=(run, options.points, options.rate, options.seconds + 1)
        )
        writer.start()
        before, began = studio.cpu_s(), time.monotonic()
        seen = tabs[-1].evaluate(SEEN, options.seconds)
        share = (studio.cpu_s() - before) / (time.monotonic() - began)
        writer.join()
    logged = {str(each["step_in_run"]): each["time"] for each in read_events(run.events)}
    late = [1000 * (when - logged[name]) for name, when in seen.items() if int(name) > options.points]
    p50, p95 = np.percentile(late, [50, 95])
    print(f"server with {options.readers} tabs at {options.rate:g} events/s: {share:.2%} of a core")
    print(f"event to seen: p50 {p50:.0f} ms, p95 {p95:.0f} ms of {len(late)}")


# --- a training beside it


def training(home: Path, options: argparse.Namespace) -> None:
    manager, run = trained(home, 100_000)
    manager.service.wait(run, ("running",), timeout_s=300)
    worker = psutil.Process(run.description()["worker"]["pid"])
    try:
        with serving(home) as studio, browsing(studio) as context:
            rows = []
            for pair in range(options.pairs):
                both = {}
                for shown in (pair % 2 == 0, pair % 2 == 1):
                    both[shown] = _speed(run, worker, studio, context, shown, options.seconds)
                rows.append([both[True][0] / both[False][0], both[True][1] / both[False][1]])
    finally:
        manager.command(run, "stop")
        manager.service.wait(run, timeout_s=300)
    speed, cpu = (statistics.median(column) for column in zip(*rows))
    each = ", ".join(f"{row[0]:.1%}" for row in rows)
    print(f"training with the page in a hidden tab: {speed:.1%} of the steps a second without ({each});")
    print(f"processor time of a step: {cpu:.1%} of that without; medians of {len(rows)} pairs")


def _speed(
    run: RunFolder,
    worker: psutil.Process,
    studio: Server,
    context: BrowserContext,
    shown: bool,
    seconds: float,
) -> tuple[float, float]:
    """Steps a second, and processor time of one, s."""
    tab = context.new_page() if shown else None
    if tab:
        tab.add_init_script(HIDDEN)
        tab.goto(f"{studio.address}/runs/{run.id}")
        tab.wait_for_selector(".dot.live")
        tab.wait_for_selector(".chart canvas")
    time.sleep(WARM_S)
    (first, cpu_s, began), (last, cpu_after_s, ended) = (
        _stands(run, worker, wait_s) for wait_s in (0.0, seconds)
    )
    if tab:
        tab.close()
    return (last - first) / (ended - began), (cpu_after_s - cpu_s) / (last - first)


def _stands(run: RunFolder, worker: psutil.Process, wait_s: float) -> tuple[int, float, float]:
    """After `wait_s`: the last step, the worker's processor time, now."""
    time.sleep(wait_s)
    *_, last = (each for each in read_events(run.events) if each["type"] == "StepEnded")
    times = worker.cpu_times()
    return last["step_in_run"], times.user + times.system, time.monotonic()


PARTS = {part.__name__: part for part in (server, page, live, training)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--readers", type=int, default=5)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder) / "runs", options)


if __name__ == "__main__":
    main()
