"""Wrong configurations (A11): every one is refused with the field, the value or the limit, and a way out, in both
languages, and nothing is started. What needs no torch is refused by the Training Manager at once, the rest by the
worker's check, before a step is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smartcash import TrainConfig, TrainingManager, worker
from smartcash.backend import builder
from smartcash.backend.samples import write_samples
from smartcash.domain.config import merge
from smartcash.domain.errors import ConfigInvalid, Problem
from smartcash.services.run_store import RunFolder
from smartcash.utils.i18n import LANGUAGES
from smartcash.utils.machine import available_cores

Toy = Callable[..., dict[str, Any]]
Case = tuple[str, Any, str, str]  # field, wrong value, code, what the message must contain


def nested(name: str, value: Any) -> dict[str, Any]:
    """`nested("data.path", 1)` → {"data": {"path": 1}}"""
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


# one wrong field, refused without looking at anything but the configuration
FIELDS: list[Case] = [
    # types
    ("data.path", 5, "not_text", "5"),
    ("data.batch_size", "many", "not_whole_or_auto", "'many'"),
    ("data.batch_size", 2.5, "not_whole_or_auto", "2.5"),
    ("data.balance", "maybe", "not_switch", "'maybe'"),
    ("model.pretrained", [1], "not_switch", "[1]"),
    ("model.frozen_stages", 2.5, "not_whole", "2.5"),
    ("optimizer.lr", "fast", "not_number_or_auto", "'fast'"),
    ("optimizer.momentum", "high", "not_number", "'high'"),
    ("optimizer.clip_norm", float("inf"), "not_finite", "inf"),
    ("optimizer.weight_decay", float("nan"), "not_finite", "nan"),
    ("training.monitor", 3, "not_text", "3"),
    ("training.callbacks", "logger", "not_list", "'logger'"),
    ("training", 5, "not_section", "epochs"),
    ("augment", "strong", "not_section", "preset"),
    ("tags", "one", "not_list", "'one'"),
    # ranges
    ("data.batch_size", 0, "out_of_range", "4096"),
    ("data.workers", -1, "out_of_range", "256"),
    ("data.image_size", 100, "image_size_32", "32"),
    ("data.image_size", 4096, "image_size_32", "2048"),
    ("model.drop_path", 1.0, "not_below_limit", "1.0"),
    ("model.backbone_lr_factor", 0, "not_above_limit", "0"),
    ("model.frozen_stages", 9, "above_limit", "5"),
    ("model.dropout", -0.1, "below_limit", "-0.1"),
    ("augment.close_share", 1.5, "above_limit", "1.5"),
    ("augment.scale", 0.5, "below_limit", "1"),
    ("augment.rotate_deg", 200, "above_limit", "180"),
    ("optimizer.lr", -1, "out_of_range", "10"),
    ("optimizer.lr", 0, "out_of_range", "1e-09"),
    ("optimizer.accumulate", 0, "below_limit", "1"),
    ("optimizer.betas", [0.9, 1.0], "betas_range", "1.0"),
    ("optimizer.betas", [0.9], "betas_length", "0.9"),
    ("optimizer.betas", [0.9, 0.99, 0.999], "betas_length", "0.999"),
    ("schedule.gamma", 1.0, "not_below_limit", "1.0"),
    ("schedule.step_epochs", 0, "not_above_limit", "0"),
    ("training.epochs", 0, "below_limit", "1"),
    ("training.epochs", 10**6, "above_limit", "100000"),
    ("training.max_hours", 0, "not_above_limit", "0"),
    ("training.ema_decay", 1.0, "not_below_limit", "1.0"),
    ("training.previews.count", 1000, "above_limit", "100"),
    ("training.early_stopping.patience", -1, "below_limit", "-1"),
    ("checkpoint.every_epochs", 0, "below_limit", "1"),
    ("checkpoint.keep_epochs", 0, "below_limit", "1"),
    ("runtime.threads", 0, "out_of_range", "1024"),
    ("seed", -3, "below_limit", "-3"),
    ("seed", 2**31, "not_below_limit", "2147483648"),
    ("name", "x" * 100, "text_too_long", "80"),
    ("notes", "x" * 20_000, "text_too_long", "10000"),
    ("tags", ["x" * 50], "tag_form", "40"),
    ("tags", [" "], "tag_form", "' '"),
    ("tags", [str(n) for n in range(30)], "tags_many", "20"),
    # choices and names
    ("data.format", "yollo", "choice_unknown", "yolo"),
    ("data.cache", "disk", "choice_unknown", "ram"),
    ("optimizer.name", "adamW", "choice_unknown", "adamw"),
    ("schedule.name", "cosinus", "choice_unknown", "cosine"),
    ("runtime.precision", "fp17", "choice_unknown", "fp16"),
    ("task", "detection", "choice_unknown", "detect"),
    ("runtime.device", "gpu", "device_unknown", "cuda"),
    ("model.backbone", "", "text_empty", "''"),
    ("model.backbon", "resnet50", "field_unknown", "model.backbone"),
    ("optimiser", {"lr": 1e-3}, "field_unknown", "optimizer.lr"),
    ("training.early_stoping", {"patience": 3}, "field_unknown", "training.early_stopping"),
    ("epochs", 30, "field_unknown", "training.epochs"),
    ("model.qqqqqqqqqqqqqqqqqq", 3, "field_unknown_far", "backbone, pretrained, scale"),
    ("zzz", 3, "field_unknown_far", "task, name, seed"),
    ("notify.targets.0", ["me at home"], "target_form", "'me at home'"),
    ("notify.targets.1", ["bell", "https://"], "target_form", "'https://'"),
    ("training.callbacks.0.use", [{"options": {}}], "field_missing", "."),
    ("training.callbacks.0.on_error", [{"use": "a:B", "on_error": "ignore"}], "choice_unknown", "skip"),
    ("training.callbacks.0.options", [{"use": "a:B", "options": 3}], "not_mapping", "3"),
    ("training.callbacks.0.options", [{"use": "early_stopping", "options": 3}], "not_mapping", "3"),
    ("training.callbacks.0.options", [{"use": "csv", "options": ["x"]}], "not_mapping", "['x']"),
    ("training.callbacks.0.options.seed", [{"use": "csv", "options": {"seed": 7}}], "built_in_takes_none", "seed"),
    ("training.callbacks.0.options.epochs", [{"use": "ema", "options": {"epochs": 9}}], "built_in_takes_no", "ema_decay"),
    ("training.callbacks.0.on_error", [{"use": "ema", "on_error": "skip"}], "built_in_takes_no", "on_error"),
    ("training.callbacks.0.often", [{"use": "checkpoint", "often": 1}], "field_unknown", "training.callbacks"),
    ("training.callbacks.0", [5], "not_section", "5"),
]  # fmt: skip

# rules between fields: (field, whole values, code, what the message must contain)
RULES: list[Case] = [
    ("schedule.warmup_epochs", {"schedule": {"warmup_epochs": 4}, "training": {"epochs": 3}}, "warmup_too_long", "3"),
    ("model.freeze_epochs", {"model": {"freeze_epochs": 4}, "training": {"epochs": 3}}, "freeze_too_long", "3"),
    ("schedule.step_epochs", {"schedule": {"name": "step"}, "training": {"epochs": 8}}, "step_too_long", "8"),
    ("schedule.extended_from", {"schedule": {"extended_from": 20}, "training": {"epochs": 20}}, "extension_empty", "20"),
    ("training.early_stopping.start_epoch",
     {"training": {"epochs": 9, "early_stopping": {"patience": 2, "start_epoch": 12}}}, "stopping_too_late", "12"),
    ("augment.mosaic", {"task": "classify", "augment": {"mosaic": 0.4}}, "mosaic_of_detect", "0.4"),
    ("augment.mixup", {"task": "detect", "augment": {"mixup": 0.3}}, "mixup_of_classify", "0.3"),
    ("runtime.precision", {"runtime": {"device": "cpu", "precision": "fp16"}}, "fp16_on_cpu", "cpu"),
    ("training.callbacks.1", {"training": {"callbacks": ["mine:Log", "mine:Log"]}}, "callback_twice", "mine:Log"),
    ("training.ema_decay", {"training": {"callbacks": [{"use": "ema", "options": {"ema_decay": 2}}]}},
     "not_below_limit", "2"),
]  # fmt: skip


def speaks(problem: Problem, contains: str) -> None:
    """In both languages: names the value or the limit, says what to do, and is not the other language's text."""
    messages = [problem.message(language) for language in LANGUAGES]
    assert len(set(messages)) == len(LANGUAGES), messages
    for message in messages:
        assert contains in message, message
        hint = message.partition(contains)
        assert len(hint[0] + hint[2]) > 12, message


def refused(manager: TrainingManager, values: dict[str, Any], field: str, code: str, contains: str) -> None:
    review = manager.check(values)
    assert [(problem.field, problem.code) for problem in review.problems] == [(field, code)]
    speaks(review.problems[0], contains)
    assert not review.ok and not review.token
    with pytest.raises(ConfigInvalid):
        manager.apply(review)
    assert not manager.home.exists(), "something was written"


@pytest.mark.parametrize(("field", "value", "code", "contains"), FIELDS)
def test_a_wrong_field_is_refused_by_name(
    toy: Toy, tmp_path: Path, field: str, value: Any, code: str, contains: str
) -> None:
    """A11, A33."""
    is_list = field.startswith(("training.callbacks.", "notify.targets."))
    place = ".".join(field.split(".")[:2]) if is_list else field
    values = merge(toy(), nested(place, value)) if isinstance(value, dict) else _laid(toy(), place, value)
    refused(TrainingManager(tmp_path / "home"), values, field, code, contains)


@pytest.mark.parametrize("values", [[], None, 5, "task: detect"])
def test_what_is_no_mapping_at_all_is_refused(values: Any) -> None:
    """A11."""
    with pytest.raises(ConfigInvalid) as caught:
        TrainConfig.parse(values)
    (problem,) = caught.value.problems
    speaks(problem, type(values).__name__)


def test_a_built_in_callback_without_options_hides_no_wrong_section() -> None:
    """A11."""
    with pytest.raises(ConfigInvalid) as caught:
        TrainConfig.parse({"training": {"callbacks": ["checkpoint", "csv", "ema"]}, "checkpoint": 5})
    assert [problem.field for problem in caught.value.problems] == ["checkpoint"]


def test_options_of_built_in_callbacks_are_those_of_their_sections() -> None:
    """A2."""
    callbacks = [
        {"use": "early_stopping", "options": {"patience": 3}}, {"use": "ema", "options": {"ema_decay": 0.5}},
        {"use": "checkpoint", "options": {"every_steps": 7}}, "csv", {"use": "mine:Log", "options": {"x": 1}},
    ]  # fmt: skip
    config = TrainConfig.parse({"training": {"callbacks": callbacks}})
    assert (config.training.early_stopping.patience, config.training.ema_decay) == (3, 0.5)
    assert config.checkpoint.every_steps == 7
    assert [callback.use for callback in config.training.callbacks] == ["mine:Log"]


def _laid(values: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    section, _, leaf = place.rpartition(".")
    return merge(values, nested(section, {leaf: value})) if section else {**values, leaf: value}


@pytest.mark.parametrize(("field", "values", "code", "contains"), RULES)
def test_fields_that_contradict_each_other_are_refused(
    toy: Toy, tmp_path: Path, field: str, values: dict[str, Any], code: str, contains: str
) -> None:
    """A11, A33."""
    refused(TrainingManager(tmp_path / "home"), toy(**values), field, code, contains)


def test_what_this_machine_cannot_give_is_refused(toy: Toy, tmp_path: Path) -> None:
    """A11: paths, cores; a home that is a file is a problem too, not a traceback."""
    home, file = tmp_path / "home", tmp_path / "file"
    file.write_text("")
    cases: list[Case] = [
        ("data.path", {"data": {"path": ""}}, "data_path_missing", "smartcash data sample"),
        ("data.path", {"data": {"path": str(tmp_path / "nots")}}, "data_path_wrong", "nots"),
        ("data.workers", {"data": {"workers": 256}}, "workers_many", str(4 * available_cores())),
        ("checkpoint.backup_dir", {"checkpoint": {"backup_dir": str(home / "copies")}}, "backup_inside", "copies"),
        ("checkpoint.backup_dir", {"checkpoint": {"backup_dir": str(file / "copies")}}, "backup_not_writable", "file"),
        ("checkpoint.backup_dir", {"checkpoint": {"backup_dir": "/content/drive/MyDrive"}}, "backup_not_mounted", "mount"),
    ]  # fmt: skip
    for field, values, code, contains in cases:
        refused(TrainingManager(home), toy(**values), field, code, contains)
    (problem,) = TrainingManager(file).check(toy()).problems
    assert (problem.field, problem.code) == ("home", "home_not_writable")
    speaks(problem, str(file))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_backup_folder_without_permission_is_refused(toy: Toy, tmp_path: Path) -> None:
    """A11."""
    (tmp_path / "closed").mkdir(mode=0o500)
    values = toy(checkpoint={"backup_dir": str(tmp_path / "closed" / "copies")})
    refused(
        TrainingManager(tmp_path / "home"), values, "checkpoint.backup_dir", "backup_not_writable", "closed"
    )


def test_the_weights_of_a_run_are_no_place_for_their_own_backup(toy: Toy, tmp_path: Path) -> None:
    """A11: also for a run outside the home that goes on."""
    run = RunFolder.create(tmp_path / "other", TrainConfig.parse(toy()), {"state": "stopped"})
    values = toy(checkpoint={"backup_dir": str(run.weights)})
    (problem,) = TrainingManager(tmp_path / "home").check(values, run=run).problems
    assert (problem.field, problem.code) == ("checkpoint.backup_dir", "backup_inside")
    speaks(problem, str(run.path))


def test_a_running_training_is_not_sent_a_number_of_epochs_that_its_configuration_cannot_have(
    toy: Toy, tmp_path: Path
) -> None:
    """A11: it would end the training with an error in the middle."""
    values = toy(training={"epochs": 9}, schedule={"warmup_epochs": 3})
    run = RunFolder.create(tmp_path, TrainConfig.parse(values), {})
    with pytest.raises(ConfigInvalid) as caught:
        TrainingManager(tmp_path).command(run, "epochs", 2)
    assert [problem.field for problem in caught.value.problems] == ["schedule.warmup_epochs"]
    assert not run.control.exists()


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """A11: wrong fields, unknown names, rules between the right ones, and none about a field that is wrong itself."""
    values = {
        "data": {"batch_size": 0, "imagesize": 3},
        "schedule": {"name": "step", "step_epochs": 50, "warmup_epochs": 40},
        "training": {"epochs": 12, "callbacks": ["a:B", "a:B"]},
        "augment": {"mosaic": 0.5, "mixup": 2},
        "task": "classify",
    }
    review = TrainingManager(tmp_path / "home").check(values)
    assert {(problem.field, problem.code) for problem in review.problems} == {
        ("data.batch_size", "out_of_range"),
        ("data.imagesize", "field_unknown"),
        ("augment.mixup", "above_limit"),
        ("schedule.warmup_epochs", "warmup_too_long"),
        ("schedule.step_epochs", "step_too_long"),
        ("training.callbacks.1", "callback_twice"),
        ("augment.mosaic", "mosaic_of_detect"),
    }
    values["training"]["epochs"] = 0  # type: ignore[index]
    fields = {problem.field for problem in TrainingManager(tmp_path / "home").check(values).problems}
    assert "training.epochs" in fields and "schedule.warmup_epochs" not in fields


# what needs torch or the data: (field, sections, code, what the message must contain)
IN_THE_WORKER: list[Case] = [
    ("model.backbone", {"model": {"backbone": "efficientnet_lite00"}}, "errors.backbone_unknown", "efficientnet_lite0"),
    ("model.backbone", {"model": {"backbone": "vit_tiny_patch16_224"}}, "errors.backbone_strides", "8, 16"),
    ("model.backbone", {"model": {"backbone": "vgg11", "drop_path": 0.1}}, "errors.backbone_option", "drop_path"),
    ("model.pretrained", {"model": {"pretrained": True}}, "errors.weights_unavailable", "model.pretrained=false"),
    ("training.monitor", {"training": {"monitor": "accuracy"}}, "monitor_unknown", "mAP50"),
    ("training.early_stopping.monitor", {"training": {"early_stopping": {"monitor": "map"}}}, "monitor_unknown", "map"),
    ("training.callbacks.0", {"training": {"callbacks": ["tensorbord"]}}, "callback_form", "tensorboard"),
    ("training.callbacks.0", {"training": {"callbacks": ["nowhere:Nothing"]}}, "callback_not_made", "nowhere"),
    ("training.callbacks.0", {"training": {"callbacks": ["builtins:dict"]}}, "callback_hooks", "on_epoch_end"),
    ("training.previews.images", {"training": {"previews": {"images": ["no.jpg"]}}}, "preview_missing", "no.jpg"),
    ("data.batch_size", {"data": {"batch_size": 4096}}, "batch_larger_than_split", "4096"),
    ("optimizer.accumulate", {"optimizer": {"accumulate": 500}}, "accumulate_too_many", "500"),
    ("runtime.device", {"runtime": {"device": "cuda:7"}}, "device_missing", "auto"),
    ("runtime.precision", {"runtime": {"precision": "fp16"}}, "fp16_on_cpu", "bf16"),
    ("augment.mixup", {"augment": {"mixup": 0.5}}, "mixup_of_classify", "0.5"),
    ("data.path", {"task": "classify"}, "errors.data_task", "detect"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cpu_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home for runs, on a machine without a card and without a hub."""
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has a graphics card")
    return tmp_path_factory.mktemp("checked")


def checked(home: Path, values: dict[str, Any]) -> tuple[RunFolder, list[Problem]]:
    """The worker's check, in this process."""
    run = RunFolder.create(home, TrainConfig.parse(values), {})
    problems = worker.check(run, measured=False)
    facts = run.description()
    assert facts["state"] == ("failed" if problems else "ready")
    assert [(p["field"], p["code"]) for p in facts["problems"]] == [(p.field, p.code) for p in problems]
    assert not (run.path / "epochs.csv").exists() and not list(run.weights.glob("*")), "it was trained"
    return run, problems


@pytest.mark.parametrize(("field", "values", "code", "contains"), IN_THE_WORKER)
def test_what_needs_torch_or_the_data_is_refused_by_the_worker(
    toy: Toy,
    cpu_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    values: dict[str, Any],
    code: str,
    contains: str,
) -> None:
    """A11, A20, A33: before a step is trained."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _, problems = checked(cpu_only, toy(**values))
    assert [(problem.field, problem.code) for problem in problems] == [(field, code)]
    speaks(problems[0], contains)


def test_the_worker_tells_all_problems_at_once(toy: Toy, cpu_only: Path, tmp_path: Path) -> None:
    """A11: device, backbone, batch, metrics and callbacks do not hide each other; nor do broken data."""
    wrong = toy(
        model={"backbone": "resnet5000"},
        data={"batch_size": 4096},
        runtime={"device": "cuda:7"},
        training={"monitor": "x", "early_stopping": {"monitor": "y"}, "callbacks": ["nowhere:A", "nowhere:B"]},
    )  # fmt: skip
    _, problems = checked(cpu_only, wrong)
    beside_the_data = {"training.callbacks.0", "training.callbacks.1", "runtime.device", "model.backbone"}
    with_the_data = {"training.monitor", "training.early_stopping.monitor", "data.batch_size"}
    assert {problem.field for problem in problems} == beside_the_data | with_the_data
    (tmp_path / "empty").mkdir()
    _, problems = checked(cpu_only, merge(wrong, {"data": {"path": str(tmp_path / "empty")}}))
    assert {problem.field for problem in problems} == beside_the_data | {"data.path"}


def test_a_batch_that_memory_cannot_hold_is_refused_before_the_system_kills_it(
    toy: Toy, cpu_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A11, A28: with what is needed, what is free, and the batch that fits; likewise pictures kept in memory."""
    monkeypatch.setattr(builder, "free_memory", lambda: 3 * 2**20)
    _, problems = checked(cpu_only, toy(data={"batch_size": 8, "cache": "ram"}))
    found = {problem.field: problem for problem in problems}
    assert {"data.batch_size"} <= set(found)
    short = found["data.batch_size"]
    assert short.code == "memory_short" and short.facts["needed"] > short.facts["free"] == 3
    assert 1 <= short.facts["fitting"] < 8
    speaks(short, f"data.batch_size={short.facts['fitting']}")
    monkeypatch.setattr(builder, "free_memory", lambda: 2**18)
    _, problems = checked(cpu_only, toy(data={"batch_size": 1, "cache": "ram"}))
    cache = next(problem for problem in problems if problem.field == "data.cache")
    assert cache.code == "cache_too_large"
    speaks(cache, f"{cache.facts['needed']} MB")


def test_mosaic_for_pictures_in_folders_is_refused_once_their_task_is_known(
    cpu_only: Path, tmp_path: Path
) -> None:
    """A11: the task is "auto" until the data are read."""
    write_samples(tmp_path / "sorted", images=49, seed=3, task="classify", size_px=96)
    values = {
        "data": {"path": str(tmp_path / "sorted"), "image_size": 64, "batch_size": 4},
        "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False},
        "augment": {"mosaic": 0.4},
        "training": {"monitor": "mAP50"},
    }
    _, problems = checked(cpu_only, values)
    assert {problem.field for problem in problems} == {"augment.mosaic", "training.monitor"}


def test_at_least_sixty_wrong_configurations_are_tried() -> None:
    """A11 wants forty."""
    assert len(FIELDS) + len(RULES) + len(IN_THE_WORKER) >= 60
