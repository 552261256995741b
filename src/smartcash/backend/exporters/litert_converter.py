"""From a `.pt2` to a `.tflite`, by litert-torch; run by the Python of its own environment, without SmartCash:

    python tethered.py litert_converter.py JOB.json

The job names `program`, the `shape` of its input, the `file` to write, and `result`, a JSON file for the versions used.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import litert_torch
import torch

job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
program = torch.export.load(job["program"]).module()
litert_torch.convert(program, (torch.zeros(job["shape"]),)).export(job["file"])
used = {name: version(name) for name in ("litert-torch", "litert-converter")}
Path(job["result"]).write_text(json.dumps(used), encoding="utf-8")
