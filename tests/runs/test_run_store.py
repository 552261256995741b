"""The run store: what the folders say, quickly, and nothing that lies in them does harm."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from smartcash.cli import main
from smartcash.cli.runs import SORTS as COMMAND_SORTS
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, LabelsRefused, OperationLogFailed, RunNotFound, RunRefused
from smartcash.domain.records import RunFilter, RunInfo
from smartcash.handlers.operation_log import OperationLog
from smartcash.handlers.run_history import RunHistory
from smartcash.services.labels import read_labels
from smartcash.services.processes import identity
from smartcash.services.run_store import SORTS, RunFolder, RunStore, find_run, settings_in
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


def test_two_runs_of_the_same_second_that_draw_the_same_digits_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A18: an id never collides."""
    drawn = iter(["ffff"] * 40 + ["0001", "0002"])  # the second may turn between the two
    monkeypatch.setattr("secrets.token_hex", lambda size: next(drawn) if size == 2 else "0" * 2 * size)
    first, second = made(tmp_path), made(tmp_path)
    assert first.path != second.path
    assert sorted(ids(RunStore(tmp_path).runs())) == sorted([first.id, second.id])


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


@pytest.mark.parametrize("state", ["running", "paused", "queued", "crashed"])
def test_a_run_that_went_on_is_as_far_as_its_epochs_not_as_its_last_end_recorded(
    tmp_path: Path, state: str
) -> None:
    """A18, A26: what `stopped` wrote into run.json stays there when the run is resumed."""
    run = made(tmp_path, state=state, epochs_done=2, best_value=0.3, best_epoch=2)
    run.write_epochs([{"epoch": epoch, "mAP50_95": epoch / 10} for epoch in range(1, 6)])
    (info,) = RunStore(tmp_path).runs()
    assert (info.epochs_done, info.best_value, info.best_epoch) == (5, 0.5, 5)
    run.describe({"state": "stopped", "epochs_done": 5})
    assert RunStore(tmp_path).runs()[0].epochs_done == 5


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


# epochs.csv of a run at work → the reason why it is broken, or the best value that can be read nevertheless
TABLES: dict[str, tuple[bytes, str | float | None]] = {
    "three points": (b"epoch,mAP50_95\n1,1.2.3\n2,0.5\n", 0.5),
    "a point": (b"epoch,mAP50_95\n1,.\n", None),
    "words": (b"epoch,mAP50_95\n1,good\n2,nan\n3,inf\n4,1e999\n", None),
    "a very long field": (b'epoch,mAP50_95\n1,"' + b"9" * 200_000 + b'"\n', "not_csv"),
    "short rows": (b"epoch,mAP50_95\n1\n2,0.5\n", 0.5),
    "long rows": (b"epoch,mAP50_95\n1,0.5,7,8\n", 0.5),
    "bytes": (b"\xff\xfe\x00,\x00\n\x00", None),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_hostile_table_of_epochs_never_stops_a_list(tmp_path: Path, name: str) -> None:
    """A30, A34."""
    good, run = made(tmp_path), made(tmp_path)
    at_work = {k: v for k, v in run.description().items() if k not in ("epochs_done", "best_value")}
    (run.path / "run.json").write_text(json.dumps(at_work | {"state": "running"}))
    content, expected = TABLES[name]
    (run.path / "epochs.csv").write_bytes(content)
    store = RunStore(tmp_path)
    found = store.find(run.id)
    assert (found.reason if found.state == "broken" else found.best_value) == expected
    assert store.find(good.id).state == "finished"


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
    file = str(old.path / "config.yaml")
    for name, code in (
        ("2", "run_ambiguous"), ("x", "run_not_found"), ("", "run_not_found"), (file, "run_is_a_file"),
    ):  # fmt: skip
        with pytest.raises(RunNotFound) as caught:
            store.find(name)
        assert caught.value.code == code


def test_a_run_is_found_by_the_name_it_was_given_unless_another_has_it_too(tmp_path: Path) -> None:
    """A30: one rule, for what trains as for what lists; several of the same name are listed, none is guessed."""
    run, first, second = (
        made(tmp_path, config={"name": name}) for name in ("dompet siang", "pasar", "pasar")
    )
    assert find_run("dompet siang", tmp_path).id == RunStore(tmp_path).find("dompet siang").id == run.id
    child = made(tmp_path, config={"name": "dompet siang"}, parent={"id": run.id})
    assert find_run("dompet siang", tmp_path).id == RunStore(tmp_path).find("dompet siang").id == child.id
    year = made(tmp_path, config={"name": "2026"})  # as the ids of several begin
    assert find_run("2026", tmp_path).id == RunStore(tmp_path).find("2026").id == year.id
    for find in (RunStore(tmp_path).find, lambda name: find_run(name, tmp_path)):
        with pytest.raises(RunNotFound) as caught:
            find("pasar")
        told = caught.value.message("en")
        assert caught.value.code == "run_ambiguous" and first.id in told and second.id in told


def test_settings_are_those_of_a_file_or_what_a_run_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A1: a run by its folder, id, name or as the latest; a file of that name comes first."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "runs"
    run = made(home, config={"name": "mine.yaml", "seed": 7})
    for called in (run.path, Path(run.id), Path("latest"), Path("mine.yaml")):
        assert settings_in(called, home)["seed"] == 7
    Path("notes").mkdir()
    made(home, config={"name": "notes", "seed": 9})
    assert settings_in(Path("notes"), home)["seed"] == 9, "a folder of data that a run is named after"
    Path("mine.yaml").write_text("seed: 8\n")
    assert settings_in(Path("mine.yaml"), home) == {"seed": 8}
    with pytest.raises(ConfigInvalid, match=r"other\.yaml"):
        settings_in(Path("other.yaml"), home)
    made(home, config={"name": "twice"})
    made(home, config={"name": "twice"})
    with pytest.raises(RunNotFound, match="twice"):
        settings_in(Path("twice"), home)


def test_a_data_set_in_the_home_is_no_run_whatever_its_files_are_called(tmp_path: Path) -> None:
    """A30."""
    run = made(tmp_path)
    shutil.copytree(run.path, tmp_path / "data" / "notes")
    assert ids(RunStore(tmp_path).runs()) == [run.id] and find_run("latest", tmp_path).id == run.id
    with pytest.raises(RunNotFound):
        find_run("notes", tmp_path)


def test_an_exact_id_is_meant_before_a_beginning_and_before_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A30: one rule, for what trains as for what lists."""
    home = tmp_path / "home"
    whole, longer, lure = made(home), made(home), made(tmp_path / "elsewhere")
    longer.path.rename(whole.path.with_name(f"{whole.id}-2"))
    monkeypatch.chdir(lure.path.parent)
    lure.path.rename(whole.id)
    assert find_run(whole.id, home).path == whole.path
    assert RunStore(home).find(whole.id).path == str(whole.path)
    path = tmp_path / "elsewhere" / "detect" / whole.id
    assert find_run(str(path), home).path == path, "one outside the home is trained where it lies"
    with pytest.raises(RunNotFound):
        RunStore(home).find(str(path))


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


@pytest.mark.parametrize("task", ["../..", "/tmp/elsewhere", "classify", ".", ""])
def test_a_run_goes_to_the_trash_and_back_by_the_folder_it_lies_in(tmp_path: Path, task: str) -> None:
    """A29: its files may name any task."""
    home = tmp_path / "deep" / "below" / "home"
    run = made(home, data={"path": "/data/rupiah", "task": task})
    store = RunStore(home)
    assert Path(store.trash(run.id).path) == home / ".trash" / "detect" / run.id
    assert Path(store.restore(run.id).path) == run.path
    assert run.path.is_dir()


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


@pytest.mark.parametrize("file", ["config.yaml", "epochs.csv", "run.json"])
def test_a_run_at_work_whose_files_cannot_be_read_is_not_trashed(tmp_path: Path, file: str) -> None:
    """A34: the process, and where even its number cannot be read, the heartbeat."""
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = made(tmp_path, state="running", worker=identity(worker.pid))
    (run.path / "heartbeat").touch()
    (run.path / file).write_bytes(b"\xff")
    store = RunStore(tmp_path)
    with pytest.raises(RunRefused) as caught:
        store.trash(run.id)
    assert caught.value.code == "run_at_work"
    worker.communicate(b"\n")
    os.utime(run.path / "heartbeat", (time.time() - 60, time.time() - 60))
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


def test_nothing_is_done_that_could_not_be_logged(tmp_path: Path) -> None:
    """A13: the entry first, then the change."""
    kept, gone = made(tmp_path), made(tmp_path)
    history = RunHistory(tmp_path)
    history.trash(gone.id)
    log = tmp_path / "operations.jsonl"
    log.unlink()
    log.mkdir()
    changes = (
        lambda: history.tag(kept.id, ["a"]), lambda: history.trash(kept.id), lambda: history.restore(gone.id),
        lambda: history.empty_trash("--yes"),
    )  # fmt: skip
    for change in changes:
        with pytest.raises(OperationLogFailed):
            change()
    assert ids(history.store.runs()) == [kept.id] and ids(history.store.trashed()) == [gone.id]
    assert read_labels(kept.path) is None


def test_the_log_tells_what_stood_there_before_whoever_else_wrote_meanwhile(tmp_path: Path) -> None:
    """A13: each entry's old value is the one before it's new value."""
    run = made(tmp_path)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: RunHistory(tmp_path).note(run.id, f"note {n}"), range(24)))
    entries = OperationLog(tmp_path / "operations.jsonl").operations(run=run.id)
    pairs = [(change.old, change.new) for entry in entries for change in entry.changes]
    assert len(pairs) == 24
    assert [old for old, _ in pairs] == ["", *(new for _, new in pairs[:-1])]


def test_what_was_put_into_the_trash_after_the_question_is_not_deleted(tmp_path: Path) -> None:
    """A12: only what was shown was agreed to."""
    shown, later = made(tmp_path), made(tmp_path)
    history = RunHistory(tmp_path)
    history.trash(shown.id)
    confirmed = {run.id for run in history.store.trashed()}
    history.trash(later.id)
    assert ids(history.empty_trash("asked", confirmed)) == [shown.id]
    assert ids(history.store.trashed()) == [later.id]


@pytest.mark.parametrize("notes", ["x" * 10_001, "\x1b]0;owned\x07", "\u202e"])
def test_notes_that_a_terminal_would_obey_or_that_are_too_long_are_refused(
    tmp_path: Path, notes: str
) -> None:
    run, history = made(tmp_path), RunHistory(tmp_path)
    with pytest.raises(LabelsRefused):
        history.note(run.id, notes)
    assert history.note(run.id, "two\nlines\tand a tab").notes == "two\nlines\tand a tab"


def test_a_run_has_at_most_twenty_tags_and_those_it_has_can_always_be_taken_away(tmp_path: Path) -> None:
    run, store = made(tmp_path), RunStore(tmp_path)
    store.label(run.id, add_tags=[str(number) for number in range(20)])
    with pytest.raises(LabelsRefused, match="21"):
        store.label(run.id, add_tags=["one more"])
    by_hand = [*map(str, range(30)), "\x07"]
    (run.path / "labels.json").write_text(json.dumps({"tags": by_hand, "notes": "", "locked": False}))
    assert len(store.label(run.id, remove_tags=["\x07", "0"]).tags) == 29


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
    assert "1 run deleted" in command(capsys, tmp_path, "empty-trash", "--yes")[1]
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


@pytest.mark.parametrize("width", [72, 80, 200])
def test_a_list_in_a_narrow_terminal_leaves_columns_out_and_cuts_no_id(tmp_path: Path, width: int) -> None:
    """A30: and in a pipe nothing is cut at all."""
    run = made(tmp_path, config={"name": "dompet siang"}, best_value=0.9)
    shown = subprocess.run(
        [sys.executable, "-m", "smartcash", "runs", "list", "--home", tmp_path, "--lang", "en"],
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": str(width)},
    ).stdout  # fmt: skip
    piped = subprocess.run(
        [sys.executable, "-m", "smartcash", "runs", "list", "--home", tmp_path, "--lang", "en"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    ).stdout  # fmt: skip
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines())) <= width
    assert run.id in shown and "dompet siang" in shown and "mAP50_95 0.9" in shown
    assert ("efficientnet_lite0" in shown) == (width == 200)
    assert "…" not in piped and all(head in piped for head in ("backbone", "started", "epochs"))


@pytest.mark.usefixtures("english")
def test_the_trash_is_not_emptied_where_nobody_can_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A12, A25: exit code 3, and with --json nothing but JSON on stdout."""
    run = made(tmp_path)
    RunStore(tmp_path).trash(run.id)
    for flags in ((), ("--json",)):
        monkeypatch.setattr("sys.stdin", io.StringIO())
        code, out, err = command(capsys, tmp_path, "empty-trash", *flags)
        assert code == 3 and "Aborted" not in out + err and run.id in (out, err)[bool(flags)]
        assert not flags or out == ""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, out, _ = command(capsys, tmp_path, "empty-trash", "--json")
    assert (code, [row["id"] for row in json.loads(out)]) == (0, [run.id])
    assert OperationLog(tmp_path / "operations.jsonl").operations()[-1].confirmed == "asked"
    code, out, _ = command(capsys, tmp_path, "empty-trash", "--json")
    assert (code, json.loads(out)) == (0, [])


def test_the_trash_is_listed_with_the_same_conditions_and_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A30."""
    worse, better = made(tmp_path, best_value=0.1), made(tmp_path, best_value=0.9)
    failed = made(tmp_path, state="failed", best_value=0.5)
    for run in (worse, better, failed):
        RunStore(tmp_path).trash(run.id)

    def listed(*flags: str) -> list[str]:
        shown = command(capsys, tmp_path, "list", "--trashed", "--json", *flags)[1]
        return [row["id"] for row in json.loads(shown)]

    assert listed("--sort", "-best") == [better.id, failed.id, worse.id]
    assert listed("--sort", "best", "--limit", "1") == [worse.id]
    assert listed("--state", "failed") == [failed.id]


def test_a_bound_with_and_without_the_limit_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A30."""
    runs = [made(tmp_path, best_value=value) for value in (0.1, 0.5, 0.9)]

    def admitted(*bounds: str) -> set[int]:
        flags = [word for bound in bounds for word in ("--where", bound)]
        shown = command(capsys, tmp_path, "list", "--json", *flags)[1]
        found = {row["id"] for row in json.loads(shown)}
        return {number for number, run in enumerate(runs) if run.id in found}

    assert admitted("best>=0.5") == {1, 2} and admitted("best>0.5") == {2}
    assert admitted("best<=0.5") == {0, 1} and admitted("best<0.5") == {0}
    assert admitted("best=0.5") == {1}
    assert admitted("best>0.1", "best>=0.05", "best<0.9", "best<=0.95") == {1}


def test_the_command_knows_every_order_of_the_store() -> None:
    """A30: written twice, because the store loads what a command's help must not."""
    assert tuple(SORTS) == COMMAND_SORTS


@pytest.mark.usefixtures("english")
def test_commands_show_the_run_that_they_mean_and_how_it_truly_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A34: "latest" is told by its id; a worker that died is noticed by `show` as by `list`."""
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = made(tmp_path, state="running", worker=identity(worker.pid))
    code, out, _ = command(capsys, tmp_path, "pause", "latest", "--json")
    assert (code, json.loads(out)) == (0, {"run": run.id, "state": "running"})
    assert '"pause"' in run.control.read_text()
    worker.communicate(b"\n")
    assert json.loads(command(capsys, tmp_path, "show", "latest", "--json")[1])["state"] == "crashed"
