"""python mnn_runtime.py FILE.mnn PICTURE: the notes in a picture, by MNN."""

import json
import sys
from pathlib import Path

import MNN
import numpy as np
from notes import found, prepared

about = json.loads(Path(sys.argv[1]).with_suffix(".mnn-about.json").read_text(encoding="utf-8"))
images, back = prepared(sys.argv[2], about)
names = [output["name"] for output in about["outputs"]]
# "high": arithmetic in 32 bits; hint 3 (WINOGRAD_MEMORY_LEVEL) at 2: small tiles, which round less
manager = MNN.nn.create_runtime_manager(({"backend": "CPU", "numThread": 1, "precision": "high"},))
manager.set_hint(3, 2)
net = MNN.nn.load_module_from_file(sys.argv[1], ["images"], names, runtime_manager=manager)
values = net.forward([MNN.expr.const(images, list(images.shape), MNN.expr.NCHW)])
outputs = {name: np.array(value.read()) for name, value in zip(names, values)}
print(json.dumps(found(outputs, about, back)))
