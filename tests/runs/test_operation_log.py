"""The operation log: every alteration is found, no kill and no second writer harms it."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smartcash.cli import main
from smartcash.cli.moments import shown
from smartcash.domain.records import CONFIRMATIONS, OPERATIONS, Change, Operation
from smartcash.handlers.operation_log import BEGINNING, OperationLog, Verification
from smartcash.utils.i18n import LANGUAGES, catalogue

COUNT = 12
Lines = list[bytes]

WRITER = """
import sys
from pathlib import Path
from smartcash.domain.records import Operation
from smartcash.handlers.operation_log import OperationLog
log = OperationLog(Path(sys.argv[1]), "cli")
for number in range(int(sys.argv[3])):
    log.append(Operation("tag", run=f"{sys.argv[2]}-{number}"))
"""


@pytest.fixture
def log(tmp_path: Path) -> OperationLog:
    """Twelve entries."""
    log = OperationLog(tmp_path / "operations.jsonl", "cli")
    for number in range(COUNT):
        changes = (Change("optimizer.lr", 0.001, 0.002), Change("data.path", None, "uang"))
        log.append(Operation("config-change", run=f"run-{number}", changes=changes, confirmed="asked"))
    return log


def lines(log: OperationLog) -> Lines:
    return log.path.read_bytes().splitlines(keepends=True)


def head_of(log: OperationLog) -> Path:
    return log.path.with_name("operations.head.json")


def sealed(line: bytes, **fields: object) -> bytes:
    """A line with other fields and a hash of its own that fits: what somebody who knows the format writes."""
    values = {**json.loads(line), **fields}
    del values["sha256"]
    body = json.dumps(values, separators=(",", ":"))[:-1]
    return f'{body},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()


def rewritten_from(rows: Lines, place: int) -> Lines:
    """All lines from `place` on sealed anew, each onto the one before."""
    new = rows[:place]
    for number, row in enumerate(rows[place:], place + 1):
        previous = json.loads(new[-1])["sha256"] if new else BEGINNING
        new.append(sealed(row, previous=previous, seq=number))
    return new


def at(place: int, new: Callable[[bytes], bytes]) -> Callable[[Lines], Lines]:
    """An alteration of the line at `place`, from 0."""
    return lambda rows: [*rows[:place], new(rows[place]), *rows[place + 1 :]]


def put(place: int, new: Callable[[Lines], bytes]) -> Callable[[Lines], Lines]:
    """An insertion before the line at `place`."""
    return lambda rows: [*rows[:place], new(rows), *rows[place:]]


# name → (what somebody does to the lines, the line that must be named, the reason)
ALTERATIONS: dict[str, tuple[Callable[[Lines], Lines], int, str]] = {
    "a value": (at(4, lambda row: row.replace(b"0.002", b"0.003")), 5, "altered"),
    "a value of the first entry": (at(0, lambda row: row.replace(b"0.002", b"0.003")), 1, "altered"),
    "a value of the last entry": (at(11, lambda row: row.replace(b"0.002", b"0.003")), 12, "altered"),
    "who did it": (at(3, lambda row: row.replace(b'"interface":"cli"', b'"interface":"web"')), 4, "altered"),
    "how it was confirmed": (at(3, lambda row: row.replace(b'"asked"', b'"--yes"')), 4, "altered"),
    "when": (at(7, lambda row: row.replace(b'"time":"20', b'"time":"19')), 8, "altered"),
    "one blank": (at(5, lambda row: row.replace(b",", b", ", 1)), 6, "altered"),
    "a number": (at(5, lambda row: row.replace(b'"seq":6', b'"seq":7')), 6, "altered"),
    "the link": (at(5, lambda row: row.replace(b'"previous":"', b'"previous":"0')), 6, "altered"),
    "the hash": (at(5, lambda row: row[:-4] + b'0"}\n' if row[-4:-3] != b"0" else row[:-4] + b'1"}\n'), 6, "altered"),
    "a second value under the same name": (at(2, lambda row: b'{"run":"x",' + row[1:]), 3, "altered"),
    "something behind the hash": (at(2, lambda row: row[:-2] + b',"run":"x"}\n'), 3, "altered"),
    "no JSON at all": (at(6, lambda row: b"hello\n"), 7, "altered"),
    "bytes that are no text": (at(6, lambda row: b"\xff\xfe\x00\n"), 7, "altered"),
    "brackets without end": (at(6, lambda row: b"[" * 100_000 + b"\n"), 7, "altered"),
    "another entry's content, sealed": (at(4, lambda row: sealed(row, run="other")), 5, "altered"),
    "the first entry, sealed": (at(0, lambda row: sealed(row, run="other")), 1, "altered"),
    "the last entry, sealed": (at(11, lambda row: sealed(row, run="other")), 12, "altered"),
    "a sealed link": (at(8, lambda row: sealed(row, previous="f" * 64)), 9, "altered"),
    "line ends of Windows": (lambda rows: [row.replace(b"\n", b"\r\n") for row in rows], 1, "altered"),
    "everything sealed anew from the fifth on": (
        lambda rows: rewritten_from(at(4, lambda row: sealed(row, run="other"))(rows), 4), 12, "altered",
    ),
    "the first gone": (lambda rows: rows[1:], 1, "missing"),
    "one gone": (lambda rows: rows[:4] + rows[5:], 5, "missing"),
    "three gone": (lambda rows: rows[:4] + rows[7:], 5, "missing"),
    "the last gone": (lambda rows: rows[:-1], 12, "missing"),
    "all but one gone": (lambda rows: rows[:1], 2, "missing"),
    "all gone": (lambda rows: [], 1, "missing"),
    "one gone, the rest sealed anew": (lambda rows: rewritten_from(rows[:4] + rows[5:], 4), 12, "missing"),
    "the end cut off in a line": (lambda rows: [*rows[:-1], rows[-1][:-20]], 12, "cut_short"),
    "the last line end gone": (lambda rows: [*rows[:-1], rows[-1][:-1]], 12, "cut_short"),
    "two neighbours exchanged": (lambda rows: [*rows[:3], rows[4], rows[3], *rows[5:]], 4, "reordered"),
    "two far ones exchanged": (
        lambda rows: [*rows[:2], rows[9], *rows[3:9], rows[2], *rows[10:]], 3, "reordered",
    ),
    "the last moved to the front": (lambda rows: [rows[-1], *rows[:-1]], 1, "reordered"),
    "turned round": (lambda rows: rows[::-1], 1, "reordered"),
    "one twice": (put(6, lambda rows: rows[5]), 7, "inserted"),
    "an early one again": (put(6, lambda rows: rows[1]), 7, "inserted"),
    "a later one as well": (put(3, lambda rows: rows[8]), 4, "inserted"),
    "a blank line": (put(3, lambda rows: b"\n"), 4, "inserted"),
    "a line that is no entry": (put(3, lambda rows: b"{}\n"), 4, "inserted"),
    "a sealed entry between two": (put(5, lambda rows: sealed(rows[5], run="forged")), 6, "inserted"),
    "a sealed entry after its double": (put(6, lambda rows: sealed(rows[5], run="forged")), 7, "inserted"),
    "two sealed entries at the end": (
        lambda rows: rewritten_from([*rows, rows[0], rows[1]], 12), 13, "inserted",
    ),
}  # fmt: skip


def test_an_untouched_log_verifies(log: OperationLog) -> None:
    """A13, D4."""
    last = json.loads(lines(log)[-1])["sha256"]
    assert log.verify() == Verification(COUNT, last, None, 0)


def test_a_log_that_was_never_written_is_empty_and_sound(tmp_path: Path) -> None:
    log = OperationLog(tmp_path / "nowhere" / "operations.jsonl")
    assert log.verify().alteration is None
    assert log.operations() == []
    assert not log.path.parent.exists()


@pytest.mark.parametrize("name", ALTERATIONS)
def test_every_alteration_is_found_and_its_line_named(log: OperationLog, name: str) -> None:
    """A13, D4: altered, missing, inserted or moved; also after another entry was written."""
    alter, line, reason = ALTERATIONS[name]
    log.path.write_bytes(b"".join(alter(lines(log))))
    found = log.verify().alteration
    assert found is not None
    assert (found.line, found.reason) == (line, reason)
    assert all(str(line) in found.message(language) for language in LANGUAGES)
    log.append(Operation("note", run="later"))
    if name == "the last line end gone":  # nothing but that was lost, and writing on puts it back
        return
    assert log.verify().alteration is not None, "the next entry covered it up"
    assert log.operations(run="later")


def test_at_least_25_alterations_are_tried() -> None:
    assert len(ALTERATIONS) >= 25


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b'{"count":"12","sha256":"","size":1}'])
def test_a_lost_head_is_found_and_stays_found(log: OperationLog, content: bytes | None) -> None:
    """D4: else lines could be taken off the end unseen."""
    log.path.write_bytes(b"".join(lines(log)[:-3]))
    head_of(log).unlink() if content is None else head_of(log).write_bytes(content)
    assert log.verify().alteration is not None
    log.append(Operation("note"))
    found = log.verify().alteration
    assert found is not None
    assert (found.line, found.reason) == (10, "head_lost")


def test_an_entry_says_who_when_what_and_on_whose_word(log: OperationLog) -> None:
    """A13."""
    before = datetime.now(UTC) - timedelta(minutes=5)
    first = log.operations()[0]
    assert (first.seq, first.who.interface, first.confirmed, first.result) == (1, "cli", "asked", "done")
    assert first.who.user and first.who.host
    assert before < datetime.fromisoformat(first.time) <= datetime.now(UTC)
    assert first.changes == (Change("optimizer.lr", 0.001, 0.002), Change("data.path", None, "uang"))


def test_entries_are_found_by_run_operation_and_time(log: OperationLog) -> None:
    """A14."""
    log.append(Operation("trash", run="run-3"))
    assert [each.operation for each in log.operations(run="run-3")] == ["config-change", "trash"]
    assert [each.run for each in log.operations(operation="trash")] == ["run-3"]
    assert log.operations(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(log.operations(since=datetime.now(UTC) - timedelta(hours=1))) == COUNT + 1


def test_values_that_json_lacks_and_strange_texts_survive(tmp_path: Path) -> None:
    log = OperationLog(tmp_path / "operations.jsonl")
    notes = "baris\nlain \u2028 🐉 \x1b[31m \ud800"
    log.append(Operation("note", changes=(Change("notes", float("nan"), notes),)))
    assert log.operations()[0].changes == (Change("notes", None, notes),)
    assert log.verify().alteration is None


def test_a_word_that_is_no_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of"):
        Operation("make-coffee")
    with pytest.raises(ValueError, match="not one of"):
        Operation("tag", confirmed="perhaps")


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_last_line_is_cut_said_and_hides_nothing(log: OperationLog, kept: int) -> None:
    """A13, A34: a kill in the middle of a line."""
    torn = lines(log)[-1][:kept]
    with log.path.open("ab") as file:
        file.write(torn)
    found = log.verify()
    assert (found.entries, found.alteration, found.torn_bytes) == (COUNT, None, len(torn))
    log.append(Operation("note", run="after"))
    *_, said, after = log.operations()
    assert (said.operation, said.result) == ("repair", f"cut:{len(torn)}")
    assert (after.seq, after.run) == (COUNT + 2, "after")
    assert (log.verify().alteration, log.verify().torn_bytes) == (None, 0)


def test_a_kill_between_entry_and_head_loses_nothing(log: OperationLog) -> None:
    head = head_of(log).read_bytes()
    log.append(Operation("note", run="whole"))
    head_of(log).write_bytes(head)
    assert log.verify().alteration is None
    log.append(Operation("note", run="after"))
    assert [each.run for each in log.operations()[-2:]] == ["whole", "after"]
    assert log.verify().alteration is None


def test_two_writers_killed_one_after_the_other_before_their_heads_lose_nothing(
    log: OperationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second takes the first one's entry in before it writes its own."""
    head = head_of(log).read_bytes()
    log.append(Operation("note", run="first"))
    head_of(log).write_bytes(head)
    written = []

    def killed(self: OperationLog, new: object) -> None:
        written.append(new)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(self, new)

    write = OperationLog._write_head
    monkeypatch.setattr(OperationLog, "_write_head", killed)
    with pytest.raises(KeyboardInterrupt):
        log.append(Operation("note", run="second"))
    monkeypatch.undo()
    assert log.verify().alteration is None
    log.append(Operation("note", run="third"))
    assert [each.run for each in log.operations()[-3:]] == ["first", "second", "third"]
    assert log.verify().alteration is None


@pytest.mark.slow
def test_killed_writers_never_harm_the_log(tmp_path: Path) -> None:
    """A13: SIGKILL at ten moments, two writers at a time."""
    log = OperationLog(tmp_path / "operations.jsonl")
    for moment in range(10):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(log.path), str(each), "10000"])
            for each in range(2)
        ]
        size = log.path.stat().st_size if log.path.exists() else 0
        while not log.path.exists() or log.path.stat().st_size == size:
            time.sleep(0.001)
        time.sleep(moment * 0.013)
        for writer in writers:
            writer.kill()
            writer.wait()
        assert log.verify().alteration is None
        log.append(Operation("note", run=f"kill-{moment}"))
    entries = log.operations()
    assert [each.seq for each in entries] == list(range(1, len(entries) + 1))
    assert len(entries) >= 20, "ten notes, and at least one entry of a writer before each"
    assert log.verify().alteration is None


def test_several_processes_write_without_losing_an_entry(tmp_path: Path) -> None:
    """A13."""
    path = tmp_path / "operations.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(each), "15"]) for each in range(4)]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    log = OperationLog(path)
    assert {each.run for each in log.operations()} == {f"{w}-{n}" for w in range(4) for n in range(15)}
    assert log.verify().alteration is None
    assert log.verify().entries == 60


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_operation_and_every_confirmation_has_its_words(language: str) -> None:
    """A33."""
    texts = catalogue(language)
    assert {f"operations.{name}" for name in OPERATIONS} <= set(texts)
    assert {f"operation_log.confirmed.{name}" for name in CONFIRMATIONS} <= set(texts)


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["log", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize("width", [60, 80, 400])
@pytest.mark.usefixtures("english")
def test_a_narrow_terminal_leaves_nothing_of_the_log_out(
    log: OperationLog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """A13, D4: every entry with who, when, what, old → new and upon whose word."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = command(capsys, "--home", log.path.parent)
    assert "…" not in out and out.count("optimizer.lr: 0.001 → 0.002") == out.count("asked") == COUNT
    assert all(shown(each.time) in out and each.run in out for each in log.operations())


@pytest.mark.usefixtures("english")
def test_the_command_shows_filters_exports_and_verifies(
    log: OperationLog, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A13, D4, C1."""
    home = log.path.parent
    code, out, _ = command(capsys, "--home", home)
    assert code == 0 and "optimizer.lr: 0.001 → 0.002" in out and "run-11" in out and "asked" in out
    code, out, _ = command(capsys, "--home", home, "--run", "run-3", "--json")
    assert [each["run"] for each in json.loads(out)] == ["run-3"]
    assert "no such entry" in command(capsys, "--home", home, "--operation", "trash")[1]
    assert "is empty" in command(capsys, "--home", tmp_path / "nothing")[1]
    assert len(json.loads(command(capsys, "--home", home, "--since", "1h", "--json")[1])) == COUNT
    assert command(capsys, "--home", home, "--since", "yesterday")[0] == 2
    assert command(capsys, "--home", home, "--export", tmp_path / "log.xls")[0] == 2
    assert command(capsys, "--home", home, "--export", tmp_path / "log.csv")[0] == 0
    with (tmp_path / "log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT and rows[0]["operation"] == "config-change"
    assert command(capsys, "--home", home, "--export", tmp_path / "log.json")[0] == 0
    assert len(json.loads((tmp_path / "log.json").read_text())) == COUNT
    code, out, _ = command(capsys, "verify", "--home", home)
    assert code == 0 and "12 entries" in out
    log.path.write_bytes(log.path.read_bytes().replace(b"run-4", b"run-9"))
    code, out, _ = command(capsys, "verify", "--home", home)
    assert (code, out) == (1, "✗ Line 5 was altered.\n")
    code, out, _ = command(capsys, "--home", home, "verify", "--json")
    assert code == 1 and json.loads(out)["alteration"]["line"] == 5
    code, out, err = command(capsys, "--home", home)
    assert code == 0 and "run-9" in out and "was altered" in err


@pytest.mark.usefixtures("english")
def test_a_log_that_cannot_be_read_is_a_plain_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A34."""
    (tmp_path / "operations.jsonl").mkdir()
    code, _, err = command(capsys, "verify", "--home", tmp_path)
    assert code == 1 and "cannot be read" in err and "Traceback" not in err


def test_a_spreadsheet_computes_nothing_of_what_people_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A13, A14."""
    log = OperationLog(tmp_path / "operations.jsonl")
    log.append(Operation("note", run="=1+1", changes=(Change("notes", "", "fine"),)))
    log.append(Operation("note", run="run", changes=(Change("@SUM(A1)", "", "x"),)))
    assert command(capsys, "--home", tmp_path, "--export", tmp_path / "log.csv")[0] == 0
    with (tmp_path / "log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["'=1+1", "run"]
    assert rows[1]["changes"].startswith("'@SUM")


@pytest.mark.usefixtures("english")
def test_an_export_to_where_nothing_can_be_written_is_refused_before_the_log_is_read(
    log: OperationLog, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A33: with its reason."""
    for target in (tmp_path / "no" / "log.csv", log.path / "log.csv"):
        code, out, err = command(capsys, "--home", log.path.parent, "--export", target)
        assert (code, out) == (2, "") and "there is no folder" in err and str(target.parent) in err
