"""Environments of their own, for converters that need other packages than SmartCash: made at the first use and kept
in the user's cache folder. One may be deleted at any time.

Packages that are installed here, torch above all, serve there too where they fit; what does not fit is installed
there again and hides ours."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from filelock import FileLock

from smartcash.domain.errors import ExportRefused
from smartcash.utils.i18n import text
from smartcash.utils.logger import get_logger
from smartcash.utils.machine import cache_folder

TETHERED = Path(__file__).with_name("tethered.py")


def environment(form: str, requirements: Sequence[str], size: str) -> Path:
    """The Python of the environment with `requirements`, which is made if it is not there, or lacks something: a package
    that it had from here may be gone. `size`: about how large it becomes, to be told.

    Two at once wait for each other. One gets its name when it is whole and is never changed, so what is ended in between
    begins anew. Raises ExportRefused when it cannot be made, which leaves nothing behind but what was there."""
    parents = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    facts = {
        "requirements": list(requirements), "python": platform.python_version(), "base": sys.base_prefix,
        "torch": version("torch"), "parents": parents,
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    folder = cache_folder().absolute() / "environments" / f"{form}-{digest[:16]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_whole(folder, requirements):
                get_logger("exports").info(
                    text("export.environment", format=form, folder=str(folder), size=size)
                )
                for killed in folder.parent.glob(f"{folder.name}-*"):
                    shutil.rmtree(killed, ignore_errors=True)
                with TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as draft:
                    made, former = Path(draft) / "made", Path(draft) / "former"
                    _make(made, requirements, parents)
                    if folder.is_dir():
                        folder.rename(former)
                    made.rename(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = last_line(error.output) if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise ExportRefused("export_environment", format=form, folder=str(folder), reason=reason) from error
    return _python(folder)


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _is_whole(folder: Path, requirements: Sequence[str]) -> bool:
    """Whether all of `requirements`, and of what these require, is there: known in seconds, without the net."""
    if not folder.is_dir():
        return False
    with TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        try:
            _install(folder, ["--dry-run", "--no-index", "--report", str(report), *requirements])
        except subprocess.CalledProcessError:
            return False
        return not json.loads(report.read_text(encoding="utf-8"))["install"]


def _make(folder: Path, requirements: Sequence[str], parents: Sequence[str]) -> None:
    """Raises OSError, and CalledProcessError with what was said as `output`."""
    run_tethered(sys.executable, "venv", str(folder))
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.check_output([_python(folder), "-I", "-c", asked], text=True).strip())
    (own / "parents.pth").write_text("".join(f"{path}\n" for path in parents), encoding="utf-8")
    _install(folder, requirements)


def _install(folder: Path, arguments: Sequence[str]) -> None:
    """Raises CalledProcessError."""
    options = ("--disable-pip-version-check", "--no-input")
    run_tethered(str(_python(folder)), "pip", "install", *options, *arguments)


def run_tethered(python: str, what: str, *arguments: str) -> None:
    """Run a module or a script (`.py`) by another Python. It does not outlive this process, whatever ends that; nor does
    anything that it has begun. Raises CalledProcessError with what was said as `output`."""
    command = [python, "-I", str(TETHERED), what, *arguments]
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill() if os.name == "nt" else os.killpg(process.pid, signal.SIGKILL)
        if code:
            said.seek(0)
            raise subprocess.CalledProcessError(code, command, said.read())


def last_line(said: str) -> str:
    """The last line that is not empty, at most 300 characters of it."""
    return ([line.strip() for line in said.splitlines() if line.strip()] or ["–"])[-1][:300]
