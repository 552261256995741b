"""A disk that is full, and one that can only be read: what reads goes on, what writes names the place (A33, A34)."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from smartcash.backend.samples import write_samples
from smartcash.cli import main

EARLIER = Path(__file__).parents[1] / "project" / "format_1"  # a home of two epochs and one version
RUN, DEAD = "20261122-161050-165b", "20261123-000000-dead"

pytestmark = pytest.mark.usefixtures("english")


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB with a home on it: a finished run, a version, and a run whose worker has died."""
    if shutil.which("mount") is None:
        pytest.skip("no disk can be mounted here: there is no command mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", folder)
    try:
        home = folder / "home"
        shutil.copytree(EARLIER, home)
        dead = home / "detect" / DEAD
        dead.mkdir()
        shutil.copy(home / "detect" / RUN / "config.yaml", dead)
        facts = json.loads((home / "detect" / RUN / "run.json").read_text())
        worker = {"pid": 2**22 + 1, "begun": 1.0, "host": platform.node()}
        facts |= {"id": DEAD, "state": "running", "worker": worker, "ended": None}
        (dead / "run.json").write_text(json.dumps(facts))
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> None:
    """Not one byte more fits."""
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    assert shutil.disk_usage(disk).free == 0


def only_to_be_read(disk: Path) -> None:
    mount("-o", "remount,ro", disk)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit code, and everything that is said."""
    code = 0
    try:
        main(list(map(str, arguments)))
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    return code, shown.out + shown.err


@pytest.mark.parametrize("spoil", [fill, only_to_be_read])
@pytest.mark.parametrize("index", ["none", "broken"])
def test_what_only_reads_works_on_a_disk_that_takes_nothing(
    disk: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], index: str
) -> None:
    """A34: also when the list's cache cannot be written, nor that a worker has died."""
    home = disk / "home"
    if index == "broken":
        (home / "index.sqlite").write_text("no database")
    spoil(disk)
    for command, told in (
        (f"runs show {RUN}", "finished"),
        (f"runs watch {RUN}", "finished"),
        (f"runs watch {DEAD}", "crashed"),
        ("models list", "produksi"),
        ("models show v1", "efficientnet_lite0"),
        ("log", "promoted"),
        ("log verify", "unaltered"),
    ):
        code, said = run(capsys, *command.split(), "--home", home)
        assert code == 0 and told in said, (command, said)
    code, said = run(capsys, "runs", "list", "--json", "--home", home)
    states = {row["id"]: row["state"] for row in json.loads(said)}
    assert (code, states) == (0, {RUN: "finished", DEAD: "crashed"})
    code, said = run(capsys, "checkpoint", "list", home / "detect" / RUN / "weights", "--json")
    assert code == 0 and len(json.loads(said)) == 2


def test_what_writes_on_a_full_disk_names_the_place_on_that_disk(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A33: never the current folder, nor the file that was to be copied."""
    notes = tmp_path / "notes"
    write_samples(notes, images=12, size_px=96)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", notes)
    weights = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1000)}, weights)
    (disk / "out").mkdir()
    monkeypatch.setenv("SMARTCASH_CACHE", str(disk / "cache"))
    monkeypatch.chdir(tmp_path)
    fill(disk)
    for command in (
        ("train", notes, "--epochs", 1, "--yes", "--home", disk / "home"),
        ("data", "split", notes, "--out", disk / "out" / "split"),
        ("data", "check", notes, "--html", disk / "out" / "page.html"),
        ("data", "preview", notes, "--set", "data.image_size=64", "--out", disk / "out" / "preview.jpg"),
        ("data", "check", packed),
        ("checkpoint", "import", weights, "--into", disk / "out", "--i-trust-this-file"),
    ):
        code, said = run(capsys, *command)
        error = said[said.index("✗ ") :]
        assert code in (1, 2) and str(disk) in error, said
        assert f"✗ {tmp_path}: " not in said and f"{notes}{os.sep}" not in error, said


def test_a_full_disk_is_found_out_where_the_system_names_no_file(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A33: an error while an open file is written has no name."""
    monkeypatch.chdir(tmp_path)
    (disk / "table.csv").touch()
    fill(disk)

    def write(*arguments: object, **more: object) -> None:
        with (disk / "table.csv").open("wb", buffering=0) as file:
            file.write(b"x" * 8192)
            file.write(b"x")

    monkeypatch.setattr("smartcash.worker.predict_files", write)
    picture = tmp_path / "a.jpg"
    picture.touch()
    code, said = run(capsys, "predict", "latest", picture, "--csv", disk / "table.csv")
    assert code == 1 and f"✗ {disk / 'table.csv'}: No space left" in said, said


def test_what_is_no_place_on_a_disk_is_not_the_full_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A33: a link that leads nowhere, a folder that is on no disk; and only a full disk is looked for."""
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    for number, told in ((errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")):

        def refuse(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("smartcash.worker.predict_files", refuse)
        code, said = run(capsys, "predict", "latest", link, "/proc/self", "--home", tmp_path)
        assert code == 1 and told in said and "/proc" not in said and str(link) not in said


def test_a_home_that_cannot_be_made_is_not_called_full(capsys: pytest.CaptureFixture[str]) -> None:
    """A33."""
    if platform.system() != "Linux":
        pytest.skip("only Linux has /proc")
    code, said = run(capsys, "train", Path(__file__).parent, "--home", "/proc/home", "--yes")
    assert code == 2 and "Runs cannot be written in /proc/home: /proc is no folder" in said
    assert "MB are free" not in said
