"""python safetensors_weights.py FILE.safetensors PICTURE: weights alone; SmartCash builds the network for them."""

import json
import sys

import torch
from notes import found, prepared
from safetensors import safe_open

from smartcash.backend.builder import build_model
from smartcash.backend.exporters import Graph
from smartcash.domain.config import TrainConfig

with safe_open(sys.argv[1], "pt") as file:
    about = json.loads(file.metadata()["smartcash"])
    weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
config = TrainConfig.parse({"task": about["task"], "model": about["model"]})
network = build_model(config, len(about["classes"]))
network.load_state_dict(weights)
images, back = prepared(sys.argv[2], about)
with torch.inference_mode():
    tensors = Graph(network)(torch.from_numpy(images))
outputs = {output["name"]: tensor.numpy() for output, tensor in zip(about["outputs"], tensors)}
print(json.dumps(found(outputs, about, back)))
