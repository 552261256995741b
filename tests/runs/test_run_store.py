"""The run store: what the folders say, quickly, and nothing that lies in them does harm."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smartcash.cli import main
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import RunNotFound, RunRefused
from smartcash.domain.records import RunFilter, RunInfo
from smartcash.handlers.operation_log import OperationLog
from smartcash.handlers.run_history import RunHistory
from smartcash.services.labels import read_labels
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder, RunStore, find_run
from smartcash.utils.i18n import LANGUAGES, catalogue

FINISHED = {
    "state": "finished", "reason": "finished", "started": "2026-11-01T08:00:00+00:00",
    "ended": "2026-11-01T09:00:00+00:00", "elapsed_s": 3600.0, "epochs_done": 16, "best_epoch": 12,
    "best_value": 0.75, "valid": {"mAP50": 0.9, "mAP50_95": 0.75}, "data": {"path": "/data/rupiah"},
}  # fmt: skip


def made(home: Path, task: str = "detect", config: dict[str, Any] | None = None, **facts: Any) -> RunFolder:
    """A run folder such as a training leaves."""
    values = {"task": task, "training": {"monitor": "mAP50_95", "mode": "max"}, **(config or {})}
    return RunFolder.create(home, TrainConfig.parse(values), {**FINISHED, **facts})


def ids(runs: list[RunInfo]) -> list[str]:
    return [run.id for run in runs]


def test_a_run_is_listed_with_everything_its_folder_says(tmp_path: Path) -> None:
    """A18, A30."""
    config = {
        "name": "yes", "notes": "baris: satu\ndua # tiga\n", "tags": ["a b", "1"], "model": {"backbone": "resnet50"},
        "training": {"epochs": 20, "monitor": "mAP50_95", "early_stopping": {"patience": 3}},
    }  # fmt: skip
    run = made(tmp_path, config=config, parent={"id": "earlier"})
    (info,) = RunStore(tmp_path).runs()
    assert info == RunInfo(
        id=run.id, path=str(run.path), task="detect", state="finished", name="yes", backbone="resnet50",
        dataset="rupiah", epochs_done=16, epochs=20, best_value=0.75, best_epoch=12, monitor="mAP50_95",
        metrics={"mAP50": 0.9, "mAP50_95": 0.75}, started="2026-11-01T08:00:00+00:00",
        ended="2026-11-01T09:00:00+00:00", elapsed_s=3600.0, tags=("a b", "1"), notes="baris: satu\ndua # tiga\n",
        parent="earlier", reason="finished",
    )  # fmt: skip
    assert RunStore(tmp_path).runs() == [info], "from the index it must be the same"


def test_a_home_that_does_not_exist_has_no_runs_and_is_not_made(tmp_path: Path) -> None:
    assert RunStore(tmp_path / "nowhere").runs() == []
    assert not (tmp_path / "nowhere").exists()


def test_a_run_at_work_shows_its_progress(tmp_path: Path) -> None:
    """A30, D12: from epochs.csv, after every epoch."""
    facts = {"epochs_done": None, "best_value": None}
    run = made(tmp_path, state="running")
    described = {k: v for k, v in run.description().items() if k not in facts}
    (run.path / "run.json").write_text(json.dumps(described))
    store = RunStore(tmp_path)
    assert (store.runs()[0].epochs_done, store.runs()[0].best_value) == (0, None)
    rows: list[dict[str, float | None]] = [
        {"epoch": 1, "mAP50_95": 0.5}, {"epoch": 2, "mAP50_95": 0.7}, {"epoch": 3, "mAP50_95": None},
    ]  # fmt: skip
    for count, best in ((1, 0.5), (3, 0.7)):
        run.write_epochs(rows[:count])
        info = store.runs()[0]
        assert (info.epochs_done, info.best_value) == (count, best)
    run.describe({"state": "failed", "error": "disk full"})
    info = store.runs()[0]
    assert (info.state, info.detail, info.epochs_done, info.best_epoch) == ("failed", "disk full", 3, 2)


def test_a_change_on_disk_is_seen_at_once(tmp_path: Path) -> None:
    """A30: described anew, edited in place, deleted, added; by a store that knew it before and by a new one."""
    first, second = made(tmp_path), made(tmp_path, "classify")
    store = RunStore(tmp_path)
    assert len(store.runs()) == 2
    first.describe({"best_value": 0.8})
    assert store.find(first.id).best_value == 0.8
    file = first.path / "run.json"
    file.write_text(file.read_text().replace("0.8", "0.9"))
    assert store.find(first.id).best_value == RunStore(tmp_path).find(first.id).best_value == 0.9
    shutil.rmtree(second.path)
    third = made(tmp_path)
    assert set(ids(store.runs())) == set(ids(RunStore(tmp_path).runs())) == {first.id, third.id}


def test_runs_are_filtered_searched_sorted_and_paged(tmp_path: Path) -> None:
    """A30."""
    for number in range(6):
        made(
            tmp_path, "classify" if number == 5 else "detect", {
                "name": f"Lari {number}", "tags": ["ganjil"] if number % 2 else [],
                "model": {"backbone": "resnet50" if number < 2 else "efficientnet_b4"},
            },
            best_value=None if number == 3 else number / 10, valid={"mAP50": number / 5},
            started=f"2026-11-0{number + 1}T08:00:00+00:00", state="failed" if number == 4 else "finished",
        )  # fmt: skip
    store = RunStore(tmp_path)

    def names(wanted: RunFilter | None = None, sort: str = "name", **page: int) -> str:
        return "".join(run.name[-1] for run in store.runs(wanted, sort=sort, **page))

    day3 = datetime(2026, 11, 3, tzinfo=UTC)
    assert names() == "012345"
    assert names(RunFilter(state="failed")) == "4"
    assert names(RunFilter(task="classify")) == "5"
    assert names(RunFilter(backbone="ResNet")) == "01"
    assert names(RunFilter(dataset="rup")) == "012345"
    assert names(RunFilter(tag="ganjil")) == "135"
    assert names(RunFilter(tag="gan")) == ""
    assert names(RunFilter(text="lari 2")) == "2"
    assert names(RunFilter(bounds={"mAP50": (0.4, 0.8)})) == "234"
    assert names(RunFilter(bounds={"best": (0.2, None)})) == "245"
    assert names(RunFilter(bounds={"no-such-metric": (0, 1)})) == ""
    assert names(RunFilter(since=day3)) == "2345"
    assert names(RunFilter(until=day3)) == "01"
    assert names(RunFilter(tag="ganjil", backbone="b4", task="detect")) == "3"
    assert names(sort="best") == "012453"
    assert names(sort="-best") == "542103"
    assert names(sort="-started") == "543210"
    assert names(limit=2) == "01"
    assert names(limit=2, offset=4) == "45"
    assert names(offset=9) == ""
    with pytest.raises(KeyError):
        names(sort="colour")


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not_json"),
    "half": (b'{"state": "finis', "not_json"),
    "a list": (b"[]", "not_json"),
    "no state": (b"{}", "value"),
    "bytes": (b"\xff\xfe\x00", "not_json"),
    "brackets": (b"[" * 200_000, "not_json"),
    "a number of 10,000 digits": (b'{"state": "x", "epochs_done": ' + b"9" * 10_000 + b"}", "not_json"),
    "a huge number": (b'{"state": "x", "epochs_done": 1' + b"0" * 400 + b"}", "value"),
    "not finite": (b'{"state": "x", "epochs_done": 1, "best_value": 1e999}', "value"),
    "NaN": (b'{"state": "x", "epochs_done": 1, "best_value": NaN}', "value"),
    "another type": (b'{"state": ["running"]}', "value"),
    "data as text": (b'{"state": "x", "data": "rupiah"}', "value"),
    "a time that is none": (b'{"state": "x", "started": "yesterday"}', "value"),
    "a time without a zone": (b'{"state": "x", "started": "2026-11-01T08:00:00"}', "value"),
    "the first of times": (b'{"state": "x", "started": "0001-01-01T00:00:00+14:00"}', "value"),
    "a very large file": (b'{"state": "' + b"x" * 5_000_000 + b'"}', "too_large"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_run_json_is_a_row_with_its_reason(tmp_path: Path, name: str) -> None:
    """A30, A34: never a crash, and the other runs are listed as ever."""
    good, bad = made(tmp_path), made(tmp_path)
    content, reason = HOSTILE[name]
    (bad.path / "run.json").write_bytes(content)
    store = RunStore(tmp_path)
    found = store.find(bad.id)
    assert (found.state, found.reason) == ("broken", reason)
    assert all(f"runs.broken.{reason}" in catalogue(language) for language in LANGUAGES)
    assert store.find(good.id).state == "finished"
    bad.path.joinpath("run.json").write_bytes((good.path / "run.json").read_bytes())
    assert store.find(bad.id).state == "finished"


@pytest.mark.parametrize("file", ["run.json", "config.yaml"])
def test_a_missing_file_or_a_pipe_in_its_place_is_a_broken_run(tmp_path: Path, file: str) -> None:
    run = made(tmp_path)
    (run.path / file).unlink()
    store = RunStore(tmp_path)
    assert store.find(run.id).reason == "missing"
    os.mkfifo(run.path / file)
    assert store.find(run.id).reason == "not_a_file"


@pytest.mark.parametrize(
    "content", [b"name: [", b"\xff", b"name: {a: b}", b"- a", b"training: 7", b"tags: x"]
)
def test_a_broken_configuration_is_a_broken_run_until_it_is_mended(tmp_path: Path, content: bytes) -> None:
    run = made(tmp_path)
    good = (run.path / "config.yaml").read_bytes()
    (run.path / "config.yaml").write_bytes(content)
    store = RunStore(tmp_path)
    assert store.find(run.id).backbone == ""
    (run.path / "config.yaml").write_bytes(good)
    store.rebuild()
    assert store.find(run.id).backbone


def test_what_a_terminal_would_obey_is_taken_out_of_names(tmp_path: Path) -> None:
    run = made(tmp_path)
    described = {**run.description(), "error": "\x1b]0;owned\x07 \ud800 \u202e", "state": "failed"}
    (run.path / "run.json").write_text(json.dumps(described))
    detail = RunStore(tmp_path).find(run.id).detail
    assert detail == "\ufffd]0;owned\ufffd \ufffd \ufffd"
    assert RunStore(tmp_path).find(run.id).detail == detail


@pytest.mark.parametrize("harm", ["deleted", "not SQLite", "cut", "bits", "another table", "empty"])
def test_the_index_may_be_lost_or_damaged(tmp_path: Path, harm: str) -> None:
    """A29, A30: only a cache."""
    runs = [made(tmp_path, config={"name": f"run {number}"}) for number in range(20)]
    store = RunStore(tmp_path)
    store.label(runs[3].id, add_tags=["kept"], locked=True)
    before = store.runs()
    index = tmp_path / "index.sqlite"
    content = index.read_bytes()
    if harm == "deleted":
        index.unlink()
    elif harm == "not SQLite":
        index.write_bytes(b"hello" * 1000)
    elif harm == "cut":
        index.write_bytes(content[: len(content) // 2])
    elif harm == "bits":
        index.write_bytes(content.replace(b"run 7", b"run 9").replace(b"finished", b"faniched"))
    elif harm == "another table":
        index.unlink()
        with sqlite3.connect(index) as db:
            db.execute("CREATE TABLE runs (x)")
        db.close()
    else:
        index.write_bytes(b"")
    assert RunStore(tmp_path).runs() == before
    assert RunStore(tmp_path).runs() == before
    assert RunStore(tmp_path).rebuild() == 20


def test_a_home_that_was_moved_lists_its_runs_where_they_are(tmp_path: Path) -> None:
    made(tmp_path / "a")
    RunStore(tmp_path / "a").runs()
    (tmp_path / "a").rename(tmp_path / "b")
    (run,) = RunStore(tmp_path / "b").runs()
    assert Path(run.path).is_dir()


def test_a_run_is_found_by_id_beginning_folder_and_as_the_latest(tmp_path: Path) -> None:
    old, new = made(tmp_path), made(tmp_path)
    newest = max(old.id, new.id)
    store = RunStore(tmp_path)
    assert store.find(old.id).id == store.find(str(old.path)).id == store.find(old.id[:-1]).id == old.id
    assert store.find("latest").id == newest
    for name, code in (("2", "run_ambiguous"), ("x", "run_not_found"), ("", "run_not_found")):
        with pytest.raises(RunNotFound) as caught:
            store.find(name)
        assert caught.value.code == code


def test_labels_lie_in_the_run_folder_and_survive_the_index(tmp_path: Path) -> None:
    run = made(tmp_path, config={"tags": ["from-config"], "notes": "first"})
    store = RunStore(tmp_path)
    store.label(run.id, add_tags=["good", "good"], remove_tags=["from-config"])
    changed = store.label(run.id, notes="catatan 🐉", locked=True)
    assert (changed.tags, changed.notes, changed.locked) == (("good",), "catatan 🐉", True)
    (tmp_path / "index.sqlite").unlink()
    assert RunStore(tmp_path).runs() == store.runs() == [changed]


def test_labels_that_cannot_be_read_protect_the_run(tmp_path: Path) -> None:
    run = made(tmp_path)
    (run.path / "labels.json").write_text('{"tags": "a"}')
    store = RunStore(tmp_path)
    assert (store.find(run.id).locked, store.find(run.id).reason) == (True, "labels")
    for change in (lambda: store.trash(run.id), lambda: store.label(run.id, locked=False)):
        with pytest.raises(RunRefused, match=r"labels\.json"):
            change()


def test_tags_added_by_several_processes_are_all_kept(tmp_path: Path) -> None:
    run = made(tmp_path)
    program = (
        "import sys; from pathlib import Path; from smartcash.services.run_store import RunStore\n"
        "for n in range(5): RunStore(Path(sys.argv[1])).label(sys.argv[2], add_tags=[f'{sys.argv[3]}-{n}'])"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path, run.id, str(p)]) for p in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * 3
    assert set(RunStore(tmp_path).find(run.id).tags) == {f"{p}-{n}" for p in range(3) for n in range(5)}


def test_a_run_goes_to_the_trash_and_comes_back_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1: nothing is deleted before the trash is emptied."""
    monkeypatch.setenv("SMARTCASH_HOME", str(tmp_path))
    run = made(tmp_path)
    store = RunStore(tmp_path)
    before = store.find(run.id)
    trashed = store.trash(run.id)
    assert Path(trashed.path) == tmp_path / ".trash" / "detect" / run.id
    assert store.runs() == [] and ids(store.trashed()) == [run.id]
    with pytest.raises(RunNotFound):
        find_run(run.id)
    assert store.restore(run.id) == before == store.find(run.id)
    store.trash(run.id)
    run.path.mkdir()
    with pytest.raises(RunRefused) as caught:
        store.restore(run.id)
    assert caught.value.code == "run_place_taken"
    assert ids(store.empty_trash()) == [run.id]
    assert store.trashed() == []


def test_a_locked_run_is_neither_trashed_nor_cleaned_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path)
    run.weights.mkdir()
    store = RunStore(tmp_path)
    store.label(run.id, locked=True)
    with pytest.raises(RunRefused) as caught:
        store.trash(run.id)
    assert caught.value.code == "run_locked"
    with pytest.raises(SystemExit) as ended:
        main(["checkpoint", "cleanup", str(run.weights)])
    assert ended.value.code == 1 and run.id in capsys.readouterr().err
    store.label(run.id, locked=False)
    store.trash(run.id)


def test_a_run_at_work_is_not_trashed_and_a_dead_one_is(tmp_path: Path) -> None:
    """A34: what counts is whether its process lives, not what run.json still says."""
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = made(tmp_path, state="running", worker=identity(worker.pid))
    store = RunStore(tmp_path)
    with pytest.raises(RunRefused) as caught:
        store.trash(run.id)
    assert caught.value.code == "run_at_work"
    worker.communicate(b"\n")
    store.trash(run.id)


def test_a_run_on_another_machine_counts_as_alive_while_its_heart_beats(tmp_path: Path) -> None:
    run = made(tmp_path, state="running", worker={"pid": 1, "begun": 0.0, "host": "elsewhere"})
    heart = run.path / "heartbeat"
    heart.touch()
    store = RunStore(tmp_path)
    with pytest.raises(RunRefused):
        store.trash(run.id)
    os.utime(heart, (time.time() - 60, time.time() - 60))
    store.trash(run.id)


def test_a_process_that_only_has_the_number_of_a_dead_one_keeps_nothing(tmp_path: Path) -> None:
    run = made(tmp_path, state="running", worker=identity(os.getpid()) | {"begun": 1.0})
    RunStore(tmp_path).trash(run.id)


def test_every_change_is_in_the_operation_log(tmp_path: Path) -> None:
    """A13, A14, C1: done, refused, confirmed how; what changes nothing is left out."""
    run = made(tmp_path)
    history = RunHistory(tmp_path, "web")
    history.tag(run.id, ["a"])
    history.tag(run.id, ["a"])
    history.note(run.id, "baik")
    history.lock(run.id)
    with pytest.raises(RunRefused):
        history.trash(run.id)
    history.unlock(run.id)
    history.trash(run.id)
    history.restore(run.id)
    history.trash(run.id)
    with pytest.raises(ValueError, match="confirmation"):
        history.empty_trash("none")
    history.empty_trash("token")
    log = OperationLog(tmp_path / "operations.jsonl")
    entries = log.operations(run=run.id)
    assert [(each.operation, each.result) for each in entries] == [
        ("tag", "done"), ("note", "done"), ("lock", "done"), ("trash", "run_locked"), ("unlock", "done"),
        ("trash", "done"), ("restore", "done"), ("trash", "done"), ("empty-trash", "done"),
    ]  # fmt: skip
    assert [(c.field, c.old, c.new) for c in entries[1].changes] == [("notes", "", "baik")]
    assert (entries[-1].confirmed, entries[-1].who.interface) == ("token", "web")
    assert log.verify().alteration is None


def command(capsys: pytest.CaptureFixture[str], home: Path, name: str, *rest: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["runs", name, "--home", str(home), *rest])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.mark.usefixtures("english")
def test_the_commands_list_show_and_change_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A14, A30."""
    assert "no run here yet" in command(capsys, tmp_path, "list")[1]
    good = made(tmp_path, config={"name": "bagus [bold]"})
    bad = made(tmp_path, best_value=0.1)
    (bad.path / "labels.json").write_text('{"tags": [], "notes": "", "locked": false}')
    code, out, _ = command(capsys, tmp_path, "list", "--sort", "-best")
    assert (
        code == 0
        and "bagus [bold]" in out
        and "mAP50_95 0.75" in out
        and out.index(good.id) < out.index(bad.id)
    )
    code, out, _ = command(
        capsys, tmp_path, "list", "--where", "best>0.5", "--where", "mAP50<=0.95", "--json"
    )
    assert [row["id"] for row in json.loads(out)] == [good.id]
    assert command(capsys, tmp_path, "list", "--where", "best is good")[0] == 2
    assert "No run meets" in command(capsys, tmp_path, "list", "--state", "failed")[1]
    assert "1 of 2" in command(capsys, tmp_path, "list", "--limit", "1", "--rebuild")[1]
    assert command(capsys, tmp_path, "tag", good.id, "a", "b")[1] == f"{good.id}: tags a, b\n"
    assert command(capsys, tmp_path, "tag", good.id, "--remove", "a")[1] == f"{good.id}: tags b\n"
    assert command(capsys, tmp_path, "note", good.id, "terang")[0] == 0
    assert command(capsys, tmp_path, "lock", good.id)[0] == 0
    code, out, err = command(capsys, tmp_path, "trash", bad.id, good.id)
    assert code == 1 and bad.id in out and f"runs unlock {good.id}" in err
    code, out, _ = command(capsys, tmp_path, "show", good.id)
    assert code == 0 and "terang" in out and "config.yaml" in out and "run_locked" in out and "🔒" in out
    shown = json.loads(command(capsys, tmp_path, "show", good.id, "--json")[1])
    assert [each["operation"] for each in shown["operations"]] == ["tag", "tag", "note", "lock", "trash"]
    assert bad.id in command(capsys, tmp_path, "list", "--trashed")[1]
    assert command(capsys, tmp_path, "restore", bad.id)[0] == 0
    assert command(capsys, tmp_path, "unlock", good.id)[0] == 0
    assert command(capsys, tmp_path, "trash", bad.id)[0] == 0
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert command(capsys, tmp_path, "empty-trash")[0] == 3
    assert "1 run(s)" in command(capsys, tmp_path, "empty-trash", "--yes")[1]
    assert command(capsys, tmp_path, "show", "nothing")[0] == 2
    assert read_labels(good.path) is not None


def test_listing_says_what_is_broken_in_both_languages(tmp_path: Path) -> None:
    """A33."""
    run = made(tmp_path)
    (run.path / "run.json").write_text("{")
    for language, word in (("en", "broken"), ("id", "rusak")):
        answer = subprocess.run(
            [sys.executable, "-m", "smartcash", "runs", "list", "--home", tmp_path, "--lang", language],
            capture_output=True, text=True, check=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        assert word in answer.stdout and answer.stderr == ""
