"""What is given away: the wheel holds the whole package and its page, the sdist what git knows, and nothing stray (A31)."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from smartcash import __version__

pytest.importorskip("hatchling", reason="hatchling, which builds the package, is not installed")

ROOT = Path(__file__).parents[2]
VENDOR = "src/smartcash/ui/web/vendor/"
MOST_BYTES = 1_000_000  # of the wheel: on a telephone's connection too


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=250)
    return out


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.splitlines())


def vendored() -> set[str]:
    """What the build hook fetches for the page, with its licences."""
    hook = (ROOT / "hatch_build.py").read_text(encoding="utf-8")
    modules = re.findall(r'^    "([\w.-]+\.(?:js|css))":', hook, re.MULTILINE)
    assert len(modules) > 5
    return {VENDOR + name for name in (*modules, "LICENSES.txt", "stamp")}


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_texts_and_page_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if not re.match(r"smartcash-[^/]+\.dist-info/", name)}
    wanted = {name for name in tracked() if name.startswith("src/smartcash/")} | vendored()
    assert package == {name.removeprefix("src/") for name in wanted}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < MOST_BYTES


@pytest.mark.slow
def test_the_sdist_holds_what_git_knows_and_what_the_page_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sdist.name == f"smartcash-{__version__}.tar.gz"
    assert names - tracked() == vendored() | {"PKG-INFO"}
    assert {"README.md", "LICENSE", "pyproject.toml", "hatch_build.py", "package-lock.json"} <= names


def test_the_changelog_tells_of_this_version_in_both_languages() -> None:
    """A31."""
    told = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    dates = re.findall(rf"^##+ {re.escape(__version__)} \(([\d-]+)\)$", told, re.MULTILINE)
    assert len(dates) == 2 and len(set(dates)) == 1
