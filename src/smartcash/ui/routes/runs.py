"""Runs: begun, listed, looked at, steered, labelled, put into the trash."""

from __future__ import annotations

import mimetypes
import re
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote

from fastapi import APIRouter, Body, Query, Response
from fastapi import Path as Param
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse

from smartcash.domain.errors import ConfigInvalid, NotConfirmed, Problem, RunNotReady, RunRefused
from smartcash.domain.ports import CHANGED
from smartcash.domain.records import ACTIVE, ModelVersion, RunFilter, RunInfo
from smartcash.handlers.run_view import RunView
from smartcash.handlers.training_manager import Review
from smartcash.services.run_store import SORTS, RunFolder
from smartcash.ui.problems import REVIEWED, ReviewNeeded, problem_json
from smartcash.ui.routes.config import Here, Language, etag_for, read_numbers, require_confirmation
from smartcash.ui.studio import Studio
from smartcash.ui.words import (
    class_values,
    operation_json,
    recorded_problems,
    run_json,
    shown,
)
from smartcash.utils.i18n import text

router = APIRouter(tags=["runs"])
Sort = Literal[
    "id", "name", "task", "state", "backbone", "dataset", "epochs", "best", "started", "ended", "elapsed",
    "-id", "-name", "-task", "-state", "-backbone", "-dataset", "-epochs", "-best", "-started", "-ended", "-elapsed",
]  # fmt: skip
Action = Literal[
    "prepare", "start", "pause", "continue", "stop", "stop_after_epoch", "keep_best", "patience", "epochs", "threads",
    "resume", "extend",
]  # fmt: skip
assert {sort.removeprefix("-") for sort in get_args(Sort)} == set(SORTS)
AT_WORK = ("queued", "running", "paused")
_BOUND = re.compile(r"\s*([\w.-]{1,60}?)\s*(>=|<=|=)\s*(-?\d{0,15}\.?\d{1,15}(?:[eE][+-]?\d{1,3})?)\s*")
_SHOWN = (
    "image/jpeg",
    "image/png",
)  # everything else that lies on the disk is downloaded, never shown by a browser


class Begin(BaseModel):
    """A new run. `values`: none for the configuration as it was confirmed. `queue`: wait in line behind a run that is
    active, instead of being refused."""

    model_config = ConfigDict(extra="forbid")
    values: dict[str, Any] | None = None
    confirm_token: str = Field(default="", max_length=200)
    significant: bool = False
    queue: bool = False


class Wanted(BaseModel):
    """What is to be done with a run. `value`: epochs (epochs, extend), epochs of patience or threads; `policy`: the
    course of the learning rate of an extension."""

    model_config = ConfigDict(extra="forbid")
    action: Action
    value: int | None = Field(default=None, ge=0, le=100_000)
    policy: Literal["rescale", "continue_constant", "restart_cosine"] = "rescale"
    confirm_token: str = Field(default="", max_length=200)
    significant: bool = False


class Labelled(BaseModel):
    """Tags, notes and lock; what is absent stays."""

    model_config = ConfigDict(extra="forbid")
    tags: list[Annotated[str, Field(min_length=1, max_length=40)]] | None = Field(default=None, max_length=20)
    notes: str | None = Field(default=None, max_length=10_000)
    locked: bool | None = None


class Agreed(BaseModel):
    """A confirmation."""

    model_config = ConfigDict(extra="forbid")
    confirm_token: str = Field(default="", max_length=200)
    significant: bool = False


NOT_AGREED = Agreed()


class Several(BaseModel):
    """Ids of runs."""

    model_config = ConfigDict(extra="forbid")
    runs: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(max_length=1000)


# --- lists


@router.get("/runs")
def list_runs(
    studio: Here,
    language: Language,
    state: str = "",
    task: str = "",
    backbone: str = "",
    dataset: str = "",
    tag: str = "",
    search: str = "",
    where: Annotated[list[str], Query(max_length=10)] = [],  # noqa: B006
    since: datetime | None = None,
    until: datetime | None = None,
    sort: Sort = "-id",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Response:
    """A page of the runs that meet every condition, and how many there are in each state."""
    wanted = RunFilter(
        state, task, backbone, dataset, tag, search, _bounds(where), in_utc(since), in_utc(until)
    )
    found = studio.history.store.runs(wanted, sort=sort)
    states: dict[str, int] = {}
    for run in found:
        states[run.state] = states.get(run.state, 0) + 1
    page = [run_json(run, language) for run in found[offset : offset + limit]]
    return shown({"total": len(found), "limit": limit, "offset": offset, "runs": page, "states": states})


def _bounds(where: list[str]) -> dict[str, tuple[float | None, float | None]]:
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for each in where:
        found = _BOUND.fullmatch(each)
        if found is None:
            raise ConfigInvalid([Problem("where", "bound_form", each[:80])])
        name, sign, limit = found[1], found[2], float(found[3])
        low, high = bounds.get(name, (None, None))
        bounds[name] = (limit if sign != "<=" else low, limit if sign != ">=" else high)
    return bounds


def in_utc(moment: datetime | None) -> datetime | None:
    """A time without a zone is one of UTC."""
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


@router.get("/trash")
def list_trash(studio: Here, language: Language) -> Response:
    """The runs in the trash, newest first."""
    return shown({"runs": [run_json(run, language) for run in studio.history.store.trashed()]})


@router.delete("/trash", dependencies=[REVIEWED])
def empty_trash(studio: Here, language: Language, agreed: Annotated[Agreed, Body()] = NOT_AGREED) -> Response:
    """Delete everything in the trash for good; needs its confirmation."""
    names = [run.id for run in studio.history.store.trashed()]
    token = sha256("\n".join(["empty-trash", *names]).encode()).hexdigest()
    if not agreed.confirm_token or not agreed.significant:
        why = text("changes.why.deletion", language)
        changes = [
            {
                "field": name, "label": "", "old": name, "new": None, "significant": True, "why": "deletion",
                "why_text": why, "message": name,
            }
            for name in names
        ]  # fmt: skip
        review = {"ok": True, "confirm_token": token, "significant": True, "changes": changes, "problems": []}
        raise ReviewNeeded(review)
    if agreed.confirm_token != token:
        raise NotConfirmed("token_stale")
    return shown({"gone": [run.id for run in studio.history.empty_trash("token", names)]})


@router.post("/trash/{run}/restore")
def restore(run: str, studio: Here, language: Language) -> Response:
    """Bring a run back from the trash."""
    return shown(run_json(studio.history.restore(studio.trashed(run).id), language))


# --- one run


@router.post("/runs", status_code=202, dependencies=[REVIEWED])
def begin(asked: Begin, studio: Here, language: Language) -> Response:
    """Confirm what is to be changed, make the run and have it prepared; `start` follows when it is ready."""
    config = studio.manager.confirmed()[0]
    values = config if asked.values is None else read_numbers(asked.values)
    review = studio.manager.check(values)
    require_confirmation(review, asked.confirm_token, etag_for(studio, ""), language)
    token = asked.confirm_token or review.token  # where nothing changes there is nothing to confirm
    with studio.beginning:
        active = [run.id for run in studio.history.store.runs() if run.state in ACTIVE]
        if active and not asked.queue:
            raise RunNotReady("run_active_already", run=active[0])
        run = studio.manager.apply(review, token, significant=asked.significant)
    return shown({"run": run.id, "state": studio.manager.state(run)}, 202)


@router.post("/runs/trash")
def trash_several(asked: Several, studio: Here, language: Language) -> Response:
    """Move runs to the trash; what cannot be moved is named, the others are."""
    moved, refused = [], []
    for name in dict.fromkeys(asked.runs):
        try:
            moved.append(studio.history.trash(studio.run(name).id).id)
        except RunRefused as error:
            refused.append({"run": name, "code": error.code, "detail": error.message(language)})
    return shown({"moved": moved, "refused": refused})


@router.get("/runs/{run}")
def show(run: str, studio: Here, language: Language) -> Response:
    """Everything about a run but its curves."""
    view = studio.view(run)
    info = view.info
    facts, config, asked, problems = {}, None, None, []
    if info.state != "broken":
        facts = view.description()
        problems = recorded_problems(facts.get("problems"), language)
        try:
            config = view.config()
            asked = view.asked()
        except ConfigInvalid as error:  # of another version, or written by hand
            problems += [problem_json(problem, language) for problem in error.problems]
    previews = view.previews()
    version = next((each for each in studio.versions.versions() if each.number == facts.get("version")), None)
    data = facts.get("data") if isinstance(facts.get("data"), dict) else {}
    return shown(
        {
            "info": run_json(info, language), "description": facts,
            "config": None if config is None else config.model_dump(mode="json"),
            "asked": None if asked is None else asked.model_dump(mode="json"),
            "config_etag": "" if config is None else f'"{config.hash()}"',
            "progress": view.progress() if info.state in ACTIVE else None,
            "problems": problems,
            "operations": [operation_json(each, language) for each in studio.log.operations(run=info.id)][::-1],
            "report": view.report(), "values": class_values((data or {}).get("classes")),
            "previews": {"epochs": previews["epochs"], "pictures": len(previews["pictures"])},
            "actions": possible_actions(info.state), "saved": view.is_saved(),
            "children": [each.id for each in studio.history.store.runs() if each.parent == info.id],
            "seq": view.last_seq(),
            "version": version and version.number, "version_kept": _kept(info, facts, version),
        }
    )  # fmt: skip


def _kept(info: RunInfo, facts: dict[str, Any], version: ModelVersion | None) -> dict[str, Any] | None:
    """Whose epoch is still the best of a run that is over, where that kept it from becoming a new version."""
    if version is None or info.state in ACTIVE or facts.get("version_kept") is not True:
        return None
    return {"run": version.run, "epoch": version.epoch}


def possible_actions(state: str) -> list[str]:
    """What can be done with a run in this state."""
    actions = {
        "created": ["prepare"], "ready": ["start", "prepare"], "failed": ["resume", "prepare"],
        "stopped": ["resume"], "preempted": ["resume"], "crashed": ["resume"], "finished": ["extend"],
        "queued": ["stop", "epochs", "patience", "threads"], "stopping": ["stop"],
        "running": ["pause", "stop", "stop_after_epoch", "keep_best", "epochs", "patience", "threads"],
        "paused": ["continue", "stop", "keep_best", "epochs", "patience", "threads"],
    }  # fmt: skip
    return actions.get(state, [])


@router.patch("/runs/{run}")
def label(run: str, labelled: Labelled, studio: Here, language: Language) -> Response:
    """Change tags, notes or lock."""
    found = studio.run(run)
    if labelled.tags is not None:
        gone = [tag for tag in found.tags if tag not in labelled.tags]
        found = studio.history.tag(found.id, labelled.tags, gone)
    if labelled.notes is not None:
        found = studio.history.note(found.id, labelled.notes)
    if labelled.locked is not None:
        found = (studio.history.lock if labelled.locked else studio.history.unlock)(found.id)
    return shown(run_json(found, language))


@router.delete("/runs/{run}")
def trash(run: str, studio: Here, language: Language) -> Response:
    """Move a run to the trash."""
    return shown(run_json(studio.history.trash(studio.run(run).id), language))


@router.post("/runs/{run}/actions", status_code=202, dependencies=[REVIEWED])
def act(run: str, wanted: Wanted, studio: Here, language: Language) -> Response:
    """Prepare, start, steer, resume or extend a run."""
    manager, found = studio.manager, studio.folder(run)
    match wanted.action:
        case "prepare":
            manager.prepare(found)
        case "start":
            manager.start(found)
        case "resume":
            manager.resume(found)
        case "pause" | "continue" | "stop" | "stop_after_epoch" | "keep_best" as command:
            manager.command(found, command)
        case _:
            found = _change(studio, found, wanted, language)
    return shown({"run": found.id, "state": manager.state(found)}, 202)


def _change(studio: Studio, run: RunFolder, wanted: Wanted, language: str) -> RunFolder:
    """What changes a configuration, so it has to be confirmed: a command with a number, or an extension."""
    manager, value = studio.manager, wanted.value
    if value is None:
        raise ConfigInvalid([Problem("value", "field_missing")])
    if wanted.action == "extend":
        review = manager.check_extension(run, value, wanted.policy)
        _require(review, wanted, language)
        return manager.extend(review, wanted.confirm_token, significant=wanted.significant)
    name = next(command for command in CHANGED if command == wanted.action)
    if (state := manager.state(run)) not in AT_WORK:
        raise RunNotReady("run_not_active", run=run.id, state=state)
    review = manager.check_command(run, name, value)
    _require(review, wanted, language)
    manager.command(run, name, value, confirmed="token")
    return run


def _require(review: Review, wanted: Wanted, language: str) -> None:
    require_confirmation(review, wanted.confirm_token, "", language)
    if wanted.confirm_token != review.token:
        raise NotConfirmed("token_stale")


# --- what a run has left


@router.get("/runs/{run}/metrics")
def metrics(
    run: str,
    studio: Here,
    keys: str = "",
    after: Annotated[int, Query(ge=0)] = 0,
    max_points: Annotated[int, Query(ge=2, le=200_000)] = 2000,
    format: Literal["json", "f32"] = "json",
) -> Response:
    """The curves of the steps, thinned to mean, least and most of equal stretches."""
    found = studio.run(run)
    wanted = [key for key in keys.split(",") if key]
    events = Path(found.path) / "events.jsonl"
    curves = studio.curves.read(events, found.id, wanted, after=after, max_points=max_points)
    if format == "f32":
        return Response(curves.to_float32(), media_type="application/octet-stream")
    return Response(curves.to_json(), media_type="application/json")


@router.get("/runs/{run}/epochs")
def epochs(run: str, studio: Here) -> Response:
    """The table of the epochs, by column."""
    view = RunView(studio.run(run))
    progress, columns = view.progress(), view.epochs()
    if steps := progress["steps"]:
        columns["step"] = [None if epoch is None else epoch * steps for epoch in columns.get("epoch", [])]
    return shown({"run": view.info.id, "seq": progress["seq"], "columns": columns})


@router.get("/runs/{run}/events")
def story(
    run: str,
    studio: Here,
    language: Language,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=2000)] = 500,
) -> Response:
    """What happened in a run, without its steps."""
    view = RunView(studio.run(run))
    rows = [{**record, "text": _in_words(record, language)} for record in view.story(after, limit)]
    return shown({"seq": rows[-1]["seq"] if rows else after, "events": rows})


def _in_words(record: dict[str, Any], language: str) -> str:
    """The event in words, where it has some: warnings and commands."""
    if record.get("type") == "Warned" and isinstance(record.get("facts"), dict):
        key, facts = f"warnings.{record.get('code')}", record["facts"]
    elif record.get("type") == "Commanded":
        key, facts = f"train.commanded.{record.get('name')}", {"value": record.get("value")}
    else:
        return ""
    try:
        return text(key, language, **facts)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):  # facts of another version's event
        return ""


@router.get("/runs/{run}/log")
def log(
    run: str,
    studio: Here,
    before: Annotated[int | None, Query(ge=0)] = None,
    after: Annotated[int | None, Query(ge=0)] = None,
    lines: Annotated[int, Query(ge=1, le=2000)] = 200,
) -> Response:
    """Lines of the run's log, from its end backwards, or what was added after a place."""
    return shown(RunView(studio.run(run)).log(before=before, after=after, lines=lines))


@router.get("/runs/{run}/previews")
def previews(run: str, studio: Here) -> Response:
    """The pictures that are watched, and the epochs whose predictions are kept."""
    view = RunView(studio.run(run))
    found = view.previews()
    base = f"api/v1/runs/{view.info.id}/previews/pictures"
    pictures = [{**each, "url": f"{base}/{each.get('file')}"} for each in found["pictures"]]
    return shown({**found, "pictures": pictures, "values": class_values(found.get("classes"))})


@router.get("/runs/{run}/previews/pictures/{file}")
def preview_picture(run: str, file: str, studio: Here) -> Response:
    """One watched picture."""
    path = RunView(studio.run(run)).preview_picture(file)
    return FileResponse(path, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


@router.get("/runs/{run}/previews/{epoch}")
def preview(run: str, epoch: Annotated[int, Param(ge=0, le=10**8)], studio: Here) -> Response:
    """What was found in the watched pictures after an epoch."""
    return shown(RunView(studio.run(run)).preview(epoch))


@router.get("/runs/{run}/checkpoints")
def checkpoints(run: str, studio: Here) -> Response:
    """The checkpoints of a run, newest first."""
    return shown({"checkpoints": RunView(studio.run(run)).checkpoints()})


@router.get("/runs/{run}/files")
def files(run: str, studio: Here) -> Response:
    """Every file of a run."""
    view = RunView(studio.run(run))
    base = f"api/v1/runs/{view.info.id}/files"
    return shown({"files": [{**each, "url": f"{base}/{quote(each['path'])}"} for each in view.files()]})


@router.get("/runs/{run}/files/{name:path}")
def file(run: str, name: str, studio: Here) -> Response:
    """One file of a run, as a download: what lies on the disk is never shown as a page."""
    path = RunView(studio.run(run)).file(name)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = {"content-security-policy": "sandbox; default-src 'none'"}
    if kind in _SHOWN:
        return FileResponse(path, media_type=kind, headers=headers)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)
