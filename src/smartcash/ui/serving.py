"""The HTTP face of a served model: `POST /predict`, `POST /count`, `GET /health`, `GET /metrics`, `GET /openapi.json`.

It knows the model by `domain.ports.Serving` only: it loads no torch, and whoever starts it brings the model. A refusal is
`application/problem+json` (RFC 9457) with the error's code, in the language that `Accept-Language` asks for.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smartcash import __version__
from smartcash.domain.errors import DataInvalid, ServingRefused, SmartCashError
from smartcash.domain.ports import Serving
from smartcash.ui.listener import listening_socket
from smartcash.utils.files import reason_of
from smartcash.utils.i18n import LANGUAGES, current_language, text
from smartcash.utils.machine import available_cores

UPLOAD_S = 30.0  # so long an upload may take
LAST_ANSWERS_S = 10  # so long requests may go on after the end was asked for
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PATHS = ("/predict", "/count", "/health", "/metrics", "/openapi.json")
STATUS = {
    "token_wrong": 401, "upload_slow": 408, "upload_too_large": 413, "picture_too_large": 413,
    "upload_empty": 422, "upload_form": 422, "serving_busy": 503,
}  # fmt: skip
_HOST = re.compile(r"\[?(?P<name>[^\[\]]+?)\]?(:\d+)?")  # a name, 127.0.0.1 or [::1], and perhaps a port
OF_HTTP = {404: "path_unknown", 405: "method_wrong"}


@dataclass(frozen=True)
class Limits:
    """What a request may be: bytes of an upload, and how many may be under way at once."""

    upload_bytes: int = 16 * 2**20
    at_once: int = 64


class Model(BaseModel):
    """The version that answers."""

    name: str
    version: str
    sha256: str


class Size(BaseModel):
    """Of the upright picture."""

    width_px: int
    height_px: int


class Note(BaseModel):
    """Something found. `value` in Rupiah; `box_xyxy` in px, for detection."""

    name: str = Field(alias="class")
    score: float
    value: int | None
    box_xyxy: list[float] | None = None


class Prediction(BaseModel):
    """What is in a picture."""

    model: Model
    picture: Size
    task: str
    found: list[Note]
    total_rupiah: int | None


class Count(BaseModel):
    """The money in a picture."""

    model: Model
    picture: Size
    counts: list[dict[str, str | int | None]]
    total_rupiah: int | None
    sure: bool
    doubts: list[Note]
    abstain: float
    measured: bool


class Problem(BaseModel):
    """Why there is no answer (RFC 9457). `code` is the same in every language."""

    type: str
    title: str
    status: int
    detail: str
    code: str


@dataclass
class Figures:
    """What `GET /metrics` tells of requests."""

    answered: Counter[tuple[str, int]] = field(default_factory=Counter)  # (path, status)
    within: Counter[float] = field(default_factory=Counter)  # seconds, cumulative
    seconds: float = 0.0

    def add(self, path: str, status: int, seconds: float) -> None:
        self.answered[path if path in PATHS else "other", status] += 1
        self.seconds += seconds
        for bound in BUCKETS_S:
            self.within[bound] += seconds <= bound


def create_app(
    model: Serving, limits: Limits, *, token: str | None = None, hosts: tuple[str, ...] = ("*",)
) -> FastAPI:
    """The application. `token`: what a request must bear (None: anybody may ask); `hosts`: the names that a request may
    call this server by. The model is closed when the application ends."""
    figures, under_way = Figures(), _UnderWay(limits.at_once)
    readers = ThreadPoolExecutor(available_cores(), "reader")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        readers.shutdown()
        await asyncio.to_thread(model.close)

    def allowed(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        if token is None:
            return
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            raise ServingRefused("token_wrong")

    app = FastAPI(
        title="SmartCash", version=__version__, lifespan=lifespan, dependencies=[Depends(allowed)],
        docs_url=None, redoc_url=None,  # those pages are fetched from other hosts
        responses={"default": {"model": Problem, "content": {"application/problem+json": {}}}},
    )  # fmt: skip
    app.add_middleware(_Named, hosts=hosts)
    app.add_middleware(_Counted, figures=figures)
    app.add_exception_handler(SmartCashError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _other)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _broken)

    async def answer(request: Request, ask: Callable[[bytes], Future[dict[str, Any]]]) -> JSONResponse:
        with under_way:
            data = await _upload(request, limits.upload_bytes)
            asked = await asyncio.get_running_loop().run_in_executor(readers, ask, data)
            facts = await asyncio.wrap_future(asked)
        return JSONResponse(facts, headers={"X-SmartCash-Version": facts["model"]["version"]})

    @app.post("/predict", response_model=Prediction, openapi_extra=_PICTURE)
    async def predict(
        request: Request, threshold: Annotated[float | None, Query(ge=0, le=1)] = None
    ) -> Response:
        """What is in a picture: classes, scores, boxes and the sum in Rupiah. Send the bytes of its file, or a form with
        one file. `threshold`: the lowest score that counts, instead of the model's own."""
        return await answer(request, partial(model.predict, threshold=threshold))

    @app.post("/count", response_model=Count, openapi_extra=_PICTURE)
    async def count(request: Request, abstain: Annotated[float | None, Query(ge=0, le=1)] = None) -> Response:
        """The notes of each denomination and their sum, and whether that is sure. `abstain`: a possible note below this
        score makes it unsure."""
        return await answer(request, partial(model.count, abstain=abstain))

    @app.get("/health")
    def health() -> dict[str, Any]:
        """Which version answers. `trouble`: why it is not the one that the alias names now, or empty."""
        state = model.state()
        return {
            "status": "ok", "name": state.name, "version": state.version, "sha256": state.sha256,
            "task": state.task, "classes": list(state.classes), "since": state.since,
            "trouble": state.trouble, "smartcash": __version__,
        }  # fmt: skip

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> str:
        """Figures in the text format of Prometheus."""
        return _exposition(figures, model, limits.at_once - under_way.free)

    return app


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; requests under way are answered first."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens at `host` and `port` (0: a free one). Raises ServingRefused when it is taken or there is no
    such address, and for an address that others reach without a token."""
    if token is None and not is_local(host):
        raise ServingRefused("serving_open", host=host)
    try:
        return listening_socket(host, port)
    except OSError as error:
        raise ServingRefused("port_taken", host=host, port=port, reason=reason_of(error)) from error


def is_local(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of(host: str) -> tuple[str, ...]:
    """What requests may call a server at `host`: pages of other sites must not reach one that is for this machine
    alone, by a name of theirs that leads here."""
    return ("localhost", "127.0.0.1", "::1", host) if is_local(host) else ("*",)


_PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {"picture": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


class _UnderWay:
    """Requests that are being answered, a bounded number. Used on the event loop only."""

    def __init__(self, most: int) -> None:
        self.free = most

    def __enter__(self) -> None:
        if not self.free:
            raise ServingRefused("serving_busy")
        self.free -= 1

    def __exit__(self, *_: object) -> None:
        self.free += 1


async def _upload(request: Request, most: int) -> bytes:
    """The picture's bytes: the body, or the one file in a form. Never more than `most` are kept."""
    body = bytearray()
    limit_mb = round(most / 2**20, 1)
    try:
        async with asyncio.timeout(UPLOAD_S):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise ServingRefused("upload_too_large", limit=limit_mb)
    except TimeoutError as error:
        raise ServingRefused("upload_slow", seconds=round(UPLOAD_S)) from error
    data = bytes(body)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        data = await _file_in(request, data)
    if not data:
        raise ServingRefused("upload_empty")
    return data


async def _file_in(request: Request, body: bytes) -> bytes:
    """The bytes of the one file in a form that has been read whole."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, whole(), max_files=1, max_fields=8)
    parser.spool_max_size = len(body) + 1  # it stays in memory, where it is already
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise ServingRefused("upload_form", reason=str(error)) from error
    try:
        files = [value for value in form.values() if not isinstance(value, str)]
        return await files[0].read() if files else b""
    finally:
        await form.close()


class _Named:
    """Refuses requests that call this server by a name which is not among `hosts`; "*": every name is."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self.hosts:
            request = Request(scope)
            host = request.headers.get("host", "")
            found = _HOST.fullmatch(host)
            if found is None or found["name"].lower() not in self.hosts:
                words = text(
                    "errors.serving_host", _language(request), host=host, hosts=", ".join(self.hosts)
                )
                await _problem(400, "serving_host", words)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class _Counted:
    """Counts every answer and its time."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app, self.figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            self.figures.add(scope["path"], status, time.perf_counter() - began)


def _exposition(figures: Figures, model: Serving, under_way: int) -> str:
    """https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4."""
    state = model.state()
    answers = sum(figures.answered.values())
    named = {"name": state.name, "version": state.version, "sha256": state.sha256}
    lines = [
        *_head("model_info", "gauge", "The version that answers."),
        f"smartcash_model_info{{{','.join(f'{key}={_quoted(value)}' for key, value in named.items())}}} 1",
        *_head("requests_total", "counter", "Answers by path and status."),
        *(
            f'smartcash_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(figures.answered.items())
        ),
        *_head("request_seconds", "histogram", "Time of a request, its upload included."),
        *(f'smartcash_request_seconds_bucket{{le="{bound}"}} {figures.within[bound]}' for bound in BUCKETS_S),
        f'smartcash_request_seconds_bucket{{le="+Inf"}} {answers}',
        f"smartcash_request_seconds_sum {figures.seconds:.6f}",
        f"smartcash_request_seconds_count {answers}",
    ]
    for name, kind, meaning, value in (
        ("pictures_total", "counter", "Pictures that went through the network.", state.pictures),
        ("batches_total", "counter", "Passes of the network.", state.batches),
        ("reloads_total", "counter", "Times that another version took over.", state.reloads),
        ("under_way", "gauge", "Questions that are being answered.", under_way),
        ("waiting", "gauge", "Pictures in line.", state.waiting),
        (
            "trouble",
            "gauge",
            "1: the version that the alias names could not be loaded.",
            int(bool(state.trouble)),
        ),
    ):
        lines += [*_head(name, kind, meaning), f"smartcash_{name} {value}"]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP smartcash_{name} {meaning}", f"# TYPE smartcash_{name} {kind}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, SmartCashError)
    status = STATUS.get(error.code, 422 if isinstance(error, DataInvalid) else 500)
    return _problem(status, error.code, error.message(_language(request)))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    named = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.errors())
    return _problem(422, "request_wrong", text("errors.request_wrong", _language(request), reason=named))


async def _other(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = OF_HTTP.get(error.status_code, "request_wrong")
    facts = {"path": request.url.path, "method": request.method, "reason": error.detail}
    return _problem(error.status_code, code, text(f"errors.{code}", _language(request), **facts))


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _broken(request: Request, error: Exception) -> Response:
    # uvicorn logs the traceback; whoever asked is told no more than that
    return _problem(500, "serving_broken", text("errors.serving_broken", _language(request)))


def _problem(status: int, code: str, detail: str) -> JSONResponse:
    headers = (
        {"Retry-After": "1"} if status == 503 else {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    )
    content = {
        "type": f"urn:smartcash:error:{code}", "title": code.replace("_", " "), "status": status,
        "detail": detail, "code": code,
    }  # fmt: skip
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def _language(request: Request) -> str:
    """The first of our languages that the request accepts, else this process's."""
    wanted = (tag.strip()[:2].lower() for tag in request.headers.get("accept-language", "").split(","))
    return next((language for language in wanted if language in LANGUAGES), current_language())
