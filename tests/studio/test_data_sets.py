"""Data sets that come from the page: a zip that is uploaded, sample notes that are drawn. Whole, or not there at all."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zipfile import ZipFile

import httpx
import psutil
import pytest
from starlette.testclient import TestClient
from studio_process import StudioProcess, finished, kept, wait_for, workers

from smartcash.backend.samples import write_samples
from smartcash.domain.errors import DataInvalid, WorkbenchFailed
from smartcash.services.data_sets import PICTURE_BYTES, STALE_S, DataSets, Upload
from smartcash.services.jobs import Jobs
from smartcash.services.workbench import Workbench
from smartcash.ui.routes import data
from smartcash.ui.server import Server, create_app, guarded
from smartcash.utils.files import slug

ZIP = {"content-type": "application/zip"}
MB = 1_000_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty one."""
    return tmp_path_factory.mktemp("data-sets") / "runs"


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small data set as a zip."""
    folder = tmp_path_factory.mktemp("notes")
    write_samples(folder / "notes", images=12, seed=1, size_px=96)
    return Path(shutil.make_archive(str(folder / "notes"), "zip", folder / "notes")).read_bytes()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 96 MB."""
    path = tmp_path_factory.mktemp("large") / "large.zip"
    with ZipFile(path, "w") as archive, archive.open("noise.bin", "w") as file:
        for _ in range(96):
            file.write(os.urandom(MB))
    return path


def send(client: httpx.Client, name: str, body: Any, **headers: str) -> httpx.Response:
    return client.post("data/uploads", params={"name": name}, content=body, headers={**ZIP, **headers})


def head_of(token: str, name: str, path: Path) -> bytes:
    """What a browser sends before the file at `path`."""
    lines = (
        f"POST /api/v1/data/uploads?name={name}&lang=en HTTP/1.1", "Host: localhost",
        f"Authorization: Bearer {token}", f"Content-Length: {path.stat().st_size}", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode()


Disk = namedtuple("Disk", "total free")


def test_an_uploaded_zip_is_a_data_set_that_can_be_looked_at(
    server: StudioProcess, client: httpx.Client, notes: bytes
) -> None:
    """Sent twice it is there twice: nothing is overwritten."""
    paths = [send(client, "Foto uang (2).zip", notes).json()["path"] for _ in range(2)]
    assert paths == [str(server.home / "data" / f"Foto-uang-2{number}.zip") for number in ("", "-2")]
    assert Path(paths[0]).read_bytes() == notes
    known = client.get("data/sets").json()
    assert {each["path"] for each in known["sets"]} >= set(paths) and known["room"] > len(notes)
    job = finished(client, client.post("data/check", json={"path": paths[0]}).json()["id"])
    assert job["state"] == "done" and job["result"]["splits"]["train"]["images"] == 8


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil.zip", "C:\\Users\\me\\evil.zip", "/etc/evil.zip", "..", ".zip", ".hidden.zip", "evil.zip/..", " ",
        "con.zip", "<img src=x onerror=alert(1)>.zip", "🪙.zip", "a\0b.zip", "x" * 900, "evil.zip\r\nset-cookie: a=b",
        "data.yaml",
    ],
)  # fmt: skip
def test_a_name_leads_nowhere_else(
    server: StudioProcess, client: httpx.Client, notes: bytes, name: str
) -> None:
    before = set(server.home.rglob("*"))
    answer = send(client, name, notes)
    assert answer.status_code == 201, answer.text
    (new,) = set(server.home.rglob("*")) - before - {server.home / "data", server.home / "data" / ".lock"}
    assert new.parent == server.home / "data" and new.suffix == ".zip" and not new.name.startswith(".")
    assert new.name.isascii() and len(new.name) < 60 and str(new) == answer.json()["path"]
    assert new.stem != "con"


@pytest.mark.parametrize("name", ["con", "NUL", "Com1", "lpt9.tar", "aux."])
def test_no_name_is_that_of_a_device(name: str) -> None:
    """On Windows a file of that name cannot be made, whatever its folder and its ending."""
    assert slug(name) == f"x-{name.rstrip('.')}" == slug(slug(name))
    assert [slug(each) for each in ("console", "com10", "my.con", "lpt")] == [
        "console",
        "com10",
        "my.con",
        "lpt",
    ]


@pytest.mark.parametrize("body", [b"", b"PK", b"not a zip" * 1000, b"PK\3\4" + bytes(3 * MB)])
def test_what_is_no_zip_is_refused_and_not_kept(
    server: StudioProcess, client: httpx.Client, body: bytes
) -> None:
    before = kept(server)
    answer = send(client, "odd.zip", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "upload_no_zip")
    assert "odd.zip" in answer.json()["detail"] and kept(server) == before


def test_a_zip_that_breaks_off_leaves_nothing_behind(server: StudioProcess, large: Path) -> None:
    """As when the browser is closed in the middle."""
    before = kept(server)
    with socket.create_connection(("127.0.0.1", server.port)) as browser, large.open("rb") as file:
        browser.sendall(head_of(server.token, "lost.zip", large) + file.read(8 * MB))
        wait_for(lambda: len(kept(server)) == len(before) + 1)
        (coming,) = set(kept(server)) - set(before)
        assert coming.startswith(".")  # no data set that anybody could choose
    wait_for(lambda: kept(server) == before)


def test_a_zip_is_never_in_memory_as_a_whole(
    server: StudioProcess, client: httpx.Client, large: Path
) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    most = before

    def pieces() -> Iterator[bytes]:  # of no announced length
        nonlocal most
        with large.open("rb") as file:
            while piece := file.read(MB):
                most = max(most, process.memory_info().rss)
                yield piece

    answer = send(client, "large.zip", pieces())
    assert answer.status_code == 201 and Path(answer.json()["path"]).stat().st_size == large.stat().st_size
    assert most - before < 48 * MB


def test_no_zip_takes_more_than_half_of_the_free_disk(
    tmp_path: Path, notes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its length is announced or not; the other half is for trainings and for what is in it."""
    monkeypatch.setattr(psutil, "disk_usage", lambda path: Disk(10**12, 2 * (len(notes) - 1)))
    with TestClient(create_app(tmp_path / "runs")) as client:
        assert client.get("/api/v1/data/sets").json()["room"] == len(notes) - 1
        for body in (notes, iter([notes[:100], notes[100:]])):
            answer = client.post("/api/v1/data/uploads?name=big.zip&lang=en", content=body, headers=ZIP)
            assert (answer.status_code, answer.json()["code"]) == (413, "upload_above_room")
            assert str(tmp_path / "runs" / "data") in answer.json()["detail"]
        assert kept(tmp_path / "runs") == []


def test_a_zip_that_could_not_be_unpacked_is_not_taken(
    tmp_path: Path, notes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache may lie on another disk, which has less room; a drawing is not unpacked."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    free = {str(tmp_path / "cache"): 2 * len(notes) - 2}
    monkeypatch.setattr(psutil, "disk_usage", lambda path: Disk(10**12, free.get(path, 10**11)))
    with TestClient(create_app(tmp_path / "runs")) as client:
        known = client.get("/api/v1/data/sets").json()
        assert (known["room"], known["room_of"]) == (len(notes) - 1, str(tmp_path / "cache"))
        answer = client.post("/api/v1/data/uploads?name=big.zip&lang=en", content=notes, headers=ZIP)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_above_room")
        assert str(tmp_path / "cache") in answer.json()["detail"] and kept(tmp_path / "runs") == []
    assert DataSets(tmp_path / "runs").begin_drawing("many", 1000).parent == tmp_path / "runs" / "data"


def test_sample_notes_that_find_no_room_are_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one takes is as measured: a drawn data set takes no more."""
    write_samples(tmp_path / "drawn", images=40)
    taken = sum(-(-path.stat().st_size // 4096) * 4096 for path in (tmp_path / "drawn").rglob("*.*"))
    assert 0.6 * PICTURE_BYTES < taken / 40 < PICTURE_BYTES
    monkeypatch.setattr(psutil, "disk_usage", lambda path: Disk(10**12, 2 * 40 * PICTURE_BYTES - 1))
    with TestClient(create_app(tmp_path / "runs")) as client:
        answer = client.post("/api/v1/data/samples?lang=en", json={"name": "mine", "images": 40})
        assert (answer.status_code, answer.json()["code"]) == (503, "samples_above_room")
        assert "mine" in answer.json()["detail"] and client.get("/api/v1/jobs").json()["jobs"] == []


def test_a_drive_that_does_not_say_how_large_it_is_takes_what_comes(
    tmp_path: Path, notes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "disk_usage", lambda path: Disk(0, 0))
    with TestClient(create_app(tmp_path / "runs")) as client:
        assert client.get("/api/v1/data/sets").json()["room"] is None
        answer = client.post("/api/v1/data/uploads?name=big.zip", content=notes, headers=ZIP)
        assert answer.status_code == 201 and kept(tmp_path / "runs") == ["big.zip"]
    assert DataSets(tmp_path / "runs").begin_drawing("many", 10_000).parent == tmp_path / "runs" / "data"


def test_what_stands_in_the_way_of_a_data_set_is_told(tmp_path: Path, notes: bytes) -> None:
    """Of one that is drawn as of one that is uploaded: here a file where the folder should be."""
    (tmp_path / "data").write_bytes(b"")
    with TestClient(create_app(tmp_path)) as client:
        for answer in (
            client.post("/api/v1/data/samples?lang=en", json={"name": "mine"}),
            client.post("/api/v1/data/uploads?name=mine&lang=en", content=notes, headers=ZIP),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "data_set_unwritable")
            assert all(
                part in answer.json()["detail"] for part in ("mine", f"{tmp_path / 'data'}: File exists")
            )


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    sets = DataSets(tmp_path)
    with pytest.raises(DataInvalid) as told:
        sets.keep(sets.begin("mine"), "mine")  # nothing stands there
    assert (told.value.code, told.value.facts["name"]) == ("data_set_unwritable", "mine")


FULL = """
import resource, sys
from pathlib import Path
from smartcash.domain.errors import DataInvalid
from smartcash.services.data_sets import DataSets

resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
coming = DataSets(Path(sys.argv[1])).receive("full.zip", 0)
try:
    for _ in range(9):
        coming.write(b"PK\\3\\4" + bytes(1_000_000))
except DataInvalid as error:
    print(error.code, error.facts["name"])
finally:
    coming.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="no such limit")
def test_a_disk_that_is_full_is_told_and_nothing_is_left_on_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split() == ["data_set_unwritable", "full.zip"], done.stderr
    assert list((tmp_path / "data").iterdir()) == []


def test_what_a_killed_server_has_left_is_swept_away_after_a_day(tmp_path: Path) -> None:
    sets = DataSets(tmp_path)
    old, young = sets.begin("old"), sets.begin("young")
    for place in (old, young):
        (place / "images").mkdir(parents=True)
    os.utime(old, (time.time() - STALE_S - 60,) * 2)
    (sets.folder / "notes").mkdir()
    os.utime(sets.folder / "notes", (0, 0))
    sets.begin("next")
    assert {path.name for path in sets.folder.iterdir()} == {young.name, "notes", ".lock"}
    assert [path.name for path in sets.paths()] == ["notes"]


def test_who_begins_does_not_mind_that_others_end(tmp_path: Path) -> None:
    """What lay there when the folder was read may be kept, discarded or swept away by another when it is looked at."""
    until = time.monotonic() + 3
    sets = [DataSets(tmp_path) for _ in range(4)]

    def draw(mine: DataSets) -> None:
        while time.monotonic() < until:
            place = mine.begin("mine")
            place.mkdir()
            mine.paths()
            mine.discard(place)

    def leave(mine: DataSets) -> None:
        while time.monotonic() < until:
            old = mine.begin("old")
            for number in range(20):
                (old / str(number)).mkdir(parents=True)
            os.utime(old, (0, 0))

    with ThreadPoolExecutor(len(sets)) as threads:
        for done in [*threads.map(threads.submit, (draw, draw, leave, leave), sets)]:
            done.result()
    sets[0].begin("last")
    assert kept(tmp_path) == []


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"sec-fetch-site": "cross-site"}, 403)])
def test_an_upload_is_asked_for_its_token_and_its_origin_first(
    server: StudioProcess, headers: dict[str, str], status: int
) -> None:
    """Other pages of the same browser cannot fill the disk."""
    before = kept(server)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    known = {"authorization": f"Bearer {server.token}"} if status == 403 else {}
    place = f"/api/v1/data/uploads?name={quote('evil.zip')}"
    connection.request("POST", place, b"PK\3\4", {**known, **headers})
    assert connection.getresponse().status == status and kept(server) == before
    connection.close()


def test_sample_notes_are_drawn_beside_what_is_there(server: StudioProcess, client: httpx.Client) -> None:
    """As the command draws them, in a process of its own that says how far it is; never over another data set."""
    taken = server.home / "data" / "uang-contoh"
    taken.mkdir(parents=True)
    wanted = {"name": "uang contoh", "images": 40, "task": "classify"}
    begun = client.post("data/samples", json=wanted)
    assert begun.status_code == 202 and begun.json()["state"] == "running"
    job = finished(client, begun.json()["id"])
    made = server.home / "data" / "uang-contoh-2"
    assert (job["state"], job["result"]["path"], job["result"]["images"]) == ("done", str(made), 40)
    assert list(taken.iterdir()) == [] and len(list(made.glob("train/*/*.jpg"))) == 28
    assert str(made) in [each["path"] for each in client.get("data/sets").json()["sets"]]
    place = DataSets(server.home).begin("half")
    write_samples(place, images=10, size_px=96)
    assert DataSets(server.home).pictures(place) == 10  # which the share is made of
    shutil.rmtree(place)


def test_another_wish_under_the_same_name_is_another_drawing(
    server: StudioProcess, client: httpx.Client
) -> None:
    wishes = [
        {"name": "wish", "images": 40, "task": "detect"},
        {"name": "wish", "images": 20, "task": "classify"},
    ]
    first, again, other = (
        client.post("data/samples", json=wish).json()["id"] for wish in [wishes[0], *wishes]
    )
    assert first == again != other
    jobs = [finished(client, job) for job in (first, other)]
    assert [(job["state"], job["result"]["images"], job["share"]) for job in jobs] == [
        ("done", 40, 1.0), ("done", 20, 1.0),
    ]  # fmt: skip
    assert (Path(jobs[0]["result"]["path"]) / "data.yaml").exists()
    assert not (Path(jobs[1]["result"]["path"]) / "data.yaml").exists()


def test_a_drawing_whose_process_dies_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """It is not begun again in what it has left."""
    server = StudioProcess(tmp_path / "runs")
    with server.client() as client:
        job = client.post("data/samples", json={"name": "many", "images": 5000}).json()["id"]
        wait_for(lambda: kept(server) and list((server.home / "data").rglob("*.jpg")))
        (worker,) = workers(server.home)
        worker.kill()
        over = finished(client, job)
        assert (over["state"], over["error"]["code"]) == ("failed", "workbench_failed")
        assert kept(server) == [] and workers(server.home) == []
    server.end()
    assert server.said[1:] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no such limit of another process")
def test_a_drawing_that_the_disk_does_not_take_is_told_of_its_folder(tmp_path: Path) -> None:
    """Not of the hidden place in it, and without advice for a command."""
    server = StudioProcess(tmp_path / "runs")
    psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_FSIZE, (4096, 4096))
    with server.client() as client:
        job = finished(client, client.post("data/samples", json={"name": "mine", "images": 20}).json()["id"])
    assert (job["state"], job["error"]["code"]) == ("failed", "data_set_unwritable")
    assert f"mine could not be kept in {server.home / 'data'}: File too large." in job["error"]["detail"]
    assert ".tmp" not in job["error"]["detail"] and "--" not in job["error"]["detail"]
    assert kept(server) == []
    server.end()
    assert server.said[1:] == []


def test_a_server_that_ends_takes_what_is_half_made_away(tmp_path: Path, large: Path) -> None:
    """And says nothing of it: a drawing, one that waits for it, and an upload are ended in good order."""
    server = StudioProcess(tmp_path / "runs")
    with server.client() as client, large.open("rb") as file:
        for name in ("many", "more"):
            client.post("data/samples", json={"name": name, "images": 5000})
        wait_for(lambda: kept(server))
        browser = socket.create_connection(("127.0.0.1", server.port))
        browser.sendall(head_of(server.token, "half.zip", large) + file.read(2 * MB))
        wait_for(lambda: len(kept(server)) == 2)
        server.process.send_signal(signal.SIGINT)
        browser.settimeout(30)
        with contextlib.suppress(OSError):  # the server may have closed it
            while server.process.poll() is None:
                browser.sendall(file.read(1000))
                time.sleep(0.01)
        browser.close()
        server.process.wait(30)
    assert kept(server) == [] and workers(server.home) == [] and server.said[1:] == []


def test_a_server_that_ends_does_not_wait_for_an_upload_that_stands_still(
    tmp_path: Path, large: Path
) -> None:
    server = StudioProcess(tmp_path / "runs")
    with socket.create_connection(("127.0.0.1", server.port)) as browser, large.open("rb") as file:
        browser.sendall(head_of(server.token, "half.zip", large) + file.read(2 * MB))
        wait_for(lambda: kept(server))
        server.end()
    assert kept(server) == [] and server.said[1:] == []


@contextlib.contextmanager
def serving(home: Path) -> Iterator[tuple[Server, socket.socket]]:
    """A server in a thread of this process, and a connection to it; ended at the end, as by Ctrl-C."""
    app = create_app(home)
    ready = threading.Event()
    server = Server(guarded(app, "token"), app, ready.set)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        assert ready.wait(30)
        with socket.create_connection(listener.getsockname()) as browser:
            browser.settimeout(30)
            yield server, browser
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def answer_to(browser: socket.socket) -> tuple[int, bytes]:
    answer = http.client.HTTPResponse(browser)
    answer.begin()
    return answer.status, answer.read()


def test_an_upload_that_falls_silent_is_ended_in_words(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "SILENCE_S", 1)
    with serving(tmp_path) as (_, browser), large.open("rb") as file:
        browser.sendall(head_of("token", "half.zip", large) + file.read(2 * MB))
        status, told = answer_to(browser)
    assert status == 408 and b"Nothing more of half.zip has come for 1 s" in told
    assert kept(tmp_path) == []


@pytest.mark.parametrize("slow", ["finish", "close"])
def test_a_server_that_ends_does_not_wait_for_the_disk_and_says_nothing_of_it(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, slow: str
) -> None:
    """A huge zip may take the disk minutes, to be written whole as to be deleted. Both are done all the same."""
    reached, go_on = threading.Event(), threading.Event()
    work = getattr(Upload, slow)

    def slowly(coming: Upload) -> Any:
        reached.set()
        assert go_on.wait(30)
        return work(coming)

    monkeypatch.setattr(Upload, slow, slowly)
    with serving(tmp_path) as (server, browser), large.open("rb") as file:
        browser.sendall(head_of("token", "huge.zip", large))
        browser.sendall(file.read() if slow == "finish" else b"no zip" * 200_000)
        assert reached.wait(30)
        server.should_exit = True
        assert answer_to(browser)[0] == (503 if slow == "finish" else 422)
    go_on.set()
    wait_for(lambda: kept(tmp_path) == (["huge.zip"] if slow == "finish" else []))
    assert caplog.records == []


def test_a_server_that_ends_answers_who_still_waits_for_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In words, and without a traceback."""
    reached, go_on = threading.Event(), threading.Event()

    def ask(bench: Workbench, question: str, **facts: Any) -> None:
        reached.set()
        assert go_on.wait(30)

    monkeypatch.setattr(Workbench, "ask", ask)
    with serving(tmp_path) as (server, browser):
        browser.sendall(
            b"GET /api/v1/backbones?lang=en HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token\r\n\r\n"
        )
        assert reached.wait(30)
        server.should_exit = True
        status, told = answer_to(browser)
    go_on.set()
    assert status == 503 and b"server_ends" in told and caplog.records == []


@pytest.mark.parametrize("length", ["", "-1", "1e9", "2 2", "9" * 5000])
def test_a_length_that_is_none_is_refused_as_such(tmp_path: Path, length: str) -> None:
    """Also where no length is too large."""
    client = TestClient(guarded(create_app(tmp_path), "token"), base_url="http://localhost")
    headers = {**ZIP, "authorization": "Bearer token", "content-length": length}
    answer = client.post("/api/v1/data/uploads?name=a.zip", content=b"", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "request_broken")


def test_who_asks_a_workbench_that_is_closed_begins_no_process(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    bench.close()
    with pytest.raises(WorkbenchFailed):
        bench.ask("device")
    assert workers(tmp_path) == []


def test_jobs_are_waited_for_from_the_moment_that_they_are_known() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        jobs, ended = Jobs(), threading.Event()

        def settle() -> None:
            while not ended.is_set():
                jobs.settle("draw")

        with ThreadPoolExecutor(1) as threads:
            settling = threads.submit(settle)
            for number in range(1000):
                jobs.begin("draw", str(number), lambda: None)
            ended.set()
            settling.result()
    finally:
        sys.setswitchinterval(before)
    jobs.settle("draw")
    assert {job.state for job in jobs.all()} == {"done"}


def test_all_of_a_data_set_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B29: of a copy that a loss of power cut short, an empty label file would look like a picture without notes."""
    sets, synced = DataSets(tmp_path), set()
    place = sets.begin("uang")
    fsync = os.fsync

    def sync(fd: int) -> None:
        fsync(fd)
        if place.exists():
            synced.add(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", sync)
    for name in ("data.yaml", "images/train/1.jpg", "labels/train/1.txt"):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    made = sets.keep(place, "uang")
    files = {path.stat().st_ino for path in (made, *made.rglob("*")) if path.is_file() or os.name != "nt"}
    assert files <= synced and len(list(made.rglob("*"))) == 7


def test_too_few_sample_notes_are_refused_in_words(server: StudioProcess, client: httpx.Client) -> None:
    before = kept(server)
    job = client.post("data/samples", json={"name": "few", "images": 3}).json()
    over = finished(client, job["id"])
    assert (over["state"], over["error"]["code"]) == ("failed", "samples_too_few")
    assert kept(server) == before
