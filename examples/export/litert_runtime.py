"""python litert_runtime.py FILE.tflite PICTURE: the notes in a picture, by LiteRT."""

import json
import sys
import zipfile

from ai_edge_litert.interpreter import Interpreter
from notes import found, prepared

with zipfile.ZipFile(sys.argv[1]) as archive:  # at the end of the file
    about = json.loads(archive.read("smartcash.json"))
images, back = prepared(sys.argv[2], about)
runner = Interpreter(sys.argv[1]).get_signature_runner()
(name,) = runner.get_input_details()
values = runner(**{name: images})
outputs = {output["name"]: values[f"output_{place}"] for place, output in enumerate(about["outputs"])}
print(json.dumps(found(outputs, about, back)))
