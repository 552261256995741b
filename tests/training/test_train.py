"""A whole training, small: what it leaves behind, that it repeats, that it can be stopped, what it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from smartcash.backend.images import read_image
from smartcash.backend.samples import write_samples
from smartcash.cli.progress import TrainingDisplay
from smartcash.domain.config import merge
from smartcash.domain.errors import ConfigInvalid, DataInvalid, TrainingFailed
from smartcash.domain.events import DataFound, EpochEnded, Event, RunReady, StepEnded
from smartcash.services.event_log import read_events
from smartcash.services.run_info import read_run
from smartcash.worker import evaluate_model, open_model, predict_files, preview_data, train, training

from .conftest import toy_config


def state_of(run: Path) -> dict:
    """The newest checkpoint's content."""
    newest = max((run / "weights").glob("*.pth"), key=lambda path: path.name[-10:])
    return torch.load(newest, weights_only=True)


def digest(state: dict) -> str:
    """SHA-256 over the weights, the averaged weights and the optimizer's moments."""
    whole = hashlib.sha256()
    for part in (state["model_state_dict"], state["ema_state_dict"]["model"]):
        for name, tensor in part.items():
            whole.update(name.encode() + tensor.contiguous().numpy().tobytes())
    for moments in state["optimizer_state_dict"]["state"].values():
        for tensor in moments.values():
            whole.update(tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


@pytest.fixture(scope="module")
def trained(notes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """One finished toy training: its folder and all its events."""
    heard: list[Event] = []
    run, _ = train(toy_config(notes), tmp_path_factory.mktemp("home"), heard.append)
    return run.path, heard


def test_a_finished_run_has_its_documented_folder(trained: tuple[Path, list[Event]]) -> None:
    """A29: config, description, events, epoch log, checkpoints and report are all there and readable."""
    folder, _ = trained
    assert folder.parent.name == "detect"
    facts = json.loads((folder / "run.json").read_text())
    assert facts["state"] == "finished" and facts["epochs_done"] == 2
    assert facts["choices"]["depthwise_kernels"] == ("numba" if find_spec("numba") else "torch")
    assert facts["data"]["content_hash"] and facts["packages"]["torch"] and facts["elapsed_s"] > 0
    assert "auto" not in (folder / "config.yaml").read_text()
    assert (folder / "report" / "predictions.jpg").stat().st_size > 5_000
    assert json.loads((folder / "report" / "metrics.json").read_text())["test"]["images"] > 0


def test_every_epoch_has_one_row_with_losses_metrics_rate_time_and_memory(
    trained: tuple[Path, list[Event]],
) -> None:
    """A10: the row is in epochs.csv and, with the same figures, in events.jsonl."""
    folder, _ = trained
    rows = list(csv.DictReader((folder / "epochs.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    wanted = {
        "train_loss",
        "train_class_loss",
        "train_box_loss",
        "train_dfl_loss",
        "mAP50",
        "mAP50_95",
        "exact_sum",
    }
    wanted |= {
        "lr",
        "lr_backbone",
        "images_per_s",
        "train_s",
        "eval_s",
        "elapsed_s",
        "peak_memory_mb",
        "grad_norm",
    }
    assert wanted <= rows[0].keys()
    logged = [event["row"] for event in read_events(folder / "events.jsonl") if event["type"] == "EpochEnded"]
    assert [float(row["train_loss"]) for row in rows] == [row["train_loss"] for row in logged]


def test_events_are_numbered_without_gaps_and_come_in_order(trained: tuple[Path, list[Event]]) -> None:
    """A21: ready, then epochs with progress, then the end."""
    folder, heard = trained
    records = list(read_events(folder / "events.jsonl"))
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    kinds = [type(event) for event in heard]
    assert kinds.index(RunReady) < kinds.index(StepEnded) < kinds.index(EpochEnded)
    assert records[-1]["type"] == "RunFinished"


@pytest.mark.parametrize(
    ("over", "kept"),
    [
        ({"checkpoint": {"keep_epochs": 9}}, 3),
        ({"checkpoint": {"keep_epochs": 1}, "training": {"epochs": 6}}, 4),
        ({"optimizer": {"name": "sgd"}}, 3),
        ({"optimizer": {"name": "rmsprop"}, "model": {"frozen_stages": 5}}, 3),
    ],
)
def test_a_training_whose_checkpoints_will_not_fit_is_refused_before_its_first_step(
    over: dict[str, Any], kept: int, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D9: in the foreground too, where nothing was measured before; what it says it needs is what they take."""
    config = toy_config(notes, **merge(over, {"checkpoint": {"every_minutes": 0}}))
    heard: list[Event] = []
    with monkeypatch.context() as full:
        full.setattr(training.psutil, "disk_usage", lambda path: SimpleNamespace(free=2**20, total=2**40))
        with pytest.raises(ConfigInvalid) as caught:
            train(config, tmp_path, heard.append)
    (problem,) = caught.value.problems
    assert (problem.field, problem.code, problem.facts["free"]) == ("checkpoint.keep_epochs", "disk_short", 1)
    assert not any(isinstance(event, StepEnded) for event in heard)

    run, _ = train(config, tmp_path)
    files = list(run.weights.glob("*.pth"))
    size_mb = max(path.stat().st_size for path in files) / 2**20
    assert len(files) <= kept and problem.facts["needed"] == pytest.approx(kept * size_mb, rel=0.05)


def test_the_same_seed_twice_gives_bit_equal_weights(
    trained: tuple[Path, list[Event]], notes: Path, tmp_path: Path
) -> None:
    """D1: weights, averaged weights and optimizer moments are equal to the last bit; another seed's differ."""
    again, _ = train(toy_config(notes), tmp_path / "again")
    other, _ = train(toy_config(notes, seed=1), tmp_path / "other")
    assert digest(state_of(again.path)) == digest(state_of(trained[0]))
    assert digest(state_of(other.path)) != digest(state_of(trained[0]))


@pytest.mark.slow
def test_loader_processes_do_not_change_the_weights(
    trained: tuple[Path, list[Event]], notes: Path, tmp_path: Path
) -> None:
    """A27: augmentation is a function of (seed, epoch, sample), so two workers give the same bits as none."""
    run, _ = train(toy_config(notes, data={"workers": 2}), tmp_path)
    assert digest(state_of(run.path)) == digest(state_of(trained[0]))


def test_a_model_from_a_run_evaluates_and_predicts(
    trained: tuple[Path, list[Event]], notes: Path, tmp_path: Path
) -> None:
    """A19, D15 (part): the checkpoint alone is enough; its figures are those of the training's own test."""
    folder, _ = trained
    figures = evaluate_model(str(folder), str(notes), "test")
    own = json.loads((folder / "report" / "metrics.json").read_text())["test"]
    assert figures["mAP50_95"] == pytest.approx(own["mAP50_95"], rel=1e-5)
    pictures = sorted((notes / "images" / "test").iterdir())
    found = list(
        predict_files(str(folder), [*pictures, notes / "data.yaml"], tmp_path / "drawn", threshold=0.0)
    )
    assert len(found) == len(pictures) + 1 and "error" in found[-1]
    assert len(list((tmp_path / "drawn").iterdir())) == len(pictures)
    box = found[0]["found"][0]["box_xyxy"]
    assert 0 <= box[0] <= box[2] <= 96 and found[0]["total_rupiah"] > 0


def test_a_single_checkpoint_file_is_a_model(trained: tuple[Path, list[Event]]) -> None:
    """B23: its metadata is enough to rebuild network, classes and preprocessing."""
    file = next((trained[0] / "weights").glob("*best*.pth"))
    predictor, _ = open_model(str(file))
    assert (
        predictor.task == "detect" and predictor.preprocess.image_size == 64 and "100000" in predictor.classes
    )


def test_a_classifier_trains_from_a_folder_per_class(sorted_notes: Path, tmp_path: Path) -> None:
    """C7: the task is found from the data; accuracy is logged, the loss decides which epoch is best."""
    run, outcome = train(toy_config(sorted_notes), tmp_path)
    assert run.path.parent.name == "classify"
    assert outcome.test is not None and outcome.test.accuracy is not None
    assert run.config().training.monitor == "loss" and run.config().training.mode == "min"
    assert evaluate_model(str(run.path), str(sorted_notes), "valid")["accuracy"] is not None
    photo = next(sorted_notes.rglob("*.jpg"))
    (answer,) = predict_files(str(run.path), [photo], tmp_path / "drawn")
    assert read_image(Path(answer["drawn"])).shape == read_image(photo).shape


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_a_model_is_judged_later_as_it_was_by_its_training(
    task: Literal["detect", "classify"], tmp_path: Path
) -> None:
    """A19, D15: the same pictures, many times larger than the input, the same figures to the last digits."""
    write_samples(tmp_path / "large", images=40, seed=5, size_px=400, task=task)
    run, outcome = train(toy_config(tmp_path / "large"), tmp_path)
    assert outcome.test is not None
    later = evaluate_model(str(run.path), str(tmp_path / "large"), "test")
    names = ("mAP50", "mAP50_95") if task == "detect" else ("accuracy", "loss", "ece")
    for name in names:
        assert later[name] == pytest.approx(outcome.test.to_dict()[name], rel=1e-5, abs=1e-7), name


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart(notes: Path, tmp_path: Path) -> None:
    """A28: on a handful of pictures without augmentation the loss falls to a fraction: every part learns."""
    config = toy_config(
        notes, augment={"preset": "off"}, training={"epochs": 20, "ema_decay": 0.0}, optimizer={"lr": 4e-3}
    )
    rows: list[dict] = []
    train(config, tmp_path, lambda event: rows.append(event.row) if isinstance(event, EpochEnded) else None)
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    assert rows[-1]["train_box_loss"] < 0.6 * rows[0]["train_box_loss"]


def test_early_stopping_stops_exactly_patience_epochs_after_the_best(notes: Path, tmp_path: Path) -> None:
    """A8: a learning rate too small to improve anything; the best epoch's weights are the ones tested."""
    config = toy_config(
        notes,
        optimizer={"lr": 1e-9},
        training={
            "epochs": 9,
            "ema_decay": 0.0,
            "monitor": "train_loss",
            "early_stopping": {"patience": 2, "min_delta": 5.0},
        },
    )
    _, outcome = train(config, tmp_path)
    assert outcome.reason == "early_stopped" and outcome.progress.epoch == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint_and_its_exit_code(
    number: int, notes: Path, tmp_path: Path
) -> None:
    """A34: Ctrl-C ends cleanly; the checkpoint loads and the run says how it ended."""
    settings = [
        "model.backbone=mobilenetv4_conv_small",
        "model.pretrained=false",
        "data.image_size=64",
        "data.batch_size=4",
    ]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "smartcash", "train", str(notes), "--epochs", "5000", "--home", str(tmp_path)),
            *(part for setting in settings for part in ("--set", setting)),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "SMARTCASH_LANG": "en"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("detect/*/epochs.csv"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    run = next(tmp_path.glob("detect/*"))
    assert process.returncode == (130 if number == signal.SIGINT else 143), printed
    assert json.loads((run / "run.json").read_text())["state"] == (
        "stopped" if number == signal.SIGINT else "preempted"
    )
    state = state_of(run)
    assert state["step"] > 0 and "Traceback" not in printed


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_its_cause(notes: Path, tmp_path: Path) -> None:
    """A28: epoch, step, learning rate and the names of the pictures; the run is marked failed, not half-done."""
    config = toy_config(
        notes,
        optimizer={"lr": 9.9, "clip_norm": 0, "name": "sgd"},
        runtime={"precision": "fp32"},
        training={"epochs": 30},
    )
    with pytest.raises(TrainingFailed) as caught:
        train(config, tmp_path)
    assert ".jpg" in caught.value.message("en") and "learning rate" in caught.value.message("en")
    facts = json.loads(next(tmp_path.glob("detect/*/run.json")).read_text())
    assert facts["state"] == "failed" and facts["error"]


def test_what_cannot_start_starts_nothing(notes: Path, tmp_path: Path) -> None:
    """A11: no data, a missing folder, a metric that the task does not log: an error and no checkpoint."""
    with pytest.raises(ConfigInvalid):
        train(toy_config(notes).replaced(data={"path": ""}), tmp_path)
    with pytest.raises(DataInvalid):
        train(toy_config(tmp_path / "missing"), tmp_path)
    with pytest.raises(ConfigInvalid) as caught:
        train(toy_config(notes, training={"monitor": "accuracy"}), tmp_path)
    assert "mAP50_95" in caught.value.message("en")
    assert not list(tmp_path.glob("*/*/weights/*.pth"))


def test_a_preview_shows_augmented_samples(notes: Path, sorted_notes: Path, tmp_path: Path) -> None:
    """A3: the augmentation can be looked at before training."""
    for data in (notes, sorted_notes):
        picture = preview_data(toy_config(data), tmp_path / f"{data.parent.name}.jpg")
        assert picture.stat().st_size > 20_000


def test_a_training_on_a_zip_names_the_zip_and_warns_of_its_data_in_words(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D9: no codes, no cache folder, and no example where there is none."""
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("smartcash.utils.i18n._chosen", "en")
    data = tmp_path / "notes"
    shutil.copytree(notes, data)
    described = (data / "data.yaml").read_text().replace("nc: 7", "nc: 8")
    (data / "data.yaml").write_text(described + '  7: "75000"\n')
    (data / "images" / "train" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    archive = Path(shutil.make_archive(str(tmp_path / "my notes"), "zip", data))
    display = TrainingDisplay()
    run, _ = train(toy_config(archive), tmp_path / "home", display)
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("⚠ Data")]
    more = "More about it: smartcash data check"
    assert f"⚠ Data: Class without an example to learn from (75000). {more}" in warned, warned
    assert any("(images/train/torn.jpg). " in line for line in warned), warned
    assert not [line for line in warned if "data_" in line or "()" in line or "(.)" in line]
    assert run.description()["data"]["path"] == str(archive)
    assert read_run(run.path).dataset == "my notes.zip"


def test_a_finding_that_another_version_wrote_is_shown_by_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A34: what is read from a file of events may name what this version does not know."""
    TrainingDisplay()(DataFound("data_from_the_future", "error", 2, "a.jpg"))
    assert "data_from_the_future (a.jpg" in capsys.readouterr().out
