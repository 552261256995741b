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
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from smartcash.backend.formats.archive import cache_folder
from smartcash.domain.errors import ExportRefused
from smartcash.utils.i18n import text
from smartcash.utils.logger import get_logger


def environment(form: str, requirements: Sequence[str], size: str) -> Path:
    """The Python of the environment with `requirements`, which is made if it is not there, and completed if a package
    that it had from here is gone. `size`: about how large it becomes, to be told.

    Two at once wait for each other. A new one gets its name when it is whole, so one that is ended in between begins
    anew. Raises ExportRefused when it cannot be made, which leaves nothing behind, or not completed."""
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
            if folder.is_dir():
                _install(folder, requirements)  # in seconds and without the net when all of it is there
            else:
                get_logger("exports").info(
                    text("export.environment", format=form, folder=str(folder), size=size)
                )
                for killed in folder.parent.glob(f"{folder.name}-*"):
                    shutil.rmtree(killed, ignore_errors=True)
                with TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as draft:
                    _make(Path(draft) / "made", requirements, parents)
                    (Path(draft) / "made").rename(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = last_line(error.output) if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise ExportRefused("export_environment", format=form, folder=str(folder), reason=reason) from error
    return _python(folder)


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _make(folder: Path, requirements: Sequence[str], parents: Sequence[str]) -> None:
    """Raises OSError, and CalledProcessError with what was said as `output`."""
    _run([sys.executable, "-m", "venv", str(folder)])
    python = str(_python(folder))
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(_run([python, "-I", "-c", asked]).strip())
    (own / "parents.pth").write_text("".join(f"{path}\n" for path in parents), encoding="utf-8")
    _install(folder, requirements)


def _install(folder: Path, requirements: Sequence[str]) -> None:
    """What is missing of `requirements` and of what these require. Raises CalledProcessError."""
    options = ("--disable-pip-version-check", "--no-input")
    _run([str(_python(folder)), "-I", "-m", "pip", "install", *options, *requirements])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", check=True,
    )  # fmt: skip
    return done.stdout


def last_line(said: str) -> str:
    """The last line that is not empty, at most 300 characters of it."""
    return ([line.strip() for line in said.splitlines() if line.strip()] or ["–"])[-1][:300]
