"""python onnx_runtime.py FILE.onnx PICTURE: the notes in a picture, by ONNX Runtime."""

import json
import sys

import onnxruntime
from notes import found, prepared

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["smartcash"])
images, back = prepared(sys.argv[2], about)
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, {about["input"]["name"]: images})))
print(json.dumps(found(outputs, about, back)))
