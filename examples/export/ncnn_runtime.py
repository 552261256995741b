"""python ncnn_runtime.py FILE.ncnn.param PICTURE: the notes in a picture, by NCNN."""

import json
import sys
from pathlib import Path

import ncnn
import numpy as np
from notes import found, prepared

param = Path(sys.argv[1])  # its weights are in FILE.ncnn.bin, its metadata in FILE.ncnn.json
about = json.loads(param.with_suffix(".json").read_text(encoding="utf-8"))
images, back = prepared(sys.argv[2], about)
net = ncnn.Net()
# 16 bits, which is the default where a CPU has them, gives other scores
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
net.load_param(str(param))
net.load_model(str(param.with_suffix(".bin")))
with net.create_extractor() as extractor:
    extractor.input("in0", ncnn.Mat(images[0]).clone())
    values = [np.array(extractor.extract(f"out{place}")[1]) for place in range(len(about["outputs"]))]
outputs = {output["name"]: value[None] for output, value in zip(about["outputs"], values)}
print(json.dumps(found(outputs, about, back)))
