"""How long a command takes to answer, against an empty Python and against what it does not import.

Medians, files warm. Goals: `smartcash --help` within 0.3 s; the studio's page within 1.5 s of the command; the first
step of a training of drawn notes (default detector, 224 px, batch 16) within 8 s of the command.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

from benchmarks.measuring import medians, options, print_table, running_studio
from smartcash.backend.samples import write_samples
from smartcash.services.event_log import read_events

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
    with tempfile.TemporaryDirectory() as folder:
        notes, home = Path(folder, "notes"), Path(folder, "home")
        write_samples(notes, images=46, size_px=224)
        waits = {
            "smartcash studio: the page": lambda: page(home),
            "smartcash train: the first step": lambda: first_step(notes),
        }
        times |= medians(waits, 1 if small else 3)
    empty, torch = times["python -c pass"], times["import torch"]
    print_table(
        "Start-up",
        ("", "s", "/ empty Python", "/ import torch"),
        [(name, value, value / empty, value / torch) for name, value in times.items()],
    )


def page(home: Path) -> None:
    """Start the studio and fetch its page."""
    with running_studio(home) as (_, address), build_opener(HTTPCookieProcessor()).open(address) as answer:
        answer.read()  # the address answers with a cookie, and leads on to the page


def first_step(notes: Path) -> None:
    """Start a training and wait until it has trained a step."""
    with tempfile.TemporaryDirectory() as home:
        command = [
            sys.executable,
            "-m",
            "smartcash",
            "train",
            str(notes),
            "--image-size",
            "224",
            "--batch-size",
            "16",
        ]
        with subprocess.Popen([*command, "--home", home, "--yes"], stdout=subprocess.DEVNULL) as process:
            while not any(
                event["type"] == "StepEnded"
                for log in Path(home).glob("*/*/events.jsonl")
                for event in read_events(log)
            ):
                if process.poll() is not None:
                    raise SystemExit(f"the training ended with {process.returncode}")
                time.sleep(0.02)
            process.kill()


def run(arguments: list[str]) -> None:
    """One fresh interpreter, silent."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
