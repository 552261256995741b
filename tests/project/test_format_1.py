"""Files that SmartCash 0.1 wrote are read by every later version: `format_1` is a home as it was then.

Whoever changes a format raises its number, keeps these files as they are, and reads both.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from smartcash.domain.events import RunFinished, from_record
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.event_log import EventLog, read_events
from smartcash.services.run_store import RunStore, find_run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy: opening it writes locks and an index."""
    return Path(shutil.copytree(Path(__file__).parent / "format_1", tmp_path / "runs"))


def test_its_run_is_listed_with_its_configuration_and_events(home: Path) -> None:
    """A29."""
    (info,) = RunStore(home).runs()
    assert (info.name, info.state, info.best_value, info.notes) == (
        "first",
        "finished",
        0.75,
        "the first one",
    )
    assert info.tags == ("baseline",) and info.metrics["mAP50_95"] == 0.75
    run = find_run("latest", home)
    config = run.config()
    assert (config.task, config.data.image_size, config.training.epochs) == ("detect", 64, 2)
    records = list(read_events(run.events))
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(from_record(record) is not None for record in records)
    with EventLog(run.events) as log:
        log.append(RunFinished("finished", 2, 2, 0.75, "mAP50_95", {}, 1.0))
    assert [record["seq"] for record in read_events(run.events)][-1] == 7


def test_its_checkpoints_load_and_a_new_one_follows_them(home: Path) -> None:
    """B9, B33."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    weights = find_run("latest", home).weights
    with CheckpointManager(output_dir=str(weights), monitor="mAP50_95", mode="max") as manager:
        assert [(info.epoch, info.kind, info.value) for info in manager.list_checkpoints()] == [
            (2, "best", 0.75),
            (1, "best", 0.5),
        ]
        assert manager.doctor()["healthy"]
        state = manager.load_checkpoint(which="best", model=model, optimizer=optimizer)
        assert model.weight.tolist() == [[0.0, 1.0], [2.0, 3.0]] and state["epoch"] == 2
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert len(manager.get_training_history()["runs"]) == 2
        saved = manager.save_checkpoint(model, optimizer, None, state["config"], 3, {"mAP50_95": 0.8})
        assert saved["sequence"] > max(info.sequence for info in manager.list_checkpoints()[1:])


def test_its_version_its_alias_and_its_log_are_sound_and_can_be_gone_on_with(home: Path) -> None:
    """A17, D4."""
    versions = ModelVersions(home)
    (version,) = versions.versions()
    assert (version.name, version.classes, version.threshold) == ("v1", ("1000", "2000"), 0.4)
    assert versions.aliases() == {"produksi": 1} and versions.verify() == []
    log = OperationLog(home / "operations.jsonl")
    found = log.verify()
    assert (found.entries, found.alteration) == (3, None)
    versions.apply(versions.check_promote(1, "kandidat"))
    assert versions.aliases() == {"produksi": 1, "kandidat": 1} and log.verify().entries == 4
