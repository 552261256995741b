"""`smartcash serve` against the model alone: pictures per second, the same JPEG files, each with its own batches.

The model is efficientnet_lite0 at 320 px with random weights in a version of a home of its own; the server is a process
of its own, asked by eight connections that send the next picture when they have an answer. "Whole" decodes, looks and
words its answers one batch after the other in one process, without HTTP; "network" only runs the network and picks the
notes, on pictures that are decoded already. They take turns; quote the ratios. Goal: served ≥ 0.90 of the model alone.

The clients compute on the same cores as the server: what they need is part of what is lost.
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measuring import options, print_table
from smartcash.backend.builder import build_model
from smartcash.backend.images import decode_image
from smartcash.backend.predictor import Predictor
from smartcash.backend.preprocess import Preprocess
from smartcash.backend.samples import write_samples
from smartcash.domain.config import TrainConfig
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import RunFolder
from smartcash.worker.models import open_model

CLASSES = ("1000", "2000", "5000", "10000", "20000", "50000", "100000")
CONNECTIONS, BATCH, IMAGE_PX, PICTURE_PX = 8, 8, 320, 640


def main() -> int:
    """Measure and print; 1 when an answer was no answer."""
    small = options(__doc__).small
    pictures, rounds = (16, 1) if small else (120, 3)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SMARTCASH_HOME"] = str(Path(folder) / "runs")
        make_version(Path(folder) / "runs")
        write_samples(Path(folder) / "notes", images=30, size_px=PICTURE_PX)
        files = sorted((Path(folder) / "notes").rglob("*.jpg"))
        uploads = [files[number % len(files)].read_bytes() for number in range(pictures)]
        predictor, _ = open_model("v1")
        with Server() as server:
            ways: dict[str, Callable[[], None]] = {
                "network alone, batches of 8": lambda: network(predictor, uploads),
                "whole, batches of 8, no HTTP": lambda: whole(predictor, uploads),
                "served": lambda: server.ask_all(uploads),
                "served, one connection": lambda: server.ask_all(uploads, connections=1),
            }
            speeds = measured(ways, pictures, rounds)
            failed = server.failed
    alone = speeds["whole, batches of 8, no HTTP"]
    mean_kb = sum(map(len, uploads)) / len(uploads) / 1e3
    print(f"{torch.get_num_threads()} thread(s), {mean_kb:.0f} kB per picture, {failed} answers failed")
    print_table(
        f"efficientnet_lite0, {IMAGE_PX} px: pictures per second",
        ("", "pictures/s", "ratio to whole"),
        [(name, speed, speed / alone) for name, speed in speeds.items()],
    )
    return 1 if failed else 0


def measured(ways: dict[str, Callable[[], None]], pictures: int, rounds: int) -> dict[str, float]:
    """Pictures per second of each way, the median of rounds in which they take turns."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - began)
    return {name: pictures / statistics.median(seconds) for name, seconds in taken.items()}


def make_version(home: Path) -> None:
    """Version 1 of a home: random weights."""
    values = {"task": "detect", "model": {"backbone": "efficientnet_lite0", "pretrained": False}}
    config = TrainConfig.parse(values)
    torch.manual_seed(0)
    model = build_model(config, len(CLASSES))
    extra = {
        "classes": list(CLASSES),
        "preprocess": Preprocess(IMAGE_PX, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).to_dict(),
        "ema_state_dict": {"model": model.state_dict()},
    }
    run = RunFolder.create(home, config, {"state": "finished"})
    with CheckpointManager(output_dir=str(run.weights), monitor="mAP50_95", mode="max") as manager:
        metrics = {"mAP50_95": 0.5, "threshold": 0.5}
        manager.save_checkpoint(model, None, None, config, 1, metrics, True, extra=extra)
    ModelVersions(home).register_run(run)


def whole(predictor: Predictor, uploads: list[bytes]) -> None:
    """Everything but HTTP, in order."""
    lowest = predictor.threshold
    for first in range(0, len(uploads), BATCH):
        batch = [
            predictor.prepared(decode_image(data, "upload"), lowest)
            for data in uploads[first : first + BATCH]
        ]
        for outcome in predictor.together(batch):
            predictor.describe(outcome)


def network(predictor: Predictor, uploads: list[bytes]) -> None:
    """The same number of pictures, decoded once."""
    batch = [
        predictor.prepared(decode_image(data, "upload"), predictor.threshold) for data in uploads[:BATCH]
    ]
    for _ in range(0, len(uploads), BATCH):
        predictor.together(batch)


class Server:
    """`smartcash serve v1` in a process of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smartcash", "serve", "v1", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])
        self.failed = 0

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def ask_all(self, uploads: list[bytes], connections: int = CONNECTIONS) -> None:
        """Ask about every picture; each connection has its share."""
        shares = [uploads[first::connections] for first in range(connections)]
        threads = [threading.Thread(target=self._ask, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, uploads: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for data in uploads:
            connection.request("POST", "/predict", data, {"content-type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            self.failed += answer.status != 200
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
