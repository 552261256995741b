"""How long it takes to list 10,000 runs, and to join a file of 100,000 events late.

"warm" is what a server or a notebook pays for each look: every folder's run.json is looked at. Goal: 0.1 s.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.measuring import medians, options, print_table, seconds
from smartcash.domain.config import TrainConfig
from smartcash.domain.events import StepEnded
from smartcash.domain.records import RunFilter
from smartcash.services.event_log import EventLog, read_events, tail_events
from smartcash.services.run_store import RunStore


def main() -> None:
    """Measure and print."""
    small = options(__doc__).small
    runs, events, repeat = (200, 2000, 1) if small else (10_000, 100_000, 9)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_runs(home, runs)
        cold = seconds(lambda: RunStore(home).runs())
        store = RunStore(home)
        store.runs()
        wanted = RunFilter(text="lite0", bounds={"mAP50": (0.5, None)})
        times = medians(
            {
                "warm, all": store.runs,
                "warm, filtered, 50 by best": lambda: store.runs(wanted, sort="-best", limit=50),
                "new process, from the index": lambda: RunStore(home).runs(),
            },
            repeat,
        )
        rows = [("no index yet", cold, cold / runs * 1e6)]
        rows += [(name, value, value / runs * 1e6) for name, value in times.items()]
        print_table(f"{runs:,} runs", ("", "s", "µs/run"), rows)

        path = home / "events.jsonl"
        with EventLog(path) as log:
            for step in range(events):
                log.append(StepEnded(1, step, events, 0.5, 30.0, 12.0))
        times = medians(
            {
                "whole file": lambda: sum(1 for _ in read_events(path)),
                "join at 1 % from the end": lambda: next(tail_events(path, events * 99 // 100)),
                "join in the middle": lambda: next(tail_events(path, events // 2)),
            },
            repeat,
        )
        whole = times["whole file"]
        rows = [(name, value, value / whole) for name, value in times.items()]
        print_table(f"{events:,} events", ("", "s", "/ whole file"), rows)


def make_runs(home: Path, count: int) -> None:
    """Finished runs, as a training leaves them."""
    config = TrainConfig.parse({"task": "detect", "training": {"monitor": "mAP50_95"}}).to_yaml()
    for number in range(count):
        folder = home / "detect" / f"20260101-{number // 60:06d}-{number:05d}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config)
        facts = {
            "id": folder.name, "state": "finished", "reason": "finished", "host": "bench",
            "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T01:00:00+00:00", "elapsed_s": 3600.0,
            "data": {"path": "/data/rupiah"}, "epochs_done": 16, "best_epoch": 12, "best_value": number / count,
            "valid": dict.fromkeys(("mAP50_95", "mAP50", "mAP75", "precision", "recall", "f1"), number / count),
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
