"""Batch norms together with the activation that follows them.

On the CPU, while statistics are learnt, a compiled kernel computes both in fewer passes over memory (norm_kernels.py),
where numba is installed and the number of channels is a multiple of 16; anything else goes PyTorch's own way. Which of
them a layer takes depends on its shape and number format, never on a timing.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Self

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from smartcash.backend import compiled


class NormAct2d(nn.BatchNorm2d):
    """A batch norm, then `act`. Takes the place of an `nn.BatchNorm2d` and the activation behind it, or of timm's
    `BatchNormAct2d`, with the same parameter names."""

    def __init__(
        self, channels: int, eps: float = 1e-5, momentum: float = 0.1, act: nn.Module | None = None
    ) -> None:
        super().__init__(channels, eps, momentum)
        # SiLU in place would have autograd keep a copy of what it overwrites
        self.act = nn.SiLU() if isinstance(act, nn.SiLU) else act or nn.Identity()

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Self:
        """The same layer, with the very parameters and statistics of `norm`."""
        made = cls(norm.num_features, norm.eps, norm.momentum, getattr(norm, "act", None))
        made.weight, made.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(made, name, buffer)
        return made

    def forward(self, x_BCHW: Tensor) -> Tensor:
        learns = self.training and self.momentum is not None  # None: statistics of all batches alike
        kernels = compiled.kernels_for(x_BCHW, "norm_kernels") if learns else None
        if kernels is None:
            return self.act(super().forward(x_BCHW))
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        kind, settings = _fused(self.act)
        y_BCHW = _NormAct.apply(
            x_BCHW.contiguous(memory_format=torch.channels_last), self.weight, self.bias, self.running_mean,
            self.running_var, self.momentum, self.eps, kernels, kind or "NONE", _numbers(*settings),
        )  # fmt: skip
        return y_BCHW if kind else self.act(y_BCHW)


def _fused(act: nn.Module) -> tuple[str, tuple[float, float]]:
    """The name that the kernels have for an activation, "" for one that they do not know, and its settings."""
    match act:
        case nn.Identity():
            return "NONE", (0.0, 0.0)
        case nn.ReLU6():
            return "CLIP", (0.0, 6.0)
        case nn.ReLU():
            return "CLIP", (0.0, torch.inf)
        case nn.SiLU():
            return "SILU", (0.0, 0.0)
        case nn.LeakyReLU():
            return "LEAKY", (act.negative_slope, 0.0)
    return "", (0.0, 0.0)


@cache
def _numbers(*numbers: float) -> Tensor:
    return torch.tensor(numbers)


class _NormAct(torch.autograd.Function):
    """Batch norm with the statistics of the batch and activation, in one; the running statistics move on."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_BCHW: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        mean_C: Tensor,
        var_C: Tensor,
        momentum: float,
        eps: float,
        kernels: ModuleType,
        kind: str,
        settings: Tensor,
    ) -> Tensor:
        y_BCHW, table = kernels.forward(
            x_BCHW, weight_C, bias_C, mean_C, var_C, momentum, eps, kernels.Activation[kind], settings
        )
        ctx.save_for_backward(x_BCHW, table)
        ctx.kernels, ctx.kind, ctx.settings = kernels, kernels.Activation[kind], settings
        return y_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, table = ctx.saved_tensors
        grad_BCHW = grad_BCHW.contiguous(memory_format=torch.channels_last)
        gradients = ctx.kernels.backward(grad_BCHW, x_BCHW, table, ctx.kind, ctx.settings)
        return *gradients, None, None, None, None, None, None, None


def replace_norms(net: nn.Module) -> int:
    """Replace every batch norm inside `net`, and timm's with its activation, that of a stem too; returns how many."""
    replaced = _replace(net)
    _absorb_stem_activation(net)
    return replaced


def _replace(module: nn.Module) -> int:
    replaced = 0
    for name, child in module.named_children():
        if _is_norm(child):
            setattr(module, name, NormAct2d.of(child))
            replaced += 1
        else:
            replaced += _replace(child)
    return replaced


def _absorb_stem_activation(net: nn.Module) -> None:
    """Many of timm's nets hold a stem's activation beside its norm, as `bn1` and `act1`: move it into the norm."""
    norm, act = getattr(net, "bn1", None), getattr(net, "act1", None)
    if (
        isinstance(norm, NormAct2d)
        and isinstance(norm.act, nn.Identity)
        and act is not None
        and _fused(act)[0]
    ):
        norm.act = act
        net.act1 = nn.Identity()


def _is_norm(module: nn.Module) -> bool:
    plain = type(module) is nn.BatchNorm2d or (
        type(module) is BatchNormAct2d and type(module.drop) is nn.Identity
    )
    return plain and module.affine and module.track_running_stats and module.momentum is not None
