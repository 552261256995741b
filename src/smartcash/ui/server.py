"""The web page's server: `create_app` puts it together, `serve` runs it until Ctrl-C.

It reads files and calls handlers. It trains nothing and never loads torch: what needs that is asked of a workbench.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smartcash import __version__
from smartcash.domain.errors import ServerRefused
from smartcash.ui.guard import Guard, refusal, token_of
from smartcash.ui.listener import listening_socket
from smartcash.ui.problems import add_problems
from smartcash.ui.routes import compare, config, data, machine, models, operations, runs
from smartcash.ui.studio import Studio
from smartcash.ui.words import packed
from smartcash.utils.files import reason_of

WEB = Path(__file__).parent / "web"
PAGES = ("", "train", "runs", "compare", "models", "data", "log", "settings")
DEEP_PAGES = ("runs", "models")  # /runs/{id}
GRACE_S = 1
LET_GO_S = 0.5  # so long is an answer waited for when the server ends
LOOK_S = 0.5  # so long until Ctrl-C is noticed
TURN_S = 0.001  # of a thread that computes while others wait, which would be five times as long
LONGEST_PATH = 200
POINTS = 2000  # of a curve; web/course.js asks for as many
# what a browser is told of a file, whatever the machine's own table says
KINDS = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".json": "application/json", ".png": "image/png",
    ".jpg": "image/jpeg", ".ico": "image/x-icon", ".woff2": "font/woff2", ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8", ".map": "application/json",
}  # fmt: skip
_BASE = '<base href="./">'
_IMPORT = re.compile(r'\bfrom\s*"(\.\.?/)([\w./-]+)"')
_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
NOUNS = (config, runs, compare, models, data, operations, machine)


def create_app(home: Path, *, interface: str = "web", web: Path = WEB) -> FastAPI:
    """The application for one home, without its guard. `interface` names who speaks in the operation log."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.studio.close()

    app = FastAPI(
        title="SmartCash", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )  # fmt: skip
    app.state.studio = Studio(home, interface)
    api = APIRouter(prefix="/api/v1")
    for noun in NOUNS:
        api.include_router(noun.router)
    app.include_router(api)
    add_problems(app)
    _add_pages(app, web)
    return app


def guarded(
    app: FastAPI, token: str, *, hosts: Sequence[str] = (), embedded: bool = False, web: Path = WEB
) -> Guard:
    """The application behind its guard; the page's own inline scripts are allowed by their hashes."""
    page = web / "index.html"
    scripts = _INLINE_SCRIPT.findall(page.read_text(encoding="utf-8")) if page.exists() else []
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return Guard(app, token=token, hosts=hosts, embedded=embedded, scripts=hashes)


class Server(uvicorn.Server):
    """uvicorn, which tells the stream at once that it is to end (open streams would hold it up), and `ready` when
    requests are taken."""

    def __init__(self, guard: Guard, app: FastAPI, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                _let_go_in_words(guard), log_level="warning", access_log=False, ws="none", lifespan="on", proxy_headers=False,
                server_header=False, timeout_graceful_shutdown=GRACE_S,
            )
        )  # fmt: skip
        self.ready = ready
        app.state.studio.stream.closing = lambda: self.should_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; what still waits for a worker or a disk is let go of. uvicorn would do so with a traceback each."""
        asyncio.get_running_loop().call_later(LET_GO_S, self._let_go)
        await super().shutdown(sockets)

    def _let_go(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn's own looks ten times a second, which is all that an idle server costs."""
        while not await self.on_tick(0):
            await asyncio.sleep(LOOK_S)


def _let_go_in_words(app: ASGIApp) -> ASGIApp:
    """The application, for a server that cancels requests when it ends: they are answered that it does."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, sending)
        except asyncio.CancelledError:
            if not begun:
                await refusal(Request(scope), 503, "server_ends")(scope, receive, send)

    return answer


def serve(
    home: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    hosts: Sequence[str] = (),
    interface: str = "web",
    embedded: bool = False,
    new_token: bool = False,
    ready: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` is told the address with its token once requests are taken. `port`: 0
    for any free one. Raises ServerRefused when the port is taken."""
    sys.setswitchinterval(TURN_S)  # a long curve is read while its page is being fetched
    token = token_of(home, anew=new_token)
    app = create_app(home, interface=interface)
    with _listening(host, port) as listener:
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        place = f"[{shown}]" if ":" in shown else shown
        address = f"http://{place}:{listener.getsockname()[1]}/?token={token}"
        guard = guarded(app, token, hosts=hosts, embedded=embedded)
        with suppress(KeyboardInterrupt):  # uvicorn ends properly, then raises it
            Server(guard, app, lambda: ready(address)).run([listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return listening_socket(host, port)
    except OSError as error:
        raise ServerRefused("port_taken", host=host, port=port, reason=reason_of(error)) from error


def _add_pages(app: FastAPI, web: Path) -> None:
    """The page, its files, and the description of the API."""

    @app.get("/api/v1/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(_described(app))

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        return RedirectResponse("./api/v1/openapi.json")

    @app.get("/{path:path}", include_in_schema=False)
    def page(request: Request, path: str) -> Response:
        parts = path.split("/")
        if parts[0] in PAGES and (
            len(parts) == 1 or (len(parts) == 2 and (parts[0] in DEEP_PAGES or not parts[1]))
        ):
            return _index(web, parts, request)
        file = _file(web, path)
        if file is None and "text/html" in request.headers.get("accept", "") and parts[0] != "api":
            return _index(web, parts, request, 404)  # a person, who is told so by the page
        if file is None:
            raise HTTPException(404)
        return _static(file, request)


def _index(web: Path, parts: Sequence[str], request: Request, status: int = 200) -> Response:
    """The page, whose addresses are relative to a base that any proxy's prefix leaves right. It names all that the
    browser will need, so that one thing is not asked for only when another has come: every module, and of a run its
    course, which takes longest."""
    is_run = status == 200 and parts[0] == "runs" and bool(parts[1:] and parts[1])
    name = "lost" if status == 404 else "run" if is_run else parts[0] or "home"
    links = [f'<link rel="modulepreload" href="{each}">' for each in _modules(web, f"pages/{name}.js")]
    if is_run and "tab" not in request.query_params:
        run = f"api/v1/runs/{quote(parts[1], safe='')}"
        course = (f"{run}/metrics?max_points={POINTS}", f"{run}/epochs")  # as in web/course.js
        links = [f'<link rel="preload" as="fetch" crossorigin href="{each}">' for each in course] + links
    whole = (web / "index.html").read_text(encoding="utf-8")
    base = f'<base href="{"../" * (len(parts) - 1) or "./"}">'
    whole = whole.replace(_BASE, "\n".join([base, *links]), 1)
    return HTMLResponse(whole, status, {"cache-control": "no-cache"})


@lru_cache(maxsize=16)
def _modules(web: Path, page: str) -> tuple[str, ...]:
    """The page's module and every module that it or the frame imports, each after those that import it."""
    found = ["app.js", page]
    for name in found:
        folder = PurePosixPath(name).parent
        for up, imported in _IMPORT.findall((web / name).read_text(encoding="utf-8")):
            path = (folder.parent if up == "../" else folder) / imported
            if str(path) not in found:
                found.append(str(path))
    return tuple(found)


def _file(web: Path, path: str) -> Path | None:
    """The file of the page at this path, if there is one that may be given."""
    file = web / path
    hidden = len(path) > LONGEST_PATH or any(part.startswith(".") for part in path.split("/"))
    if (
        hidden
        or file.suffix not in KINDS
        or not file.is_file()
        or not file.resolve().is_relative_to(web.resolve())
    ):
        return None
    return file


def _static(file: Path, request: Request) -> Response:
    known = file.stat()
    etag = f'"{known.st_mtime_ns:x}-{known.st_size:x}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return packed(request, file.read_bytes(), KINDS[file.suffix], headers)


def _described(app: FastAPI) -> str:
    """The API as a page without scripts."""
    rows = []
    for path, methods in app.openapi()["paths"].items():
        for method, facts in methods.items():
            names = ", ".join(each["name"] for each in facts.get("parameters", ()))
            cells = (method.upper(), path, names, facts.get("description") or facts.get("summary", ""))
            rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>SmartCash API</title>'
        '<meta name="viewport" content="width=device-width"><h1>SmartCash API</h1>'
        '<p><a href="./openapi.json">openapi.json</a></p><table><thead><tr><th>Method</th><th>Path</th>'
        f"<th>Parameters</th><th>What it does</th></tr></thead><tbody>{''.join(rows)}</tbody></table></html>"
    )
