"""Compiled squeeze-and-excitation on the CPU: the mean of every channel, its gate, and both gradients, a pass each.

Needs numba, the extra `smartcash[fast]`. Tensors are bf16 or fp32, channels last; sums fp32, row by row, so that few
digits are lost. Every picture is computed by itself, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smartcash.backend.vectors import (
    LANES,
    WIDE,
    add,
    arguments,
    fma,
    load,
    load_sized,
    multiply,
    next_picture,
    pictures,
    run,
    store,
    store_sized,
    task,
    zero,
)


@task
def _sums(work):  # type: ignore[no-untyped-def]
    """sums_BC of x_BHWC, or of x_BHWC · other_BHWC where `other` is not 0."""
    x, other, size, sums, rows, columns, channels = arguments(work, 7)
    pixel, vector = size * channels, size * LANES
    b = next_picture(work)
    while b < pictures(work):
        for v in range(channels // LANES):
            store(sums + 4 * b * channels + v * WIDE, zero())
        for row in range(rows):
            for v in range(channels // LANES):
                total, some = sums + 4 * b * channels + v * WIDE, zero()
                at = (b * rows + row) * columns * pixel + v * vector
                if other == 0:
                    for _ in range(columns):
                        some = add(some, load_sized(x + at, size))
                        at += pixel
                else:
                    for _ in range(columns):
                        some = fma(load_sized(x + at, size), load_sized(other + at, size), some)
                        at += pixel
                store(total, add(load(total), some))
        b = next_picture(work)


@task
def _scale(work):  # type: ignore[no-untyped-def]
    """out_BHWC = x_BHWC · factor_BC + shift_BC, without the last where it is 0."""
    x, size, out, factor, shift, area, channels = arguments(work, 7)
    vector = size * LANES
    b = next_picture(work)
    while b < pictures(work):
        row = 4 * b * channels
        for at in range(b * area * size * channels, (b + 1) * area * size * channels, size * channels):
            for v in range(channels // LANES):
                value, by = load_sized(x + at + v * vector, size), load(factor + row + v * WIDE)
                if shift == 0:
                    value = multiply(value, by)
                else:
                    value = fma(value, by, load(shift + row + v * WIDE))
                store_sized(out + at + v * vector, value, size)
        b = next_picture(work)


def sums(x_BCHW: Tensor, other_BCHW: Tensor | None = None) -> Tensor:
    """Σ x, or Σ x · other, over each map: BC in fp32. Both are channels last, of one type and such as `vectors.takes` says."""
    batch, channels, rows, columns = x_BCHW.shape
    sums_BC = torch.empty(batch, channels)
    other = 0 if other_BCHW is None else other_BCHW.data_ptr()
    run(
        _sums, batch, x_BCHW.data_ptr(), other, x_BCHW.element_size(), sums_BC.data_ptr(), rows, columns, channels
    )  # fmt: skip
    return sums_BC


def scale(x_BCHW: Tensor, factor_BC: Tensor, shift_BC: Tensor | None = None) -> Tensor:
    """x · factor + shift, as x is: channels last and such as `vectors.takes` says. `factor` and `shift` are fp32, contiguous."""
    batch, channels, rows, columns = x_BCHW.shape
    out = torch.empty_like(x_BCHW)
    shift = 0 if shift_BC is None else shift_BC.data_ptr()
    run(
        _scale, batch, x_BCHW.data_ptr(), x_BCHW.element_size(), out.data_ptr(), factor_BC.data_ptr(), shift,
        rows * columns, channels,
    )  # fmt: skip
    return out
