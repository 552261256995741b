"""Records as the page gets them: plain values, with the words in the reader's language beside the codes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from fastapi import Request, Response

from smartcash.domain.banknotes import values_of
from smartcash.domain.changes import Change
from smartcash.domain.errors import Problem
from smartcash.domain.exports import ExportRecord
from smartcash.domain.records import ModelVersion, Operation, RunInfo
from smartcash.domain.weighing import Weighing
from smartcash.handlers.training_manager import Review
from smartcash.services.event_log import finite
from smartcash.services.jobs import Job
from smartcash.ui.problems import problem_json, response_to
from smartcash.utils.i18n import catalogue, decimal, text
from smartcash.utils.printable import plain

LEAST_PACKED = 1000  # bytes


def shown(content: Any, status: int = 200, **headers: str) -> Response:
    """`content` as JSON in ASCII: names from disk may hold what UTF-8 cannot (lone surrogates), numbers what JSON
    cannot."""
    body = json.dumps(finite(content), allow_nan=False, separators=(",", ":")).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body, status, {"cache-control": "no-store", **named}, "application/json")


def packed(request: Request, body: bytes, kind: str, headers: Mapping[str, str]) -> Response:
    """A text of our own, compressed where the reader takes it; pictures are small already."""
    headers = {**headers, "vary": "accept-encoding"}
    takes = "gzip" in request.headers.get("accept-encoding", "")
    if takes and len(body) > LEAST_PACKED and not kind.startswith("image/"):
        headers["content-encoding"] = "gzip"
        body = _gzipped(body)
    return Response(body, headers=headers, media_type=kind)


@lru_cache(maxsize=64)
def _gzipped(body: bytes) -> bytes:
    return gzip.compress(body, 6, mtime=0)


def review_json(review: Review, etag: str, language: str) -> dict[str, Any]:
    """What a check found: problems at their fields, every change, the token that confirms exactly these."""
    return {
        "ok": review.ok, "first": review.first, "against": review.against, "etag": etag, "confirm_token": review.token,
        "significant": bool(review.significant),
        "config": None if review.config is None else review.config.model_dump(mode="json"),
        "problems": [problem_json(problem, language) for problem in review.problems],
        "changes": changes_json(review.changes, language),
    }  # fmt: skip


def changes_json(changes: Sequence[Change], language: str) -> list[dict[str, Any]]:
    """Each change old → new; why a significant one is."""
    return [
        {
            "field": change.field, "label": _if_known(f"config.{change.field}", language),
            "old": change.old, "new": change.new, "significant": change.significant,
            "why": change.why, "why_text": _if_known(f"changes.why.{change.why}", language),
            "message": change.message(language),
        }
        for change in changes
    ]  # fmt: skip


def run_json(run: RunInfo, language: str) -> dict[str, Any]:
    """A run of a list."""
    broken = run.state == "broken" or run.reason == "labels"
    reason = text(f"runs.broken.{run.reason}", language, detail=run.detail) if broken else ""
    return {**run.to_dict(), "reason_text": reason}


def operation_json(operation: Operation, language: str) -> dict[str, Any]:
    """An entry of the operation log."""
    return {
        **operation.to_dict(),
        "text": text(f"operations.{operation.operation}", language),
        "confirmed_text": _if_known(f"operation_log.confirmed.{operation.confirmed}", language),
    }


def version_json(version: ModelVersion) -> dict[str, Any]:
    """A model version."""
    return {**version.to_dict(), "values": class_values(version.classes)}


def weighing_json(weighing: Weighing, language: str) -> dict[str, Any]:
    """The figures of two versions side by side, and what follows from them."""
    figures = [
        {**asdict(each), "difference": None if weighing.hindrance else each.difference}
        for each in weighing.figures
    ]
    return {**asdict(weighing), "figures": figures, "verdict": weighing.verdict(language)}


def export_json(record: ExportRecord, language: str) -> dict[str, Any]:
    """An export with its proof; why it is not verified, in words."""
    proof = record.proof

    def figure(name: str, spec: str) -> str:
        return decimal(proof.get(name) or 0, spec, language)

    facts = {
        "box_px": figure("box_px", ".3g"), "score": figure("score", ".3g"), "metric": proof.get("metric", ""),
        "agreement": decimal(100 * (proof.get("agreement") or 0), ".1f", language),
        "metric_torch": figure("metric_torch", ".4f"), "metric_file": figure("metric_file", ".4f"),
        "limit": (proof.get("limits") or {}).get(proof.get("reason", ""), ""),
        "systems": ", ".join(proof.get("systems", ())),
    }  # fmt: skip
    key = f"export.reasons.{proof.get('reason', '')}"
    reason = text(key, language, **facts) if key in catalogue(language) else ""
    return {**record.to_dict(), "reason_text": reason}


def job_json(job: Job, language: str) -> dict[str, Any]:
    """A job with its result, or the problem it failed with."""
    error = None if job.error is None else json.loads(bytes(response_to(job.error, language).body))
    if job.state == "failed" and error is None:
        error = {"code": "job_broken", "detail": text("errors.job_broken", language)}
    return {**job.facts(), "result": job.result, "error": error}


def recorded_problems(rows: object, language: str) -> list[dict[str, Any]]:
    """The problems that a preparation wrote into `run.json`."""
    if not isinstance(rows, list):
        return []
    known = (row for row in rows if isinstance(row, Mapping) and isinstance(row.get("facts"), Mapping))
    found = (
        Problem(str(row.get("field")), str(row.get("code")), row.get("value"), dict(row["facts"]))
        for row in known
    )
    return [problem_json(problem, language) for problem in found]


def class_values(classes: object) -> dict[str, int | None]:
    """The value in Rupiah of each class that is money."""
    names = (
        [plain(each) for each in classes if isinstance(each, str)]
        if isinstance(classes, list | tuple)
        else []
    )
    return dict(zip(names, values_of(names)))


def _if_known(key: str, language: str) -> str:
    return catalogue(language).get(key, "")
