"""Loading and validating: damage is always seen, nothing foreign is ever run."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_toys import CONFIG, Toy, flip, same

from smartcash.domain.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUntrusted,
)
from smartcash.handlers.checkpoint import CheckpointManager


def test_states_are_restored_in_place_and_the_resume_is_recorded(
    manager: CheckpointManager, toy: Toy
) -> None:
    """B9, B23: also the learning rate of the schedule and the moments."""
    toy.train(3)
    toy.save(manager, 3)
    fresh = Toy(steps=0)
    result = manager.load_checkpoint(model=fresh.model, optimizer=fresh.optimizer, scheduler=fresh.scheduler)
    assert result.get("epoch", 0) == 3 and result["fallback_from"] is None and result["skipped"] == []
    assert same(fresh.model.state_dict(), toy.model.state_dict())
    assert same(fresh.optimizer.state_dict(), toy.optimizer.state_dict())
    assert fresh.scheduler.state_dict() == toy.scheduler.state_dict()
    assert manager.get_training_history()["last_resume"]["checkpoint"] == result["path"].name


def test_which_takes_best_latest_or_an_epoch(manager: CheckpointManager, toy: Toy) -> None:
    """C2."""
    for epoch, loss in ((1, 0.5), (2, 0.1), (3, 0.3)):
        toy.save(manager, epoch, loss)
    assert [manager.load_checkpoint(which=w)["epoch"] for w in ("best", "latest", 1)] == [2, 3, 1]
    with pytest.raises(CheckpointNotFound, match="epoch 9"):
        manager.load_checkpoint(which=9)
    with pytest.raises(ValueError, match="choose"):
        manager.load_checkpoint(which="newest")


def test_a_damaged_newest_falls_back_to_the_newest_older_good_one_and_says_so(
    manager: CheckpointManager,
    toy: Toy,
    reopened: Callable[[], CheckpointManager],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """C6."""
    paths = [toy.save(manager, epoch, 1 / epoch)["path"] for epoch in (1, 2, 3)]
    flip(paths[2], 5000)
    flip(paths[1].with_suffix(".json"), 900)
    result = reopened().load_checkpoint()
    assert result["epoch"] == 1 and result["fallback_from"] == paths[2]
    assert str(paths[2]) in caplog.text
    assert reopened().find_best_checkpoint() == reopened().find_latest_checkpoint() == paths[0]
    with pytest.raises(CheckpointCorrupt):
        reopened().load_checkpoint(paths[2])


def test_damage_is_seen_by_the_process_that_wrote_the_file_too(manager: CheckpointManager, toy: Toy) -> None:
    path = toy.save(manager, 1)["path"]
    assert manager.find_best_checkpoint() == path
    flip(path, 4000)
    assert manager.find_best_checkpoint() is None


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_flipped_bits_are_all_detected(
    manager: CheckpointManager, toy: Toy, reopened: Callable[[], CheckpointManager], seed: int
) -> None:
    """Fault 5: 250 places for each seed, in the file and in the sidecar."""
    path = toy.save(manager, 1)["path"]
    other, choose = reopened(), random.Random(seed)
    for turn in range(250):
        target = path if turn % 2 else path.with_suffix(".json")
        bit = choose.randrange(target.stat().st_size * 8)
        flip(target, bit)
        valid, info = other.validate_checkpoint(path)
        assert not valid and info["code"].startswith("checkpoint_"), (target.suffix, bit)
        flip(target, bit)
    assert other.validate_checkpoint(path)[0]


def test_every_truncation_and_every_addition_is_detected(manager: CheckpointManager, toy: Toy) -> None:
    """Fault 5: cut at every 1/64, empty, junk behind; file and sidecar."""
    path = toy.save(manager, 1)["path"]
    for target in (path, path.with_suffix(".json")):
        data = target.read_bytes()
        for part in range(64):
            target.write_bytes(data[: len(data) * part // 64])
            assert not manager.validate_checkpoint(path)[0]
        target.write_bytes(data + b"\n")
        assert not manager.validate_checkpoint(path)[0]
        target.write_bytes(data)
    assert manager.validate_checkpoint(path)[0]


def test_damage_in_a_file_without_sidecar_is_seen_by_its_own_checksums(
    manager: CheckpointManager, toy: Toy, tmp_path: Path
) -> None:
    """B18, B19: torch.load itself would load it silently; also as `.pt`."""
    lonely = tmp_path / "lonely.pt"
    shutil.copy(toy.save(manager, 1)["path"], lonely)
    valid, info = manager.validate_checkpoint(lonely)
    assert valid and info["proof"] == "crc" and manager.load_checkpoint(lonely)["epoch"] == 1
    with zipfile.ZipFile(lonely) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    at = lonely.read_bytes().index(toy.model[0].weight.detach().numpy().tobytes())
    assert entry.file_size > 0
    flip(lonely, (at + 9) * 8)
    torch.load(lonely, weights_only=True)
    assert manager.validate_checkpoint(lonely)[1]["code"] == "checkpoint_hash_differs"


def test_swapped_files_and_sidecars_are_detected(manager: CheckpointManager, toy: Toy, folder: Path) -> None:
    """Fault 6: also a sidecar of another run."""
    first, second = (toy.save(manager, epoch)["path"] for epoch in (1, 2))
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    assert not manager.validate_checkpoint(first)[0] and not manager.validate_checkpoint(second)[0]
    first.write_bytes(data[0])
    shutil.copy(second.with_suffix(".json"), first.with_suffix(".json"))
    assert manager.validate_checkpoint(first)[1]["code"] == "checkpoint_sidecar_damaged"


class Bomb:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


@pytest.fixture
def fired(tmp_path: Path) -> Path:
    return tmp_path / "fired"


def hostile(kind: str, fired: Path, path: Path) -> None:
    bomb = {"epoch": 1, "model_state_dict": {"w": torch.zeros(1)}, "x": Bomb(fired)}
    if kind == "torch zip":
        torch.save(bomb, path)
    elif kind == "old torch format":
        torch.save(bomb, path, _use_new_zipfile_serialization=False)
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif kind == "pickle in bytes":
        inner = io.BytesIO()
        torch.save(bomb, inner)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", pickle.dumps(bomb, 2))
            archive.writestr("a/version", "3")
            archive.writestr("a/inner.pth", inner.getvalue())


@pytest.mark.parametrize("kind", ["torch zip", "old torch format", "bare pickle", "pickle in bytes"])
def test_a_hostile_file_is_refused_before_any_of_its_code_runs(
    manager: CheckpointManager, fired: Path, tmp_path: Path, kind: str
) -> None:
    """Fault 7, B18: load, validate, doctor, metadata; with and without a sidecar."""
    path = manager.output_dir / "smartcash_a_b_best_20250101_000000.pth"
    hostile(kind, fired, path)
    for attempt in (manager.load_checkpoint, manager.extract_metadata, manager.load_state_without_model):
        with pytest.raises((CheckpointUntrusted, CheckpointCorrupt)):
            attempt(path)
    valid, info = manager.validate_checkpoint(path)
    assert not valid and (
        kind != "torch zip" or (info["code"] == "checkpoint_untrusted" and "open" in info["message"])
    )
    manager.doctor(adopt=True)
    assert manager.find_best_checkpoint() is None and not fired.exists()


def test_a_hostile_file_with_a_good_sidecar_is_refused_too(
    manager: CheckpointManager, toy: Toy, fired: Path, reopened: Callable[[], CheckpointManager]
) -> None:
    """Fault 7: the hash proves who wrote it last, not that it is harmless."""
    from dataclasses import replace

    from smartcash.handlers.checkpoint.checkpoint_utils import sidecar_bytes
    from smartcash.utils.files import sha256_of

    good, path = toy.save(manager, 1)["path"], toy.save(manager, 2)["path"]
    hostile("torch zip", fired, path)
    with path.open("rb") as file:
        info = replace(manager.list_checkpoints()[0], size=path.stat().st_size, sha256=sha256_of(file))
    path.with_suffix(".json").write_bytes(sidecar_bytes(info))
    with pytest.raises(CheckpointUntrusted):
        reopened().load_checkpoint(path)
    assert reopened().load_checkpoint(which="latest")["path"] == good and not fired.exists()


@pytest.mark.slow
def test_importing_a_pickled_file_is_explicit_and_runs_in_another_process(
    manager: CheckpointManager, toy: Toy, tmp_path: Path, fired: Path
) -> None:
    """The earlier layout pickled whole objects: they become plain, and older than every other checkpoint."""
    toy.save(manager, 9)
    old = tmp_path / "old.pth"
    torch.save({"epoch": 4, "model": toy.model, "metrics": {"loss": 1.0}, "junk": Bomb(fired)}, old)
    with pytest.raises(CheckpointUntrusted):
        manager.load_checkpoint(old)
    path = manager.import_untrusted(old)
    assert fired.exists()  # it ran, in the other process, because we asked for it
    loaded = manager.load_checkpoint(path)
    assert loaded["epoch"] == 4 and same(loaded["model_state_dict"], toy.model.state_dict())
    assert manager.load_checkpoint(which="latest")["epoch"] == 9


@pytest.mark.slow
def test_importing_what_is_no_checkpoint_is_a_named_error(manager: CheckpointManager, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"nothing")
    with pytest.raises(CheckpointCorrupt) as caught:
        manager.import_untrusted(broken)
    assert caught.value.code == "checkpoint_import_failed"


def test_a_model_with_other_classes_is_refused_unchanged_and_loads_partly_on_request(
    manager: CheckpointManager, toy: Toy
) -> None:
    """B26: missing, unexpected and mismatched by name."""
    toy.save(manager, 1)
    other = Toy(classes=5)
    other.model.append(torch.nn.Linear(5, 2))
    before = {key: value.clone() for key, value in other.model.state_dict().items()}
    with pytest.raises(CheckpointMismatch) as caught:
        manager.load_checkpoint(model=other.model)
    assert "2.weight (3, 8) → (5, 8)" in str(caught.value) and "3.bias" in str(caught.value)
    assert same(dict(other.model.state_dict()), before)
    report = manager.load_checkpoint(model=other.model, optimizer=other.optimizer, strict=False)
    assert report["missing_keys"] == ["3.weight", "3.bias"] and report["unexpected_keys"] == []
    assert report["mismatched_shapes"] == ["2.weight (3, 8) → (5, 8)", "2.bias (3,) → (5,)"]
    assert report["skipped"] == ["optimizer_state_dict"]
    assert same(other.model[0].state_dict(), toy.model[0].state_dict())


def test_an_optimizer_that_does_not_fit_changes_nothing(manager: CheckpointManager, toy: Toy) -> None:
    toy.save(manager, 1)
    fresh = Toy(steps=0)
    before = {key: value.clone() for key, value in fresh.model.state_dict().items()}
    groups = torch.optim.AdamW([{"params": [p]} for p in fresh.model.parameters()])
    with pytest.raises(CheckpointMismatch, match="optimizer_state_dict"):
        manager.load_checkpoint(model=fresh.model, optimizer=groups)
    assert same(dict(fresh.model.state_dict()), before)


def test_missing_files_and_folders_are_named(manager: CheckpointManager, tmp_path: Path) -> None:
    """B18: validation never raises for a bad file."""
    for path, code in (
        (tmp_path / "no.pth", "checkpoint_not_found"),
        (tmp_path, "checkpoint_forbidden"),
        (tmp_path / "text.pth", "checkpoint_not_torch"),
        (tmp_path / "list.pth", "checkpoint_incomplete"),
        (tmp_path / "partial.pth", "checkpoint_incomplete"),
    ):
        if path.name == "text.pth":
            path.write_text("hello")
        if path.name == "list.pth":
            torch.save([1, 2], path)
        if path.name == "partial.pth":
            torch.save({"model_state_dict": {}}, path)
        valid, info = manager.validate_checkpoint(path)
        assert (valid, info["code"]) == (False, code) and info["message"]
    with pytest.raises(CheckpointNotFound):
        manager.load_checkpoint()


def test_weights_of_another_program_are_told_from_checkpoints_and_from_damage(
    manager: CheckpointManager, toy: Toy, tmp_path: Path, english: None
) -> None:
    """B18: whole and safe to load, and what they are good for."""
    weights = toy.model.state_dict()
    for name, content in (
        ("bare", weights),
        ("lightning", {"state_dict": weights, "epoch": 3}),
        ("torchvision", {"model": weights, "epoch": 3}),
        ("no epoch", {"model_state_dict": weights}),
        ("list", [weights]),
        ("nested", {"model": {"state": {"w": torch.zeros(2)}}}),
    ):
        torch.save(content, tmp_path / f"{name}.pth")
        valid, info = manager.validate_checkpoint(tmp_path / f"{name}.pth")
        assert (valid, info["code"], info["smartcash"]) == (False, "checkpoint_foreign", False), name
        assert "safe to load" in info["message"] and "predict" in info["message"]
    torch.save({"epoch": 3, "model_state_dict": weights}, tmp_path / "states.pth")
    valid, info = manager.validate_checkpoint(tmp_path / "states.pth")
    assert (valid, info["code"], info["epoch"], info["smartcash"]) == (True, "ok", 3, False)
    assert "safe to load" in info["message"] and "predict" in info["message"]
    other = Toy()
    manager.load_checkpoint(tmp_path / "states.pth", model=other.model)  # as the message says
    assert same(dict(other.model.state_dict()), dict(weights))


@pytest.mark.parametrize("part", ["config", "classes", "preprocess", "ema_state_dict"])
def test_parts_in_another_form_are_no_model_of_ours(
    manager: CheckpointManager, toy: Toy, tmp_path: Path, part: str
) -> None:
    """B18: whatever a file holds under the names that ours have, it is told and nothing breaks."""
    parts = {"config": {"a": 1}, "classes": ["a"], "preprocess": {"a": 1}, "ema_state_dict": {"model": {}}}
    state = {"epoch": 1, "model_state_dict": toy.model.state_dict(), **parts, part: torch.arange(3)}
    torch.save(state, tmp_path / "other.pth")
    valid, info = manager.validate_checkpoint(tmp_path / "other.pth")
    assert (valid, info["smartcash"]) == (True, False) and part in info["message"]


def test_the_doctor_leaves_weights_of_another_program_where_they_are(
    manager: CheckpointManager, toy: Toy, reopened: Callable[[], CheckpointManager]
) -> None:
    """B33: they read well, so they are not damaged; they are named."""
    toy.save(manager, 1)
    foreign = manager.output_dir / "resnet18.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, foreign)
    report = reopened().doctor()
    assert foreign.exists() and report["unverified"] == [foreign.name] and report["damaged"] == []


def test_the_doctor_sets_aside_what_is_damaged_and_deletes_nothing(
    manager: CheckpointManager, toy: Toy, reopened: Callable[[], CheckpointManager]
) -> None:
    """B33."""
    paths = [toy.save(manager, epoch)["path"] for epoch in (1, 2, 3)]
    flip(paths[1], 800)
    paths[2].with_suffix(".json").write_text("{}")
    report = reopened().doctor()
    assert {row["name"] for row in report["damaged"]} == {paths[1].name, paths[2].name}
    assert report["good"] == [paths[0].name] and not report["healthy"]
    assert {p.name for p in (manager.output_dir / "quarantine").glob("*.pth")} == {p.name for p in paths[1:]}
    assert reopened().doctor()["healthy"]
    assert toy.save(manager, 4)["sequence"] > 1


def test_a_checkpoint_of_a_later_format_is_named_and_left_alone(
    manager: CheckpointManager, toy: Toy, reopened: Callable[[], CheckpointManager], english: None
) -> None:
    """B33: not taken for damaged, neither by a load, which would go on from an older one, nor by the doctor."""
    toy.save(manager, 1)
    path = toy.save(manager, 2)["path"]
    sidecar = path.with_suffix(".json")
    facts = {**json.loads(sidecar.read_text()), "format": 2, "shards": 4}
    del facts["check"]
    body = json.dumps(facts)
    check = hashlib.sha256(body.encode()).hexdigest()
    sidecar.write_text(f'{body[:-1]}, "check": "{check}"}}\n')
    later = reopened()
    for asked in (
        later.load_checkpoint,
        later.doctor,
        later.list_checkpoints,
        lambda: later.load_checkpoint(path),
    ):
        with pytest.raises(CheckpointMismatch, match="newer SmartCash"):
            asked()
    assert path.exists() and sidecar.exists() and not (path.parent / "quarantine").exists()


def test_an_old_folder_opens_and_can_be_adopted(
    folder: Path, toy: Toy, reopened: Callable[[], CheckpointManager]
) -> None:
    """Files and history of the earlier layout."""
    folder.mkdir()
    names = [
        "smartcash_efficientnet_b4_roboflow_best_20250301_101500.pth",
        "smartcash_efficientnet_b4_roboflow_epoch_epoch_10_20250301_111500.pth",
    ]
    for epoch, name in zip((9, 10), names, strict=True):
        state = {
            "epoch": epoch,
            "model_state_dict": toy.model.state_dict(),
            "metrics": {"loss": 0.1},
            "config": CONFIG,
        }
        torch.save(state, folder / name)
    row = f"  - {{checkpoint_name: {names[0]}, epoch: 9, is_best: true, metrics: {{loss: 1e-3}}, timestamp: '2025'}}"
    (folder / "training_history.yaml").write_text(f"total_runs: 1\nlast_resume: null\nruns:\n{row}\n")
    manager = reopened()
    assert [(info.state, info.epoch, info.dataset) for info in manager.list_checkpoints()] == [
        ("unverified", 10, "roboflow"), ("unverified", None, "roboflow"),
    ]  # fmt: skip
    assert manager.validate_checkpoint(folder / names[0])[0] and manager.find_best_checkpoint() is None
    assert manager.get_training_history()["runs"][0]["metrics"] == {"loss": 0.001}
    assert sorted(manager.doctor(adopt=True)["adopted"]) == sorted(names)
    new = toy.save(manager, 11, 0.9)
    assert [info.epoch for info in manager.list_checkpoints()] == [11, 10, 9]
    assert manager.load_checkpoint(which=9)["path"].name == names[0] and new["sequence"] == 1
    assert len(manager.get_training_history()["runs"]) == 3


def test_metadata_needs_no_tensors(manager: CheckpointManager, toy: Toy, tmp_path: Path) -> None:
    path = toy.save(manager, 3)["path"]
    facts = manager.extract_metadata(path)
    assert facts["epoch"] == 3 and facts["backbone"] == "efficientnet_b4" and json.dumps(facts)
    lonely = tmp_path / "lonely.pth"
    shutil.copy(path, lonely)
    assert manager.extract_metadata(lonely)["metrics"] == {"loss": 0.5}
    assert "model_state_dict" not in manager.extract_metadata(lonely)
