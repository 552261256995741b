"""Data sets: what is in them, how healthy they are, how augmentation changes them. A worker reads; this shows."""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from smartcash.domain.config import DataFormat
from smartcash.domain.errors import ConfigInvalid, DataInvalid, RunNotFound
from smartcash.handlers.run_view import RunView
from smartcash.services.data_sets import Upload
from smartcash.services.jobs import Job
from smartcash.services.workbench import Refusal
from smartcash.ui.routes.config import Asked, Here, Language, read_numbers
from smartcash.ui.studio import Studio
from smartcash.ui.words import job_json, shown
from smartcash.utils.i18n import text

router = APIRouter(tags=["data"])
PIECE_BYTES = 1 << 20
LOOK_S = 0.2  # so often is it seen that the server ends while nothing of an upload comes
SILENCE_S = 120  # so long may nothing come
MOST_DRAWN = 10_000
KEPT_PICTURES = 96
# a worker's errors, about a folder nobody knows
UNWRITABLE = ("samples_out_not_writable", "data_out_unwritable")
Made = TypeVar("Made")
Task = Literal["auto", "detect", "classify"]
NAME = r"^[^\x00]+$"
Place = Annotated[str, Query(max_length=4000, pattern=NAME)]
Seed = Annotated[int, Query(ge=0, lt=2**31)]


class Checked(BaseModel):
    """A data set that is to be looked at: a folder, a zip, a data.yaml or a COCO .json."""

    model_config = ConfigDict(extra="forbid")
    path: str = Field(max_length=4000, pattern=NAME)
    format: DataFormat = "auto"
    task: Task = "auto"
    seed: int = Field(default=0, ge=0, lt=2**31)


class Drawn(BaseModel):
    """Sample notes that are wanted, as `smartcash data sample` draws them."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=200)
    images: int = Field(default=400, ge=1, le=MOST_DRAWN)
    task: Literal["detect", "classify"] = "detect"


class Split(Checked):
    """A data set that is to be split anew into one of this name, with so many percent of the pictures for valid and
    test, the rest for train, as `smartcash data split` does it."""

    name: str = Field(min_length=1, max_length=200)
    valid: int = Field(default=15, ge=1, le=45)
    test: int = Field(default=15, ge=0, le=45)


class SplitAgreed(BaseModel):
    """The plan (its job) that was looked at and is to be carried out."""

    model_config = ConfigDict(extra="forbid")
    plan: str = Field(max_length=40)


class Augmented(Asked):
    """A configuration, and how many pictures of which epoch are wanted."""

    count: int = Field(default=12, ge=1, le=48)
    epoch: int = Field(default=0, ge=0, le=100_000)


@router.get("/data/sets")
def list_sets(studio: Here) -> Response:
    """The data sets of the runs of this home, that of the configuration last confirmed, and those made here: drawn,
    uploaded or split. `room`: so many bytes may a zip have that is uploaded, by the disk of `room_of`; null: the drive
    does not say how large it is."""
    found: dict[str, dict[str, Any]] = {}
    config, _ = studio.manager.confirmed()
    if config.data.path:
        found[config.data.path] = {"path": config.data.path, "runs": 0, "last": ""}
    for run in studio.history.store.runs(limit=200):
        if run.state == "broken":
            continue
        data = RunView(run).description().get("data")
        path = data.get("path") if isinstance(data, dict) else None
        if isinstance(path, str):
            row = found.setdefault(path, {"path": path, "runs": 0, "last": ""})
            row["runs"] += 1
            row["last"] = max(row["last"], run.id)
    for each in studio.sets.paths():
        found.setdefault(str(each), {"path": str(each), "runs": 0, "last": ""})
    room, tight = studio.sets.upload_room()
    return shown({"sets": list(found.values()), "room": room, "room_of": str(tight)})


@router.post("/data/samples", status_code=202)
def draw(asked: Drawn, studio: Here, language: Language) -> Response:
    """Draw a data set of specimen notes into a new folder; its path is in the job's result."""
    place = studio.sets.begin_drawing(asked.name, asked.images)
    subject = f"{asked.name} {asked.images} {asked.task}"
    job = _making(
        studio, language, "draw", subject, asked.name, place, asked.images, "draw_samples",
        path=str(place), images=asked.images, task=asked.task,
    )  # fmt: skip
    return shown(job_json(job, language), 202)


@router.post("/data/splits/plans", status_code=202)
def plan(asked: Split, studio: Here, language: Language) -> Response:
    """See how a data set would be split anew. Nothing is written: the job's result says what would be, and where."""
    target = studio.sets.target(asked.name)
    end_wish = threading.Event()

    def work() -> Any:
        with _naming_folder(studio, asked.name):
            found = studio.making.ask(
                "plan_split", language=language, end_wish=end_wish, target=str(target), **_of_split(asked)
            )
        studio.sets.check_copy(asked.name, found["bytes"])
        return {**found, "folder": str(target), "asked": asked.model_dump()}

    job = studio.jobs.begin(
        "plan", asked.model_dump_json(), work, stop=lambda: studio.making.give_up(end_wish)
    )
    return shown(job_json(job, language), 202)


@router.post("/data/splits", status_code=202)
def split(agreed: SplitAgreed, studio: Here, language: Language) -> Response:
    """Write a split that was planned, exactly as it was planned; the data set's path is in the job's result."""
    plan = studio.jobs.find(agreed.plan)
    if plan is None or plan.kind != "plan" or plan.state != "done":
        raise RunNotFound("split_unplanned")
    planned, asked = plan.result, Split(**plan.result["asked"])
    studio.sets.check_copy(asked.name, planned["bytes"])
    place = studio.sets.begin(asked.name)
    job = _making(
        studio, language, "split", agreed.plan, asked.name, place, planned["images"], "write_split", numbered=False,
        out=str(place), content_hash=planned["content_hash"], **_of_split(asked),
    )  # fmt: skip
    return shown(job_json(job, language), 202)


@contextmanager
def _naming_folder(studio: Studio, name: str) -> Iterator[None]:
    """Where a worker cannot write is said of the folder of the data sets, not of a hidden place in it."""
    try:
        yield
    except Refusal as error:
        if error.code not in UNWRITABLE:
            raise
        raise studio.sets.unwritable(name, str(error.facts["reason"])) from error


def _of_split(asked: Split) -> dict[str, Any]:
    """What a worker is told of a split."""
    return {
        "path": asked.path, "form": asked.format, "task": asked.task, "seed": asked.seed, "valid": asked.valid,
        "test": asked.test,
    }  # fmt: skip


def _making(
    studio: Studio, language: str, kind: str, subject: str, name: str, place: Path, count: int, question: str, *,
    numbered: bool = True, **facts: Any,
) -> Job:  # fmt: skip
    """Have a worker write a data set of so many pictures at `place`, and move it to its name once it is whole. Nothing
    is left of one that fails or is stopped."""
    end_wish, seen = threading.Event(), 0

    def work() -> Any:
        try:
            with _naming_folder(studio, name):
                found = studio.making.ask(
                    question, language=language, again=False, end_wish=end_wish, **facts
                )
            return {**found, "path": str(studio.sets.keep(place, name, numbered=numbered))}
        finally:
            studio.sets.discard(place)

    def share() -> float:
        nonlocal seen
        seen = max(seen, studio.sets.pictures(place))  # at the end they are moved, and not seen there
        return seen / count

    return studio.jobs.begin(kind, subject, work, share, lambda: studio.making.give_up(end_wish))


@router.post(
    "/data/uploads",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    request: Request, studio: Here, name: Annotated[str, Query(min_length=1, max_length=1000)]
) -> Response:
    """Keep the data set in the body, a zip. Whoever leaves or falls silent before its end leaves nothing behind."""
    announced = int(request.headers.get("content-length", "0"))
    disk = _Disk(studio)
    coming: list[Upload] = []

    def close() -> None:
        for each in coming:
            each.close()

    try:
        await disk.does(lambda: coming.append(studio.sets.receive(name, announced)))
        gathered, silent_s, more = bytearray(), 0.0, True
        while more:
            piece, more = await _next_piece(request)
            if studio.stream.closing():
                raise _ServerEnds
            silent_s = 0.0 if piece else silent_s + LOOK_S
            if silent_s > SILENCE_S:
                raise DataInvalid("upload_stalled", name=name, seconds=SILENCE_S)
            gathered += piece
            if len(gathered) >= PIECE_BYTES or not more:
                await disk.does(partial(coming[0].write, bytes(gathered)))
                gathered.clear()
        path = await disk.does(coming[0].finish)
    except ClientDisconnect:
        return Response(status_code=400)  # which nobody reads
    except _ServerEnds:
        return Response(status_code=503)
    finally:
        await disk.ends(close)
    return shown({"path": str(path)}, 201)


class _ServerEnds(Exception):
    """The server ends, and does not wait for the rest."""


class _Disk:
    """A thread that does what takes the disk long, one thing after the other. A request that waits for it hears when
    the server ends; the thread goes on to its end, for which the process waits."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.thread = studio, ThreadPoolExecutor(1, "upload")

    async def does(self, work: Callable[[], Made]) -> Made:
        """What `work` gives. Raises _ServerEnds."""
        doing = self.thread.submit(work)
        while not doing.done():
            await run_in_threadpool(wait, [doing], LOOK_S)
            if self.studio.stream.closing() and not doing.done():
                raise _ServerEnds
        return doing.result()

    async def ends(self, work: Callable[[], object]) -> None:
        """Do this last; waited for, unless the server ends."""
        with suppress(_ServerEnds):
            await self.does(work)
        self.thread.shutdown(wait=False)


async def _next_piece(request: Request) -> tuple[bytes, bool]:
    """The next piece of the body, empty if none has come in LOOK_S, and whether there is more. Raises
    ClientDisconnect."""
    try:
        async with asyncio.timeout(LOOK_S):
            message = await request.receive()
    except TimeoutError:
        return b"", True
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


@router.post("/data/check", status_code=202)
def check(asked: Checked, studio: Here, language: Language) -> Response:
    """Look at every picture and every label; the result is the job's."""

    def work() -> Any:
        facts = studio.data.ask(
            "check_data",
            language=language,
            path=asked.path,
            form=asked.format,
            task=asked.task,
            seed=asked.seed,
        )
        for finding in facts["findings"]:
            finding["done_text"] = text(f"data.done.{finding['done']}", language)
        return facts

    return shown(job_json(studio.jobs.begin("data", asked.path, work), language), 202)


@router.get("/data/pictures")
def list_pictures(
    studio: Here,
    language: Language,
    path: Place,
    split: Literal["train", "valid", "test"] = "train",
    label: Annotated[str, Query(alias="class", max_length=200)] = "",
    format: DataFormat = "auto",
    task: Task = "auto",
    seed: Seed = 0,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 24,
) -> Response:
    """A page of a split's pictures with their boxes."""
    found = studio.data.ask(
        "list_pictures", language=language, path=path, split=split, label=label, offset=offset, limit=limit, form=format,
        task=task, seed=seed,
    )  # fmt: skip
    for row in found["pictures"]:
        asked = {
            "path": path, "split": split, "format": format, "task": task, "seed": seed, "index": row["index"],
            "size": 320,
        }  # fmt: skip
        row["url"] = f"api/v1/data/picture?{urlencode(asked)}"
    return shown(found)


@router.get("/data/picture")
def picture(
    studio: Here,
    language: Language,
    path: Place,
    index: Annotated[int, Query(ge=0, le=10**9)],
    split: Literal["train", "valid", "test"] = "train",
    format: DataFormat = "auto",
    task: Task = "auto",
    seed: Seed = 0,
    size: Annotated[int, Query(ge=16, le=2048)] = 320,
) -> Response:
    """One picture of a data set, made small."""
    jpeg = studio.data.ask(
        "show_picture", language=language, path=path, split=split, index=index, size=size, form=format, task=task,
        seed=seed,
    )  # fmt: skip
    headers = {"cache-control": "private, max-age=600"}
    return Response(base64.b64decode(jpeg), headers=headers, media_type="image/jpeg")


@router.post("/data/augmented")
def augmented(asked: Augmented, studio: Here, language: Language) -> Response:
    """Training pictures as an epoch of this configuration would see them."""
    review = studio.manager.check(read_numbers(asked.values))
    wrong = [
        problem for problem in review.problems if problem.field.split(".")[0] in ("data", "augment", "task")
    ]
    if review.config is None or wrong:
        raise ConfigInvalid(wrong or review.problems)
    found = studio.data.ask(
        "augment_pictures", language=language, values=review.config.model_dump(mode="json"), count=asked.count,
        epoch=asked.epoch,
    )  # fmt: skip
    for row in found["pictures"]:
        name = secrets.token_hex(8)
        studio.pictures[name] = base64.b64decode(row.pop("jpeg"))
        row["url"] = f"api/v1/data/augmented/{name}"
    for old in list(studio.pictures)[:-KEPT_PICTURES]:
        studio.pictures.pop(old, None)
    return shown(found)


@router.get("/data/augmented/{name}")
def augmented_picture(name: str, studio: Here) -> Response:
    """One of the augmented pictures, as long as it is kept."""
    jpeg = studio.pictures.get(name)
    if jpeg is None:
        raise RunNotFound("picture_forgotten")
    return Response(jpeg, headers={"cache-control": "private, max-age=600"}, media_type="image/jpeg")
