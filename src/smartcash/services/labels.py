"""What a person says of a run or a model version after the fact: tags, notes, a lock. `labels.json` in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from smartcash.domain.errors import LabelsRefused, RunRefused
from smartcash.domain.records import LONGEST_NOTES, LONGEST_TAG, MOST_TAGS, Change, tag_fits
from smartcash.utils.files import write_bytes
from smartcash.utils.printable import plain

FILE = "labels.json"


@dataclass(frozen=True)
class Labels:
    """A locked run is neither trashed nor are its checkpoints cleaned up."""

    tags: tuple[str, ...] = ()
    notes: str = ""
    locked: bool = False

    def changed(
        self,
        *,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        notes: str | None = None,
        locked: bool | None = None,
    ) -> Labels:
        """The labels with tags added and removed, and notes and lock replaced where given.

        Raises LabelsRefused for what is too long, too much, or would be obeyed by a terminal."""
        wrong = [tag for tag in add_tags if not tag_fits(tag)]
        if wrong:
            raise LabelsRefused("tag_wrong", tag=ascii(wrong[0][: 2 * LONGEST_TAG]), limit=LONGEST_TAG)
        tags = tuple(tag for tag in dict.fromkeys((*self.tags, *add_tags)) if tag not in remove_tags)
        if len(tags) > max(MOST_TAGS, len(self.tags)):
            raise LabelsRefused("tags_too_many", count=len(tags), limit=MOST_TAGS)
        if notes is not None and (len(notes) > LONGEST_NOTES or plain(notes) != notes):
            raise LabelsRefused("notes_wrong", limit=LONGEST_NOTES)
        return Labels(tags, self.notes if notes is None else notes, self.locked if locked is None else locked)

    def changes_to(self, new: Labels) -> tuple[Change, ...]:
        """What differs in `new`, for the operation log."""
        pairs = ((each, getattr(self, each), getattr(new, each)) for each in ("tags", "notes", "locked"))
        return tuple(Change(*each) for each in pairs if each[1] != each[2])


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
