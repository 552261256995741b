"""python executorch_runtime.py FILE.pte PICTURE: the notes in a picture, by ExecuTorch."""

import json
import sys

import torch
from executorch.runtime import Runtime
from notes import found, prepared

program = Runtime.get().load_program(sys.argv[1])
about = json.loads(program.load_method("smartcash").execute([])[0])
images, back = prepared(sys.argv[2], about)
tensors = program.load_method("forward").execute([torch.from_numpy(images)])
outputs = {output["name"]: tensor.numpy() for output, tensor in zip(about["outputs"], tensors)}
print(json.dumps(found(outputs, about, back)))
