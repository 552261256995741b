"""What a person does with runs afterwards: tag, note, lock, trash, restore. Done, and written to the
operation log; the command line, the page and a notebook use the same door."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from smartcash.domain.errors import RunRefused
from smartcash.domain.records import Change, Operation, RunInfo
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.run_store import RunStore


class RunHistory:
    """The runs below `home`. A change that changes nothing is not logged; one that was refused is, with its code.

    Every method raises RunNotFound for a run that is not there and RunRefused for one whose state forbids it."""

    def __init__(self, home: Path, interface: str = "python") -> None:
        self.store = RunStore(home)
        self.log = OperationLog(home / "operations.jsonl", interface)

    def tag(self, name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> RunInfo:
        """Add and remove tags."""
        return self._label("tag", name, lambda run: self.store.label(run, add_tags=add, remove_tags=remove))

    def note(self, name: str, notes: str) -> RunInfo:
        """Replace the notes."""
        return self._label("note", name, lambda run: self.store.label(run, notes=notes))

    def lock(self, name: str) -> RunInfo:
        """Protect the run and its checkpoints from being cleaned up or trashed."""
        return self._label("lock", name, lambda run: self.store.label(run, locked=True))

    def unlock(self, name: str) -> RunInfo:
        """Take the protection away."""
        return self._label("unlock", name, lambda run: self.store.label(run, locked=False))

    def trash(self, name: str) -> RunInfo:
        """Move the run's folder to the trash, from where `restore` brings it back."""
        run = self.store.find(name)
        return self._recorded("trash", run.id, lambda: self.store.trash(run.id))

    def restore(self, name: str) -> RunInfo:
        """Move the run's folder back from the trash."""
        run = self.store.find_trashed(name)
        return self._recorded("restore", run.id, lambda: self.store.restore(run.id))

    def trash_token(self) -> str:
        """Belongs to exactly what is in the trash now: confirms that this, and nothing else, is deleted for good."""
        names = "\n".join(run.id for run in self.store.trashed())
        return hashlib.sha256(f"empty-trash\n{names}".encode()).hexdigest()

    def empty_trash(self, confirmed: str) -> list[RunInfo]:
        """Delete what is in the trash for good. `confirmed`: how the person agreed ("asked", "token", "--yes")."""
        if confirmed == "none":
            raise ValueError("deleting for good needs a confirmation")
        gone = self.store.empty_trash()
        for run in gone:
            self.log.append(Operation("empty-trash", run.id, confirmed=confirmed))
        return gone

    def _label(self, operation: str, name: str, change: Callable[[str], RunInfo]) -> RunInfo:
        before = self.store.find(name)
        return self._recorded(operation, before.id, lambda: change(before.id), before)

    def _recorded(
        self, operation: str, run: str, act: Callable[[], RunInfo], before: RunInfo | None = None
    ) -> RunInfo:
        try:
            after = act()
        except RunRefused as error:
            self.log.append(Operation(operation, run, result=error.code))
            raise
        changes = () if before is None else _changes(before, after)
        if before is None or changes:
            self.log.append(Operation(operation, run, changes=changes))
        return after


def _changes(before: RunInfo, after: RunInfo) -> tuple[Change, ...]:
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in ("tags", "notes", "locked"))
    return tuple(Change(name, old, new) for name, old, new in pairs if old != new)
