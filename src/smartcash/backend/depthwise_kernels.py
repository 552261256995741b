"""Compiled gradients of depthwise convolutions on the CPU: one pass over the data, sixteen channels at a time.

Needs numba, the extra `smartcash[fast]`. Tensors are bf16 or fp32, channels last; sums fp32. Every picture is computed by
itself and in an order of its own, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smartcash.backend.vectors import (
    LANES,
    NARROW,
    WIDE,
    add,
    arguments,
    fma,
    load,
    load_bf16,
    load_sized,
    next_picture,
    part_of_tasks,
    pictures,
    room_number,
    run,
    store,
    store_bf16,
    task,
    threads_for,
    zero,
)

KERNELS = (3, 5)


@part_of_tasks
def _spread_row(source, size, channels, columns, target, span, padding):  # type: ignore[no-untyped-def]
    """One row of numbers of `size` bytes → fp32, each vector's columns side by side, the next vector's `span` on."""
    for column in range(columns):
        for v in range(channels // LANES):
            at = source + size * (column * channels + v * LANES)
            store(target + (v * span + padding + column) * WIDE, load_sized(at, size))


@part_of_tasks
def _correlate(total, channels, above, line, columns, step, kernel):  # type: ignore[no-untyped-def]
    """Add a row of the picture to the sums of one row of the kernel, three or five vectors `channels` apart."""
    apart = 4 * channels
    s0, s1, s2 = load(total), load(total + apart), load(total + 2 * apart)
    if kernel == 5:
        s3, s4 = load(total + 3 * apart), load(total + 4 * apart)
        for _ in range(columns):
            value = load(above)
            s0 = fma(value, load(line), s0)
            s1 = fma(value, load(line + WIDE), s1)
            s2 = fma(value, load(line + 2 * WIDE), s2)
            s3 = fma(value, load(line + 3 * WIDE), s3)
            s4 = fma(value, load(line + 4 * WIDE), s4)
            above += WIDE
            line += step
        store(total + 3 * apart, s3)
        store(total + 4 * apart, s4)
    else:
        for _ in range(columns):
            value = load(above)
            s0 = fma(value, load(line), s0)
            s1 = fma(value, load(line + WIDE), s1)
            s2 = fma(value, load(line + 2 * WIDE), s2)
            above += WIDE
            line += step
    store(total, s0)
    store(total + apart, s1)
    store(total + 2 * apart, s2)


@part_of_tasks
def _add_up(total, above, columns):  # type: ignore[no-untyped-def]
    """Add a row of one vector's columns to its sum."""
    some = load(total)
    for _ in range(columns):
        some = add(some, load(above))
        above += WIDE
    store(total, some)


@task
def _weight_gradient(work):  # type: ignore[no-untyped-def]
    """Add to total_BkkC, and the gradient itself to bias_BC. `ring` and `above` are room for each thread to work in: for
    `kernel` rows of the padded picture, a quarter of a megabyte in EfficientNets, and for one of the gradient."""
    (
        x, grad, size, total, bias, ring, above, height, width, rows, columns, channels, kernel, stride, padding,
    ) = arguments(work, 15)  # fmt: skip
    span = width + 2 * padding
    whole = channels // LANES
    slot_size = whole * span * WIDE
    own = room_number(work)
    ring += own * kernel * slot_size
    above += own * whole * columns * WIDE
    for at in range(ring, ring + kernel * slot_size, WIDE):
        store(at, zero())
    b = next_picture(work)
    while b < pictures(work):
        ready = 0  # rows of the padded picture that have been put into the ring
        for row in range(rows):
            while ready < row * stride + kernel:
                slot, inside = ring + ready % kernel * slot_size, ready - padding
                if 0 <= inside < height:
                    source = x + size * (b * height + inside) * width * channels
                    _spread_row(source, size, channels, width, slot, span, padding)
                else:
                    for at in range(slot, slot + slot_size, WIDE):
                        store(at, zero())
                ready += 1
            source = grad + size * (b * rows + row) * columns * channels
            _spread_row(source, size, channels, columns, above, columns, 0)
            for v in range(whole):
                _add_up(bias + 4 * b * channels + v * WIDE, above + v * columns * WIDE, columns)
                for i in range(kernel):
                    sums = total + 4 * (b * kernel + i) * kernel * channels + v * WIDE
                    line = ring + (row * stride + i) % kernel * slot_size + v * span * WIDE
                    _correlate(
                        sums, channels, above + v * columns * WIDE, line, columns, stride * WIDE, kernel
                    )
        b = next_picture(work)


@task
def _input_gradient(work):  # type: ignore[no-untyped-def]
    """out_BHWC, bf16 as is grad_BhwC; weight_kkC is fp32. `sums` is room for each thread to work in, for `channels`
    numbers."""
    grad, weight, out, sums, height, width, rows, columns, channels, kernel, stride, padding = arguments(
        work, 12
    )
    whole = channels // LANES
    sums += room_number(work) * channels * 4
    b = next_picture(work)
    while b < pictures(work):
        for y in range(height):
            for x in range(width):
                for v in range(whole):
                    store(sums + v * WIDE, zero())
                for i in range((y + padding) % stride, kernel, stride):
                    row = (y + padding - i) // stride
                    if row < 0 or row >= rows:
                        continue
                    for j in range((x + padding) % stride, kernel, stride):
                        column = (x + padding - j) // stride
                        if column < 0 or column >= columns:
                            continue
                        above = grad + 2 * ((b * rows + row) * columns + column) * channels
                        tap = weight + 4 * (i * kernel + j) * channels
                        for v in range(whole):
                            value = fma(
                                load_bf16(above + v * NARROW), load(tap + v * WIDE), load(sums + v * WIDE)
                            )
                            store(sums + v * WIDE, value)
                target = out + 2 * ((b * height + y) * width + x) * channels
                for v in range(whole):
                    store_bf16(target + v * NARROW, load(sums + v * WIDE))
        b = next_picture(work)


def takes(grad_BChw: Tensor, kernel: int) -> bool:
    """Whether these kernels can compute such a layer."""
    fits = grad_BChw.shape[1] % LANES == 0 and kernel in KERNELS
    return fits and grad_BChw.dtype in (torch.bfloat16, torch.float32)


def weight_gradient(
    grad_BChw: Tensor, x_BCHW: Tensor, kernel: int, stride: int, padding: int
) -> tuple[Tensor, Tensor]:
    """The gradients of the weight, C1kk, and of a bias, C, in fp32. Both inputs are of one type and such as `takes`
    says."""
    x = x_BCHW.contiguous(memory_format=torch.channels_last)
    grad = grad_BChw.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    rows, columns = grad.shape[2:]
    total_BkkC, bias_BC = torch.zeros(batch, kernel, kernel, channels), torch.zeros(batch, channels)
    threads = threads_for(batch)
    ring = torch.empty(threads, kernel, channels, width + 2 * padding)
    above = torch.empty(threads, channels, columns)
    run(
        _weight_gradient,
        batch,
        *(x.data_ptr(), grad.data_ptr(), x.element_size()),
        *(tensor.data_ptr() for tensor in (total_BkkC, bias_BC, ring, above)),
        *(height, width, rows, columns, channels, kernel, stride, padding),
    )
    return total_BkkC.sum(0).permute(2, 0, 1)[:, None], bias_BC.sum(0)


def input_gradient(
    grad_BChw: Tensor, weight_C1kk: Tensor, size: tuple[int, int], stride: int, padding: int
) -> Tensor:
    """The gradient of the input of `size` (height, width). `grad` is bf16 and such as `takes` says."""
    grad = grad_BChw.contiguous(memory_format=torch.channels_last)
    weight_kkC = weight_C1kk[:, 0].permute(1, 2, 0).float().contiguous()
    batch, channels, rows, columns = grad.shape
    out = torch.empty((batch, channels, *size), dtype=grad.dtype, memory_format=torch.channels_last)
    sums = torch.empty(threads_for(batch), channels)
    run(
        _input_gradient,
        batch,
        *(tensor.data_ptr() for tensor in (grad, weight_kkC, out, sums)),
        *(*size, rows, columns, channels, weight_kkC.shape[0], stride, padding),
    )
    return out
