"""Run folders: made, described, found.

<home>/<task>/<run-id>/  config.yaml  run.json  events.jsonl  epochs.csv  train.log
                         weights/  previews/  report/
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import RunNotFound, RunNotResumable
from smartcash.services.event_log import finite
from smartcash.utils.files import write_bytes


def home() -> Path:
    """Where runs live: `SMARTCASH_HOME`, else ./runs."""
    return Path(os.environ.get("SMARTCASH_HOME") or "runs")


class RunFolder:
    """One run's folder. Every file in it is either whole or absent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, base: Path, config: TrainConfig, description: dict[str, Any]) -> RunFolder:
        """Make a folder with an id that sorts by time and never collides, and write config and description."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = base / config.task / f"{stamp}-{secrets.token_hex(2)}"
        path.mkdir(parents=True)
        run = cls(path)
        run.write_config(config)
        run.describe({"id": run.id, "state": "created", **description})
        return run

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def control(self) -> Path:
        return self.path / "control.jsonl"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the run for this process alone; the system lets go of it when the process ends, however it does.

        Raises RunNotResumable when another process holds it."""
        lock = FileLock(self.path / "run.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            pid = str(self.description().get("attempts", [{}])[-1].get("pid", "?"))
            raise RunNotResumable("run_running", run=self.id, pid=pid) from error
        try:
            yield
        finally:
            lock.release()

    def config(self) -> TrainConfig:
        """The configuration of the run, resolved once training has begun."""
        return TrainConfig.from_yaml(self.path / "config.yaml")

    def write_config(self, config: TrainConfig) -> None:
        write_bytes(self.path / "config.yaml", config.to_yaml().encode())

    def description(self) -> dict[str, Any]:
        """The facts in `run.json`."""
        facts: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return facts

    def describe(self, facts: dict[str, Any]) -> None:
        """Lay `facts` over those in `run.json`; safe with other processes that do the same."""
        with FileLock(self.path / ".run.json.lock"):
            known = self.description() if (self.path / "run.json").exists() else {}
            whole = json.dumps(finite({**known, **facts}), indent=2, ensure_ascii=False)
            write_bytes(self.path / "run.json", (whole + "\n").encode())

    def write_epochs(self, rows: list[dict[str, float | None]]) -> None:
        """All rows so far as `epochs.csv`; a column that only some rows have is blank in the others."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: "" if v is None else v for k, v in finite(row).items()} for row in rows])
        write_bytes(self.path / "epochs.csv", text.getvalue().encode())


def find_run(name: str, base: Path | None = None) -> RunFolder:
    """The run at a path, or below `base` (default `home()`) by its id or the beginning of it; "latest" is the newest.

    Raises RunNotFound."""
    if (Path(name) / "run.json").is_file():
        return RunFolder(Path(name))
    base = base or home()
    found = sorted(path.parent for path in base.glob("*/*/run.json"))
    if name == "latest" and found:
        return RunFolder(max(found, key=lambda path: path.name))
    matching = [path for path in found if path.name.startswith(name)] if name else []
    if len(matching) != 1:
        code = "run_ambiguous" if matching else "run_not_found"
        raise RunNotFound(code, name=name, home=str(base), count=len(matching))
    return RunFolder(matching[0])
