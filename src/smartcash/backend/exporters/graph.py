"""The network as files hold it: plain tensors in, plain tensors out, nothing that only training needs."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from smartcash.backend.detector import Detector
from smartcash.backend.engine import Model
from smartcash.backend.formats import Task


class Graph(nn.Module):
    """images_BCHW (normalised float32) → detect: boxes_BA4 (xyxy px of the input) and scores_BAC (0…1) of every
    candidate; classify: probabilities_BC.

    A copy of `model` on the CPU, in evaluation mode, its tensors contiguous (a layout that is fast in training
    would become copies in the graph) and without gradients, so that depthwise convolutions take their stock path.
    `half`: weights and convolutions in float16, inputs and outputs float32."""

    def __init__(self, model: Model, *, half: bool = False) -> None:
        super().__init__()
        self.task: Task = "detect" if isinstance(model, Detector) else "classify"
        inner = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        for tensor in [*inner.parameters(), *inner.buffers()]:
            tensor.data = tensor.data.contiguous()
        self.model = inner.half() if half else inner
        self.dtype = torch.float16 if half else torch.float32
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.model(images.to(self.dtype))
        if self.task == "detect":
            boxes_BA4, scores_BAC = cast(Detector, self.model).decode(output)
            return boxes_BA4, scores_BAC
        return (output.softmax(-1),)
