"""`get_logger(name)`: the project's log, readable at a glance, on standard error.

Loggers are those of the standard library, below "smartcash", so a notebook or server can add its own
handlers. `SMARTCASH_LOG` sets the level (default INFO).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARKS = {
    logging.DEBUG: "🔍",
    logging.INFO: "📌",
    logging.WARNING: "⚠️",
    logging.ERROR: "❌",
    logging.CRITICAL: "🛑",
}


class _Marked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{_MARKS.get(record.levelno, '•')} {super().format(record)}"


class _StandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever sys.stderr is now: notebooks and tests exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def get_logger(name: str) -> logging.Logger:
    """The logger `smartcash.<name>`; the same object for the same name."""
    root = logging.getLogger("smartcash")
    if not root.handlers:
        handler = _StandardError()
        handler.setFormatter(_Marked("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        root.addHandler(handler)
        root.setLevel(os.environ.get("SMARTCASH_LOG", "INFO").upper())
        root.propagate = False
    return logging.getLogger(f"smartcash.{name}")


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write everything to the file at `path`; meanwhile the terminal shows warnings and errors only."""
    get_logger("run")
    root = logging.getLogger("smartcash")
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    before = [(handler, handler.level) for handler in root.handlers]
    for handler, level in before:
        handler.setLevel(max(level, logging.WARNING))
    root.addHandler(file)
    try:
        yield
    finally:
        root.removeHandler(file)
        file.close()
        for handler, level in before:
            handler.setLevel(level)
