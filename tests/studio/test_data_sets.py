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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zipfile import ZipFile

import httpx
import psutil
import pytest
from starlette.testclient import TestClient
from studio_process import StudioProcess

from smartcash.backend.samples import write_samples
from smartcash.services import data_sets
from smartcash.services.data_sets import STALE_S, DataSets
from smartcash.ui.server import create_app

ZIP = {"content-type": "application/zip"}
MB = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    process = StudioProcess(tmp_path_factory.mktemp("data-sets") / "runs")
    yield process
    process.end()
    assert process.said[1:] == []


@pytest.fixture(scope="module")
def client(server: StudioProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


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


def kept(server: StudioProcess) -> list[str]:
    """What lies in the folder, hidden or not, but its lock."""
    folder = server.home / "data"
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


def send(client: httpx.Client, name: str, body: Any, **headers: str) -> httpx.Response:
    return client.post("data/uploads", params={"name": name}, content=body, headers={**ZIP, **headers})


def head_of(server: StudioProcess, name: str, path: Path) -> bytes:
    """What a browser sends before the file at `path`."""
    lines = (
        f"POST /api/v1/data/uploads?name={name} HTTP/1.1", f"Host: 127.0.0.1:{server.port}",
        f"Authorization: Bearer {server.token}", f"Content-Length: {path.stat().st_size}", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode()


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
        "<img src=x onerror=alert(1)>.zip", "🪙.zip", "a\0b.zip", "x" * 900, "evil.zip\r\nset-cookie: a=b", "data.yaml",
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
        browser.sendall(head_of(server, "lost.zip", large) + file.read(8 * MB))
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
    """Whether its length is announced or not; the other half is for what is in it."""
    monkeypatch.setattr(data_sets, "free_disk", lambda path: 2 * (len(notes) - 1))
    with TestClient(create_app(tmp_path / "runs")) as client:
        assert client.get("/api/v1/data/sets").json()["room"] == len(notes) - 1
        for body in (notes, iter([notes[:100], notes[100:]])):
            answer = client.post("/api/v1/data/uploads?name=big.zip&lang=en", content=body, headers=ZIP)
            assert (answer.status_code, answer.json()["code"]) == (413, "upload_above_room")
        folder = tmp_path / "runs" / "data"
        assert not folder.exists() or list(folder.iterdir()) == []


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
    assert done.stdout.split() == ["upload_unwritable", "full.zip"], done.stderr
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
    assert {path.name for path in sets.folder.iterdir()} == {young.name, "notes"}
    assert [path.name for path in sets.paths()] == ["notes"]


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


def test_a_server_that_ends_takes_what_is_half_made_away(tmp_path: Path, large: Path) -> None:
    """And says nothing of it: a drawing and an upload are ended in good order."""
    server = StudioProcess(tmp_path / "runs")
    with server.client() as client, large.open("rb") as file:
        client.post("data/samples", json={"name": "many", "images": 5000})
        wait_for(lambda: kept(server))
        browser = socket.create_connection(("127.0.0.1", server.port))
        browser.sendall(head_of(server, "half.zip", large) + file.read(2 * MB))
        wait_for(lambda: len(kept(server)) == 2)
        server.process.send_signal(signal.SIGINT)
        browser.settimeout(30)
        with contextlib.suppress(OSError):  # the server may have closed it
            while server.process.poll() is None:
                browser.sendall(file.read(1000))
                time.sleep(0.01)
        browser.close()
        server.process.wait(30)
    assert kept(server) == [] and server.said[1:] == []


def test_too_few_sample_notes_are_refused_in_words(server: StudioProcess, client: httpx.Client) -> None:
    before = kept(server)
    job = client.post("data/samples", json={"name": "few", "images": 3}).json()
    over = finished(client, job["id"])
    assert (over["state"], over["error"]["code"]) == ("failed", "samples_too_few")
    assert kept(server) == before
