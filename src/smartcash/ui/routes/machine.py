"""The machine, the installation, jobs, texts, and the stream of events."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.responses import StreamingResponse

from smartcash import __version__
from smartcash.domain.config import BUILT_IN_CALLBACKS
from smartcash.domain.errors import RunNotFound, RunNotReady
from smartcash.ui.guard import MOST_PICTURE_BYTES, TOKEN_FILE
from smartcash.ui.routes.config import Here, Language, form_fields
from smartcash.ui.stream import parse_places
from smartcash.ui.words import job_json, packed, shown
from smartcash.utils.i18n import LANGUAGES, LanguageName, catalogue
from smartcash.utils.machine import available_cores, free_disk, memory_bytes

router = APIRouter(tags=["machine"])
STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
TRACKERS = ("tensorboard", "mlflow", "wandb")


class Examined(BaseModel):
    """`deep`: read every checkpoint and compare its checksum."""

    model_config = ConfigDict(extra="forbid")
    deep: bool = False


@router.get("/session")
def session(studio: Here) -> Response:
    """Whether one may, and whose home it is."""
    return shown({"signed_in": True, "version": __version__, "home": studio.home.absolute().name})


@router.get("/settings")
def settings(studio: Here) -> Response:
    """What this server is, where it writes, and what the machine has."""
    used, total = memory_bytes()
    return shown(
        {
            "version": __version__, "home": str(studio.home.absolute()), "languages": list(LANGUAGES),
            "python": platform.python_version(), "platform": platform.platform(), "pid": os.getpid(),
            "cores": available_cores(), "memory_mb": total >> 20, "memory_used_mb": used >> 20,
            "disk_free_mb": free_disk(studio.home) >> 20, "token_file": str(studio.home.absolute() / TOKEN_FILE),
            "limits": {"upload_bytes": MOST_PICTURE_BYTES},
        }
    )  # fmt: skip


@router.get("/device")
def device(studio: Here, language: Language) -> Response:
    """What a training would compute with here."""
    return shown(studio.work.ask("device", language=language))


@router.get("/backbones")
def backbones(studio: Here, language: Language) -> Response:
    """Short names, whose weights are here, and every network that timm knows."""
    return shown(studio.work.ask("backbones", language=language))


@router.get("/parts")
def parts(studio: Here, language: Language) -> Response:
    """What can be chosen from: augmentation, formats, optimisers, schedules, callbacks."""
    fields = {facts["field"]: facts["choices"] for facts in form_fields()}
    return shown(
        {
            "augment_presets": studio.work.ask("augment_presets", language=language),
            "export_formats": studio.work.ask("export_formats", language=language),
            "data_formats": fields["data.format"], "optimizers": fields["optimizer.name"],
            "schedules": fields["schedule.name"], "callbacks": [*TRACKERS], "built_in": list(BUILT_IN_CALLBACKS),
        }
    )  # fmt: skip


@router.post("/doctor", status_code=202)
def doctor(asked: Examined, studio: Here, language: Language) -> Response:
    """Is the installation sound, and everything in the home what it should be? The result is the job's."""
    job = studio.jobs.begin(
        "doctor",
        "deep" if asked.deep else "",
        lambda: studio.work.ask("doctor", language=language, deep=asked.deep),
    )
    return shown(job_json(job, language), 202)


@router.get("/jobs")
def list_jobs(studio: Here) -> Response:
    """Work that was asked for, newest first."""
    return shown({"jobs": [job.facts() for job in studio.jobs.all()]})


@router.get("/jobs/{name}")
def job(name: str, studio: Here, language: Language) -> Response:
    """One job, with its result once there is one."""
    found = studio.jobs.find(name)
    if found is None:
        raise RunNotFound("job_unknown")
    return shown(job_json(found, language))


@router.post("/jobs/{name}/stop", status_code=202)
def stop(name: str, studio: Here, language: Language) -> Response:
    """End a job before its time, where that can be done: the making of a data set. Nothing of it is left."""
    found = studio.jobs.find(name)
    if found is None:
        raise RunNotFound("job_unknown")
    if found.stop is None:
        raise RunNotReady("job_unstoppable")
    studio.jobs.stop(found)
    return shown(job_json(found, language), 202)


@router.get("/locales/{language}")
def texts(request: Request, language: LanguageName, if_none_match: Annotated[str, Header()] = "") -> Response:
    """All texts of a language, flat, but those of the command line."""
    body, etag = _bundle(language)
    headers = {"etag": etag, "cache-control": "no-cache"}
    if if_none_match == etag:
        return Response(status_code=304, headers=headers)
    return packed(request, body, "application/json", headers)


@cache
def _bundle(language: str) -> tuple[bytes, str]:
    texts = {key: words for key, words in catalogue(language).items() if not key.startswith("cli.")}
    body = json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


@router.get("/events", response_model=None)
async def events(
    studio: Here,
    after: Annotated[str, Query(max_length=2000)] = "",
    mode: Literal["stream", "poll"] = "stream",
    wait: Annotated[float, Query(ge=0, le=20)] = 2.0,
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """What happens, as it happens: a stream of server-sent events, or one answer after at most `wait` seconds."""
    places = parse_places(last_event_id or after)
    if mode == "poll":
        found: dict[str, Any] = await studio.stream.poll(places, wait)
        return shown(found)
    return StreamingResponse(
        studio.stream.listen(places), media_type="text/event-stream", headers=STREAM_HEADERS
    )
