"""Squeeze-and-excitation (Hu et al. 2018, "Squeeze-and-Excitation Networks", §3) with a faster training step on CPUs.

Each channel is multiplied by a gate that is computed from the means of all channels. PyTorch puts the gradient of the
input together from that of the product and that of the mean, in eight passes over memory; where numba is installed,
compiled kernels need two (squeeze_excite_kernels.py). Whether a layer takes them depends on its shape and number
format, never on a timing. Evaluation is computed by PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from smartcash.backend import compiled


class SqueezeExcite2d(nn.Module):
    """Takes the place of timm's `SqueezeExcite`, with its very layers and their names."""

    def __init__(self, layer: SqueezeExcite) -> None:
        super().__init__()
        self.conv_reduce, self.act1 = layer.conv_reduce, layer.act1
        self.conv_expand, self.gate = layer.conv_expand, layer.gate

    def forward(self, x_BCHW: Tensor) -> Tensor:
        trained = self.training and torch.is_grad_enabled() and x_BCHW.requires_grad
        kernels = compiled.kernels_for(x_BCHW, "squeeze_excite_kernels") if trained else None
        if kernels is None:
            return x_BCHW * self._gate(x_BCHW.mean((2, 3), keepdim=True))
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        product = _Product(kernels)
        gate_BC11 = self._gate(_Mean.apply(x_BCHW, product))
        return _Gate.apply(x_BCHW, gate_BC11, product)

    def _gate(self, mean_BC11: Tensor) -> Tensor:
        return self.gate(self.conv_expand(self.act1(self.conv_reduce(mean_BC11))))


@dataclass
class _Product:
    """What the gradient of the product leaves for that of the mean, which comes after it, since the gate depends on the
    mean: there the gradient of x is put together, in one pass."""

    kernels: ModuleType
    grad_BCHW: Tensor | None = None
    gate_BC: Tensor | None = None


class _Mean(torch.autograd.Function):
    """The mean of every map, BC11. Its backward gives the whole gradient of x, that through `_Gate` included."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_BCHW: Tensor, product: _Product) -> Tensor:
        ctx.product, ctx.area = product, x_BCHW[0, 0].numel()
        return (product.kernels.sums(x_BCHW) / ctx.area).to(x_BCHW.dtype)[..., None, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_BC11: Tensor) -> tuple[Tensor | None, ...]:
        product = ctx.product
        shift_BC = (grad_BC11[..., 0, 0].float() / ctx.area).contiguous()
        grad_x = product.kernels.scale(product.grad_BCHW, product.gate_BC, shift_BC)
        product.grad_BCHW = product.gate_BC = None
        return grad_x, None


class _Gate(torch.autograd.Function):
    """x_BCHW · gate_BC11. Its backward gives the gradient of the gate, and leaves that of x to `_Mean`."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_BCHW: Tensor, gate_BC11: Tensor, product: _Product) -> Tensor:
        ctx.save_for_backward(x_BCHW, gate_BC11)
        ctx.product = product
        return product.kernels.scale(x_BCHW, _rows(gate_BC11))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, gate_BC11 = ctx.saved_tensors
        grad_BCHW = grad_BCHW.contiguous(memory_format=torch.channels_last)
        ctx.product.grad_BCHW, ctx.product.gate_BC = grad_BCHW, _rows(gate_BC11)
        grad_gate = ctx.product.kernels.sums(x_BCHW, grad_BCHW)
        return None, grad_gate.to(gate_BC11.dtype)[..., None, None], None


def _rows(gate_BC11: Tensor) -> Tensor:
    return gate_BC11[..., 0, 0].float().contiguous()


def replace_squeeze_excite(module: nn.Module) -> int:
    """Replace every squeeze-and-excitation of timm's EfficientNets and their kin inside `module`; returns how many."""
    replaced = 0
    for name, child in module.named_children():
        if type(child) is SqueezeExcite:
            setattr(module, name, SqueezeExcite2d(child))
            replaced += 1
        else:
            replaced += replace_squeeze_excite(child)
    return replaced
