"""The backward of depthwise convolutions on the CPU: PyTorch's own against backend/depthwise.py.

Per layer of efficientnet_lite0 at 320 px, batch 16, under bf16 autocast: the time of one backward (gradients of
input and weight) and the relative error of its gradients against PyTorch's in fp32. Then whole backbones: one
step of forward, backward and fused AdamW. Ours is used where the CPU has bf16 in hardware, see choose_dtype:
"torch" is what it does with PyTorch's kernels alone, "numba" with those of the extra `fast`, where it is installed.
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
from torch import Tensor, nn

from benchmarks.measuring import Row, medians, options, print_table
from smartcash.backend import depthwise
from smartcash.backend.backbones import SHORT_NAMES
from smartcash.backend.builder import choose_dtype, set_threads
from smartcash.backend.depthwise import DepthwiseConv2d, replace_depthwise
from smartcash.utils.machine import available_cores

Result = TypeVar("Result")
IMAGE_PX = 320
WAYS = ("torch", "numba") if depthwise.COMPILED else ("torch",)
BACKBONES = ("efficientnet_lite0", "mobilenetv4_conv_small", "efficientnet_b0")


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
        f"One step of the bare backbone, batch {batch}, bf16, channels last, images/s",
        ("", "layers replaced", "stock", *WAYS, "best / stock"),
        [backbone(name, batch, repeat) for name in BACKBONES[: 1 if small else None]],
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
        depthwise.COMPILED = way == "numba"
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


def backbone(name: str, batch: int, repeat: int) -> Row:
    """images/s of one whole step, without and with our layers."""
    stock = net_of(name)
    ours = deepcopy(stock)
    replaced = replace_depthwise(ours)
    images = torch.randn(batch, 3, IMAGE_PX, IMAGE_PX).contiguous(memory_format=torch.channels_last)
    times = medians({"stock": step_of(stock, images), **by(step_of(ours, images))}, repeat)
    return name, replaced, *(batch / value for value in times.values()), times["stock"] / times[WAYS[-1]]


def step_of(net: nn.Module, images: Tensor) -> Callable[[], None]:
    """A function that makes one training step of `net`."""
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            maps = net(images)
        sum(m.float().square().mean() for m in maps).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
