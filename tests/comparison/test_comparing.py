"""Comparisons and report cards of real checkpoints: in Python, on the command line, for a page (A16, D6, D14)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smartcash
from smartcash.backend.card_page import card_page
from smartcash.backend.comparison_page import comparison_page
from smartcash.cli import main
from smartcash.domain.errors import ComparisonRefused, RunNotFound, VersionNotFound
from smartcash.handlers.comparison import Comparisons, contenders, described
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.run_store import RunFolder
from smartcash.services.thresholds import thresholds_of
from smartcash.utils.i18n import LANGUAGES, set_language
from smartcash.worker import evaluate_model

Trained = Callable[..., RunFolder]
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def two(trained: Trained, home: Path) -> tuple[RunFolder, RunFolder]:
    """Two runs, of which the first is version v1."""
    first, second = trained(1), trained(2, seed=5, optimizer={"lr": 0.003})
    ModelVersions(home).register_run(first)
    return first, second


def test_only_what_differs_is_shown_of_the_configuration(
    two: tuple[RunFolder, RunFolder], home: Path
) -> None:
    """A16, D6."""
    facts = described(contenders(["v1", two[1].id], home))
    assert {each["field"]: each["values"] for each in facts["config"]} == {
        "name": ("run 1", "run 2"), "seed": (0, 5), "optimizer.lr": ("auto", 0.003),
    }  # fmt: skip
    assert [each["field"] for each in facts["config"] if each["why"]] == ["seed", "optimizer.lr"]
    assert [(model["name"], model["version"], model["run"]) for model in facts["models"]] == [
        ("v1", "v1", two[0].id),
        (two[1].id, "", two[1].id),
    ]


def test_curves_lie_over_epochs_steps_and_time(two: tuple[RunFolder, RunFolder], home: Path) -> None:
    """A16: a step is a batch of 8, the last one of an epoch is filled up."""
    images = two[0].description()["data"]["images"]["train"]
    curve = described(contenders(["v1", two[1].id], home))["curves"]["mAP50_95"]
    assert curve[1].pop("value") == pytest.approx([0.07, 0.12])
    assert curve[1] == {
        "epoch": [1, 2],
        "step": [-(-images // 8), 2 * -(-images // 8)],
        "elapsed_s": [60, 120],
    }


def test_a_difference_of_the_data_is_shown_by_counts_and_hashes(trained: Trained, home: Path) -> None:
    """A16, D6."""
    first, second = trained(1), trained(2)
    other = {**second.description()["data"], "content_hash": "c0ffee", "images": {"train": 7, "valid": 2}}
    second.describe({"data": other})
    data = described(contenders([first.id, second.id], home))["data"]
    counts = first.description()["data"]["images"]
    assert not data["same"]
    assert {each["what"]: each["values"] for each in data["differences"]} == {
        "content_hash": [first.description()["data"]["content_hash"], "c0ffee"],
        "images.train": [counts["train"], 7], "images.valid": [counts["valid"], 2], "images.test": [counts["test"], None],
    }  # fmt: skip


def test_the_figures_of_a_comparison_are_those_of_an_evaluation(
    two: tuple[RunFolder, RunFolder], notes: Path
) -> None:
    """D6: the same pictures, the same threshold, and the paired difference from the first model."""
    judged = smartcash.compare("v1", two[1].id)["judged"]
    assert (judged["split"], judged["chosen_on"], judged["seen_in_training"]) == ("test", False, [0, 0])
    for column, name in enumerate(("v1", two[1].id)):
        expected = evaluate_model(name, str(notes), "test")
        assert judged["images"] == expected["images"]
        for row in judged["metrics"]:
            value = row["values"][column]
            assert (value and value["value"]) == (
                None if expected[row["name"]] is None else pytest.approx(expected[row["name"]], abs=1e-6)
            ), row["name"]
    for row in judged["metrics"]:
        if row["deltas"][1] is not None:
            first, second = (each["value"] for each in row["values"])
            assert row["deltas"][1]["value"] == pytest.approx(second - first)
            assert row["deltas"][1]["low"] <= row["deltas"][1]["high"]


def test_pictures_are_looked_at_once_and_again_when_what_was_kept_is_damaged(
    two: tuple[RunFolder, RunFolder],
) -> None:
    """D6: answers are kept per checkpoint, data and split, in the run's report folder."""
    first = smartcash.compare("v1", two[1].id)
    kept = [next((run.path / "report" / "seen").glob("test-*.safetensors")) for run in two]
    written = [path.stat().st_mtime_ns for path in kept]
    assert smartcash.compare("v1", two[1].id) == first
    assert [path.stat().st_mtime_ns for path in kept] == written
    kept[0].write_bytes(kept[0].read_bytes()[:-3])
    assert smartcash.compare("v1", two[1].id) == first
    assert kept[0].stat().st_mtime_ns > written[0]
    assert kept[1].stat().st_mtime_ns == written[1]


def test_a_version_is_compared_when_its_run_is_gone(two: tuple[RunFolder, RunFolder], home: Path) -> None:
    """D6: its own file and record are enough; only the curves went with the run."""
    ModelVersions(home).register_run(two[1])
    two[0].path.rename(home / "elsewhere")
    facts = smartcash.compare("v1", "v2")
    assert facts["curves"]["mAP50_95"][0] is None
    assert facts["judged"]["state"] == "ready"
    assert (home / "models" / "v1" / "report" / "seen").is_dir()


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["v1"], "compare_count"),
        (["v1"] * 9, "compare_count"),
        (["v1", "1", "v1"], "compare_twice"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    two: tuple[RunFolder, RunFolder], home: Path, names: list[str], code: str
) -> None:
    """D6."""
    given = [two[1].id if name == "1" else name for name in names]
    with pytest.raises(ComparisonRefused) as refused:
        smartcash.compare(*given)
    assert refused.value.code == code
    with pytest.raises(VersionNotFound):
        smartcash.compare("v1", "v9")
    with pytest.raises(RunNotFound):
        smartcash.compare("v1", "nothing")


def test_models_of_different_tasks_or_data_are_refused(trained: Trained, home: Path, notes: Path) -> None:
    """D6: other data is no hindrance once one says which pictures to judge on."""
    first, second = trained(1), trained(2)
    facts = second.description()["data"]
    second.describe({"data": {**facts, "task": "classify"}})
    with pytest.raises(ComparisonRefused) as refused:
        smartcash.compare(first.id, second.id)
    assert refused.value.code == "compare_tasks"
    second.describe({"data": {**facts, "content_hash": "c0ffee"}})
    with pytest.raises(ComparisonRefused) as refused:
        smartcash.compare(first.id, second.id)
    assert refused.value.code == "compare_data_differs"
    judged = smartcash.compare(first.id, second.id, data=str(notes))["judged"]
    assert judged["seen_in_training"] == [0, None]  # what the second has learnt from is not known
    for run in (first, second):
        run.describe({"data": {**facts, "path": str(home / "gone")}})
    with pytest.raises(ComparisonRefused) as refused:
        smartcash.compare(first.id, second.id)
    assert refused.value.code == "compare_data_missing"


def test_pictures_that_a_model_was_trained_with_are_told(two: tuple[RunFolder, RunFolder]) -> None:
    """D6: judged on the training pictures, all of them."""
    judged = smartcash.compare("v1", two[1].id, split="train")["judged"]
    assert judged["seen_in_training"] == [judged["images"]] * 2
    assert smartcash.compare("v1", two[1].id, split="valid")["judged"]["chosen_on"]


def alone(page: bytes) -> str:
    """A page that asks nobody for anything and runs nothing."""
    text = page.decode()
    assert "<script" not in text.replace("&lt;script", "")
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|url\(|@import", text)
    assert "default-src 'none'" in text
    return text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_comparison_is_one_page_without_scripts_in_both_languages(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], language: str
) -> None:
    """A16, D6, A33: a run's name is shown as it is, whatever it holds."""
    runs = [trained(1, name=HOSTILE), trained(2)]
    out, html = tmp_path / "out", tmp_path / "page.html"
    main_ends(["compare", runs[0].id, runs[1].id, "--html", str(html), "--out", str(out), "--lang", language])
    set_language(None)
    printed = capsys.readouterr().out
    page = alone(html.read_bytes())
    assert f'<html lang="{language}">' in page
    assert "&lt;script&gt;alert(1)" in page
    assert ("belum tentu" if language == "id" else "undecided") in page + printed
    facts = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    shown = [each["file"] for each in facts["judged"]["pictures"]]
    assert shown
    assert page.count("data:image/jpeg") == 2 * len(shown)
    assert sorted(path.name for path in out.glob("*.jpg")) == sorted(shown)


def main_ends(arguments: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


def test_the_command_prints_json(
    two: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    """A16: and a refusal has its exit code and no traceback."""
    main_ends(["compare", "v1", two[1].id, "--json"])
    assert json.loads(capsys.readouterr().out)["judged"]["state"] == "ready"
    main_ends(["compare", "v1", "--lang", "en"], 2)
    set_language(None)
    assert "Two to 8 runs or versions" in capsys.readouterr().err


# ---------------------------------------------------------------- for a page


def waited(comparisons: Comparisons, names: list[str], **how: Any) -> dict[str, Any]:
    """The answer once nobody works at it any more."""
    for _ in range(600):
        facts = comparisons.compare(names, **how)
        if facts["judged"]["state"] != "working":
            return facts
        time.sleep(0.1)
    raise AssertionError("it takes too long")


def test_a_page_gets_the_files_at_once_and_the_judgement_from_a_process(
    two: tuple[RunFolder, RunFolder], home: Path
) -> None:
    """D6: the answer of a later call, and of another server, is the kept one; the pictures are served by key and name."""
    comparisons = Comparisons(home)
    first = comparisons.compare(["v1", two[1].id])
    assert first["judged"] == {"state": "working", "error": "", "reason": ""}
    assert first["config"]
    done = waited(comparisons, ["v1", two[1].id])
    judged = done["judged"]
    assert judged["state"] == "ready", judged
    assert comparisons.compare(["v1", two[1].id])["judged"] == judged
    assert Comparisons(home).compare(["v1", two[1].id])["judged"] == judged
    file = judged["pictures"][0]["file"]
    assert comparisons.picture(judged["key"], file).read_bytes().startswith(b"\xff\xd8")
    for key, name in (
        (judged["key"], "../../run.json"),
        ("..", file),
        (judged["key"], "compare.json"),
        ("0" * 24, file),
    ):
        with pytest.raises(RunNotFound):
            comparisons.picture(key, name)
    comparisons.close()


def test_a_judgement_that_fails_says_why_in_the_language_asked_for(
    two: tuple[RunFolder, RunFolder], home: Path, tmp_path: Path
) -> None:
    """D6, A33: and the next call tries again."""
    comparisons = Comparisons(home)
    empty = tmp_path / "empty"
    empty.mkdir()
    failed = waited(comparisons, ["v1", two[1].id], data=str(empty), language="id")["judged"]
    assert failed["state"] == "failed"
    assert "Traceback" not in failed["error"]
    assert str(empty) in failed["error"]
    assert comparisons.compare(["v1", two[1].id], data=str(empty))["judged"]["state"] == "working"
    comparisons.close()


def test_a_page_is_told_why_nothing_can_be_judged(trained: Trained, home: Path) -> None:
    """D6."""
    first, second = trained(1), trained(2)
    second.describe({"data": {**second.description()["data"], "content_hash": "c0ffee"}})
    facts = Comparisons(home).compare([first.id, second.id])
    assert facts["judged"] == {"state": "none", "error": "", "reason": "data_differs"}


def test_the_asking_process_loads_no_torch(two: tuple[RunFolder, RunFolder], home: Path) -> None:
    """A31: a web server stays small."""
    code = (
        "import sys; from pathlib import Path; from smartcash.handlers.comparison import Comparisons\n"
        f"c = Comparisons(Path({str(home)!r})); c.compare(['v1', {two[1].id!r}]); c.close()\n"
        "assert not {'torch', 'cv2', 'smartcash.backend'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---------------------------------------------------------------- report cards


@pytest.mark.slow
def test_a_report_card_holds_everything_and_its_limits_are_kept_beside_run_and_version(
    trained: Trained, home: Path, notes: Path, tmp_path: Path
) -> None:
    """D14: figures as an evaluation gives them, 24 hardships, calibration, curves, mistakes, limits, pace."""
    run = trained(1, name=HOSTILE)
    version = ModelVersions(home).register_run(run)
    heard: list[int] = []
    facts = smartcash.report("v1", out=tmp_path, listen=lambda what, done, total: heard.append(total - done))
    assert heard == [*range(23, -1, -1)]
    expected = evaluate_model("v1", str(notes), "test")
    for row in facts["metrics"]:
        value = expected[row["name"]]
        assert (row["value"] and row["value"]["value"]) == (
            None if value is None else pytest.approx(value, abs=1e-6)
        )
    assert facts["confusion"]["counts"] == [list(row) for row in expected["confusion"]]
    hardships = facts["robustness"]["hardships"]
    assert len(hardships) == 8
    assert all([level["level"] for level in each["levels"]] == [1, 2, 3] for each in hardships)
    assert facts["pace"]["p50_ms"] > 0
    assert facts["mistakes"]["worst"]
    for model in (run.weights / version.checkpoint, home / "models" / "v1" / "model.pth"):
        limits = thresholds_of(model, version.sha256)
        assert limits is not None
        assert limits.to_dict().items() <= facts["limits"].items()
        assert facts["limits"]["kept"]
        assert (limits.split, limits.images) == ("valid", run.description()["data"]["images"]["valid"])
    assert ModelVersions(home).verify() == []
    for language in LANGUAGES:
        set_language(language)
        page = alone(card_page(facts, lambda name: (tmp_path / name).read_bytes()))
        set_language(None)
        assert f'<html lang="{language}">' in page
        assert "&lt;script&gt;alert(1)" in page
        assert page.count("<svg") >= 8 + len(facts["mistakes"]["worst"])


@pytest.mark.slow
def test_the_report_command_writes_a_page_and_a_classifier_has_a_card_too(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D14: trained for one epoch, with the figures of a classifier, without boxes; and compared with its like."""
    from smartcash.backend.samples import write_samples
    from smartcash.domain.config import TrainConfig
    from smartcash.worker import train

    data = tmp_path / "classes"
    write_samples(data, images=48, task="classify", size_px=96)
    for seed in (0, 1):
        config = TrainConfig.parse(
            {
                "task": "classify", "seed": seed, "data": {"path": str(data), "image_size": 64, "batch_size": 8},
                "model": {"backbone": "mobilenetv4_conv_small", "pretrained": False}, "training": {"epochs": 1},
            }
        )  # fmt: skip
        train(config, home)
    html = tmp_path / "card.html"
    main_ends(["report", "v1", "--html", str(html), "--lang", "en"])
    set_language(None)
    printed = capsys.readouterr().out
    assert "Under hardship" in printed
    assert "Accuracy" in alone(html.read_bytes())
    facts = smartcash.compare("v1", "v2", out=tmp_path / "out")
    assert next(row["name"] for row in facts["judged"]["metrics"]) == "accuracy"
    page = comparison_page(facts, lambda name: (tmp_path / "out" / name).read_bytes())
    assert "data:image/jpeg" in alone(page)
