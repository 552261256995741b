"""What the advisor trains next, and what it makes of the figures: pure decisions, played through without a clock."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartcash.domain.advice import (
    AS_GOOD,
    Advice,
    Reason,
    Step,
    Trial,
    front,
    last_epochs,
    next_step,
    reasons,
    recommended,
    rounds_of,
)
from smartcash.ui.advice import advice_page, rows_of
from smartcash.utils.i18n import LANGUAGES, set_language

OVERHEAD_S = 6.0


def contest(names: str, budget_s: float = 1800.0) -> Advice:
    trials = tuple(Trial(name) for name in names.split())
    return Advice("20261101-080000-abcd", "2026-11-01T08:00:00+00:00", "notes", budget_s, {}, "asked", trials)


def played(advice: Advice, accuracy: dict[str, float], epoch_s: float = 10.0) -> tuple[Advice, list[Step]]:
    """The contest with trainings that take exactly their time, and some seconds beside it."""
    steps = []
    while (step := next_step(advice)) is not None:
        steps.append(step)
        assert len(steps) < 100
        trial = advice.trials[step.trial]
        seconds = step.limit_s - trial.trained_s
        trained = replace(
            trial, run="r", rounds=step.round, trained_s=step.limit_s, epoch_s=epoch_s,
            epochs=round(step.limit_s / epoch_s), state="finished" if step.is_last_round else "stopped",
            valid={"mAP50_95": accuracy[trial.backbone]},
        )  # fmt: skip
        trials = tuple(trained if place == step.trial else each for place, each in enumerate(advice.trials))
        spent_s = advice.spent_s + seconds + OVERHEAD_S
        advice = replace(advice, trials=trials, spent_s=spent_s, overhead_s=OVERHEAD_S)
    return advice, steps


def test_the_field_is_halved_until_two_are_left() -> None:
    """D8."""
    assert [rounds_of(number) for number in (1, 2, 3, 4, 5, 8)] == [
        (1, 1), (2, 2), (3, 2), (4, 2), (5, 3, 2), (8, 4, 2),
    ]  # fmt: skip


def test_the_better_half_goes_on_and_the_budget_is_spent_on_it() -> None:
    """D8: each round an equal part; in the first all train alike; what starting took is taken from the rest."""
    accuracy = {"a": 0.1, "b": 0.5, "c": 0.3, "d": 0.4}
    advice, steps = played(contest("a b c d"), accuracy)
    assert [(step.trial, step.round) for step in steps] == [(0, 1), (1, 1), (2, 1), (3, 1), (1, 2), (3, 2)]
    assert len({step.limit_s for step in steps[:4]}) == 1
    assert abs(advice.spent_s - advice.budget_s) < 1
    assert [trial.rounds for trial in advice.trials] == [1, 2, 1, 2]


@given(
    st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=9),
    st.floats(600, 36_000),
    st.floats(1, 20),
)
def test_no_contest_spends_more_than_its_budget_or_leaves_more_than_an_epoch(
    scores: list[float], budget_s: float, epoch_s: float
) -> None:
    """D8: the accounting, whatever the figures are."""
    names = [f"n{number}" for number in range(len(scores))]
    advice, steps = played(contest(" ".join(names), budget_s), dict(zip(names, scores)), epoch_s)
    assert advice.spent_s <= budget_s + 1
    assert advice.spent_s >= 0.9 * budget_s
    finalists = {step.trial for step in steps if step.is_last_round}
    worst = min(scores[place] for place in finalists)
    assert sum(score > worst for score in scores) < len(finalists)


def test_one_that_is_out_makes_room_for_the_next() -> None:
    """A34: a backbone without weights, or too slow for its part, does not end the contest."""
    advice = contest("a b c")
    first = next_step(advice)
    assert first is not None
    out = replace(advice.trials[0], trouble=Reason("refused", {"reason": "no weights"}))
    advice = replace(advice, trials=(out, *advice.trials[1:]))
    advice, steps = played(advice, {"b": 0.2, "c": 0.3})
    assert [(step.trial, step.round) for step in steps] == [(1, 1), (2, 1), (1, 2), (2, 2)]


def test_an_interrupted_training_goes_on_to_where_it_should_have_ended() -> None:
    """A7, D8: its limit is written down before it begins."""
    advice = contest("a b")
    step = next_step(advice)
    assert step is not None
    halfway = replace(
        advice.trials[0], run="r", limit_s=step.limit_s, trained_s=step.limit_s / 2, epoch_s=10.0
    )
    for trained_s in (0.0, step.limit_s / 2, step.limit_s):
        interrupted = replace(halfway, trained_s=trained_s)
        assert next_step(replace(advice, trials=(interrupted, advice.trials[1]), spent_s=100)) == step


def test_a_finalist_ends_near_its_limit() -> None:
    """D8: to the nearest epoch, at least one; what it has trained of an epoch is not trained again."""
    assert last_epochs(4, 40.0, 10.0, 100.0) == 10
    assert last_epochs(4, 40.0, 10.0, 104.0) == 10
    assert last_epochs(4, 40.0, 10.0, 42.0) == 5


def trial(name: str, accuracy: float, latency_ms: float, size_mb: float) -> Trial:
    speed = {"latency_ms": latency_ms, "size_mb": size_mb, "parameters": size_mb * 250_000}
    return Trial(
        name,
        "r",
        2,
        100,
        100,
        10,
        10.0,
        "finished",
        {"mAP50_95": accuracy},
        {"mAP50_95": accuracy},
        speed,
        "v1",
    )


def test_the_fastest_that_is_as_good_as_the_best_is_recommended() -> None:
    """D8: accuracy × latency × size, with a reason for each."""
    rated = [
        trial("large", 0.800, 60, 80),
        trial("middle", 0.795, 20, 20),
        trial("small", 0.700, 5, 10),
        trial("tiny", 0.600, 8, 4),
        trial("bad", 0.690, 30, 30),
    ]
    assert [each.backbone for each in front(rated)] == ["large", "middle", "small", "tiny"]
    advice = replace(contest(""), trials=(*rated, Trial("none", trouble=Reason("failed", {"reason": "<b>"}))))
    choice = recommended(advice.rated)
    assert choice is not None and choice.backbone == "middle"
    said = reasons(advice)
    assert {name: reason.code for name, reason in said.items()} == {
        "large": "more_accurate", "middle": "nearly_best", "small": "faster", "tiny": "faster", "bad": "dominated",
        "none": "failed",
    }  # fmt: skip
    assert said["middle"].facts["faster"] == pytest.approx(3) and said["bad"].facts["by"] == "middle"
    assert recommended([trial("a", 0.5, 10, 5), trial("b", 0.5 + 2 * AS_GOOD, 20, 5)]).backbone == "b"  # type: ignore[union-attr]
    assert recommended([]) is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_tells_it_all_in_both_languages_and_trusts_no_name(language: str) -> None:
    """D8, A33: one file, no script, nothing from elsewhere; names are shown, not obeyed."""
    evil = "<script>alert(1)</script>"
    rated = (trial("resnet50", 0.8, 60, 90), trial(evil, 0.7, 20, 20), trial("same", 0.7, 20, 20))
    out = Trial("none", trouble=Reason("too_slow", {"epoch_s": 90, "part_s": 30, "needed_s": 900}))
    advice = replace(contest(""), data="a&b", trials=(*rated, out))
    set_language(language)
    try:
        page = advice_page(advice)
        assert [row["mark"] for row in rows_of(advice)] == ["★", "●", "●", ""]
        single = advice_page(replace(advice, trials=rated[:1]))
    finally:
        set_language(None)
    assert f'lang="{language}"' in page and "<svg" in page and "a&amp;b" in page and "90" in page
    assert "<script" not in page and not re.search(r"(src|href)=", page)
    assert "nan" not in single and single.count("<circle") == 1


def test_an_advice_is_read_back_as_it_was_written() -> None:
    """A14."""
    out = Trial("none", trouble=Reason("failed", {"reason": "x"}))
    advice = replace(contest("a"), trials=(trial("b", 0.5, 10, 5), out))
    assert Advice.from_dict(advice.to_dict()) == advice
