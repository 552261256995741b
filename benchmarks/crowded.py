"""A training beside other programs: how long a step takes with a thread per core and with fewer, while others keep no
core, half of one, one, and all of them busy.

The steps are those of `kernels`: a detector from scratch at 320 px, batch 16, bf16, and "stock", the same net without
any of our layers. The other programs compute without end, or half of every 60 ms.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.kernels import IMAGE_PX, step_of, without_ours
from benchmarks.measuring import medians, options, print_table
from smartcash.backend.backbones import Backbone
from smartcash.backend.builder import set_threads
from smartcash.backend.detector import Detector
from smartcash.utils.machine import available_cores

NET = "mobilenetv4_conv_small"
BUSY = """
import sys, time
busy_s = 0.06 * float(sys.argv[1])
while True:
    started = time.perf_counter()
    while time.perf_counter() - started < busy_s:
        pass
    if busy_s < 0.06:
        time.sleep(0.06 - busy_s)
"""


def main() -> None:
    """Measure and print."""
    small = options(__doc__).small
    batch, repeat, cores = 2 if small else 16, 1 if small else 7, available_cores()
    set_threads(cores)
    torch.manual_seed(0)
    ours = Detector(Backbone(NET, pretrained=False), classes=7).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, IMAGE_PX, IMAGE_PX).contiguous(memory_format=torch.channels_last)
    turns = {
        "ours": step_of(ours, images, tuned=False),
        "stock": step_of(without_ours(ours), images, tuned=False),
    }
    counts = sorted({cores, max(1, cores - 1), 1}, reverse=True)
    rows = []
    for title, loads in (
        ("nothing", []),
        ("half of one core busy", [0.5]),
        ("one core busy", [1.0]),
        ("all cores busy", [1.0] * cores),
    ):
        row: list[float] = []
        with others(loads):
            for threads in counts:
                set_threads(threads)
                row += [1e3 * value for value in medians(turns, repeat).values()]
        rows.append((title, *row))
    print_table(
        f"A step of {NET} beside other programs, ms, {IMAGE_PX} px, batch {batch}, {cores} cores",
        ("", *(f"{name}, threads: {threads}" for threads in counts for name in turns)),
        rows,
    )


@contextmanager
def others(loads: list[float]) -> Iterator[None]:
    """Other programs, each of which keeps that share of a core busy, until the end of the block."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY, str(load)]) for load in loads]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


if __name__ == "__main__":
    main()
