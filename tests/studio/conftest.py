"""Fixtures of the studio's tests: a home with runs made without a training, and a real server over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from studio_process import StudioProcess, epoch_row, made_run, step, write_events

from smartcash.domain.config import TrainConfig
from smartcash.domain.events import CheckpointSaved, EpochStarted, RunFinished
from smartcash.services.run_store import RunFolder
from smartcash.utils.files import write_bytes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of a finished run "first" of 3 epochs with 10 steps each, and a failed one."""
    home = tmp_path_factory.mktemp("studio") / "runs"
    home.mkdir()
    stopping = {"patience": 5, "monitor": "mAP50", "mode": "max"}
    training = {"epochs": 3, "monitor": "mAP50", "mode": "max", "early_stopping": stopping}
    values = {
        "task": "detect",
        "name": "first",
        "tags": ["baseline"],
        "data": {"path": str(home)},
        "training": training,
    }
    facts = {
        "reason": "finished", "epochs_done": 3, "best_epoch": 3, "best_value": 0.3, "valid": {"mAP50": 0.3},
        "data": {"path": "/data/notes", "classes": ["1000", "50000"], "content_hash": "c0ffee"},
    }  # fmt: skip
    run = made_run(home, config=TrainConfig.parse(values), **facts)
    rows = []
    for epoch in (1, 2, 3):
        steps = [step(number) for number in range(10 * epoch - 9, 10 * epoch + 1)]
        row = epoch_row(epoch)
        rows.append(row.row)
        write_events(
            run, EpochStarted(epoch, 3), *steps, row, CheckpointSaved(epoch, 10 * epoch, "a.pth", True)
        )
    write_events(run, RunFinished("finished", 3, 3, 0.3, "mAP50", {}, 60.0))
    run.write_epochs(rows)
    write_bytes(run.path / "train.log", "".join(f"line {number}\n" for number in range(1000)).encode())
    write_report(run)
    made_run(home, "failed", error="out of memory")
    return home


def write_report(run: RunFolder) -> None:
    (run.path / "report").mkdir()
    write_bytes(
        run.path / "report" / "metrics.json", b'{"best_epoch": 3, "valid": {"mAP50": 0.3}, "test": null}'
    )
    (run.path / "previews").mkdir()
    write_bytes(
        run.path / "previews" / "index.json",
        b'{"classes": ["1000"], "pictures": [{"file": "000.jpg", "width": 2, "height": 2, "truth": null}]}',
    )
    write_bytes(run.path / "previews" / "epoch_0001.json", b'{"epoch": 1, "pictures": [{"found": []}]}')
    write_bytes(run.path / "previews" / "000.jpg", b"\xff\xd8\xff\xe0")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[StudioProcess]:
    process = StudioProcess(home)
    yield process
    process.end()
    said = [line for line in process.said[1:] if "Invalid HTTP request" not in line]  # which some tests send
    assert not said, "".join(said)


@pytest.fixture(scope="module")
def client(server: StudioProcess) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client
