"""What can be known of a Core ML file where it cannot be run (A19, D11)."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smartcash.backend.exporters import FORMATS, Graph, Job, suppression_of, verify
from smartcash.backend.exporters.known.coreml import program, specification_of
from smartcash.backend.predictor import Predictor
from smartcash.domain.exports import ExportRequest

from .conftest import installed
from .test_exports import Drawn, exported


def test_the_program_that_the_converter_gets_says_what_the_model_says(detector: Predictor):
    """D11: in operators that Core ML has, so without a product with a vector."""
    graph = Graph(detector.model)
    made = program(Job(graph, ExportRequest("coreml", batch=1), 96, {}, suppression_of(detector)))
    products = [node for node in made.graph.nodes if node.target is torch.ops.aten.matmul.default]
    assert products and all(node.args[1].meta["val"].ndim > 1 for node in products)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 96, 96), np.float32))
    with torch.inference_mode():
        for ours, theirs in zip(graph(images), made.module()(images)):
            assert torch.allclose(ours, theirs, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "precision"), [("detect", "fp32"), ("detect", "fp16"), ("classify", "fp32")]
)
def test_a_core_ml_file_holds_its_metadata_and_the_inputs_and_outputs_that_they_name(
    task: str,
    precision: Any,
    drawn: Drawn,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
):
    """A19, D11: one package in a zip; on macOS proved, elsewhere written without a word of success."""
    installed("coreml")
    predictor: Predictor = request.getfixturevalue("detector" if task == "detect" else "classifier")
    target = tmp_path / "notes.mlpackage.zip"
    made = exported(predictor, drawn, target, ExportRequest("coreml", precision))
    wanted = ("verified", "") if FORMATS["coreml"].runs_here else ("unverified", "cannot_run_here")
    assert (made.proof.state, made.proof.reason) == wanted
    proof, metadata = verify(target)
    assert proof.state == wanted[0] and metadata["classes"] == list(predictor.classes)
    specification = specification_of(target)
    assert specification.specificationVersion == 6  # macOS 12, iOS 15
    shapes = {"boxes": [1, 189, 4], "scores": [1, 189, 7]} if task == "detect" else {"probabilities": [1, 7]}
    for features, named in ((specification.description.input, {"images": [1, 3, 96, 96]}),
                            (specification.description.output, shapes)):  # fmt: skip
        assert {each.name: list(each.type.multiArrayType.shape) for each in features} == named
        types = {
            each.type.multiArrayType.ArrayDataType.Name(each.type.multiArrayType.dataType)
            for each in features
        }
        assert types == {"FLOAT32"}
    with zipfile.ZipFile(target) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"notes.mlpackage"}
    weights = sum(tensor.numel() for tensor in predictor.model.parameters())
    assert made.size_bytes < weights * (3 if precision == "fp16" else 5)
    assert capfd.readouterr().out == ""
