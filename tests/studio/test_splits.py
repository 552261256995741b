"""A data set split anew from the page: shown before it is written, written as it was shown, whole or not at all. D9,
D10: what the command line writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.testclient import TestClient
from studio_process import StudioProcess, finished, kept, wait_for, workers

from smartcash.backend.formats import read_dataset
from smartcash.backend.samples import write_samples
from smartcash.domain.errors import DataInvalid, SmartCashError
from smartcash.services.data_sets import DataSets
from smartcash.services.jobs import Jobs
from smartcash.services.workbench import Refusal, Workbench
from smartcash.ui.server import create_app

Disk = namedtuple("Disk", "total free")


def without_splits(folder: Path, images: int) -> Path:
    """A folder per class, as one collects photos."""
    write_samples(folder / "drawn", images=images, seed=4, task="classify", size_px=96)
    for number, picture in enumerate(sorted((folder / "drawn").rglob("*.jpg"))):
        place = folder / "photos" / picture.parent.name
        place.mkdir(parents=True, exist_ok=True)
        picture.rename(place / f"{number}.jpg")
    shutil.rmtree(folder / "drawn")
    return folder / "photos"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos of seven classes, never changed."""
    return without_splits(tmp_path_factory.mktemp("photos"), 60)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty one."""
    return tmp_path_factory.mktemp("splits") / "runs"


def planned(client: httpx.Client, path: Path, name: str, **more: Any) -> dict[str, Any]:
    """The job that shows a split, once it is over."""
    asked = client.post("data/splits/plans", json={"path": str(path), "name": name, **more})
    assert asked.status_code == 202, asked.text
    return finished(client, asked.json()["id"])


def written(client: httpx.Client, plan: dict[str, Any]) -> dict[str, Any]:
    """The job that writes it, once it is over."""
    asked = client.post("data/splits", json={"plan": plan["id"]})
    assert asked.status_code == 202, asked.text
    return finished(client, asked.json()["id"])


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_split_is_shown_first_and_then_written_as_it_was_shown(
    server: StudioProcess, client: httpx.Client, photos: Path, tmp_path: Path
) -> None:
    """A12: nothing is written before it was agreed to. What is written is what the command writes, byte for byte; the
    original stays."""
    before, others = content(photos), kept(server)
    plan = planned(client, photos, "foto terbagi", valid=20, test=10, seed=3)
    shown = plan["result"]
    assert kept(server) == others and shown["folder"] == str(server.home / "data" / "foto-terbagi")
    assert shown["images"] == 60 and shown["bytes"] == sum(map(len, before.values()))
    images = {name: split["images"] for name, split in shown["splits"].items()}
    assert sum(images.values()) == 60 and 9 <= images["valid"] <= 15 and 4 <= images["test"] <= 8

    job = written(client, plan)
    assert (job["state"], job["share"], job["result"]["path"]) == ("done", 1.0, shown["folder"])
    assert content(photos) == before and kept(server) == sorted([*others, "foto-terbagi"])
    made = read_dataset(shown["folder"])
    assert {name: len(found) for name, found in made.splits.items()} == images and made.split_seed is None
    assert shown["folder"] in [each["path"] for each in client.get("data/sets").json()["sets"]]

    command = [
        "data",
        "split",
        photos,
        "--out",
        tmp_path / "out",
        "--valid",
        "20",
        "--test",
        "10",
        "--seed",
        "3",
    ]
    subprocess.run([sys.executable, "-m", "smartcash", *map(str, command)], check=True, capture_output=True)
    assert content(tmp_path / "out") == content(Path(shown["folder"]))


def test_without_a_share_for_test_there_is_none(
    server: StudioProcess, client: httpx.Client, photos: Path
) -> None:
    made = written(client, planned(client, photos, "dua", test=0))["result"]["path"]
    assert list(read_dataset(made).splits) == ["train", "valid"]


def test_what_stands_there_is_never_written_over(
    server: StudioProcess, client: httpx.Client, photos: Path
) -> None:
    """Told before the data set is read, before it is written, and once it is written: another may have been faster."""
    early, late = (planned(client, photos, "ada") for _ in range(2))
    taken = server.home / "data" / "ada"
    assert written(client, early)["state"] == "done"
    before = content(taken)
    for answer in (
        client.post("data/splits/plans", json={"path": str(photos), "name": "ada"}),
        client.post("data/splits", json={"plan": late["id"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "data_set_exists")
        assert str(taken) in answer.json()["detail"]
    sets = DataSets(server.home)
    place = sets.begin("ada")
    place.mkdir()
    with pytest.raises(DataInvalid) as told:
        sets.keep(place, "ada", numbered=False)
    sets.discard(place)
    assert told.value.code == "data_set_exists" and content(taken) == before


def test_a_data_set_that_has_changed_since_is_not_written(
    server: StudioProcess, client: httpx.Client, tmp_path: Path
) -> None:
    photos = without_splits(tmp_path, 40)
    before = kept(server)
    plan = planned(client, photos, "berubah")
    next(photos.rglob("*.jpg")).unlink()
    job = written(client, plan)
    assert (job["state"], job["error"]["code"]) == ("failed", "split_stale")
    assert str(photos) in job["error"]["detail"] and kept(server) == before


def test_a_class_that_is_too_small_is_told_and_a_data_set_that_is_too_small_is_refused(
    server: StudioProcess, client: httpx.Client, photos: Path, tmp_path: Path
) -> None:
    """In words, before anything is written."""
    before = kept(server)
    shutil.copytree(photos, tmp_path / "photos")
    for spare in sorted((tmp_path / "photos" / "5000").iterdir())[2:]:
        spare.unlink()
    shown = planned(client, tmp_path / "photos", "kecil")["result"]
    assert {(each["code"], each["value"]) for each in shown["findings"]} == {("data_split_class", "5000")}
    assert "Class 5000 is in 2 pictures" in shown["findings"][0]["message"]
    assert "none is in validation" in shown["findings"][0]["message"]  # as the page calls it
    for spare in sorted((tmp_path / "photos").rglob("*.jpg"))[2:]:
        spare.unlink()
    job = planned(client, tmp_path / "photos", "kecil")
    assert (job["state"], job["error"]["code"]) == ("failed", "data_split_too_small")
    assert "2 pictures" in job["error"]["detail"] and kept(server) == before


def test_pictures_that_cannot_be_used_are_counted_before_they_are_left_out(
    client: httpx.Client, photos: Path, tmp_path: Path
) -> None:
    """Damaged ones, and both copies of one that lies in two classes."""
    shutil.copytree(photos, tmp_path / "photos")
    first, second = sorted((tmp_path / "photos" / "1000").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:-400])
    (tmp_path / "photos" / "2000" / "copy.jpg").write_bytes(second.read_bytes())
    shown = planned(client, tmp_path / "photos", "tanpa")["result"]
    assert (shown["images"], shown["left_out"]) == (58, 3)
    assert planned(client, photos, "tanpa")["result"]["left_out"] == 0


def test_a_split_that_finds_no_room_is_told_when_it_is_shown_and_when_it_is_to_be_written(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10**12
    monkeypatch.setattr(psutil, "disk_usage", lambda path: Disk(10**12, free))
    with TestClient(
        create_app(tmp_path / "runs"), base_url="http://test/api/v1/", headers={"accept-language": "en"}
    ) as client:
        plan = planned(client, photos, "penuh")
        free = 2 * plan["result"]["bytes"] - 2
        refused = client.post("data/splits", json={"plan": plan["id"]})
        assert (refused.status_code, refused.json()["code"]) == (503, "split_above_room")
        again = planned(client, photos, "penuh")
        assert (again["state"], again["error"]["code"]) == ("failed", "split_above_room")
        for told in (refused.json(), again["error"]):
            assert "penuh" in told["detail"] and str(tmp_path / "runs" / "data") in told["detail"]
        assert kept(tmp_path / "runs") == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no such limit of another process")
def test_a_write_that_breaks_off_half_way_is_told_of_its_folder_and_leaves_nothing(
    tmp_path: Path, photos: Path
) -> None:
    """B29: not of the hidden place in it, and without advice for a command."""
    server = StudioProcess(tmp_path / "runs")
    sizes = sorted(path.stat().st_size for path in photos.rglob("*.jpg"))
    most = sizes[len(sizes) // 2]  # about every second picture is too large
    psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_FSIZE, (most, most))
    with server.client() as client:
        job = written(client, planned(client, photos, "setengah"))
    assert (job["state"], job["error"]["code"]) == ("failed", "data_set_unwritable")
    assert f"setengah could not be kept in {server.home / 'data'}: File too large." in job["error"]["detail"]
    assert ".tmp" not in job["error"]["detail"] and kept(server) == []
    server.end()
    assert server.said[1:] == []


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")


@pytest.mark.skipif(shutil.which("mount") is None, reason="no disk can be mounted here")
def test_a_full_disk_and_one_that_can_only_be_read_are_told_in_words(tmp_path: Path, photos: Path) -> None:
    """B29: a disk on which no more than a few files find room, then one that takes none."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=64m,nr_inodes=50", "tmpfs", disk)
    try:
        server = StudioProcess(disk / "runs")
        with server.client() as client:
            plans = [planned(client, photos, name) for name in ("penuh", "terkunci")]
            full = written(client, plans[0])
            assert "No space left on device" in full["error"]["detail"] and kept(server) == []
            mount("-o", "remount,ro", disk)
            locked, unplanned = written(client, plans[1]), planned(client, photos, "nanti")
            for job in (locked, unplanned):
                assert f"{server.home / 'data'}: Read-only file system" in job["error"]["detail"]
            assert {job["error"]["code"] for job in (full, locked, unplanned)} == {"data_set_unwritable"}
            assert kept(server) == []
        server.end()
        assert server.said[1:] == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_split_whose_process_dies_is_told_and_leaves_nothing(tmp_path: Path, photos: Path) -> None:
    """It is not begun again in what it has left."""
    server = StudioProcess(tmp_path / "runs")
    with server.client() as client:
        plan = planned(client, photos, "mati")
        (worker,) = workers(server.home)
        worker.suspend()
        job = client.post("data/splits", json={"plan": plan["id"]}).json()
        worker.kill()
        over = finished(client, job["id"])
        assert (over["state"], over["error"]["code"]) == ("failed", "workbench_failed") and kept(server) == []
        assert written(client, plan)["state"] == "done"
    server.end()
    assert server.said[1:] == []


def test_what_is_stopped_leaves_nothing_and_holds_nobody_up(tmp_path: Path, photos: Path) -> None:
    """One that is at work, one that waits for it, and the look at a third: each says that it was stopped. What comes
    after them is made."""
    server = StudioProcess(tmp_path / "runs")
    with server.client() as client:
        plan = planned(client, photos, "nanti")
        drawing = client.post("data/samples", json={"name": "many", "images": 5000}).json()["id"]
        wait_for(lambda: list((server.home / "data").rglob("*.jpg")))
        split = client.post("data/splits", json={"plan": plan["id"]}).json()["id"]
        look = client.post("data/splits/plans", json={"path": str(photos), "name": "lain"}).json()["id"]
        for job in (split, look, drawing):  # those that wait do not wait for the others
            assert client.post(f"jobs/{job}/stop").status_code == 202
            over = finished(client, job)
            assert (over["state"], over["error"], over["share"]) == ("stopped", None, None)
        assert kept(server) == []
        assert written(client, plan)["state"] == "done" and kept(server) == ["nanti"]
        assert client.post(f"jobs/{split}/stop").json()["state"] == "stopped"
        checked = client.post("data/check", json={"path": str(photos)}).json()["id"]
        for name, status, code in ((checked, 409, "job_unstoppable"), ("none", 404, "job_unknown")):
            answer = client.post(f"jobs/{name}/stop")
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        finished(client, checked)
    server.end()
    assert server.said[1:] == []


def test_a_question_that_is_given_up_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    """However its answer and the wish to end it cross."""
    bench, asked = Workbench(tmp_path), {"path": str(tmp_path / "none")}
    with ThreadPoolExecutor(1) as threads:
        for tenth in range(9):
            end_wish = threading.Event()
            first = threads.submit(bench.ask, "check_data", again=False, end_wish=end_wish, **asked)
            time.sleep(tenth / 10)
            bench.give_up(end_wish)
            assert isinstance(first.exception(), SmartCashError)
            with pytest.raises(Refusal):
                bench.ask("check_data", again=False, **asked)
    bench.close()


def test_a_job_that_ends_by_itself_although_it_was_to_be_stopped_is_done() -> None:
    jobs, going = Jobs(), threading.Event()
    job = jobs.begin("draw", "a", lambda: going.wait(30), stop=lambda: None)
    jobs.stop(job)
    going.set()
    jobs.settle("draw")
    found = jobs.find(job.id)
    assert found is not None and found.state == "done"


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil",
        "/etc/evil",
        "..",
        ".hidden",
        "evil/..",
        "con",
        "<img src=x onerror=alert(1)>",
        "a\0b",
        "x" * 200,
    ],
)
def test_a_name_leads_nowhere_else(
    server: StudioProcess, client: httpx.Client, photos: Path, name: str
) -> None:
    before = set(server.home.glob("**/*")) | set(photos.parent.iterdir())
    target = Path(planned(client, photos, name)["result"]["folder"])
    assert target.parent == server.home / "data" and not target.name.startswith(".") and target.name.isascii()
    assert set(server.home.glob("**/*")) | set(photos.parent.iterdir()) == before


def test_a_place_that_is_no_data_set_or_has_the_home_in_it_is_refused(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    home = tmp_path / "photos" / "runs"
    with TestClient(create_app(home), base_url="http://test/api/v1/") as client:
        for path, code in (
            (Path("/etc/passwd"), "data_path_file"), (tmp_path / "none", "data_path_missing"),
            (tmp_path / "photos", "split_home_inside"),
        ):  # fmt: skip
            job = planned(client, path, "tidak")
            assert (job["state"], job["error"]["code"]) == ("failed", code), job
    assert str(home / "data") in job["error"]["detail"]
    assert f"smartcash data split {tmp_path / 'photos'} --out FOLDER" in job["error"]["detail"]
    assert kept(home) == []


def test_what_was_never_shown_is_not_written(
    server: StudioProcess, client: httpx.Client, photos: Path
) -> None:
    """A12: nor is what could not be shown, or is no split."""
    before = kept(server)
    failed = planned(client, Path("/nowhere"), "tidak")["id"]
    checked = client.post("data/check", json={"path": str(photos)}).json()["id"]
    for plan in ("", "guess", failed, checked):
        answer = client.post("data/splits", json={"plan": plan})
        assert (answer.status_code, answer.json()["code"]) == (404, "split_unplanned")
    for wrong in (
        {"valid": 0},
        {"valid": 46},
        {"test": -1},
        {"test": 46},
        {"seed": -1},
        {"name": ""},
        {"out": "/etc"},
    ):
        asked = {"path": str(photos), "name": "tidak", **wrong}
        assert client.post("data/splits/plans", json=asked).status_code == 422, wrong
    finished(client, checked)
    assert kept(server) == before


@pytest.mark.parametrize("path", ["data/splits/plans", "data/splits", "jobs/none/stop"])
def test_who_has_no_token_or_comes_from_another_page_begins_and_stops_nothing(
    server: StudioProcess, client: httpx.Client, path: str
) -> None:
    with server.client(authorization="Bearer guess") as stranger:
        assert stranger.post(path, json={}).status_code == 401
    assert client.post(path, json={}, headers={"sec-fetch-site": "cross-site"}).status_code == 403
