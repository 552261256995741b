"""The stream of events and its twin: no event is lost and none comes twice, whatever is killed."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from studio_process import StudioProcess, epoch_row, made_run, sequences, sse, step

from smartcash.services.event_log import EventLog
from smartcash.services.run_store import RunFolder


@pytest.fixture
def running(home: Path) -> Iterator[RunFolder]:
    """A run that is active as long as this test."""
    run = made_run(home, "running")
    yield run
    run.describe({"state": "stopped"})


class Writer:
    """Appends steps to a run, `per_s` a second and an epoch now and then, until `stop`."""

    def __init__(self, run: RunFolder, per_s: float) -> None:
        self.run, self.pause_s, self.count = run, 1 / per_s, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        with EventLog(self.run.events) as log:
            while not self._done.wait(self.pause_s):
                self.count += 1
                log.append(epoch_row(self.count) if self.count % 25 == 0 else step(self.count))

    def stop(self) -> int:
        """How many events there are."""
        self._done.set()
        self._thread.join()
        return self.count


def batches(client: httpx.Client, after: str, **headers: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, batch) of the runs followed, until the stream ends."""
    with client.stream("GET", "events", params={"after": after}, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (
            response.headers["cache-control"] == "no-store" and response.headers["x-accel-buffering"] == "no"
        )
        for event, place, data in sse(response):
            if event == "run":
                yield place, data


def listened(server: StudioProcess, run: RunFolder, enough: threading.Event, last: list[int]) -> list[int]:
    """What a page sees that reconnects by itself as browsers do, until it has event number `last[0]`."""
    seen: list[int] = []
    place = f"{run.id}:0"
    while not (enough.is_set() and seen and seen[-1] >= last[0]):
        with contextlib.suppress(httpx.TransportError), server.client() as client:
            for place, batch in batches(client, "", **{"last-event-id": place}):  # noqa: B007, B020
                seen += sequences(batch)
                if enough.is_set() and seen[-1] >= last[0]:
                    return seen
        time.sleep(0.05)
    return seen


def drill(home: Path, kills: int) -> tuple[list[int], int, int]:
    """Kill the server at random moments while a run is written and watched: what was seen, how many there were, and
    how often the server was killed."""
    server = StudioProcess(home)
    run = made_run(home, "running")
    writer, enough, last, seen = Writer(run, per_s=50), threading.Event(), [0], list[int]()
    listener = threading.Thread(target=lambda: seen.extend(listened(server, run, enough, last)), daemon=True)
    listener.start()
    chance = random.Random(7)
    for _ in range(kills):
        time.sleep(chance.uniform(0.05, 0.8))
        server.kill()
        server.begin()
    last[0] = writer.stop()
    enough.set()
    listener.join(60)
    server.end()
    run.describe({"state": "stopped"})
    return seen, last[0], kills


def test_a_killed_server_costs_a_listener_nothing(tmp_path: Path) -> None:
    """D12, A32: replay by the last id, in order, once each."""
    seen, count, _ = drill(tmp_path / "runs", kills=2)
    assert seen == list(range(1, count + 1))


@pytest.mark.slow
def test_twenty_random_kills_of_the_server_lose_and_double_no_event(tmp_path: Path) -> None:
    """D12, A26, A32."""
    seen, count, kills = drill(tmp_path / "runs", kills=20)
    lost, doubled = count - len(set(seen)), len(seen) - len(set(seen))
    assert (kills, lost, doubled) == (20, 0, 0) and seen == sorted(seen)


def test_whoever_comes_late_or_falls_behind_sees_the_same(
    client: httpx.Client, server: StudioProcess, running: RunFolder
) -> None:
    """D12: from the beginning, from the middle, from a place ahead of everybody else; each once, in order."""
    with EventLog(running.events) as log:
        for number in range(1, 6001):  # some 2 MB: more than is read at a time
            log.append(step(number))
    found: dict[int, list[int]] = {}

    def listen(after: int) -> None:
        seen = found.setdefault(after, [])
        with server.client() as own:
            for _, batch in batches(own, f"{running.id}:{after}"):
                assert batch["from"] == (seen[-1] if seen else after)
                seen += sequences(batch)
                if seen[-1] >= 6100:
                    return

    threads = [threading.Thread(target=listen, args=(after,)) for after in (5990, 0, 3000, 6000)]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    with EventLog(running.events) as log:
        for number in range(6001, 6101):
            log.append(step(number))
            time.sleep(0.01)
    for thread in threads:
        thread.join(30)
    assert {after: seen == list(range(after + 1, 6101)) for after, seen in found.items()} == dict.fromkeys(
        (5990, 0, 3000, 6000), True
    )


def test_the_last_id_wins_over_the_address(client: httpx.Client, running: RunFolder) -> None:
    """A browser that reconnects sends both."""
    with EventLog(running.events) as log:
        for number in range(1, 31):
            log.append(step(number))
    place, batch = next(batches(client, f"{running.id}:5", **{"last-event-id": f"{running.id}:28"}))
    assert sequences(batch) == [29, 30] and place == f"{running.id}:30"
    assert batch["steps"]["losses.box"] == [5 / 29 / 2, 5 / 30 / 2]


def test_a_page_that_cannot_hold_a_stream_polls_the_same_events(
    client: httpx.Client, running: RunFolder
) -> None:
    """A32: the twin loses and doubles nothing either, and waits no longer than it was told."""
    writer = Writer(running, per_s=60)
    after, seen, deadline = f"{running.id}:0", [], time.monotonic() + 3
    while time.monotonic() < deadline:
        answer = client.get("events", params={"mode": "poll", "after": after, "wait": 1}).json()
        for batch in answer["batches"]:
            seen += sequences(batch)
        after = answer["after"]
    count = writer.stop()
    assert [each["run"] for each in answer["state"]["active"]] == [running.id]
    answer = client.get("events", params={"mode": "poll", "after": after, "wait": 0}).json()
    seen += [seq for batch in answer["batches"] for seq in sequences(batch)]
    assert seen == list(range(1, count + 1))
    began = time.monotonic()
    client.get("events", params={"mode": "poll", "after": answer["after"], "wait": 0.5})
    assert 0.4 < time.monotonic() - began < 3


def test_the_state_comes_at_once_and_tells_of_a_run_whose_worker_died(
    client: httpx.Client, running: RunFolder
) -> None:
    """A34, A4: progress of every active run; a dead one is no longer among them, and is named as crashed."""
    with EventLog(running.events) as log:
        log.append(step(7))
    with client.stream("GET", "events") as response:
        states = (data for event, _, data in sse(response) if event == "state")

        def progress(state: dict[str, Any]) -> list[int | None]:
            return [each["step_in_run"] for each in state["active"] if each["run"] == running.id]

        assert next(state for state in states if progress(state) == [7])
        running.describe(
            {"worker": {"pid": 2**22 + 1, "begun": 1.0, "host": running.description()["worker"]["host"]}}
        )
        state = next(state for state in states if not progress(state))
    assert {each["run"]: each["state"] for each in state["ended"]}[running.id] == "crashed"


def test_events_are_seen_within_a_second(client: httpx.Client, running: RunFolder) -> None:
    """A5: a point is on the page in 2 s at most; the server's part of that is small."""
    with EventLog(running.events) as log:
        log.append(step(1))
        delays = []
        stream = batches(client, f"{running.id}:0")
        next(stream)
        for number in range(2, 12):
            log.append(step(number))
            _, batch = next(stream)
            delays.append(time.time() - batch["steps"]["time"][-1])
        stream.close()  # type: ignore[attr-defined]
    assert max(delays) < 1


@pytest.mark.parametrize(
    "place", ["", "x", "none:5", ":", "a:b,c:-1,d:1e9", "x" * 1999, "a:99999999999999999999", "\udcff:1"]
)
def test_a_place_that_is_none_follows_nothing(client: httpx.Client, place: str) -> None:
    answer = client.get(f"events?mode=poll&wait=0&after={quote(place, errors='surrogateescape')}")
    assert answer.status_code == 200 and answer.json()["batches"] == []


def test_ctrl_c_ends_the_server_within_two_seconds_whoever_listens(tmp_path: Path) -> None:
    """Open streams are told to come again; the training, which is another process, is not touched."""
    server = StudioProcess(tmp_path / "runs")
    ends: list[str] = []

    def listen() -> None:
        with server.client() as client, client.stream("GET", "events") as response:
            ends.extend(event for event, _, _ in sse(response))

    threads = [threading.Thread(target=listen, daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    with server.client() as client:
        time.sleep(1)
        polling = threading.Thread(
            target=lambda: client.get("events", params={"mode": "poll", "wait": 20}), daemon=True
        )
        polling.start()
        time.sleep(0.3)
        took = server.end()
        polling.join(5)
    for thread in threads:
        thread.join(5)
    assert took < 2 and ends.count("bye") == 5 and server.process.returncode == 0


@pytest.mark.slow
def test_an_idle_stream_beats(client: httpx.Client) -> None:
    """A proxy that closes what is silent for 15 s does not close it."""
    began = time.monotonic()
    with client.stream("GET", "events") as response:
        next(event for event, _, data in sse(response) if data is None)
    assert time.monotonic() - began < 15
