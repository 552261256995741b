"""How long a command takes to answer, against an empty Python and against what it does not import.

Medians, files warm. Goal: `smartcash --help` within 0.3 s.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measuring import medians, options, print_table

PROGRAMS = {
    "python -c pass": ["-c", "pass"],
    "smartcash --help": ["-m", "smartcash", "--help"],
    "smartcash train --help": ["-m", "smartcash", "train", "--help"],
    "smartcash checkpoint list --help": ["-m", "smartcash", "checkpoint", "list", "--help"],
    "import numpy": ["-c", "import numpy"],
    "import pydantic": ["-c", "import pydantic"],
    "import torch": ["-c", "import torch"],
    "import timm": ["-c", "import timm"],
    "import smartcash.worker": ["-c", "import smartcash.worker"],
}


def main() -> None:
    """Measure and print."""
    small = options(__doc__).small
    times = medians({name: lambda a=a: run(a) for name, a in PROGRAMS.items()}, 1 if small else 7)
    empty, torch = times["python -c pass"], times["import torch"]
    print_table(
        "Start-up",
        ("", "s", "/ empty Python", "/ import torch"),
        [(name, value, value / empty, value / torch) for name, value in times.items()],
    )


def run(arguments: list[str]) -> None:
    """One fresh interpreter, silent."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
