"""Killed in the middle of an epoch and resumed: does it end where the undisturbed training ends?

SmartCash, Lightning and Ultralytics each train a toy on drawn notes with random augmentation, three times killed at
another step of the middle epoch, and go on with their own means. Reported: the same bits in the end or not, and the
largest difference of a weight. An undisturbed training is done twice first: without that the comparison says nothing.

Lightning saves after every step here, Ultralytics at the end of every epoch (it knows no other time), SmartCash after
every second step. Ultralytics (AGPL-3.0) and Lightning run in bench-out/peers as processes of their own. A peer that
cannot be had is named, and the exit code is 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import options, print_table
from benchmarks.peers import PeerMissing, peer_python
from smartcash.backend.samples import write_samples
from smartcash.handlers.checkpoint import CheckpointManager

DRIVER = Path(__file__).with_name("resume_driver.py")
EPOCHS, BATCH, SIZE = 3, 4, 64
PEERS = ("lightning", "ultralytics")


def main() -> int:
    small = options(__doc__).small
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        detect, classify = Path(folder, "detect"), Path(folder, "classify")
        write_samples(detect, images=40, seed=1, size_px=96)
        write_samples(classify, images=49, seed=1, task="classify", size_px=96)
        steps = -(-len(list((detect / "images" / "train").iterdir())) // BATCH)
        kills = [steps + 2] if small else [steps + 1, steps + steps // 2, 2 * steps - 1]
        rows.append(("SmartCash", *ours(detect, Path(folder), kills)))
        try:
            python = peer_python()
        except PeerMissing as error:
            print(f"no peers: {error}", file=sys.stderr)
            python = None
        for name in PEERS if python else ():
            data = classify if name == "lightning" else detect / "data.yaml"
            rows.append((name.capitalize(), *peer(python, name, data, Path(folder), kills)))
    print_table(
        f"Killed at step {', '.join(map(str, kills))} of {EPOCHS * steps}, resumed",
        ("", "twice undisturbed", "resumed with the same bits", "largest difference of a weight"),
        rows,
    )
    return 0 if len(rows) == 1 + len(PEERS) else 1


def compared(ends: list[dict[str, torch.Tensor]]) -> tuple[str, str, float]:
    """Of the first two: equal or not; of the others against the first: how many are, and the largest difference."""
    first, second, *resumed = ends
    differences = [difference(first, end) for end in resumed]
    same = sum(each == 0 for each in differences)
    twice = "equal" if difference(first, second) == 0 else "DIFFERENT"
    return twice, f"{same} of {len(resumed)}", max(differences)


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest absolute difference of any weight."""
    return max(float((tensor.double() - other[name].double()).abs().max()) for name, tensor in one.items())


def ours(data: Path, folder: Path, kills: list[int]) -> tuple[str, str, float]:
    """SmartCash, by its command line; killed from outside when the log says that the step is done."""
    settings = {
        "model.backbone": "mobilenetv4_conv_small", "model.pretrained": "false", "data.image_size": SIZE,
        "data.batch_size": BATCH, "training.epochs": EPOCHS, "checkpoint.every_steps": 2, "runtime.threads": 1,
    }  # fmt: skip
    command = [sys.executable, "-m", "smartcash"]
    train = [*command, "train", data, *(p for k, v in settings.items() for p in ("--set", f"{k}={v}"))]
    ends = []
    for number, kill in enumerate([0, 0, *kills]):
        home = folder / f"ours{number}"
        process = subprocess.Popen(
            [*train, "--home", home], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if kill:
            while process.poll() is None and _last_step(home) < kill:
                time.sleep(0.05)
            process.kill()
            process.wait()
            run = next(home.glob("*/*/run.json")).parent
            subprocess.run(
                [*command, "resume", run], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        elif process.wait() != 0:
            raise SystemExit("SmartCash's training failed")
        weights = next(home.glob("*/*/weights"))
        state = CheckpointManager(output_dir=str(weights)).load_checkpoint(which="latest")
        ends.append(dict(state["model_state_dict"]))
    return compared(ends)


def _last_step(home: Path) -> int:
    """The last step of which a checkpoint tells."""
    found = [json.loads(path.read_bytes()).get("step") or 0 for path in home.glob("*/*/weights/*_*.json")]
    return max(found, default=0)


def peer(python: Path, name: str, data: Path, folder: Path, kills: list[int]) -> tuple[str, str, float]:
    """A peer by its driver."""
    ends = []
    for number, kill in enumerate([0, 0, *kills]):
        place = folder / f"{name}{number}"
        place.mkdir()
        if kill:
            drive(python, name, data, place, die_at=kill)
            drive(python, name, data, place, resume=True)
        else:
            drive(python, name, data, place)
        ends.append(torch.load(place / "final.pt", weights_only=True))
    return compared(ends)


def drive(
    python: Path, name: str, data: Path, folder: Path, *, die_at: int = 0, resume: bool = False
) -> None:
    """One process of a peer. Raises CalledProcessError when it ends otherwise than asked."""
    wanted: dict[str, Any] = {
        "data": str(data), "folder": str(folder), "epochs": EPOCHS, "batch": BATCH, "size": SIZE,
        "die_at": die_at, "resume": resume, "seed": 0,
    }  # fmt: skip
    settings = folder / "settings.json"
    settings.write_text(json.dumps(wanted))
    quiet = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder)}
    # Ultralytics looks for the pictures from where it stands
    stands = data.parent if data.is_file() else folder
    answer = subprocess.run(
        [python, DRIVER, name, settings], cwd=stands, env=os.environ | quiet,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if answer.returncode != (9 if die_at else 0):
        print(answer.stdout[-3000:], file=sys.stderr)
        raise subprocess.CalledProcessError(answer.returncode, name)


if __name__ == "__main__":
    sys.exit(main())
