"""Limits that a report has chosen on the validation pictures, kept beside the model that they belong to.

<home>/models/v3/thresholds.json              of a version
<home>/<task>/<run-id>/report/thresholds.json of a run's best checkpoint
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smartcash.utils.files import write_bytes
from smartcash.utils.logger import get_logger

FILE = "thresholds.json"
FORMAT = 1


@dataclass(frozen=True)
class Thresholds:
    """From which score on a note counts, and below which a count is not sure; all chosen on `images` pictures of
    `split`, never on the test pictures.

    `sha256`: of the checkpoint. `score`: for all classes together; `classes`: for each its own, `score` where too few
    pictures were there to choose one. `abstain`: a possible note below it makes a picture "not sure". With it the
    share `sure` of the pictures is sure, and of those the share `right_when_sure` (None: no picture is sure) is
    counted exactly; `reached` says whether that is at least `target`."""

    sha256: str
    task: str
    split: str
    content_hash: str
    images: int
    score: float
    classes: dict[str, float]
    abstain: float
    target: float
    reached: bool
    sure: float
    right_when_sure: float | None
    created: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def thresholds_of(model: Path, sha256: str) -> Thresholds | None:
    """The limits chosen for the checkpoint `model` with this SHA-256, or None if there are none. A file that is
    damaged or was altered is named in the log and not used."""
    for path in (model.parent / FILE, model.parent.parent / "report" / FILE):
        known = _read(path)
        if known is not None and known.sha256 == sha256:
            return known
    return None


def write_thresholds(folder: Path, thresholds: Thresholds) -> None:
    """Write the limits into a version's folder, or the `report` folder of a run. Raises OSError."""
    folder.mkdir(exist_ok=True)
    facts = {"format": FORMAT, **thresholds.to_dict()}
    whole = {**facts, "check": _check(facts)}
    write_bytes(folder / FILE, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())


def _read(path: Path) -> Thresholds | None:
    try:
        facts = json.loads(path.read_bytes())
        if facts.pop("check") != _check(facts) or facts.pop("format") != FORMAT:
            raise ValueError("the checksum or the format differs")
        return Thresholds(**facts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        get_logger("models").warning("%s: %s: %s", path, type(error).__name__, error)
        return None


def _check(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
