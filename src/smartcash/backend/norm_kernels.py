"""Compiled batch norms that learn their statistics, with the activation after them, on the CPU: fewer passes over memory.

Needs numba, the extra `smartcash[fast]`. Tensors are bf16 or fp32, channels last; sums of a row fp32, of a picture fp32,
of a batch fp64. Every picture is summed by itself, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from smartcash.backend.vectors import (
    LANES,
    WIDE,
    add,
    arguments,
    clip,
    fma,
    load,
    load_sized,
    multiply,
    next_picture,
    number_at,
    pictures,
    run,
    sigmoid,
    store,
    store_sized,
    subtract,
    task,
    where_between,
    where_positive,
    zero,
)


class Activation(IntEnum):
    """What follows the norm: nothing, cutting off at two settings (ReLU, ReLU6), x · sigmoid(x), or what is negative
    times the first setting (leaky ReLU)."""

    NONE = 0
    CLIP = 1
    SILU = 2
    LEAKY = 3


CLIP, SILU, LEAKY = int(Activation.CLIP), int(Activation.SILU), int(Activation.LEAKY)
# rows of the table of a layer, each with a number per channel: norm(x) = x · FACTOR + SHIFT
FACTOR, SHIFT, MEAN, INVERSE_STD = range(4)


@task
def _sums(work):  # type: ignore[no-untyped-def]
    """Of each picture, out_B3C: its first pixel, and the sums and the squares' sums of x less that pixel, whose nearness
    to the mean keeps the difference of large sums from losing digits."""
    x, size, out, rows, columns, channels = arguments(work, 6)
    pixel, vector, row_of_sums = size * channels, size * LANES, 4 * channels
    b = next_picture(work)
    while b < pictures(work):
        picture = x + b * rows * columns * pixel
        for v in range(channels // LANES):
            total = out + b * 3 * row_of_sums + v * WIDE
            origin = load_sized(picture + v * vector, size)
            store(total, origin)
            store(total + row_of_sums, zero())
            store(total + 2 * row_of_sums, zero())
        for row in range(rows):
            for v in range(channels // LANES):
                total = out + b * 3 * row_of_sums + v * WIDE
                origin, some, squares = load(total), zero(), zero()
                at = picture + row * columns * pixel + v * vector
                for _ in range(columns):
                    away = subtract(load_sized(at, size), origin)
                    some = add(some, away)
                    squares = fma(away, away, squares)
                    at += pixel
                store(total + row_of_sums, add(load(total + row_of_sums), some))
                store(total + 2 * row_of_sums, add(load(total + 2 * row_of_sums), squares))
        b = next_picture(work)


@task
def _normalise(work):  # type: ignore[no-untyped-def]
    """out_BHWC = activation(x_BHWC · factor + shift)."""
    x, size, out, table, area, channels, activation, settings = arguments(work, 8)
    low, high = number_at(settings), number_at(settings + 4)
    vector, row_of_table = size * LANES, 4 * channels
    b = next_picture(work)
    while b < pictures(work):
        for at in range(b * area * size * channels, (b + 1) * area * size * channels, size * channels):
            for v in range(channels // LANES):
                factor = table + v * WIDE
                y = fma(load_sized(x + at + v * vector, size), load(factor), load(factor + row_of_table))
                if activation == CLIP:
                    y = clip(y, low, high)
                elif activation == SILU:
                    y = multiply(y, sigmoid(y))
                elif activation == LEAKY:
                    y = where_positive(y, y, low)
                store_sized(out + at + v * vector, y, size)
        b = next_picture(work)


@task
def _gradient_sums(work):  # type: ignore[no-untyped-def]
    """out_BHWC = the gradient before the activation; of each picture, sums_B2C: its sum, and that of it times x less
    its mean."""
    x, grad, size, out, sums, table, rows, columns, channels, activation, settings = arguments(work, 11)
    low, high = number_at(settings), number_at(settings + 4)
    pixel, vector, row_of_table = size * channels, size * LANES, 4 * channels
    b = next_picture(work)
    while b < pictures(work):
        for v in range(channels // LANES):
            total = sums + b * 2 * row_of_table + v * WIDE
            store(total, zero())
            store(total + row_of_table, zero())
        for row in range(rows):
            for v in range(channels // LANES):
                facts = table + v * WIDE
                factor, shift = load(facts), load(facts + row_of_table)
                mean = load(facts + 2 * row_of_table)
                some, products = zero(), zero()
                at = (b * rows + row) * columns * pixel + v * vector
                for _ in range(columns):
                    value, slope = load_sized(x + at, size), load_sized(grad + at, size)
                    y = fma(value, factor, shift)
                    if activation == CLIP:
                        slope = where_between(slope, y, low, high)
                    elif activation == SILU:  # s + ys − ys · s, with s = sigmoid(y)
                        s = sigmoid(y)
                        ys = multiply(y, s)
                        slope = multiply(slope, subtract(add(s, ys), multiply(ys, s)))
                    elif activation == LEAKY:
                        slope = where_positive(slope, y, low)
                    store_sized(out + at, slope, size)
                    some = add(some, slope)
                    products = fma(slope, subtract(value, mean), products)
                    at += pixel
                total = sums + b * 2 * row_of_table + v * WIDE
                store(total, add(load(total), some))
                store(total + row_of_table, add(load(total + row_of_table), products))
        b = next_picture(work)


@task
def _input_gradient(work):  # type: ignore[no-untyped-def]
    """out_BHWC, which holds the gradient before the activation, becomes the gradient of x_BHWC: out · first + x · second
    + third, rows of the table."""
    x, size, out, table, area, channels = arguments(work, 6)
    vector, row_of_table = size * LANES, 4 * channels
    b = next_picture(work)
    while b < pictures(work):
        for at in range(b * area * size * channels, (b + 1) * area * size * channels, size * channels):
            for v in range(channels // LANES):
                facts, place = table + v * WIDE, at + v * vector
                rest = fma(
                    load_sized(x + place, size), load(facts + row_of_table), load(facts + 2 * row_of_table)
                )
                store_sized(out + place, fma(load_sized(out + place, size), load(facts), rest), size)
        b = next_picture(work)


@njit(cache=True, error_model="numpy")
def _statistics(sums_B3C, area, weight_C, bias_C, eps, momentum, mean_C, var_C, table):  # type: ignore[no-untyped-def]
    """The sums of the pictures → the layer's table; the running mean and variance move on."""
    batch, _, channels = sums_B3C.shape
    count = batch * area
    mean, squares = np.zeros(channels), np.zeros(channels)
    for b in range(batch):
        for c in range(channels):
            mean[c] += sums_B3C[b, 0, c] + np.float64(sums_B3C[b, 1, c]) / area
    for c in range(channels):
        mean[c] /= batch
    for b in range(batch):
        for c in range(channels):
            some = np.float64(sums_B3C[b, 1, c])
            away = sums_B3C[b, 0, c] + some / area - mean[c]
            squares[c] += max(sums_B3C[b, 2, c] - some * some / area, 0.0) + area * away * away
    for c in range(channels):
        inverse = 1 / np.sqrt(squares[c] / count + eps)
        table[FACTOR, c] = weight_C[c] * inverse
        table[SHIFT, c] = bias_C[c] - mean[c] * weight_C[c] * inverse
        table[MEAN, c] = mean[c]
        table[INVERSE_STD, c] = inverse
        mean_C[c] += momentum * (mean[c] - mean_C[c])
        var_C[c] += momentum * (squares[c] / max(count - 1, 1) - var_C[c])


@njit(cache=True, error_model="numpy")
def _slopes(sums_B2C, area, table, slopes, grad_weight_C, grad_bias_C):  # type: ignore[no-untyped-def]
    """The sums of the pictures → the gradients of weight and bias, and the table of `_input_gradient` (Ioffe & Szegedy
    2015, §3)."""
    batch, _, channels = sums_B2C.shape
    count = batch * area
    some, products = np.zeros(channels), np.zeros(channels)
    for b in range(batch):
        for c in range(channels):
            some[c] += sums_B2C[b, 0, c]
            products[c] += sums_B2C[b, 1, c]
    for c in range(channels):
        factor, inverse = np.float64(table[FACTOR, c]), np.float64(table[INVERSE_STD, c])
        grad_bias_C[c] = some[c]
        grad_weight_C[c] = products[c] * inverse
        slopes[0, c] = factor
        slopes[1, c] = -factor * products[c] * inverse * inverse / count
        slopes[2, c] = -factor * some[c] / count - slopes[1, c] * table[MEAN, c]


def forward(
    x_BCHW: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    mean_C: Tensor,
    var_C: Tensor,
    momentum: float,
    eps: float,
    activation: Activation,
    settings: Tensor,
) -> tuple[Tensor, Tensor]:
    """The activated norm of x_BCHW, which is channels last and such as `vectors.takes` says, and the layer's table for
    `backward`; the running mean_C and var_C move on. `settings` of the activation: two numbers in fp32."""
    batch, channels, rows, columns = x_BCHW.shape
    sums_B3C, table = torch.empty(batch, 3, channels), torch.empty(4, channels)
    out = torch.empty_like(x_BCHW)
    x, size = x_BCHW.data_ptr(), x_BCHW.element_size()
    run(_sums, batch, x, size, sums_B3C.data_ptr(), rows, columns, channels)
    _statistics(
        sums_B3C.numpy(), rows * columns, *_arrays(weight_C, bias_C), eps, momentum, *_arrays(mean_C, var_C),
        table.numpy(),
    )  # fmt: skip
    run(
        _normalise, batch, x, size, out.data_ptr(), table.data_ptr(), rows * columns, channels, int(activation),
        settings.data_ptr(),
    )  # fmt: skip
    return out, table


def backward(
    grad_BCHW: Tensor, x_BCHW: Tensor, table: Tensor, activation: Activation, settings: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x_BCHW, weight and bias. `grad_BCHW` is channels last and of the type of x_BCHW."""
    batch, channels, rows, columns = x_BCHW.shape
    sums_B2C, slopes = torch.empty(batch, 2, channels), torch.empty(3, channels)
    grad_weight_C, grad_bias_C = torch.empty(channels), torch.empty(channels)
    out = torch.empty_like(x_BCHW)
    x, size = x_BCHW.data_ptr(), x_BCHW.element_size()
    run(
        _gradient_sums, batch, x, grad_BCHW.data_ptr(), size, out.data_ptr(), sums_B2C.data_ptr(), table.data_ptr(),
        rows, columns, channels, int(activation), settings.data_ptr(),
    )  # fmt: skip
    _slopes(*_arrays(sums_B2C), rows * columns, *_arrays(table, slopes, grad_weight_C, grad_bias_C))
    run(_input_gradient, batch, x, size, out.data_ptr(), slopes.data_ptr(), rows * columns, channels)
    return out, grad_weight_C, grad_bias_C


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]
