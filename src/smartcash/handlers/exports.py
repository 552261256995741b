"""What is kept of exports: `<folder>/exports.json`, newest last, and a line in the operation log."""

from __future__ import annotations

import json
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from smartcash.domain.errors import ExportRefused, RunNotFound
from smartcash.domain.exports import ExportRecord
from smartcash.domain.records import Change, ModelVersion, Operation
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.run_store import find_run
from smartcash.utils.files import write_bytes
from smartcash.utils.printable import plain

RECORDS = "exports.json"


class Exports:
    """The exports in one folder. `run`: the id of the run they belong to, "" for a checkpoint that has none."""

    def __init__(self, folder: Path, home: Path, run: str = "", interface: str = "python") -> None:
        self.folder, self.run = folder, run
        self.log = OperationLog(home / "operations.jsonl", interface)

    def records(self) -> list[ExportRecord]:
        """Every export so far, oldest first, the failed ones too. Raises ExportRefused when they cannot be read."""
        path = self.folder / RECORDS
        if not path.exists():
            return []
        try:
            return [ExportRecord(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise ExportRefused("exports_unreadable", path=str(path), reason=str(error)[:200]) from error

    def present(self) -> list[ExportRecord]:
        """The newest record of each file that is still there."""
        newest = {record.file: record for record in self.records() if record.state != "failed"}
        return [record for name, record in newest.items() if (self.folder / name).is_file()]

    def pack(self, file: str, target: IO[bytes]) -> None:
        """Write the file and all that belongs to it into `target` as a zip. Raises RunNotFound for a name that is not
        among those that are there."""
        record = next((each for each in self.present() if each.file == file), None)
        if record is None:
            raise RunNotFound("run_file_missing", run=self.run, name=plain(file))
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in (self.folder / name for name in record.files):
                if (
                    path.is_file() and path.resolve().parent == self.folder.resolve()
                ):  # records may say anything
                    archive.write(path, path.name)

    def add(self, record: ExportRecord) -> None:
        """Keep a record and write it to the operation log: state, precision and SHA-256 as its changes.

        Raises ExportRefused or OperationLogFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{RECORDS}.lock"):
            rows = [each.to_dict() for each in (*self.records(), record)]
            whole = json.dumps(rows, indent=1, ensure_ascii=False)
            write_bytes(self.folder / RECORDS, (whole + "\n").encode())
        facts = {
            "file": record.file,
            "precision": record.precision,
            "state": record.state,
            "sha256": record.sha256,
        }
        changes = tuple(Change(f"export.{name}", None, value) for name, value in facts.items())
        result = "export_failed" if record.state == "failed" else "done"
        self.log.append(Operation("export", self.run, record.checkpoint_sha256, changes, result=result))


def version_exports(version: ModelVersion, home: Path, interface: str = "python") -> Exports:
    """Where exports of a version go: to the run that it came from, beside those of the run's other checkpoints; where
    that is gone, to `exports/v3` of the home."""
    folder = home / "exports" / version.name
    if version.run:
        with suppress(RunNotFound):
            folder = find_run(version.run, home).path / "exports"
    return Exports(folder, home, version.run, interface)
