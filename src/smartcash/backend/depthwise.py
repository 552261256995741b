"""A faster backward of depthwise convolutions on CPUs.

oneDNN's backward of a strided or 5×5 depthwise convolution is up to 20 × slower than its forward. Where numba is
installed, compiled kernels take its place (depthwise_kernels.py): under bf16 for the weight gradient and for the
input gradient of strided layers, in fp32 for the weight gradient of 5×5 layers, the only slow one there.
Elsewhere two identities that use only stock kernels avoid the slow ones under bf16 (benchmarks/kernels.py
measures it all):

- The input gradient of a stride-2 convolution is a stride-1 *forward* convolution of the gradient with
  zeros inserted, by the flipped kernel (Dumoulin & Visin 2016, "A guide to convolution arithmetic", §4.6).
- The weight gradient of a kernel of 5×5 and more is faster in fp32, casts included.

Which path a layer takes depends on its shape alone, never on a timing, so that the same seed gives the same
bits. On other devices the stock convolution runs.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from smartcash.backend import compiled
from smartcash.backend.folding import FoldableConv2d


class _DepthwiseConv(torch.autograd.Function):
    """Depthwise convolution of x_BCHW with weight_C1kk and bias_C, `padding` zeros on every side, dilation 1."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_BCHW: Tensor,
        weight_C1kk: Tensor,
        bias_C: Tensor | None,
        stride: int,
        padding: int,
    ) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_C1kk)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x_BCHW, weight_C1kk, bias_C, stride, padding, 1, weight_C1kk.shape[0])

    @staticmethod
    def backward(ctx: FunctionCtx, grad_BChw: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        grad = grad_BChw.contiguous(memory_format=torch.channels_last)
        kernels = _compiled_kernels(grad, weight.shape[-1])
        narrow = grad.dtype != torch.float32
        grad_x = grad_weight = grad_bias = wide_bias = None
        if ctx.needs_input_grad[0]:
            if stride == 1 or not narrow:
                grad_x = _stock(grad, x, weight, stride, padding, input_gradient=True)
            elif kernels:
                grad_x = kernels.input_gradient(grad, weight, x.shape[-2:], stride, padding)
            else:
                grad_x = _strided_input_gradient(grad, x, weight, stride, padding)
        if ctx.needs_input_grad[1]:
            if kernels:
                wide, wide_bias = kernels.weight_gradient(grad, x, weight.shape[-1], stride, padding)
            elif weight.shape[-1] > 3:
                wide = _stock(grad.float(), x.float(), weight.float(), stride, padding, input_gradient=False)
            else:
                wide = _stock(grad, x, weight, stride, padding, input_gradient=False)
            grad_weight = wide.to(weight.dtype)
        if ctx.needs_input_grad[2]:
            if wide_bias is None:
                wide_bias = grad.sum((0, 2, 3), dtype=torch.float32)
            grad_bias = wide_bias.to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None, None


def _compiled_kernels(grad_BChw: Tensor, kernel: int) -> ModuleType | None:
    """The module depthwise_kernels, if numba is installed and it takes such a layer."""
    module = compiled.kernels("depthwise_kernels")
    return module if module and module.takes(grad_BChw, kernel) else None


def _stock(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, *, input_gradient: bool
) -> Tensor:
    """One of the two gradients by PyTorch's own kernel."""
    mask = [input_gradient, not input_gradient, False]
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], weight.shape[0], mask
    )
    return gradients[0] if input_gradient else gradients[1]


def _strided_input_gradient(
    grad_BChw: Tensor, x_BCHW: Tensor, weight_C1kk: Tensor, stride: int, padding: int
) -> Tensor:
    """The gradient spread `stride` apart into zeros, then a stride-1 convolution by the flipped kernel."""
    kernel = weight_C1kk.shape[-1]
    batch, channels, height, width = x_BCHW.shape
    spread = torch.empty(
        (batch, channels, height + kernel - 1, width + kernel - 1),
        dtype=grad_BChw.dtype, device=grad_BChw.device, memory_format=torch.channels_last,
    ).zero_()  # fmt: skip
    rows, columns = grad_BChw.shape[-2:]
    first = kernel - 1 - padding
    spread[:, :, first : first + stride * rows : stride, first : first + stride * columns : stride] = (
        grad_BChw
    )
    flipped = weight_C1kk.flip(2, 3).contiguous(memory_format=torch.channels_last)
    return F.conv2d(spread, flipped, None, 1, 0, 1, channels)


class DepthwiseConv2d(FoldableConv2d):
    """Takes the place of a depthwise `nn.Conv2d` (or timm's `Conv2dSame`), with the same parameter name."""

    def convolve(
        self, x_BCHW: Tensor, weight: Tensor, bias_C: Tensor | None, padding: tuple[int, int]
    ) -> Tensor:
        if self._is_faster(x_BCHW, weight) and padding[0] == padding[1]:
            autocast = torch.is_autocast_enabled("cpu")
            dtype = torch.get_autocast_dtype("cpu") if autocast else x_BCHW.dtype
            bias = None if bias_C is None else bias_C.to(dtype)
            return _DepthwiseConv.apply(x_BCHW.to(dtype), weight.to(dtype), bias, self.stride[0], padding[0])
        return super().convolve(x_BCHW, weight, bias_C, padding)

    def convolve_unevenly(
        self, x_BCHW: Tensor, weight: Tensor, bias_C: Tensor | None, missing: tuple[int, int]
    ) -> Tensor:
        """One step more at both ends, and the first output left out, comes to the same as an odd pixel at the end; and
        what is copied is the output, a quarter of the input where the stride is 2."""
        padding = (missing[0] // 2 + self.stride[0], missing[1] // 2 + self.stride[1])
        alike = missing[0] % 2 == missing[1] % 2 and max(padding) < weight.shape[-1]
        if not alike or not self._is_faster(x_BCHW, weight):
            return super().convolve_unevenly(x_BCHW, weight, bias_C, missing)
        y_BChw = self.convolve(x_BCHW, weight, bias_C, padding)
        return y_BChw[..., 1:, 1:].contiguous(memory_format=torch.channels_last)

    def _is_faster(self, x_BCHW: Tensor, weight: Tensor) -> bool:
        """Whether gradients will be asked for, and PyTorch's own are slow."""
        trained = torch.is_grad_enabled() and (weight.requires_grad or x_BCHW.requires_grad)
        slow = torch.is_autocast_enabled("cpu") or (compiled.COMPILED and weight.shape[-1] > 3)
        return trained and slow and x_BCHW.device.type == "cpu"


def replace_depthwise(module: nn.Module) -> int:
    """Replace every bias-free square depthwise convolution inside `module`; returns how many."""
    replaced = 0
    for name, child in module.named_children():
        if _is_depthwise(child):
            setattr(module, name, DepthwiseConv2d(child))
            replaced += 1
        else:
            replaced += replace_depthwise(child)
    return replaced


def _is_depthwise(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and type(module).__name__ in ("Conv2d", "Conv2dSame")
        and module.groups == module.in_channels == module.out_channels > 1
        and module.bias is None
        and module.kernel_size[0] == module.kernel_size[1] > 1
        and module.stride[0] == module.stride[1]
        and module.dilation == (1, 1)
        and not isinstance(module.padding, str)
        and module.padding[0] == module.padding[1]
    )
