"""Runs a peer's own training loop. Lives in an environment of its own (see peers.py), never in ours.

    python peer_driver.py PEER SETTINGS.json RESULT.jsonl

PEER: ultralytics or libreyolo. SETTINGS: model, data, imgsz, batch, and either warmup and steps, to time so many
steps from scratch, or epochs, to train and validate after each. RESULT: a line for the timed steps (images_per_s), or
one for each validated epoch (epoch, mAP50, mAP50_95), each with package, versions, gflops, parameters and threads."""

import json
import sys
import time
from copy import deepcopy
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode


class Told:
    """What is told of a training to the process that asked for it."""

    def __init__(self, wanted: dict, result: Path, package: str, version: str) -> None:
        self.wanted, self.result = wanted, result
        self.facts: dict = {"package": package, "version": version, "torch": torch.__version__}
        self.ends: list[float] = []

    def net(self, module: torch.nn.Module) -> None:
        """The size and cost of the network that is trained."""
        net = deepcopy(module).float().eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            net(torch.zeros(1, 3, self.wanted["imgsz"], self.wanted["imgsz"]))
        self.facts["gflops"] = counter.get_total_flops() / 1e9
        self.facts["parameters"] = sum(p.numel() for p in net.parameters())
        self.facts["threads"] = torch.get_num_threads()

    def batch_ended(self, *_: object) -> None:
        """One more batch is trained; ends the process once enough are timed."""
        if "steps" not in self.wanted:
            return
        self.ends.append(time.perf_counter())
        if len(self.ends) > self.wanted["warmup"] + self.wanted["steps"]:
            timed = self.ends[-1] - self.ends[self.wanted["warmup"]]
            self.line({**self.facts, "images_per_s": self.wanted["steps"] * self.wanted["batch"] / timed})
            sys.exit(0)  # many epochs were announced, as by default: what follows would not be timed

    def epoch_ended(self, epoch: int, map50: float, map50_95: float) -> None:
        """One more epoch is trained and validated."""
        if "steps" not in self.wanted:
            self.line({**self.facts, "epoch": epoch, "mAP50": map50, "mAP50_95": map50_95})

    def line(self, facts: dict) -> None:
        with self.result.open("a") as file:
            print(json.dumps(facts), file=file, flush=True)


def ultralytics(wanted: dict, result: Path) -> None:
    """Train from scratch with its defaults."""
    import ultralytics
    from ultralytics import YOLO
    from ultralytics import settings as ultralytics_settings

    ultralytics_settings.update({"sync": False})
    told = Told(wanted, result, "Ultralytics", ultralytics.__version__)

    def at_epoch_end(trainer) -> None:
        metrics = trainer.metrics
        if trainer.epoch < trainer.epochs:  # it is called once more for the best weights in the end
            told.epoch_ended(trainer.epoch + 1, metrics["metrics/mAP50(B)"], metrics["metrics/mAP50-95(B)"])

    validates = "steps" not in wanted
    model = YOLO(f"{wanted['model']}.yaml")
    model.add_callback("on_train_start", lambda trainer: told.net(trainer.model))
    model.add_callback("on_train_batch_end", told.batch_ended)
    if validates:
        model.add_callback("on_fit_epoch_end", at_epoch_end)
    model.train(
        data=wanted["data"], imgsz=wanted["imgsz"], batch=wanted["batch"], device="cpu", pretrained=False,
        val=validates, save=False, plots=False, verbose=False, project=str(result.parent / "runs"),
        **({"epochs": wanted["epochs"]} if validates else {}),
    )  # fmt: skip


def libreyolo(wanted: dict, result: Path) -> None:
    """Train from scratch with its defaults."""
    from importlib.metadata import version

    from libreyolo import LibreYOLO9

    told = Told(wanted, result, "LibreYOLO", version("libreyolo"))

    class Watch:
        def on_train_start(self, event) -> None:
            told.net(model.model)

        def on_train_epoch_end(self, event) -> None:
            found = {name.rpartition("/")[2]: value for name, value in event.val_metrics.items()}
            if event.validated:
                told.epoch_ended(event.epoch, found["mAP50"], found["mAP50-95"])

    validates = "steps" not in wanted
    register_optimizer_step_post_hook(told.batch_ended)  # by default it updates after every batch
    model = LibreYOLO9(model_path=None, size=wanted["model"].removeprefix("yolo9"), device="cpu")
    model.train(
        data=wanted["data"], imgsz=wanted["imgsz"], batch=wanted["batch"], device="cpu", pretrained=False,
        val=validates, project=str(result.parent / "runs"), callbacks=Watch(),
        **({"epochs": wanted["epochs"], "eval_interval": 1} if validates else {}),
    )  # fmt: skip


if __name__ == "__main__":
    peer = {"ultralytics": ultralytics, "libreyolo": libreyolo}[sys.argv[1]]
    peer(json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]))
