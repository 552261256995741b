"""Advice with real trainings of toys, in worker processes, confirmed, interrupted and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smartcash.backend.samples import write_samples
from smartcash.cli import main
from smartcash.cli.advise import Budget
from smartcash.domain.errors import AdviceRefused, ConfigInvalid, NotConfirmed
from smartcash.handlers.advice import Advisor
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.run_store import RunStore

BACKBONES = ("mobilenetv4_conv_small", "resnet10t")
TOY = (
    "model.pretrained=false", "data.image_size=64", "data.batch_size=4", "data.workers=0", "runtime.threads=1",
    "training.previews.count=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes") / "notes"
    write_samples(folder, images=20, seed=3, size_px=96)
    return folder


def unmeasured(run: Any) -> dict[str, float]:
    raise AssertionError("nothing is trained here")


def test_nothing_begins_without_the_confirmation_that_belongs_to_it(tmp_path: Path, notes: Path) -> None:
    """A12, A13, D4: all problems at once; a token of this very contest; then one entry in the log, with its facts."""
    home = tmp_path / "runs"
    advisor = Advisor(home, unmeasured)
    refused = advisor.check("", [""], 0.0, {"optimizer": {"lr": -1}})
    assert {problem.field for problem in refused.problems} >= {"backbones", "budget"}
    wrong = advisor.check(str(notes), BACKBONES, 60.0, {"optimizer": {"lr": -1}})
    assert [problem.field for problem in wrong.problems] == ["optimizer.lr"]
    with pytest.raises(ConfigInvalid):
        advisor.begin(wrong)
    review = advisor.check(str(notes), BACKBONES, 60.0)
    with pytest.raises(NotConfirmed):
        advisor.begin(review, advisor.check(str(notes), BACKBONES, 61.0).token)
    assert not home.exists()
    advice = advisor.begin(review, review.token)
    (entry,) = advisor.manager.log.operations()
    assert (entry.operation, entry.confirmed) == ("advise", "token")
    assert {change.field: change.new for change in entry.changes} == {
        "advice.backbones": ", ".join(BACKBONES), "advice.budget_s": 60,
    }  # fmt: skip
    assert advisor.find("latest") == advisor.find(advice.id) == advice
    with pytest.raises(AdviceRefused):
        advisor.find("2020")
    (home / "advice" / advice.id / "advice.json").write_text("[]")
    with pytest.raises(AdviceRefused):
        advisor.find("latest")


@pytest.mark.parametrize(("word", "seconds"), [("30m", 1800), ("2h", 7200), ("90s", 90), ("1h30m", 5400)])
def test_a_budget_is_written_as_a_time(word: str, seconds: float) -> None:
    """A33."""
    assert Budget().convert(word, None, None) == seconds


@pytest.mark.parametrize("arguments", [["notes"], ["--resume", "x", "notes", "--budget", "1m", "--backbones", "a"],
    ["notes", "--backbones", "a", "--budget", "soon"], []])  # fmt: skip
def test_half_a_question_is_wrong_usage(arguments: list[str]) -> None:
    """A33: exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["advise", *arguments])
    assert ended.value.code == 2


@pytest.mark.slow
def test_advice_trains_normal_runs_survives_an_interruption_and_accounts_for_its_budget(
    tmp_path: Path, notes: Path
) -> None:
    """D8, A7, A13: Ctrl-C in the middle, then on to the end; every training is a run with its entries in the log, each
    finalist a version, a backbone that cannot be trained is named, and the time adds up."""
    home, page = tmp_path / "runs", tmp_path / "advice.html"
    environment = {**os.environ, "SMARTCASH_HOME": str(home), "SMARTCASH_LANG": "en"}
    names = ",".join((*BACKBONES, "no_such_net"))
    settings = [word for each in TOY for word in ("--set", each)]
    smartcash = [sys.executable, "-m", "smartcash", "advise"]
    begun = subprocess.Popen(
        [*smartcash, str(notes), "--backbones", names, "--budget", "45s", "--yes", *settings],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert begun.stdout is not None
    for line in begun.stdout:  # the first epoch of the first backbone is over
        if line.startswith("  epoch"):
            break
    begun.send_signal(signal.SIGINT)
    said = begun.stdout.read()
    assert begun.wait(60) == 130, said
    assert "--resume" in said
    advisor = Advisor(home, unmeasured)
    halfway = advisor.find("latest")
    first = TrainingManager(home).find(halfway.trials[0].run)
    assert advisor.manager.state(first) == "stopped", "with a checkpoint, not left at work"
    assert 0 < halfway.trials[0].trained_s < halfway.trials[0].limit_s and halfway.trials[0].rounds == 0

    done = subprocess.run(
        [*smartcash, "--resume", "latest", "--json", "--html", str(page)],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    advice = advisor.find("latest")
    assert advice.state == "finished" and answer["recommended"] in BACKBONES
    assert answer["reasons"]["no_such_net"]["code"] == "refused"
    assert "<svg" in page.read_text(encoding="utf-8")

    versions = {version.name: version for version in ModelVersions(home).versions()}
    for trial in advice.trials[:2]:
        assert trial.rounds == 2 and trial.accuracy is not None and trial.speed["latency_ms"] > 0
        assert versions[trial.version].run == trial.run and versions[trial.version].backbone == trial.backbone
        facts = advisor.manager.result(trial.run)
        assert facts["state"] == "finished" or facts["reason"] == "time_up"
        operations = [entry.operation for entry in advisor.manager.log.operations() if entry.run == trial.run]
        assert operations[:2] == ["config-change", "start"] and operations[-2:] == ["resume", "register"], (
            operations
        )
        config = advisor.manager.find(trial.run).config()
        assert config.schedule.name == "cosine"
    assert advisor.manager.state(advice.trials[2].run) == "failed"
    # the accounting: what was trained and what went by beside it is what was spent, and no more was planned
    trained_s = sum(trial.trained_s for trial in advice.trials)
    assert trained_s < advice.spent_s
    limits = sum(trial.limit_s for trial in advice.trials[:2])
    assert limits <= advice.budget_s
    assert len(RunStore(home).runs()) == 3
