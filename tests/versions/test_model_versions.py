"""Model versions and aliases: numbered, proven, confirmed, logged, reversible; never half changed."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from smartcash.cli import main
from smartcash.domain.errors import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointWriteFailed,
    LabelsRefused,
    NotConfirmed,
    RunNotFound,
    RunNotResumable,
    VersionNotFound,
    VersionRefused,
)
from smartcash.domain.weighing import Figure
from smartcash.handlers.model_versions import ModelVersions
from smartcash.handlers.run_history import RunHistory
from smartcash.services.run_store import RunFolder
from smartcash.utils.i18n import set_language

Finished = Callable[..., RunFolder]
DOCS = Path(__file__).parents[2] / "docs"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def filled(home: Path, finished: Finished, count: int) -> ModelVersions:
    """A home with versions v1 to v`count`."""
    versions = ModelVersions(home)
    for seed in range(count):
        versions.register_run(finished(seed))
    return versions


def promote(versions: ModelVersions, number: int, alias: str = "produksi") -> None:
    versions.apply(versions.check_promote(number, alias))


def main_in_english(*arguments: str, code: int = 0) -> None:
    """`smartcash …`, which must end with this exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["--lang", "en", *arguments])
    set_language(None)
    assert int(ended.value.code or 0) == code


def roll_back(versions: ModelVersions, alias: str = "produksi", to: int | None = None) -> int:
    return versions.apply(versions.check_rollback(alias, to), significant=True).number


# registering


def test_a_run_becomes_a_version_with_its_lineage_and_a_copy_of_its_best_checkpoint(
    home: Path, finished: Finished
) -> None:
    """A15, A18."""
    run = finished(parent={"id": "earlier"})
    (best,) = run.weights.glob("*.pth")
    version = ModelVersions(home).register_run(run)
    assert (version.name, version.run, version.parent, version.epoch) == ("v1", run.id, "earlier", 2)
    assert sha256(home / "models/v1/model.pth") == version.sha256 == sha256(best)
    assert version.metrics == {"valid": run.description()["valid"], "test": {"mAP50_95": 0.7}}
    assert (version.threshold, version.config_hash, version.code) == (0.4, "beef", "abc1234")
    assert (version.data["content_hash"], version.environment["python"]) == ("c0ffee", "3.11")
    assert (version.tags, version.notes) == (("baseline",), "toy")
    assert version.config["name"] == "run 0"
    assert run.description()["version"] == 1
    assert ModelVersions(home).versions() == [version], "read back from the disk it must be the same"
    (entry,) = ModelVersions(home).log.operations()
    assert (entry.operation, entry.run, entry.version) == ("register", run.id, "v1")


def test_registering_a_run_again_changes_nothing(home: Path, finished: Finished) -> None:
    """A15."""
    versions, run = ModelVersions(home), finished()
    first = versions.register_run(run)
    assert versions.register_run(run) == versions.add(run.id) == versions.add("latest") == first
    assert versions.register_missing() == []
    assert len(versions.versions()) == len(versions.log.operations()) == 1


def test_what_was_missed_is_registered_oldest_first_and_what_was_deleted_stays_out(
    home: Path, finished: Finished
) -> None:
    """A15: also runs that finished before there were versions; not those that failed."""
    runs = [finished(seed) for seed in range(3)]
    failed = finished(9, state="failed")
    versions = ModelVersions(home)
    versions.register_run(runs[1])
    versions.apply(versions.check_delete(1), significant=True)
    assert [version.run for version in versions.register_missing()] == sorted([runs[0].id, runs[2].id])
    assert versions.add(failed.id).name == "v4", "on request any run becomes one"


def test_a_run_that_cannot_be_registered_does_not_keep_the_others_from_it(
    home: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """A15: the others are registered, and it is named; in Python and on the command line."""
    bad, first, second = (finished(seed) for seed in range(3))
    for file in bad.weights.glob("*.pth"):
        file.write_bytes(b"damaged")
    with pytest.raises(RunNotResumable, match=bad.id):
        ModelVersions(home).register_missing()
    assert {version.run for version in ModelVersions(home).versions()} == {first.id, second.id}
    third = finished(4)
    with pytest.raises(SystemExit) as ended:
        main(["models", "add"])
    shown = capsys.readouterr()
    assert ended.value.code == RunNotResumable.exit_code and bad.id in shown.err and "v3" in shown.out
    assert third.id in {version.run for version in ModelVersions(home).versions()}


@pytest.mark.parametrize("part", ["config", "classes", "preprocess", "ema_state_dict"])
def test_what_is_registered_and_what_predicts_agree_on_what_a_model_is(
    home: Path, finished: Finished, part: str
) -> None:
    """A15: no version that could not be used, none that could be is refused."""
    from smartcash.backend.predictor import Predictor
    from smartcash.handlers.checkpoint import CheckpointManager

    (best,) = finished().weights.glob("*.pth")
    state = dict(CheckpointManager(output_dir=str(best.parent)).load_checkpoint(best))
    state[part] = None
    with pytest.raises(CheckpointMismatch, match=part):
        ModelVersions(home)._add(best, state, None)
    with pytest.raises(CheckpointMismatch, match=part):
        Predictor.from_state(state)


def test_a_single_checkpoint_becomes_a_version_with_or_without_its_run(
    home: Path, finished: Finished
) -> None:
    run = finished()
    (best,) = run.weights.glob("*.pth")
    alone = home.parent / "from elsewhere.pth"
    alone.write_bytes(best.read_bytes())
    version = ModelVersions(home).add(str(alone))
    assert (version.run, version.config["name"], version.threshold) == ("", "run 0", 0.4)
    assert version.metrics["valid"]["mAP50_95"] == 0.75
    assert ModelVersions(home).add(str(best)) == version, "the same bytes are the same version"


def test_what_is_no_model_is_refused_by_name(home: Path, finished: Finished) -> None:
    import torch

    empty = RunFolder.create(home, finished().config(), {"state": "stopped"})
    junk, foreign = home / "junk.pth", home / "foreign.pth"
    junk.write_bytes(b"no checkpoint")
    torch.save({"epoch": 1, "model_state_dict": {}}, foreign)
    versions = ModelVersions(home)
    for name, error in (
        (empty.id, RunNotResumable), ("nothing", RunNotFound), (str(junk), CheckpointCorrupt),
        (str(foreign), CheckpointMismatch),
    ):  # fmt: skip
        with pytest.raises(error):
            versions.add(name)
    assert versions.versions() == []


def test_versions_registered_at_once_get_numbers_of_their_own(home: Path, finished: Finished) -> None:
    runs = [finished(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(lambda run: ModelVersions(home).register_run(run).number, runs))
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
    assert ModelVersions(home).verify() == []


# found by the run


def named(run: RunFolder, name: str) -> RunFolder:
    """The run under another name."""
    run.write_config(run.config().replaced(name=name))
    run.describe({"notes": name})  # a list reads a folder again whose run.json has changed
    return run


def test_a_run_means_the_version_that_was_made_of_it(home: Path, finished: Finished) -> None:
    """A17: by its id, the beginning of it, its folder, its name, or latest; an alias of that name goes before."""
    versions, first, second = ModelVersions(home), finished(0), finished(1)
    versions.register_run(second)
    versions.register_run(first)
    for name in (first.id, str(first.path), "run 0"):
        assert versions.find(name).name == "v2"
    assert versions.find("run 1").name == "v1"
    assert versions.find("latest").run == max(first.id, second.id)
    named(second, "produksi")
    promote(versions, 2)
    assert versions.find("produksi").name == "v2"


def test_of_an_extended_run_the_version_of_the_last_is_meant(home: Path, finished: Finished) -> None:
    versions, first = ModelVersions(home), finished(0)
    child = named(finished(1, parent={"id": first.id}), "run 0")
    versions.register_run(first)
    versions.register_run(child)
    assert versions.find("run 0").run == child.id


def test_an_extended_run_that_was_never_better_means_the_version_of_its_parent(
    home: Path, finished: Finished
) -> None:
    """B33, D3: its best checkpoint is the parent's; so the name of both still leads to it."""
    versions, first = ModelVersions(home), finished(0)
    child = named(finished(1, parent={"id": first.id}), "run 0")
    for file in child.weights.iterdir():
        file.unlink()
    for file in first.weights.iterdir():
        shutil.copy(file, child.weights)
    assert versions.register_run(first).name == versions.register_run(child).name == "v1"
    assert {versions.find(name).name for name in ("run 0", child.id, "latest")} == {"v1"}
    assert versions.missing() == []


def test_a_name_that_leads_to_no_version_or_several_says_which_there_are(
    home: Path, finished: Finished, english: None
) -> None:
    versions = filled(home, finished, 1)
    untaught = finished(1)
    with pytest.raises(VersionNotFound, match=rf"No model version was made of run {untaught.id} yet"):
        versions.find("run 1")
    named(untaught, "run 0")
    with pytest.raises(VersionNotFound, match=r"Several runs are meant by run 0.*: v1 \(") as caught:
        versions.find("run 0")
    assert "v2" not in str(caught.value)
    versions.register_run(untaught)
    with pytest.raises(VersionNotFound, match=rf"v2 \({untaught.id}\), v1 \("):
        versions.find("run 0")
    shutil.rmtree(untaught.weights)
    shutil.copytree(finished(7).weights, untaught.weights)  # another best one
    versions.register_run(untaught)
    with pytest.raises(VersionNotFound, match="v3, v2"):
        versions.find(untaught.id)
    for name in ("v9", "9", "nobody", "x" * 300, "..", "a\0b"):
        with pytest.raises(VersionNotFound, match=r"no model version, alias or run"):
            versions.find(name)
    twins = [named(finished(seed), "twin") for seed in (8, 9)]
    with pytest.raises(RunNotFound, match=twins[0].id):
        versions.find("twin")


def test_on_the_command_line_a_version_is_named_by_its_run(
    home: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(home, finished, 2)
    main_in_english("models", "promote", "run 1", "--alias", "produksi", "--yes")
    main_in_english("models", "tag", "run 1", "good")
    main_in_english("log", "--run", "run 1", "--operation", "promote")
    shown = capsys.readouterr().out
    assert "produksi is now v2\nv2: tags " in shown and "alias.produksi: – → v2" in shown
    main_in_english("models", "history", "kandidat", code=1)
    assert "There is no alias kandidat. Known: produksi." in capsys.readouterr().err
    main_in_english("log", "--run", "19990101-000000-abcd")
    assert "no such entry" in capsys.readouterr().out


def test_a_list_names_the_runs_of_its_versions_as_they_were_named(
    home: Path, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """A15: what a version may be called by stands in the list; where there is none, nothing is praised."""
    main_in_english("models", "verify")
    assert capsys.readouterr().out.startswith("There is no model version yet.")
    filled(home, finished, 1)
    main_in_english("models", "list")
    assert re.search(r"v1 +run 0 +detect", capsys.readouterr().out)
    main_in_english("models", "verify")
    assert "✓ 1 version and its aliases" in capsys.readouterr().out


# promoting and rolling back


def test_before_a_promotion_the_figures_of_both_stand_side_by_side(
    home: Path, finished: Finished, english: None
) -> None:
    """A16, A17: the test pictures' where both have them; what is worse is said, what is better is not."""
    versions = ModelVersions(home)
    versions.register_run(finished(0))
    versions.register_run(finished(1, valid={"mAP50_95": 0.1, "exact_sum": 0.9}, test={"mAP50_95": 0.2}))
    assert versions.check_promote(1, "produksi").weighing is None, "nobody has the alias yet"
    promote(versions, 1)
    weighing = versions.check_promote(2, "produksi").weighing
    assert weighing is not None and (weighing.old, weighing.new, weighing.split) == ("v1", "v2", "test")
    assert [(each.name, each.old, each.new) for each in weighing.figures] == [("mAP50_95", 0.7, 0.2)]
    assert weighing.worse == ["mAP50_95"] and weighing.verdict() == "v2 is worse than v1: mAP50-95."
    assert f"{Figure('mAP50', 0.9, 0.9 - 1e-9).difference:+.3f}" == "+0.000", "no worse than can be seen"
    promote(versions, 2)
    for review in (versions.check_promote(1, "produksi"), versions.check_rollback("produksi")):
        assert review.weighing is not None and review.weighing.verdict() == ""


def test_without_figures_of_test_pictures_those_of_validation_are_held_side_by_side(
    home: Path, finished: Finished
) -> None:
    """A16: a figure that only one of the two has is shown, and decides nothing."""
    versions = ModelVersions(home)
    versions.register_run(finished(0, test={}))
    versions.register_run(finished(1, valid={"mAP50_95": 0.1, "exact_sum": 0.9}))
    promote(versions, 1)
    weighing = versions.check_promote(2, "produksi").weighing
    assert weighing is not None and weighing.split == "valid" and weighing.worse == ["mAP50_95"]
    assert [(each.name, each.difference is None) for each in weighing.figures] == [
        ("mAP50_95", False), ("mAP50", True), ("exact_sum", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "hindrance", "told"),
    [
        ({"data": {"content_hash": "other"}}, "data_differs", "on different data"),
        ({"data": {}}, "data_unknown", "not recorded"),
    ],
)
def test_what_was_measured_on_different_data_is_not_compared(
    home: Path, finished: Finished, facts: dict[str, Any], hindrance: str, told: str
) -> None:
    """A16."""
    versions = ModelVersions(home)
    versions.register_run(finished(0))
    versions.register_run(finished(1, test={"mAP50_95": 0.2}, **facts))
    promote(versions, 1)
    weighing = versions.check_promote(2, "produksi").weighing
    assert weighing is not None and weighing.hindrance == hindrance and weighing.worse == []
    assert told in weighing.verdict("en") and "v1" in weighing.verdict("id")


def test_the_terminal_shows_the_figures_before_it_asks(
    home: Path, finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A16, A17: with --json on stderr, so that stdout stays for another program."""
    versions = ModelVersions(home)
    versions.register_run(finished(0))
    versions.register_run(finished(1, test={"mAP50_95": 0.2}))
    promote(versions, 1)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    main_in_english("models", "promote", "v2", "--alias", "produksi", code=3)
    shown = capsys.readouterr().out
    assert re.search(r"on the test pictures +v1 +v2 +difference", shown)
    assert re.search(r"mAP50-95 +0\.700 +0\.200 +-0\.500 ▼", shown)
    assert (
        "⚠ v2 is worse than v1: mAP50-95. Both on the same pictures, with intervals: smartcash compare v1 v2"
        in shown
    )
    assert shown.index("worse than") < shown.index("1 change:")
    main_in_english("models", "promote", "v2", "--alias", "produksi", "--yes", "--json")
    quiet = capsys.readouterr()
    assert json.loads(quiet.out)[0]["name"] == "v2" and "-0.500 ▼" in quiet.err


def test_an_alias_whose_version_cannot_be_read_can_still_be_given_to_another(
    home: Path, finished: Finished
) -> None:
    versions = filled(home, finished, 2)
    promote(versions, 1)
    (home / "models/v1/version.json").write_text("{}")
    review = versions.check_promote(2, "produksi")
    assert review.weighing is None and versions.apply(review).name == "v2"


def test_promoting_needs_the_token_of_exactly_this_change(home: Path, finished: Finished) -> None:
    """A12, A17."""
    versions = filled(home, finished, 2)
    review, other = versions.check_promote(1, "produksi"), versions.check_promote(2, "produksi")
    with pytest.raises(NotConfirmed):
        versions.apply(review, other.token)
    assert versions.aliases() == {}
    versions.apply(review, review.token)
    with pytest.raises(NotConfirmed):
        versions.apply(other)  # it was made when the alias was nobody's
    assert versions.aliases() == {"produksi": 1}


def test_rolling_back_and_deleting_need_a_second_confirmation(home: Path, finished: Finished) -> None:
    """A25, A17."""
    versions = filled(home, finished, 3)
    promote(versions, 1)
    promote(versions, 2)
    for review in (versions.check_rollback("produksi"), versions.check_delete(3)):
        assert review.significant
        with pytest.raises(NotConfirmed):
            versions.apply(review)
    assert versions.aliases() == {"produksi": 2} and len(versions.versions()) == 3


def test_a_roll_back_is_logged_and_can_be_taken_back(home: Path, finished: Finished) -> None:
    """A13, A17, D5."""
    versions = filled(home, finished, 2)
    promote(versions, 1)
    promote(versions, 2)
    versions.apply(versions.check_rollback("produksi"), significant=True, confirmed="--yes")
    assert versions.aliases() == {"produksi": 1}
    promote(versions, 2)
    assert versions.aliases() == {"produksi": 2}
    entries = versions.log.operations()[2:]
    assert [(e.operation, e.version, e.confirmed) for e in entries] == [
        ("promote", "v1", "token"), ("promote", "v2", "token"), ("roll-back", "v1", "--yes"), ("promote", "v2", "token"),
    ]  # fmt: skip
    (change,) = entries[2].changes
    assert (change.field, change.old, change.new) == ("alias.produksi", "v2", "v1")
    assert [event.seq for event in versions.history("produksi")] == [entry.seq for entry in entries]
    assert versions.log.verify().alteration is None


def test_two_roll_backs_go_two_versions_back(home: Path, finished: Finished) -> None:
    """A17."""
    versions = filled(home, finished, 4)
    for number in (1, 2, 3):
        promote(versions, number)
    assert [roll_back(versions), roll_back(versions)] == [2, 1]
    with pytest.raises(VersionRefused):
        versions.check_rollback("produksi")
    promote(versions, 3)
    assert roll_back(versions, to=2) == 2
    with pytest.raises(VersionRefused, match="v4"):
        versions.check_rollback("produksi", to=4)
    with pytest.raises(VersionRefused):
        versions.check_rollback("nobody")


def test_which_version_was_served_on_a_date_can_be_told(home: Path, finished: Finished) -> None:
    """A17, D5: also of a version that is gone."""
    versions = filled(home, finished, 2)
    promote(versions, 1)
    time.sleep(0.02)
    promote(versions, 2)
    first, second = (datetime.fromisoformat(event.time) for event in versions.history("produksi"))
    versions.apply(versions.check_delete(1), significant=True)
    moment = timedelta(milliseconds=1)
    assert versions.served("produksi", first - moment) is None
    assert versions.served("produksi", first) == versions.served("produksi", second - moment) == 1
    assert versions.served("produksi", second) == versions.served("produksi") == 2
    assert versions.served("produksi", datetime(2100, 1, 1, tzinfo=UTC)) == 2


@pytest.mark.parametrize(
    "alias", ["", "..", "a/b", "v3", "v", "latest", "Produksi", "a" * 33, "con", "é", "-a", "a b"]
)
def test_a_word_that_could_mean_something_else_is_no_alias(
    home: Path, finished: Finished, alias: str
) -> None:
    versions = filled(home, finished, 1)
    with pytest.raises(VersionRefused):
        versions.check_promote(1, alias)
    assert sorted(path.name for path in (home / "models").iterdir()) == ["v1"]


def test_deleting_is_refused_for_what_is_in_use_or_locked_and_its_number_is_not_given_again(
    home: Path, finished: Finished
) -> None:
    """A17."""
    versions = filled(home, finished, 2)
    promote(versions, 1)
    versions.lock("v2")
    for number in (1, 2):
        with pytest.raises(VersionRefused):
            versions.check_delete(number)
    versions.unlock("v2")
    versions.apply(versions.check_delete(2), significant=True)
    assert not (home / "models/v2").exists()
    with pytest.raises(VersionNotFound):
        versions.find("v2")
    assert versions.register_run(finished(5)).name == "v3"


def test_tags_notes_and_lock_are_logged_once(home: Path, finished: Finished) -> None:
    versions = filled(home, finished, 1)
    before = sha256(home / "models/v1/version.json")
    versions.tag("v1", ["good"], ["baseline"])
    versions.tag("1", ["good"])
    versions.note("v1", "tested at the counter")
    version = versions.lock("v1")
    assert versions.versions() == [version]
    assert (version.tags, version.notes, version.locked) == (("good",), "tested at the counter", True)
    assert [entry.operation for entry in versions.log.operations()] == ["register", "tag", "note", "lock"]
    assert sha256(home / "models/v1/version.json") == before, "what a version is never changes"


# the files


def reader(language: str) -> Callable[[Path], tuple[bytes, dict[str, Any]]]:
    """The reader in the documentation, as it stands there."""
    page = (DOCS / language / "versions.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(import hashlib.*?)```", page, re.DOTALL)[0], names)
    read: Callable[[Path], tuple[bytes, dict[str, Any]]] = names["read_alias"]
    return read


@pytest.mark.parametrize("language", ["en", "id"])
def test_a_program_that_watches_an_alias_never_gets_a_mixed_pair(
    home: Path, finished: Finished, language: str
) -> None:
    """A17: the documentation's reader, while the alias goes back and forth."""
    versions = filled(home, finished, 2)
    promote(versions, 1)
    wanted = {version.sha256: version.number for version in versions.versions()}
    read, seen, over = reader(language), [], threading.Event()

    def watch() -> None:
        while not over.is_set():
            data, facts = read(home / "models/produksi")
            seen.append((hashlib.sha256(data).hexdigest(), facts["version"]))

    with ThreadPoolExecutor(2) as pool:
        watching = [pool.submit(watch) for _ in range(2)]
        for turn in range(30):
            promote(versions, 2 - turn % 2)
        over.set()
        for each in watching:
            each.result()
    assert {number for _, number in seen} == {1, 2}
    assert all(wanted[digest] == number for digest, number in seen)


KILLS = Path(__file__).with_name("kill_runner.py")


@pytest.mark.skipif(sys.platform == "win32", reason="the children are forked")
@pytest.mark.parametrize("act", ["promote", "roll-back", "delete", "register", "note"])
def test_a_kill_at_any_file_call_leaves_the_old_or_the_new_and_the_next_change_clears_up(
    home: Path, finished: Finished, act: str
) -> None:
    """D2, A17: at every open, write, fsync, rename and unlink of a change."""
    versions = filled(home, finished, 3)
    promote(versions, 1)
    promote(versions, 2)
    (best,) = finished(7).weights.glob("*.pth")
    done = subprocess.run(
        [sys.executable, KILLS, act, home, best], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= 10, "so many places to be killed at"


def test_verify_names_every_file_that_is_not_as_it_was_written(home: Path, finished: Finished) -> None:
    """A17, D4: model, record, alias and history; a run that is still there puts its model back."""
    runs = [finished(seed) for seed in range(3)]
    versions = ModelVersions(home)
    for run in runs:
        versions.register_run(run)
    promote(versions, 1)
    assert versions.verify() == []
    model = home / "models/v2/model.pth"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    record = home / "models/v3/version.json"
    record.write_text(record.read_text().replace("0.75", "0.95"))
    (home / "models/produksi/model.pth").write_bytes(b"another")
    book = home / "versions.json"
    book.write_text(book.read_text().replace('"promote"', '"roll-back"'))
    found = {finding.code for finding in versions.verify()}
    assert found == {"model", "record", "alias", "unlogged"}
    assert all(finding.message(language) for finding in versions.verify() for language in ("id", "en"))
    with pytest.raises(CheckpointCorrupt):
        versions.apply(versions.check_promote(2, "produksi"))
    assert versions.register_run(runs[1]).name == "v2"
    assert "model" not in {finding.code for finding in versions.verify()}


def test_a_damaged_versions_file_stops_changes_and_says_where(home: Path, finished: Finished) -> None:
    versions = filled(home, finished, 1)
    (home / "versions.json").write_text("[]")
    with pytest.raises(VersionRefused, match=re.escape(str(home / "versions.json"))):
        versions.check_promote(1, "produksi")


@pytest.mark.parametrize("file", ["versions.json", "models/v1/version.json"])
def test_a_file_of_a_later_format_is_named_and_left_alone(
    home: Path, finished: Finished, file: str, english: None
) -> None:
    """D4: an older SmartCash neither reads it as its own nor writes over it."""
    versions = filled(home, finished, 1)
    facts = {**json.loads((home / file).read_text()), "format": 2, "signed": True}
    facts.pop("check", None)
    check = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    (home / file).write_text(json.dumps({**facts, "check": check}))
    before = (home / file).read_bytes()
    with pytest.raises(VersionRefused, match="newer SmartCash"):
        promote(versions, 1)
    assert (home / file).read_bytes() == before


def test_a_disk_that_refuses_leaves_the_alias_where_it_was(home: Path, finished: Finished) -> None:
    """B29, A17: the copy is made before anything is recorded."""
    versions = filled(home, finished, 2)
    promote(versions, 1)
    review = versions.check_promote(2, "kandidat")
    (home / "models/kandidat").write_text("a file where the folder should be")
    with pytest.raises(CheckpointWriteFailed):
        versions.apply(review)
    assert versions.aliases() == {"produksi": 1}
    assert len(versions.log.operations()) == 3


def test_an_alias_that_a_full_disk_cannot_mend_does_not_keep_a_version_from_being_deleted(
    home: Path, finished: Finished
) -> None:
    """B29: deleting is what makes room."""
    versions = filled(home, finished, 2)
    promote(versions, 1)
    shutil.rmtree(home / "models/produksi")
    (home / "models/produksi").write_text("a file where the folder should be")
    versions.apply(versions.check_delete(2), significant=True)
    assert [version.name for version in versions.versions()] == ["v1"]
    assert {finding.code for finding in versions.verify()} == {"alias"}


@pytest.mark.parametrize("tag", ["", " ", "a" * 41, "\x1b[31mred", "two\nlines", "\u202eback"])
def test_a_tag_that_a_terminal_would_obey_or_that_is_too_long_is_refused(
    home: Path, finished: Finished, tag: str
) -> None:
    """A33: of a version as of a run."""
    versions = filled(home, finished, 1)
    with pytest.raises(LabelsRefused):
        versions.tag("v1", [tag])
    with pytest.raises(LabelsRefused):
        RunHistory(home).tag("latest", [tag])
    assert [entry.operation for entry in versions.log.operations()] == ["register"]


def test_an_older_versions_file_put_back_gives_no_number_again(home: Path, finished: Finished) -> None:
    """A15: neither of a folder that is there nor of a version that an alias had."""
    versions = filled(home, finished, 1)
    book = home / "versions.json"
    older = book.read_bytes()
    versions.register_run(finished(1))
    book.write_bytes(older)
    assert versions.register_run(finished(2)).name == "v3"
    promote(versions, 3)
    facts = json.loads(book.read_text()) | {"next_number": 1}
    book.write_text(json.dumps(facts))
    shutil.rmtree(home / "models/v3")
    assert versions.register_run(finished(3)).name == "v4"


# the command line


def test_the_day_of_a_date_belongs_to_it(
    home: Path, finished: Finished, english: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """D5: `history --at` tells which version had the alias at the end of that day; `runs list --until` leaves none of
    its runs out."""
    versions = filled(home, finished, 1)
    promote(versions, 1)
    today = datetime.now().astimezone().date()

    def answer(*words: str) -> str:
        with pytest.raises(SystemExit):
            main(list(words))
        return capsys.readouterr().out

    assert "was v1" in answer("models", "history", "produksi", "--at", today.isoformat())
    assert "v1" not in answer("models", "history", "produksi", "--at", f"{today.isoformat()}T00:00")
    run = versions.versions()[0].run
    day = datetime.fromisoformat("2026-11-01T08:00:00+00:00").astimezone().date()  # when it was started
    assert run in answer("runs", "list", "--until", day.isoformat(), "--json")
    assert run not in answer("runs", "list", "--until", (day - timedelta(days=1)).isoformat(), "--json")


def test_the_command_line_shows_promotes_and_rolls_back(
    home: Path,
    finished: Finished,
    english: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A17, A33: one command; without a confirmation nothing changes, exit code 3."""
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody answers
    filled(home, finished, 2)

    def answer(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["models", *words])
        return int(ended.value.code or 0), capsys.readouterr().out

    assert "v2" in answer("list")[1]
    assert answer("promote", "v1", "--alias", "produksi")[0] == 3
    assert answer("promote", "v1", "--alias", "produksi", "--yes")[1].endswith("produksi is now v1\n")
    answer("promote", "v2", "--alias", "produksi", "--yes")
    assert answer("rollback", "produksi")[0] == 3
    code, out = answer("rollback", "produksi", "--yes", "--json")
    assert (code, json.loads(out)[0]["aliases"]) == (0, ["produksi"])
    assert [event["version"] for event in json.loads(answer("history", "produksi", "--json")[1])] == [1, 2, 1]
    assert "was v1" in answer("history", "produksi", "--at", "2100-01-01")[1]
    assert json.loads(answer("show", "produksi", "--json")[1])["name"] == "v1"
    assert "c0ffee" in answer("show", "v2")[1]
    answer("tag", "v2", "good")
    answer("note", "v2", "dark photos are weak")
    answer("lock", "v2")
    assert [v["name"] for v in json.loads(answer("list", "--tag", "good", "--json")[1])] == ["v2"]
    assert answer("delete", "v2", "--yes")[0] == 1
    answer("unlock", "v2")
    assert answer("delete", "v2", "--yes")[0] == 0
    assert answer("add")[0] == 0
    assert answer("verify")[0] == 0
    (home / "models/v1/model.pth").unlink()
    code, out = answer("verify", "--json")
    assert (code, [finding["code"] for finding in json.loads(out)["findings"]]) == (1, ["model"])
    assert answer("show", "v9")[0] == 2
