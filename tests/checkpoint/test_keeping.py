"""Finding, filtering, cleaning up, history and copies."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_toys import Toy, flip
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcash.domain.errors import CheckpointCorrupt, CheckpointWriteFailed
from smartcash.handlers.checkpoint import CheckpointInfo, CheckpointManager
from smartcash.handlers.checkpoint.checkpoint_history import read_history
from smartcash.handlers.checkpoint.checkpoint_utils import checkpoint_name, sidecar_bytes

SHA_OF_A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def plant(folder: Path, kinds: list[str], backbone: str = "b4", dataset: str = "roboflow") -> list[Path]:
    """Checkpoints of one byte with real sidecars: for questions that never unpickle."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, kind in enumerate(kinds, start=len(list(folder.glob("*.pth"))) + 1):
        when = "2026-01-01T00:00:00.000+00:00"
        info = CheckpointInfo(
            path=folder / checkpoint_name(backbone, dataset, kind, number, when, number), sequence=number, kind=kind,
            epoch=number, metrics={"loss": 1 / number}, backbone=backbone, dataset=dataset, timestamp=when,
            size=1, sha256=SHA_OF_A,
        )  # fmt: skip
        info.path.write_bytes(b"a")
        info.sidecar.write_bytes(sidecar_bytes(info))
        paths.append(info.path)
    return paths


def test_an_empty_folder_answers_none_and_nothing(manager: CheckpointManager) -> None:
    """B11."""
    assert manager.find_best_checkpoint() is None and manager.find_latest_checkpoint() is None
    assert manager.find_checkpoint_by_epoch(10) is None
    assert manager.list_checkpoints() == [] and manager.filter_checkpoints(backbone="x") == []
    assert manager.cleanup_checkpoints() == [] and manager.get_training_history()["total_runs"] == 0


def test_filters_are_joined_by_and_and_compare_whole_labels(manager: CheckpointManager, folder: Path) -> None:
    """B12: the eight combinations; never a substring of a file name."""
    for backbone in ("efficientnet_b4", "efficientnet_b40"):
        for dataset in ("roboflow", "roboflow_2"):
            plant(folder, ["best", "latest"], backbone, dataset)
    ask = manager.filter_checkpoints
    assert [info.epoch for info in ask(backbone="EfficientNet_B4", dataset="RoboFlow", min_epoch=2)] == [2]
    assert [info.epoch for info in ask(backbone="efficientnet_b4", dataset="roboflow")] == [2, 1]
    assert [info.epoch for info in ask(backbone="efficientnet_b4", min_epoch=2)] == [4, 3, 2]
    assert [info.epoch for info in ask(dataset="roboflow", min_epoch=2)] == [6, 5, 2]
    assert len(ask(backbone="efficientnet_b4")) == len(ask(dataset="roboflow")) == 4
    assert [info.epoch for info in ask(min_epoch=7)] == [8, 7] and len(ask()) == 8
    assert [info.epoch for info in ask(max_epoch=4, kind="best")] == [3, 1]
    assert [info.epoch for info in ask(max_metrics={"loss": 0.2})] == [8, 7, 6, 5]
    assert [info.epoch for info in ask(min_metrics={"loss": 0.5})] == [2, 1] and ask(
        min_metrics={"map": 0}
    ) == []


def test_find_by_epoch_takes_the_newest_of_that_epoch(manager: CheckpointManager, toy: Toy) -> None:
    """B11."""
    toy.save(manager, 10)
    again = toy.save(manager, 10)["path"]
    toy.save(manager, 11)
    assert manager.find_checkpoint_by_epoch(10) == again


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["best", "latest", "epoch"]), max_size=12),
    most=st.integers(0, 4), epochs=st.integers(0, 4), best=st.booleans(), latest=st.booleans(),
    damaged=st.sets(st.integers(0, 11), max_size=6),
)  # fmt: skip
def test_cleanup_keeps_what_it_promises_and_returns_what_is_gone(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str], most: int, epochs: int, best: bool, latest: bool, damaged: set[int],
) -> None:  # fmt: skip
    """B13, C4: limits by kind, every best, the newest, and always one that verifies."""
    folder = tmp_path_factory.mktemp("cleanup")
    paths = plant(folder, kinds)
    for number in damaged & set(range(len(paths))):
        paths[number].write_bytes(b"b")
    good = [path for number, path in enumerate(paths) if number not in damaged]
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.CRITICAL)
    gone = CheckpointManager(folder, quiet).cleanup_checkpoints(most, best, latest, epochs)
    left = [path for path in paths if path.exists()]
    assert set(gone) == set(paths) - set(left)
    assert all(path.with_suffix(".json").exists() for path in left)
    assert not good or set(left) & set(good)
    if best:
        assert {p for p, kind in zip(paths, kinds) if kind == "best"} <= set(left)
    if latest and paths:
        assert paths[-1] in left
    spared = 1 + latest
    for kind, limit in (("latest", most), ("epoch", min(most, epochs)), ("best", most)):
        of_kind = [path for path, k in zip(paths, kinds) if k == kind]
        kept = [path for path in of_kind if path in left]
        assert (
            of_kind[len(of_kind) - min(limit, len(of_kind)) :] == kept[len(kept) - min(limit, len(of_kind)) :]
        )
        assert len(kept) <= limit + spared or (kind == "best" and best)


def test_negative_limits_are_refused(manager: CheckpointManager) -> None:
    with pytest.raises(ValueError, match="negative"):
        manager.cleanup_checkpoints(max_checkpoints=-1)


def test_history_counts_runs_not_saves_and_survives_cleanup(
    manager: CheckpointManager, toy: Toy, reopened: Callable[[], CheckpointManager]
) -> None:
    """B15."""
    for epoch in range(1, 8):
        toy.save(manager, epoch, 1.0)
    manager.wait()  # else the other manager may commit first
    toy.save(reopened(), 8, 1.0)["path"]
    manager.cleanup_checkpoints(max_checkpoints=1)
    history = reopened().get_training_history()
    assert history["total_runs"] == 2 and [row["epoch"] for row in history["runs"]] == list(range(1, 9))
    assert history["runs"][0]["is_best"] and not history["runs"][1]["is_best"]


def test_the_yaml_reads_the_same_by_any_yaml_reader_and_as_json(
    manager: CheckpointManager, toy: Toy, tmp_path: Path
) -> None:
    """B16, B27, C5: 1e-5 stays a number; NaN has a name."""
    from ruamel.yaml import YAML

    toy.save(manager, 1, 1e-5)
    toy.save(manager, 2, float("nan"))
    exported = manager.export_history_to_json(tmp_path / "history.json")
    by_yaml = YAML(typ="safe", pure=True).load(manager.output_dir / "training_history.yaml")
    assert json.loads(exported.read_text()) == by_yaml == manager.get_training_history()
    assert by_yaml["runs"][0]["metrics"] == {"loss": 1e-5} and by_yaml["runs"][1]["metrics"] == {
        "loss": "NaN"
    }
    assert manager.export_history_to_json() == manager.output_dir / "training_history.json"


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    "content",
    [
        BOMB + "runs: *i\n",
        "runs: !!python/object/apply:os.system ['echo']\n",
        "runs: []\nruns: []\n",
        "runs: " + "[" * 1000 + "]" * 1000,
        "runs: [1, 2]\n",
        "- a list\n",
        "\x00\x01",
        "runs: [}",
        "# " + "x" * (5 << 20),
    ],
    ids=["aliases", "python", "duplicate", "deep", "rows", "list", "binary", "syntax", "large"],
)
def test_a_damaged_or_hostile_history_is_set_aside_and_rebuilt(
    manager: CheckpointManager, toy: Toy, reopened: Callable[[], CheckpointManager], content: str
) -> None:
    """Fault 14."""
    toy.save(manager, 1)
    manager.wait()
    path = manager.output_dir / "training_history.yaml"
    path.write_text(content)
    with pytest.raises(CheckpointCorrupt):
        read_history(path)
    again = reopened()
    assert [row["epoch"] for row in again.get_training_history()["runs"]] == [1]
    toy.save(again, 2)["path"]
    assert len(read_history(path)["runs"]) == 2
    assert (manager.output_dir / "quarantine" / path.name).read_text() == content


def test_copies_are_proven_and_made_once(manager: CheckpointManager, toy: Toy, tmp_path: Path) -> None:
    """B14, fault 17: read back, ledger, no file written twice; the copy opens as a folder of its own."""
    drive = tmp_path / "drive"
    for epoch, loss in ((1, 0.5), (2, 0.9), (3, 0.4)):
        toy.save(manager, epoch, loss)
    copied = manager.copy_to_drive(drive)
    assert [path.parent for path in copied] == [drive, drive] and all(
        "_best_" in path.name for path in copied
    )
    stamps = [path.stat().st_mtime_ns for path in copied]
    assert manager.copy_to_drive(drive) == [] and [path.stat().st_mtime_ns for path in copied] == stamps
    (manager.output_dir / "copies.json").write_text("lost")
    assert manager.copy_to_drive(drive) == []
    assert len(manager.copy_to_drive(drive, best_only=False)) == 1
    flip(copied[0], 77)
    (manager.output_dir / "copies.json").unlink()
    assert manager.copy_to_drive(drive) == [copied[0]]
    assert CheckpointManager(drive).load_checkpoint()["epoch"] == 3


def test_a_damaged_original_is_not_copied(
    manager: CheckpointManager, toy: Toy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [toy.save(manager, epoch, 1 / epoch)["path"] for epoch in (1, 2)]
    flip(paths[0], 77)
    assert manager.copy_to_drive(tmp_path / "drive") == [tmp_path / "drive" / paths[1].name]
    assert paths[0].name in caplog.text


def test_a_drive_that_is_not_mounted_is_an_error_and_no_folder_appears(
    manager: CheckpointManager, toy: Toy, tmp_path: Path
) -> None:
    """B14."""
    toy.save(manager, 1)
    with pytest.raises(CheckpointWriteFailed, match="Google Drive"):
        manager.copy_to_drive(tmp_path / "content/drive/MyDrive/SmartCash")
    assert not (tmp_path / "content").exists()


@pytest.mark.slow
def test_a_full_target_is_an_error_and_leaves_no_half_copy(
    manager: CheckpointManager, toy: Toy, tmp_path: Path
) -> None:
    """Fault 17: quota, by a limit on the size of files of a child process."""
    import subprocess
    import sys

    toy.save(manager, 1)
    manager.wait()
    code = (
        "import resource, signal, sys; from smartcash.handlers.checkpoint import CheckpointManager\n"
        "from smartcash.domain.errors import CheckpointWriteFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "try: CheckpointManager(sys.argv[1]).copy_to_drive(sys.argv[2])\n"
        "except CheckpointWriteFailed as error: print(error.code)\n"
    )
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", code, str(manager.output_dir), str(tmp_path / "d")],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "checkpoint_disk_full\n", done.stderr
    assert list((tmp_path / "d").iterdir()) == []


def test_the_table_is_readable_and_says_what_is_best(
    manager: CheckpointManager, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    """B17."""
    manager.display_checkpoints()
    assert str(manager.output_dir) in capsys.readouterr().out.replace("\n", "")
    toy.save(manager, 1, 0.5)
    toy.save(manager, 2, 0.7)
    manager.display_checkpoints()
    shown = capsys.readouterr().out
    assert "loss 0.5" in shown and "loss 0.7" in shown and "smartcash_" in shown
