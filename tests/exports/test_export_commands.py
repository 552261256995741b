"""`smartcash export`, `export verify` and `benchmark` on a run that was really trained (A19, D11)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from smartcash.backend import exporters
from smartcash.backend.benchmark_page import benchmark_page
from smartcash.backend.data import Pictures
from smartcash.backend.samples import write_samples
from smartcash.cli.benchmark import _cells
from smartcash.cli.export import command
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import DataInvalid, ExportRefused
from smartcash.domain.exports import ExportRecord, ExportRequest
from smartcash.handlers.exports import Exports
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.run_store import RunFolder
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


def exported(model: object, *requests: ExportRequest) -> list[ExportRecord]:
    """Only records: nothing was refused."""
    made = list(export_model(str(model), requests))
    assert all(isinstance(each, ExportRecord) for each in made)
    return made  # type: ignore[return-value]


@pytest.fixture
def valid_picture(run: Path) -> Iterator[Path]:
    """A validation picture of the run's data; afterwards it is as it was."""
    path = sorted((run.parents[2] / "notes" / "images" / "valid").iterdir())[0]
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def test_a_picture_that_is_damaged_inside_is_left_out_and_the_data_are_said_to_be_others(
    run: Path, valid_picture: Path
):
    """A19, A29, D11: what trained can be exported, but the proof does not claim the run's own pictures."""
    whole = valid_picture.read_bytes()
    valid_picture.write_bytes(whole[: len(whole) // 2])
    (record,) = exported(run, WEIGHTS)
    assert (record.state, record.proof["pictures"], record.proof["count"]) == ("verified", "other", 2)
    answer = smartcash("export", run.name, "--format", "safetensors", home=run.parents[1])
    assert "OTHER data" in answer.stdout


def test_a_picture_that_goes_away_meanwhile_is_named_and_not_laid_on_the_format(
    run: Path, valid_picture: Path, monkeypatch: pytest.MonkeyPatch
):
    """A34: gone after the data set was read."""
    fetch = Pictures.fetch

    def gone(self: Pictures, row: int):
        valid_picture.unlink(missing_ok=True)
        return fetch(self, row)

    monkeypatch.setattr(Pictures, "fetch", gone)
    with pytest.raises(DataInvalid) as caught:
        list(export_model(str(run), [WEIGHTS]))
    assert caught.value.code == "picture_unreadable" and valid_picture.name in str(caught.value)


def test_a_version_is_exported_into_its_run_with_the_lineage_of_that_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A19, D11: by its number; and where the run is gone, to a folder of the version's own."""
    home = run.parents[1]
    version = ModelVersions(home).add(str(run))
    monkeypatch.setenv("SMARTCASH_HOME", str(home))
    (record,) = exported(version.name, replace(WEIGHTS, image_size=128))
    assert record.checkpoint == version.checkpoint and record.checkpoint_sha256 == version.sha256
    assert record.sha256 in {each.sha256 for each in Exports(run / "exports", home).present()}
    lineage = verify_export(run / "exports" / record.file)[1]["lineage"]
    assert (lineage["run"], lineage["data"]) == (run.name, version.data["content_hash"])
    assert lineage["git"] == version.code

    alone = tmp_path / "home"
    shutil.copytree(home / "models", alone / "models")
    shutil.copy(home / "versions.json", alone)
    monkeypatch.setenv("SMARTCASH_HOME", str(alone))
    (record,) = exported(version.name, WEIGHTS)
    assert (alone / "exports" / version.name / record.file).is_file()
    assert record.proof["pictures"] == "validation"


def test_the_code_that_trained_and_the_code_that_exports_are_told_apart(run: Path):
    """D11."""
    facts = RunFolder(run)
    now = facts.description()["git"]
    facts.describe({"git": "abc1234"})
    try:
        (record,) = exported(run, replace(WEIGHTS, image_size=192))
    finally:
        facts.describe({"git": now})
    _, metadata = verify_export(run / "exports" / record.file)
    assert (metadata["lineage"]["git"], metadata["tools"]["git"]) == ("abc1234", now)


def test_a_file_of_another_checkpoint_is_not_replaced(run: Path):
    """A19, A29: it has the name that would be taken; the new one is told apart by its checkpoint."""
    home = run.parents[1]
    request = ExportRequest("safetensors", image_size=160)
    (first,) = exported(run, request)
    exports = Exports(run / "exports", home)
    exports.add(replace(first, checkpoint_sha256="0" * 64))
    before = (run / "exports" / first.file).read_bytes()
    (second,) = exported(run, request)
    assert second.file == f"mobilenetv4_conv_small-160-{second.checkpoint_sha256[:8]}.safetensors"
    assert (run / "exports" / first.file).read_bytes() == before


def test_a_refused_format_does_not_keep_the_others_back(run: Path, monkeypatch: pytest.MonkeyPatch):
    """A19, A33: each is told; the exit code says that one asked for by name was refused, unless all were asked for."""
    monkeypatch.setenv("SMARTCASH_HOME", str(run.parents[1]))
    monkeypatch.setattr(exporters, "find_spec", lambda name: None)
    formats = ["--format", "openvino", "--format", "safetensors"]
    answer = CliRunner().invoke(command, [*formats, "latest"], catch_exceptions=False)
    assert answer.exit_code == 2
    assert (
        "smartcash[openvino]" in answer.output and "✓ mobilenetv4_conv_small-64.safetensors" in answer.output
    )


def test_a_refusal_that_needs_no_model_comes_before_one_is_loaded():
    """A33: even where there is no such run."""
    for request, code in [
        (ExportRequest("safetensors", "int8"), "export_precision"),
        (ExportRequest("pt2", nms=True), "export_nms"),
        (ExportRequest("tflite3"), "export_format"),
    ]:
        (refused,) = export_model("no-such-run", [request])
        assert isinstance(refused, ExportRefused) and refused.code == code


@pytest.mark.parametrize(
    ("wrong", "code"), [({"batch": 0}, "export_batch"), ({"image_size": 100}, "export_size")]
)
def test_a_request_for_an_impossible_size_or_batch_is_refused_in_python_too(wrong: dict[str, int], code: str):
    """A33."""
    with pytest.raises(ExportRefused) as caught:
        ExportRequest("onnx", **wrong)  # type: ignore[arg-type]
    assert caught.value.code == code


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
    (weights,) = exported(run, WEIGHTS)
    rows = list(benchmark_exports(str(run), seconds=0.1, threads=1))
    own = rows[0]
    assert (own["format"], own["metric"], own["value"]) == (
        "torch",
        "mAP50_95",
        weights.proof["metric_torch"],
    )
    tensors = load_file(run / "exports" / weights.file)
    assert own["size_bytes"] == sum(tensor.nbytes for tensor in tensors.values()) <= weights.size_bytes
    mine = next(row for row in rows if row["file"] == record.file)
    assert 0 < mine["p50_ms"] <= mine["p95_ms"] and mine["images_per_s"] > 0 and mine["batch"] == 2
    assert mine["size_bytes"] == record.size_bytes and mine["metric"] == "mAP50_95"
    named = {**own, "file": "<run>.pth"}
    page = benchmark_page([named, *rows[1:], {"file": "gone.onnx", "error": "<b>gone</b>"}]).decode()
    assert record.file in page and "&lt;run&gt;.pth" in page and "&lt;b&gt;gone&lt;/b&gt;" in page
    assert page.count('class="bar"') == 4 * len(rows) and "<script" not in page
    (run / "exports" / record.file).unlink()
    assert record.file not in {row["file"] for row in benchmark_exports(str(run), seconds=0.1, threads=1)}


def test_a_file_that_cannot_be_run_costs_the_benchmark_no_other_row(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    """A19, A34: opened and then refused by its runtime."""
    exported(run, WEIGHTS)
    form = exporters.FORMATS["safetensors"]

    def refuses(images: object):
        raise ValueError("InvalidArgument")

    monkeypatch.setitem(exporters.FORMATS, "safetensors", replace(form, open=lambda path, threads: refuses))
    own, *others = benchmark_exports(str(run), seconds=0.1, threads=1)
    assert own["p50_ms"] > 0 and others and all("InvalidArgument" in row["error"] for row in others)


def test_a_file_that_runs_on_another_system_is_told_by_every_command(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    """A19, A34, D11: written and NOT verified, not verified again, left out of the benchmark, each with the system."""
    monkeypatch.setenv("SMARTCASH_HOME", str(run.parents[1]))
    form = exporters.FORMATS["safetensors"]
    monkeypatch.setitem(exporters.FORMATS, "safetensors", replace(form, systems=("Elsewhere",)))
    asked = ["--format", "safetensors", "--image-size", "224", "latest"]
    answer = CliRunner().invoke(command, asked, catch_exceptions=False)
    file = "mobilenetv4_conv_small-224.safetensors"
    assert answer.exit_code == 0 and answer.stdout.startswith(f"! {file}") and "Elsewhere" in answer.stdout
    again = CliRunner().invoke(command, ["verify", str(run / "exports" / file)], catch_exceptions=False)
    assert again.exit_code == 1 and again.stdout.startswith("! ") and "Elsewhere" in again.stdout
    (row,) = (row for row in benchmark_exports(str(run), seconds=0.1, threads=1) if row["file"] == file)
    assert "Elsewhere" in row["error"]
    (run / "exports" / file).unlink()


def test_an_accuracy_that_did_not_change_has_no_minus():
    """A19: floating point knows a negative zero."""
    row = dict.fromkeys(("p50_ms", "p95_ms", "images_per_s", "size_bytes"), 1.0)
    row |= {"file": "a", "format": "pt2", "precision": "fp32", "state": "", "metric": "mAP50_95"}
    assert _cells(row | {"value": 0.5, "drop": 0.0})[-1] == "mAP50_95 0.5000 (+0.0000)"
    assert _cells(row | {"value": 0.5, "drop": 0.01})[-1] == "mAP50_95 0.5000 (-0.0100)"
    assert _cells(row | {"value": 0.5, "drop": None})[-1] == "mAP50_95 0.5000"


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
        ("--batch", "few"),
    ]
    for arguments in wrong:
        answer = smartcash("export", *arguments, run.name, home=home)
        assert answer.returncode == 2, arguments
        assert "Traceback" not in answer.stderr and not list(tmp_path.iterdir())
    assert smartcash("export", "nothing", home=home).returncode == 2


def test_a_damaged_list_of_exports_is_named(tmp_path: Path):
    """A34."""
    (tmp_path / "exports.json").write_text("[{")
    with pytest.raises(ExportRefused, match=r"exports\.json"):
        Exports(tmp_path, tmp_path).records()
