"""Batch norms with fixed statistics, folded into the convolution before them while a network is trained.

A fine-tuned backbone keeps the statistics of its batch norms (`model.freeze_norm`). Such a layer is no more than a
factor and a shift per channel, so that norm(conv(x, W)) = conv(x, W · γ/σ) + β − μ · γ/σ, the identity by which
networks are shrunk for inference (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", §3.2). W, γ and β get their gradients through the product; one pass over every
feature map is saved forward, and one backward. Evaluation and export see the plain layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smartcash.backend.norms import NormAct2d

PROBE_PX = 64  # side of the picture by which is found what follows what


@dataclass
class Pair:
    """A convolution and the batch norm that alone reads it."""

    conv: nn.Module
    norm: nn.BatchNorm2d

    @property
    def folded(self) -> bool:
        """Whether the network is trained and the statistics are fixed."""
        return self.conv.training and not self.norm.training

    def parameters(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias of the one convolution that does the work of both."""
        norm = self.norm
        factor_C = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return self.conv.weight * factor_C[:, None, None, None], norm.bias - norm.running_mean * factor_C


class FoldableConv2d(nn.Module):
    """Takes the place of an `nn.Conv2d` without bias (or timm's `Conv2dSame`), with the same parameter name."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        # timm's Conv2dSame pads as TensorFlow does: as much as its input needs, the odd pixel last
        self.same_padding = type(conv).__name__ == "Conv2dSame"
        self.padding = (0, 0) if self.same_padding else conv.padding
        self.pair: Pair | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight, bias = self.pair.parameters() if self.pair and self.pair.folded else (self.weight, None)
        padding = self.padding
        if self.same_padding:
            down, right = (self._missing(axis, size) for axis, size in enumerate(x_BCHW.shape[-2:]))
            if down % 2 or right % 2:
                return self.convolve_unevenly(x_BCHW, weight, bias, (down, right))
            padding = (down // 2, right // 2)
        return self.convolve(x_BCHW, weight, bias, padding)

    def convolve(
        self, x_BCHW: Tensor, weight: Tensor, bias_C: Tensor | None, padding: tuple[int, int] | str
    ) -> Tensor:
        """The convolution itself."""
        return F.conv2d(x_BCHW, weight, bias_C, self.stride, padding, self.dilation, self.groups)

    def convolve_unevenly(
        self, x_BCHW: Tensor, weight: Tensor, bias_C: Tensor | None, missing: tuple[int, int]
    ) -> Tensor:
        """The same with so many pixels more in height and width, an odd one of them at the end."""
        down, right = missing
        padded = F.pad(x_BCHW, (right // 2, right - right // 2, down // 2, down - down // 2))
        return self.convolve(padded, weight, bias_C, (0, 0))

    def _missing(self, axis: int, size: int) -> int:
        reach = (self.weight.shape[2 + axis] - 1) * self.dilation[axis] + 1
        return max((-(-size // self.stride[axis]) - 1) * self.stride[axis] + reach - size, 0)


class FoldableNorm2d(NormAct2d):
    """Takes the place of a `NormAct2d`, with the same parameter names."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.pair: Pair | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.act(x_BCHW) if self.pair and self.pair.folded else super().forward(x_BCHW)


def fold_norms(net: nn.Module) -> int:
    """Let every `NormAct2d` of a timm network that follows a bias-free convolution be folded into it, see above;
    returns how many. What follows what is found by running the network once."""
    if not any(type(module) is NormAct2d for module in net.modules()):
        return 0
    facts = net.pretrained_cfg
    size_px = facts["input_size"][-1] if facts.get("fixed_input_size") else PROBE_PX
    found = _pairs(net, next(net.parameters()).new_zeros(1, 3, size_px, size_px))
    names = {module: name for name, module in net.named_modules()}
    for conv, norm in found:
        foldable = conv if isinstance(conv, FoldableConv2d) else FoldableConv2d(conv)
        pair = Pair(foldable, FoldableNorm2d.of(norm))
        pair.conv.pair = pair.norm.pair = pair
        net.set_submodule(names[conv], pair.conv)
        net.set_submodule(names[norm], pair.norm)
    return len(found)


def _pairs(net: nn.Module, images_BCHW: Tensor) -> list[tuple[nn.Module, nn.BatchNorm2d]]:
    """The convolutions and batch norms that run once each, one on nothing but the output of the other."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # by the identity of an output that is kept alive
    readers: dict[nn.Module, list[nn.Module]] = {}
    runs: dict[nn.Module, int] = {}

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, nn.BatchNorm2d) or not any(module.children()):  # else its children read
            for value in inputs:
                if id(value) in made:
                    readers.setdefault(made[id(value)][0], []).append(module)

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if _takes_fold(module):
            made[id(output)] = module, output

    hooks = [
        hook
        for module in net.modules()
        for hook in (module.register_forward_pre_hook(before), module.register_forward_hook(after))
    ]
    training = net.training
    try:
        with torch.no_grad():
            net.eval()(images_BCHW)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return [
        (conv, read_by[0])
        for conv, read_by in readers.items()
        if len(read_by) == runs[conv] == runs[read_by[0]] == 1 and type(read_by[0]) is NormAct2d
    ]


def _takes_fold(module: nn.Module) -> bool:
    plain = type(module).__name__ in ("Conv2d", "Conv2dSame", "DepthwiseConv2d")
    return (
        plain
        and getattr(module, "bias", None) is None
        and getattr(module, "padding_mode", "zeros") == "zeros"
    )
