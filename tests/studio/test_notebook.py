"""The studio in a notebook's cell: the same server, embedded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from smartcash.domain.errors import ServerRefused
from smartcash.ui import notebook
from smartcash.ui.notebook import Embedded, studio


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Embedded]:
    found = studio(tmp_path / "runs", height=700)
    assert found is not None
    yield found
    found.stop()


def test_a_cell_shows_the_studio_and_shows_the_same_again(shown: Embedded, tmp_path: Path) -> None:
    """A1: an inline frame, whose page may be shown there, with a cookie that reaches it there."""
    frame = shown._repr_html_()
    assert f'src="http://localhost:{shown.port}/?token=' in frame and 'height="700"' in frame
    answer = httpx.get(shown.address)
    assert answer.status_code == 303 and "SameSite=None; Secure; Partitioned" in answer.headers["set-cookie"]
    assert "http://localhost:*" in answer.headers["content-security-policy"]
    again = studio(tmp_path / "runs")
    assert again is not None and again.process is shown.process and again.height == 900


def test_behind_a_hub_the_frame_goes_through_its_proxy(
    shown: Embedded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where jupyter-server-proxy is installed; without it the port is all there is."""
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/sari/")
    assert shown.source.startswith("http://localhost:")
    (tmp_path / "jupyter_server_proxy.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert shown.source == f"/user/sari/proxy/{shown.port}{shown.path}"


def test_colab_is_asked_to_show_the_port(
    shown: Embedded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colab itself cannot be had here: its two functions are recorded."""
    asked: list[tuple[str, int, dict[str, Any]]] = []
    output = ModuleType("google.colab.output")
    for name in ("serve_kernel_port_as_iframe", "serve_kernel_port_as_window"):
        setattr(output, name, lambda port, name=name, **more: asked.append((name, port, more)))
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    assert studio(tmp_path / "runs", height=500) is None
    assert [(name, port) for name, port, _ in asked] == [
        ("serve_kernel_port_as_iframe", shown.port),
        ("serve_kernel_port_as_window", shown.port),
    ]
    assert asked[0][2] == {"path": shown.path, "height": "500"}


def test_a_studio_that_does_not_begin_says_why(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(ServerRefused):
        studio(tmp_path / "runs")
    assert (tmp_path / "runs").absolute() not in notebook._running
