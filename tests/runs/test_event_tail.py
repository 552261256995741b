"""Tailing events: whole, in order, none lost, whoever comes late or dies."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import pytest

from smartcash.domain.events import EpochStarted
from smartcash.services.event_log import EventLog, EventTail, read_events, tail_events

# appends events until the file holds `count`; dies by a signal in the middle of a line after `lives` of them
WRITER = """
import os, signal, sys
from pathlib import Path
from smartcash.domain.events import StepEnded
from smartcash.services.event_log import EventLog
path, count, lives = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
log = EventLog(path)
for number in range(log._sequence, count):
    log.append(StepEnded(1, number, count, number, {"loss": 0.5}, 0.5, 1e-3, 30.0, 12.0))
    if number + 1 == lives:
        log._file.write('{"seq": %d, "ty' % (number + 2))
        log._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""

READER = """
import sys
from pathlib import Path
from smartcash.services.event_log import tail_events
path, after, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
wanted = after + 1
for event in tail_events(path, after, poll_s=0.02):
    assert event["seq"] == wanted, (event["seq"], wanted)
    wanted += 1
    if wanted > last:
        break
print(wanted - 1)
"""


def write(path: Path, first: int, last: int) -> None:
    with EventLog(path) as log:
        for number in range(first, last + 1):
            log.append(EpochStarted(number, 100))


def follow(path: Path, count: int, lives: tuple[int, ...], late: int) -> None:
    """Three readers in processes of their own, one of them from event `late` on; the writer dies at `lives`."""
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, path, str(after), str(count)], stdout=subprocess.PIPE, text=True
        )
        for after in (0, 0, late)
    ]
    try:
        for life in (*lives, 0):
            subprocess.run([sys.executable, "-c", WRITER, path, str(count), str(life)], check=life == 0)
        assert [reader.communicate(timeout=200)[0] for reader in readers] == [f"{count}\n"] * 3
    finally:
        for reader in readers:  # one that still waits would wait for ever
            reader.kill()
            reader.communicate()


def test_three_readers_see_every_event_of_a_writer_that_dies_twice(tmp_path: Path) -> None:
    """D12, A32."""
    follow(tmp_path / "events.jsonl", 3000, (1000, 2000), late=1500)


@pytest.mark.slow
def test_three_readers_follow_100_000_events_and_a_restarted_writer(tmp_path: Path) -> None:
    """D12, A32."""
    path = tmp_path / "events.jsonl"
    follow(path, 100_000, (40_000,), late=90_000)

    def late(after: int) -> float:
        started = time.perf_counter()
        assert next(tail_events(path, after))["seq"] == after + 1
        return time.perf_counter() - started

    started = time.perf_counter()
    assert sum(1 for _ in read_events(path)) == 100_000
    whole_s = time.perf_counter() - started
    places = (1, 777, 50_000, 99_000, 99_999)
    assert max(min(late(after) for _ in range(3)) for after in places) < whole_s / 5


@pytest.mark.parametrize("after", [0, 1, 499, 500, 2999, 3000, 4000])
def test_a_late_reader_begins_right_behind_the_number_it_knows(tmp_path: Path, after: int) -> None:
    """D12."""
    path = tmp_path / "events.jsonl"
    write(path, 1, 3000)
    tail = EventTail(path, after)
    numbers = []
    while events := tail.read():
        numbers += [event["seq"] for event in events]
    assert numbers == list(range(after + 1, 3001))


def test_a_reader_that_came_before_the_file_waits_for_it(tmp_path: Path) -> None:
    tail = EventTail(tmp_path / "events.jsonl")
    assert tail.read() == []
    write(tail.path, 1, 2)
    assert [event["seq"] for event in tail.read()] == [1, 2]
    assert tail.read() == []


def test_half_a_line_is_not_an_event_yet(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, 1, 1)
    tail = EventTail(path, 1)
    with path.open("a") as file:
        file.write('{"seq": 2, "type"')
        file.flush()
        assert tail.read() == []
        file.write(': "EpochStarted"}\n')
    assert [event["seq"] for event in tail.read()] == [2]


def test_a_damaged_line_is_passed_over_and_long_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    long = '{"seq": 2, "text": "' + "x" * 3_000_000 + '"}\n'
    path.write_text('{"seq": 1}\n\0\0\0\n[]\n{"seq": "3"}\n' + long + '{"seq": 3}\n')
    assert [event["seq"] for event in islice(tail_events(path), 3)] == [1, 2, 3]
    assert [event["seq"] for event in islice(tail_events(path, 2), 1)] == [3]


# what is on the disk → the number that the next event gets
DAMAGED: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 1),
    "a torn first line": (b'{"seq": 1, "ty', 1),
    "a torn line": (b'{"seq": 1}\n{"seq": 2}\n{"se', 3),
    "zeros in the middle": (b'{"seq": 1}\n\0\0\0\n{"seq": 3}\n', 4),
    "a damaged last line": (b'{"seq": 1}\n{"seq": 2}\n{"seq": \xff}\n', 4),
    "two damaged ones and a torn one": (b'{"seq": 1}\n[]\n\n{"se', 4),
    "nothing that is whole": (b"\0\0\n\xff\n", 3),
    "far behind the last event": (b'{"seq": 1}\n' + b"\0" * 300_000 + b"\n", 3),
    "a long last event": (b'{"seq": 1}\n{"seq": 2, "text": "' + b"x" * 300_000 + b'"}\n{', 3),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_can_be_written_on_and_read(tmp_path: Path, name: str) -> None:
    """D2, D12: a run whose events a disk has damaged can be resumed; numbers only grow."""
    path = tmp_path / "events.jsonl"
    content, number = DAMAGED[name]
    path.write_bytes(content)
    before = [event["seq"] for event in read_events(path)]
    write(path, 7, 7)
    assert [event["seq"] for event in read_events(path)] == [*before, number]
    tail = EventTail(path)
    assert [event["seq"] for events in iter(tail.read, []) for event in events] == [*before, number]


@pytest.mark.parametrize("after", [0, 2, 4, 9])
def test_numbers_that_fall_or_repeat_are_passed_over_as_one_by_one(tmp_path: Path, after: int) -> None:
    """D2: two writers of one file, or a disk that repeats a page, bring no event twice."""
    path = tmp_path / "events.jsonl"
    numbers = (1, 2, 3, 3, 2, 5, 4, 6)
    path.write_text("".join(f'{{"seq": {number}}}\n' for number in numbers))
    tail = EventTail(path, after)
    expected = [number for number in (1, 2, 3, 5, 6) if number > after]
    assert [event["seq"] for event in tail.read()] == expected
    assert tail.after == max(after, 6)


def test_a_file_that_took_the_place_of_a_longer_one_is_read_from_where_the_reader_stood(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.jsonl"
    write(path, 1, 200)
    tail = EventTail(path)
    tail.read()
    path.write_text('{"seq": 199}\n{"seq": 200}\n{"seq": 201}\n')
    assert [event["seq"] for event in tail.read()] == [201]


def test_stopping_yields_what_was_written_before(tmp_path: Path) -> None:
    path, stop = tmp_path / "events.jsonl", threading.Event()
    seen: list[int] = []
    reader = threading.Thread(
        target=lambda: seen.extend(e["seq"] for e in tail_events(path, stop=stop.is_set, poll_s=0.01))
    )
    reader.start()
    write(path, 1, 500)
    stop.set()
    reader.join(timeout=20)
    assert seen == list(range(1, 501))
