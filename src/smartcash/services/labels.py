"""What a person says of a run after the fact: tags, notes, a lock. `labels.json` in the run folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from smartcash.domain.errors import RunRefused
from smartcash.utils.files import write_bytes

FILE = "labels.json"


@dataclass(frozen=True)
class Labels:
    """A locked run is neither trashed nor are its checkpoints cleaned up."""

    tags: tuple[str, ...] = ()
    notes: str = ""
    locked: bool = False


def read_labels(run: Path) -> Labels | None:
    """The labels of the run folder `run`, or None if it has none yet (its tags and notes are those of the
    configuration). Raises RunRefused for a file that is not one: what it protects is then not known."""
    path = run / FILE
    try:
        values = json.loads(path.read_bytes())
        tags, notes, locked = values["tags"], values["notes"], values["locked"]
        if not (isinstance(notes, str) and isinstance(locked, bool) and isinstance(tags, list)):
            raise TypeError("tags, notes or locked has another type")
        if not all(isinstance(tag, str) for tag in tags):
            raise TypeError("a tag is not a text")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunRefused(
            "labels_broken", path=str(path), reason=f"{type(error).__name__}: {error}"
        ) from error
    return Labels(tuple(tags), notes, locked)


def write_labels(run: Path, labels: Labels) -> None:
    """Replace the labels of the run folder `run`. Sets the time of `run.json` to now: lists look at that file
    alone to see what has changed, which halves what 10,000 runs cost."""
    write_bytes(run / FILE, (json.dumps(asdict(labels), indent=2) + "\n").encode())
    if (run / "run.json").exists():
        os.utime(run / "run.json")


def refuse_if_locked(run: Path) -> None:
    """Raises RunRefused if the run folder `run` is locked, or may be: its labels cannot be read."""
    labels = read_labels(run)
    if labels is not None and labels.locked:
        raise RunRefused("run_locked", run=run.name)
