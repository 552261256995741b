"""The two loops: one epoch of training, one evaluation. They read as the algorithms do."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smartcash.backend.boxes import select
from smartcash.backend.classifier import Classifier
from smartcash.backend.criterion import ClassificationCriterion, DetectionCriterion
from smartcash.backend.data import Batch, EvalBatches, TrainBatches
from smartcash.backend.detector import Detector
from smartcash.backend.distributed import World
from smartcash.backend.metrics import (
    ClassificationMetrics,
    ClassificationResult,
    DetectionMetrics,
    DetectionResult,
)
from smartcash.backend.optim import AveragedModel, Schedule, clip_gradients
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.errors import TrainingFailed

Model = Detector | Classifier
Criterion = DetectionCriterion | ClassificationCriterion
Result = DetectionResult | ClassificationResult

RANK_SEED = 7_368_787_000_003  # keeps the dropout of one process apart from the other's


@dataclass(frozen=True)
class Precision:
    """Where and in which number format forward and backward run."""

    device: torch.device
    dtype: torch.dtype  # float32, bfloat16 or float16

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of the forward pass."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


@dataclass
class Parts:
    """Everything one training step needs."""

    model: Model
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    averaged: AveragedModel
    scaler: torch.amp.GradScaler
    preprocess: Preprocess
    precision: Precision
    seed: int
    clip_norm: float
    accumulate: int
    freeze_norm: bool
    frozen: list[nn.Parameter]  # never trained
    unfreeze_step: int  # the backbone is trained from this step on
    mixup: float
    names: Callable[[list[int]], list[str]]  # batch indices → file names, for error messages
    world: World = field(default_factory=World)

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """Those of the model, found once: walking through its modules takes as long as clipping."""
        return list(self.model.parameters())


@dataclass
class EpochStats:
    """What an epoch of training has shown so far; plain values, so that a checkpoint can carry it on."""

    steps: int = 0
    images: int = 0
    objects: int = 0
    empty: int = 0  # batches without an object
    seconds: float = 0.0
    waited_s: float = 0.0  # of `seconds`, waiting for data
    sums: dict[str, float] = field(default_factory=dict)  # loss parts over the steps
    grad_norm: float = 0.0  # largest

    @property
    def losses(self) -> dict[str, float]:
        """Mean loss parts over the steps."""
        return {name: total / self.steps for name, total in self.sums.items()}


@dataclass(frozen=True)
class Step:
    """One batch done. `updated`: the weights have moved, so that the training may stop or be saved here."""

    step: int
    losses: dict[str, float]
    grad_norm: float | None
    updated: bool


OnStep = Callable[[Step], bool]  # → go on?
OnImage = Callable[[int, Any], None]


def train_one_epoch(
    parts: Parts,
    batches: TrainBatches,
    epoch: int,
    first_step: int,
    stats: EpochStats,
    on_step: OnStep,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train from `first_step` of `epoch` to its end, or until `on_step` says stop; `stats` goes on counting,
    its time by `clock` (seconds, which may leave pauses out).

    Raises TrainingFailed on a loss or gradient that is not finite, naming epoch, step, learning rate and
    pictures; the weights are then as they were."""
    before, last = stats.seconds, clock()
    started = last
    with contextlib.closing(batches.epoch(epoch, first_step)) as in_order:
        for within, batch in enumerate(in_order, start=first_step):
            stats.waited_s += clock() - last
            step = epoch * batches.steps + within
            prepare_step(parts, step)

            images = parts.preprocess.normalize(
                batch.images_B3HW.to(parts.precision.device, non_blocking=True)
            )
            losses = forward_loss(parts, images, batch, step)
            objects = losses["loss"].new_tensor(float(batch.targets.valid_BM.sum()))
            facts = torch.stack([*(value.detach() for value in losses.values()), objects])
            *figures, objects_in_batch = parts.world.sum(facts).tolist()
            values = dict(zip(losses, figures))
            if not math.isfinite(values["loss"]):
                raise _not_finite("loss_not_finite", parts, batch, epoch, step, values["loss"])
            parts.scaler.scale(losses["loss"] / parts.accumulate).backward()

            norm = None
            if (within + 1) % parts.accumulate == 0 or within + 1 == batches.steps:
                parts.world.sum_gradients(parts.parameters)
                parts.scaler.unscale_(parts.optimizer)
                norm = clip_gradients(parts.parameters, parts.clip_norm or math.inf)
                if not math.isfinite(norm) and not parts.scaler.is_enabled():
                    raise _not_finite("gradient_not_finite", parts, batch, epoch, step, norm)
                parts.scaler.step(parts.optimizer)
                parts.scaler.update()
                parts.optimizer.zero_grad(set_to_none=True)
                parts.averaged.update()
                stats.grad_norm = max(stats.grad_norm, norm)

            stats.steps += 1
            stats.images += len(batch.indices) * parts.world.size
            stats.objects += round(objects_in_batch)
            stats.empty += not objects_in_batch
            stats.seconds = before + clock() - started
            for name, value in values.items():
                stats.sums[name] = stats.sums.get(name, 0.0) + value
            if not on_step(Step(step, values, norm, updated=norm is not None)):
                break
            last = clock()


def _not_finite(code: str, parts: Parts, batch: Batch, epoch: int, step: int, value: float) -> TrainingFailed:
    return TrainingFailed(
        code, epoch=epoch + 1, step=step, loss=value,
        lr=parts.optimizer.param_groups[-1]["lr"], files=", ".join(parts.names(batch.indices)),
    )  # fmt: skip


def prepare_step(parts: Parts, step: int) -> None:
    """Randomness, learning rate and what is trainable are functions of the step: nothing to restore."""
    torch.manual_seed(parts.seed * 1_000_003 + step + parts.world.rank * RANK_SEED)
    parts.schedule.set(step)
    backbone_trains = step >= parts.unfreeze_step
    parts.model.backbone.requires_grad_(backbone_trains)
    for parameter in parts.frozen:
        parameter.requires_grad_(False)
    to_training(parts.model, freeze_norm=parts.freeze_norm)


def to_training(model: Model, *, freeze_norm: bool) -> None:
    """Training mode; `freeze_norm`: but for the batch norms of the backbone."""
    model.train()
    if freeze_norm:
        for module in model.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def forward_loss(parts: Parts, images_B3HW: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
    """One forward pass → the loss parts."""
    targets = batch.targets.to(images_B3HW.device)
    if isinstance(parts.model, Detector):
        with parts.precision.autocast():
            prediction = parts.model(images_B3HW)
        return parts.criterion(prediction, targets)
    soft_BC = nn.functional.one_hot(targets.labels_BM[:, 0], parts.model.classes).float()
    if parts.mixup:
        rng = np.random.default_rng((parts.seed, step, 7))
        if rng.random() < parts.mixup:  # mixup, Zhang et al. 2018
            share = float(rng.beta(0.4, 0.4))
            order = torch.from_numpy(rng.permutation(len(images_B3HW))).to(images_B3HW.device)
            images_B3HW = share * images_B3HW + (1 - share) * images_B3HW[order]
            soft_BC = share * soft_BC + (1 - share) * soft_BC[order]
    with parts.precision.autocast():
        logits = parts.model(images_B3HW.contiguous(memory_format=torch.channels_last))
    return parts.criterion(logits, soft_BC)


@torch.inference_mode()
def evaluate(
    model: Model,
    batches: EvalBatches,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    precision: Precision,
    *,
    threshold: float | None = None,
    on_image: OnImage | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Result | None:
    """Every figure of `model` on `batches`. `threshold`: the score above which notes are counted; by default
    the best one of this very split. `on_image(index, outcome)` sees each picture's outcome: boxes, scores and
    labels in px of the picture, or its class probabilities. None when `go_on`, asked after each batch, says
    no. Raises TrainingFailed when an output is not finite: the weights have grown beyond all bounds."""
    model.eval()
    if isinstance(model, Detector):
        metrics: DetectionMetrics | ClassificationMetrics = DetectionMetrics(classes)
    else:
        metrics = ClassificationMetrics(classes)
    loss_sum, count, whole, broken = 0.0, 0, True, ""
    with contextlib.closing(iter(batches)) as in_order:
        for batch in in_order:
            images = preprocess.normalize(batch.images_B3HW.to(precision.device))
            with precision.autocast():
                output = model(images)
            if isinstance(model, Detector):
                boxes_BA4, scores_BAC = model.decode(output)
                if not (boxes_BA4.isfinite().all() and scores_BAC.isfinite().all()):
                    broken = batches.sample(batch.indices[0]).path.name
                    break
                for row, index in enumerate(batch.indices):
                    sample = batches.sample(index)
                    boxes, scores, labels_found = (
                        t.cpu().numpy() for t in select(boxes_BA4[row], scores_BAC[row])
                    )
                    outcome = (preprocess.boxes_back(boxes, *sample.size), scores, labels_found)
                    metrics.update(outcome, (sample.boxes_N4, sample.labels_N))
                    if on_image:
                        on_image(index, outcome)
            else:
                if not output.isfinite().all():
                    broken = batches.sample(batch.indices[0]).path.name
                    break
                labels = batch.targets.labels_BM[:, 0]
                loss_sum += float(nn.functional.cross_entropy(output.cpu(), labels, reduction="sum"))
                count += len(labels)
                probabilities = output.softmax(-1).cpu().numpy()
                metrics.update(probabilities, labels.numpy(), probabilities=True)
                if on_image:
                    for row, index in enumerate(batch.indices):
                        on_image(index, probabilities[row])
            whole = go_on()
            if not whole:
                break
    if batches.world.any(bool(broken)):
        raise TrainingFailed("output_not_finite", file=broken or "-")
    if batches.world.any(not whole):
        return None
    shares = batches.world.gather((metrics, loss_sum, count))
    metrics, loss_sum, count = shares[0]  # in every process the same sum, in the same order
    for other, other_sum, other_count in shares[1:]:
        metrics.merge(other)
        loss_sum, count = loss_sum + other_sum, count + other_count
    if isinstance(metrics, DetectionMetrics):
        return metrics.compute(threshold=threshold)
    return metrics.compute(loss=loss_sum / max(1, count))
