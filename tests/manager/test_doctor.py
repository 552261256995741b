"""`smartcash doctor`: what is wrong is found, said in both languages, and put right without a loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from smartcash import TrainConfig, TrainingManager
from smartcash.domain.records import Operation
from smartcash.handlers.checkpoint import CheckpointManager
from smartcash.handlers.doctor import Diagnosis, examine
from smartcash.services.processes import identity
from smartcash.services.run_store import RunFolder, RunStore
from smartcash.utils.files import temporary_beside
from smartcash.utils.i18n import LANGUAGES, catalogue

TORCH = {
    "torch": torch.__version__,
    "device": "cpu",
    "precision": "float32",
    "weights": ["efficientnet_lite0"],
}


def found(home: Path, **options: bool) -> dict[str, Diagnosis]:
    return {finding.code: finding for finding in examine(home, TORCH, **options)}


def wrong(home: Path, **options: bool) -> set[str]:
    return {code for code, finding in found(home, **options).items() if finding.wrong}


def finished(home: Path) -> RunFolder:
    """A run that has ended, with two checkpoints."""
    run = RunFolder.create(home, TrainConfig(), {"state": "finished", "ended": "2026-11-01T08:10:00+00:00"})
    run.describe({"state": "finished"})
    with CheckpointManager(run.weights) as manager:
        for epoch in (1, 2):
            manager.save_checkpoint(nn.Linear(40, 40), epoch=epoch, metrics={"loss": 1 / epoch})
    return run


def dead_worker() -> dict[str, Any]:
    """The identity of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = identity(process.pid)
    process.communicate()
    return known


def test_extras_are_named_together_and_one_that_is_too_old_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A28, D7: what most people never need takes a line, not a page; what is too old is told with what it should be."""
    there = {
        "click": "9.0",
        "numba": "1.0",
        "wandb": "0.1",
        "sqlalchemy": "1.4",
    }  # the last one is there for something else

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr("smartcash.handlers.doctor.version", version)
    findings = found(tmp_path)
    assert findings["extras"].facts == {"extras": "fast"}
    assert findings["extra_old"].facts == {"extra": "wandb", "packages": "wandb>=0.19"}
    absent = findings["extras_missing"].facts["extras"].split(", ")
    assert {"onnx", "mlflow"} < set(absent) and not {"fast", "wandb"} & set(absent)


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    """A home with one of every illness."""
    home = tmp_path / "home"
    TrainingManager(home).confirm(TrainingManager(home).check({"data": {"path": str(tmp_path)}}))
    whole, edited, broken, dead, damaged = (finished(home) for _ in range(5))
    (broken.path / "run.json").write_text("{")
    dead.describe({"state": "running", "worker": dead_worker()})
    line = home / ".queue" / "default"
    line.mkdir(parents=True)
    (line / "00001-abcd").write_text(json.dumps({"run": str(dead.path), "worker": dead_worker()}))
    (line / "00002-abcd").write_text("no ticket")
    litter = temporary_beside(whole.path / "run.json")
    litter.write_text("{")
    os.utime(litter, (time.time() - 3600, time.time() - 3600))
    temporary_beside(whole.path / "config.yaml").write_text("a write that is going on")
    RunStore(home).runs()
    edited.write_config(TrainConfig(name="edited by hand"))
    newest = max(damaged.weights.glob("*.pth"))
    newest.write_bytes(newest.read_bytes()[:-100])
    return home


def test_a_sound_home_is_healthy(tmp_path: Path) -> None:
    """A24, A29: machine, packages, precision, weights, log, index, data, checkpoints."""
    home = tmp_path / "home"
    TrainingManager(home).confirm(TrainingManager(home).check({"data": {"path": str(tmp_path)}}))
    finished(home)
    findings = found(home, deep=True)
    assert not {code for code, finding in findings.items() if finding.wrong}
    assert {
        "python",
        "cores",
        "memory",
        "disk",
        "language",
        "packages",
        "torch",
        "weights",
        "runs",
        "log",
    } <= set(findings)
    assert findings["data"].facts["path"] == str(tmp_path)
    assert findings["checkpoints_read"].facts["count"] == 2 and findings["log"].facts["count"] == 1


def test_every_illness_is_found_and_nothing_is_touched(sick: Path) -> None:
    """A29, B33."""
    before = {path: path.read_bytes() for path in sorted(sick.rglob("*.json*")) if path.is_file()}
    expected = {
        *("run_broken", "run_dead", "tickets_stale", "litter", "index_stale"),
        "checkpoints_damaged",
    }
    findings = found(sick)
    assert {code for code, finding in findings.items() if finding.wrong} == expected
    assert findings["tickets_stale"].facts["count"] == 2 and findings["litter"].facts["count"] == 1
    assert {path: path.read_bytes() for path in before} == before
    for finding in findings.values():
        for language in LANGUAGES:
            assert finding.message(language)
            assert bool(finding.advice(language)) == (finding.severity != "ok")


def test_what_can_be_put_right_is_and_what_was_done_is_said(sick: Path) -> None:
    """A29, A34, B33: only what needs a person is left."""
    findings = found(sick, fix=True)
    fixed = {code for code, finding in findings.items() if finding.fixed}
    assert fixed == {"run_dead", "tickets_stale", "litter", "index_stale", "checkpoints_damaged"}
    assert all(finding.advice(each) for finding in findings.values() if finding.fixed for each in LANGUAGES)
    assert wrong(sick) == {"run_broken"}
    run = findings["run_dead"].facts["run"]
    assert TrainingManager(sick).state(run) == "crashed"
    damaged = Path(findings["checkpoints_damaged"].facts["folder"])
    assert list(damaged.glob("quarantine/*.pth")) and len(list(damaged.glob("*.pth"))) == 1
    assert [run.name for run in RunStore(sick).runs() if run.name] == ["edited by hand"]
    assert list(sick.glob("detect/*/.config.yaml.*.tmp")) or list(sick.glob("auto/*/.config.yaml.*.tmp"))


def test_a_run_that_the_doctor_marks_as_crashed_does_not_make_the_index_stale(tmp_path: Path) -> None:
    """A29: its own mending is no illness."""
    dead = finished(tmp_path)
    dead.describe({"state": "running", "worker": dead_worker()})
    assert {code for code, finding in found(tmp_path, fix=True).items() if finding.fixed} == {"run_dead"}
    assert wrong(tmp_path) == set()


def test_weights_of_another_program_are_no_illness_and_stay(tmp_path: Path) -> None:
    """B33: nobody here can mend them, so nothing is promised."""
    foreign = finished(tmp_path).weights / "resnet18.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, foreign)
    for options in ({}, {"deep": True}, {"deep": True, "fix": True}):
        assert wrong(tmp_path, **options) == set() and foreign.exists()


def test_what_cannot_be_read_is_a_finding_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    """A24, A29: a log that is a folder, checkpoints that are a file, a place that is gone by now."""
    first, second = finished(tmp_path), finished(tmp_path)
    newest = max(second.weights.glob("*.pth"))
    newest.write_bytes(newest.read_bytes()[:-100])
    history = first.weights / "training_history.yaml"
    history.unlink(missing_ok=True)
    history.mkdir()
    (tmp_path / "operations.jsonl").mkdir()
    findings = list(examine(tmp_path, TORCH))
    reasons = [finding.message() for finding in findings if finding.code == "unreadable"]
    assert any("operations.jsonl" in reason for reason in reasons)
    assert any(finding.code == "checkpoints_damaged" for finding in findings)
    assert findings[-1].code in ("checkpoints", "checkpoints_damaged", "unreadable"), "it came to the end"


def test_a_checkpoint_of_the_right_size_with_other_bytes_is_found_by_reading_it(tmp_path: Path) -> None:
    """B18, B33: --deep."""
    run = finished(tmp_path)
    file = max(run.weights.glob("*.pth"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert wrong(tmp_path) == set()
    assert wrong(tmp_path, deep=True) == {"checkpoints_damaged"}


def test_an_altered_log_and_lost_data_are_said_but_not_mended(tmp_path: Path) -> None:
    """A13, A24."""
    home, data = tmp_path / "home", tmp_path / "data"
    data.mkdir()
    manager = TrainingManager(home)
    manager.confirm(manager.check({"data": {"path": str(data)}}))
    manager.log.append(Operation("note", "x"))
    data.rmdir()
    altered = manager.log.path.read_text().replace('"note"', '"lock"')
    manager.log.path.write_text(altered)
    assert wrong(home, fix=True) == {"log_altered", "data_missing"}
    assert manager.log.path.read_text() == altered
    (home / "confirmed.json").write_text("{}")
    assert "confirmed_broken" in wrong(home)


def test_missing_torch_is_an_error_with_its_reason(tmp_path: Path) -> None:
    """A24: a torch that cannot be loaded does not stop the doctor."""
    findings = {finding.code: finding for finding in examine(tmp_path / "none", "ImportError: libgomp")}
    assert findings["torch_broken"].wrong and "libgomp" in findings["torch_broken"].message()
    assert findings["home_missing"].severity == "note"


def test_every_finding_has_its_words() -> None:
    """A33: a text, and a way out or what was done."""
    texts = catalogue("en")
    for key in texts:
        area, _, code = key.rpartition(".")
        if area in ("doctor.advice", "doctor.done"):
            assert f"doctor.{code}" in texts, key
    done = {key.rpartition(".")[2] for key in texts if key.startswith("doctor.done.")}
    assert done <= {key.rpartition(".")[2] for key in texts if key.startswith("doctor.advice.")}


def doctor(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "smartcash", "doctor", "--home", str(home), *options],
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


def test_the_command_answers_with_its_exit_code_and_as_json(sick: Path) -> None:
    """A24: 0 fine, 1 something is wrong."""
    answer = doctor(sick, "--json")
    report = json.loads(answer.stdout)
    assert answer.returncode == 1 and not report["healthy"]
    torch_row = next(row for row in report["findings"] if row["code"] == "torch")
    assert torch_row["facts"]["torch"] == torch.__version__
    assert all(row["message"] for row in report["findings"])
    (
        next(Path(row["facts"]["path"]) for row in report["findings"] if row["code"] == "run_broken")
        / "run.json"
    ).unlink()
    answer = doctor(sick, "--fix", "--lang", "id")
    assert "Mesin" in answer.stdout and "Traceback" not in answer.stderr
    assert "Dibereskan sekarang: " in answer.stdout
    assert "Dibereskan" not in doctor(sick, "--lang", "id").stdout, "nothing is said of nothing"
