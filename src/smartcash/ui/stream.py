"""The one stream of events (server-sent events), and its twin for whoever cannot hold a stream open.

A subscriber says which runs it follows, and the number of the last event it has of each: `RUN:SEQ,RUN2:SEQ2`. That is
also the `id` of every message, so a browser that reconnects, after whatever, goes on exactly there: the files are the
truth, the server remembers nothing.

One thread of work serves all: forty times a second it looks whether anything was appended to the runs that are
followed, encodes it once, and has the same bytes handed to everybody who stands at the same place; who is behind is
brought up from the file.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from smartcash.domain.records import ACTIVE, RunInfo
from smartcash.handlers.operation_log import OperationLog
from smartcash.handlers.run_view import RunView
from smartcash.services.event_log import EventTail
from smartcash.services.jobs import Jobs
from smartcash.services.run_store import RunFolder, RunStore
from smartcash.services.training_service import TrainingService

TICK_S = 0.025
POLL_S = 0.05
BEAT_S = 10.0
LOOK_S = 1.0
STATE_S = 1.0
STATE_SHARE = (
    50  # looking at all runs may take a fiftieth of the time: 20,000 of them are looked at less often
)
ENDED = 5
MOST_FOLLOWED = 8
MOST_WAITING = 200  # messages; whoever takes them so slowly has to come again
STEP_COLUMNS = ("seq", "time", "epoch", "step", "steps", "step_in_run", "loss", "lr", "images_per_s", "eta_s")


def parse_places(text: str) -> dict[str, int]:
    """`RUN:SEQ,…` as run → number of its last event. What is not of this form is left out."""
    places = {}
    for part in text.split(",")[:MOST_FOLLOWED]:
        run, _, seq = part.strip().rpartition(":")
        if run and seq.isascii() and seq.isdigit() and len(seq) < 16:
            places[run] = int(seq)
    return places


def written_places(places: Mapping[str, int]) -> str:
    """The inverse of `parse_places`."""
    return ",".join(f"{run}:{seq}" for run, seq in places.items())


def batch_of(run: str, before: int, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Events of a run as they go to the page: the steps as columns, whatever else as it is."""
    steps = [record for record in records if record.get("type") == "StepEnded"]
    columns: dict[str, list[Any]] = {name: [record.get(name) for record in steps] for name in STEP_COLUMNS}
    parts = [record["losses"] if isinstance(record.get("losses"), dict) else {} for record in steps]
    for name in dict.fromkeys(name for each in parts for name in each):
        columns[f"losses.{name}"] = [each.get(name) for each in parts]
    others = [record for record in records if record.get("type") != "StepEnded"]
    last = records[-1]["seq"] if records else before
    return {"run": run, "from": before, "seq": last, "steps": columns if steps else {}, "events": others}


@dataclass(eq=False)
class _Subscriber:
    """Somebody who listens. `places`: the last event that was sent of each run; `behind`: readers of those runs whose
    past it still has to be sent."""

    places: dict[str, int]
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    behind: dict[str, EventTail] = field(default_factory=dict)
    state: bytes = b""
    told: float = field(default_factory=time.monotonic)  # when it was last sent anything


class Stream:
    """The stream of one home. `closing`: asked at every tick whether the server is to end."""

    def __init__(self, store: RunStore, service: TrainingService, jobs: Jobs, log: OperationLog) -> None:
        self.store, self.service, self.jobs, self.log = store, service, jobs, log
        self.closing: Callable[[], bool] = lambda: False
        self._subscribers: set[_Subscriber] = set()
        self._tails: dict[str, EventTail] = {}
        self._watcher: threading.Thread | None = None
        self._looked = 0.0
        self._in_haste = False  # somebody has come, or is behind
        self._state: dict[str, Any] = {"active": [], "ended": [], "jobs": [], "operations": 0}
        self._state_message = b""
        self._state_until = 0.0
        self._paths: dict[str, Path] = {}  # the events of each run, as of the last look

    # for one listener

    async def listen(self, places: Mapping[str, int]) -> AsyncIterator[bytes]:
        """Messages until the listener leaves or the server ends."""
        subscriber = _Subscriber(dict(places))
        self._subscribers.add(subscriber)
        self._in_haste = True
        if self._watcher is None:
            self._begin()
        try:
            yield b"retry: 1000\n\n"
            while True:
                message = await subscriber.queue.get()
                if message is None:
                    yield b"event: bye\ndata: {}\n\n"
                    return
                yield message
        finally:
            self._subscribers.discard(subscriber)

    async def poll(self, places: Mapping[str, int], wait_s: float) -> dict[str, Any]:
        """What there is beyond `places`, at the latest after `wait_s`; the state as it is now."""
        await asyncio.to_thread(self.state)
        known = self._paths
        tails = {run: EventTail(known[run], seq) for run, seq in places.items() if run in known}
        now = dict(places)
        deadline = time.monotonic() + wait_s
        while True:
            batches, state = await asyncio.to_thread(self._polled, tails, now)
            if batches or time.monotonic() >= deadline or self.closing():
                return {
                    "after": written_places(now),
                    "state": {**state, "now": time.time()},
                    "batches": batches,
                }
            await asyncio.sleep(POLL_S)

    def _polled(
        self, tails: Mapping[str, EventTail], now: dict[str, int]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        batches = []
        for run, tail in tails.items():
            before = now[run]
            if records := tail.read():
                batches.append(batch_of(run, before, records))
                now[run] = records[-1]["seq"]
        return batches, self.state()

    # for all

    def state(self) -> dict[str, Any]:
        """What is going on in this home: active runs with their progress, those that ended last, jobs."""
        if time.monotonic() < self._state_until:
            return self._state
        began = time.thread_time()
        runs = self.store.runs()
        at_work = [run for run in runs if run.state in ACTIVE]
        if any(self.service.state(RunFolder(Path(run.path))) != run.state for run in at_work):
            runs = self.store.runs()  # the worker of one has died
        self._paths = {run.id: Path(run.path) / "events.jsonl" for run in runs}
        active = [RunView(run).progress() for run in runs if run.state in ACTIVE]
        ended = sorted((run for run in runs if run.ended), key=lambda run: run.ended, reverse=True)[:ENDED]
        self._state = {
            "active": active, "ended": [_ending(run) for run in ended],
            "jobs": [job.facts() for job in self.jobs.all()], "operations": self.log.count(),
        }  # fmt: skip
        self._state_message = b"event: state\ndata: " + json.dumps(self._state).encode() + b"\n\n"
        took = time.thread_time() - began
        self._state_until = time.monotonic() + max(STATE_S, took * STATE_SHARE)
        return self._state

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._watcher = threading.Thread(target=self._watch, args=(loop,), name="events", daemon=True)
        self._watcher.start()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look, and have sent what there is, until nobody listens or the server ends; a thread of its own, so that a
        look that finds nothing does not wake the server."""
        failed = True
        try:
            while self._subscribers and not self.closing():
                if self._is_due():
                    self._in_haste = (
                        False  # before looking who is there: one who comes now hurries the next look
                    )
                    if sent := self._tick(list(self._subscribers)):
                        loop.call_soon_threadsafe(self._deliver, sent)
                time.sleep(0 if self._in_haste else TICK_S)
            failed = False
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._watched, failed)

    def _is_due(self) -> bool:
        """Whether to look properly, once a second at least. After a sleep, whatever is done costs ten times as much as
        in a loop, so this does next to nothing."""
        if self._in_haste or time.monotonic() > self._looked + LOOK_S:
            return True
        return any(tail.has_grown() for tail in self._tails.values())

    def _watched(self, failed: bool) -> None:
        """The thread has ended. Whoever still listens is told to come again, unless he came when it was ending."""
        self._watcher = None
        if failed or self.closing():
            for subscriber in list(self._subscribers):
                self._end(subscriber)
        self._tails = {}
        if self._subscribers:
            self._begin()

    def _deliver(self, sent: Mapping[_Subscriber, bytes]) -> None:
        for subscriber, message in sent.items():
            if subscriber.queue.full():
                self._end(subscriber)
            else:
                subscriber.queue.put_nowait(message)

    def _end(self, subscriber: _Subscriber) -> None:
        """Tell a listener to come again: what it has not taken it gets then."""
        while not subscriber.queue.empty():
            subscriber.queue.get_nowait()
        subscriber.queue.put_nowait(None)
        self._subscribers.discard(subscriber)

    def _tick(self, subscribers: Sequence[_Subscriber]) -> dict[_Subscriber, bytes]:
        """What is to be sent now, to whom there is anything to say."""
        sent: dict[_Subscriber, list[bytes]] = {subscriber: [] for subscriber in subscribers}
        self._looked = time.monotonic()
        self.state()
        for subscriber in subscribers:
            if subscriber.state != self._state_message:
                subscriber.state = self._state_message
                sent[subscriber].append(self._state_message)
        followed = {run for subscriber in subscribers for run in subscriber.places}
        self._tails = {run: tail for run, tail in self._tails.items() if run in followed}
        for run in followed:
            if (path := self._paths.get(run)) is not None:
                following = [subscriber for subscriber in subscribers if run in subscriber.places]
                self._serve(run, path, following, sent)
        self._in_haste |= any(subscriber.behind for subscriber in subscribers)
        now = time.monotonic()
        for subscriber, messages in sent.items():
            if not messages and now > subscriber.told + BEAT_S:
                messages.append(b": beat\n\n")
            if messages:
                subscriber.told = now
        return {subscriber: b"".join(messages) for subscriber, messages in sent.items() if messages}

    def _serve(
        self, run: str, path: Path, following: Sequence[_Subscriber], sent: Mapping[_Subscriber, list[bytes]]
    ) -> None:
        """Send what was appended to one run to all that follow it."""
        tail = self._tails.get(run)
        if tail is None:  # the first to follow it sets the place
            tail = self._tails[run] = EventTail(path, max(each.places[run] for each in following))
        before = tail.after
        records = tail.read()
        shared = _data(run, before, records) if records else b""
        for each in following:
            place = each.places[run]
            if place == before and records:
                each.places[run] = tail.after
                sent[each].append(_message(each, shared))
            elif place > before:  # it has read further than anybody before it
                new = [record for record in records if record["seq"] > place]
                if new:
                    each.places[run] = tail.after
                    sent[each].append(_message(each, _data(run, place, new)))
            elif place < before:
                self._bring_up(each, run, path, tail.after, sent[each])

    def _bring_up(self, each: _Subscriber, run: str, path: Path, until: int, sent: list[bytes]) -> None:
        """Send a listener the next piece of a run's past, up to event number `until`, where the others stand."""
        place = each.places[run]
        own = each.behind.setdefault(run, EventTail(path, place))
        read = own.read()
        past = [record for record in read if record["seq"] <= until]
        if past:
            each.places[run] = past[-1]["seq"]
            sent.append(_message(each, _data(run, place, past)))
        if len(past) < len(read) or not read or each.places[run] == until:
            each.places[run] = until
            del each.behind[run]


def _data(run: str, before: int, records: Sequence[Mapping[str, Any]]) -> bytes:
    return b"event: run\ndata: " + to_json(batch_of(run, before, records), inf_nan_mode="null") + b"\n\n"


def _message(subscriber: _Subscriber, data: bytes) -> bytes:
    return f"id: {written_places(subscriber.places)}\n".encode() + data


def _ending(run: RunInfo) -> dict[str, Any]:
    names = ("state", "reason", "ended", "best_value", "monitor", "task", "name")
    return {"run": run.id, **{name: getattr(run, name) for name in names}}
