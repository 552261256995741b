"""Who may ask, from where, and for what: the guard, and files and names that somebody planted."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from studio_process import StudioProcess, made_run, write_events

from smartcash.domain.config import TrainConfig
from smartcash.domain.events import Warned
from smartcash.services.run_store import RunFolder
from smartcash.ui.guard import MOST_BYTES, token_of

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def asked(
    server: StudioProcess, method: str, path: str, body: bytes = b"", **headers: str
) -> http.client.HTTPResponse:
    """A request exactly as it is given: no path is tidied, no header added but the length of a body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body and "transfer_encoding" not in headers:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body or None)
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def bearer(server: StudioProcess) -> str:
    return f"Bearer {server.token}"


def test_nothing_is_answered_without_the_token(server: StudioProcess, client: httpx.Client) -> None:
    """Every path of the API, the page, and its files."""
    paths = [path.replace("{", "").replace("}", "") for path in client.get("openapi.json").json()["paths"]]
    for path in [*paths, "/", "/runs/x", "/app.js", "/openapi.json", "/api/v1/openapi.json", "/nothing"]:
        for headers in (
            {},
            {"authorization": "Bearer x"},
            {"authorization": server.token},
            {"cookie": "smartcash=1"},
        ):
            assert asked(server, "GET", path, **headers).status == 401, (path, headers)


def test_the_token_becomes_a_cookie_and_leaves_the_address(server: StudioProcess) -> None:
    """The redirect is relative, so that it works below any proxy's path; the rest of the address stays."""
    answer = asked(server, "GET", f"/compare?runs=a,b&token={server.token}")
    assert (answer.status, answer.headers["location"]) == (303, "./compare?runs=a%2Cb")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and server.token not in cookie
    value = cookie.partition(";")[0]
    assert asked(server, "GET", "/api/v1/session", cookie=value).status == 200
    assert asked(server, "GET", "/api/v1/session", cookie=value[:-1] + "0").status == 401
    wrong = asked(server, "GET", "/?token=guess")
    assert wrong.status == 401 and wrong.headers["set-cookie"] is None
    assert (
        asked(server, "GET", f"/api/v1/session?token={server.token}").status == 401
    )  # never in the API's log


def test_the_token_is_kept_from_others_and_can_be_made_anew(tmp_path: Path) -> None:
    """A page goes on after a restart; the file is readable by its owner only."""
    home = tmp_path / "runs"
    first = token_of(home)
    assert token_of(home) == first and (home / "studio.json").stat().st_mode & 0o077 == 0
    assert token_of(home, anew=True) != first


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:80", 200), ("localhost", 200), ("[::1]:8765", 200), ("10.0.0.7:1", 200), ("evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("localhost.evil.example:80", 403), ("", 403), ("a@127.0.0.1", 403),
        ("127.0.0.1/x", 403), ("[", 403),
    ],
)  # fmt: skip
def test_a_name_that_was_not_allowed_is_refused(server: StudioProcess, host: str, status: int) -> None:
    """DNS rebinding needs a name."""
    answer = asked(server, "GET", "/api/v1/session", host=host, authorization=bearer(server))
    assert answer.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"sec_fetch_site": "same-origin", "origin": "https://proxy.example"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403), ({"sec_fetch_site": "same-site"}, 403), ({"sec_fetch_site": "none"}, 403),
        ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403), ({"origin": "http://127.0.0.1:1"}, 403),
    ],
)  # fmt: skip
def test_what_changes_something_comes_from_the_page_itself(
    server: StudioProcess, headers: dict[str, str], status: int
) -> None:
    """Forged requests of other pages, also of other ports of this machine, are refused."""
    answer = asked(server, "POST", "/api/v1/operations/verify", authorization=bearer(server), **headers)
    assert answer.status == status
    own = {"origin": f"http://127.0.0.1:{server.port}"}
    assert (
        asked(server, "POST", "/api/v1/operations/verify", authorization=bearer(server), **own).status == 200
    )


def test_every_answer_tells_browsers_to_run_nothing_else(server: StudioProcess) -> None:
    for path in ("/", "/api/v1/session", "/api/v1/nothing", "/runs/../..", "/app.js"):
        for headers in ({}, {"authorization": bearer(server)}):
            answer = asked(server, "GET", path, **headers)
            policy = answer.headers["content-security-policy"]
            assert (
                "default-src 'self'" in policy
                and "unsafe" not in policy
                and "frame-ancestors 'self'" in policy
            )
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"


TRAVERSALS = [
    "../confirmed.json", "../../studio.json", "..%2f..%2fstudio.json", "%2e%2e/%2e%2e/studio.json", "....//studio.json",
    "/etc/passwd", "%2fetc%2fpasswd", "weights/../../../studio.json", "link.txt", "linked/studio.json", "pipe",
    "a%00.json", ".run.json.lock", "run.lock", "", ".", "previews", "%c0%ae%c0%ae/studio.json", "..\\..\\studio.json",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_file_outside_of_a_run_is_given(server: StudioProcess, home: Path, path: str) -> None:
    """Also not through links and pipes that lie in the run's folder."""
    run = planted(home)
    for base in (
        f"/api/v1/runs/{run.id}/files/",
        f"/api/v1/runs/{run.id}/previews/pictures/",
        "/",
        "/vendor/",
    ):
        answer = asked(server, "GET", base + path, authorization=bearer(server))
        shown = answer.body  # type: ignore[attr-defined]
        assert (
            answer.status in (200, 404, 422, 307)
            and b"root:" not in shown
            and server.token.encode() not in shown
        )
        if "runs" in base and path not in ("",):
            assert answer.status in (404, 422), (base, path)


def planted(home: Path) -> RunFolder:
    """A run whose folder holds links to what lies outside, and a pipe."""
    known = next((path for path in home.glob("*/*/pipe")), None)
    if known is not None:
        return RunFolder(known.parent)
    run = made_run(home, "stopped")
    (run.path / "link.txt").symlink_to(home / "studio.json")
    (run.path / "linked").symlink_to(home)
    os.mkfifo(run.path / "pipe")
    return run


def test_names_from_the_disk_are_data_wherever_they_stand(
    server: StudioProcess, client: httpx.Client, home: Path
) -> None:
    """Markup, control characters, lone surrogates, huge numbers: the answer is sound JSON of the right type."""
    config = TrainConfig.parse({"task": "detect", "name": HOSTILE[:80], "notes": HOSTILE, "tags": ["<b>"]})
    run = made_run(
        home, "failed", config=config, error=HOSTILE, data={"path": HOSTILE, "classes": [HOSTILE, 5, None]}
    )
    write_events(
        run, Warned("no_such_code", {"x": HOSTILE}), Warned("loss_spike", {"epoch": "{0.__class__}"})
    )
    with run.events.open("ab") as file:
        file.write(b'{"seq": 3, "type": "StepEnded", "losses": 7, "loss": 1e999, "step": "x"}\n')
        file.write(
            b'{"seq": 4, "type": "Warned", "code": "x", "facts": {"\\ud800": "\\udfff"}}\nno json\n[1]\n'
        )
        file.write(b'{"seq": 5, "type": "StepEnded", "loss": 1' + b"0" * 400 + b"}\n")
    (run.path / "previews").mkdir()
    (run.path / "previews" / "index.json").write_text(
        '{"classes": {"a": 1}, "pictures": [1, {"file": "../x"}]}'
    )
    (run.path / "weights").mkdir()
    (run.path / "weights" / "x.json").write_text("[")
    (run.path / "weights" / "x.pth").write_bytes(b"")
    (run.path / "\x1b[31m\u202egnp.html").write_text(HOSTILE)
    run.path.rename(run.path.with_name(f"{run.id}-\u202e"))
    run = RunFolder(run.path.with_name(f"{run.id}-\u202e"))
    found = next(
        each for each in client.get("runs", params={"limit": 500}).json()["runs"] if each["notes"] == HOSTILE
    )
    for path in (
        "",
        "/metrics",
        "/epochs",
        "/events",
        "/log",
        "/previews",
        "/checkpoints",
        "/files",
        "/exports",
    ):
        answer = client.get(f"runs/{found['id'][:20]}{path}")
        assert answer.status_code in (200, 404, 409), (path, answer.text)
        assert answer.headers["content-type"].endswith("json") and isinstance(answer.json(), dict)
    answer = client.get("events", params={"mode": "poll", "wait": 0, "after": f"{found['id']}:0"})
    assert answer.status_code == 200 and answer.json()["batches"][0]["seq"] == 5
    names = [each for each in run.path.iterdir() if each.suffix == ".html"]
    answer = asked(
        server,
        "GET",
        f"/api/v1/runs/{found['id'][:20]}/files/" + quote(names[0].name),
        authorization=bearer(server),
    )
    assert answer.status == 200 and answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_broken_run_is_shown_as_broken(client: httpx.Client, home: Path) -> None:
    """A14."""
    run = made_run(home, "stopped")
    (run.path / "run.json").write_text("{")
    shown = client.get(f"runs/{run.id}").json()
    assert shown["info"]["state"] == "broken" and shown["info"]["reason_text"] and shown["actions"] == []


def test_what_is_sent_is_bounded(server: StudioProcess) -> None:
    """By its length, and where that was not told, by counting."""
    large = b'{"values": {"name": "' + b"x" * MOST_BYTES + b'"}}'
    known = {"authorization": bearer(server), "content_type": "application/json"}
    assert asked(server, "POST", "/api/v1/config/check", large, **known).status == 413
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part)
        for part in [large[i : i + 60_000] for i in range(0, len(large), 60_000)]
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = f"POST /api/v1/config/check HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer(server)}\r\n"
        connection.sendall(
            f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        connection.sendall(chunks + b"0\r\n\r\n")
        assert connection.recv(100).split()[1] in (b"400", b"413")
    for length in ("-1", "1e9", "²".encode().decode("latin-1")):
        answer = asked(server, "POST", "/api/v1/config/check", **known, content_length=length)
        assert answer.status in (400, 413), length


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"values": []}', b'{"values": {}, "extra": 1}', b"\xff\xfe", b"[" * 100_000,
        b'{"values": ' + b'{"a": ' * 900 + b"1" + b"}" * 901, b'{"values": {"seed": 1' + b"0" * 5000 + b"}}",
        b'{"values": {"name": "\\ud800"}}', b'{"values": {"optimizer": {"lr": NaN}}}',
        b'{"values": {"optimizer": {"lr": "1e999"}}}',
        b'{"values": {"\\ud800": {"x": "\\udfff"}}}', b'{"values": {"data": {"path": "\\u0000"}}}',
        b'{"values": {"data": {"path": "' + b"x" * 10_000 + b'"}}}',
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_used_is_a_problem_never_a_fault(server: StudioProcess, body: bytes) -> None:
    known = {"authorization": bearer(server), "content_type": "application/json"}
    answer = asked(server, "POST", "/api/v1/config/check", body, **known)
    assert answer.status < 500, answer.body  # type: ignore[attr-defined]
    assert isinstance(json.loads(answer.body), dict)  # type: ignore[attr-defined]


def test_the_server_never_loads_torch(server: StudioProcess, client: httpx.Client) -> None:
    """A31: whatever was asked of it so far; the process itself is looked at, where the system shows it."""
    client.get("runs/latest")
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("this system does not show what a process has loaded")
    loaded = maps.read_text()
    assert "libtorch" not in loaded and "/cv2/" not in loaded
    code = (
        "import sys; from pathlib import Path; from smartcash.ui.server import create_app;"
        f"create_app(Path({str(server.home)!r})).openapi();"
        "print([name for name in ('torch', 'cv2', 'timm', 'smartcash.backend') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_a_taken_port_is_said_not_traced(server: StudioProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smartcash", "studio", "--no-browser", "--port", str(server.port)]
    answer = subprocess.run(
        [*command, "--home", str(tmp_path), "--lang", "en"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1 and str(server.port) in answer.stderr and "Traceback" not in answer.stderr
