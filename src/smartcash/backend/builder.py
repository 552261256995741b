"""TrainConfig → every part of a training. The only reader of the whole configuration."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from smartcash.backend import compiled
from smartcash.backend.augment import Augment, resolve_parts
from smartcash.backend.augment import Parts as AugmentParts
from smartcash.backend.backbones import Backbone
from smartcash.backend.classifier import Classifier, PooledBackbone
from smartcash.backend.criterion import ClassificationCriterion, DetectionCriterion
from smartcash.backend.data import (
    EvalBatches,
    Pictures,
    PlainSamples,
    TrainBatches,
    TrainSamples,
    kept_side,
)
from smartcash.backend.detector import Detector
from smartcash.backend.distributed import World
from smartcash.backend.engine import Model, Parts, Precision, to_training
from smartcash.backend.folding import fold_norms
from smartcash.backend.formats import DataSet, Sample
from smartcash.backend.optim import AUTO_LR, AveragedModel, Schedule, build_optimizer, peak_lr
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.sampler import balance_weights
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ConfigInvalid, Gathered, Problem
from smartcash.utils.machine import available_cores, free_memory, keep_freed_memory

EVAL_BATCH = 32
SMALLEST_AUTO_SIZE, LARGEST_AUTO_SIZE = 224, 320
LARGEST_AUTO_BATCH_CPU, LARGEST_AUTO_BATCH_GPU = 16, 64
# what each task logs every epoch, and may be watched
MONITORS = {
    "detect": (
        *("mAP50_95", "mAP50", "mAP75", "precision", "recall", "f1", "mean_iou", "exact_count", "exact_sum"),
        *("train_loss", "train_class_loss", "train_box_loss", "train_dfl_loss"),
    ),
    "classify": ("loss", "accuracy", "accuracy_top5", "precision", "recall", "f1", "ece", "train_loss"),
}
AUTO_MONITOR = {"detect": "mAP50_95", "classify": "loss"}
# a step's memory as a multiple of what its activations take: 1.13 (EfficientNet-lite0, fp32) to 1.36 (bf16) measured
STEP_FACTOR = 1.2
FEWEST_STEPS = 6  # an epoch of fewer steps learns too little; auto batch size goes down to 4 for it


@dataclass
class Built:
    """A training, ready to run. `config` is resolved: it holds no "auto" any more. `choices` says what was
    chosen, for the user to see."""

    config: TrainConfig
    parts: Parts
    train: TrainBatches
    valid: EvalBatches
    test: EvalBatches | None
    classes: tuple[str, ...]
    choices: dict[str, Any]
    data_hash: str  # of the contents of the data set


def first_closing_epoch(config: TrainConfig) -> int:
    """The first epoch (0-based) of the closing stage. A run extended other than by "rescale" stays closed."""
    schedule = config.schedule
    epochs = config.training.epochs
    if schedule.extended_from and schedule.extension != "rescale":
        epochs = schedule.extended_from
    return round(epochs * (1 - (config.augment.close_share or 0.0)))


def build(config: TrainConfig, data: DataSet, world: World | None = None) -> Built:
    """Everything for a training of `config` on `data`, as this process's share of `world`.

    What can be judged apart from each other is judged before anything is raised. Raises ConfigInvalid; for a single
    fault also BackboneUnknown or WeightsUnavailable."""
    world = world or World()
    known = {"task": data.task, "data": config.data.model_copy(update={"format": data.format})}
    config = config.model_copy(update=known)
    found, device = Gathered(), torch.device("cpu")
    with found:
        device = choose_device(config.runtime.device)
        config = config.replaced(runtime={"device": str(device)})  # the rules for this task and device
    with found:
        choose_monitors(config)
    with found:
        check_batch(config, data, config.data.batch_size)
    dtype = choose_dtype(config.runtime.precision, device)
    auto_threads = max(1, available_cores() // world.size)
    threads = auto_threads if config.runtime.threads == "auto" else config.runtime.threads
    set_threads(threads)
    torch.use_deterministic_algorithms(config.runtime.deterministic, warn_only=True)
    # filling every new tensor with NaN, a debugging aid that comes with it, makes a step a third slower
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(config.seed)

    with found:
        model = build_model(config, len(data.classes)).to(device, memory_format=torch.channels_last)
    found.raise_any()
    freeze_norm = config.model.freeze_norm and config.model.pretrained
    if freeze_norm:
        fold_norms(model.backbone.net)
    image_size = choose_image_size(data) if config.data.image_size == "auto" else config.data.image_size
    preprocess = Preprocess(image_size, model.backbone.mean, model.backbone.std, config.data.resize)
    precision = Precision(device, dtype)

    frozen = model.backbone.lowest_parameters(config.model.frozen_stages) if config.model.pretrained else []
    bytes_per_image = activation_bytes(model, frozen, preprocess, precision, freeze_norm=freeze_norm)
    count = len(data.splits["train"])
    batch_size = (
        world.from_leader(choose_batch_size(count, bytes_per_image // world.size, device))
        if config.data.batch_size == "auto"
        else config.data.batch_size
    )
    longest = kept_side(image_size)
    with found:
        check_batch(config, data, batch_size)
    with found:
        check_memory(batch_size // world.size, bytes_per_image, device)
    with found:
        check_cache(config.data.cache, data, longest)
    found.raise_any()

    workers = (
        (0 if device.type == "cpu" else min(8, threads))
        if config.data.workers == "auto"
        else config.data.workers
    )
    cached = choose_cache(config.data.cache, data, longest)
    parts_of_augment = resolve_parts(config.augment, data.task)
    config = resolved(
        config, image_size, batch_size, workers, cached, threads, device, dtype, parts_of_augment
    )

    pictures = {split: Pictures(samples, longest, keep=cached) for split, samples in data.splits.items()}
    for split in pictures.values():
        split.fill(threads)
    if device.type == "cpu":
        keep_freed_memory()  # not before: what many threads decode would stay with each of them
    closing_from = first_closing_epoch(config)
    samples = TrainSamples(
        pictures["train"], Augment(parts_of_augment, preprocess, config.seed), closing_from
    )
    weights = (
        balance_weights([s.labels_N for s in data.splits["train"]], len(data.classes))
        if config.data.balance
        else None
    )
    train = TrainBatches(
        samples, batch_size, config.seed, workers, weights, pin=device.type == "cuda", world=world
    )
    evaluations = {
        split: EvalBatches(
            PlainSamples(pictures[split], preprocess), min(EVAL_BATCH, 2 * batch_size), workers, world
        )
        for split in ("valid", "test")
        if split in pictures
    }

    lr = peak_lr(config.optimizer, batch_size)
    pretrained = config.model.pretrained
    optimizer = build_optimizer(
        model, config.optimizer, lr, config.model.backbone_lr_factor if pretrained else 1.0
    )
    unfreeze_step = (
        round(min(config.model.freeze_epochs, config.training.epochs) * train.steps) if pretrained else 0
    )
    criterion = (
        DetectionCriterion(world=world)
        if isinstance(model, Detector)
        else ClassificationCriterion(config.training.label_smoothing, world=world)
    )
    train_samples = data.splits["train"]
    parts = Parts(
        model=model,
        criterion=criterion,
        optimizer=optimizer,
        schedule=Schedule(optimizer, config.schedule, train.steps, config.training.epochs, unfreeze_step),
        averaged=AveragedModel(model, config.training.ema_decay),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        preprocess=preprocess,
        precision=precision,
        seed=config.seed,
        clip_norm=config.optimizer.clip_norm,
        accumulate=config.optimizer.accumulate,
        freeze_norm=freeze_norm,
        frozen=frozen,
        unfreeze_step=unfreeze_step,
        mixup=parts_of_augment.mixup if data.task == "classify" else 0.0,
        names=lambda indices: [train_samples[index].path.name for index in indices],
        world=world,
    )
    choices = {
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "threads": threads,
        "image_size": image_size,
        "batch_size": batch_size,
        "memory_per_image_mb": round(bytes_per_image / 2**20, 1),
        "workers": workers,
        "cache": "ram" if cached else "off",
        "lr": lr,
        "closing_from_epoch": closing_from + 1,
        "fast_depthwise": sum(type(m).__name__ == "DepthwiseConv2d" for m in model.modules()),
        "depthwise_kernels": "numba" if compiled.COMPILED and device.type == "cpu" else "torch",
    }
    return Built(
        config,
        parts,
        train,
        evaluations["valid"],
        evaluations.get("test"),
        data.classes,
        choices,
        data.content_hash,
    )


def build_model(config: TrainConfig, classes: int) -> Model:
    """The network of a configuration whose task is known."""
    settings = config.model
    if config.task == "classify":
        pooled = PooledBackbone(
            settings.backbone, pretrained=settings.pretrained, drop_path=settings.drop_path
        )
        return Classifier(pooled, classes, dropout=settings.dropout)
    backbone = Backbone(settings.backbone, pretrained=settings.pretrained, drop_path=settings.drop_path)
    return Detector(backbone, classes, settings.scale)


def resolved(
    config: TrainConfig, image_size: int, batch_size: int, workers: int, cached: bool, threads: int,
    device: torch.device, dtype: torch.dtype, augment: AugmentParts,
) -> TrainConfig:  # fmt: skip
    """The configuration with every "auto" replaced by what was chosen."""
    monitor, mode, stop_monitor, stop_mode = choose_monitors(config)
    warmup, frozen = config.schedule.warmup_epochs, config.model.freeze_epochs
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    lr = AUTO_LR[config.optimizer.name] if config.optimizer.lr == "auto" else config.optimizer.lr
    return config.replaced(
        optimizer={"lr": lr},
        data={
            "path": str(Path(config.data.path).absolute()),
            "image_size": image_size,
            "batch_size": batch_size,
            "workers": workers,
            "cache": "ram" if cached else "off",
        },
        augment={name: getattr(augment, name) for name in augment.__dataclass_fields__},
        training={
            "monitor": monitor,
            "mode": mode,
            "early_stopping": {"monitor": stop_monitor, "mode": stop_mode},
        },
        schedule={"warmup_epochs": min(1.5, config.training.epochs / 4) if warmup == "auto" else warmup},
        model={"freeze_epochs": min(1.0, config.training.epochs / 5) if frozen == "auto" else frozen},
        runtime={"device": str(device), "precision": names[dtype], "threads": threads},
    )


def choose_monitors(config: TrainConfig) -> tuple[str, str, str, str]:
    """Metric and mode of the best epoch, then of early stopping, with "auto" replaced. Raises ConfigInvalid for
    metrics that the task does not log."""
    training, stopping = config.training, config.training.early_stopping
    monitor = AUTO_MONITOR[config.task] if training.monitor == "auto" else training.monitor
    stop_monitor = monitor if stopping.monitor == "auto" else stopping.monitor
    known = ", ".join(MONITORS[config.task])
    unknown = [
        Problem(f"{section}.monitor", "monitor_unknown", named, {"known": known})
        for section, named in (
            ("training", training.monitor),
            ("training.early_stopping", stopping.monitor),
        )
        if named not in ("auto", *MONITORS[config.task])
    ]
    if unknown:
        raise ConfigInvalid(unknown)
    mode = _mode(monitor) if training.mode == "auto" else training.mode
    follows = stopping.monitor == "auto" and stopping.mode == "auto"
    stop_mode = mode if follows else _mode(stop_monitor) if stopping.mode == "auto" else stopping.mode
    return monitor, mode, stop_monitor, stop_mode


def _mode(monitor: str) -> str:
    return "min" if "loss" in monitor or monitor == "ece" else "max"


def check_batch(config: TrainConfig, data: DataSet, batch_size: int | str) -> None:
    """Raises ConfigInvalid when the training split is smaller than a batch, or than a step of several; "auto" is
    chosen later."""
    count, together = len(data.splits["train"]), config.optimizer.accumulate
    if batch_size == "auto":
        return
    if batch_size > count:
        facts = {"count": count}
        raise ConfigInvalid([Problem("data.batch_size", "batch_larger_than_split", batch_size, facts)])
    if batch_size * together > count:
        facts = {"batch_size": batch_size, "count": count, "limit": count // batch_size}
        raise ConfigInvalid([Problem("optimizer.accumulate", "accumulate_too_many", together, facts)])


def check_memory(batch_size: int, bytes_per_image: int, device: torch.device) -> None:
    """Raises ConfigInvalid when a batch surely does not fit: found out here, before the system ends the process
    without a word."""
    free = memory_left(device)
    if STEP_FACTOR * batch_size * bytes_per_image > free:
        facts = {
            "needed": round(STEP_FACTOR * batch_size * bytes_per_image / 2**20),
            "free": round(free / 2**20),
            "fitting": max(1, int(free / STEP_FACTOR / bytes_per_image)),
        }
        raise ConfigInvalid([Problem("data.batch_size", "memory_short", batch_size, facts)])


def check_cache(wanted: str, data: DataSet, longest_px: int) -> None:
    """Raises ConfigInvalid when the decoded pictures are to be kept and do not fit."""
    needed, free = cache_bytes(data, longest_px), free_memory()
    if wanted == "ram" and needed > free:
        facts = {"needed": round(needed / 2**20), "free": round(free / 2**20)}
        raise ConfigInvalid([Problem("data.cache", "cache_too_large", wanted, facts)])


def choose_device(wanted: str) -> torch.device:
    """`auto`: a GPU if there is one. Raises ConfigInvalid for a device this machine does not have."""
    if wanted == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:160]
        raise ConfigInvalid(
            [Problem("runtime.device", "device_missing", wanted, {"reason": reason})]
        ) from error
    return device


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 where the hardware multiplies bf16, else fp32 (fp16 on older CUDA cards)."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted != "auto":
        return named[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64"):
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("amx_bf16") or able.get("avx512_bf16") else torch.float32
    return torch.float32


def set_threads(threads: int) -> None:
    """Size torch's pool, keep OpenCV out of its way, flush denormals (they can double a step)."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    torch.set_flush_denormal(True)


def choose_image_size(data: DataSet) -> int:
    """Detection: the median longer side of the training pictures, up to a multiple of 32, within 224 … 320.
    Classification, where one note fills the picture: 224."""
    if data.task == "classify":
        return SMALLEST_AUTO_SIZE
    sides = np.array([max(sample.size) for sample in data.splits["train"]])
    wanted = int(-(-np.median(sides) // 32) * 32)
    return min(max(wanted, SMALLEST_AUTO_SIZE), LARGEST_AUTO_SIZE)


def activation_bytes(
    model: Model,
    frozen: list[torch.nn.Parameter],
    preprocess: Preprocess,
    precision: Precision,
    *,
    freeze_norm: bool,
) -> int:
    """Bytes that one picture's forward pass keeps for the backward pass, measured on two pictures."""
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    to_training(model, freeze_norm=freeze_norm)
    model.backbone.requires_grad_(True)
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_buffers()}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    size = preprocess.image_size
    images = torch.zeros(2, 3, size, size, device=precision.device).contiguous(
        memory_format=torch.channels_last
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), precision.autocast():
        output = model(images)
    del output
    for name, value in model.named_buffers():
        value.copy_(before[name])
    return sum(size for pointer, size in seen.items() if pointer not in weights) // 2


def choose_batch_size(count: int, bytes_per_image: int, device: torch.device) -> int:
    """The largest power of two within bounds whose activations take at most 40 % of the free memory (the
    gradients and oneDNN's copies need about as much again), and that leaves an epoch enough steps."""
    most = LARGEST_AUTO_BATCH_GPU if device.type == "cuda" else LARGEST_AUTO_BATCH_CPU
    fits = max(1, int(0.4 * memory_left(device) / max(1, bytes_per_image)))
    enough_steps = max(4, count // FEWEST_STEPS)
    size = 1
    while size * 2 <= min(most, fits, enough_steps):
        size *= 2
    return size


def memory_left(device: torch.device) -> int:
    """Free bytes where the batches of `device` are."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def choose_cache(wanted: str, data: DataSet, longest_px: int) -> bool:
    """`auto`: keep the decoded pictures when they take at most a third of the free memory."""
    if wanted != "auto":
        return wanted == "ram"
    return cache_bytes(data, longest_px) < free_memory() / 3


def cache_bytes(data: DataSet, longest_px: int) -> int:
    """What all pictures take when they are kept decoded, at most `longest_px` long."""
    return sum(_cached_bytes(sample, longest_px) for sample in data.samples)


def _cached_bytes(sample: Sample, longest_px: int) -> int:
    ratio = min(1.0, longest_px / max(sample.size))
    return int(sample.size[0] * ratio) * int(sample.size[1] * ratio) * 3
