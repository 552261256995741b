"""The studio in a cell of Jupyter, JupyterHub, VS Code or Colab:

    from smartcash.ui.notebook import studio
    studio()

The server is a process of its own, and every training another one: both go on when the cell is run again, and a
training also when the notebook is closed.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from smartcash.domain.errors import ServerRefused
from smartcash.services.run_store import home as default_home

_running: dict[Path, Embedded] = {}


@dataclass(frozen=True)
class Embedded:
    """A studio that a notebook shows. `address`: with its token; shown as an inline frame `height` px high."""

    address: str
    height: int
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return urlsplit(self.address).port or 0

    @property
    def path(self) -> str:
        """The address without its host: what a proxy adds its own to."""
        return self.address.partition(f":{self.port}")[2]

    @property
    def source(self) -> str:
        """The address as the notebook's browser reaches it."""
        prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
        if prefix and find_spec("jupyter_server_proxy") is not None:
            return f"{prefix.rstrip('/')}/proxy/{self.port}{self.path}"
        return f"http://localhost:{self.port}{self.path}"

    def stop(self) -> None:
        """End the server; trainings go on."""
        self.process.terminate()
        self.process.wait()

    def _repr_html_(self) -> str:
        source = escape(self.source)
        frame = f'<iframe src="{source}" title="SmartCash" width="100%" height="{self.height}" style="border:0"></iframe>'
        return f'{frame}<p><a href="{source}" target="_blank" rel="noopener">SmartCash ↗</a></p>'


def studio(home: Path | str | None = None, *, height: int = 900) -> Embedded | None:
    """Show the studio of `home` (default: SMARTCASH_HOME or ./runs) below this cell, `height` px high.

    In Colab it is shown at once, through Colab's own way to a port. Raises ServerRefused when it does not begin."""
    place = Path(home) if home is not None else default_home()
    shown = _begun(place.absolute(), height)
    if "google.colab" not in sys.modules:
        return shown
    output = import_module("google.colab.output")
    output.serve_kernel_port_as_iframe(shown.port, path=shown.path, height=str(height))
    output.serve_kernel_port_as_window(shown.port, path=shown.path, anchor_text="SmartCash ↗")
    return None


def _begun(home: Path, height: int) -> Embedded:
    """The studio of a home: the one that runs already, or a new one."""
    known = _running.get(home)
    if known is not None and known.process.poll() is None:
        return Embedded(known.address, height, known.process)
    # Colab's proxy calls the server by an internal name that nobody can know beforehand
    hosts = ["--allow-host", "*"] if "google.colab" in sys.modules else []
    command = [
        sys.executable,
        "-m",
        "smartcash",
        "studio",
        "--notebook",
        "--no-browser",
        "--port",
        "0",
        *hosts,
    ]
    process = subprocess.Popen(
        [*command, "--home", str(home)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    if "?token=" not in first:
        raise ServerRefused("studio_failed", reason=first + process.communicate()[0])
    address = first.split()[-1]
    # a full pipe would hold it up
    threading.Thread(target=process.communicate, name="studio", daemon=True).start()
    atexit.register(process.terminate)
    _running[home] = Embedded(address, height, process)
    return _running[home]
