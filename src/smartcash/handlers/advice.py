"""Advice on backbones: decides what to train within a budget, has it trained as normal runs, and keeps the result.

    advisor = Advisor(home, measure_speed=…)
    review = advisor.check("notes", ["efficientnet_lite0", "resnet50"], budget_s=1800)
    advice = advisor.run(advisor.begin(review, confirmed="asked"))

A person confirms the whole contest once: data, backbones, budget and configuration. Every run of it is then checked,
recorded and started like any other, with that confirmation in the operation log.

<home>/advice/<id>/advice.json is written after every step: an advice that was interrupted goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smartcash.domain.advice import (
    ENDLESS,
    Advice,
    Reason,
    Step,
    Trial,
    last_epochs,
    least_budget,
    next_step,
)  # fmt: skip
from smartcash.domain.config import TrainConfig, merge
from smartcash.domain.errors import AdviceRefused, ConfigInvalid, NotConfirmed, Problem, RunNotReady
from smartcash.domain.records import ACTIVE, Change, Operation
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.training_manager import TrainingManager
from smartcash.services.event_log import read_events
from smartcash.services.run_store import RunFolder
from smartcash.services.training_service import RESUMABLE
from smartcash.services.workbench import backbone_problems
from smartcash.utils.files import write_bytes

FILE = "advice.json"
FORMAT = 1
CAP = 1.15  # of a finalist's part of time: its epochs end it before, unless the machine grows slow
# what the advisor itself sets: no change that a person is asked about
OWN = ("training.epochs", "training.max_hours", "schedule.name", "model.backbone")

STOP_AGAIN_S = 5.0
PREPARING = ("created", "checking", "ready", "failed", "crashed")  # a run's states before it has begun

Listen = Callable[[Advice, Step, Mapping[str, Any] | None], None]


@dataclass(frozen=True)
class AdviceReview:
    """A contest before it begins. `changes`: what is confirmed with it; `token`: belongs to exactly these."""

    data: str
    backbones: tuple[str, ...]
    budget_s: float
    values: dict[str, Any]
    problems: list[Problem]
    changes: list[Change]
    token: str


def nobody(advice: Advice, step: Step, record: Mapping[str, Any] | None) -> None:
    """Hears nothing."""


class Advisor:
    """Advises in one home. `measure_speed`: a run → latency and size of its model on this machine (it needs torch, so
    whoever makes the advisor brings it); `try_backbone`: as that of the TrainingManager; `clock`: what the budget is
    measured with, in seconds."""

    def __init__(
        self,
        home: Path | str | None,
        measure_speed: Callable[[RunFolder], dict[str, float]],
        *,
        interface: str = "python",
        try_backbone: Callable[[str], list[Problem]] = backbone_problems,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.manager = TrainingManager(home, interface=interface, try_backbone=try_backbone)
        self.versions = ModelVersions(home, interface)
        self.measure_speed, self.clock = measure_speed, clock
        self.folder = self.manager.home / "advice"

    # beginning

    def check(
        self, data: str, backbones: Sequence[str], budget_s: float, values: Mapping[str, Any] | None = None
    ) -> AdviceReview:
        """Every problem of a contest and what it would change. `values`: a configuration that all share, nested plain
        values. Nothing is started or written."""
        names = tuple(dict.fromkeys(name for name in backbones if name))
        shared = merge(values or {}, {"data": {"path": str(Path(data).absolute()) if data else ""}})
        problems = [] if names else [Problem("backbones", "advice_no_backbone", "")]
        problems += [] if budget_s > 0 else [Problem("budget", "advice_no_budget", budget_s)]
        changes: list[Change] = []
        for name in names:
            review = self.manager.check(_values(shared, name, budget_s))
            problems += [problem for problem in review.problems if problem not in problems]
            if name == names[0]:
                changes = [] if review.first else [each for each in review.changes if each.field not in OWN]
        changes.append(Change("advice.backbones", None, ", ".join(names)))
        changes.append(Change("advice.budget_s", None, round(budget_s)))
        token = "" if problems else _token(shared, names, budget_s, changes)
        return AdviceReview(data, names, budget_s, shared, problems, changes, token)

    def begin(self, review: AdviceReview, token: str | None = None, *, confirmed: str = "token") -> Advice:
        """Confirm a contest and record it; `run` then carries it out. `token` and `confirmed` as those of
        `TrainingManager.confirm`. Raises ConfigInvalid, NotConfirmed."""
        if review.problems:
            raise ConfigInvalid(review.problems)
        now = self.check(review.data, review.backbones, review.budget_s, review.values)
        if (review.token if token is None else token) != now.token:
            raise NotConfirmed("token_stale")
        created = datetime.now(UTC)
        advice = Advice(
            f"{created:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}", created.isoformat(timespec="seconds"),
            review.data, review.budget_s, review.values, confirmed, tuple(map(Trial, review.backbones)),
        )  # fmt: skip
        self._save(advice)
        self.manager.log.append(Operation("advise", changes=tuple(now.changes), confirmed=confirmed))
        return advice

    def find(self, name: str) -> Advice:
        """The advice with this id or beginning of it; "latest" is the newest. Raises AdviceRefused."""
        known = sorted(path.parent.name for path in self.folder.glob(f"*/{FILE}"))
        matching = (
            known[-1:] if name == "latest" else [each for each in known if name and each.startswith(name)]
        )
        if len(matching) != 1:
            raise AdviceRefused("advice_not_found", name=name, home=str(self.manager.home))
        path = self.folder / matching[0] / FILE
        try:
            values = json.loads(path.read_bytes())
            if values.pop("format") != FORMAT:
                raise ValueError("format")
            return Advice.from_dict(values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise AdviceRefused("advice_broken", path=str(path), reason=reason) from error

    # carrying out

    def run(self, advice: Advice, listen: Listen = nobody) -> Advice:
        """Train until the contest is over or its budget is spent. `listen` hears of every step (None), and then every
        event of its run as a plain record.

        A KeyboardInterrupt stops the run at work with a checkpoint and is raised again; `run` goes on from there.
        Raises AdviceRefused when the budget cannot be held, no backbone can be compared, or a run of the contest was
        stopped by somebody else."""
        while (step := next_step(advice)) is not None:
            listen(advice, step, None)
            advice = self._carried_out(advice, step, listen)
            self._save(advice)
            is_first = sum(trial.rounds > 0 for trial in advice.trials) == 1 and step.round == 1
            if is_first and (needed_s := least_budget(advice)) > advice.budget_s:
                raise AdviceRefused("advice_budget_small", advice=advice.id, minutes=math.ceil(needed_s / 60))
        if not advice.rated:
            troubles = [trial.trouble for trial in advice.trials if trial.trouble]
            needed = [reason.facts["needed_s"] for reason in troubles if "needed_s" in reason.facts]
            if needed:
                raise AdviceRefused(
                    "advice_budget_small", advice=advice.id, minutes=math.ceil(min(needed) / 60)
                )
            raise AdviceRefused("advice_nothing_trained", advice=advice.id)
        advice = replace(advice, state="finished")
        self._save(advice)
        return advice

    def _carried_out(self, advice: Advice, step: Step, listen: Listen) -> Advice:
        """The advice after one training."""
        trial, clock = advice.trials[step.trial], _Stopwatch(advice.spent_s, self.clock)
        trial = replace(trial, limit_s=step.limit_s)
        if not trial.run:
            review = self.manager.check(_values(advice.values, trial.backbone, step.limit_s))
            made = self.manager.apply(review, significant=True, confirmed=advice.confirmed)
            trial = replace(trial, run=made.id)
        advice = self._with(advice, step, trial, clock)
        run = self.manager.find(trial.run)
        if (trouble := self._unready(run, step, advice)) is not None:
            return self._with(advice, step, replace(trial, trouble=trouble), clock)
        trial, beside_s = self._trained(run, trial, step, advice, clock, listen)
        if trial.accuracy is not None and not trial.speed:
            trial = replace(trial, speed=self.measure_speed(run))
        advice = replace(advice, overhead_s=round(max(beside_s, advice.overhead_s or 0.0), 2))
        return self._with(advice, step, replace(trial, rounds=step.round, limit_s=0.0), clock)

    def _unready(self, run: RunFolder, step: Step, advice: Advice) -> Reason | None:
        """Why a run that has not begun cannot; None when it is ready, or was begun."""
        state = self.manager.state(run)
        if run.description().get("attempts") or state not in PREPARING:
            return None
        if state in ("created", "crashed"):  # an advice may have been killed at any moment
            self.manager.service.prepare(run)
        try:
            forecast = self.manager.wait_ready(run)
        except ConfigInvalid as error:
            return Reason("refused", {"reason": error.message()})
        return _too_slow(forecast, step, advice)

    def _trained(
        self, run: RunFolder, trial: Trial, step: Step, advice: Advice, clock: _Stopwatch, listen: Listen
    ) -> tuple[Trial, float]:
        """The trial after its run has gone on to the step's limit, and the seconds that went by beside training."""
        began = clock.seconds
        after = max((int(record["seq"]) for record in read_events(run.events)), default=0)
        if self._others_at_work(run):  # waiting for the device is no part of the budget
            clock.stop()
        try:
            self._set_going(run, trial, step, advice)
            for record in self.manager.watch(run, after):
                clock.go_on()
                listen(advice, step, record)
                if record["type"] == "EpochEnded":
                    self._with(advice, step, trial, clock)
        except KeyboardInterrupt:
            self._stop(run)
            self._with(advice, step, replace(trial, trained_s=_trained_seconds(run)), clock)
            raise
        clock.go_on()
        before_s, facts, rows = trial.trained_s, self.manager.result(run), _rows(run)
        trial = replace(
            trial, trained_s=_trained_seconds(run), epochs=len(rows), epoch_s=_epoch_seconds(rows),
            state=facts["state"], valid=facts.get("valid") or {}, test=facts.get("test") or {},
        )  # fmt: skip
        if facts["state"] == "failed":
            trial = replace(trial, trouble=Reason("failed", {"reason": str(facts.get("error") or "")}))
        elif facts["state"] != "finished" and facts.get("reason") != "time_up":
            self._with(advice, step, trial, clock)
            raise AdviceRefused("advice_run_ended", advice=advice.id, run=run.id, state=facts["state"])
        elif trial.accuracy is None:
            trial = replace(trial, trouble=Reason("no_epoch", {"part_s": round(step.limit_s)}))
        elif step.is_last_round:  # also one that time has ended, which is no version by itself
            trial = replace(trial, version=self.versions.register_run(run).name)
        return trial, clock.seconds - began - (trial.trained_s - before_s)

    def _set_going(self, run: RunFolder, trial: Trial, step: Step, advice: Advice) -> None:
        """Have a worker go on with the run, unless one does already: an advice may have been killed without it."""
        state = self.manager.state(run)
        if state == "ready":
            self.manager.start(run, confirmed=advice.confirmed)
        elif state in RESUMABLE:
            training: dict[str, Any] = {"max_hours": step.limit_s / 3600}
            values: dict[str, Any] = {"training": training}
            if step.is_last_round and trial.epoch_s is not None:
                rows = _rows(run)
                elapsed_s = float(rows[-1]["elapsed_s"])
                training["epochs"] = last_epochs(len(rows), elapsed_s, trial.epoch_s, step.limit_s)
                training["max_hours"] = (trial.trained_s + CAP * (step.limit_s - trial.trained_s)) / 3600
                values["schedule"] = {"name": "cosine"}
            whole = merge(run.config().model_dump(mode="json"), values)
            review = self.manager.check(whole, run=run)
            if review.changes:
                self.manager.apply(review, significant=True, confirmed=advice.confirmed)
            self.manager.resume(run, confirmed=advice.confirmed)

    def _others_at_work(self, run: RunFolder) -> bool:
        others = self.manager.service.store.runs()
        return any(other.state in ACTIVE and other.id != run.id for other in others)

    def _stop(self, run: RunFolder) -> None:
        """Stop the run with a checkpoint, and wait for it. A worker that is just starting does not hear yet."""
        while self.manager.state(run) in ACTIVE:
            with suppress(RunNotReady, TimeoutError):
                self.manager.command(run, "stop")
                self.manager.service.wait(run, timeout_s=STOP_AGAIN_S)

    def _with(self, advice: Advice, step: Step, trial: Trial, clock: _Stopwatch) -> Advice:
        """The advice with this trial and the time spent by now, on the disk too."""
        trials = tuple(trial if place == step.trial else each for place, each in enumerate(advice.trials))
        advice = replace(advice, trials=trials, spent_s=round(clock.seconds, 2))
        self._save(advice)
        return advice

    def _save(self, advice: Advice) -> None:
        folder = self.folder / advice.id
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"format": FORMAT, **advice.to_dict()}
        write_bytes(folder / FILE, (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())


class _Stopwatch:
    """Seconds that count for the budget, from `begun` on."""

    def __init__(self, begun: float, clock: Callable[[], float]) -> None:
        self._clock, self._counted, self._since = clock, begun, clock()
        self._runs = True

    @property
    def seconds(self) -> float:
        return self._counted + (self._clock() - self._since if self._runs else 0.0)

    def stop(self) -> None:
        self._counted, self._runs = self.seconds, False

    def go_on(self) -> None:
        """Does nothing while it runs."""
        if not self._runs:
            self._since, self._runs = self._clock(), True


def _values(shared: Mapping[str, Any], backbone: str, limit_s: float) -> dict[str, Any]:
    """The configuration of a backbone's run: ended by time, at a constant rate."""
    return merge(
        shared,
        {
            "model": {"backbone": backbone},
            "schedule": {"name": "constant"},
            "training": {"epochs": ENDLESS, "max_hours": limit_s / 3600},
        },
    )


def _token(
    shared: Mapping[str, Any], names: Sequence[str], budget_s: float, changes: Sequence[Change]
) -> str:
    """A hash of exactly this contest, as things stand now."""
    named = [[change.field, change.old, change.new] for change in changes]
    whole = json.dumps([TrainConfig.parse(shared).hash(), list(names), budget_s, named], default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def _too_slow(forecast: Mapping[str, Any], step: Step, advice: Advice) -> Reason | None:
    """Why a backbone cannot be compared: its part of the time holds no whole epoch."""
    if not forecast:  # the device was busy, so nothing was measured
        return None
    epoch_s = forecast["duration_s"] / ENDLESS
    if epoch_s <= step.limit_s:
        return None
    needed_s = advice.budget_s * epoch_s / step.limit_s
    return Reason(
        "too_slow", {"epoch_s": round(epoch_s), "part_s": round(step.limit_s), "needed_s": round(needed_s)}
    )


def _rows(run: RunFolder) -> list[dict[str, str]]:
    """The rows of `epochs.csv`; none before the first epoch has ended."""
    path = run.path / "epochs.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def _epoch_seconds(rows: Sequence[Mapping[str, str]]) -> float | None:
    """The median time of the later half of the epochs, validation included: in the first ones the backbone may be
    frozen, and kernels are built."""
    later = rows[len(rows) // 2 :]
    return statistics.median(float(row["train_s"]) + float(row["eval_s"]) for row in later) if later else None


def _trained_seconds(run: RunFolder) -> float:
    """How long the run has trained, validations included and tests left out: exactly, unless it was stopped within an
    epoch; then until the end of the one before."""
    rows, facts = _rows(run), run.description()
    elapsed_s = float(rows[-1]["elapsed_s"]) if rows else 0.0
    limit_h = run.config().training.max_hours
    return max(elapsed_s, 3600 * limit_h) if facts.get("reason") == "time_up" and limit_h else elapsed_s
