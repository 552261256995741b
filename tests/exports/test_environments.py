"""Environments of their own for converters: whole or not there (A19, A34)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import click
import psutil
import pytest

from smartcash.backend.exporters import environments
from smartcash.backend.exporters.environments import environment
from smartcash.domain.errors import ExportRefused


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


def wheel(folder: Path, name: str, version: str, requires: str = "") -> str:
    """A package that is only a version."""
    path, about = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = '{version}'\n")
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return str(path)


@pytest.mark.slow
def test_an_environment_hides_what_does_not_fit_sees_the_rest_and_is_made_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """A19, A34: what is installed here stays as it is."""
    wanted = [wheel(tmp_path, "click", "99.0")]
    python = environment("thing", wanted, "1 MB")
    code = "import click, numpy; print(click.__version__, numpy.__file__)"
    told = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    version, place = told.split()
    assert version == "99.0" and str(cache) not in place
    assert "99" not in str(Path(click.__file__).parent)
    with monkeypatch.context() as patched:
        patched.setattr(environments, "_make", lambda *made: pytest.fail("made again"))
        assert environment("thing", wanted, "1 MB") == python

    assert [path.name for path in cache.iterdir() if path.is_dir()] == [python.parents[1].name]


@pytest.mark.slow
def test_an_environment_whose_borrowed_package_went_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A19, A34: somebody uninstalls, from the environment this one was made from, what its converter needs."""
    ours = tmp_path / "site-packages"
    ours.mkdir()
    with zipfile.ZipFile(wheel(tmp_path, "borrowed", "1.0")) as archive:
        archive.extractall(ours)
    monkeypatch.syspath_prepend(ours)
    wanted = [wheel(tmp_path, "converter", "1.0", requires="borrowed")]
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    def place() -> Path:
        python = environment("thing", wanted, "1 MB")
        code = "import borrowed, converter; print(borrowed.__file__)"
        return Path(subprocess.check_output([python, "-I", "-c", code], text=True))

    assert place().is_relative_to(ours)
    for folder in ("borrowed", "borrowed-1.0.dist-info"):
        shutil.rmtree(ours / folder)
    with pytest.raises(ExportRefused, match="borrowed"):
        place()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert not place().is_relative_to(ours)


SLOW = """
import os, subprocess, sys, time
from pathlib import Path

def build_wheel(folder, settings=None, metadata=None):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    Path("PLACE", "begun").write_text(f"{os.getpid()} {os.getppid()} {child.pid}")
    time.sleep(300)
"""
EXPORT = """
import sys
from smartcash.backend.exporters.environments import environment
environment("thing", sys.argv[1:], "1 MB")
"""


def slow_package(folder: Path) -> Path:
    """A package that takes minutes to install; as soon as it is at it, it writes down its processes."""
    source = folder / "slow"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[project]\nname = "slow"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "slowly"\nbackend-path = ["."]\n'
    )
    (source / "slowly.py").write_text(SLOW.replace("PLACE", str(folder)))
    return source


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_export_that_is_ended_while_pip_works_takes_everything_along_and_the_next_one_goes_well(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals, earlier: bool
):
    """A34: pip, what it builds with, and what that has begun; nothing must be deleted by hand. `earlier`: the
    environment was there, and lacked something by now."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    slow, ours = slow_package(tmp_path), tmp_path / "site-packages"
    ours.mkdir()
    monkeypatch.syspath_prepend(ours)
    whole = wheel(tmp_path, "slow", "1.0")
    if earlier:
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(ours)
    wanted = [wheel(tmp_path, "converter", "1.0", requires="slow")]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    hidden = Path(whole).rename(tmp_path / "hidden")
    with tarfile.open(tmp_path / "slow-1.0.tar.gz", "w:gz") as archive:
        archive.add(slow, "slow-1.0")
    if earlier:
        environment("thing", wanted, "1 MB")
        shutil.rmtree(ours / "slow-1.0.dist-info")
    begun = tmp_path / "begun"
    path = os.pathsep.join(filter(None, [str(ours), os.environ.get("PYTHONPATH")]))
    with subprocess.Popen(
        [sys.executable, "-c", EXPORT, *wanted], env=os.environ | {"PYTHONPATH": path}
    ) as export:
        while not begun.exists() or len(begun.read_text().split()) < 3:
            with pytest.raises(subprocess.TimeoutExpired):
                export.wait(0.1)
        left = [psutil.Process(int(pid)) for pid in begun.read_text().split()]
        export.send_signal(ending)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive

    (tmp_path / "slow-1.0.tar.gz").unlink()
    hidden.rename(whole)
    python = environment("thing", wanted, "1 MB")
    subprocess.run([python, "-I", "-c", "import converter, slow"], check=True)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [python.parents[1].name]


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_is_refused_with_pips_last_words_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """A33, A34: as without the internet."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ExportRefused) as caught:
        environment("thing", ["no-such-package==1"], "1 MB")
    assert caught.value.code == "export_environment" and "no-such-package==1" in str(caught.value)
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_two_that_want_an_environment_at_once_make_one_and_half_a_one_is_never_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """A34: an export that is ended while it makes one, then two at the same time."""
    made: list[Path] = []

    def slowly(folder: Path, requirements: Sequence[str], parents: Sequence[str]) -> None:
        made.append(folder)
        folder.mkdir()
        if len(made) == 1:
            raise KeyboardInterrupt
        time.sleep(0.3)

    monkeypatch.setattr(environments, "_make", slowly)
    monkeypatch.setattr(environments, "_is_whole", lambda folder, requirements: folder.is_dir())
    with pytest.raises(KeyboardInterrupt):
        environment("thing", ["a"], "1 MB")
    assert not made[0].exists()
    made[0].mkdir(parents=True)  # as after SIGKILL, when nothing is tidied
    threads = [threading.Thread(target=environment, args=("thing", ["a"], "1 MB")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert environment("thing", ["a"], "1 MB").is_relative_to(folder)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A34."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ExportRefused, match="environments"):
        environment("thing", ["a"], "1 MB")
