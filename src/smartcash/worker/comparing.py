"""Several trained models on the same pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smartcash.backend.comparison import agreement_of, most_telling, rows_of, shown_answer
from smartcash.backend.mistakes import Mistakes, mistakes_of
from smartcash.backend.resampling import CONFIDENCE, RESAMPLES, judged_by
from smartcash.backend.seen import Seen
from smartcash.domain.errors import ComparisonRefused
from smartcash.handlers.comparison import RESULT, common_data, contenders, described
from smartcash.services.run_store import home as default_home
from smartcash.utils.files import write_bytes
from smartcash.worker.judging import JudgedModel, Pictures, shown, trained_on


def compare(
    *names: str, split: str = "", data: str = "", home: Path | None = None, out: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:  # fmt: skip
    """Everything in which two to eight runs or versions differ, as plain values; the others are held against the first.

    `models`, `config` (only what differs), `data`, `curves`, and `judged`: every figure on the same pictures with its
    95 % bootstrap interval, the paired differences, the classes, and the pictures that tell most. `split`: default the
    test pictures, or the validation ones where there are none; `data`: a data set other than the one that all were
    trained with. With a folder `out`, those pictures and all of this as compare.json are written there.

    Raises RunNotFound, VersionNotFound, ComparisonRefused, DataInvalid, or a CheckpointError."""
    home = home or default_home()
    sides = contenders(names, home)
    path, reason = (data, "") if data else common_data(sides)
    if not path:
        raise ComparisonRefused(f"compare_{reason}", names=", ".join(side.name for side in sides))
    models = [JudgedModel(side, home, device) for side in sides]
    pictures = Pictures.read(path, split, sides[0])
    seen = [model.seen(pictures) for model in models]
    # one order of classes for all: the data's own, then what only models know
    classes = tuple(
        dict.fromkeys((*pictures.data.classes, *(name for each in seen for name in each.classes)))
    )
    judged = [judged_by(each.with_classes(classes)) for each in seen]
    whole, of_classes = rows_of(judged)
    mistakes = [mistakes_of(each) for each in judged]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    facts = described(sides)
    facts["judged"] = {
        "state": "ready",
        "error": "",
        "reason": "",
        "split": pictures.split,
        "data": str(pictures.data.source.absolute()),
        "content_hash": pictures.data.content_hash,
        "images": judged[0].images,
        "objects": int(judged[0].support_IC.sum()),
        "resamples": RESAMPLES,
        "confidence": CONFIDENCE,
        "chosen_on": pictures.split == "valid",
        "seen_in_training": [trained_on(side, pictures) for side in sides],
        "metrics": whole,
        "classes": of_classes,
        "pictures": _side_by_side(mistakes, classes, judged[0].seen, pictures, out),
        "agreement": agreement_of(mistakes),
    }
    if out is not None:  # last: whoever waits for it finds the pictures there
        write_bytes(out / RESULT, (json.dumps(facts, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
    return facts


def _side_by_side(
    models: Sequence[Mistakes], classes: Sequence[str], seen: Seen, pictures: Pictures, out: Path | None
) -> list[dict[str, Any]]:
    """The pictures that tell most, with every model's answer; written into `out` as 000.jpg and so on."""
    rows = []
    for number, index in enumerate(most_telling(models)):
        facts, ratio = shown(seen, index, number, pictures, out)
        rows.append({**facts, "models": [shown_answer(each, classes, index, ratio) for each in models]})
    return rows
