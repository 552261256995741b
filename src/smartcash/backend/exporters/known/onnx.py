"""ONNX by torch's own exporter, run by ONNX Runtime; with `nms` two NonMaxSuppression nodes are appended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from smartcash.backend.exporters.model import DETECT_OUTPUTS, Format, Job, Outputs, Run, Suppression

if TYPE_CHECKING:
    import onnx

OPSET = 18


def converted(job: Job) -> onnx.ModelProto:
    """The graph as torch's exporter gives it, without suppression."""
    images, dynamic = job.example()
    program = torch.onnx.export(
        job.graph, (images,), dynamo=True, opset_version=OPSET, dynamic_shapes=dynamic, verbose=False,
        input_names=["images"], output_names=DETECT_OUTPUTS if job.request.nms else job.outputs,
    )  # fmt: skip
    return program.model_proto


def write(job: Job, path: Path) -> None:
    import onnx

    model = converted(job)
    if job.request.precision == "int8":
        model = quantized(model, job, path)
    if job.request.nms:
        append_suppression(model, job.suppression, job.image_size)
    onnx.helper.set_model_props(model, {"smartcash": json.dumps(job.metadata)})
    with _refusals():
        onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def append_suppression(model: onnx.ModelProto, rule: Suppression, size_px: int) -> None:
    """From boxes_BA4 and scores_BAC to detections of all pictures, best first: image_N, box_N4, score_N, label_N.

    The second suppression takes all classes together; boxes of another picture are moved out of reach first, so
    that one call does for the whole batch."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "all": np.array([np.iinfo(np.int32).max], np.int64), "iou": np.float32([rule.iou]),
        "threshold": np.float32([rule.threshold]), "same_iou": np.float32([rule.same_note_iou]),
        "none": np.float32([-1]), "apart": np.float32([4 * size_px]), "column_0": np.int64([0]),
        "column_1": np.int64([1]), "column_2": np.int64([2]), "axis_0": np.int64([0]), "axis_1": np.int64([1]),
        "axes_01": np.int64([0, 1]), "image_and_box": np.int64([0, 2]), "image_box_class": np.int64([0, 2, 1]),
    }  # fmt: skip

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        named = [name if name in made else f"nms/{name}" for name in inputs]
        made.add(f"nms/{output}")
        model.graph.node.append(helper.make_node(kind, named, [f"nms/{output}"], **attributes))

    made = set(DETECT_OUTPUTS)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, f"nms/{name}"))
    node("Transpose", ["scores"], "by_class", perm=[0, 2, 1])
    node("NonMaxSuppression", ["boxes", "by_class", "all", "iou", "threshold"], "found")  # image, class, box
    node("Gather", ["found", "image_and_box"], "where", axis=1)
    node("GatherND", ["boxes", "where"], "found_boxes")
    node("Gather", ["found", "image_box_class"], "where_score", axis=1)
    node("GatherND", ["scores", "where_score"], "found_scores")
    node("Gather", ["found", "column_0"], "found_image", axis=1)
    node("Cast", ["found_image"], "image_number", to=TensorProto.FLOAT)
    node("Mul", ["image_number", "apart"], "shift")
    node("Add", ["found_boxes", "shift"], "apart_boxes")
    node("Unsqueeze", ["apart_boxes", "axis_0"], "all_boxes")
    node("Unsqueeze", ["found_scores", "axes_01"], "all_scores")
    node("NonMaxSuppression", ["all_boxes", "all_scores", "all", "same_iou", "none"], "kept")
    node("Gather", ["kept", "column_2"], "kept_column", axis=1)
    node("Squeeze", ["kept_column", "axis_1"], "kept_rows")
    node("Gather", ["found_image", "kept_rows"], "kept_image")
    node("Gather", ["found", "column_1"], "found_class", axis=1)
    node("Gather", ["found_class", "kept_rows"], "kept_class")
    outputs = {
        "image": ("Squeeze", ["nms/kept_image", "nms/axis_1"], TensorProto.INT64, ["detections"]),
        "box": ("Gather", ["nms/found_boxes", "nms/kept_rows"], TensorProto.FLOAT, ["detections", 4]),
        "score": ("Gather", ["nms/found_scores", "nms/kept_rows"], TensorProto.FLOAT, ["detections"]),
        "label": ("Squeeze", ["nms/kept_class", "nms/axis_1"], TensorProto.INT64, ["detections"]),
    }
    del model.graph.output[:]
    for name, (kind, inputs, dtype, shape) in outputs.items():
        model.graph.node.append(helper.make_node(kind, inputs, [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, dtype, shape))


def quantized(model: onnx.ModelProto, job: Job, path: Path) -> onnx.ModelProto:
    """The model with its convolutions in int8, ranges taken from the calibration pictures. Nothing else is: one
    scale for boxes of 0 … 320 px and another layer's 0 … 1 would break both."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    calls = job.calibration_calls()

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            images_BCHW = next(calls, None)
            return None if images_BCHW is None else {"images": images_BCHW}

    plain, folded, done = (path.with_suffix(f".{part}.onnx") for part in ("plain", "folded", "int8"))
    plain.write_bytes(model.SerializeToString())
    with _refusals():
        # folds batch norms into convolutions
        quant_pre_process(str(plain), str(folded), skip_symbolic_shape=True)
        quantize_static(
            str(folded), str(done), Pictures(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"],
            per_channel=True,
        )  # fmt: skip
    result = onnx.load(str(done))
    for used in (plain, folded, done):
        used.unlink()
    return result


@contextmanager
def _refusals() -> Iterator[None]:
    """What onnx and ONNX Runtime raise derives from Exception alone; it becomes a ValueError."""
    import onnx
    from onnxruntime.capi import onnxruntime_pybind11_state as refused

    try:
        yield
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, refused.EPFail, refused.EngineError,
            refused.Fail, refused.InvalidArgument, refused.InvalidGraph, refused.InvalidProtobuf, refused.NoModel,
            refused.NoSuchFile, refused.NotImplemented, refused.RuntimeException) as error:  # fmt: skip
        raise ValueError(str(error)) from error


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    with _refusals():
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read(path: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(_session(path, 1).get_modelmeta().custom_metadata_map["smartcash"])
    return metadata


def open_file(path: Path, threads: int) -> Run:
    session = _session(path, threads)
    names = [output.name for output in session.get_outputs()]

    def run(images_BCHW: np.ndarray) -> Outputs:
        with _refusals():
            return dict(zip(names, session.run(None, {"images": images_BCHW})))

    return run


FORMAT = Format(
    name="onnx", suffix=".onnx", write=write, read=read, open=open_file,
    precisions=("fp32", "fp16", "int8"), nms=True, extra="onnx", packages=("onnx", "onnxruntime"),
    converters=("onnxscript",),
    errors=(RuntimeError, ValueError, KeyError, OSError, torch.onnx.OnnxExporterError),
)  # fmt: skip
