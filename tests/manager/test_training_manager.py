"""Check, confirm, prepare, start, watch, kill: the Training Manager and the Training Service, on real processes."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from smartcash import TrainConfig, TrainingManager
from smartcash.domain.config import dump_yaml, parse_assignments
from smartcash.domain.errors import ConfigInvalid, NotConfirmed, Problem, RunNotReady, RunNotResumable
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder
from smartcash.services.training_service import RESUMABLE
from smartcash.services.workers import Turns, end_orphans, stale_tickets

Toy = Callable[..., dict[str, Any]]


def manager_in(home: Path) -> TrainingManager:
    return TrainingManager(home)


def ready(manager: TrainingManager, values: dict[str, Any]) -> RunFolder:
    """A run that was checked, confirmed and prepared."""
    run = manager.apply(manager.check(values), significant=True)
    manager.wait_ready(run, timeout_s=120)
    return run


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_the_same_configuration_has_one_hash_wherever_it_comes_from(toy: Toy, tmp_path: Path) -> None:
    """A1: from Python, from YAML, from the command line's assignments."""
    values = toy()
    file = tmp_path / "mine.yaml"
    file.write_text(dump_yaml(values), encoding="utf-8")
    assigned = parse_assignments(
        [f"{section}.{name}={value}" for section, part in values.items() for name, value in part.items()]
    )
    manager = manager_in(tmp_path)
    reviews = [manager.check(each) for each in (values, file, assigned, TrainConfig.parse(values))]
    assert len({review.config.hash() for review in reviews if review.config}) == 1
    assert len({review.token for review in reviews}) == 1


def test_a_check_names_every_problem_and_starts_nothing(tmp_path: Path) -> None:
    """A11."""
    review = manager_in(tmp_path).check(
        {"data": {"path": "", "batch_size": 0}, "optimizer": {"lr": -1}, "model": {"backbon": "x"}}
    )
    assert {problem.field for problem in review.problems} == {
        "data.batch_size",
        "optimizer.lr",
        "model.backbon",
    }
    assert not review.ok and not review.token and not list(tmp_path.iterdir())
    with pytest.raises(ConfigInvalid):
        manager_in(tmp_path).apply(review)


def test_only_exactly_what_was_shown_can_be_confirmed(toy: Toy, tmp_path: Path) -> None:
    """A12, C1, D4: a wrong token, a base that has changed since, a significant change without its own yes."""
    manager = manager_in(tmp_path)
    first = manager.check(toy())
    assert first.first and not first.significant
    with pytest.raises(NotConfirmed, match=r"confirm"):
        manager.confirm(first, token="0" * 64)
    manager.confirm(first)
    stale = manager.check(toy(training={"epochs": 5}))
    assert [str(change.field) for change in stale.changes] == ["training.epochs"] and not stale.significant
    manager.confirm(manager.check(toy(training={"epochs": 7})))
    with pytest.raises(NotConfirmed):
        manager.confirm(stale)
    marked = manager.check(toy(training={"epochs": 7}, seed=4, optimizer={"name": "sgd"}))
    assert [change.field for change in marked.significant] == ["seed", "optimizer.name"]
    with pytest.raises(NotConfirmed, match=r"optimizer\.name"):
        manager.confirm(marked)
    manager.confirm(marked, marked.token, significant=True)
    entries = manager.log.operations(operation="config-change")
    assert [len(entry.changes) for entry in entries] == [len(first.changes), 1, 2]
    assert entries[-1].confirmed == "token" and manager.log.verify().alteration is None


@pytest.mark.slow
def test_only_a_training_that_made_a_step_is_compared_with(toy: Toy, tmp_path: Path) -> None:
    """C1: not one that failed in its preparation, waits, or was thrown away; what was confirmed last is what a form
    begins with all the same."""
    manager = manager_in(tmp_path)
    impossible = toy(data={"batch_size": 4096})
    wanted = toy(training={"epochs": 1})

    def fail(values: dict[str, Any]) -> RunFolder:
        run = manager.apply(manager.check(values), significant=True)
        with pytest.raises(ConfigInvalid):
            manager.wait_ready(run, timeout_s=120)
        return run

    fail(impossible)
    assert manager.check(wanted).first and manager.confirmed()[0].data.batch_size == 4096
    run = ready(manager, wanted)
    fail(impossible)
    assert manager.check(wanted).first
    manager.start(run)
    assert manager.service.wait(run, ("finished",), timeout_s=120) == "finished"
    review = manager.check(impossible)
    assert [change.field for change in review.changes] == ["data.batch_size", "training.epochs"]
    assert review.against == run.id and review.significant

    fail(impossible)
    review = manager.check(wanted)
    assert (review.against, review.changes) == (run.id, [])
    manager.confirm(manager.check(toy(training={"epochs": 7})))
    review = manager.check(wanted)
    assert review.against == "" and [(c.old, c.new) for c in review.changes] == [(7, 1)]
    again = ready(manager, wanted)
    assert manager.check(wanted).changes, "it has not begun"
    manager.start(again)
    manager.service.wait(again, ("finished",), timeout_s=120)
    assert manager.check(wanted).against == again.id
    manager.service.store.trash(again.id)
    assert manager.check(wanted).changes == review.changes, "as before it"


def trained_in(manager: TrainingManager, values: dict[str, Any]) -> RunFolder:
    """A run begun in the foreground with settings that were looked at, and one step of it."""
    review = manager.check(values)
    run = manager.service.create(review.config or TrainConfig(), {"state": "running"})
    manager.started(run.path, review, "--yes")
    run.events.write_text('{"seq": 1, "time": 0, "type": "StepEnded"}\n')
    return run


def test_a_training_that_has_begun_is_recorded_whatever_was_confirmed_meanwhile(
    toy: Toy, tmp_path: Path
) -> None:
    """C1: data are read for minutes between the yes and the first step; only before them can a review be stale."""
    manager = manager_in(tmp_path)
    review = manager.check(toy(seed=1))
    manager.require_current(review)
    trained_in(manager, toy(seed=2))
    with pytest.raises(NotConfirmed):
        manager.require_current(review)
    run = manager.service.create(review.config or TrainConfig(), {"state": "running"})
    manager.started(run.path, review, "asked")
    assert [each.run for each in manager.log.operations()][-2:] == [run.id, run.id]
    run.events.write_text('{"seq": 1, "time": 0, "type": "StepEnded"}\n')
    assert manager.check(toy(seed=1)).against == run.id and manager.check(toy(seed=1)).changes == []


def test_with_the_last_trainings_thrown_away_those_before_count_again(toy: Toy, tmp_path: Path) -> None:
    """C1: and behind any number of trainings that came to nothing is the one to compare with."""
    manager = manager_in(tmp_path)
    first, second, third = (trained_in(manager, toy(seed=seed)) for seed in (1, 2, 3))
    for run in (second, third):
        run.describe({"state": "stopped"})
        manager.service.store.trash(run.id)
    assert manager.check(toy(seed=1)).against == first.id
    for seed in range(10, 40):
        run = trained_in(manager, toy(seed=seed))
        run.events.unlink()
    review = manager.check(toy(seed=1))
    assert (review.against, review.changes) == (first.id, []) and manager.confirmed()[0].seed == 39
    assert len(json.loads((tmp_path / "confirmed.json").read_text())["earlier"]) < 15


def test_what_an_earlier_version_confirmed_is_the_same_data_now(
    toy: Toy, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1, A29: it kept the path as it was typed, and no run."""
    manager = manager_in(tmp_path)
    monkeypatch.chdir(notes.parent)
    config = TrainConfig.parse(toy(data={"path": notes.name}))
    old = {"revision": 4, "config": config.model_dump(mode="json")}
    (tmp_path / "confirmed.json").write_text(json.dumps(old))
    review = manager.check(toy(data={"path": notes.name}))
    assert review.changes == [] and not review.first


def test_a_relative_path_names_the_same_data_from_anywhere(
    toy: Toy, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A1, C1."""
    manager = manager_in(tmp_path)
    monkeypatch.chdir(notes.parent)
    manager.confirm(manager.check(toy(data={"path": notes.name})))
    monkeypatch.chdir(notes)
    (notes / "down").mkdir()
    for same in (str(notes), f"../{notes.name}", "down/.."):
        assert manager.check(toy(data={"path": same})).changes == []
    assert manager.check(toy(data={"path": "down"})).changes


@pytest.mark.slow
def test_the_whole_way_from_check_to_result(toy: Toy, tmp_path: Path) -> None:
    """A20, A21, A26: prepared, ready with a forecast, started, watched without a gap, finished."""
    manager = manager_in(tmp_path)
    run = manager.apply(manager.check(toy()))
    with pytest.raises(RunNotReady):
        manager.start(run)
    forecast = manager.wait_ready(run, timeout_s=120)
    assert forecast["duration_s"] > 0 and forecast["disk_mb"] > 0 and forecast["checkpoints"] == 2
    manager.start(run)
    events = list(manager.watch(run))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for event in events]
    assert kinds.index("RunChecked") < kinds.index("RunReady") < kinds.index("EpochEnded")
    assert kinds[-1] == "RunFinished" and manager.state(run) == "finished"
    result = manager.result(run)
    assert result["test"]["mAP50"] is not None and result["attempts"][-1]["resources"]["cpu_s"] > 0
    assert [entry.operation for entry in manager.log.operations(run=run.id)] == [
        *("config-change", "start", "register")
    ]
    with pytest.raises(RunNotReady):
        manager.command(run, "pause")
    with pytest.raises(RunNotResumable):
        manager.resume(run)


def test_a_mistyped_backbone_is_refused_before_a_run_is_made(toy: Toy, tmp_path: Path) -> None:
    """A11: from Python too, by a worker begun for the question, with the near names."""
    manager = manager_in(tmp_path)
    review = manager.check(toy(model={"backbone": "efficientnet_lite00"}))
    (problem,) = review.problems
    assert (problem.field, problem.code) == ("model.backbone", "errors.backbone_unknown")
    assert "efficientnet_lite0," in problem.message("id")
    with pytest.raises(ConfigInvalid, match="efficientnet_lite0"):
        manager.apply(review, significant=True)
    assert manager.service.store.runs() == []


def test_a_backbone_is_tried_once_and_never_for_a_run_that_goes_on(toy: Toy, tmp_path: Path) -> None:
    """A11: the caller's own check takes the worker's place; the weights of a run fix its backbone anyway."""
    tried: list[str] = []

    def try_backbone(name: str) -> list[Problem]:
        tried.append(name)
        return []

    manager = TrainingManager(tmp_path, try_backbone=try_backbone)
    assert manager.check(toy()).ok and tried == ["mobilenetv4_conv_small"]
    run = RunFolder.create(tmp_path, TrainConfig.parse(toy()), {"state": "stopped"})
    review = manager.check(toy(model={"backbone": "nowhere"}), run=run)
    assert [problem.code for problem in review.problems] == ["fixed_by_weights"] and len(tried) == 1


@pytest.mark.slow
def test_what_only_a_worker_can_see_comes_back_as_problems(toy: Toy, tmp_path: Path) -> None:
    """A11, A20: a metric that the task lacks, a callback that is not there: not ready, and why."""
    manager = manager_in(tmp_path)
    for over, field in (
        ({"training": {"monitor": "accuracy"}}, "training.monitor"),
        ({"training": {"callbacks": ["nowhere:Nothing"]}}, "training.callbacks.0"),
        ({"data": {"batch_size": 4096}}, "data.batch_size"),
    ):
        run = manager.apply(manager.check(toy(**over)), significant=True)
        with pytest.raises(ConfigInvalid) as caught:
            manager.wait_ready(run, timeout_s=120)
        assert [problem.field for problem in caught.value.problems] == [field]
        assert manager.state(run) == "failed"
        with pytest.raises(RunNotReady):
            manager.start(run)


@pytest.mark.slow
def test_a_second_training_waits_its_turn(toy: Toy, tmp_path: Path) -> None:
    """A26: one at a time on a device; the first one's end, however it comes, lets the next one begin."""
    manager = manager_in(tmp_path)
    first = ready(manager, toy(training={"epochs": 5000}))
    second = ready(manager, toy(training={"epochs": 1}))
    third = ready(manager, toy(training={"epochs": 3}))
    manager.start(first)
    wait_for(lambda: manager.state(first) == "running")
    manager.start(second)
    wait_for(lambda: manager.service.waiting(second.config()))
    manager.start(third)
    wait_for(lambda: len(manager.service.waiting(second.config())) == 2)
    assert [run.id for run in manager.service.waiting(second.config())] == [second.id, third.id]
    assert manager.state(second) == manager.state(third) == "queued"
    manager.command(third, "stop")
    assert manager.service.wait(third, timeout_s=20) == "stopped"
    os.killpg(first.description()["worker"]["pid"], signal.SIGKILL)
    assert manager.service.wait(second, timeout_s=120) == "finished"
    assert manager.state(first) == "crashed"


@pytest.mark.slow
def test_a_killed_worker_shows_as_crashed_and_can_go_on(toy: Toy, tmp_path: Path) -> None:
    """A34: at random moments of preparing, queueing and training, with loader processes; seen within ten seconds by
    a manager that did not start it, nothing of it left running, and resumable."""
    chance = random.Random(11)
    manager = manager_in(tmp_path)
    for _ in range(6):
        run = manager.apply(
            manager.check(toy(training={"epochs": 5000}, data={"workers": 2})), significant=True
        )
        started = chance.random() < 0.7
        if started:
            manager.wait_ready(run, timeout_s=120)
            manager.start(run)
        time.sleep(chance.uniform(0.0, 9.0))
        worker = run.description()["worker"]
        if worker:
            with suppress(ProcessLookupError):  # the check was done before
                os.kill(worker["pid"], signal.SIGKILL)
        killed = time.monotonic()
        stranger = manager_in(tmp_path)
        seen = stranger.service.wait(run, ("crashed", "ready"), timeout_s=10)
        assert time.monotonic() - killed < 10
        if seen == "ready":  # it was done before the kill
            continue
        group = worker.get("pid")
        wait_for(lambda group=group: not _living(group), 5)  # killed, and soon gone
        if started:
            stranger.resume(run)
            wait_for(lambda run=run: manager.state(run) == "running")
            stranger.command(run, "stop")
            assert stranger.service.wait(run, RESUMABLE, timeout_s=60) == "stopped"
        else:
            stranger.service.prepare(run)
            assert stranger.service.wait(run, timeout_s=120) == "ready"


def test_what_a_dead_worker_leaves_is_killed_before_the_worker_is_fetched() -> None:
    """A34: as a zombie it still has its number; the number of another process is left alone."""
    code = (
        "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read()"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with worker:
        left = psutil.Process(int(worker.stdout.readline()))  # type: ignore[union-attr]
        known = identity(worker.pid)
        worker.kill()
        wait_for(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE)
        assert end_orphans({**known, "begun": known["begun"] - 3600}) == 0
        assert left.is_running()
        assert end_orphans(known) == 1
        wait_for(lambda: not _living(worker.pid), 5)


def _living(group: int) -> list[psutil.Process]:
    """The processes of a group; a dead one that nobody has fetched yet is none."""
    found = []
    for process in psutil.process_iter():
        try:
            if _group(process) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


@pytest.mark.slow
def test_several_people_confirm_at_once(toy: Toy, tmp_path: Path) -> None:
    """C1, B28: eight threads, one base: each confirmation is whole, the others are refused and asked again."""
    manager_in(tmp_path).confirm(manager_in(tmp_path).check(toy()))
    done: list[int] = []

    def change(epochs: int) -> None:
        manager = manager_in(tmp_path)
        while True:
            review = manager.check(toy(training={"epochs": epochs}))
            try:
                manager.confirm(review, significant=True)
            except NotConfirmed:
                continue
            done.append(epochs)
            return

    threads = [threading.Thread(target=change, args=(epochs,)) for epochs in range(3, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = manager_in(tmp_path).log
    entries = log.operations(operation="config-change")[1:]
    assert sorted(done) == list(range(3, 11)) and log.verify().alteration is None
    links = [(entry.changes[0].old, entry.changes[0].new) for entry in entries]
    assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(links))


def test_a_run_that_cannot_go_on_is_not_changed(toy: Toy, tmp_path: Path) -> None:
    """C1, A34: refused before its configuration or the log is written; so is a command with an impossible number."""
    manager = manager_in(tmp_path)
    run = manager.service.create(TrainConfig.parse(toy()), {"state": "finished"})
    before = (run.path / "config.yaml").read_bytes()
    with pytest.raises(RunNotResumable, match=r"extend"):
        manager.check(toy(training={"epochs": 40}), run=run)
    run.describe({"state": "stopped"})
    review = manager.check(toy(training={"epochs": 40}), run=run)
    run.describe({"state": "finished"})
    with pytest.raises(RunNotResumable):
        manager.apply(review, significant=True)
    for value in (-5, None):
        with pytest.raises(ConfigInvalid):
            manager.command(run, "patience", value)
    assert (run.path / "config.yaml").read_bytes() == before and not manager.log.operations()


def test_a_worker_killed_in_line_leaves_no_ticket_in_its_own_way(toy: Toy, tmp_path: Path) -> None:
    """A26, A27: the run's next worker does not wait behind the dead one."""
    manager = manager_in(tmp_path)
    with Turns(tmp_path, "auto").at_once() as held:
        assert held
        run = manager.apply(manager.check(toy()), significant=True)
        manager.wait_ready(run, timeout_s=60)
        manager.start(run)
        line = Turns(tmp_path, "auto")
        wait_for(lambda: [each.id for each in line.waiting()] == [run.id])
        psutil.Process(run.description()["worker"]["pid"]).kill()
        wait_for(lambda: manager.state(run) == "crashed")
        manager.resume(run)
        wait_for(lambda: manager.state(run) == "queued" and len(line.waiting()) == 1)
    assert manager.service.wait(run, timeout_s=120) == "finished"


def test_a_ticket_that_is_being_written_keeps_its_place(tmp_path: Path) -> None:
    """A26: half a ticket is none yet; one without a living worker is cleared; two names of the first card are one line."""
    turns = Turns(tmp_path, "auto")
    (turns.folder / ".00000000000000000001-ab.0123456789abcdef.tmp").write_bytes(b"")
    (turns.folder / "00000000000000000002-ab").write_text(str(tmp_path / "gone"))
    assert turns.waiting() == [] and stale_tickets(tmp_path) == []
    assert len(list(turns.folder.iterdir())) == 1
    assert Turns(tmp_path, "cuda:0").lock.lock_file == turns.lock.lock_file
    assert Turns(tmp_path, "cuda:1").lock.lock_file != turns.lock.lock_file
