"""The document of the CheckpointManager: every code block runs verbatim, what it prints is compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkpoint_toys import CONFIG, Toy

from smartcash.domain.errors import CheckpointWriteFailed
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.utils.logger import get_logger

DOCUMENT = Path(__file__).parent / "checkpoint-manager.id.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


def test_every_code_block_runs_verbatim_and_prints_what_the_document_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """B1-B32: one session through the whole document, with a real model, optimizer and schedule.

    The only change: the Drive of the document is looked for below a temporary folder.
    """
    monkeypatch.chdir(tmp_path)
    drive = tmp_path / "content" / "drive"
    (drive / "MyDrive").mkdir(parents=True)
    toy = Toy()
    names = {
        "model": toy.model, "optimizer": toy.optimizer, "scheduler": toy.scheduler,
        "config": CONFIG, "current_epoch": 10, "val_loss": 0.25, "val_accuracy": 0.9, "best_val_loss": 0.5,
    }  # fmt: skip
    assert len(BLOCKS) == 9
    printed = []
    for block in BLOCKS:
        if "validate_checkpoint" in block:
            (tmp_path / "path" / "to").mkdir(parents=True)
            (tmp_path / "path/to/checkpoint.pth").write_bytes(names["checkpoint_path"].read_bytes())
        exec(compile(block.replace("/content/drive", str(drive)), "document", "exec"), names)
        printed.append(capsys.readouterr().out)

    path = names["checkpoint_path"]
    assert path.parent == tmp_path / "runs/train/weights" and path.suffix == ".pth"
    assert printed[1] == f"✅ Checkpoint disimpan ke: {path}\n"
    assert printed[2] == "📂 Melanjutkan training dari epoch 10\n"
    assert (
        names["best_checkpoint_path"]
        == names["latest_checkpoint_path"]
        == names["epoch10_checkpoint"]
        == path
    )
    assert [info.path for info in names["filtered_checkpoints"]] == [path]
    assert printed[4] == "🧹 0 checkpoint lama dibersihkan\n"
    assert printed[5] == "📤 1 checkpoint disalin ke Drive\n"
    assert (drive / "MyDrive/SmartCash/checkpoints" / path.name).read_bytes() == path.read_bytes()
    assert printed[6] == "📊 Total sesi training: 1\n💾 Riwayat training disimpan ke training_history.json\n"
    assert (tmp_path / "training_history.json").exists()
    assert "best" in printed[7] or "terbaik" in printed[7]
    assert printed[8] == "✅ Checkpoint valid dan lengkap\n"


def test_the_other_branch_of_the_validation_block_names_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """B18, B32: "❌ Checkpoint tidak valid: …" with the message."""
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[8], "document", "exec"), {"checkpoint_manager": CheckpointManager()})
    assert capsys.readouterr().out.startswith("❌ Checkpoint tidak valid: path/to/checkpoint.pth")


def test_the_drive_block_on_a_machine_without_drive_is_a_clear_error_and_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: Toy
) -> None:
    """B14: verbatim, nothing replaced."""
    if Path("/content/drive").exists():
        pytest.skip("a Drive is mounted here")
    monkeypatch.chdir(tmp_path)
    manager = CheckpointManager()
    toy.save(manager, 1)
    with pytest.raises(CheckpointWriteFailed) as caught:
        exec(compile(BLOCKS[5], "document", "exec"), {"checkpoint_manager": manager})
    assert caught.value.code == "checkpoint_drive_missing"
    assert not Path("/content/drive").exists()


def test_the_package_has_exactly_the_seven_files_of_the_document() -> None:
    """B1."""
    import smartcash.handlers.checkpoint as package

    named = set(re.findall(r"[├└]── (\w+\.py)", DOCUMENT.read_text(encoding="utf-8")))
    there = {path.name for path in Path(package.__file__).parent.glob("*.py")}
    assert there == named and len(named) == 7


def test_the_package_exports_manager_and_components() -> None:
    """B2, B4."""
    import smartcash.handlers.checkpoint as package

    for name in ("Manager", "Loader", "Saver", "Finder", "History"):
        assert f"Checkpoint{name}" in package.__all__


def test_the_manager_only_delegates() -> None:
    """B3: no method of the facade reads or writes a file itself."""
    import inspect

    source = inspect.getsource(inspect.getmodule(CheckpointManager))  # type: ignore[arg-type]
    assert not re.search(r"\bopen\(|torch\.(save|load)|\.replace\(|unlink|json\.", source)


def test_get_logger_marks_the_level_and_is_the_same_object_for_the_same_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """B5."""
    logger = get_logger("training")
    assert logger is get_logger("training") and logger.name == "smartcash.training"
    logger.warning("hati-hati")
    assert capsys.readouterr().err.startswith("⚠️ ")


def test_troubleshooting_not_found_shows_folder_list_and_permission(tmp_path: Path, toy: Toy) -> None:
    """B24, B25, B33: `output_dir` and `list_checkpoints()`."""
    manager = CheckpointManager(tmp_path / "w")
    assert manager.output_dir == tmp_path / "w" and manager.list_checkpoints() == []
    toy.save(manager, 3)
    assert [info.epoch for info in manager.list_checkpoints()] == [3]
    assert manager.doctor()["writable"]


def test_troubleshooting_changed_model_loads_with_strict_false_on_the_model(tmp_path: Path, toy: Toy) -> None:
    """B26, B33: the returned state dict goes into `model.load_state_dict(…, strict=False)`."""
    manager = CheckpointManager(tmp_path / "w")
    toy.save(manager, 3)
    larger = Toy()
    larger.model.append(__import__("torch").nn.Linear(3, 2))
    state = manager.load_checkpoint()["model_state_dict"]
    report = larger.model.load_state_dict(state, strict=False)
    assert report.missing_keys == ["3.weight", "3.bias"]


def test_troubleshooting_incomplete_history_is_completed_from_the_checkpoints(
    tmp_path: Path, toy: Toy
) -> None:
    """B27, B33: `training_history.yaml` in the folder, and its JSON."""
    manager = CheckpointManager(tmp_path / "w")
    toy.save(manager, 1)
    toy.save(manager, 2)
    manager.wait()
    (manager.output_dir / "training_history.yaml").unlink()
    again = CheckpointManager(tmp_path / "w")
    assert [row["epoch"] for row in again.get_training_history()["runs"]] == [1, 2]
    again.doctor()
    assert (manager.output_dir / "training_history.yaml").exists()
