"""The compiled kernels on the CPU: PyTorch's own against backend/depthwise.py, norms.py and squeeze_excite.py.

Under bf16 autocast, batch 16. Per depthwise layer of efficientnet_lite0 at 320 px: the time of one backward (gradients
of input and weight) and the relative error of its gradients against PyTorch's in fp32. Per kind of batch norm with its
activation, and of squeeze-and-excitation: one forward and backward. Then whole detectors: steps of forward, loss,
backward and fused AdamW, in turns, fine-tuned as pretrained ones are by default, and from scratch; "stock" is the same
net without any of our layers. Ours is used where the CPU has bf16 in hardware, see choose_dtype: "torch" is what it
does with PyTorch's kernels alone, "numba" with those of the extra `fast`, where it is installed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from typing import TypeVar

import timm
import torch
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from benchmarks.measuring import Row, medians, options, print_table
from smartcash.backend import compiled
from smartcash.backend.backbones import SHORT_NAMES, Backbone
from smartcash.backend.builder import choose_dtype, set_threads
from smartcash.backend.criterion import DetectionCriterion, Targets
from smartcash.backend.depthwise import DepthwiseConv2d
from smartcash.backend.detector import Detector
from smartcash.backend.engine import to_training
from smartcash.backend.folding import FoldableConv2d, fold_norms
from smartcash.backend.norms import NormAct2d
from smartcash.backend.squeeze_excite import SqueezeExcite2d
from smartcash.utils.machine import available_cores

Result = TypeVar("Result")
IMAGE_PX = 320
WAYS = ("torch", "numba") if compiled.COMPILED else ("torch",)
EXCITED = ((48, 160), (192, 80), (672, 20))
NORMS = ((32, 160, nn.ReLU), (96, 80, nn.ReLU), (192, 20, nn.ReLU), (64, 40, nn.SiLU), (128, 20, nn.SiLU))
DETECTORS = (
    ("efficientnet_lite0", 16, True),
    ("efficientnet_b4", 8, True),
    ("efficientnet_lite0", 16, False),
    ("mobilenetv4_conv_small", 16, False),
)


def main() -> None:
    """Measure and print."""
    small = options(__doc__).small
    batch, repeat = (2, 1) if small else (16, 9)
    set_threads(available_cores())
    used = choose_dtype("auto", torch.device("cpu"))
    print(f"{torch.get_num_threads()} threads; a training on this CPU computes in {used}")
    torch.manual_seed(0)
    print_table(
        f"Backward of each depthwise layer of efficientnet_lite0, ms, {IMAGE_PX} px, batch {batch}, bf16",
        ("layer", "times", "stock", *WAYS, "stock / best", *(f"error, {way}" for way in ("stock", *WAYS))),
        layers(batch, repeat),
    )
    print_table(
        f"Batch norm and activation, forward and backward, ms, batch {batch}, bf16",
        ("layer", "stock", WAYS[-1], "stock / best"),
        [norm_row(*kind, batch, repeat) for kind in NORMS],
    )
    print_table(
        f"Squeeze-and-excitation, forward and backward, ms, batch {batch}, bf16",
        ("layer", "stock", WAYS[-1], "stock / best"),
        [excited_row(*kind, batch, repeat) for kind in EXCITED],
    )
    print_table(
        f"One training step of a whole detector, images/s, {IMAGE_PX} px, bf16",
        ("", "batch", "stock", *WAYS, "best / stock"),
        [
            detector(name, min(size, batch), repeat, tuned=tuned)
            for name, size, tuned in DETECTORS[: 1 if small else None]
        ],
    )


def net_of(name: str) -> nn.Module:
    """The stock feature backbone, untrained."""
    net = timm.create_model(SHORT_NAMES.get(name, name), features_only=True, out_indices=(2, 3, 4))
    return net.to(memory_format=torch.channels_last).train()


def layers(batch: int, repeat: int) -> list[Row]:
    """A row for each kind of depthwise layer, and their sum over the whole net."""
    net = net_of("efficientnet_lite0")
    seen: dict[tuple[int, ...], nn.Conv2d] = {}
    counts: Counter[tuple[int, ...]] = Counter()

    def note(conv: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        shape = (conv.in_channels, inputs[0].shape[-1], conv.kernel_size[0], conv.stride[0])
        seen[shape] = conv
        counts[shape] += 1

    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.register_forward_hook(note)
    with torch.no_grad():
        net(torch.zeros(1, 3, IMAGE_PX, IMAGE_PX))

    rows: list[Row] = []
    total = dict.fromkeys(("stock", *WAYS), 0.0)
    for shape, conv in seen.items():
        conv._forward_hooks.clear()
        channels, side, kernel, stride = shape
        x = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
        ours = DepthwiseConv2d(conv)
        exact = gradients(conv, x, bf16=False)()
        actions = {"stock": gradients(conv, x, bf16=True), **by(gradients(ours, x, bf16=True))}
        errors = {name: error(action(), exact) for name, action in actions.items()}
        times = medians(actions, repeat)
        for name in total:
            total[name] += counts[shape] * times[name]
        rows.append(
            (
                f"{channels} ch, {side}², {kernel}×{kernel}, stride {stride}", counts[shape],
                *(1e3 * value for value in times.values()), times["stock"] / times[WAYS[-1]], *errors.values(),
            )
        )  # fmt: skip
    whole = (*(1e3 * value for value in total.values()), total["stock"] / total[WAYS[-1]])
    return [*rows, ("all", sum(counts.values()), *whole, *([None] * len(total)))]


def by(action: Callable[[], Result]) -> dict[str, Callable[[], Result]]:
    """The same action with the kernels of each way."""

    def chosen(way: str) -> Result:
        compiled.COMPILED = way == "numba"
        return action()

    return {way: partial(chosen, way) for way in WAYS}


def gradients(layer: nn.Module, x: Tensor, *, bf16: bool) -> Callable[[], tuple[Tensor, ...]]:
    """A function that runs one backward of `layer` at x and returns both gradients; the forward is done once."""
    inputs = x.clone(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        output = layer(inputs)
    generator = torch.Generator().manual_seed(1)
    above = torch.randn(output.shape, generator=generator).to(output.dtype)
    above = above.contiguous(memory_format=torch.channels_last)
    return lambda: torch.autograd.grad(output, (inputs, layer.weight), above, retain_graph=True)


def error(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """The larger of the two gradients' relative errors in the Euclidean norm."""
    return max(float((f.float() - e).norm() / e.norm()) for f, e in zip(found, exact))


def norm_row(channels: int, side: int, activation: type[nn.Module], batch: int, repeat: int) -> Row:
    """ms of one forward and backward of a norm with its activation, PyTorch's and ours."""
    stock = nn.Sequential(nn.BatchNorm2d(channels), activation(inplace=True))
    ours = NormAct2d(channels, act=activation(inplace=True))
    name = f"{channels} ch, {side}², {activation.__name__}"
    return name, *turns_of(stock, ours, channels, side, batch, repeat)


def excited_row(channels: int, side: int, batch: int, repeat: int) -> Row:
    """The same of a squeeze-and-excitation, timm's and ours."""
    stock = SqueezeExcite(channels, act_layer=nn.SiLU)
    ours = SqueezeExcite2d(deepcopy(stock))
    return f"{channels} ch, {side}²", *turns_of(stock, ours, channels, side, batch, repeat)


def turns_of(
    stock: nn.Module, ours: nn.Module, channels: int, side: int, batch: int, repeat: int
) -> tuple[float, float, float]:
    """ms of one forward and backward of either, and their ratio."""
    x = torch.randn(batch, channels, side, side).to(torch.bfloat16, memory_format=torch.channels_last)
    above = torch.randn_like(x)

    def turn(layer: nn.Module) -> Callable[[], None]:
        inputs = x.clone().requires_grad_()

        def once() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                output = layer(inputs)
            output.backward(above)

        return once

    times = medians({"stock": turn(stock), "ours": turn(ours)}, repeat)
    return 1e3 * times["stock"], 1e3 * times["ours"], times["stock"] / times["ours"]


def detector(name: str, batch: int, repeat: int, *, tuned: bool) -> Row:
    """images/s of one whole step of a detector. The weights are random: they do not change the time."""
    ours = Detector(Backbone(name, pretrained=False), classes=7).to(memory_format=torch.channels_last)
    stock = without_ours(ours)
    if tuned:
        fold_norms(ours.backbone.net)
    images = torch.randn(batch, 3, IMAGE_PX, IMAGE_PX).contiguous(memory_format=torch.channels_last)
    turns = {"stock": step_of(stock, images, tuned=tuned), **by(step_of(ours, images, tuned=tuned))}
    times = medians(turns, repeat)
    title = f"{name}, {'fine-tuned' if tuned else 'from scratch'}"
    return title, batch, *(batch / value for value in times.values()), times["stock"] / times[WAYS[-1]]


def without_ours(model: nn.Module) -> nn.Module:
    """A copy with PyTorch's own layers."""
    stock = deepcopy(model)
    for name, layer in list(stock.named_modules()):
        if isinstance(layer, NormAct2d):
            plain = nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum)
            plain.load_state_dict(layer.state_dict())
            if isinstance(layer.act, nn.SiLU):
                layer.act.inplace = True  # as timm has it
            stock.set_submodule(name, nn.Sequential(plain, layer.act))
        elif isinstance(layer, DepthwiseConv2d):
            layer.convolve = partial(FoldableConv2d.convolve, layer)
            layer.convolve_unevenly = partial(FoldableConv2d.convolve_unevenly, layer)
        elif isinstance(layer, SqueezeExcite2d):
            layer.forward = partial(SqueezeExcite.forward, layer)
    return stock


def step_of(model: nn.Module, images: Tensor, *, tuned: bool) -> Callable[[], None]:
    """A function that makes one training step of a detector that looks for two notes in every picture."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    criterion = DetectionCriterion()
    boxes = torch.tensor([[20.0, 30.0, 200.0, 140.0], [100.0, 150.0, 300.0, 300.0]]).repeat(len(images), 1, 1)
    labels = torch.tensor([1, 4]).repeat(len(images), 1)
    targets = Targets(boxes, labels, torch.ones_like(labels, dtype=torch.bool))

    def step() -> None:
        to_training(model, freeze_norm=tuned)
        with torch.autocast("cpu", torch.bfloat16):
            prediction = model(images)
        criterion(prediction, targets)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
