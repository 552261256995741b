"""A real server process for tests, and run folders made without a training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from smartcash.domain.config import TrainConfig
from smartcash.domain.events import EpochEnded, Event, StepEnded
from smartcash.services.event_log import EventLog
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder


class StudioProcess:
    """`smartcash studio` on a free port, until `end` or `kill`; `begin` takes the same port again."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home, self.options, self.port = home, options, 0
        self.begin()

    def begin(self) -> None:
        command = [sys.executable, "-m", "smartcash", "studio", "--no-browser", "--home", str(self.home)]
        command += ["--port", str(self.port), *self.options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "SMARTCASH_LANG": "en", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "http://" in line, line + self.process.stdout.read()
        self.address, _, self.token = line.split()[-1].partition("/?token=")
        self.port = int(self.address.rpartition(":")[2])
        self.said: list[str] = []
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            self.said += list(process.stdout)

    def client(self, **headers: str) -> httpx.Client:
        """A client that is signed in, in English; redirects are not followed."""
        known = {"authorization": f"Bearer {self.token}", "accept-language": "en", **headers}
        return httpx.Client(base_url=f"{self.address}/api/v1/", headers=known, timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> float:
        """Ctrl-C; how long it took, s."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        return time.monotonic() - began


def kept(server: StudioProcess | Path) -> list[str]:
    """What lies in the folder of a server or home, hidden or not, but its lock."""
    folder = (server if isinstance(server, Path) else server.home) / "data"
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.is_dir() else []


def wait_for(condition: Callable[[], Any], limit_s: float = 120.0) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def finished(client: httpx.Client, job: str) -> dict[str, Any]:
    """The job, once it is over."""
    return dict(wait_for(lambda: (found := client.get(f"jobs/{job}").json())["state"] != "running" and found))


def workers(home: Path) -> list[psutil.Process]:
    """The processes that answer for a studio of this home, whoever has begun them."""
    found = psutil.process_iter(["cmdline"])
    return [each for each in found if {"answer", str(home)} <= set(each.info["cmdline"] or ())]


def made_run(
    home: Path, state: str = "finished", *, config: TrainConfig | None = None, **facts: Any
) -> RunFolder:
    """A run folder as a training leaves it, without one; one that is active belongs to this very process."""
    config = config or TrainConfig.parse({"task": "detect", "data": {"path": str(home)}})
    if state in ("running", "paused", "queued"):
        facts["worker"] = identity(os.getpid())
    run = RunFolder.create(home, config, {"state": state, **facts})
    if state not in ("running", "paused", "queued", "created", "ready"):
        run.describe(
            {
                "started": "2026-11-01T08:00:00+00:00",
                "ended": "2026-11-01T09:00:00+00:00",
                "elapsed_s": 3600.0,
            }
        )
    return run


def step(number: int, *, steps: int = 10, loss: float | None = None) -> StepEnded:
    """The event of step `number` of a run."""
    value = 5 / number if loss is None else loss
    epoch, place = divmod(number - 1, steps)
    losses = {"box": value / 2, "loss": value}
    return StepEnded(epoch + 1, place + 1, steps, number, losses, value, 1e-3, 50.0, 10.0)


def epoch_row(epoch: int, *, epochs: int = 3) -> EpochEnded:
    return EpochEnded(
        epoch, epochs, {"epoch": float(epoch), "train_loss": 1 / epoch, "mAP50": epoch / 10}, True
    )


def write_events(run: RunFolder, *events: Event) -> None:
    with EventLog(run.events) as log:
        for event in events:
            log.append(event)


def sse(response: httpx.Response) -> Iterator[tuple[str, str, Any]]:
    """(event, id, data) of each message of a stream; comments are ("", "", None)."""
    found = {"event": "message", "id": "", "data": ""}
    for line in response.iter_lines():
        if line.startswith(":"):
            yield "", "", None
        elif line:
            name, _, value = line.partition(": ")
            found[name] = value
        elif found["data"]:
            yield found["event"], found["id"], json.loads(found["data"])
            found = {"event": "message", "id": "", "data": ""}


def sequences(batch: dict[str, Any]) -> list[int]:
    """The numbers of all events of a batch, in order."""
    return sorted([*batch["steps"].get("seq", []), *(event["seq"] for event in batch["events"])])
