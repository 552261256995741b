"""`smartcash checkpoint …`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoint_toys import Toy, flip

from smartcash.cli import main
from smartcash.cli.checkpoint import command
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.run_history import RunHistory
from smartcash.services.run_store import RunFolder
from smartcash.utils.i18n import set_language


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    set_language("en")
    yield
    set_language(None)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["checkpoint", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize("name", sorted(command.commands))
def test_every_command_has_help_with_an_example_and_a_language(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0 and f"smartcash checkpoint {name} " in out.split("Example:")[1] and "--lang" in out


def test_the_commands_are_those_of_the_documentation() -> None:
    named = {"list", "show", "validate", "best", "cleanup", "copy", "export-history", "doctor", "import"}
    assert set(command.commands) == named


def test_a_folder_is_listed_searched_checked_cleaned_copied_and_exported(
    manager: CheckpointManager, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [toy.save(manager, epoch, 1 / epoch, is_best=epoch == 2)["path"] for epoch in (1, 2, 3)]
    folder = manager.output_dir
    listed = json.loads(run(capsys, "list", folder, "--json")[1])
    assert [(row["epoch"], row["kind"]) for row in listed] == [(3, "latest"), (2, "best"), (1, "latest")]
    assert (
        json.loads(run(capsys, "list", folder, "--json", "--kind", "best", "--dataset", "roboflow")[1])[0][
            "epoch"
        ]
        == 2
    )
    assert "loss 0.5" in run(capsys, "list", folder)[1]
    assert run(capsys, "best", folder)[:2] == (0, f"{paths[1]}\n")
    assert run(capsys, "best", folder, "--which", "latest")[1] == f"{paths[2]}\n"
    assert run(capsys, "best", folder, "--which", "1")[1] == f"{paths[0]}\n"
    code, _, err = run(capsys, "best", folder, "--which", "9")
    assert code == 1 and "epoch 9" in err
    assert run(capsys, "best", folder, "--which", "worst")[0] == 2
    assert json.loads(run(capsys, "show", paths[0], "--json")[1])["epoch"] == 1
    assert "epoch: 1\n" in run(capsys, "show", paths[0])[1]
    assert run(capsys, "copy", folder, tmp_path / "d")[1] == f"📤 1 checkpoint copied to {tmp_path / 'd'}\n"
    assert json.loads(run(capsys, "copy", folder, tmp_path / "d", "--all", "--json")[1]) == [
        str(tmp_path / "d" / path.name) for path in (paths[0], paths[2])
    ]
    assert run(capsys, "export-history", folder, tmp_path / "h.json")[0] == 0
    assert len(json.loads((tmp_path / "h.json").read_text())["runs"]) == 3
    assert run(capsys, "cleanup", folder, "--max", 1)[1] == "🧹 1 old checkpoint deleted\n"
    assert json.loads(run(capsys, "cleanup", folder, "--max", 1, "--json")[1]) == []


def test_damage_gives_exit_code_1_and_its_cause(
    manager: CheckpointManager, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (toy.save(manager, epoch)["path"] for epoch in (1, 2))
    flip(bad, 9000)
    code, out, _ = run(capsys, "validate", good, bad)
    assert code == 1 and f"⚠️ {good}: The file is whole" in out  # saved here, but by no SmartCash training
    assert f"❌ {bad}" in out and "checksum" in out
    assert [row["valid"] for row in json.loads(run(capsys, "validate", good, bad, "--json")[1])] == [
        True,
        False,
    ]
    code, out, _ = run(capsys, "doctor", manager.output_dir)
    assert code == 1 and "quarantine" in out
    code, out, _ = run(capsys, "doctor", manager.output_dir)
    assert code == 0 and "healthy" in out
    assert json.loads(run(capsys, "doctor", manager.output_dir, "--json")[1])["good"] == [good.name]


def test_only_what_predicts_is_marked_as_good(
    tmp_path: Path, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    """B18: a check mark of `validate` and `import` means that predict and resume take the file."""
    kept = Path(__file__).parents[1] / "project" / "format_1" / "models" / "v1" / "model.pth"
    version = Path(shutil.copy(kept, tmp_path))
    foreign = tmp_path / "resnet18.pth"
    torch.save(toy.model.state_dict(), foreign)
    code, out, _ = run(capsys, "validate", version, foreign)
    whole, other = out.splitlines()
    assert code == 1 and whole.startswith(f"✅ {version}: The checkpoint is valid and complete")
    assert other.startswith(f"⚠️ {foreign} is whole and safe to load") and "another program" in other
    rows = json.loads(run(capsys, "validate", version, foreign, "--json")[1])
    assert [(row["valid"], row["smartcash"]) for row in rows] == [(True, True), (False, False)]
    into = tmp_path / "weights"
    code, out, _ = run(capsys, "import", foreign, "--into", into, "--i-trust-this-file")
    imported = into / "smartcash_imported_resnet18.pth"
    assert code == 0 and f"⚠️ {imported}: The file is whole and safe to load" in out and "✅" not in out


def test_the_doctor_takes_a_runs_folder_and_praises_none_without_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """B33, A33: what was not looked at is not called healthy."""
    home = shutil.copytree(Path(__file__).parents[1] / "project" / "format_1", tmp_path / "home")
    (run_folder,) = (home / "detect").iterdir()
    code, out, _ = run(capsys, "doctor", run_folder)
    assert code == 0 and "2 good" in out and "healthy" in out
    code, out, _ = run(capsys, "doctor", home)
    assert code == 0 and "no checkpoint in this folder itself" in out and "healthy" not in out


def test_looking_into_a_folder_that_does_not_exist_makes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "list", tmp_path / "nothing", "--lang", "id")
    assert code == 1 and "Tidak ada folder maupun run" in err and not (tmp_path / "nothing").exists()
    code, _, err = run(capsys, "show", tmp_path / "nothing/x.pth", "--lang", "id")
    assert code == 1 and "tidak ada" in err and not (tmp_path / "nothing").exists()


def test_a_run_is_named_as_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B33: by its id, the beginning of it, its name or latest; several of one name are listed, and nothing is done."""
    home = shutil.copytree(Path(__file__).parents[1] / "project" / "format_1", tmp_path / "home")
    (first,) = (home / "detect").iterdir()
    monkeypatch.setenv("SMARTCASH_HOME", str(home))
    RunFolder(first).write_config(RunFolder(first).config().replaced(name="cash desk"))
    second = shutil.copytree(first, home / "detect" / "20990101-000000-abcd")
    RunFolder(second).write_config(RunFolder(first).config().replaced(name="counter"))
    for name, meant in (
        ("cash desk", first),
        (first.name[:17], first),
        ("counter", second),
        ("latest", second),
    ):
        code, out, _ = run(capsys, "best", name)
        assert code == 0 and Path(out.strip()).parent == meant / "weights"
    listed = [
        json.loads(run(capsys, "list", name, "--json")[1]) for name in ("counter", second, second / "weights")
    ]
    assert listed[0] and listed[0] == listed[1] == listed[2]
    assert run(capsys, "doctor", "counter", "--home", home)[0] == 0
    RunFolder(second).write_config(RunFolder(first).config())
    code, out, err = run(capsys, "cleanup", "cash desk", "--max", 0)
    assert code == 2 and not out and first.name in err and second.name in err
    copy = shutil.copytree(first, tmp_path / first.name)
    monkeypatch.chdir(tmp_path)
    assert Path(run(capsys, "best", first.name)[1].strip()).absolute().parent == copy / "weights", (
        "a folder here"
    )


@pytest.mark.parametrize("named", ["", "weights", "id"])
def test_the_checkpoints_of_a_locked_run_are_not_cleaned_up_however_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """B13."""
    home = shutil.copytree(Path(__file__).parents[1] / "project" / "format_1", tmp_path / "home")
    (folder,) = (home / "detect").iterdir()
    monkeypatch.setenv("SMARTCASH_HOME", str(home))
    RunHistory(home, "cli").lock(folder.name)
    before = sorted((folder / "weights").iterdir())
    code, _, err = run(capsys, "cleanup", folder.name if named == "id" else folder / named, "--max", 0)
    assert code == 1 and "locked" in err and sorted((folder / "weights").iterdir()) == before


def test_importing_asks_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(capsys, "import", tmp_path / "x.pth", "--into", tmp_path)[0] == 3


def test_importing_does_nothing_where_nobody_can_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A12: and says how a script confirms it."""
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, out, err = run(capsys, "import", tmp_path / "x.pth", "--into", tmp_path)
    assert code == 3 and "--i-trust-this-file" in err and "Aborted" not in out + err
