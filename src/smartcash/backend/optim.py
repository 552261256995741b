"""Optimizers, learning-rate schedules, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from smartcash.domain.config import OptimizerConfig, ScheduleConfig

AUTO_LR = {"adamw": 2e-3, "adam": 2e-3, "sgd": 1e-2, "rmsprop": 1e-3}
REFERENCE_BATCH = 16


def peak_lr(config: OptimizerConfig, batch_size: int) -> float:
    """The peak learning rate of a resolved configuration for a global batch: by the square root of its size
    for Adam-like rules, in proportion to it for SGD (Goyal et al. 2017; Malladi et al. 2022)."""
    ratio = batch_size * config.accumulate / REFERENCE_BATCH
    return config.lr * (ratio if config.name == "sgd" else math.sqrt(ratio))


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, lr: float, backbone_factor: float
) -> torch.optim.Optimizer:
    """Four groups: backbone or not, decayed or not. Norms and biases (one-dimensional) are never decayed."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        in_backbone = name.startswith("backbone.")
        groups.setdefault((in_backbone, parameter.ndim > 1), []).append(parameter)
    parameters = [
        {
            "params": members,
            "lr": lr * (backbone_factor if in_backbone else 1.0),
            "peak_lr": lr * (backbone_factor if in_backbone else 1.0),
            "weight_decay": config.weight_decay if decayed else 0.0,
            "name": f"{'backbone' if in_backbone else 'head'}{'' if decayed else '_no_decay'}",
        }
        for (in_backbone, decayed), members in sorted(groups.items())
    ]
    match config.name:
        case "adamw":
            return torch.optim.AdamW(parameters, betas=config.betas, fused=True)
        case "adam":
            return torch.optim.Adam(parameters, betas=config.betas, fused=True)
        case "sgd":
            return torch.optim.SGD(
                parameters, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
            )
        case "rmsprop":
            return torch.optim.RMSprop(parameters, momentum=config.momentum)


def kept_per_weight(config: OptimizerConfig) -> int:
    """How many tensors of a weight's size the optimizer keeps for it, from its first step on."""
    momentum = int(config.momentum > 0)
    return {"adamw": 2, "adam": 2, "sgd": momentum, "rmsprop": 1 + momentum}[config.name]


class Schedule:
    """The learning rate of each step, as a share of its group's peak.

    The backbone has a second warm-up of its own, from the step at which it is unfrozen. `state_dict` holds
    all there is (only `plateau` has any). The configuration is a resolved one: no "auto"."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: ScheduleConfig,
        steps_per_epoch: int,
        epochs: int,
        unfreeze_step: int,
    ) -> None:
        self.optimizer, self.config = optimizer, config
        self.steps_per_epoch, self.epochs = steps_per_epoch, epochs
        self.warmup = round(config.warmup_epochs * steps_per_epoch)
        self.unfreeze_step = unfreeze_step
        self.reductions, self.bad_epochs, self.best = 0, 0, math.inf
        self.factor = 1.0  # of every rate, for a training that went back from a loss that was not finite

    def set(self, step: int) -> None:
        """Write the learning rates of step number `step` (0-based) into the optimizer."""
        share = self.share(step)
        for group in self.optimizer.param_groups:
            late = step - self.unfreeze_step if group["name"].startswith("backbone") else step
            warm = min(1.0, (late + 1) / self.warmup) if self.warmup else 1.0
            group["lr"] = group["peak_lr"] * share * max(warm, 0.0) * self.factor

    def share(self, step: int) -> float:
        """The course of the rate without warm-up, 0…1; from `extended_from` on as `extension` says."""
        total = round(self.epochs * self.steps_per_epoch)
        extended_from = round(self.config.extended_from * self.steps_per_epoch)
        if not extended_from or self.config.extension == "rescale":
            return self._course(step, total)
        if step < extended_from:
            return self._course(step, extended_from)
        if self.config.extension == "continue_constant":
            return self._course(extended_from - 1, extended_from)
        done = min(1.0, (step - extended_from) / max(1, total - extended_from))
        low = self.config.final_lr_factor
        return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2

    def _course(self, step: int, total: int) -> float:
        """The share at `step` of a training of `total` steps."""
        config = self.config
        done = min(1.0, max(0, step - self.warmup) / max(1, total - self.warmup))
        low = config.final_lr_factor
        match config.name:
            case "cosine":
                return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2
            case "linear":
                return 1 - (1 - low) * done
            case "one_cycle":
                whole = step / max(1, total)
                if whole < 0.3:
                    return 0.04 + 0.96 * (1 - math.cos(math.pi * whole / 0.3)) / 2
                return low + (1 - low) * (1 + math.cos(math.pi * (whole - 0.3) / 0.7)) / 2
            case "step":
                return config.gamma ** (step // round(config.step_epochs * self.steps_per_epoch))
            case "plateau":
                return config.gamma**self.reductions
            case "constant":
                return 1.0

    def epoch_ended(self, monitored: float | None, mode: str) -> None:
        """Tell `plateau` how the epoch went; a figure that is not defined (None) is no improvement."""
        value = math.inf if monitored is None else monitored if mode == "min" else -monitored
        if value < self.best:
            self.best, self.bad_epochs = value, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.config.patience:
            self.reductions, self.bad_epochs = self.reductions + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "reductions": self.reductions, "bad_epochs": self.bad_epochs, "best": self.best, "factor": self.factor,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reductions, self.bad_epochs, self.best = state["reductions"], state["bad_epochs"], state["best"]
        self.factor = state["factor"]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Shorten all gradients together to a norm of at most `limit` (Pascanu et al. 2013) → their norm before.

    For finite gradients to the bit what `nn.utils.clip_grad_norm_` does, in half of its time for a small network: nothing
    is grouped by device, and nothing is multiplied by one."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    share = limit / (norm + 1e-6)
    if share < 1:
        torch._foreach_mul_(gradients, share)
    return float(norm)


class AveragedModel:
    """Exponential moving average of the weights of `model` (fp32), with a ramp: decay = min(d, (1 + n) / (10 + n)).

    Evaluated and saved in place of the last weights; with `decay` 0 it is a plain copy. The tensors of `model` must stay
    these very ones: they are looked up once."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values()))
        self._weights = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights of the model; whole numbers (batch counters) are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_([own for own, _ in self._weights], [its for _, its in self._weights], 1 - decay)
        if self._counters:
            torch._foreach_copy_([own for own, _ in self._counters], [its for _, its in self._counters])

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "model": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.module.load_state_dict(state["model"])
