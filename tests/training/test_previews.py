"""Previews: the same pictures after every epoch, in files that anyone can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smartcash.backend.images import read_image
from smartcash.backend.samples import write_samples
from smartcash.domain.errors import ConfigInvalid
from smartcash.domain.events import Event, PreviewsWritten
from smartcash.services.run_store import RunFolder
from smartcash.worker import resume, train

from .conftest import toy_config
from .test_resume import StopAt


def index_of(run: RunFolder) -> list[dict[str, Any]]:
    pictures: list[dict[str, Any]] = json.loads((run.path / "previews/index.json").read_text())["pictures"]
    return pictures


def epoch_of(run: RunFolder, epoch: int) -> list[dict[str, Any]]:
    """What was found after an epoch."""
    content = json.loads((run.path / f"previews/epoch_{epoch:04}.json").read_text())
    assert content["epoch"] == epoch
    rows: list[dict[str, Any]] = content["pictures"]
    return rows


def valid_pictures(data: Path) -> list[Path]:
    return sorted(path for path in (data / "images/valid").glob("*.jpg"))


@pytest.fixture
def another(tmp_path: Path) -> Path:
    """A picture that is in no data set, larger than it is shown."""
    write_samples(tmp_path / "else", images=10, seed=9, size_px=800)
    return valid_pictures(tmp_path / "else")[0]


def test_the_same_pictures_are_kept_for_every_epoch_and_after_a_resume(
    notes: Path, another: Path, tmp_path: Path
) -> None:
    """A6: worst, middling and best, one by its name in the validation split, one from elsewhere whose original goes;
    old epochs stay."""
    named = valid_pictures(notes)[0].name
    heard: list[Event] = []
    stop = StopAt(6)

    def listen(event: Event) -> None:
        heard.append(event)
        stop(event)

    previews = {"count": 2, "images": [named, str(another)]}
    run, _ = train(
        toy_config(notes, training={"previews": previews, "epochs": 3}), tmp_path / "runs", listen,
        signals=stop.signals,
    )  # fmt: skip
    before = index_of(run)
    assert [event.path for event in heard if isinstance(event, PreviewsWritten)] == [
        str(run.path / "previews/epoch_0001.json")
    ]
    first = epoch_of(run, 1)
    another.unlink()
    resume(run)
    assert index_of(run) == before and epoch_of(run, 1) == first
    why = [picture["why"] for picture in before]
    assert why.count("chosen") == 2 and len({picture["file"] for picture in before}) == len(before)
    for picture in before:
        height, width = read_image(str(run.path / "previews" / picture["file"])).shape[:2]
        assert (width, height) == (picture["width"], picture["height"]) and max(width, height) <= 640
    assert before[-1]["truth"] is None and before[-1]["ratio"] == 0.8
    assert all(box["box_xyxy"] for box in before[0]["truth"])
    for epoch in (1, 2, 3):
        rows = epoch_of(run, epoch)
        assert len(rows) == len(before)
        for found in (found for row in rows for found in row["found"]):
            assert 0 <= found["score"] <= 1 and len(found["box_xyxy"]) == 4


def test_a_resumed_run_takes_up_a_picture_that_was_named_since(
    notes: Path, another: Path, tmp_path: Path
) -> None:
    """A6: behind those it has; nothing else moves."""
    stop = StopAt(6)
    config = toy_config(notes, training={"previews": {"count": 3}})
    run, _ = train(config, tmp_path / "runs", stop, signals=stop.signals)
    before = index_of(run)
    assert sorted({picture["why"] for picture in before}) == ["best", "middle", "worst"]
    resume(run, config=run.config().replaced(training={"previews": {"images": [str(another)]}}))
    after = index_of(run)
    assert after[:-1] == before and after[-1]["source"] == str(another)
    assert (len(epoch_of(run, 1)), len(epoch_of(run, 2))) == (3, 4)


def test_pictures_of_a_classification_carry_their_best_classes(sorted_notes: Path, tmp_path: Path) -> None:
    """A6."""
    run, _ = train(toy_config(sorted_notes, training={"epochs": 1}), tmp_path)
    pictures = index_of(run)
    assert all(len(picture["truth"]) == 1 and "box_xyxy" not in picture["truth"][0] for picture in pictures)
    for row in epoch_of(run, 1):
        scores = [found["score"] for found in row["found"]]
        assert len(scores) == 5 and scores == sorted(scores, reverse=True)


def test_a_picture_that_is_nowhere_is_refused_and_none_may_be_wanted(notes: Path, tmp_path: Path) -> None:
    """A6, A10."""
    with pytest.raises(ConfigInvalid) as refused:
        train(toy_config(notes, training={"previews": {"images": ["nowhere.jpg"]}}), tmp_path)
    (problem,) = refused.value.problems
    assert (problem.field, problem.value) == ("training.previews.images", "nowhere.jpg")
    assert problem.message("en") != problem.message("id")
    run, _ = train(toy_config(notes, training={"previews": {"count": 0}, "epochs": 1}), tmp_path / "none")
    assert not (run.path / "previews").exists()
