"""Peers in an environment of their own, bench-out/peers, each run there as a process; no code of SmartCash imports them.

Ultralytics is AGPL-3.0, LibreYOLO MIT, Lightning Apache-2.0."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smartcash.cli import SPIN

HOME = Path(__file__).parents[1] / "bench-out" / "peers"
DRIVER = Path(__file__).with_name("peer_driver.py")
PACKAGES = ("ultralytics", "libreyolo", "lightning")
INSTALL_S = 1800.0


@dataclass(frozen=True)
class Peer:
    """A detector of another tool, by the names that `peer_driver.py` knows."""

    tool: str
    model: str

    def __str__(self) -> str:
        return f"{ {'ultralytics': 'Ultralytics', 'libreyolo': 'LibreYOLO'}[self.tool] } {self.model}"


SMALLEST = (Peer("ultralytics", "yolo11n"), Peer("libreyolo", "yolo9t"))


class PeerMissing(Exception):
    """It could not be installed or ended by itself; the text has the last words of pip or of the peer."""


def peer_python() -> Path:
    """The interpreter of the peers' environment, which is made when it is missing or has another torch.

    Raises PeerMissing when the install fails."""
    python = HOME / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    same = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
    ready, wanted = HOME / "installed.txt", " ".join([*PACKAGES, *same])
    if ready.is_file() and ready.read_text() == wanted:
        return python
    print(f"installing {', '.join(PACKAGES)} into {HOME.relative_to(HOME.parents[1])} …", flush=True)
    for command in (
        [sys.executable, "-m", "venv", HOME],
        [python, "-m", "pip", "install", "--quiet", *PACKAGES, *same],
    ):
        try:
            subprocess.run(
                command, check=True, timeout=INSTALL_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            raise PeerMissing((error.stdout or "")[-2000:]) from error
        except (subprocess.TimeoutExpired, OSError) as error:
            raise PeerMissing(str(error)) from error
    ready.write_text(wanted)
    return python


@contextmanager
def training(
    peer: Peer, data: Path, *, most_s: float = math.inf, **wanted: Any
) -> Iterator[Iterator[dict[str, Any]]]:
    """Train in the peer's environment and yield what it tells, a dict a line, as it comes, for `most_s` seconds at most;
    it ends with the block.

    Raises PeerMissing when it cannot be had or ends with an error."""
    python = peer_python()
    with tempfile.TemporaryDirectory() as folder:
        settings, result, words = (
            Path(folder, name) for name in ("settings.json", "result.jsonl", "words.txt")
        )
        settings.write_text(json.dumps({"model": peer.model, "data": str(data / "data.yaml"), **wanted}))
        ours = ("GOMP_SPINCOUNT", SPIN)  # see benchmarks/__init__.py
        inherited = dict(each for each in os.environ.items() if each != ours)
        quiet = {
            "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": folder,
            "WANDB_MODE": "disabled",
        }  # fmt: skip
        with words.open("w") as file:
            process = subprocess.Popen(
                [python, DRIVER, peer.tool, settings, result],
                cwd=data,  # Ultralytics looks for the pictures from where it stands
                env=inherited | quiet, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield _told(process, result, words, time.monotonic() + most_s)
        finally:
            process.terminate()
            process.wait()


def _told(
    process: subprocess.Popen[bytes], result: Path, words: Path, until: float
) -> Iterator[dict[str, Any]]:
    seen = 0
    while time.monotonic() < until:
        code = process.poll()  # before reading: what it wrote before its end is seen
        lines = result.read_text().splitlines() if result.exists() else []
        yield from map(json.loads, lines[seen:])
        seen = len(lines)
        if code:
            raise PeerMissing(words.read_text()[-2000:])
        if code == 0:
            return
        time.sleep(0.2)
