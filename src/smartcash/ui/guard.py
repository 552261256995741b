"""Who may ask: a token that is printed once becomes a cookie; Host and Origin are looked at; bodies are bounded.

Whoever can reach the port can try, and so can every web page that a browser on this machine has open. So:

- without the token (in a cookie, as `Authorization: Bearer`, or once as `?token=`) nothing is answered;
- a Host that is a name other than localhost is refused, which ends DNS rebinding: an attacker needs a name for that;
- what changes something must come from the same origin, and the cookie is SameSite, which ends forged requests.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import math
import re
import secrets
from collections.abc import Collection, Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smartcash.ui.studio import language_of
from smartcash.utils.files import write_bytes
from smartcash.utils.i18n import text

TOKEN_FILE = "studio.json"
MOST_BYTES = 1_000_000  # of a body
MOST_PICTURE_BYTES = 20_000_000
PICTURES = ("/api/v1/predict",)
UPLOADS = ("/api/v1/data/uploads",)  # go to the disk in pieces, and no further than it has room
_LENGTH = re.compile(r"[0-9]{1,18}")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
SAFE = ("GET", "HEAD", "OPTIONS")
NOTEBOOKS = (
    "http://localhost:* http://127.0.0.1:* vscode-webview: "
    "https://colab.research.google.com https://*.googleusercontent.com"
)


def token_of(home: Path, *, anew: bool = False) -> str:
    """The token of a home, kept in TOKEN_FILE (readable by its owner only), so that a page goes on after the
    server was begun again. `anew`: make another one; pages that are open have to sign in again."""
    path = home / TOKEN_FILE
    if anew or not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps({"token": secrets.token_urlsafe(32)}).encode(), mode=0o600)
    return str(json.loads(path.read_bytes())["token"])


class Guard:
    """Wraps the application: `hosts` are further names by which the server may be called; `embedded`: the page is
    shown in a notebook of another site, so its cookie must be sent there (which needs https, or localhost)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        hosts: Collection[str] = (),
        embedded: bool = False,
        scripts: Iterable[str] = (),
    ) -> None:
        self.app, self.token, self.hosts, self.embedded = app, token, set(hosts), embedded
        self.cookie = f"smartcash_{hashlib.sha256(token.encode()).hexdigest()[:8]}"
        self.session = hmac.new(token.encode(), b"session", hashlib.sha256).hexdigest()
        script = " ".join(["script-src 'self'", *(f"'sha256-{each}'" for each in scripts)])
        ancestors = f"frame-ancestors 'self'{f' {NOTEBOOKS}' if embedded else ''}"
        self.headers = {
            "content-security-policy": f"default-src 'self'; img-src 'self' blob: data:; {script}; "
            f"base-uri 'self'; form-action 'self'; object-src 'none'; {ancestors}",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        answer = self._objection(request)
        if answer is not None:
            await answer(scope, receive, self._with_headers(send))
            return
        await self.app(scope, _Bounded(receive, _limit(scope["path"])), self._with_headers(send))

    def _objection(self, request: Request) -> Response | None:
        """What is answered instead: a refusal, or the way to the page without the token in its address."""
        if "\0" in request.scope["path"]:
            return refusal(request, 404, "not_found")
        if not self._known_host(request.headers.get("host", "")):
            return refusal(request, 403, "host_refused", host=request.headers.get("host", ""))
        if request.method not in SAFE and not self._same_origin(request):
            return refusal(request, 403, "origin_refused", origin=request.headers.get("origin", ""))
        given = request.query_params.get("token")
        if given is not None and request.method == "GET" and not request.url.path.startswith("/api/"):
            return (
                self._signed_in(request) if self._is_token(given) else refusal(request, 401, "token_unknown")
            )
        if not self._may(request):
            return refusal(request, 401, "not_signed_in")
        length = request.headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length):
            return refusal(request, 400, "request_broken")
        limit = _limit(request.url.path)
        if int(length) > limit:
            return refusal(request, 413, "too_large", limit=round(limit / 1e6))
        return None

    def _known_host(self, host: str) -> bool:
        """An address in numbers, localhost, or a name that was allowed. `*` allows every name."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found["name"].strip("[]").lower()
        if name == "localhost" or name in self.hosts or "*" in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _same_origin(self, request: Request) -> bool:
        """Browsers say where a request comes from; behind a proxy only they know it. What says nothing is no
        browser, and has the token from elsewhere."""
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site == "same-origin"
        origin = request.headers.get("origin")
        return origin is None or origin.partition("://")[2] == request.headers.get("host")

    def _may(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return True
        try:
            cookie = SimpleCookie(request.headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.session.encode())

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _signed_in(self, request: Request) -> Response:
        """To the same page without the token; a relative address, because a proxy's is not known here."""
        rest = [pair for pair in parse_qsl(request.url.query) if pair[0] != "token"]
        last = request.url.path.rpartition("/")[2]
        answer = RedirectResponse(f"./{last}{f'?{urlencode(rest)}' if rest else ''}", 303)
        same_site = "None; Secure; Partitioned" if self.embedded else "Strict"
        answer.headers["set-cookie"] = (
            f"{self.cookie}={self.session}; Path=/; HttpOnly; Max-Age=31536000; SameSite={same_site}"
        )
        answer.headers["cache-control"] = "no-store"
        return answer

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                added = [(k.encode(), v.encode()) for k, v in self.headers.items() if k.encode() not in known]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        return sending


def _limit(path: str) -> float:
    """So many bytes may the body of a request to `path` have."""
    if path in UPLOADS:
        return math.inf
    return MOST_PICTURE_BYTES if path in PICTURES else MOST_BYTES


class _Bounded:
    """Receives a body of at most `limit` bytes; beyond, the client seems to have left."""

    def __init__(self, receive: Receive, limit: float) -> None:
        self.receive, self.left = receive, limit

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.left -= len(message.get("body", b""))
            if self.left < 0:
                return {"type": "http.disconnect"}
        return message


def refusal(request: Request, status: int, code: str, **facts: object) -> Response:
    """A problem for programs, a short page for people."""
    language = language_of(request)
    detail = text(f"errors.{code}", language, **facts)
    if request.method == "GET" and not request.url.path.startswith("/api/"):
        page = (
            f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>SmartCash</title>'
            f'<meta name="viewport" content="width=device-width"><h1>SmartCash</h1><p>{_escaped(detail)}</p></html>'
        )
        return HTMLResponse(page, status)
    body = {
        "type": "about:blank",
        "status": status,
        "code": code,
        "title": detail,
        "detail": detail,
        "params": facts,
    }
    return Response(json.dumps(body), status, media_type="application/problem+json")


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
