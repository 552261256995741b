"""The HTTP face of a served model: what it takes, what it refuses and in which words. The model is a double."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from smartcash.domain.errors import DataInvalid, ServingRefused
from smartcash.domain.ports import ServingState
from smartcash.ui.serving import Limits, create_app, listen, names_of
from smartcash.utils.i18n import text

STATE = ServingState(
    "produksi", "v3", "c0ffee", "detect", ("1000", "2000"), "2026-11-01T08:00:00+00:00", "", 2, 5, 9, 1
)
NAMED = {"name": "produksi", "version": "v3", "sha256": "c0ffee"}


class Echo:
    """Answers with what it was asked."""

    def __init__(self) -> None:
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, picture: bytes, threshold: float | None = None) -> Future[dict[str, Any]]:
        if picture == b"no picture":
            raise DataInvalid("data_image", path="upload")
        if picture == b"wide":
            raise ServingRefused("picture_too_large", width=9, height=9, limit=1)
        self.gate.wait(10)
        answer: Future[dict[str, Any]] = Future()
        if picture == b"crash":
            answer.set_exception(RuntimeError("the network broke"))
        else:
            answer.set_result({"model": NAMED, "seen": picture.decode(), "threshold": threshold})
        return answer

    def count(self, picture: bytes, abstain: float | None = None) -> Future[dict[str, Any]]:
        answer: Future[dict[str, Any]] = Future()
        answer.set_result({"model": NAMED, "seen": picture.decode(), "abstain": abstain})
        return answer

    def state(self) -> ServingState:
        return STATE

    def close(self) -> None:
        self.closed = True


Ask = Callable[..., tuple[int, dict[str, str], Any]]


@contextmanager
def answering(model: Echo, **options: Any) -> Iterator[Ask]:
    """A real server in a thread, and what asks it: method, path, body, headers → status, headers, body."""
    listener = listen("127.0.0.1", 0, None)
    limits = Limits(upload_bytes=1000, at_once=2)
    app = create_app(model, limits, **{"hosts": names_of("127.0.0.1"), **options})
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)

    def ask(
        method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=10)
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        is_json = "json" in (answer.headers["content-type"] or "")
        found = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, found, json.loads(raw) if is_json else raw.decode()

    try:
        yield ask
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def form(*files: bytes) -> tuple[bytes, str]:
    """A form with these files, and its content type."""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n\r\n' + file + b"\r\n"
        for file in files
    ]
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def test_bytes_and_a_form_get_the_same_answer_which_names_its_version() -> None:
    """D15, A17: the version is in the answer and in a header."""
    model = Echo()
    with answering(model) as ask:
        body, kind = form(b"photo")
        for status, headers, facts in (
            ask("POST", "/predict?threshold=0.3", b"photo", content_type="image/jpeg"),
            ask("POST", "/predict?threshold=0.3", body, content_type=kind),
        ):
            assert (status, facts) == (200, {"model": NAMED, "seen": "photo", "threshold": 0.3})
            assert headers["x-smartcash-version"] == "v3"
        assert ask("POST", "/count?abstain=0.6", b"photo")[2]["abstain"] == 0.6
        assert ask("GET", "/health")[2]["sha256"] == "c0ffee"
    assert model.closed


@pytest.mark.parametrize("language", ["id", "en"])
def test_every_refusal_is_a_problem_with_its_code_in_the_language_that_was_asked_for(language: str) -> None:
    """A33, A34: RFC 9457; the code is the same in every language, and a failure tells nothing of the inside."""
    body, kind = form(b"one", b"two")
    broken, _ = form()
    cases = [
        (("POST", "/predict", b"x" * 1001), {}, 413, "upload_too_large"),
        (("POST", "/predict", b"wide"), {}, 413, "picture_too_large"),
        (("POST", "/predict", b""), {}, 422, "upload_empty"),
        (("POST", "/predict", broken), {"content_type": kind}, 422, "upload_empty"),
        (("POST", "/predict", body), {"content_type": kind}, 422, "upload_form"),
        (("POST", "/predict", b"--x"), {"content_type": "multipart/form-data"}, 422, "upload_form"),
        (("POST", "/predict", b"no picture"), {}, 422, "data_image"),
        (("POST", "/predict?threshold=2", b"photo"), {}, 422, "request_wrong"),
        (("POST", "/predict", b"crash"), {}, 500, "serving_broken"),
        (("GET", "/predict"), {}, 405, "method_wrong"),
        (("GET", "/weights"), {}, 404, "path_unknown"),
    ]
    with answering(Echo()) as ask:
        for request, headers, status, code in cases:
            answer = ask(*request, accept_language=f"fr, {language};q=0.9", **headers)
            assert (answer[0], answer[2]["code"]) == (status, code), answer
            assert answer[1]["content-type"] == "application/problem+json"
            assert answer[2]["status"] == status and "broke" not in answer[2]["detail"]
            known = text(f"errors.{code}", language, **dict.fromkeys(("limit", "width"), 1), **FACTS)
            assert answer[2]["detail"].split()[:2] == known.split()[:2]


FACTS: dict[str, Any] = {"height": 9, "path": "/predict", "method": "GET", "reason": "", "count": 1}


def test_without_the_token_nothing_is_told() -> None:
    """A12's spirit: who may ask is decided before anything is read."""
    with answering(Echo(), token="sesame") as ask:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic sesame"}):
            for path in ("/health", "/metrics"):
                assert ask("GET", path, **headers)[0] == 401
            assert ask("POST", "/predict", b"x" * 5000, **headers)[2]["code"] == "token_wrong"
        assert ask("POST", "/predict", b"photo", authorization="Bearer sesame")[0] == 200


def test_a_name_of_another_site_that_leads_here_is_refused() -> None:
    """DNS rebinding: a server for this machine alone answers to this machine's names."""
    with answering(Echo()) as ask:
        for language, words in (
            ("id", "tidak menjawab atas nama evil.example"),
            ("en", "does not answer to the name evil"),
        ):
            status, _, problem = ask("GET", "/health", host="evil.example", accept_language=language)
            assert (status, problem["code"]) == (400, "serving_host")
            assert words in problem["detail"]
        for name in ("", "[::1", "localhost.evil.example", "localhost:80:80"):
            assert ask("GET", "/openapi.json", host=name)[0] == 400
        for name in ("127.0.0.1", "[::1]:80", "LOCALHOST"):
            assert ask("GET", "/health", host=name)[0] == 200
        assert ask("GET", "/health", host="localhost:1234")[0] == 200


def test_more_requests_than_allowed_are_told_to_come_back() -> None:
    """Bounded: two under way, the third is refused, and afterwards there is room again."""
    model = Echo()
    with answering(model) as ask:
        model.gate.clear()
        answers: list[int] = []
        waiting = [
            threading.Thread(target=lambda: answers.append(ask("POST", "/predict", b"photo")[0]))
            for _ in range(2)
        ]
        for thread in waiting:
            thread.start()
        while "smartcash_under_way 2" not in ask("GET", "/metrics")[2]:
            time.sleep(0.01)
        status, headers, facts = ask("POST", "/count", b"photo")
        assert (status, facts["code"], headers["retry-after"]) == (503, "serving_busy", "1")
        model.gate.set()
        for thread in waiting:
            thread.join()
        assert answers == [200, 200]
        assert ask("POST", "/predict", b"photo")[0] == 200


def test_the_figures_count_every_answer() -> None:
    """A14: by path and status; a path that nobody made is not a new line for each."""
    with answering(Echo()) as ask:
        ask("POST", "/predict", b"photo")
        ask("POST", "/predict", b"")
        for path in ("/a", "/b"):
            ask("GET", path)
        lines = ask("GET", "/metrics")[2].splitlines()
    assert 'smartcash_model_info{name="produksi",version="v3",sha256="c0ffee"} 1' in lines
    assert 'smartcash_requests_total{path="/predict",status="200"} 1' in lines
    assert 'smartcash_requests_total{path="/predict",status="422"} 1' in lines
    assert 'smartcash_requests_total{path="other",status="404"} 2' in lines
    assert "smartcash_request_seconds_count 4" in lines and "smartcash_reloads_total 2" in lines


def test_the_description_names_every_path_its_body_and_its_problem() -> None:
    """A31: OpenAPI."""
    with answering(Echo()) as ask:
        api = ask("GET", "/openapi.json")[2]
        assert ask("GET", "/docs")[0] == 404, "that page would be fetched from another host"
    assert set(api["paths"]) == {"/predict", "/count", "/health", "/metrics"}
    for path in ("/predict", "/count"):
        assert set(api["paths"][path]["post"]["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
        assert "application/problem+json" in api["paths"][path]["post"]["responses"]["default"]["content"]


def test_an_address_that_others_reach_needs_a_token_and_a_taken_port_is_said() -> None:
    """A34: both before a model is loaded."""
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ServingRefused) as refused:
            listen(host, 0, None)
        assert refused.value.code == "serving_open"
    with listen("127.0.0.1", 0, None) as taken, pytest.raises(ServingRefused) as refused:
        listen("127.0.0.1", taken.getsockname()[1], None)
    assert refused.value.code == "port_taken"
    with listen("0.0.0.0", 0, "sesame") as open_to_all:
        assert isinstance(open_to_all, socket.socket)


def test_the_application_loads_no_torch() -> None:
    """A31: what shows does not compute."""
    code = "import sys, smartcash.ui.serving; print(sorted({'torch', 'cv2', 'timm'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
