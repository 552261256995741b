"""What the benchmarks share: a stopwatch, a table, the `--small` option."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Row = Sequence[str | float | int | None]


def options(description: str | None) -> argparse.Namespace:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a few steps only: to see that it runs")
    return parser.parse_args()


def processor_s() -> float:
    """Processor time of this process and of those it has begun and waited for: other work on the machine hardly
    changes it, waiting for a disk does not count."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call takes."""
    started = clock()
    action()
    return clock() - started


def medians(
    actions: dict[str, Callable[[], object]], repeat: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The median time of each action in seconds, after one unmeasured call. They take turns, so that a slow
    moment of the machine meets all of them."""
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeat):
        for name, action in actions.items():
            times[name].append(seconds(action, clock))
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def running_studio(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A studio in a process of its own, and its address with the token, from when it takes requests."""
    command = [
        sys.executable,
        "-m",
        "smartcash",
        "studio",
        "--no-browser",
        "--port",
        "0",
        "--home",
        str(home),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def print_table(title: str, header: Sequence[str], rows: Sequence[Row]) -> None:
    """Names to the left, figures to the right."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        named = row[0].ljust(widths[0])
        print("  ".join([named, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]))


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return (
            f"{value:.1e}"
            if 0 < abs(value) < 0.01
            else f"{value:,.2f}"
            if abs(value) < 100
            else f"{value:,.0f}"
        )
    return str(value)
