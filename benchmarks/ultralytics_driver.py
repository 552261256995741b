"""Times Ultralytics' own training loop. Runs in an environment of its own (see throughput.py), never in ours.

    python ultralytics_driver.py SETTINGS.json RESULT.json

SETTINGS: model, data, imgsz, batch, warmup, steps. RESULT: images_per_s, gflops, parameters, version."""

import json
import sys
import time
from copy import deepcopy
from pathlib import Path

import torch
import ultralytics
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO
from ultralytics import settings as ultralytics_settings


def main(wanted: dict, result: Path) -> None:
    """Train from scratch with its defaults; stop once enough steps are timed."""
    ultralytics_settings.update({"sync": False})
    facts: dict = {"version": ultralytics.__version__, "torch": torch.__version__}
    ends: list[float] = []

    def at_start(trainer) -> None:
        net = deepcopy(trainer.model).float().eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            net(torch.zeros(1, 3, wanted["imgsz"], wanted["imgsz"]))
        facts["gflops"] = counter.get_total_flops() / 1e9
        facts["parameters"] = sum(p.numel() for p in net.parameters())

    def at_batch_end(trainer) -> None:
        ends.append(time.perf_counter())
        if len(ends) <= wanted["warmup"] + wanted["steps"]:
            return
        facts["threads"] = torch.get_num_threads()
        timed = ends[-1] - ends[wanted["warmup"]]
        facts["images_per_s"] = wanted["steps"] * wanted["batch"] / timed
        result.write_text(json.dumps(facts))
        sys.exit(0)  # 100 epochs were announced, as by default: what follows would not be timed

    model = YOLO(wanted["model"])
    model.add_callback("on_train_start", at_start)
    model.add_callback("on_train_batch_end", at_batch_end)
    model.train(
        data=wanted["data"], imgsz=wanted["imgsz"], batch=wanted["batch"], device="cpu", pretrained=False,
        val=False, save=False, plots=False, verbose=False, project=str(result.parent / "runs"),
    )  # fmt: skip


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
