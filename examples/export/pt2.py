"""python pt2.py FILE.pt2 PICTURE: the notes in a picture, by torch and none of SmartCash's code."""

import json
import sys

import torch
from notes import found, prepared

extra = {"smartcash.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
about = json.loads(extra["smartcash.json"])
images, back = prepared(sys.argv[2], about)
with torch.inference_mode():
    tensors = program(torch.from_numpy(images))
outputs = {output["name"]: tensor.numpy() for output, tensor in zip(about["outputs"], tensors)}
print(json.dumps(found(outputs, about, back)))
