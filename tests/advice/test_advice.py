"""Advice with real trainings of toys, in worker processes, confirmed, interrupted and gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smartcash.backend.samples import write_samples
from smartcash.cli import main
from smartcash.cli.advise import Budget
from smartcash.domain.advice import FIRST_ROUND, TRAINED_SHARE, Advice, Step, Trial, least_budget
from smartcash.domain.config import parse_assignments
from smartcash.domain.errors import AdviceRefused, ConfigInvalid, NotConfirmed
from smartcash.handlers.advice import Advisor, _trained_seconds
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.run_store import RunStore
from smartcash.worker.advising import measure_speed

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
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D8, A7, A13: Ctrl-C in the middle, then on to the end; every training is a run with its entries in the log, each
    finalist a version, and the time adds up. The clock stands still but for training: each start costs one second."""
    home, budget_s = tmp_path / "runs", 40.0
    manager = TrainingManager(home)

    def clock() -> float:
        runs = [manager.find(run.id) for run in RunStore(home).runs()]
        return sum(_trained_seconds(run) + len(run.description().get("attempts", [])) for run in runs)

    def interrupted(advice: Advice, step: Step, record: Mapping[str, Any] | None) -> None:
        if record is not None and record["type"] == "EpochEnded":
            raise KeyboardInterrupt

    advisor = Advisor(home, measure_speed, clock=clock)
    review = advisor.check(str(notes), BACKBONES, budget_s, parse_assignments(TOY))
    advice = advisor.begin(review, confirmed="asked")
    with pytest.raises(KeyboardInterrupt):
        advisor.run(advice, interrupted)
    halfway = advisor.find("latest")
    first = manager.find(halfway.trials[0].run)
    assert manager.state(first) == "stopped", "with a checkpoint, not left at work"
    assert 0 < halfway.trials[0].trained_s <= halfway.trials[0].limit_s and halfway.trials[0].rounds == 0

    heard: list[Step] = []
    advice = advisor.run(halfway, lambda _, step, record: heard.append(step) if record is None else None)
    assert [(step.trial, step.round) for step in heard] == [(0, 1), (1, 1), (0, 2), (1, 2)]
    assert advice == advisor.find("latest") and advice.state == "finished"
    versions = {version.name: version for version in ModelVersions(home).versions()}
    for trial in advice.trials:
        assert trial.rounds == 2 and trial.accuracy is not None and trial.speed["latency_ms"] > 0
        assert versions[trial.version].run == trial.run and versions[trial.version].backbone == trial.backbone
        facts = manager.result(trial.run)
        assert facts["state"] == "finished" or facts["reason"] == "time_up"
        entries = [entry for entry in manager.log.operations() if entry.run == trial.run]
        operations = [entry.operation for entry in entries]
        assert operations[:2] == ["config-change", "start"], operations
        assert operations[-3:] == ["config-change", "resume", "register"], operations
        assert {entry.confirmed for entry in entries if entry.operation == "config-change"} == {"asked"}
        assert manager.find(trial.run).config().schedule.name == "cosine"
    # the accounting: nothing that the clock shows is missing, and no more was planned than there is
    assert advice.spent_s == pytest.approx(clock(), abs=0.1)
    assert sum(step.limit_s for step in heard if step.is_last_round) <= budget_s
    limits = [step.limit_s for step in heard if step.round == 1]
    assert limits == [TRAINED_SHARE * budget_s / 2 / 2] * 2

    page = tmp_path / "advice.html"
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["advise", "--resume", "latest", "--home", str(home), "--json", "--html", str(page)])
    assert ended.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["recommended"] in BACKBONES and answer["front"]
    assert "<svg" in page.read_text(encoding="utf-8")


def test_a_budget_that_starting_alone_would_eat_is_refused_after_the_first_training() -> None:
    """D8: it is said what would do, and nothing more is begun."""
    done = Trial("a", "r", 1, 0.0, 6.0, 2, 3.0, "stopped", {"mAP50_95": 0.1})
    advice = Advice("i", "c", "notes", 45.0, {}, "asked", (done, Trial("b"), Trial("c")), spent_s=66.0)
    needed_s = least_budget(advice)
    assert needed_s == pytest.approx(60 * 3 / (FIRST_ROUND - TRAINED_SHARE / 2))
    assert least_budget(replace(advice, spent_s=8.0)) < 45
