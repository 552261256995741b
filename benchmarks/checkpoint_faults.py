"""The same fault on other writers: SIGKILL before each file call of the second save of a run.

    cc -shared -fPIC -O1 -o fault_shim.so tests/checkpoint/fault_shim.c -ldl
    LD_PRELOAD=./fault_shim.so python benchmarks/checkpoint_faults.py

The peers are asked in an environment of their own, with the same command (Ultralytics is AGPL-3.0: it is
never installed into ours):

    python -m venv bench-out/peers
    bench-out/peers/bin/pip install torch ultralytics accelerate pytorch-ignite lightning
    LD_PRELOAD=./fault_shim.so bench-out/peers/bin/python benchmarks/checkpoint_faults.py

Epoch 1 is saved and acknowledged, then epoch 2 is interrupted at every call. Afterwards the writer's own
way to the newest checkpoint is asked. Counted: nothing loads, or what loads is silently wrong; litter stays.
Writers that are not installed are left out.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import random
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch._dynamo  # optimizers load it; not again in every child

RECORD, KILL = 0, 1
quiet = logging.getLogger("faults")
quiet.setLevel(logging.CRITICAL + 1)


class Writer(NamedTuple):
    """`save(folder, epoch)` and `load(folder)` → the weights, all of which are the epoch."""

    save: Callable[[Path, int], object]
    load: Callable[[Path], torch.Tensor]


def weights(epoch: int) -> torch.Tensor:
    return torch.full((300, 300), float(epoch))


def in_place(folder: Path, epoch: int) -> None:
    torch.save({"w": weights(epoch)}, folder / "last.pth")


def renamed(folder: Path, epoch: int) -> None:
    torch.save({"w": weights(epoch)}, folder / "last.tmp")
    (folder / "last.tmp").replace(folder / "last.pth")


def last(folder: Path) -> torch.Tensor:
    content: torch.Tensor = torch.load(folder / "last.pth", weights_only=True)["w"]
    return content


def model_of(epoch: int) -> torch.nn.Linear:
    model = torch.nn.Linear(300, 300, bias=False)
    torch.nn.init.constant_(model.weight, epoch)
    return model


def smartcash_save(folder: Path, epoch: int) -> None:
    from smartcash.handlers.checkpoint import CheckpointManager

    with CheckpointManager(folder, quiet) as manager:
        manager.save_checkpoint(model_of(epoch), epoch=epoch, metrics={"loss": 1 / epoch})


def smartcash_load(folder: Path) -> torch.Tensor:
    from smartcash.handlers.checkpoint import CheckpointManager

    content: torch.Tensor = CheckpointManager(folder, quiet).load_checkpoint()["model_state_dict"]["weight"]
    return content


def lightning_save(folder: Path, epoch: int) -> None:
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

    TorchCheckpointIO().save_checkpoint({"w": weights(epoch)}, folder / "last.pth")


def ultralytics_save(folder: Path, epoch: int) -> None:
    """Its trainer's own `save_model`, every epoch a best one, with the little of a trainer that it looks at."""
    from ultralytics.engine.trainer import BaseTrainer

    model = model_of(epoch)
    trainer = SimpleNamespace(
        model=model, ema=SimpleNamespace(ema=model, updates=epoch), epoch=epoch, save_period=-1,
        optimizer=torch.optim.SGD(model.parameters()), scaler=torch.amp.GradScaler("cpu", enabled=False),
        stopper=SimpleNamespace(best_fitness=epoch, best_epoch=epoch), best_fitness=epoch, fitness=epoch,
        metrics={}, args=SimpleNamespace(), read_results_csv=dict,
        wdir=folder, last=folder / "last.pt", best=folder / "best.pt",
    )  # fmt: skip
    BaseTrainer.save_model(trainer)


def ultralytics_load(folder: Path) -> torch.Tensor:
    content: torch.Tensor = torch.load(folder / "last.pt", weights_only=False)["ema"].weight  # as it does
    return content


def accelerator(folder: Path, epoch: int) -> tuple[object, torch.nn.Linear]:
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    project = ProjectConfiguration(str(folder), automatic_checkpoint_naming=True, iteration=epoch)
    accelerate = Accelerator(cpu=True, project_config=project)
    return accelerate, accelerate.prepare(model_of(epoch))


def accelerate_save(folder: Path, epoch: int) -> None:
    accelerator(folder, epoch)[0].save_state()


def accelerate_load(folder: Path) -> torch.Tensor:
    accelerate, model = accelerator(folder, 0)
    accelerate.load_state()  # the newest
    return model.weight.detach()


def ignite_save(folder: Path, epoch: int) -> None:
    from ignite.engine import Engine
    from ignite.handlers import Checkpoint, DiskSaver

    saver = DiskSaver(str(folder), require_empty=False)  # atomic, by default
    step = {"global_step_transform": lambda *_: epoch}
    Checkpoint({"model": model_of(epoch)}, saver, **step)(Engine(lambda *_: None))


def ignite_load(folder: Path) -> torch.Tensor:
    newest = max(folder.glob("model_*.pt"))
    content: torch.Tensor = torch.load(newest, weights_only=True)["weight"]
    return content


WRITERS = {
    "torch.save, in place": Writer(in_place, last),
    "torch.save, then rename": Writer(renamed, last),
}
WRITERS |= {
    name: writer
    for name, package, writer in (
        ("SmartCash", "smartcash", Writer(smartcash_save, smartcash_load)),
        ("Lightning TorchCheckpointIO, same file", "lightning", Writer(lightning_save, last)),
        ("Ultralytics save_model, last.pt", "ultralytics", Writer(ultralytics_save, ultralytics_load)),
        ("accelerate save_state", "accelerate", Writer(accelerate_save, accelerate_load)),
        ("Ignite Checkpoint, DiskSaver", "ignite", Writer(ignite_save, ignite_load)),
    )
    if importlib.util.find_spec(package)
}


def interrupted(writer: Writer, base: Path, shim: ctypes.CDLL, action: int, call: int) -> int:
    """Epoch 2, armed, in a child; returns the number of calls when it was only recorded."""
    folder = base / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base / "prepared", folder)

    def armed() -> None:
        shim.fault_arm(str(folder).encode(), action, ctypes.c_long(call), 0, b"")
        writer.save(folder, 2)
        shim.fault_disarm()
        (base / "calls").write_text(str(shim.fault_count()))

    in_child(armed, -signal.SIGKILL if action == KILL else 0)
    return int((base / "calls").read_text())


def in_child(act: Callable[[], object], expected: int) -> None:
    """Do it in a forked child. Raises RuntimeError when that ends with another code (negative: a signal)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:  # nothing may get past here: the parent's temporary folder would be cleared away
            act()
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if (code := os.waitstatus_to_exitcode(status)) != expected:
        raise RuntimeError(f"the child ended with {code} instead of {expected}")


def outcome(writer: Writer, folder: Path) -> str:
    try:
        values = writer.load(folder)
    except Exception:  # noqa: BLE001  (whatever it raises, nothing loads)
        return "lost"
    return "good" if any((values == epoch).all() for epoch in (1, 2)) else "wrong"


def files(folder: Path) -> list[Path]:
    return [item for item in folder.rglob("*") if item.is_file()]


def flips_detected(writer: Writer, base: Path, count: int = 200) -> int:
    """How many of `count` random flipped bits in the largest file make the load fail or fall back."""
    folder, choose, detected = base / "folder", random.Random(0), 0
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base / "prepared", folder)
    path = max(files(folder), key=lambda item: (item.stat().st_size, item.name))  # last.pt, not best.pt
    data = bytearray(path.read_bytes())
    for _ in range(count):
        bit = choose.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        detected += outcome(writer, folder) == "lost"
        data[bit // 8] ^= 1 << bit % 8
    return detected


def main() -> None:
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    torch.set_num_threads(1)
    for name, writer in WRITERS.items():
        with tempfile.TemporaryDirectory() as temporary:
            base = Path(temporary)
            (base / "prepared").mkdir()
            in_child(partial(writer.save, base / "prepared", 1), 0)
            calls = interrupted(writer, base, shim, RECORD, 0)
            expected = {item.suffix for item in files(base / "folder")}
            lost = litter = 0
            for call in range(1, calls + 1):
                interrupted(writer, base, shim, KILL, call)
                lost += outcome(writer, base / "folder") != "good"
                litter += bool({item.suffix for item in files(base / "folder")} - expected)
            flips = flips_detected(writer, base)
        print(
            f"{name:40} {lost} of {calls} lost or wrong, litter after {litter}, {flips} of 200 bit flips seen"
        )


if __name__ == "__main__":
    main()
