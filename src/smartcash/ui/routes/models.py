"""Model versions, their aliases and their exports; trying a model on a picture."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, StreamingResponse

from smartcash.domain.errors import ConfigInvalid, NotConfirmed, Problem
from smartcash.domain.exports import ExportRecord
from smartcash.domain.records import ModelVersion, RunInfo
from smartcash.handlers.exports import Exports, version_exports
from smartcash.handlers.model_versions import VersionReview
from smartcash.ui.problems import REVIEWED, ReviewNeeded
from smartcash.ui.routes.config import Here, Language
from smartcash.ui.routes.runs import NOT_AGREED, Agreed, Labelled, in_utc
from smartcash.ui.studio import Studio
from smartcash.ui.words import changes_json, export_json, job_json, shown, version_json, weighing_json

router = APIRouter(tags=["models"])
# a page that shows, and does nothing
STILL = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Registered(BaseModel):
    """A run whose best checkpoint becomes a version."""

    model_config = ConfigDict(extra="forbid")
    run: str = Field(min_length=1, max_length=200)


class AliasChange(Agreed):
    """An alias is given to `version` (promote), or goes back to it (roll-back; none: to the one before)."""

    operation: Literal["promote", "roll-back"]
    version: int | None = Field(default=None, ge=1, le=10**9)


class ExportWanted(BaseModel):
    """A file that is wanted; see `domain.exports.ExportRequest`."""

    model_config = ConfigDict(extra="forbid")
    format: str = Field(min_length=1, max_length=40)
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    nms: bool = False
    batch: int | None = Field(default=None, ge=1, le=1024)
    image_size: int | None = Field(default=None, ge=64, le=2048, multiple_of=32)


@router.get("/models")
def list_models(studio: Here) -> Response:
    """All versions, newest first, and who has which alias."""
    versions = [version_json(version) for version in studio.versions.versions()]
    return shown({"versions": versions, "aliases": studio.versions.aliases()})


@router.post("/models", status_code=202)
def register(asked: Registered, studio: Here, language: Language) -> Response:
    """Make a run's best checkpoint a version; finished runs are registered by themselves."""
    run = studio.folder(asked.run)
    job = studio.jobs.begin(
        "register",
        run.id,
        lambda: studio.work.ask("register_version", language=language, run=str(run.path.absolute())),
    )
    return shown(job_json(job, language), 202)


@router.get("/models/{name}")
def show(name: str, studio: Here, language: Language) -> Response:
    """A version with its exports and its lineage."""
    version = studio.versions.find(name)
    by_run = {each.run: each.name for each in studio.versions.versions() if each.run}
    lineage, run, seen = [], version.run, set[str]()
    parents = {each.id: each.parent for each in studio.history.store.runs()}
    while run and run not in seen:
        seen.add(run)
        lineage.append({"run": run, "version": by_run.get(run)})
        run = parents.get(run, "")
    records = [
        export_json(record, language) for record in _records(_exports_of_version(studio, version), version)
    ]
    return shown({**version_json(version), "lineage": lineage[::-1], "exports": records})


@router.patch("/models/{name}")
def label(name: str, labelled: Labelled, studio: Here) -> Response:
    """Change tags, notes or lock of a version."""
    version = studio.versions.find(name)
    if labelled.tags is not None:
        gone = [tag for tag in version.tags if tag not in labelled.tags]
        version = studio.versions.tag(version.name, labelled.tags, gone)
    if labelled.notes is not None:
        version = studio.versions.note(version.name, labelled.notes)
    if labelled.locked is not None:
        version = (studio.versions.lock if labelled.locked else studio.versions.unlock)(version.name)
    return shown(version_json(version))


@router.delete("/models/{name}", dependencies=[REVIEWED])
def delete(
    name: str, studio: Here, language: Language, agreed: Annotated[Agreed, Body()] = NOT_AGREED
) -> Response:
    """Delete a version for good; needs its confirmation."""
    review = studio.versions.check_delete(studio.versions.find(name).number)
    return shown(version_json(_applied(studio, review, agreed, language)))


@router.get("/aliases/{alias}/history")
def history(alias: str, studio: Here) -> Response:
    """Everything that happened to an alias, oldest first, and where a roll back would go."""
    events = studio.versions.history(alias)
    back_to = studio.versions.before(alias)
    rows = [vars(event) for event in events]
    return shown({"alias": alias, "events": rows, "now": events[-1].version, "back_to": back_to})


@router.get("/aliases/{alias}/served")
def served(alias: str, studio: Here, at: datetime | None = None) -> Response:
    """The version that had an alias at a moment."""
    moment = in_utc(at)
    version = studio.versions.served(alias, moment)
    return shown({"alias": alias, "at": moment and moment.isoformat(), "version": version})


@router.post("/aliases/{alias}", dependencies=[REVIEWED])
def change_alias(alias: str, wanted: AliasChange, studio: Here, language: Language) -> Response:
    """Give an alias to a version, or take it back to an earlier one; needs its confirmation."""
    if wanted.operation == "promote":
        if wanted.version is None:
            raise ConfigInvalid([Problem("version", "field_missing")])
        review = studio.versions.check_promote(wanted.version, alias)
    else:
        review = studio.versions.check_rollback(alias, wanted.version)
    return shown(version_json(_applied(studio, review, wanted, language)))


def _applied(studio: Studio, review: VersionReview, agreed: Agreed, language: str) -> Any:
    if not agreed.confirm_token:
        raise ReviewNeeded(
            {
                "ok": True, "confirm_token": review.token, "significant": bool(review.significant), "problems": [],
                "version": review.version, "changes": changes_json(review.changes, language),
                "weighing": review.weighing and weighing_json(review.weighing, language),
            }
        )  # fmt: skip
    if agreed.confirm_token != review.token:
        raise NotConfirmed("token_stale")
    return studio.versions.apply(review, agreed.confirm_token, significant=agreed.significant)


# --- report cards


@router.get("/models/{name}/report")
def report(name: str, studio: Here, language: Language) -> Response:
    """Whether a version's report card is there: none, working, ready or failed."""
    return shown(studio.reports.state(studio.versions.find(name), language))


@router.post("/models/{name}/report", status_code=202)
def make_report(name: str, studio: Here, language: Language) -> Response:
    """Have a version's report card made, in a process of its own: minutes. Ask for its state meanwhile."""
    return shown(studio.reports.begin(studio.versions.find(name), language), 202)


@router.get("/models/{name}/report/page", response_class=FileResponse)
def report_page(name: str, studio: Here, language: Language) -> Response:
    """The report card as a page without scripts, in the language that it was made in."""
    path = studio.reports.page(studio.versions.find(name), language)
    return FileResponse(path, media_type="text/html", headers={"content-security-policy": STILL})


# --- exports


@router.get("/exports/formats")
def formats(studio: Here, language: Language) -> Response:
    """The forms that a model can be written in, and what is installed for them."""
    return shown({"formats": studio.work.ask("export_formats", language=language)})


@router.get("/runs/{run}/exports")
def exports_of_run(run: str, studio: Here, language: Language) -> Response:
    """The exports of a run, oldest first, and those that are being made."""
    found = studio.run(run)
    exports = _exports_of_run(studio, found)
    base = f"api/v1/runs/{found.id}/exports"
    return shown(_exports(studio, exports, exports.records(), found.id, language, base))


@router.get("/models/{name}/exports")
def exports_of_version(name: str, studio: Here, language: Language) -> Response:
    """The exports of a version, oldest first, and those that are being made."""
    version = studio.versions.find(name)
    base = f"api/v1/models/{version.name}/exports"
    exports = _exports_of_version(studio, version)
    return shown(_exports(studio, exports, _records(exports, version), version.name, language, base))


@router.get("/runs/{run}/exports/{file}")
def packed_export_of_run(run: str, file: str, studio: Here) -> Response:
    """An exported file of a run and all that belongs to it (further parts, metadata, proof), as a zip."""
    return _packed(_exports_of_run(studio, studio.run(run)), file)


@router.get("/models/{name}/exports/{file}")
def packed_export_of_version(name: str, file: str, studio: Here) -> Response:
    """An exported file of a version and all that belongs to it (further parts, metadata, proof), as a zip."""
    return _packed(_exports_of_version(studio, studio.versions.find(name)), file)


def _packed(exports: Exports, file: str) -> Response:
    archive = TemporaryFile()  # noqa: SIM115  # without a name: it is gone when nothing reads it any more
    exports.pack(file, archive)
    size = archive.tell()
    archive.seek(0)
    headers = {
        "content-length": str(size),
        "content-disposition": f"attachment; filename*=utf-8''{quote(file)}.zip",
    }
    parts = iter(lambda: archive.read(1 << 16), b"")
    return StreamingResponse(parts, media_type="application/zip", headers=headers)


@router.post("/runs/{run}/exports", status_code=202)
def export_run(run: str, wanted: ExportWanted, studio: Here, language: Language) -> Response:
    """Write a run's best model in a form, and prove it, in a worker process."""
    found = studio.run(run)
    return _begun(studio, found.id, found.path, wanted, language)


@router.post("/models/{name}/exports", status_code=202)
def export_version(name: str, wanted: ExportWanted, studio: Here, language: Language) -> Response:
    """Write a version in a form, and prove it, in a worker process."""
    version = studio.versions.find(name)
    return _begun(studio, version.name, version.name, wanted, language)


def _begun(studio: Studio, subject: str, model: str, wanted: ExportWanted, language: str) -> Response:
    request = wanted.model_dump()
    job = studio.jobs.begin(
        "export",
        f"{subject} {wanted.format} {wanted.precision}",
        lambda: studio.work.ask("export", language=language, model=model, request=request),
    )
    return shown(job_json(job, language), 202)


def _exports_of_run(studio: Studio, run: RunInfo) -> Exports:
    return Exports(Path(run.path) / "exports", studio.home, run.id, studio.interface)


def _exports_of_version(studio: Studio, version: ModelVersion) -> Exports:
    return version_exports(version, studio.home, studio.interface)


def _records(exports: Exports, version: ModelVersion) -> list[ExportRecord]:
    """Those of the version's own checkpoint."""
    return [record for record in exports.records() if record.checkpoint_sha256 == version.sha256]


def _exports(
    studio: Studio, exports: Exports, records: list[ExportRecord], subject: str, language: str, base: str
) -> dict[str, Any]:
    there = {record.file for record in exports.present() if Path(record.file).name == record.file}

    def row(record: ExportRecord) -> dict[str, Any]:
        url = f"{base}/{quote(record.file)}" if record.file in there else None
        return {**export_json(record, language), "url": url}

    jobs = [job for job in studio.jobs.all() if job.kind == "export" and job.subject.split()[0] == subject]
    return {
        "exports": [row(record) for record in records],
        "jobs": [job_json(job, language) for job in jobs],
    }


# --- try it


@router.post(
    "/predict",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def predict(
    request: Request,
    studio: Here,
    language: Language,
    model: Annotated[str, Query(min_length=1, max_length=200)],
    name: Annotated[str, Query(min_length=1, max_length=1000)] = "picture",
    threshold: Annotated[float | None, Query(ge=0, le=1)] = None,
    abstain: Annotated[float | None, Query(ge=0, le=1)] = None,
) -> Response:
    """What a model says of the picture in the body, and the money it counts there. `name`: what the answer calls it."""
    picture = base64.b64encode(await request.body()).decode()
    found = await run_in_threadpool(
        lambda: studio.models.ask(
            "predict", language=language, model=studio.known(model), name=name, picture=picture,
            threshold=threshold, abstain=abstain,
        )
    )  # fmt: skip
    return shown(found)
