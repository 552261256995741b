"""python openvino_runtime.py FILE.xml PICTURE: the notes in a picture, by OpenVINO."""

import json
import sys

import openvino
from notes import found, prepared

core = openvino.Core()
model = core.read_model(sys.argv[1])
about = json.loads(model.get_rt_info("smartcash").astype(str))
images, back = prepared(sys.argv[2], about)
# a CPU with bf16 would use it by itself, and give other scores
compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
outputs = {output.any_name: values for output, values in compiled(images).items()}
print(json.dumps(found(outputs, about, back)))
