"""What compiled kernels are written in: sixteen numbers at a time, addresses, and torch's own threads.

Needs numba, the extra `smartcash[fast]`. Whether a compiler turns a loop into vector instructions changes from version
to version. So vectors are a type here, with the few operations that are needed, and memory is addresses in bytes. The
first import of a kernel on a machine compiles it, which takes seconds; the code is kept beside its file, or in numba's
cache folder where that cannot be written.

A task is a compiled function that several threads run at once, each taking picture after picture until none is left:

    @task
    def double(work):
        x, out, size = arguments(work, 3)
        picture = next_picture(work)
        while picture < pictures(work):
            ...
            picture = next_picture(work)

    run(double, count, x.data_ptr(), out.data_ptr(), size)

A picture's result is its own, so that it does not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic, models, register_model

LANES = 16  # the channels of EfficientNets and MobileNets are multiples of it
WIDE, NARROW = 4 * LANES, 2 * LANES  # bytes of a vector in fp32 and in bf16

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
def zero(typing: Any) -> Any:
    return lanes(), lambda context, builder, signature, values: ir.Constant(FLOATS, [0.0] * LANES)


@intrinsic
def load(typing: Any, address: Any) -> Any:
    """The fp32 numbers at an address."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(builder.inttoptr(values[0], FLOATS.as_pointer()), align=4)

    return lanes(types.int64), code


@intrinsic
def store(typing: Any, address: Any, value: Any) -> Any:
    """The reverse of `load`."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[1], builder.inttoptr(values[0], FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, lanes), code


@intrinsic
def load_bf16(typing: Any, address: Any) -> Any:
    """bf16 → fp32: the same bits, 16 further up."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        halves = builder.load(builder.inttoptr(values[0], HALVES.as_pointer()), align=2)
        return builder.bitcast(builder.shl(builder.zext(halves, BITS), _all(16)), FLOATS)

    return lanes(types.int64), code


@intrinsic
def store_bf16(typing: Any, address: Any, value: Any) -> Any:
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
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, fused where the CPU can."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, b, c = values
        return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

    return lanes(lanes, lanes, lanes), code


def _binary(operation: str) -> Any:
    @intrinsic
    def of_two(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, operation)(*values)

        return lanes(lanes, lanes), code

    return of_two


add, subtract, multiply = _binary("fadd"), _binary("fsub"), _binary("fmul")


def _filled(number: float) -> ir.Constant:
    return ir.Constant(FLOATS, [number] * LANES)


def _spread(builder: Any, number: Any) -> Any:
    """One number in all lanes."""
    undefined = ir.Constant(FLOATS, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, _all(0))


@intrinsic
def number_at(typing: Any, address: Any) -> Any:
    """The one fp32 number at an address."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(builder.inttoptr(values[0], ir.FloatType().as_pointer()), align=4)

    return types.float32(types.int64), code


@intrinsic
def clip(typing: Any, a: Any, low: Any, high: Any) -> Any:
    """a, but `low` or `high` where it is beyond them."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, low, high = values[0], _spread(builder, values[1]), _spread(builder, values[2])
        a = builder.select(builder.fcmp_ordered("<", a, low), low, a)
        return builder.select(builder.fcmp_ordered(">", a, high), high, a)

    return lanes(lanes, types.float32, types.float32), code


@intrinsic
def where_between(typing: Any, value: Any, a: Any, low: Any, high: Any) -> Any:
    """`value` where low < a < high, elsewhere 0."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value, a, low, high = *values[:2], _spread(builder, values[2]), _spread(builder, values[3])
        above, below = builder.fcmp_ordered(">", a, low), builder.fcmp_ordered("<", a, high)
        return builder.select(builder.and_(above, below), value, _filled(0.0))

    return lanes(lanes, lanes, types.float32, types.float32), code


@intrinsic
def where_positive(typing: Any, value: Any, a: Any, factor: Any) -> Any:
    """`value` where a > 0, elsewhere value · factor."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value, a, factor = *values[:2], _spread(builder, values[2])
        positive = builder.fcmp_ordered(">", a, _filled(0.0))
        return builder.select(positive, value, builder.fmul(value, factor))

    return lanes(lanes, lanes, types.float32), code


LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = (
    0.693359375,
    -2.12194440e-4,
)  # their sum is ln 2; the first has few bits, so that n · it is exact
EXP_SERIES = (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)  # Taylor: 1e-7 for |r| <= ln 2 / 2
ROUNDING = 1.5 * 2**23  # added to a small fp32 number and taken off again, it leaves the nearest whole number
LARGEST_EXPONENT = 87.0  # exp of it still is an fp32 number


@intrinsic
def sigmoid(typing: Any, a: Any) -> Any:
    """1 / (1 + exp(-a)), where exp(x) = 2ⁿ · exp(r) with n the whole number nearest to x / ln 2."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def fused(a: Any, b: Any, c: Any) -> Any:
            return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

        x = builder.fsub(_filled(0.0), values[0])
        for sign, end in (("<", -LARGEST_EXPONENT), (">", LARGEST_EXPONENT)):
            x = builder.select(builder.fcmp_ordered(sign, x, _filled(end)), _filled(end), x)
        n = builder.fadd(builder.fmul(x, _filled(LOG2_E)), _filled(ROUNDING))
        n = builder.fsub(n, _filled(ROUNDING))
        r = fused(n, _filled(-LN2_HIGH), x)
        r = fused(n, _filled(-LN2_LOW), r)
        series = _filled(EXP_SERIES[0])
        for coefficient in EXP_SERIES[1:]:
            series = fused(series, r, _filled(coefficient))
        power = builder.bitcast(
            builder.shl(builder.add(builder.fptosi(n, BITS), _all(127)), _all(23)), FLOATS
        )
        return builder.fdiv(_filled(1.0), fused(series, power, _filled(1.0)))

    return lanes(lanes), code


def takes(x_BCHW: torch.Tensor) -> bool:
    """Whether kernels can compute on such a map."""
    fits = x_BCHW.ndim == 4 and x_BCHW.shape[1] % LANES == 0 and x_BCHW.numel() > 0
    return fits and x_BCHW.device.type == "cpu" and x_BCHW.dtype in (torch.bfloat16, torch.float32)


# a function that tasks call becomes part of them; by itself it is neither compiled nor kept
part_of_tasks = njit(nogil=True, error_model="numpy")


@part_of_tasks
def load_sized(address, size):  # type: ignore[no-untyped-def]
    """Numbers of `size` bytes at an address: bf16 or fp32."""
    return load_bf16(address) if size == 2 else load(address)


@part_of_tasks
def store_sized(address, value, size):  # type: ignore[no-untyped-def]
    """The reverse of `load_sized`."""
    if size == 2:
        store_bf16(address, value)
    else:
        store(address, value)


# tasks

STAMP = sha256(Path(__file__).read_bytes()).hexdigest()[:16]


class _Work(types.Type):
    """The address of what a task works on. The name is part of what numba keeps compiled tasks by, and it looks at
    nothing but a task's own file: with this file another, they are compiled anew."""

    def __init__(self) -> None:
        super().__init__(f"work {STAMP}")


@register_model(_Work)
class _WorkModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Work) -> None:
        super().__init__(manager, kind, ir.IntType(64))


work_type = _Work()
PICTURES, NEXT_PICTURE, NEXT_SLOT, ARGUMENTS = range(4)  # places in a task's work, of 8 bytes each


def _place(builder: Any, work: Any, place: int) -> Any:
    pointer = builder.inttoptr(work, ir.IntType(64).as_pointer())
    return builder.gep(pointer, [ir.Constant(ir.IntType(64), place)])


@intrinsic(prefer_literal=True)
def arguments(typing: Any, work: Any, count: Any) -> Any:
    """The whole numbers that a task was run with."""
    found = types.UniTuple(types.int64, count.literal_value)

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        places = range(ARGUMENTS, ARGUMENTS + count.literal_value)
        loaded = [builder.load(_place(builder, values[0], place)) for place in places]
        return context.make_tuple(builder, found, loaded)

    return found(work_type, count), code


@intrinsic
def pictures(typing: Any, work: Any) -> Any:
    """How many pictures there are to do."""
    return types.int64(work_type), lambda context, builder, signature, values: builder.load(
        _place(builder, values[0], PICTURES)
    )


def _counter(place: int) -> Any:
    @intrinsic
    def counter(typing: Any, work: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            one = ir.Constant(ir.IntType(64), 1)
            return builder.atomic_rmw("add", _place(builder, values[0], place), one, "monotonic")

        return types.int64(work_type), code

    return counter


next_picture = _counter(NEXT_PICTURE)  # one that no other thread does
room_number = _counter(
    NEXT_SLOT
)  # a number of the thread's own from 0 on, asked for once: its share of the room to work in


@dataclass(frozen=True)
class Task:
    """A compiled task, which lives as long as `code`: where it is, and how one thread runs it, without the
    interpreter's lock."""

    code: Any
    address: int
    on_this_thread: Callable[[int], None]


def task(function: Callable[[Any], None]) -> Task:
    """Compile a task, see above, or take it from the cache."""
    code = cfunc(types.void(work_type), cache=True, error_model="numpy")(function)
    return Task(code, code.address, ctypes.CFUNCTYPE(None, ctypes.c_int64)(code.address))


def threads_for(count: int) -> int:
    """With how many threads `run` does so many pictures."""
    return min(torch.get_num_threads(), count)


def run(job: Task, count: int, *numbers: int) -> None:
    """Run a task on `count` pictures. Torch's own threads do it where they can be had, since they keep their cores
    busy, waiting, for a while after each of torch's operations; elsewhere threads of a pool."""
    work = (ctypes.c_int64 * (ARGUMENTS + len(numbers)))(count, 0, 0, *numbers)
    address, threads = ctypes.addressof(work), threads_for(count)
    if threads > 1 and (team := _openmp()):
        team(job.address, address, threads, 0)
        return
    waiting = [_pool(threads).submit(job.on_this_thread, address) for _ in range(threads - 1)]
    job.on_this_thread(address)
    for each in waiting:
        each.result()


@cache
def _openmp() -> Callable[..., None] | None:
    """GNU OpenMP's entry point for a parallel region, of the library that torch itself is linked with; None where
    that is another one."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    team = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None) if library.exists() else None
    if team is not None:
        team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        team.restype = None
    return team


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # denormals are flushed per thread, see builder.set_threads
    return ThreadPoolExecutor(threads - 1, "kernels", torch.set_flush_denormal, (True,))
