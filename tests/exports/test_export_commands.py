"""`smartcash export`, `export verify` and `benchmark` on a run that was really trained (A19, D11)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ExportRefused
from smartcash.domain.exports import ExportRecord, ExportRequest
from smartcash.handlers.exports import Exports
from smartcash.handlers.operation_log import OperationLog
from smartcash.worker import benchmark_exports, export_model, train, verify_export

WEIGHTS = ExportRequest("safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector trained for one epoch on drawn notes: its folder."""
    folder = tmp_path_factory.mktemp("trained")
    write_samples(folder / "notes", images=20, seed=3, size_px=96)
    config = TrainConfig.parse(
        {
            "data": {"path": str(folder / "notes"), "image_size": 64, "batch_size": 4, "workers": 0},
            "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
            "training": {"epochs": 1, "previews": {"count": 0}},
            "runtime": {"threads": 1},
        }
    )
    made, _ = train(config, folder / "home")
    return made.path


def smartcash(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smartcash", *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", timeout=240, check=False,
        env=os.environ | {"SMARTCASH_HOME": str(home), "SMARTCASH_LANG": "en", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


def test_a_run_is_exported_proved_recorded_and_verified_again_elsewhere(run: Path, tmp_path: Path):
    """A19, A29, D11: on the run's own validation pictures; the record and the log name file, checkpoint and hash."""
    home = run.parents[1]
    answer = smartcash("export", run.name, "--format", "safetensors", home=home)
    assert answer.returncode == 0, answer.stderr
    assert "verified on 3 pictures (validation split)" in answer.stdout
    (record,) = Exports(run / "exports", home).present()
    assert record.file == "mobilenetv4_conv_small-64.safetensors" and record.state == "verified"
    (logged,) = OperationLog(home / "operations.jsonl").operations(operation="export")
    assert (logged.run, logged.version, logged.result) == (run.name, record.checkpoint_sha256, "done")
    assert {change.field: change.new for change in logged.changes}["export.sha256"] == record.sha256
    assert logged.who.interface == "cli"

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run / "exports", elsewhere)
    answer = smartcash("export", "verify", elsewhere / record.file, "--json", home=tmp_path)
    facts = json.loads(answer.stdout)
    assert (answer.returncode, facts["state"], facts["pictures"]) == (0, "verified", "reference")
    lineage = facts["metadata"]["lineage"]
    assert lineage["run"] == run.name and lineage["checkpoint_sha256"] == record.checkpoint_sha256
    assert lineage["data"] and lineage["epoch"] == 1


def test_a_checkpoint_without_its_run_and_data_is_proved_on_drawn_pictures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """D11: which is said, in the record too."""
    monkeypatch.setenv("SMARTCASH_HOME", str(tmp_path / "home"))
    for file in (run / "weights").iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copy(file, tmp_path)
    notes = run.parents[2] / "notes"
    notes.rename(notes.with_name("away"))
    try:
        checkpoint = next(tmp_path.glob("*best*.pth"))
        (record,) = export_model(str(checkpoint), [WEIGHTS], tmp_path / "mine.safetensors")
    finally:
        notes.with_name("away").rename(notes)
    assert isinstance(record, ExportRecord)
    assert record.state == "verified" and record.proof["pictures"] == "drawn"
    assert record.file == str(tmp_path / "mine.safetensors")
    assert verify_export(tmp_path / "mine.safetensors")[0].state == "verified"


def test_the_benchmark_measures_the_model_and_each_of_its_files(run: Path):
    """A19: latency, throughput, size and metric; a file that is gone is not in it."""
    (record,) = export_model(str(run), [ExportRequest("safetensors", batch=2)])
    assert isinstance(record, ExportRecord)
    rows = list(benchmark_exports(str(run), seconds=0.1, threads=1))
    assert rows[0]["format"] == "torch"
    mine = next(row for row in rows if row["file"] == record.file)
    assert 0 < mine["p50_ms"] <= mine["p95_ms"] and mine["images_per_s"] > 0 and mine["batch"] == 2
    assert mine["size_bytes"] == record.size_bytes and mine["metric"] == "mAP50_95"
    (run / "exports" / record.file).unlink()
    assert record.file not in {row["file"] for row in benchmark_exports(str(run), seconds=0.1, threads=1)}


def test_a_failed_export_is_recorded_as_failed_and_the_command_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    """A34, D11: a limit of zero, which no other kernel meets."""
    from smartcash.backend.exporters import gate

    monkeypatch.setitem(gate.LIMITS, "fp32", {"box_px": -1.0, "score": -1.0, "agreement": 1.0})
    (record,) = export_model(str(run), [ExportRequest("safetensors", image_size=96)])
    assert isinstance(record, ExportRecord)
    assert record.state == "failed" and record.proof["reason"] == "box_px"
    assert not (run / "exports" / "mobilenetv4_conv_small-96.safetensors").exists()
    logged = OperationLog(run.parents[1] / "operations.jsonl").operations(operation="export")[-1]
    assert logged.result == "export_failed"


def test_wrong_usage_is_refused_before_anything_is_loaded(run: Path, tmp_path: Path):
    """A33, A34: two formats for one file, a wrong suffix, size and batch, an unknown run."""
    home = run.parents[1]
    wrong = [
        ("--format", "onnx", "--format", "pt2", "--out", tmp_path / "a.onnx"),
        ("--format", "pt2", "--out", tmp_path / "a.onnx"),
        ("--image-size", "100"),
        ("--batch", "0"),
    ]
    for arguments in wrong:
        answer = smartcash("export", run.name, *arguments, home=home)
        assert answer.returncode == 2, arguments
        assert "Traceback" not in answer.stderr and not list(tmp_path.iterdir())
    assert smartcash("export", "nothing", home=home).returncode == 2


def test_a_damaged_list_of_exports_is_named(tmp_path: Path):
    """A34."""
    (tmp_path / "exports.json").write_text("[{")
    with pytest.raises(ExportRefused, match=r"exports\.json"):
        Exports(tmp_path, tmp_path).records()
