"""Seconds from the command to a detector that finds the notes: validation mAP50 ≥ 0.95, ours and the peers'.

    python -m benchmarks.time_to_accuracy DATA [--goal 0.95] [--times 8] [--threads N] [--peers ultralytics libreyolo]

DATA is a detection set in YOLO's layout. Every tool trains with its own defaults from what it has without internet
(SmartCash: the bundled ImageNet weights; Ultralytics and LibreYOLO: nothing), at the size and batch that SmartCash
chooses, and validates after every epoch. A tool is stopped when it has reached the goal, or when it has had `--times` as
long as SmartCash needed: then the best that it reached is told. The clock runs from the start of the process.

It is not part of `python -m benchmarks`: it wants data of one's own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import print_table
from benchmarks.peers import SMALLEST, Peer, PeerMissing, training
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder


def main() -> int:
    """Measure and print; 1 when a peer is missing or we did not get there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--goal", type=float, default=0.95, help="validation mAP50")
    parser.add_argument("--times", type=float, default=8.0, help="of our time that a peer gets at most")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of every tool")
    tools = [peer.tool for peer in SMALLEST]
    parser.add_argument("--peers", nargs="*", choices=tools, default=tools, help="default: all of them")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        seconds, epochs, best, size_px, batch = ours(given.data, Path(folder, "runs"), given)
        rows: list[tuple[str | float | int | None, ...]] = [("SmartCash", seconds, 1.0, epochs, best)]
        missing = seconds is None
        if seconds:
            data = linked(given.data, Path(folder, "data"))  # peers write caches beside the labels
            for peer in [each for each in SMALLEST if each.tool in given.peers]:
                try:
                    took, epochs, best = theirs(peer, data, size_px, batch, given.goal, given.times * seconds)
                except PeerMissing as error:
                    print(f"no {peer}:\n{error}", file=sys.stderr)
                    missing = True
                else:
                    rows.append((str(peer), took, took / seconds if took else None, epochs, best))
    print_table(
        f"To validation mAP50 {given.goal}, {size_px} px, batch {batch}, {given.threads} threads; "
        f"–: not within × {given.times:g}",
        ("", "seconds", "× ours", "epochs", "best mAP50"),
        rows,
    )
    return int(missing)


def ours(data: Path, home: Path, given: argparse.Namespace) -> tuple[float | None, int, float, int, int]:
    """Seconds to the goal, epochs, best mAP50, and the input size and batch that were chosen."""
    began = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "smartcash", "train", data, "--home", home, "--yes"),
            *("--set", f"runtime.threads={given.threads}"),
        ],
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    seconds, best, epochs = None, 0.0, 0
    while seconds is None and process.poll() is None:
        time.sleep(0.2)
        for found in home.glob("*/*/run.json"):
            ended = [e for e in read_events(RunFolder(found.parent).events) if e["type"] == "EpochEnded"]
            epochs = len(ended)
            best = max((each["row"]["mAP50"] or 0.0 for each in ended), default=0.0)
            if best >= given.goal:
                seconds = time.monotonic() - began
    process.terminate()
    process.wait()
    run = RunFolder(next(home.glob("*/*/run.json")).parent)
    config = run.config()
    return seconds, epochs, best, config.data.image_size, config.data.batch_size


def theirs(
    peer: Peer, data: Path, size_px: int, batch: int, goal: float, most_s: float
) -> tuple[float | None, int, float]:
    """Seconds to the goal or None, epochs, best mAP50."""
    began, epochs, best = time.monotonic(), 0, 0.0
    with training(peer, data, imgsz=size_px, batch=batch, epochs=100, most_s=most_s) as told:
        for facts in told:
            epochs, best = facts["epoch"], max(best, facts["mAP50"])
            print(f"{peer}: epoch {epochs}, mAP50 {best:.3f}, {time.monotonic() - began:.0f} s", flush=True)
            if best >= goal:
                return time.monotonic() - began, epochs, best
    return None, epochs, best


def linked(data: Path, target: Path) -> Path:
    """The same data set with links to its pictures and copies of its labels."""

    def link_pictures(source: str, copy: str) -> None:
        if Path(source).suffix in (".txt", ".yaml"):
            shutil.copyfile(source, copy)
        else:
            Path(copy).symlink_to(source)

    return Path(shutil.copytree(data.resolve(), target, copy_function=link_pictures))


if __name__ == "__main__":
    sys.exit(main())
