"""Saving: what is stored, what is refused, who decides what is best."""

from __future__ import annotations

import logging
import os
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_toys import CONFIG, Toy, same

from smartcash.domain.errors import CheckpointError, CheckpointWriteFailed
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.utils.files import DurableFile
from smartcash.utils.stored_zip import StoredZip


def test_every_part_comes_back_bit_for_bit(manager: CheckpointManager, toy: Toy) -> None:
    """B7, B9, B23: model, optimizer, schedule, metrics, config, extra."""
    extra = {"step": 42, "ema_state_dict": {"w": torch.rand(3)}, "rng": {"torch": torch.get_rng_state()}}
    result = toy.save(manager, 7, 0.25, extra=extra)
    loaded = manager.load_checkpoint()
    assert same(loaded["model_state_dict"], toy.model.state_dict())
    assert same(loaded["optimizer_state_dict"], toy.optimizer.state_dict())
    assert same(loaded["scheduler_state_dict"], toy.scheduler.state_dict())
    assert same({key: loaded[key] for key in extra}, extra)
    assert (loaded["epoch"], loaded["metrics"], loaded["config"]) == (7, {"loss": 0.25}, CONFIG)
    assert result["size"] == result["path"].stat().st_size and result["type"] == "best"


def test_a_plain_torch_load_reads_the_file_anywhere(manager: CheckpointManager, toy: Toy) -> None:
    """B8, B19: weights_only, no SmartCash needed; nothing is halved."""
    path = toy.save(manager, 1)["path"]
    content = torch.load(path, weights_only=True)
    toy.model.load_state_dict(content["model_state_dict"])
    assert {t.dtype for t in content["model_state_dict"].values()} == {torch.float32, torch.int64}
    assert content["model_state_dict"]._metadata == toy.model.state_dict()._metadata  # type: ignore[attr-defined]


def test_optional_parts_may_be_missing(manager: CheckpointManager, toy: Toy) -> None:
    """B7: optimizer, scheduler, config and metrics may be None."""
    manager.save_checkpoint(toy.model, None, None, None, 0, None)
    toy.save(manager, 1, save_optimizer=False)
    loaded = manager.load_checkpoint(which=1)
    assert loaded["optimizer_state_dict"] is None and loaded["scheduler_state_dict"] is not None
    assert manager.load_checkpoint(which=0)["config"] == {}


def test_what_is_trained_on_after_the_call_does_not_reach_the_file(
    manager: CheckpointManager, toy: Toy
) -> None:
    """B20: the background writer works on its own copy."""
    before = {key: value.clone() for key, value in toy.model.state_dict().items()}
    for epoch in range(1, 4):
        toy.save(manager, epoch)
        with torch.no_grad():
            for parameter in toy.model.parameters():
                parameter.add_(1)
        assert epoch > 1 or same(manager.load_checkpoint(which=1)["model_state_dict"], before)


def test_buffers_are_reused_and_given_back(manager: CheckpointManager, toy: Toy) -> None:
    """B20: memory is bounded by one copy of the state."""
    buffers = manager._saver._buffers
    toy.save(manager, 1)
    manager.wait()
    first = [buffer.data_ptr() for buffer in buffers._kept]
    toy.save(manager, 2)
    manager.wait()
    assert [buffer.data_ptr() for buffer in buffers._kept] == first
    manager.close()
    assert buffers._kept == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, for quantized and sparse tensors
def test_tensors_of_every_kind_come_back(manager: CheckpointManager) -> None:
    """B8, B23: every type, shape and layout, with a plain torch.load, mapped or not."""
    values = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {str(kind): values.to(kind) for kind in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn,
    )} | {
        "scalar": torch.tensor(3), "empty": torch.zeros(0, 4), "transposed": values.transpose(0, 2),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "large": torch.rand(1_500_000), "sparse": torch.eye(3).to_sparse(),
        "parameter": torch.nn.Parameter(values), "quantized": torch.quantize_per_tensor(values, 0.1, 0, torch.qint8),
    }  # fmt: skip
    path = manager.save_checkpoint(torch.nn.Linear(1, 1), epoch=1, extra={"tensors": tensors})["path"]
    for mapped in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mapped)["tensors"]
        assert loaded.keys() == tensors.keys()
        for name, tensor in tensors.items():
            back = loaded[name]
            assert (back.dtype, back.shape, back.layout) == (tensor.dtype, tensor.shape, tensor.layout), name
            if tensor.layout is torch.strided:
                assert back.stride() == tensor.stride(), name
            bits = [
                (t.to_dense() if t.is_sparse else t.dequantize() if t.is_quantized else t)
                for t in (back, tensor)
            ]
            assert (
                torch.equal(bits[0].double(), bits[1].double())
                if not tensor.is_complex()
                else torch.equal(*bits)
            )


def test_the_file_is_a_sound_archive_whose_tensors_can_be_mapped(
    manager: CheckpointManager, toy: Toy
) -> None:
    """B18, B19: other tools unpack it; every record starts at a multiple of 64 bytes and has its CRC-32."""
    path = toy.save(manager, 1)["path"]
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        assert archive.testzip() is None
        for record in archive.infolist():
            file.seek(record.header_offset + 26)
            name, extra = struct.unpack("<2H", file.read(4))
            assert (record.header_offset + 30 + name + extra) % 64 == 0


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    """D1: the archive itself holds no time and no random number; nor does it end at 4 GB."""
    for name in ("a", "b"):
        file = DurableFile(tmp_path / name, hashed=True)
        archive = StoredZip(file)
        file.size = 5 << 30  # as if 5 GB were there already
        archive.add("archive/data.pkl", b"content")
        archive.finish()
        file.finish()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with (tmp_path / "a").open("r+b") as file:
        data = file.read()
        file.truncate(0)
        file.seek(5 << 30)  # a sparse file: no disk is used
        file.write(data)
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert archive.read("archive/data.pkl") == b"content"


def test_tied_weights_are_stored_once_and_views_without_their_base(manager: CheckpointManager) -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(300, 300, bias=False) for _ in range(2)])
    model[1].weight = model[0].weight
    view = torch.zeros(1_000_000)[:10]
    result = manager.save_checkpoint(model, epoch=1, extra={"view": view})
    assert result["size"] < 500_000


def test_metrics_become_python_numbers(manager: CheckpointManager, toy: Toy) -> None:
    """Fault 12: numpy scalars, 0-d tensors, None, NaN, infinities, names with a slash."""
    metrics = {
        "loss": np.float64(0.5), "map": torch.tensor(0.25), "a/b": None, "nan": float("nan"),
        "inf": float("inf"), "per_class": {"1000": np.float32(0.5)}, "n": np.int64(3),
    }  # fmt: skip
    path = manager.save_checkpoint(toy.model, epoch=1, metrics=metrics)["path"]
    for kept in (torch.load(path, weights_only=True)["metrics"], manager.list_checkpoints()[0].metrics):
        assert str(kept) == (
            "{'loss': 0.5, 'map': 0.25, 'a/b': None, 'nan': nan, 'inf': inf, 'per_class': {'1000': 0.5}, 'n': 3}"
        )


@pytest.mark.parametrize(
    ("extra", "where"),
    [
        ({"callbacks": {"stop": object()}}, "checkpoint.callbacks.stop is a object"),
        ({"rng": [1, {"numpy": np.zeros(3)}]}, "checkpoint.rng.1.numpy is a ndarray"),
        ({"hook": print}, "checkpoint.hook is a builtin_function_or_method"),
    ],
)
def test_what_is_not_plain_is_refused_by_its_place_before_anything_is_written(
    manager: CheckpointManager, toy: Toy, extra: dict[str, object], where: str
) -> None:
    """B29: a file that could not be read back without running code is never written."""
    with pytest.raises(CheckpointWriteFailed, match=where):
        toy.save(manager, 1, extra=extra)
    assert manager.list_checkpoints() == []


def test_extra_must_not_replace_entries_of_the_format(manager: CheckpointManager, toy: Toy) -> None:
    with pytest.raises(CheckpointWriteFailed, match="epoch, metrics"):
        toy.save(manager, 1, extra={"metrics": 1, "epoch": 2, "fine": 3})


def test_the_monitor_decides_when_is_best_is_none(folder: Path, toy: Toy) -> None:
    """B21, C3: per metric and direction; equal is not better."""
    with CheckpointManager(folder, monitor="mAP50_95", mode="max", epoch_every=0) as manager:
        kinds = [
            manager.save_checkpoint(toy.model, epoch=epoch, metrics={"mAP50_95": value})["type"]
            for epoch, value in enumerate([0.2, 0.1, 0.3, 0.3, float("nan"), float("inf"), 0.31])
        ]
    assert kinds == ["best", "latest", "best", "latest", "latest", "latest", "best"]


def test_the_caller_may_say_what_kind_it_is(folder: Path, toy: Toy) -> None:
    """B13, B21: a checkpoint within an epoch is no milestone; NaN is not best for the asking."""
    with CheckpointManager(folder, epoch_every=1) as manager:
        assert toy.save(manager, 1, 0.5, kind="latest")["type"] == "latest"
        assert toy.save(manager, 1, 0.4, kind="epoch")["type"] == "epoch"
        assert toy.save(manager, 2, 0.9, kind="best")["type"] == "best"
        assert toy.save(manager, 3, 0.1, is_best=True, kind="latest")["type"] == "latest"
        assert toy.save(manager, 4, float("nan"), kind="best")["type"] == "epoch"
        with pytest.raises(ValueError, match="choose from best, latest, epoch"):
            toy.save(manager, 5, kind="last")
        assert manager.find_latest_checkpoint() == manager.find_checkpoint_by_epoch(4)


def test_the_caller_decides_with_is_best_but_nan_is_never_best(
    manager: CheckpointManager, toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    """B21, C3."""
    assert toy.save(manager, 1, 0.5, is_best=True)["type"] == "best"
    assert toy.save(manager, 2, 0.9, is_best=True)["type"] == "best"
    assert toy.save(manager, 3, 0.1, is_best=False)["type"] == "latest"
    assert toy.save(manager, 4, float("nan"), is_best=True)["type"] == "latest"
    assert "loss" in caplog.text and "nan" in caplog.text
    assert manager.load_checkpoint()["epoch"] == 2


def test_every_so_many_epochs_a_checkpoint_is_a_milestone(folder: Path, toy: Toy) -> None:
    with CheckpointManager(folder, epoch_every=2) as manager:
        results = [toy.save(manager, epoch, is_best=False) for epoch in (1, 2, 3)]
        assert [result["type"] for result in results] == ["latest", "epoch", "latest"]
        assert results[1]["epoch_path"] == results[1]["path"] and "_epoch_2_" in results[1]["path"].name
        assert results[0]["epoch_path"] is None


@pytest.mark.parametrize("label", ["../../etc", "a\0b", "x" * 300, "🪙", "CON", "", ".", "a/b\\c"])
def test_hostile_labels_never_leave_the_folder(folder: Path, toy: Toy, label: str) -> None:
    """Fault 13: labels are slugged; every file lies in the folder."""
    before = set(folder.parent.iterdir())
    with CheckpointManager(folder) as manager:
        config = {"model": {"backbone": label}, "data": {"name": label}}
        path = toy.save(manager, 1, config=config)["path"]
        assert path.parent == folder and len(path.name) < 200 and path.name.isascii()
        assert [info.path for info in manager.filter_checkpoints(backbone=label)] == ([path] if label else [])
    assert set(folder.parent.iterdir()) - before == {folder}


def test_a_planted_symlink_is_replaced_not_followed(folder: Path, toy: Toy) -> None:
    """Fault 13."""
    victim = folder.parent / "victim"
    victim.write_text("untouched")
    folder.mkdir()
    (folder / "training_history.yaml").symlink_to(victim)
    with CheckpointManager(folder) as manager:
        toy.save(manager, 1)
    assert victim.read_text() == "untouched"


def test_a_failed_background_save_raises_once_at_the_next_call_and_the_following_save_works(
    manager: CheckpointManager, toy: Toy, folder: Path
) -> None:
    """B29, C6: nothing is swallowed. The folder becomes a file in mid-run, then is put right."""
    toy.save(manager, 1)
    manager.wait()
    folder.rename(folder.with_name("aside"))
    folder.write_text("a file")
    toy.save(manager, 2)
    with pytest.raises(CheckpointWriteFailed) as caught:
        manager.find_latest_checkpoint()
    assert caught.value.code == "checkpoint_not_a_folder"
    folder.unlink()
    folder.with_name("aside").rename(folder)
    assert toy.save(manager, 3)["sequence"] == 2
    assert manager.load_checkpoint(which="latest")["epoch"] == 3


def test_wait_close_and_the_result_raise_the_error_of_the_save(folder: Path, toy: Toy) -> None:
    """C6."""
    for see in (lambda m, r: m.wait(), lambda m, r: m.close(), lambda m, r: r["path"]):
        manager = CheckpointManager(folder)
        folder.rmdir() if not (folder / ".lock").exists() else ((folder / ".lock").unlink(), folder.rmdir())
        folder.write_text("a file")
        result = toy.save(manager, 1)
        with pytest.raises(CheckpointWriteFailed):
            see(manager, result)
        folder.unlink()
        manager.wait()


def test_a_folder_removed_in_mid_run_is_made_again(
    manager: CheckpointManager, toy: Toy, folder: Path
) -> None:
    """Fault 4: the training's latest state is worth more than an explanation."""
    import shutil

    toy.save(manager, 1)
    manager.wait()
    shutil.rmtree(folder)
    toy.save(manager, 2)
    assert manager.load_checkpoint()["epoch"] == 2


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_lists_and_loads_but_saving_says_what_to_do(folder: Path, toy: Toy) -> None:
    """B24."""
    with CheckpointManager(folder) as manager:
        toy.save(manager, 1)
    folder.chmod(0o500)
    try:
        manager = CheckpointManager(folder)
        assert manager.load_checkpoint()["epoch"] == 1
        toy.save(manager, 2)
        with pytest.raises(CheckpointWriteFailed) as caught:
            manager.wait()
        assert caught.value.code == "checkpoint_no_permission"
    finally:
        folder.chmod(0o700)


def test_the_log_has_size_duration_path_and_hash(
    manager: CheckpointManager, toy: Toy, caplog: pytest.LogCaptureFixture
) -> None:
    """B30."""
    result = toy.save(manager, 1)
    manager.wait()
    line = next(
        record.getMessage() for record in caplog.records if str(result["path"]) in record.getMessage()
    )
    assert " MB" in line and " ms" in line and result["sha256"][:12] in line


def test_the_crash_of_a_save_leaves_litter_only_until_the_next_start(
    manager: CheckpointManager, toy: Toy, folder: Path, reopened: Callable[[], CheckpointManager]
) -> None:
    """B29: only our own leftovers are removed."""
    path = toy.save(manager, 1)["path"]
    (folder / f".{path.name}.0123456789abcdef.tmp").write_bytes(b"half")
    (folder / ".notes.tmp").write_text("of the user")
    (folder / "notes.txt").write_text("of the user")
    reopened()
    names = {item.name for item in folder.iterdir()}
    assert not any(name.endswith("cdef.tmp") for name in names)
    assert {".notes.tmp", "notes.txt", path.name} <= names


def test_a_save_that_stopped_between_its_two_renames_is_completed(
    manager: CheckpointManager, toy: Toy, folder: Path, reopened: Callable[[], CheckpointManager]
) -> None:
    path = toy.save(manager, 1)["path"]
    sidecar = path.with_suffix(".json")
    sidecar.rename(folder / f".{sidecar.name}.0123456789abcdef.tmp")
    assert reopened().load_checkpoint()["epoch"] == 1


def test_wrapped_models_are_saved_and_loaded_under_their_own_names(
    manager: CheckpointManager, toy: Toy
) -> None:
    """DDP-like wrappers, torch.compile and averaged models, in every combination."""
    wrap: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
        "plain": lambda m: m,
        "parallel": torch.nn.DataParallel,
        "compiled": lambda m: torch.compile(m, backend="eager"),  # type: ignore[return-value]
        "averaged": torch.optim.swa_utils.AveragedModel,
        "both": lambda m: torch.nn.DataParallel(torch.compile(m, backend="eager")),  # type: ignore[arg-type]
    }
    for epoch, name in enumerate(wrap):
        manager.save_checkpoint(wrap[name](toy.model), epoch=epoch, metrics={"loss": 1.0})
        assert same(manager.load_checkpoint(which=epoch)["model_state_dict"], toy.model.state_dict()), name
        fresh = Toy(steps=0)
        target = wrap[name](fresh.model)
        manager.load_checkpoint(which=epoch, model=target)
        inner = target.module if name == "averaged" else fresh.model  # an averaged model holds a copy
        assert same(inner.state_dict(), toy.model.state_dict()), name


def test_a_ready_made_state_can_be_saved_as_several_kinds(manager: CheckpointManager, toy: Toy) -> None:
    """Known from the earlier API."""
    state = {"epoch": 4, "model_state_dict": toy.model.state_dict(), "metrics": {"loss": 0.5}}
    paths = manager.save_multiple_checkpoints(state, CONFIG, ["best", "latest", "epoch"])
    assert [manager.load_checkpoint(path)["epoch"] for path in paths.values()] == [4, 4, 4]
    assert manager.get_checkpoint_path("best") == paths["best"]
    assert manager.get_checkpoint_path("latest") == manager.get_checkpoint_path(4) == paths["epoch"]


def test_order_is_by_sequence_whatever_the_clock_says(
    manager: CheckpointManager, toy: Toy, reopened: Callable[[], CheckpointManager]
) -> None:
    """Fault 11: equal and backward modification times."""
    paths = [toy.save(manager, epoch, is_best=True)["path"] for epoch in (1, 2, 3)]
    for age, path in enumerate(paths):
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    assert reopened().find_latest_checkpoint() == reopened().find_best_checkpoint() == paths[2]


def test_sixteen_threads_saving_at_once_lose_nothing(manager: CheckpointManager, toy: Toy) -> None:
    """B28."""
    threads = [threading.Thread(target=toy.save, args=(manager, epoch)) for epoch in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(info.epoch or 0 for info in manager.list_checkpoints()) == list(range(16))
    assert len({info.sequence for info in manager.list_checkpoints()}) == 16
    assert len(manager.get_training_history()["runs"]) == 16


def test_logging_never_needs_a_logger(folder: Path, toy: Toy) -> None:
    """B6: logger is optional, the folder is made."""
    manager = CheckpointManager(output_dir=folder)
    assert folder.is_dir() and isinstance(manager.logger, logging.Logger)
    with pytest.raises(CheckpointError):
        manager.load_checkpoint()
