"""The report card of one trained model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smartcash import __version__
from smartcash.backend.calibration import Limits, choose_limits
from smartcash.backend.card import (
    calibration_of,
    confusion_of,
    figures_of,
    limits_on,
    pace_of,
    robustness_row,
    score_curves,
)
from smartcash.backend.comparison import most_telling, shown_answer
from smartcash.backend.hardships import HARDSHIPS
from smartcash.backend.images import read_image
from smartcash.backend.mistakes import Mistakes, mistakes_of
from smartcash.backend.resampling import CONFIDENCE, RESAMPLES, DetectionFigures, judged_by
from smartcash.backend.seen import Seen
from smartcash.domain.errors import DataInvalid
from smartcash.handlers.comparison import contender, described
from smartcash.services.run_store import home as default_home
from smartcash.services.thresholds import Thresholds, write_thresholds
from smartcash.services.version_store import VersionStore
from smartcash.utils.files import write_bytes
from smartcash.utils.machine import available_cores
from smartcash.worker.judging import JudgedModel, Pictures, shown, trained_on

FORMAT = 1
CARD = "card.json"
HARD_PICTURES = 100  # that every hardship is tried on


def report(
    name: str, *, split: str = "", data: str = "", home: Path | None = None, out: Path | None = None,
    device: str = "auto", listen: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """How good a run's best checkpoint or a version is, and where it gives way, as plain values.

    Figures with 95 % bootstrap intervals, classes, confusion, curves, calibration, the kinds of mistakes and the worst
    ones, three levels of every hardship, limits chosen on the validation pictures and what they give on the judged
    ones, pace and size. `split`: default the test pictures, or the validation ones where there are none; `data`: a data
    set other than the model's own. The limits are kept beside the model (`services.thresholds`), unless they were
    chosen on other data: what counts in use must not change because somebody looked at other pictures. With a folder
    `out`, the worst pictures and all of this as card.json are written there. `listen` hears ("hardships", done, total).

    Raises RunNotFound, VersionNotFound, ComparisonRefused for a damaged run, DataInvalid, or a CheckpointError."""
    home = home or default_home()
    side = contender(name, home)
    model = JudgedModel(side, home, device)
    path = data or side.data.path
    if not path:
        raise DataInvalid("data_path_missing", path="–")
    pictures = Pictures.read(path, split, side)
    seen, valid_seen = model.seen(pictures), model.seen(pictures.of_split("valid"))
    judged = judged_by(seen)
    mistakes = mistakes_of(judged)
    limits = choose_limits(judged_by(valid_seen))
    thresholds = _thresholds(limits, model, pictures, len(valid_seen.names))
    if not data:
        _keep(thresholds, model, home)
    whole, classes = figures_of(judged)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "format": FORMAT,
        "smartcash": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": side.task,
        "model": {
            **described([side])["models"][0],
            "sha256": model.sha256,
            "size_bytes": model.checkpoint.stat().st_size,
        },
        "split": pictures.split,
        "data": str(pictures.data.source.absolute()),
        "content_hash": pictures.data.content_hash,
        "images": judged.images,
        "objects": int(judged.support_IC.sum()),
        "resamples": RESAMPLES,
        "confidence": CONFIDENCE,
        "chosen_on": pictures.split == "valid",
        "seen_in_training": trained_on(side, pictures),
        "metrics": whole,
        "classes": classes,
        "confusion": confusion_of(seen),
        "curves": score_curves(judged) if isinstance(judged, DetectionFigures) else None,
        "calibration": calibration_of(judged),
        "mistakes": {"counts": mistakes.counts(), "worst": _worst(mistakes, seen, pictures, out)},
        "limits": {
            **thresholds.to_dict(),
            "kept": not data,
            "curve": limits.curve,
            "judged": limits_on(judged, limits),
        },
        "robustness": _robustness(model, pictures, listen),
        "pace": _pace(model, pictures),
    }
    if out is not None:
        write_bytes(out / CARD, (json.dumps(facts, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    return facts


def _thresholds(limits: Limits, model: JudgedModel, pictures: Pictures, images: int) -> Thresholds:
    named = {key: value for key, value in asdict(limits).items() if key != "curve"}
    return Thresholds(
        sha256=model.sha256, task=model.side.task, split="valid", content_hash=pictures.data.content_hash,
        images=images, created=datetime.now(UTC).isoformat(timespec="seconds"), **named,
    )  # fmt: skip


def _keep(thresholds: Thresholds, model: JudgedModel, home: Path) -> None:
    """Write the limits beside the model: into its run, and into every version that is the same file."""
    same = [each for each in VersionStore(home).versions() if each.sha256 == model.sha256]
    for folder in (*(Path(each.path) for each in same), *([model.report_folder] if model.side.run else [])):
        write_thresholds(folder, thresholds)


def _robustness(
    model: JudgedModel, pictures: Pictures, listen: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """The figures under every hardship, on the same pictures as the plain ones beside them."""
    plain = model.seen(pictures, HARD_PICTURES)
    total, done, rows = 3 * len(HARDSHIPS), 0, []
    for hardship in HARDSHIPS:
        levels = []
        for level, amount in enumerate(hardship.amounts, 1):
            name = f"{hardship.name} {amount:g}"
            seen = model.seen(pictures, HARD_PICTURES, hardship.at(level), name)
            levels.append({"level": level, "amount": amount, "figures": robustness_row(judged_by(seen))})
            done += 1
            listen("hardships", done, total)
        rows.append({"name": hardship.name, "levels": levels})
    return {"images": len(plain.names), "plain": robustness_row(judged_by(plain)), "hardships": rows}


def _worst(mistakes: Mistakes, seen: Seen, pictures: Pictures, out: Path | None) -> list[dict[str, Any]]:
    """The pictures with the gravest mistakes, and what was said of them; written into `out` as 000.jpg and so on."""
    rows = []
    for number, index in enumerate(most_telling([mistakes])):
        facts, ratio = shown(seen, index, number, pictures, out)
        rows.append({**facts, "answer": shown_answer(mistakes, seen.classes, index, ratio)})
    return rows


def _pace(model: JudgedModel, pictures: Pictures) -> dict[str, Any]:
    sample = next(iter(pictures.by_name.values()))
    return pace_of(model.predictor, read_image(sample.path), available_cores())
