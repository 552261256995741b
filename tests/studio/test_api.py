"""What the page reads and changes, over HTTP, from a real server."""

from __future__ import annotations

import csv
import io
import itertools
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from studio_process import StudioProcess, made_run, step, write_events

from smartcash.domain.config import TrainConfig, field_names
from smartcash.domain.events import Commanded, RunResumed, Warned
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.run_store import RunFolder, find_run


@pytest.fixture
def first(client: httpx.Client) -> str:
    """The id of the finished run."""
    return client.get("runs", params={"search": "first"}).json()["runs"][0]["id"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    """A server over a home in which nothing was ever done."""
    home = tmp_path_factory.mktemp("fresh") / "runs"
    process = StudioProcess(home)
    with process.client() as client:
        yield client, home
    process.end()


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of a response that must be this one."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    facts = response.json()
    assert (response.status_code, facts["code"], facts["status"]) == (status, code, status), facts
    assert facts["detail"] and facts["title"]
    return facts


# --- configuration


def test_the_form_knows_every_field_with_its_help_in_both_languages(client: httpx.Client) -> None:
    """A2, A3, A33."""
    english, indonesian = (
        client.get("config/schema", params={"lang": language}).json()["fields"] for language in ("en", "id")
    )
    assert [field["field"] for field in english] == field_names()
    assert all(field["text"] for field in (*english, *indonesian))
    assert (
        sum(a["text"] == b["text"] for a, b in zip(english, indonesian)) <= 2
    )  # such as "auto, cpu, cuda:1"
    by_name = {field["field"]: field for field in english}
    assert by_name["optimizer.lr"]["kind"] == "number" and by_name["optimizer.lr"]["auto"]
    assert by_name["optimizer.lr"]["significant"] == "optimization"
    assert by_name["training.epochs"]["minimum"] == 1 and by_name["training.epochs"]["kind"] == "integer"
    assert by_name["schedule.name"]["choices"][0] == "cosine"
    assert by_name["training.max_hours"]["nullable"] and by_name["data.balance"]["kind"] == "boolean"


def test_a_check_names_each_field_by_its_pointer_and_changes_nothing(
    fresh: tuple[httpx.Client, Path],
) -> None:
    """A11: all problems at once, as a form needs them."""
    client, home = fresh
    values = {"data": {"path": ""}, "optimizer": {"lr": -1}, "training": {"epochs": "many"}}
    review = client.post("config/check", json={"values": values}).json()
    assert not review["ok"] and not review["confirm_token"]
    assert {each["pointer"] for each in review["problems"]} >= {"/optimizer/lr", "/training/epochs"}
    assert all(each["message"] for each in review["problems"])
    assert not (home / "confirmed.json").exists() and not (home / "operations.jsonl").exists()


def test_a_mistyped_backbone_is_shown_at_its_field(client: httpx.Client, home: Path) -> None:
    """A11: before anything is confirmed."""
    values = {"data": {"path": str(home)}, "model": {"backbone": "efficientnet_lit0"}}
    (problem,) = client.post("config/check", json={"values": values}).json()["problems"]
    assert problem["pointer"] == "/model/backbone" and "efficientnet_lite0" in problem["message"]


def test_numbers_may_be_typed_with_a_comma(client: httpx.Client, home: Path) -> None:
    """A11: `0,001` and `0.001` are one number; `0,0,1` is none."""
    for typed in ("0,001", "0.001", "1e-3", ".001"):
        review = client.post(
            "config/check", json={"values": {"data": {"path": str(home)}, "optimizer": {"lr": typed}}}
        )
        assert review.json()["config"]["optimizer"]["lr"] == 0.001, typed
    review = client.post(
        "config/check", json={"values": {"data": {"path": str(home)}, "optimizer": {"lr": "0,0,1"}}}
    )
    assert [each["field"] for each in review.json()["problems"]] == ["optimizer.lr"]


def test_a_configuration_is_applied_only_as_it_was_shown_and_confirmed(
    fresh: tuple[httpx.Client, Path],
) -> None:
    """A12, A13, A25, C1: every status of the confirmation protocol, and the entry in the log."""
    client, home = fresh
    values: dict[str, Any] = {"data": {"path": str(home.parent)}, "training": {"epochs": 2}}

    def put(over: dict[str, Any], etag: str = "", **more: Any) -> httpx.Response:
        headers = {"if-match": etag} if etag else {}
        return client.put("config", json={"values": {**values, **over}, **more}, headers=headers)

    etag = client.get("config").headers["etag"]
    review = client.post("config/check", json={"values": values}).json()
    assert review["first"] and review["etag"] == etag
    problem(put({}, confirm_token=review["confirm_token"]), 428, "precondition_missing")
    shown = problem(put({}, etag), 428, "unconfirmed")["review"]
    assert shown["confirm_token"] == review["confirm_token"] and shown["changes"] == review["changes"]
    problem(put({}, etag, confirm_token="0" * 64), 409, "token_stale")
    problem(put({"seed": 3}, etag, confirm_token=review["confirm_token"]), 409, "token_stale")
    problem(put({"optimizer": {"lr": 99}}, etag, confirm_token="x"), 422, "config_invalid")
    done = put({}, etag, confirm_token=review["confirm_token"])
    assert done.status_code == 200 and done.headers["etag"] != etag
    problem(put({}, etag, confirm_token=review["confirm_token"]), 412, "config_stale")

    new = {"optimizer": {"lr": 0.01}}
    review = client.post("config/check", json={"values": {**values, **new}}).json()
    (change,) = review["changes"]
    assert (
        change["significant"] and change["why"] == "optimization" and change["why_text"] and change["label"]
    )
    etag, token = review["etag"], review["confirm_token"]
    problem(put(new, etag, confirm_token=token), 428, "significant_unconfirmed")
    assert put(new, etag, confirm_token=token, significant=True).status_code == 200
    entries = OperationLog(home / "operations.jsonl").operations()
    assert [entry.operation for entry in entries] == ["config-change"] * 2
    assert [(c.field, c.old, c.new) for c in entries[-1].changes] == [("optimizer.lr", "auto", 0.01)]
    assert entries[-1].confirmed == "token" and entries[-1].who.interface == "web"


def test_a_stopped_runs_configuration_is_changed_with_the_same_protocol(
    client: httpx.Client, home: Path
) -> None:
    """A12, D13."""
    run = made_run(home, "stopped")
    values = run.config().replaced(training={"max_hours": 2.0}).model_dump(mode="json")
    review = client.post("config/check", json={"values": values, "run": run.id}).json()
    assert [change["field"] for change in review["changes"]] == ["training.max_hours"]
    body = {"values": values, "run": run.id, "confirm_token": review["confirm_token"]}
    assert client.put("config", json=body, headers={"if-match": '"other"'}).status_code == 412
    assert client.put("config", json=body, headers={"if-match": review["etag"]}).status_code == 200
    assert run.config().training.max_hours == 2.0
    assert client.get(f"runs/{run.id}").json()["config_etag"] == f'"{run.config().hash()}"'


def test_a_run_is_shown_with_what_it_was_asked_for_and_with_what_became_of_it(
    client: httpx.Client, home: Path, tmp_path: Path
) -> None:
    """A1, A14: a link in a folder that came from elsewhere is not followed."""
    asked = TrainConfig.parse({"data": {"path": str(home)}, "training": {"epochs": 2}})
    run = made_run(home, "stopped", config=asked)
    run.write_config(asked.replaced(task="detect", data={"batch_size": 7}, schedule={"warmup_epochs": 0.5}))
    found = client.get(f"runs/{run.id}").json()
    assert (found["asked"]["data"]["batch_size"], found["config"]["data"]["batch_size"]) == ("auto", 7)
    assert found["asked"]["task"] == "auto" and found["version_kept"] is None
    (tmp_path / "other.yaml").write_text("seed: 99\n")
    (run.path / "asked.yaml").unlink()
    (run.path / "asked.yaml").symlink_to(tmp_path / "other.yaml")
    assert client.get(f"runs/{run.id}").json()["asked"]["seed"] == 0
    (run.path / "asked.yaml").unlink()
    (run.path / "asked.yaml").write_text("epochs: 3\n")
    found = client.get(f"runs/{run.id}").json()
    assert found["asked"] is None and [each["code"] for each in found["problems"]] == ["field_unknown"]


@pytest.mark.parametrize("name", ["standard", "quick", "thorough", "frugal"])
def test_every_preset_is_a_valid_configuration(client: httpx.Client, home: Path, name: str) -> None:
    presets = {each["name"]: each for each in client.get("config/presets").json()["presets"]}
    values = {**presets[name]["values"]}
    values["data"] = {**values.get("data", {}), "path": str(home)}
    assert client.post("config/check", json={"values": values}).json()["ok"]


# --- runs


def test_runs_are_filtered_sorted_and_paged_by_the_server(
    client: httpx.Client, home: Path, first: str
) -> None:
    """A30."""

    def ids(**asked: Any) -> list[str]:
        return [run["id"] for run in client.get("runs", params=asked).json()["runs"]]

    every = ids(sort="id")
    assert ids(sort="-id") == every[::-1] and len(every) >= 2
    assert (
        list(itertools.chain.from_iterable(ids(sort="id", limit=1, offset=n) for n in range(len(every))))
        == every
    )
    assert ids(tag="baseline") == ids(where="mAP50>=0.3") == ids(search="FIRST") == [first]
    assert ids(where=["mAP50>=0.3", "mAP50<=0.2"]) == [] and ids(state="failed")[0] in every
    problem(client.get("runs", params={"where": "mAP50"}), 422, "config_invalid")
    problem(client.get("runs", params={"sort": "colour"}), 422, "request_invalid")


def test_from_a_run_one_reaches_everything_about_it(client: httpx.Client, first: str) -> None:
    """A14, A18, A22: config, changes, figures, previews, files."""
    run = client.get(f"runs/{first}").json()
    assert run["info"]["state"] == "finished" and run["actions"] == ["extend"]
    assert not run["saved"], "the page then offers to start over, not to resume"
    assert run["config"]["training"]["epochs"] == 3 and run["report"]["valid"] == {"mAP50": 0.3}
    assert run["values"] == {"1000": 1000, "50000": 50000} and run["previews"] == {
        "epochs": [1],
        "pictures": 1,
    }
    assert run["seq"] == 40 and run["progress"] is None
    (picture,) = client.get(f"runs/{first}/previews").json()["pictures"]
    answer = client.get(f"../../{picture['url']}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert client.get(f"runs/{first}/previews/1").json()["pictures"] == [{"found": []}]
    problem(client.get(f"runs/{first}/previews/7"), 404, "run_file_missing")
    for file in client.get(f"runs/{first}/files").json()["files"]:
        answer = client.get(f"../../{file['url']}")
        assert len(answer.content) == file["size"]


def test_a_run_that_is_trained_shows_its_progress_and_its_patience(client: httpx.Client, home: Path) -> None:
    """A4, A20: epoch, step, time left, patience left, from the last events alone."""
    stopping = {"patience": 4, "monitor": "mAP50", "mode": "max"}
    config = TrainConfig.parse({"task": "detect", "training": {"epochs": 5, "early_stopping": stopping}})
    run = made_run(home, "running", config=config)
    try:
        run.write_epochs([{"epoch": 1, "mAP50": 0.5}, {"epoch": 2, "mAP50": 0.4}, {"epoch": 3, "mAP50": 0.3}])
        write_events(run, *(step(number) for number in range(1, 36)))
        progress = client.get(f"runs/{run.id}").json()["progress"]
        assert (progress["epoch"], progress["step"], progress["steps"]) == (4, 5, 10)
        assert (progress["share"], progress["eta_s"], progress["phase"]) == (0.7, 10.0, "train")
        assert (progress["patience"], progress["patience_left"]) == (4, 2)
        started = client.post("runs", json={"values": {"data": {"path": str(home)}}})
        assert started.status_code == 428  # what changes is confirmed first
        token = started.json()["review"]["confirm_token"]
        started = client.post("runs", json={"values": {"data": {"path": str(home)}}, "confirm_token": token})
        assert problem(started, 409, "run_active_already")["params"] == {"run": run.id}
        problem(client.post(f"runs/{run.id}/actions", json={"action": "start"}), 409, "run_not_ready")
        problem(client.delete(f"runs/{run.id}"), 409, "run_at_work")
    finally:
        run.describe({"state": "stopped"})


def test_a_change_of_a_run_under_way_is_shown_and_confirmed_first(client: httpx.Client, home: Path) -> None:
    """A12, D13: other epochs are a change of the configuration; a pause is none."""
    run = made_run(home, "running", config=TrainConfig.parse({"task": "detect", "training": {"epochs": 5}}))
    try:
        wanted: dict[str, Any] = {"action": "epochs", "value": 9}
        review = problem(client.post(f"runs/{run.id}/actions", json=wanted), 428, "unconfirmed")["review"]
        assert [(c["field"], c["old"], c["new"]) for c in review["changes"]] == [("training.epochs", 5, 9)]
        asked = client.post(f"runs/{run.id}/actions", json=wanted, params={"review": 1})
        assert (asked.status_code, asked.json()) == (200, {"review": review})  # asked for, so no refusal
        other = {**wanted, "value": 8, "confirm_token": review["confirm_token"]}
        problem(client.post(f"runs/{run.id}/actions", json=other), 409, "token_stale")
        wanted["confirm_token"] = review["confirm_token"]
        assert client.post(f"runs/{run.id}/actions", json=wanted).status_code == 202
        assert client.post(f"runs/{run.id}/actions", json={"action": "pause"}).status_code == 202
        wanted = {"action": "threads", "value": 1}
        review = problem(client.post(f"runs/{run.id}/actions", json=wanted), 428, "unconfirmed")["review"]
        wanted["confirm_token"] = review["confirm_token"]
        assert client.post(f"runs/{run.id}/actions", json=wanted).status_code == 202
        commands = [json.loads(line) for line in run.control.read_text().splitlines()]
        assert [(each["command"], each["value"]) for each in commands] == [
            ("epochs", 9),
            ("pause", None),
            ("threads", 1),
        ]
    finally:
        run.describe({"state": "stopped"})
    problem(client.post(f"runs/{run.id}/actions", json={"action": "pause"}), 409, "run_not_active")
    problem(
        client.post(f"runs/{run.id}/actions", json={"action": "extend", "value": 9}), 409, "run_not_finished"
    )
    problem(client.post(f"runs/{run.id}/actions", json={"action": "explode"}), 422, "request_invalid")


def test_an_extension_is_a_child_run_that_is_confirmed_first(client: httpx.Client, first: str) -> None:
    """D3."""
    wanted: dict[str, Any] = {"action": "extend", "value": 3}
    problem(client.post(f"runs/{first}/actions", json=wanted), 422, "config_invalid")
    wanted |= {"value": 6, "policy": "restart_cosine"}
    review = problem(client.post(f"runs/{first}/actions", json=wanted), 428, "unconfirmed")["review"]
    assert {change["field"]: change["new"] for change in review["changes"]} == {
        "training.epochs": 6, "schedule.extension": "restart_cosine", "schedule.extended_from": 3,
    }  # fmt: skip


def test_the_trash_is_emptied_only_with_its_confirmation(client: httpx.Client, home: Path) -> None:
    """A12: to the trash and back at once; for good only what was shown."""
    runs = [made_run(home, "stopped") for _ in range(3)]
    client.patch(f"runs/{runs[0].id}", json={"locked": True, "tags": ["keep"], "notes": "best <b>so far</b>"})
    moved = client.post("runs/trash", json={"runs": [run.id for run in runs]}).json()
    assert moved["moved"] == [run.id for run in runs[1:]] and moved["refused"][0]["code"] == "run_locked"
    kept = client.get(f"runs/{runs[0].id}").json()["info"]
    assert (kept["tags"], kept["notes"], kept["locked"]) == (["keep"], "best <b>so far</b>", True)
    assert client.post(f"trash/{runs[1].id}/restore").json()["id"] == runs[1].id
    review = problem(client.request("DELETE", "trash"), 428, "unconfirmed")["review"]
    assert client.request("DELETE", "trash", params={"review": 1}).json() == {"review": review}
    assert [change["field"] for change in review["changes"]] == [runs[2].id]
    client.delete(f"runs/{runs[1].id}")
    body = {"confirm_token": review["confirm_token"], "significant": True}
    problem(client.request("DELETE", "trash", json=body), 409, "token_stale")
    body["confirm_token"] = client.request("DELETE", "trash").json()["review"]["confirm_token"]
    gone = client.request("DELETE", "trash", json=body).json()["gone"]
    assert sorted(gone) == sorted(run.id for run in runs[1:])
    assert not client.get("trash").json()["runs"]


# --- curves


def noisy(home: Path, count: int) -> RunFolder:
    run = made_run(home, "stopped")
    losses = np.random.default_rng(0).normal(size=count).tolist()
    losses[5] = float("nan")
    write_events(run, *(step(number + 1, loss=loss) for number, loss in enumerate(losses)))
    return run


def test_thinned_curves_keep_every_least_and_most(client: httpx.Client, home: Path) -> None:
    """A5: no spike is lost, however many points there are; what is not finite is null."""
    run = noisy(home, 5000)
    whole = client.get(f"runs/{run.id}/metrics", params={"max_points": 200_000}).json()
    assert whole["count"] == 5000 and not whole["thinned"] and whole["series"]["loss"]["mean"][5] is None
    assert set(whole["series"]["loss"]) == {"mean"} and whole["keys"][:3] == ["loss", "lr", "images_per_s"]
    thin = client.get(f"runs/{run.id}/metrics", params={"max_points": 50, "keys": "loss"}).json()
    assert len(thin["step"]) == 50 and thin["step"][-1] == 5000 and set(thin["series"]) == {"loss"}
    raw = np.array([np.nan if value is None else value for value in whole["series"]["loss"]["mean"]])
    parts = raw.reshape(50, 100)
    assert np.allclose(thin["series"]["loss"]["low"], np.nanmin(parts, 1), rtol=1e-5)
    assert np.allclose(thin["series"]["loss"]["high"], np.nanmax(parts, 1), rtol=1e-5)
    assert np.allclose(thin["series"]["loss"]["mean"], np.nanmean(parts, 1), rtol=1e-4, atol=1e-6)
    assert whole["epoch"][:2] == [0.1, 0.2]


def test_curves_as_float32_say_the_same(client: httpx.Client, home: Path) -> None:
    """A5."""
    run = noisy(home, 300)
    plain = client.get(f"runs/{run.id}/metrics", params={"max_points": 40}).json()
    raw = client.get(f"runs/{run.id}/metrics", params={"max_points": 40, "format": "f32"}).content
    (size,) = struct.unpack("<I", raw[:4])
    header = json.loads(raw[4 : 4 + size])
    columns = np.frombuffer(raw[4 + size :], "<f4").reshape(len(header["columns"]), header["length"])
    found = dict(zip(header["columns"], columns))
    assert np.allclose(found["step"], plain["step"]) and header["seq"] == plain["seq"] == 300
    assert np.allclose(found["loss.high"], plain["series"]["loss"]["high"], rtol=1e-5)


def test_steps_that_a_resumption_took_back_are_not_drawn(client: httpx.Client, home: Path) -> None:
    """A7, A32: the curve goes on where the training did; only what is new is sent with `after`."""
    run = made_run(home, "stopped")
    write_events(run, *(step(number, loss=1.0) for number in range(1, 31)))
    assert client.get(f"runs/{run.id}/metrics").json()["count"] == 30
    again = [step(number, loss=2.0) for number in range(21, 26)]
    write_events(run, RunResumed(3, 20, "a.pth"), *again)
    curve = client.get(f"runs/{run.id}/metrics").json()
    assert curve["step"] == list(range(1, 26)) and curve["series"]["loss"]["mean"] == [1.0] * 20 + [2.0] * 5
    new = client.get(f"runs/{run.id}/metrics", params={"after": curve["seq"] - 2}).json()
    assert new["step"] == [24, 25]


def test_the_story_says_warnings_and_commands_in_the_readers_language(
    client: httpx.Client, home: Path
) -> None:
    """A10, A24: with words for one and for many; what another version wrote has none, and is no error."""
    facts = {"busy": 1.2, "cores": 2, "threads": 2, "fitting": 1, "run": "runs/detect/x"}
    run = made_run(home, "failed")
    crowded, other = Warned("cores_crowded", facts), Warned("cores_crowded", {"later": 1})
    write_events(run, crowded, Commanded("threads", 1, 2, "me", 1, 3), other, Warned("of_later", {}))
    told = [
        [
            each["text"]
            for each in client.get(f"runs/{run.id}/events", headers={"Accept-Language": language}).json()[
                "events"
            ]
        ]
        for language in ("en", "id")
    ]
    assert "keep 1.2 of 2 cores busy" in told[0][0] and "1,2 dari 2 inti" in told[1][0]
    assert told[0][1:] == ["It now computes with 1 thread", "", ""]
    assert told[1][1:] == ["Kini dihitung dengan 1 thread", "", ""]


def test_epochs_story_and_log_of_a_run(client: httpx.Client, first: str) -> None:
    """A10, A14."""
    columns = client.get(f"runs/{first}/epochs").json()["columns"]
    assert (
        columns["epoch"] == [1, 2, 3]
        and columns["mAP50"] == [0.1, 0.2, 0.3]
        and columns["step"] == [10, 20, 30]
    )
    story = client.get(f"runs/{first}/events", params={"after": 2}).json()["events"]
    assert [event["type"] for event in story][-1] == "RunFinished"
    assert "StepEnded" not in {event["type"] for event in story}
    last = client.get(f"runs/{first}/log", params={"lines": 3}).json()
    assert last["lines"] == ["line 997", "line 998", "line 999"] and last["end"] == last["size"]
    before = client.get(f"runs/{first}/log", params={"lines": 3, "before": last["start"]}).json()
    assert before["lines"] == ["line 994", "line 995", "line 996"] and before["end"] == last["start"]
    seen, start = [], 0
    while (page := client.get(f"runs/{first}/log", params={"after": start, "lines": 300}).json())["lines"]:
        seen += page["lines"]
        start = page["end"]
    assert seen == [f"line {number}" for number in range(1000)]


# --- the log, the machine


def test_the_operation_log_is_filtered_verified_and_taken_along(client: httpx.Client, home: Path) -> None:
    """A13, D4: also as a table that no spreadsheet runs."""
    run = made_run(home, "stopped")
    client.patch(f"runs/{run.id}", json={"notes": "=HYPERLINK(1)", "tags": ["=1+1"]})
    page = client.get("operations", params={"run": run.id, "limit": 1}).json()
    assert (
        page["total"] == 2 and page["operations"][0]["operation"] == "note" and page["operations"][0]["text"]
    )
    assert client.get("operations", params={"run": run.id, "search": "hyperlink"}).json()["total"] == 1
    assert client.post("operations/verify").json()["sound"]
    raw = client.get("operations/export")
    assert (
        raw.content == (home / "operations.jsonl").read_bytes()
        and "attachment" in raw.headers["content-disposition"]
    )
    table = list(csv.reader(io.StringIO(client.get("operations/export", params={"format": "csv"}).text)))
    assert len(table) == 1 + len(raw.content.splitlines())
    assert not any(cell.startswith(("=", "+", "@")) for row in table[1:] for cell in row)


def test_errors_speak_the_language_that_is_asked_for(server: StudioProcess) -> None:
    """A33: by `?lang=`, else by what the browser wants, else Indonesian."""
    with server.client() as client:
        del client.headers["accept-language"]
        details = [
            client.get("runs/none", headers=headers, params=params).json()["detail"]
            for headers, params in (
                ({}, {}),
                ({"accept-language": "de, id;q=0.9, en;q=0.8"}, {}),
                ({"accept-language": "en-US,en;q=0.9"}, {"lang": "id"}),
                ({"accept-language": "en-US,id;q=0.5"}, {}),
                ({}, {"lang": "en"}),
            )
        ]
    assert details[0] == details[1] == details[2] != details[3] == details[4]


def test_texts_come_whole_once_and_are_not_sent_again(client: httpx.Client) -> None:
    """A33."""
    for language in ("id", "en"):
        answer = client.get(f"locales/{language}", headers={"accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip" and "runs.state.running" in answer.json()
        assert not any(key.startswith("cli.") for key in answer.json())
        again = client.get(f"locales/{language}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content
    problem(client.get("locales/xx"), 422, "request_invalid")


def test_the_api_describes_itself_without_any_other_host(client: httpx.Client) -> None:
    described = client.get("openapi.json").json()
    assert described["openapi"].startswith("3.1")
    page = client.get("docs").text
    assert all(path in page for path in described["paths"]) and "http" not in page
    assert all(method.get("description") for path in described["paths"].values() for method in path.values())
    asked = described["paths"]["/api/v1/trash"]["delete"]
    assert "review" in [each["name"] for each in asked["parameters"]], "what would change can be asked for"


def test_runs_are_compared_side_by_side(client: httpx.Client, home: Path, first: str) -> None:
    """A16: what differs in the configuration, and the curves; what has to be computed is not waited for."""
    values = find_run(first, home).config().replaced(seed=7, name="second").model_dump(mode="json")
    other = made_run(home, config=TrainConfig.parse(values), epochs_done=1)
    found = client.get("compare", params={"runs": f"{first},{other.id}"}).json()
    assert {each["field"]: each["values"] for each in found["config"]}["seed"] == [0, 7]
    assert [model["run"] for model in found["models"]] == [first, other.id]
    assert found["judged"]["state"] in ("none", "working", "failed")
    assert client.get("compare", params={"runs": first}).status_code == 422
    assert client.get("compare", params={"runs": f"{first},none"}).status_code == 404
    assert client.get("compare", params={"runs": f"{first},{home}"}).status_code == 404
    assert (
        client.get("compare/../x.jpg").status_code
        == 404
        == client.get(f"compare/{'0' * 24}/000.jpg").status_code
    )


@pytest.mark.slow
def test_a_worker_answers_what_needs_torch(
    client: httpx.Client, server: StudioProcess, tmp_path: Path
) -> None:
    """A24, D9: health, pictures, augmentation and the doctor come from a worker; its errors keep their code."""
    from smartcash.backend.samples import write_samples

    notes = tmp_path / "notes"
    write_samples(notes, images=20, seed=1, size_px=96)
    job = client.post("data/check", json={"path": str(notes)}).json()
    result = ended(client, job)["result"]
    assert result["task"] == "detect" and result["splits"]["train"]["images"] == 14
    assert result["values"]["100000"] == 100000 and all(each["message"] for each in result["findings"])
    page = client.get("data/pictures", params={"path": str(notes), "limit": 2, "offset": 1}).json()
    assert page["total"] == 14 and [each["index"] for each in page["pictures"]] == [1, 2]
    assert client.get(f"../../{page['pictures'][0]['url']}").content[:3] == b"\xff\xd8\xff"
    values = {"data": {"path": str(notes), "image_size": 64}}
    made = client.post("data/augmented", json={"values": values, "count": 3}).json()["pictures"]
    assert [(each["width"], each["height"]) for each in made] == [(64, 64)] * 3
    assert client.get(f"../../{made[2]['url']}").content[:3] == b"\xff\xd8\xff"
    problem(client.get("data/pictures", params={"path": str(tmp_path / "none")}), 422, "data_path_missing")
    failed = ended(client, client.post("data/check", json={"path": str(tmp_path / "none")}).json())
    assert failed["state"] == "failed" and failed["error"]["code"] == "data_path_missing"
    findings = ended(client, client.post("doctor", json={}).json())["result"]["findings"]
    assert {"python", "torch", "runs"} <= {finding["code"] for finding in findings}
    for worker in psutil.Process(server.process.pid).children():
        worker.kill()  # one that has died is begun anew by the next question
    assert client.get("device").json()["device"] and len(client.get("backbones").json()["names"]) > 500
    assert {form["name"] for form in client.get("exports/formats").json()["formats"]} >= {
        "onnx",
        "safetensors",
    }


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended."""
    for _ in range(600):
        found = client.get(f"jobs/{job['id']}").json()
        if found["state"] != "running":
            return found
        time.sleep(0.2)
    raise AssertionError(job)


def test_a_run_found_by_its_beginning_is_the_same(client: httpx.Client, home: Path, first: str) -> None:
    assert client.get("runs/latest").status_code == 200
    assert find_run(first, home).id == first
    problem(client.get("runs/2"), 404, "run_ambiguous")
