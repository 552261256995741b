"""What the studio's server costs: its share of a core with readers, from an event to a client, long curves.

    python -m benchmarks.studio [--readers 5] [--rate 20] [--seconds 20] [--points 100000]

A run is written by this process, at `rate` events a second beside `points` that are there already; the server is a
process of its own, and its readers are clients of this one. Times need a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from smartcash.domain.config import TrainConfig
from smartcash.domain.events import StepEnded
from smartcash.services.event_log import EventLog
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder
from smartcash.ui.guard import TOKEN_FILE


def step(number: int) -> StepEnded:
    losses = {"class": 1.1 / number, "box": 0.2 / number, "dfl": 1.2 / number, "loss": 3.1 / number}
    epoch, place = divmod(number - 1, 100)
    return StepEnded(epoch + 1, place + 1, 100, number, losses, 3.1 / number, 2e-3, 14.26, 535.7)


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=5)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--points", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "runs"
        config = TrainConfig.parse({"task": "detect", "training": {"epochs": 2000}})
        run = RunFolder.create(home, config, {"state": "running", "worker": identity(os.getpid())})
        with EventLog(run.events) as log:
            for number in range(1, options.points + 1):
                log.append(step(number))
        command = [
            sys.executable,
            "-m",
            "smartcash",
            "studio",
            "--no-browser",
            "--port",
            "0",
            "--home",
            str(home),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1].partition("/?")[0]
        token = json.loads((home / TOKEN_FILE).read_text())["token"]

        def client() -> httpx.Client:
            known = {"authorization": f"Bearer {token}"}
            return httpx.Client(base_url=f"{address}/api/v1/", headers=known, timeout=60)

        with client() as own:
            for name, params in (("first", {}), ("again", {}), ("as float32", {"format": "f32"})):
                began = time.perf_counter()
                size = len(own.get(f"runs/{run.id}/metrics", params=params).content)
                took = (time.perf_counter() - began) * 1000
                print(f"metrics of {options.points} points, {name}: {took:.0f} ms, {size / 1000:.0f} kB")
        readers = [Reader(client(), f"{run.id}:{options.points}") for _ in range(options.readers)]
        for reader in readers:
            reader.start()
        time.sleep(2)
        server = psutil.Process(process.pid)
        before, began = server.cpu_times(), time.monotonic()
        with EventLog(run.events) as log:
            number = options.points
            while time.monotonic() < began + options.seconds:
                number += 1
                log.append(step(number))
                time.sleep(max(0.0, began + (number - options.points) / options.rate - time.monotonic()))
        elapsed, after = time.monotonic() - began, server.cpu_times()
        time.sleep(0.5)
        cpu = after.user + after.system - before.user - before.system
        delays = np.array([delay for reader in readers for delay in reader.delays_ms])
        expected = options.readers * (number - options.points)
        print(
            f"server with {options.readers} readers at {options.rate:g} events/s: {100 * cpu / elapsed:.2f} % of a core, "
            f"{server.memory_info().rss >> 20} MB"
        )
        p50, p95 = np.percentile(delays, [50, 95])
        print(f"event to client: p50 {p50:.0f} ms, p95 {p95:.0f} ms; {len(delays)} of {expected} events came")
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
