"""Which backbone for these data on this machine: what to train next within a budget, and what the figures then say.

Successive halving (Jamieson and Talwalkar 2016): every round has an equal part of the budget; all backbones train for
the first part, the better half goes on with the next, until two are left, whose learning rate falls to its end. While
backbones are still being compared nobody knows how long they will train, so until then the rate stays at its peak, and
it is the averaged weights that are compared.

Everything here is a function of plain values: no clock, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FINALISTS = 2
# of the first round's part; the rest is for preparing and starting, which nobody has measured yet
TRAINED_SHARE = 0.8
FIRST_ROUND = 0.75  # of the budget at most
# of the rated figure; finer differences are not worth a slower model
AS_GOOD = 0.01
ENDLESS = 10_000  # epochs, while time is what ends a training
RATED = (
    "mAP50_95",
    "accuracy",
)  # the figure of the validation pictures that decides: of a detector, of a classifier


@dataclass(frozen=True)
class Reason:
    """A code of the texts [advice.reason], and its facts."""

    code: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One backbone in the contest. `run`: the id of its run, "" before it has one; `rounds`: how many it has behind it;
    `limit_s`: where the training that it is at, or was interrupted in, ends, in seconds of training since its start,
    else 0; `trained_s`: how far it has come; `epoch_s`: of its later epochs, with their validation; `valid` and `test`:
    figures of its best epoch; `speed`: see `worker.advising.measure_speed`; `trouble`: why it is out."""

    backbone: str
    run: str = ""
    rounds: int = 0
    limit_s: float = 0.0
    trained_s: float = 0.0
    epochs: int = 0
    epoch_s: float | None = None
    state: str = ""
    valid: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    version: str = ""
    trouble: Reason | None = None

    @property
    def accuracy(self) -> float | None:
        """The rated figure, 0…1; None before the first validation."""
        return next((self.valid[name] for name in RATED if name in self.valid), None)

    @property
    def cost(self) -> tuple[float, float]:
        """Latency of one picture in ms and size in MB."""
        return self.speed["latency_ms"], self.speed["size_mb"]


@dataclass(frozen=True)
class Advice:
    """A contest of backbones. `values`: the configuration that all share, as nested plain values; `confirmed`: how a
    person agreed to it; `spent_s`: of `budget_s`, waiting for a busy device left out; `overhead_s`: the most that a
    training has taken beside training. `state`: running or finished. Times are UTC, ISO 8601."""

    id: str
    created: str
    data: str
    budget_s: float
    values: dict[str, Any]
    confirmed: str
    trials: tuple[Trial, ...]
    spent_s: float = 0.0
    overhead_s: float | None = None
    state: str = "running"

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Advice:
        """The advice that `to_dict` gave. Raises KeyError, TypeError for anything else."""
        trials = []
        for each in values["trials"]:
            trouble = Reason(**each["trouble"]) if each["trouble"] else None
            trials.append(Trial(**{**each, "trouble": trouble}))
        return cls(**{**values, "trials": tuple(trials)})

    @property
    def rated(self) -> list[Trial]:
        """The trials with figures to compare, the most accurate first."""
        known = [trial for trial in self.trials if trial.accuracy is not None and trial.speed]
        return sorted(known, key=lambda trial: trial.accuracy or 0.0, reverse=True)


@dataclass(frozen=True)
class Step:
    """What to train next: `trial` (its place in the list), in which round (from 1) of how many, until it has trained
    for `limit_s` seconds in all."""

    trial: int
    round: int
    rounds: int
    limit_s: float

    @property
    def is_last_round(self) -> bool:
        return self.round == self.rounds


def rounds_of(backbones: int) -> tuple[int, ...]:
    """How many backbones train in each round: halved until two are left, at least two rounds.

    8 → 8, 4, 2 and 3 → 3, 2 and 1 → 1, 1."""
    sizes = [backbones]
    while sizes[-1] > FINALISTS:
        sizes.append(max(FINALISTS, -(-sizes[-1] // 2)))
    return tuple(sizes) if len(sizes) > 1 else (backbones, backbones)


def next_step(advice: Advice) -> Step | None:
    """The training that comes next; None when the contest is over, or its budget holds no further epoch."""
    sizes = rounds_of(len(advice.trials))
    for number, size in enumerate(sizes):
        contenders = _best(advice.trials, number, size)
        waiting = [
            place
            for place in contenders
            if advice.trials[place].rounds == number and advice.trials[place].state != "finished"
        ]
        for order, place in enumerate(waiting):
            trial = advice.trials[place]
            if trial.limit_s:  # it was interrupted
                return Step(place, number + 1, len(sizes), trial.limit_s)
            seconds = _share(advice, number, len(sizes), len(waiting) - order)
            if trial.epoch_s is None or seconds >= trial.epoch_s / 2:
                return Step(place, number + 1, len(sizes), trial.trained_s + seconds)
    return None


def _best(trials: Sequence[Trial], number: int, size: int) -> list[int]:
    """The places of the trials that train in round `number` (from 0): the most accurate, in the order of the list."""
    alive = [place for place, trial in enumerate(trials) if trial.rounds >= number and trial.trouble is None]
    alive.sort(key=lambda place: -(trials[place].accuracy or 0.0))
    return sorted(alive[:size])


def _share(advice: Advice, number: int, rounds: int, waiting: int) -> float:
    """Seconds of training for the next of `waiting` trials in round `number` (from 0)."""
    if number == 0:  # the same for all, whatever starting them takes
        return TRAINED_SHARE * advice.budget_s / rounds / len(advice.trials)
    later = advice.budget_s * (rounds - 1 - number) / rounds
    return (advice.budget_s - advice.spent_s - later) / waiting - (advice.overhead_s or 0.0)


def least_budget(advice: Advice) -> float:
    """The least budget, in seconds, with which the first round leaves enough to the finalists, judged by what has gone
    by beside training so far. Raises ZeroDivisionError before anything was tried."""
    tried = sum(trial.rounds > 0 or trial.trouble is not None for trial in advice.trials)
    beside_s = (advice.spent_s - sum(trial.trained_s for trial in advice.trials)) / tried
    number = len(advice.trials)
    return beside_s * number / (FIRST_ROUND - TRAINED_SHARE / len(rounds_of(number)))


def last_epochs(epochs: int, elapsed_s: float, epoch_s: float, limit_s: float) -> int:
    """How many epochs in all a finalist trains, so that it ends near `limit_s`. `epochs`, `elapsed_s`: the whole ones
    that it has, and the seconds of training at their end; what it has trained since is part of the next."""
    return epochs + max(1, round((limit_s - elapsed_s) / epoch_s))


# what the figures say


def front(rated: Sequence[Trial]) -> list[Trial]:
    """The Pareto front: the trials that no other one beats, or equals, in accuracy, latency and size at once."""
    return [trial for trial in rated if not any(_dominates(other, trial) for other in rated)]


def _dominates(one: Trial, other: Trial) -> bool:
    at_least = (one.accuracy or 0) >= (other.accuracy or 0) and all(
        a <= b for a, b in zip(one.cost, other.cost)
    )
    return at_least and (one.accuracy, one.cost) != (other.accuracy, other.cost)


def recommended(rated: Sequence[Trial]) -> Trial | None:
    """The fastest on the front that is as good as the most accurate, but for `AS_GOOD`; None without figures."""
    best = max((trial.accuracy or 0.0 for trial in rated), default=0.0)
    as_good = [trial for trial in front(rated) if (trial.accuracy or 0.0) >= best - AS_GOOD]
    return min(as_good, key=lambda trial: trial.cost, default=None)


def reasons(advice: Advice) -> dict[str, Reason]:
    """What is to be said of every backbone, by its name."""
    rated = advice.rated
    choice, best = recommended(rated), rated[0] if rated else None
    on_front = front(rated)
    said: dict[str, Reason] = {}
    for trial in advice.trials:
        if trial.trouble is not None:
            said[trial.backbone] = trial.trouble
        elif choice is None or best is None or trial not in rated:
            said[trial.backbone] = Reason("not_rated")
        elif trial is choice:
            said[trial.backbone] = _why(choice, best, rated)
        elif trial in on_front:
            said[trial.backbone] = _instead(trial, choice)
        else:
            winner = next(other for other in on_front if _dominates(other, trial))
            said[trial.backbone] = Reason("dominated", {"by": winner.backbone})
    return said


def _why(choice: Trial, best: Trial, rated: Sequence[Trial]) -> Reason:
    """Why the choice is the choice."""
    if choice is not best:
        less = 100 * ((best.accuracy or 0) - (choice.accuracy or 0))
        return Reason(
            "nearly_best", {"best": best.backbone, "less": less, "faster": best.cost[0] / choice.cost[0]}
        )
    if len(rated) > 1 and choice is min(rated, key=lambda trial: trial.cost):
        return Reason("best_and_fastest")
    return Reason("best")


def _instead(trial: Trial, choice: Trial) -> Reason:
    """What speaks for another one on the front."""
    more = 100 * ((trial.accuracy or 0) - (choice.accuracy or 0))
    ratio = trial.cost[0] / choice.cost[0]
    if ratio < 1:
        return Reason("faster", {"faster": 1 / ratio, "less": -more})
    if more > 0:
        return Reason("more_accurate", {"more": more, "slower": ratio})
    return Reason("smaller", {"smaller": choice.cost[1] / trial.cost[1], "less": -more, "slower": ratio})
