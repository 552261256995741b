"""Compiled gradients of depthwise convolutions on the CPU: one pass over the data, sixteen channels at a time.

Needs numba, the extra `smartcash[fast]`. Tensors are bf16 or fp32, channels last; sums fp32. Every picture is computed by
itself and in an order of its own, so that the result does not depend on the number of threads. The first import on a
machine compiles, which takes seconds; the code is kept beside this file, or in numba's cache folder where that cannot
be written.

Whether a compiler turns a loop into vector instructions changes from version to version. So vectors are a type here,
with the few operations that are needed, and memory is addresses in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model
from torch import Tensor

LANES = 16  # the channels of EfficientNets and MobileNets are multiples of it
WIDE, NARROW = 4 * LANES, 2 * LANES  # bytes of a vector in fp32 and in bf16
KERNELS = (3, 5)

FLOATS = ir.VectorType(ir.FloatType(), LANES)
BITS = ir.VectorType(ir.IntType(32), LANES)
HALVES = ir.VectorType(ir.IntType(16), LANES)


class _Lanes(types.Type):
    """LANES numbers in fp32."""

    def __init__(self) -> None:
        super().__init__("lanes")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Lanes) -> None:
        super().__init__(manager, kind, FLOATS)


lanes = _Lanes()


def _all(number: int) -> ir.Constant:
    return ir.Constant(BITS, [number] * LANES)


@intrinsic
def _zero(typing: Any) -> Any:
    return lanes(), lambda context, builder, signature, values: ir.Constant(FLOATS, [0.0] * LANES)


@intrinsic
def _load(typing: Any, address: Any) -> Any:
    """The fp32 numbers at an address."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(builder.inttoptr(values[0], FLOATS.as_pointer()), align=4)

    return lanes(types.int64), code


@intrinsic
def _store(typing: Any, address: Any, value: Any) -> Any:
    """The reverse of `_load`."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[1], builder.inttoptr(values[0], FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, lanes), code


@intrinsic
def _load_bf16(typing: Any, address: Any) -> Any:
    """bf16 → fp32: the same bits, 16 further up."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        halves = builder.load(builder.inttoptr(values[0], HALVES.as_pointer()), align=2)
        return builder.bitcast(builder.shl(builder.zext(halves, BITS), _all(16)), FLOATS)

    return lanes(types.int64), code


@intrinsic
def _store_bf16(typing: Any, address: Any, value: Any) -> Any:
    """fp32 → bf16, rounded to the nearest, ties to even."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = builder.bitcast(values[1], BITS)
        odd = builder.and_(builder.lshr(bits, _all(16)), _all(1))
        rounded = builder.lshr(builder.add(builder.add(bits, _all(0x7FFF)), odd), _all(16))
        pointer = builder.inttoptr(values[0], HALVES.as_pointer())
        builder.store(builder.trunc(rounded, HALVES), pointer, align=2)
        return context.get_dummy_value()

    return types.void(types.int64, lanes), code


@intrinsic
def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, fused where the CPU can."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, b, c = values
        return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

    return lanes(lanes, lanes, lanes), code


def _compiled(count: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function of `count` whole numbers, or take it from the cache."""
    return njit(types.void(*[types.int64] * count), nogil=True, cache=True, error_model="numpy")


@_compiled(7)
def _spread_row(source, size, channels, columns, target, span, padding):  # type: ignore[no-untyped-def]
    """One row of numbers of `size` bytes → fp32, each vector's columns side by side, the next vector's `span` on."""
    for column in range(columns):
        for v in range(channels // LANES):
            at = source + size * (column * channels + v * LANES)
            value = _load_bf16(at) if size == 2 else _load(at)
            _store(target + (v * span + padding + column) * WIDE, value)


@_compiled(7)
def _correlate(total, channels, above, line, columns, step, kernel):  # type: ignore[no-untyped-def]
    """Add a row of the picture to the sums of one row of the kernel, three or five vectors `channels` apart."""
    apart = 4 * channels
    s0, s1, s2 = _load(total), _load(total + apart), _load(total + 2 * apart)
    if kernel == 5:
        s3, s4 = _load(total + 3 * apart), _load(total + 4 * apart)
        for _ in range(columns):
            value = _load(above)
            s0 = _fma(value, _load(line), s0)
            s1 = _fma(value, _load(line + WIDE), s1)
            s2 = _fma(value, _load(line + 2 * WIDE), s2)
            s3 = _fma(value, _load(line + 3 * WIDE), s3)
            s4 = _fma(value, _load(line + 4 * WIDE), s4)
            above += WIDE
            line += step
        _store(total + 3 * apart, s3)
        _store(total + 4 * apart, s4)
    else:
        for _ in range(columns):
            value = _load(above)
            s0 = _fma(value, _load(line), s0)
            s1 = _fma(value, _load(line + WIDE), s1)
            s2 = _fma(value, _load(line + 2 * WIDE), s2)
            above += WIDE
            line += step
    _store(total, s0)
    _store(total + apart, s1)
    _store(total + 2 * apart, s2)


@_compiled(16)
def _weight_gradient(  # type: ignore[no-untyped-def]
    x,
    grad,
    size,
    total,
    ring,
    above,
    height,
    width,
    rows,
    columns,
    channels,
    kernel,
    stride,
    padding,
    first,
    last,
):
    """Add to total_BkkC for the pictures first … last - 1. `ring` and `above` are room to work in: for `kernel` rows
    of the padded picture, a quarter of a megabyte in EfficientNets, and for one of the gradient."""
    span = width + 2 * padding
    whole = channels // LANES
    slot_size = whole * span * WIDE
    for at in range(ring, ring + kernel * slot_size, WIDE):
        _store(at, _zero())
    for b in range(first, last):
        ready = 0  # rows of the padded picture that have been put into the ring
        for row in range(rows):
            while ready < row * stride + kernel:
                slot, inside = ring + ready % kernel * slot_size, ready - padding
                if 0 <= inside < height:
                    source = x + size * (b * height + inside) * width * channels
                    _spread_row(source, size, channels, width, slot, span, padding)
                else:
                    for at in range(slot, slot + slot_size, WIDE):
                        _store(at, _zero())
                ready += 1
            source = grad + size * (b * rows + row) * columns * channels
            _spread_row(source, size, channels, columns, above, columns, 0)
            for v in range(whole):
                for i in range(kernel):
                    sums = total + 4 * (b * kernel + i) * kernel * channels + v * WIDE
                    line = ring + (row * stride + i) % kernel * slot_size + v * span * WIDE
                    _correlate(
                        sums, channels, above + v * columns * WIDE, line, columns, stride * WIDE, kernel
                    )


@_compiled(14)
def _input_gradient(  # type: ignore[no-untyped-def]
    grad, weight, out, sums, height, width, rows, columns, channels, kernel, stride, padding, first, last
):
    """out_BHWC of the pictures first … last - 1, bf16 as is grad_BhwC; weight_kkC is fp32. `sums` is room to work in,
    for `channels` numbers."""
    whole = channels // LANES
    for b in range(first, last):
        for y in range(height):
            for x in range(width):
                for v in range(whole):
                    _store(sums + v * WIDE, _zero())
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
                            value = _fma(
                                _load_bf16(above + v * NARROW), _load(tap + v * WIDE), _load(sums + v * WIDE)
                            )
                            _store(sums + v * WIDE, value)
                target = out + 2 * ((b * height + y) * width + x) * channels
                for v in range(whole):
                    _store_bf16(target + v * NARROW, _load(sums + v * WIDE))


def takes(grad_BChw: Tensor, kernel: int) -> bool:
    """Whether these kernels can compute such a layer."""
    fits = grad_BChw.shape[1] % LANES == 0 and kernel in KERNELS
    return fits and grad_BChw.dtype in (torch.bfloat16, torch.float32)


def weight_gradient(grad_BChw: Tensor, x_BCHW: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The gradient of the weight, C1kk in fp32. Both are of one type and such as `takes` says."""
    x = x_BCHW.contiguous(memory_format=torch.channels_last)
    grad = grad_BChw.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    rows, columns = grad.shape[2:]
    total_BkkC = torch.zeros(batch, kernel, kernel, channels)

    def part(first: int, last: int) -> None:
        ring = torch.empty(kernel, channels, width + 2 * padding)
        above = torch.empty(channels, columns)
        _weight_gradient(
            *(tensor.data_ptr() for tensor in (x, grad)),
            x.element_size(),
            *(tensor.data_ptr() for tensor in (total_BkkC, ring, above)),
            *(height, width, rows, columns, channels, kernel, stride, padding, first, last),
        )

    _in_parts(batch, part)
    return total_BkkC.sum(0).permute(2, 0, 1)[:, None]


def input_gradient(
    grad_BChw: Tensor, weight_C1kk: Tensor, size: tuple[int, int], stride: int, padding: int
) -> Tensor:
    """The gradient of the input of `size` (height, width). `grad` is bf16 and such as `takes` says."""
    grad = grad_BChw.contiguous(memory_format=torch.channels_last)
    weight_kkC = weight_C1kk[:, 0].permute(1, 2, 0).float().contiguous()
    batch, channels, rows, columns = grad.shape
    out = torch.empty((batch, channels, *size), dtype=grad.dtype, memory_format=torch.channels_last)

    def part(first: int, last: int) -> None:
        sums = torch.empty(channels)
        _input_gradient(
            *(tensor.data_ptr() for tensor in (grad, weight_kkC, out, sums)),
            *(*size, rows, columns, channels, weight_kkC.shape[0], stride, padding, first, last),
        )

    _in_parts(batch, part)
    return out


def _in_parts(count: int, work: Callable[[int, int], None]) -> None:
    """`work` on `count` pictures, shared out among as many threads as torch uses."""
    threads = min(torch.get_num_threads(), count)
    own, *others = pairwise(count * part // threads for part in range(threads + 1))
    waiting = [_pool(threads).submit(work, *part) for part in others]
    work(*own)
    for part in waiting:
        part.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # denormals are flushed per thread, see builder.set_threads
    return ThreadPoolExecutor(threads - 1, "depthwise", torch.set_flush_denormal, (True,))
