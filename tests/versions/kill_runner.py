"""Kills a change of versions at each of its file calls in turn: python kill_runner.py ACT HOME CHECKPOINT

For every place the home is copied anew and a child process is ended there, as by SIGKILL. Afterwards every pair that a
reader would use must fit, and the next change must leave nothing to be found. Prints the number of places.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smartcash.domain.records import ModelVersion
from smartcash.handlers.model_versions import ModelVersions
from smartcash.services.labels import Labels

KILLED = 9
CALLS = ("open", "write", "fsync", "rename", "replace", "unlink", "mkdir", "rmdir", "ftruncate")


def ended_at(place: int) -> None:
    """From now on the process ends at its `place`-th file call, counted from 1."""
    left = [place]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(KILLED)
            return call(*args, **named)

        return instead

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def act(name: str, home: Path, checkpoint: Path) -> None:
    versions = ModelVersions(home)
    if name == "register":
        register(home, checkpoint)
        return
    if name == "note":
        versions.note("v2", "a note")
        return
    review = {
        "promote": lambda: versions.check_promote(3, "produksi"),
        "roll-back": lambda: versions.check_rollback("produksi"),
        "delete": lambda: versions.check_delete(3),
    }[name]()
    versions.apply(review, significant=True)


def fresh(known: ModelVersion, sha256: str, size: int) -> ModelVersion:
    return ModelVersion(**{**vars(known), "number": 0, "sha256": sha256, "size": size})


def register(home: Path, checkpoint: Path) -> int:
    """Register `checkpoint` without torch: what happens to the files. The number it got."""
    versions = ModelVersions(home)
    with versions.store.changing():
        known = versions.find("v1")
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        version = fresh(known, digest, checkpoint.stat().st_size)
        return versions.store.add(checkpoint, version, Labels(("new",))).number


def check(home: Path, checkpoint: Path, place: int) -> None:
    """What must hold after a kill, after the next change, and for the number given next."""
    versions = ModelVersions(home)
    folder = home / "models" / "produksi"
    facts = json.loads((folder / "metadata.json").read_bytes())
    pair = [folder / "model.pth", folder / facts["file"]]
    fits = [path for path in pair if hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]]
    assert fits, f"place {place}: no file fits the metadata"
    assert versions.aliases()["produksi"] in (1, 2, 3)
    assert all(
        hashlib.sha256((Path(v.path) / "model.pth").read_bytes()).hexdigest() == v.sha256
        for v in versions.versions()
    )
    gone = versions.store.book().deleted
    listed = {version.number for version in versions.versions()}
    assert not gone.keys() & listed, f"place {place}: still listed"
    versions.note("v1", f"after {place}")
    assert not [n for n in gone if (home / "models" / f"v{n}").exists()], f"place {place}: not taken away"
    found = versions.verify()
    assert found == [], f"place {place}: {found}"
    assert versions.log.verify().alteration is None, f"place {place}: the log"
    litter = [
        path for path in home.rglob(".*") if not path.name.endswith("lock") and "operations" not in path.name
    ]
    assert litter == [], f"place {place}: {litter}"
    newest = versions.versions()[0]
    given = {1, 2, 3, newest.number}
    if not newest.aliases:  # not even the number of one that was deleted is given again
        versions.apply(versions.check_delete(newest.number), significant=True)
    assert register(home, checkpoint) not in given, f"place {place}: a number was given twice"


def main() -> None:
    name, home, checkpoint = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    place, status = 0, KILLED
    while status == KILLED:
        place += 1
        with tempfile.TemporaryDirectory() as made:
            copy = Path(made) / "runs"
            shutil.copytree(home, copy)
            child = os.fork()
            if child == 0:
                ended_at(place)
                act(name, copy, checkpoint)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, KILLED), f"place {place}: ended with {status}"
            check(copy, checkpoint, place)
    print(place - 1)


if __name__ == "__main__":
    main()
