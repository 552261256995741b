"""Does `smartcash advise` hold its budget? Three backbones from scratch on drawn notes, ten minutes; goal: within ±10 %.

"Spent" is what the advisor counts, "by the clock" the whole command, its own start and the confirmation included. The
advice is what a person would get; with random beginnings and minutes of training its figures say little of the nets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import options, print_table
from smartcash.backend.samples import write_samples

BACKBONES = ("mobilenetv4_conv_small", "cs3darknet_s", "resnet10t")
SETTINGS = ("model.pretrained=false", "data.image_size=160", "training.previews.count=0")
BUDGET_S, SMALL_BUDGET_S = 600, 60


def main() -> int:
    """Advise once and print; 1 when the budget was missed by more than a tenth."""
    small = options(__doc__).small
    budget_s = SMALL_BUDGET_S if small else BUDGET_S
    with tempfile.TemporaryDirectory() as folder:
        notes, home = Path(folder) / "notes", Path(folder) / "runs"
        write_samples(notes, images=40 if small else 200, size_px=160)
        began = time.perf_counter()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "smartcash", "advise", str(notes), "--yes", "--json"),
                *("--backbones", ",".join(BACKBONES), "--budget", f"{budget_s}s"),
                *(word for each in SETTINGS for word in ("--set", each)),
            ],
            stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "SMARTCASH_HOME": str(home)},
        )  # fmt: skip
        clock_s = time.perf_counter() - began
    advice = json.loads(done.stdout)
    trials = advice["trials"]
    print_table(
        f"A budget of {budget_s} s",
        ("", "seconds", "ratio"),
        [
            ("trained", sum(trial["trained_s"] for trial in trials), None),
            ("spent", advice["spent_s"], advice["spent_s"] / budget_s),
            ("by the clock", clock_s, clock_s / budget_s),
        ],
    )
    print_table(
        f"Recommended: {advice['recommended']}; front: {', '.join(advice['front'])}",
        ("", "validation", "ms", "MB", "epochs", "rounds"),
        [
            (
                trial["backbone"], trial["valid"].get("mAP50_95"), trial["speed"].get("latency_ms"),
                trial["speed"].get("size_mb"), trial["epochs"], trial["rounds"],
            )
            for trial in trials
        ],
    )  # fmt: skip
    return 0 if small or abs(advice["spent_s"] / budget_s - 1) <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
