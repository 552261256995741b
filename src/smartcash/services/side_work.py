"""Work that is done in a process of its own while the asking one goes on: a command of SmartCash that writes a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

LOG = "work.log"
LAST_BYTES = 4000


class SideWork:
    """One command at a time, each with a folder for what it writes; safe to use from several threads.

    A folder is done when it holds the file `result`, which the command writes last. Of the folders beside each other
    the `kept` newest stay."""

    def __init__(self, result: str, kept: int) -> None:
        self.result, self.kept = result, kept
        self._begun: tuple[Path, subprocess.Popen[bytes]] | None = None
        self._threads = threading.Lock()

    def advance(self, folder: Path, command: Sequence[str]) -> str:
        """Where the work on `folder` stands: "ready", "working" (or waiting for another one to end) or "failed".

        Begun when nobody has yet; after "failed" the next call begins it again. Raises OSError."""
        with self._threads:
            if (folder / self.result).is_file():
                return "ready"
            if self._begun is not None:
                begun, process = self._begun
                if process.poll() is None:
                    return "working"
                self._begun = None
                if begun == folder:
                    return "ready" if (folder / self.result).is_file() else "failed"
            self._begin(folder, command)
            return "working"

    def said(self, folder: Path) -> str:
        """What the command said last."""
        return (folder / LOG).read_bytes()[-LAST_BYTES:].decode(errors="replace").strip()

    def close(self) -> None:
        """End what is still at work."""
        with self._threads:
            if self._begun is not None:
                process = self._begun[1]
                process.terminate()
                process.wait()
                self._begun = None

    def _begin(self, folder: Path, command: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        others = [path for path in folder.parent.iterdir() if path != folder]
        for path in sorted(others, key=lambda path: path.stat().st_mtime)[: -(self.kept - 1)]:
            shutil.rmtree(path)
        with (folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "smartcash", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._begun = folder, process
