"""`smartcash data check` and `smartcash data split`. Rows D9, D10."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from smartcash.cli.data import command
from smartcash.domain.errors import DataInvalid
from smartcash.utils.i18n import set_language

pytestmark = pytest.mark.usefixtures("english")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_check_shows_splits_classes_and_findings_grouped_by_kind(yolo: Path) -> None:
    for index in range(4):
        (yolo / "labels" / "train" / f"train_{index}.txt").write_text(
            "0 0.5 0.5 0.5 0.5\n9 0.5 0.5 0.1 0.1\n"
        )
    output = run("check", yolo)
    assert "yolo, detect" in output
    assert ["boxes", "4", "2", "2"] in [line.split() for line in output.splitlines()]
    heading = "✗ Boxes with a class number that does not exist: 4  (error, left out; data_class_range)"
    assert heading in output.splitlines()
    assert "labels/train/train_0.txt:2: Class 9 does not exist" in output
    assert "and 1 more" in output
    assert "! Class without an example to learn from  (warning, kept; data_class_starved)" in output
    assert "\n    Class 2000 has no example in train" in output  # of the whole set: no file stands before it


def test_check_speaks_indonesian(yolo: Path) -> None:
    (yolo / "labels" / "train" / "train_0.txt").write_text("")
    set_language("id")
    output = run("check", yolo)
    assert "Berkas label kosong  (catatan, dipakai sebagai latar; data_label_empty)" in output


def test_a_zip_is_called_by_the_name_that_was_given(
    yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTCASH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.make_archive("my notes", "zip", yolo)
    output = run("check", "my notes.zip", "--html", "page.html", "--fix", "fixed")
    assert output.startswith("my notes.zip: yolo, detect\n")
    assert "Data health: my notes.zip</h1>" in (page := Path("page.html").read_text())
    assert json.loads(run("check", "my notes.zip", "--json"))["path"] == "my notes.zip"
    fixes = Path("fixed/fixes.json").read_text()
    assert json.loads(fixes)["source"] == str(tmp_path / "my notes.zip")
    assert "cache" not in output + page + fixes


def test_check_as_json_holds_everything(yolo: Path) -> None:
    facts = json.loads(run("check", yolo, "--json"))
    assert facts["classes"] == ["1000", "2000"] and facts["format"] == "yolo"
    assert facts["splits"]["train"] == {
        "images": 4,
        "groups": 4,
        "background": 0,
        "labels": {"1000": 2, "2000": 2},
    }
    assert facts["counts"] == {"data_class_few": 2} and len(facts["content_hash"]) == 64
    assert set(facts["findings"][0]) == {
        "code", "severity", "file", "line", "value", "done", "also", "box", "message"
    }  # fmt: skip


def test_strict_makes_findings_fatal(yolo: Path) -> None:
    run("check", yolo, "--strict")
    (yolo / "labels" / "train" / "train_0.txt").write_text("0 0.5 0.5 0 0\n")
    with pytest.raises(DataInvalid) as caught:
        run("check", yolo, "--strict")
    assert caught.value.exit_code == 2 and caught.value.problems[0].code == "data_box_zero"


def test_split_writes_a_set_that_checks_clean(yolo: Path, tmp_path: Path) -> None:
    output = run("split", yolo, "--out", tmp_path / "new", "--seed", "4")
    assert "with seed 4" in output
    facts = json.loads(run("check", tmp_path / "new", "--json"))
    assert sum(split["images"] for split in facts["splits"].values()) == 8
    assert facts["split_seed"] is None


def test_split_takes_its_shares_in_percent(yolo: Path, tmp_path: Path) -> None:
    run("split", yolo, "--out", tmp_path / "new", "--valid", "25", "--test", "0")
    facts = json.loads(run("check", tmp_path / "new", "--json"))
    assert {name: split["images"] for name, split in facts["splits"].items()} == {"train": 6, "valid": 2}
    for option in ("--valid", "--test"):
        assert CliRunner().invoke(command, ["split", str(yolo), "--out", "x", option, "46"]).exit_code == 2
