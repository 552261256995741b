"""Exported files say what their model says, or are not kept (A19, D11)."""

from __future__ import annotations

import copy
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from benchmarks.export_parity import BACKBONES, lineage_of, random_model
from filelock import FileLock

from smartcash.backend import exporters
from smartcash.backend.backbones import SHORT_NAMES
from smartcash.backend.exporters import (
    FORMATS,
    Evidence,
    Graph,
    Job,
    check,
    export,
    model_run,
    open_export,
    suppression_of,
    verify,
)
from smartcash.backend.exporters.known.pt2 import traced
from smartcash.backend.images import read_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.samples import draw_sample
from smartcash.cli.export import FORMAT_NAMES, reason_of
from smartcash.domain.errors import ExportFailed, ExportRefused
from smartcash.domain.exports import ExportRequest

from .conftest import needs

EXAMPLES = Path(__file__).parents[2] / "examples" / "export"
SCRIPTS = {
    "coreml": "coreml_runtime.py", "executorch": "executorch_runtime.py", "litert": "litert_runtime.py",
    "mnn": "mnn_runtime.py", "ncnn": "ncnn_runtime.py", "onnx": "onnx_runtime.py",
    "openvino": "openvino_runtime.py", "pt2": "pt2.py", "safetensors": "safetensors_weights.py",
}  # fmt: skip
# a conversion takes 5 to 30 s, so only weights alone are for every day
EACH = [pytest.param(name, marks=() if name == "safetensors" else pytest.mark.slow) for name in FORMATS]
HALF = [each for each in EACH if "fp16" in FORMATS[str(each.values[0])].precisions]
Drawn = dict[str, Evidence]


def exported(
    predictor: Predictor, drawn: Drawn, target: Path, request: ExportRequest, form: Any = None
) -> Any:
    form = form or FORMATS[request.format]
    evidence = drawn[predictor.task]
    calibration = evidence if request.precision == "int8" else None
    return export(form, predictor, request, lineage_of(predictor), evidence, calibration, target)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_command_line_offers_every_format_and_each_has_an_example():
    """A19: a format is added by adding a file; the lazy command cannot ask the registry for the names."""
    assert tuple(FORMATS) == FORMAT_NAMES
    assert set(SCRIPTS) == set(FORMATS)
    for script in EXAMPLES.glob("*.py"):
        if script.name in SCRIPTS.values():
            assert len(script.read_text().splitlines()) <= 40


@pytest.mark.parametrize("name", EACH)
def test_an_exported_detector_says_what_the_model_says_and_its_example_reads_it(
    name: str, drawn: Drawn, picture: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    """A19, D11: parity in its own runtime; a consumer that knows only the file's metadata finds the same notes."""
    needs(name)
    model: Predictor = request.getfixturevalue("detector" if name == "safetensors" else "trained")
    target = tmp_path / f"notes{FORMATS[name].suffix}"
    made = exported(model, drawn, target, ExportRequest(name))
    assert made.proof.state == "verified", made.proof
    assert made.proof.box_px is not None and made.proof.box_px <= 1e-2
    assert made.proof.score is not None and made.proof.score <= 1e-3
    assert made.proof.agreement == 1
    assert made.proof.batches == ((1,) if FORMATS[name].single else (1, 2, 4))
    assert made.proof.drop == pytest.approx(0, abs=1e-3)
    again, metadata = verify(target)
    assert again.state == "verified"
    assert metadata["classes"] == list(model.classes) and metadata["values_rupiah"][0] == 1000
    same_notes(run_example(name, target, picture), model, picture)


def run_example(name: str, file: Path, picture: Path) -> list[dict[str, Any]]:
    answer = subprocess.run(
        [sys.executable, EXAMPLES / SCRIPTS[name], file, picture],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout.splitlines()[-1])
    return found


def same_notes(found: list[dict[str, Any]], predictor: Predictor, picture: Path) -> None:
    """As many as the predictor finds, each where it finds it (its boxes are clipped to the picture)."""
    image = read_image(picture)
    wanted = predictor(image)
    assert len(found) == len(wanted.scores_N) > 0
    height, width = image.shape[:2]
    for note, box, score, label in zip(found, wanted.boxes_N4, wanted.scores_N, wanted.labels_N):
        assert note["class"] == predictor.classes[label]
        assert note["score"] == pytest.approx(float(score), abs=1e-3)
        clipped = np.clip(note["box"], 0, [width, height, width, height])
        assert np.abs(clipped - box).max() < 0.05


@pytest.mark.parametrize("name", EACH)
def test_an_exported_classifier_says_what_the_model_says(
    name: str, classifier: Predictor, drawn: Drawn, tmp_path: Path
):
    """A19, D11: also for a fixed number of pictures per call, which does not divide the number of pictures."""
    needs(name)
    target = tmp_path / f"notes{FORMATS[name].suffix}"
    batch = 1 if FORMATS[name].single else 3
    made = exported(classifier, drawn, target, ExportRequest(name, batch=batch))
    assert made.proof.state == "verified" and made.proof.batches == (batch,)
    assert made.proof.metric == "accuracy" and made.proof.drop == 0
    assert verify(target)[0].state == "verified"
    image = drawn["classify"].pictures.samples[0].path
    (note,) = run_example(name, target, image)
    outcome = classifier(read_image(image))
    assert note["class"] == classifier.classes[outcome.labels_N[0]]
    assert note["score"] == pytest.approx(float(outcome.scores_N[0]), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 2])
def test_with_suppression_inside_an_onnx_file_gives_the_predictors_own_notes(
    batch: int | None, trained: Predictor, drawn: Drawn, picture: Path, tmp_path: Path
):
    """A19, D11: the same set of notes in every picture, in batches too; the proof can be repeated."""
    needs("onnx")
    target = tmp_path / "notes.onnx"
    made = exported(trained, drawn, target, ExportRequest("onnx", nms=True, batch=batch))
    assert made.proof.state == "verified" and made.proof.agreement == 1
    assert made.repeatable and verify(target)[0].state == "verified"
    same_notes(run_example("onnx", target, picture), trained, picture)


@pytest.mark.parametrize("name", HALF)
def test_a_half_precision_file_is_judged_by_what_it_costs(
    name: str, detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """D11: kept when the metric on labelled pictures holds; without labels it is written and called unverified."""
    needs(name)
    target = tmp_path / f"half{FORMATS[name].suffix}"
    made = exported(detector, drawn, target, ExportRequest(name, "fp16"))
    assert made.proof.state == "verified" and made.proof.drop is not None and made.proof.score > 0
    unlabelled = {"detect": replace(drawn["detect"], labelled=False)}
    made = exported(detector, unlabelled, tmp_path / f"b{target.suffix}", ExportRequest(name, "fp16"))
    assert (made.proof.state, made.proof.reason) == ("unverified", "no_metric")
    assert made.path.is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), [("onnx", None), ("onnx", 4), ("openvino", None)])
def test_an_int8_file_is_calibrated_smaller_and_keeps_its_accuracy(
    name: str, batch: int | None, trained: Predictor, many: Drawn, tmp_path: Path
):
    """A19, D11: convolutions in int8, also for a fixed number of pictures, which does not divide their number; a call
    that the runtime refuses is an error of ours."""
    needs(name, "int8")
    target = tmp_path / f"small{FORMATS[name].suffix}"
    made = exported(trained, many, target, ExportRequest(name, "int8", batch=batch))
    assert made.proof.state == "verified", made.proof
    assert made.proof.metric_torch > 0.1  # there is something to lose
    again, metadata = verify(target)
    assert again.state == "verified" and metadata["calibration_pictures"] == 40
    whole = sum(tensor.nbytes for tensor in trained.model.state_dict().values())
    assert made.size_bytes < 0.5 * whole
    run = open_export(target, FORMATS[name], 1)
    with pytest.raises(ExportFailed) as caught:
        run(np.zeros((batch or 1, 3, 64, 64), np.float32))
    assert caught.value.code == "export_broke"


def test_an_export_that_breaks_the_limit_leaves_nothing_behind(
    detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """D11: weights that are a little wrong are noticed, and there is no file under its final name."""
    plain = FORMATS["safetensors"]

    def wrong(job: Job, path: Path) -> None:
        job.graph.model.class_out.bias += 0.05
        plain.write(job, path)

    made = exported(
        detector, drawn, tmp_path / "a.safetensors", ExportRequest("safetensors"), replace(plain, write=wrong)
    )
    assert (made.proof.state, made.proof.reason) == ("failed", "score")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [{"mean": [0.0, 0.0, 0.0]}, {"resize": "stretch"}, {"pad_value": 0}, {"std": [1.0, 1.0, 1.0]}],
    ids=lambda part: next(iter(part)),
)
def test_a_file_that_names_another_preprocessing_is_not_kept(
    wrong: dict[str, Any], detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """D11: the gate prepares pictures as the file's own metadata say, so a wrong word in them shows."""
    plain = FORMATS["safetensors"]

    def mislabelled(job: Job, path: Path) -> None:
        given = job.metadata["input"]
        changed = {**given, "preprocess": {**given["preprocess"], **wrong}}
        plain.write(replace(job, metadata={**job.metadata, "input": changed}), path)

    wide = [cv2.resize(read_image(s.path), (128, 80)) for s in drawn["detect"].pictures.samples]

    class Wide:
        def __len__(self) -> int:
            return len(wide)

        def fetch(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            return wide[row], np.zeros((0, 4), np.float32), np.zeros(0, np.int64)

    pictures = {"detect": Evidence("drawn", Wide(), False)}  # type: ignore[arg-type]
    form = replace(plain, write=mislabelled)
    made = exported(detector, pictures, tmp_path / "a.safetensors", ExportRequest("safetensors"), form)
    assert made.proof.state == "failed"
    assert files_in(tmp_path) == []


def test_of_several_files_the_main_one_is_gone_before_the_first_is_replaced(
    detector: Predictor, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """D11, A29: ended in between, no old graph stands beside new weights."""
    plain, target = FORMATS["safetensors"], tmp_path / "a.safetensors"

    def write(job: Job, path: Path) -> None:
        plain.write(job, path)
        path.with_suffix(".bin").write_bytes(b"weights")

    form = replace(plain, write=write, companions=(".bin",))
    exported(detector, drawn, target, ExportRequest("safetensors"), form)
    assert target.is_file()
    monkeypatch.setattr(exporters, "_move", lambda *moved: pytest.fail("ended here"))
    with pytest.raises(pytest.fail.Exception):
        exported(detector, drawn, target, ExportRequest("safetensors"), form)
    assert not target.exists()


@pytest.mark.parametrize("repeatable", [True, False])
def test_the_pictures_that_travel_with_a_file_with_suppression_are_those_it_finds_something_in(
    repeatable: bool, detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """D11: so that the proof can be repeated; where nothing is found at all, that is told."""
    model = copy.deepcopy(detector.model)
    model.class_out.weight *= 0.01  # or scores are 1 in several pictures
    unsure = Predictor(model, detector.classes, detector.preprocess, detector.precision, threshold=0.0)
    highest = sorted(float(outcome.scores_N.max()) for outcome in reference_outcomes(unsure))
    threshold = highest[-2] if repeatable else 1.0  # one picture has more than the second highest
    strict = Predictor(model, unsure.classes, unsure.preprocess, unsure.precision, threshold=threshold)
    request = ExportRequest("safetensors", nms=True)
    by_model = model_run(
        strict, request, suppression_of(strict)
    )  # a runtime with suppression that is at hand
    form = replace(FORMATS["safetensors"], nms=True, open=lambda path, threads: by_model)
    made = exported(strict, drawn, tmp_path / "a.safetensors", request, form)
    assert made.repeatable == repeatable


def reference_outcomes(predictor: Predictor) -> list[Any]:
    """What the predictor says of the drawn pictures among which those that travel are looked for."""
    size = max(exporters.SIZE_RANGE_PX[0], predictor.preprocess.image_size)
    pictures = [draw_sample("valid", row, exporters.REFERENCE_SEED, "detect", size)[0] for row in range(24)]
    return [predictor(picture[: size * 2 // 3], 0.0) for picture in pictures]


def test_metadata_without_what_verifying_needs_are_named(detector: Predictor, drawn: Drawn, tmp_path: Path):
    """A34, D11."""
    target = tmp_path / "a.safetensors"
    exported(detector, drawn, target, ExportRequest("safetensors"))
    beside = target.with_name("a.safetensors.json")
    kept = json.loads(beside.read_text())
    broken = [
        {**kept, "metadata": {name: kept["metadata"][name] for name in kept["metadata"] if name != "task"}},
        {name: kept[name] for name in kept if name != "sha256"},
        {**kept, "metadata": {**kept["metadata"], "request": {"format": "safetensors", "batch": 0}}},
        [kept],
    ]
    for content in broken:
        beside.write_text(json.dumps(content))
        with pytest.raises(ExportFailed) as caught:
            verify(target)
        assert caught.value.code == "export_changed"


def test_an_input_that_a_runtime_refuses_is_an_error_of_ours(
    detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """A34."""
    made = exported(detector, drawn, tmp_path / "a.safetensors", ExportRequest("safetensors"))
    run = open_export(made.path, FORMATS["safetensors"], 1)
    with pytest.raises(ExportFailed) as caught:
        run(np.zeros((1, 5, 96, 96), np.float32))
    assert caught.value.code == "export_broke"


def test_an_earlier_export_stays_when_a_new_one_fails(detector: Predictor, drawn: Drawn, tmp_path: Path):
    """D11, A29: a file is the old one or the new one."""
    target = tmp_path / "a.safetensors"
    exported(detector, drawn, target, ExportRequest("safetensors"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    form = FORMATS["safetensors"]

    def breaks(job: Job, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise RuntimeError("the converter gave up")

    with pytest.raises(ExportFailed) as caught:
        exported(detector, drawn, target, ExportRequest("safetensors"), replace(form, write=breaks))
    assert caught.value.code == "export_broke" and "gave up" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_killed_export_left_is_removed_by_the_next_and_what_is_being_written_is_not(
    detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """D2: nothing half-done stays."""
    for name in ("killed", "at-work"):
        (tmp_path / f".export-{name}").mkdir()
        (tmp_path / f".export-{name}" / ".lock").touch()
    with FileLock(tmp_path / ".export-at-work" / ".lock"):
        exported(detector, drawn, tmp_path / "a.safetensors", ExportRequest("safetensors"))
        assert [name for name in files_in(tmp_path) if name.startswith(".")] == [".export-at-work"]


def test_a_changed_file_is_named(detector: Predictor, drawn: Drawn, tmp_path: Path):
    """D11: one flipped bit in the file, in its metadata or in its reference; a file that is missing; not an export."""
    target = tmp_path / "a.safetensors"
    exported(detector, drawn, target, ExportRequest("safetensors"))
    kept, reference = (
        target.with_name("a.safetensors.json"),
        target.with_name("a.safetensors.proof.safetensors"),
    )
    for path in (target, kept, reference):
        whole = path.read_bytes()
        middle = len(whole) // 2 if path == target else 30
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(ExportFailed) as caught:
            verify(target)
        assert caught.value.code == "export_changed"
        path.write_bytes(whole)
    assert verify(target)[0].state == "verified"
    reference.unlink()
    with pytest.raises(ExportRefused, match=reference.name):
        verify(target)
    with pytest.raises(ExportRefused):
        verify(tmp_path / "nothing.onnx")


def test_a_file_with_other_weights_fails_even_when_its_checksum_was_renewed(
    detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """D11: the travelling reference, not only the checksum, speaks for the file."""
    from safetensors.torch import load_file, save_file

    target = tmp_path / "a.safetensors"
    exported(detector, drawn, target, ExportRequest("safetensors"))
    kept = json.loads(target.with_name("a.safetensors.json").read_text())
    weights = load_file(target)
    weights["class_out.bias"] += 0.5
    save_file(weights, target, metadata={"smartcash": json.dumps(kept["metadata"])})
    import hashlib

    kept["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name("a.safetensors.json").write_text(json.dumps(kept))
    proof, _ = verify(target)
    assert (proof.state, proof.reason) == ("failed", "score")


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_nothing_of_the_training_reaches_a_graph(task: str, request: pytest.FixtureRequest):
    """D11: no autograd function, no memory layout, no autocast: even when traced under bf16 autocast outside."""
    predictor: Predictor = request.getfixturevalue("detector" if task == "detect" else "classifier")
    graph = Graph(predictor.model)
    assert any(type(module).__name__ == "DepthwiseConv2d" for module in graph.modules())
    job = Job(graph, ExportRequest("pt2"), 96, {}, suppression_of(predictor))
    with torch.enable_grad():
        program = traced(job)
    named = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in named if "autograd" in name or "convolution_backward" in name]
    layouts = [node for node in program.graph.nodes if "memory_format" in node.kwargs]
    assert [node.kwargs["memory_format"] for node in layouts if node.kwargs["memory_format"]] == []
    assert all(tensor.is_contiguous() for tensor in program.state_dict.values())


def test_another_image_size_is_proved_at_that_size(detector: Predictor, drawn: Drawn, tmp_path: Path):
    """A19: the model itself is asked at that size too."""
    target = tmp_path / "a.safetensors"
    made = exported(detector, drawn, target, ExportRequest("safetensors", image_size=64))
    assert made.proof.state == "verified" and made.image_size == 64
    assert verify(target)[1]["input"]["shape"] == ["batch", 3, 64, 64]
    assert detector.preprocess.image_size == 96


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (ExportRequest("pt2", "int8"), "export_precision"),
        (ExportRequest("pt2", nms=True), "export_nms"),
    ],
)
def test_what_a_format_cannot_do_is_refused(
    asked: ExportRequest, code: str, detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """A19: before anything is written."""
    with pytest.raises(ExportRefused) as caught:
        exported(detector, drawn, tmp_path / "a.pt2", asked)
    assert caught.value.code == code
    assert files_in(tmp_path) == []


def test_suppression_for_a_classifier_and_a_missing_package_are_refused(
    classifier: Predictor, drawn: Drawn, tmp_path: Path
):
    """A19: the error names the extra to install."""
    with pytest.raises(ExportRefused) as caught:
        exported(classifier, drawn, tmp_path / "a.onnx", ExportRequest("onnx", nms=True))
    assert caught.value.code == "export_nms_task"
    form = replace(FORMATS["onnx"], packages=("no_such_package",))
    with pytest.raises(ExportRefused, match=r"smartcash\[onnx\]"):
        exported(classifier, drawn, tmp_path / "a.onnx", ExportRequest("onnx"), form)


def test_exporting_reports_to_nobody():
    """D16: OpenVINO and NNCF look for this package, and say what they do over the network where they find it."""
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")


def test_a_format_that_takes_one_picture_makes_files_for_one(
    detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """A19: unless another number is asked for, which is refused."""
    form = replace(FORMATS["safetensors"], single=True)
    made = exported(detector, drawn, tmp_path / "a.safetensors", ExportRequest("safetensors"), form)
    assert made.proof.batches == (1,)
    assert verify(made.path)[1]["input"]["shape"] == [1, 3, 96, 96]
    with pytest.raises(ExportRefused) as caught:
        exported(detector, drawn, made.path, ExportRequest("safetensors", batch=2), form)
    assert caught.value.code == "export_one_picture"


def test_what_only_writing_or_only_int8_needs_is_not_asked_for_otherwise(
    detector: Predictor, drawn: Drawn, tmp_path: Path
):
    """A19: each error names the extra; a file can be verified without what wrote it."""
    target = tmp_path / "a.safetensors"
    plain = replace(FORMATS["safetensors"], extra="things", precisions=("fp32", "int8"))
    exported(detector, drawn, target, ExportRequest("safetensors"), replace(plain, quantizers=("no_such",)))
    with pytest.raises(ExportRefused, match=r"smartcash\[things-int8\]"):
        check(replace(plain, quantizers=("no_such",)), ExportRequest("safetensors", "int8"))
    lacking = replace(plain, converters=("no_such",))
    with pytest.raises(ExportRefused, match=r"smartcash\[things\]"):
        check(lacking, ExportRequest("safetensors"))
    check(lacking, ExportRequest("safetensors"), writing=False)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_whose_runtime_is_not_here_is_written_unproved_and_proved_where_it_is(
    precision: Any, detector: Predictor, drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A19, D11: it is not even opened; what travels with it is what the model says, also for reduced precision."""
    everywhere = FORMATS["safetensors"]
    opened = lambda path, threads: pytest.fail("opened")
    elsewhere = replace(everywhere, systems=("Elsewhere", "Darwin2"), open=opened)
    monkeypatch.setitem(FORMATS, "safetensors", elsewhere)
    target = tmp_path / "a.safetensors"
    made = exported(detector, drawn, target, ExportRequest("safetensors", precision))
    assert (made.proof.state, made.proof.reason, made.proof.count) == ("unverified", "cannot_run_here", 0)
    assert "Elsewhere" in reason_of(made.proof)
    assert verify(target)[0] == made.proof
    with pytest.raises(ExportRefused) as caught:
        open_export(target, elsewhere, 1)
    assert caught.value.code == "export_not_here" and "Elsewhere" in str(caught.value)
    with target.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(ExportFailed, match="SHA-256"):
        verify(target)

    exported(detector, drawn, target, ExportRequest("safetensors", precision))
    monkeypatch.setitem(FORMATS, "safetensors", everywhere)
    assert verify(target)[0].state == "verified"


@pytest.mark.slow
def test_a_proof_over_nothing_is_no_proof(detector: Predictor, drawn: Drawn, tmp_path: Path):
    """D11: with suppression inside and no detection there is nothing to compare; success is not claimed."""
    needs("onnx")
    blind = Predictor(
        detector.model, detector.classes, detector.preprocess, detector.precision, threshold=1.0
    )
    made = exported(blind, drawn, tmp_path / "a.onnx", ExportRequest("onnx", nms=True))
    assert (made.proof.state, made.proof.reason) == ("unverified", "nothing_detected")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "backbone"),
    [("detect", name) for name in BACKBONES] + [("classify", name) for name in SHORT_NAMES],
)
def test_every_family_of_backbones_goes_through_onnx(task: str, backbone: str, drawn: Drawn, tmp_path: Path):
    """A19, D7, D11: by its name alone, within the limits for fp32."""
    needs("onnx")
    assert len(BACKBONES) >= 20
    made = exported(random_model(task, backbone), drawn, tmp_path / "a.onnx", ExportRequest("onnx"))
    assert made.proof.state == "verified", made.proof
