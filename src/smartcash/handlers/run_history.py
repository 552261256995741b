"""What a person does with runs afterwards: tag, note, lock, trash, restore. Written to the operation log, then done;
the command line, the page and a notebook use the same door."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from smartcash.domain.errors import RunRefused
from smartcash.domain.records import Change, Operation, RunInfo
from smartcash.handlers.operation_log import OperationLog
from smartcash.services.run_store import Record, RunStore


class RunHistory:
    """The runs below `home`. A change that changes nothing is not logged; one that a run's state forbids is, with
    the code. A kill between the log and the change leaves an entry without effect, never an effect without an entry.

    Every method raises RunNotFound for a run that is not there and RunRefused for one whose state forbids it."""

    def __init__(self, home: Path, interface: str = "python") -> None:
        self.store = RunStore(home)
        self.log = OperationLog(home / "operations.jsonl", interface)

    def tag(self, name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> RunInfo:
        """Add and remove tags. Raises LabelsRefused."""
        run = self.store.find(name).id
        return self._recorded(
            "tag", run, lambda record: self.store.label(run, record, add_tags=add, remove_tags=remove)
        )

    def note(self, name: str, notes: str) -> RunInfo:
        """Replace the notes. Raises LabelsRefused."""
        run = self.store.find(name).id
        return self._recorded("note", run, lambda record: self.store.label(run, record, notes=notes))

    def lock(self, name: str) -> RunInfo:
        """Protect the run and its checkpoints from being cleaned up or trashed."""
        run = self.store.find(name).id
        return self._recorded("lock", run, lambda record: self.store.label(run, record, locked=True))

    def unlock(self, name: str) -> RunInfo:
        """Take the protection away."""
        run = self.store.find(name).id
        return self._recorded("unlock", run, lambda record: self.store.label(run, record, locked=False))

    def trash(self, name: str) -> RunInfo:
        """Move the run's folder to the trash, from where `restore` brings it back."""
        run = self.store.find(name).id
        return self._recorded("trash", run, lambda record: self.store.trash(run, record))

    def restore(self, name: str) -> RunInfo:
        """Move the run's folder back from the trash."""
        run = self.store.find_trashed(name).id
        return self._recorded("restore", run, lambda record: self.store.restore(run, record))

    def empty_trash(self, confirmed: str, only: Collection[str] | None = None) -> list[RunInfo]:
        """Delete the runs with the ids `only` (default: all) in the trash for good. `confirmed`: how the person
        agreed to exactly these ("asked", "token", "--yes")."""
        if confirmed == "none":
            raise ValueError("deleting for good needs a confirmation")

        def record(run: RunInfo, changes: tuple[Change, ...]) -> None:
            self.log.append(Operation("empty-trash", run.id, confirmed=confirmed))

        return self.store.empty_trash(only, record)

    def _recorded(self, operation: str, run: str, act: Callable[[Record], RunInfo]) -> RunInfo:
        try:
            return act(lambda _, changes: self.log.append(Operation(operation, run, changes=changes)))
        except RunRefused as error:
            self.log.append(Operation(operation, run, result=error.code))
            raise
