"""The operation log: read, filtered, verified, taken along."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from smartcash.domain.records import OPERATIONS, Operation
from smartcash.ui.routes.config import Here, Language
from smartcash.ui.routes.runs import in_utc
from smartcash.ui.words import operation_json, shown
from smartcash.utils.i18n import text
from smartcash.utils.printable import plain

router = APIRouter(tags=["operations"])
FORMULA = ("=", "+", "-", "@")


@router.get("/operations")
def list_operations(
    studio: Here,
    language: Language,
    run: str = "",
    operation: str = "",
    interface: str = "",
    search: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """A page of the entries that meet every condition, newest first."""
    end, sought = in_utc(until), search.casefold()
    found = [
        each
        for each in studio.log.operations(run=run, operation=operation, since=in_utc(since))
        if interface in ("", each.who.interface)
        and (end is None or datetime.fromisoformat(each.time) <= end)
        and sought in json.dumps(each.to_dict(), ensure_ascii=False).casefold()
    ][::-1]
    kinds = [{"operation": each, "text": text(f"operations.{each}", language)} for each in OPERATIONS]
    page = [operation_json(each, language) for each in found[offset : offset + limit]]
    return shown({"total": len(found), "operations": page, "kinds": kinds})


@router.post("/operations/verify")
def verify(studio: Here, language: Language) -> Response:
    """Check every entry against its neighbours."""
    found = studio.log.verify()
    wrong = found.alteration
    alteration = wrong and {"line": wrong.line, "reason": wrong.reason, "message": wrong.message(language)}
    return shown(
        {
            "entries": found.entries, "last_sha256": found.last_sha256, "sound": wrong is None,
            "alteration": alteration, "torn_bytes": found.torn_bytes,
        }
    )  # fmt: skip


@router.get("/operations/export")
def export(studio: Here, format: Literal["jsonl", "csv"] = "jsonl") -> Response:
    """The whole log as a file: as it lies on the disk, so that it can be verified elsewhere, or as a table."""
    if format == "jsonl":
        content = studio.log.path.read_bytes() if studio.log.path.exists() else b""
        return _download(content, "application/x-ndjson", "operations.jsonl")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(
        (
            "seq",
            "time",
            "user",
            "host",
            "interface",
            "operation",
            "run",
            "version",
            "changes",
            "confirmed",
            "result",
        )
    )
    for each in studio.log.operations():
        writer.writerow([_cell(value) for value in _row(each)])
    return _download(table.getvalue().encode("utf-8", "replace"), "text/csv; charset=utf-8", "operations.csv")


def _row(each: Operation) -> tuple[object, ...]:
    changes = json.dumps([[c.field, c.old, c.new] for c in each.changes], ensure_ascii=False)
    who = each.who
    return (
        each.seq, each.time, who.user, who.host, who.interface, each.operation, each.run, each.version, changes,
        each.confirmed, each.result,
    )  # fmt: skip


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula is marked as text."""
    if not isinstance(value, str):
        return value
    return f"'{plain(value)}" if value.startswith(FORMULA) else plain(value)


def _download(content: bytes, kind: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(content, headers=headers, media_type=kind)
