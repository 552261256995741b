"""A whole training over the API alone, on real processes: configure, confirm, prepare, start, steer, finish, promote, roll
back, export, try."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from studio_process import StudioProcess, sse

from smartcash.backend.samples import write_samples

SHORT_S = 120.0


def wait_for(condition: Callable[[], Any], limit_s: float = SHORT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def confirmed(client: httpx.Client, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
    """Asked, shown what would change, and confirmed."""
    review = client.request(method, path, json=body)
    assert review.status_code == 428, review.text
    token = review.json()["review"]["confirm_token"]
    return client.request(method, path, json={**body, "confirm_token": token, "significant": True})


def begun(client: httpx.Client, values: dict[str, Any]) -> str:
    """A run that is ready."""
    made = client.post("runs", json={"values": values})
    if made.status_code == 428:
        made = confirmed(client, "POST", "runs", {"values": values})
    assert made.status_code == 202, made.text
    run = made.json()["run"]
    wait_for(lambda: client.get(f"runs/{run}").json()["info"]["state"] == "ready")
    return str(run)


def act(client: httpx.Client, run: str, action: str, **more: Any) -> httpx.Response:
    return client.post(f"runs/{run}/actions", json={"action": action, **more})


def state_of(client: httpx.Client, run: str) -> str:
    return str(client.get(f"runs/{run}").json()["info"]["state"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StudioProcess]:
    process = StudioProcess(tmp_path / "runs")
    yield process
    process.end()


@pytest.mark.slow
def test_a_whole_training_is_led_by_the_page_alone(tmp_path: Path, server: StudioProcess) -> None:
    """A1, A4, A12, A15, A17, A18, A20, A21, A22, A26, D3, D13: and the server is killed in the middle."""
    notes = tmp_path / "notes"
    write_samples(notes, images=20, seed=3, size_px=96)
    values: dict[str, Any] = {
        "name": "toy",
        "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
        "data": {"path": str(notes), "image_size": 64, "batch_size": 2, "workers": 0},
        "training": {"epochs": 30}, "runtime": {"threads": 1},
    }  # fmt: skip
    with server.client() as client:
        run = begun(client, values)
        assert client.get(f"runs/{run}").json()["description"]["forecast"]["duration_s"] > 0
        assert act(client, run, "pause").status_code == 409
        assert act(client, run, "start").status_code == 202
        wait_for(lambda: (client.get(f"runs/{run}").json()["progress"] or {}).get("step_in_run"))
        act(client, run, "pause")
        wait_for(lambda: state_of(client, run) == "paused")
        assert (
            confirmed(client, "POST", f"runs/{run}/actions", {"action": "epochs", "value": 2}).status_code
            == 202
        )
        server.kill()  # the training does not notice
        server.begin()
    with server.client() as client:
        assert state_of(client, run) == "paused"
        act(client, run, "continue")
        with client.stream("GET", "events", params={"after": f"{run}:0"}) as response:
            ended = next(
                event for kind, _, batch in sse(response) if kind == "run" for event in batch["events"]
                if event["type"] == "RunFinished"
            )  # fmt: skip
        assert ended["reason"] in ("finished", "stopped")
        shown = wait_for(lambda: (found := client.get(f"runs/{run}").json())["version"] and found)
        assert shown["info"]["started"] and shown["description"]["packages"]["torch"] and shown["report"]
        assert shown["info"]["epochs_done"] >= 2 and shown["previews"]["epochs"] and shown["saved"]

        child = confirmed(
            client,
            "POST",
            f"runs/{run}/actions",
            {"action": "extend", "value": shown["info"]["epochs_done"] + 1},
        )
        child_run = child.json()["run"]
        wait_for(lambda: state_of(client, child_run) == "ready")
        act(client, child_run, "start")
        wait_for(lambda: state_of(client, child_run) == "finished")
        assert client.get(f"runs/{run}").json()["children"] == [child_run]
        other = begun(client, {**values, "seed": 1, "training": {"epochs": 1}})
        act(client, other, "start")
        number = wait_for(lambda: client.get(f"runs/{other}").json()["version"])

        for version in (1, number):
            assert (
                confirmed(
                    client, "POST", "aliases/produksi", {"operation": "promote", "version": version}
                ).status_code
                == 200
            )
        assert client.get("aliases/produksi/history").json()["back_to"] == 1
        back = client.post("aliases/produksi", json={"operation": "roll-back"}).json()["review"]
        half = {"operation": "roll-back", "confirm_token": back["confirm_token"]}
        assert client.post("aliases/produksi", json=half).status_code == 428  # a second confirmation
        assert client.post("aliases/produksi", json={**half, "significant": True}).json()["name"] == "v1"
        assert client.get("models").json()["aliases"] == {"produksi": 1}
        assert client.get(f"models/v{number}").json()["lineage"] == [{"run": other, "version": f"v{number}"}]

        picture = next((notes / "images" / "valid").iterdir()).read_bytes()
        said = client.post("predict", params={"model": "produksi", "threshold": 0.01}, content=picture).json()
        assert (
            said["task"] == "detect"
            and (said["width"], said["height"]) == (96, 96)
            and said["model"]["name"] == "v1"
        )
        assert client.post("predict", params={"model": "produksi"}, content=b"no picture").status_code == 422
        assert client.post("predict", params={"model": "/etc"}, content=picture).status_code == 404

        job = client.post("models/v1/exports", json={"format": "safetensors"}).json()
        done = wait_for(
            lambda: (found := client.get(f"jobs/{job['id']}").json())["state"] != "running" and found
        )
        assert done["state"] == "done" and done["result"]["state"] == "verified", done
        (made,) = client.get("models/v1/exports").json()["exports"]
        with ZipFile(BytesIO(client.get(f"../../{made['url']}").content)) as archive:
            sizes = {each.filename: each.file_size for each in archive.infolist()}
        assert set(sizes) == {made["file"], f"{made['file']}.json", f"{made['file']}.proof.safetensors"}
        assert sizes[made["file"]] == made["size_bytes"]
        entries = [json.loads(line) for line in (server.home / "operations.jsonl").read_text().splitlines()]
        assert {
            "config-change",
            "start",
            "pause",
            "continue",
            "extend",
            "promote",
            "roll-back",
            "export",
        } <= {entry["operation"] for entry in entries}
        assert client.post("operations/verify").json()["sound"]
