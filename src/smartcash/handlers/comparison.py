"""Runs and model versions side by side: what differs in configuration, data and course, and, judged by a process of
its own on the same pictures, in every figure.

    comparisons = Comparisons(home)
    facts = comparisons.compare(["v1", "v2"])    # at once; `judged` says "working" until the pictures are looked at

Nothing here loads torch. `smartcash.compare` and `smartcash compare` do everything at once instead."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from smartcash.domain.changes import differences
from smartcash.domain.config import TrainConfig
from smartcash.domain.errors import ComparisonRefused, RunNotFound
from smartcash.domain.records import ModelVersion
from smartcash.services.run_info import read_run
from smartcash.services.run_store import RunFolder, find_run
from smartcash.services.side_work import SideWork
from smartcash.services.version_store import VersionStore
from smartcash.utils.i18n import current_language
from smartcash.utils.printable import plain

FORMAT = 1
MOST = 8  # models side by side
RESULT = "compare.json"
KEPT = 20  # comparisons whose pictures are kept
SPLITS = ("train", "valid", "test")
_KEY, _PICTURE = re.compile(r"[0-9a-f]{24}"), re.compile(r"\d{3}\.jpg")
_AXES = ("epoch", "elapsed_s")


@dataclass(frozen=True)
class DataFacts:
    """What was recorded of a data set; "" and empty where nothing was. `images`: per split."""

    path: str = ""
    content_hash: str = ""
    format: str = ""
    task: str = ""
    classes: tuple[str, ...] = ()
    images: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_record(cls, values: object) -> DataFacts:
        """From what stands in a run's or version's file, which may be anything."""
        if not isinstance(values, Mapping):
            return cls()
        texts = {name: str(values.get(name, "")) for name in ("path", "content_hash", "format", "task")}
        classes, images = values.get("classes"), values.get("images")
        names = tuple(map(str, classes)) if isinstance(classes, list | tuple) else ()
        counts = images if isinstance(images, Mapping) else {}
        return cls(
            **texts,
            classes=names,
            images={each: counts[each] for each in SPLITS if isinstance(counts.get(each), int)},
        )


@dataclass(frozen=True)
class Contender:
    """One side of a comparison. `name`: how it is best called; `place`: how it is found again, whatever comes later.

    Named as a version it is that version, and `run` its run if that is still there. Named as a run it is the run's
    best checkpoint, and `version` the one that was made of the run, if any. `identity` changes when its model does."""

    name: str
    place: str
    config: TrainConfig
    data: DataFacts
    figures: dict[str, dict[str, float]]
    identity: tuple[Any, ...]
    run: RunFolder | None
    version: ModelVersion | None

    @property
    def task(self) -> str:
        """detect or classify; "auto" for a run that has not looked at its data yet."""
        return self.data.task or self.config.task


def contender(name: str, home: Path) -> Contender:
    """The version ("v3") or alias with this name, else the run (its folder, id, the beginning of it, or "latest").

    Raises VersionNotFound, RunNotFound, ComparisonRefused for a run whose files are damaged, or ConfigInvalid for a
    configuration that this version does not know."""
    store = VersionStore(home)
    if store.knows(name):
        version = store.find(name)
        found = next(home.glob(f"*/{version.run}/run.json"), None) if version.run else None
        run = None if found is None else RunFolder(found.parent)
        return Contender(
            version.name, version.name, TrainConfig.parse(version.config), DataFacts.from_record(version.data),
            _figures(version.metrics), (version.sha256,), run, version,
        )  # fmt: skip
    folder = find_run(name, home)
    info = read_run(folder.path)
    if info.state == "broken":
        raise ComparisonRefused("compare_broken", name=info.id, detail=info.detail)
    facts = folder.description()
    number = facts.get("version")
    return Contender(
        folder.id, str(folder.path.absolute()), folder.config(), DataFacts.from_record(facts.get("data")),
        _figures(facts), (info.id, info.best_epoch, info.best_value), folder,
        next((each for each in store.versions() if each.number == number and each.run == folder.id), None),
    )  # fmt: skip


def contenders(names: Sequence[str], home: Path) -> list[Contender]:
    """Those that are to be compared. Raises ComparisonRefused for too few or too many, for one that is named twice and
    for different tasks; VersionNotFound, RunNotFound."""
    if not 2 <= len(names) <= MOST:
        raise ComparisonRefused("compare_count", count=len(names), most=MOST)
    found = [contender(name, home) for name in names]
    called = [each.name for each in found]
    for name in called:
        if called.count(name) > 1:
            raise ComparisonRefused("compare_twice", name=name)
    tasks = [each.task for each in found]
    if len(set(tasks)) > 1:
        pairs = ", ".join(f"{name}: {task}" for name, task in zip(called, tasks))
        raise ComparisonRefused("compare_tasks", tasks=pairs)
    return found


def described(sides: Sequence[Contender]) -> dict[str, Any]:
    """What files say of them: `models`, the differing `config`, `data`, `curves`."""
    return {
        "format": FORMAT,
        "task": sides[0].task,
        "models": [_model(side) for side in sides],
        "config": [asdict(each) for each in differences([side.config for side in sides])],
        "data": _data([side.data for side in sides]),
        "curves": _curves([None if side.run is None else _course(side.run, side.data) for side in sides]),
    }


def common_data(sides: Sequence[Contender]) -> tuple[str, str]:
    """The path of the data set that all were trained on, or "" and why not: data_differs, data_missing."""
    hashes = {side.data.content_hash for side in sides}
    if len(hashes) > 1 or "" in hashes:
        return "", "data_differs"
    here = [side.data.path for side in sides if side.data.path and Path(side.data.path).exists()]
    return (here[0], "") if here else ("", "data_missing")


def _model(side: Contender) -> dict[str, Any]:
    run, version, config = side.run, side.version, side.config
    info = None if run is None else read_run(run.path)
    return {
        "name": plain(side.name),
        "run": "" if run is None else plain(run.id),
        "version": "" if version is None else version.name,
        "title": plain(config.name),
        "task": side.task,
        "backbone": plain(config.model.backbone),
        "state": "" if info is None else info.state,
        "epoch": version.epoch if version is not None else info and info.best_epoch,
        "epochs_done": info and info.epochs_done,
        "threshold": side.figures["valid"].get("threshold"),
        "size_bytes": version and version.size,
        "parameters": None if run is None else run.description().get("parameters"),
        "elapsed_s": info and info.elapsed_s,
        "started": "" if info is None else info.started,
        "classes": list(map(plain, side.data.classes)),
        **side.figures,
    }


def _figures(facts: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers under "valid" and "test" in a record from disk."""
    tables = {name: facts.get(name) for name in ("valid", "test")}
    return {
        name: {
            plain(str(k)): float(v) for k, v in table.items() if isinstance(v, int | float) and isfinite(v)
        }
        if isinstance(table, Mapping)
        else {}
        for name, table in tables.items()
    }


def _data(sets: Sequence[DataFacts]) -> dict[str, Any]:
    shown = [
        {
            "path": plain(each.path),
            "content_hash": plain(each.content_hash),
            "format": plain(each.format),
            "classes": list(map(plain, each.classes)),
            "images": dict(each.images),
        }
        for each in sets
    ]
    whats: list[tuple[str, list[Any]]] = [
        *((what, [each[what] for each in shown]) for what in ("path", "content_hash", "format", "classes")),
        *((f"images.{split}", [each.images.get(split) for each in sets]) for split in SPLITS),
    ]
    differing = [
        {"what": what, "values": values} for what, values in whats if any(v != values[0] for v in values)
    ]
    same = bool(sets[0].content_hash) and len({each.content_hash for each in sets}) == 1
    return {"same": same, "sets": shown, "differences": differing}


def _course(run: RunFolder, data: DataFacts) -> dict[str, list[float | None]]:
    """The columns of `epochs.csv`, and the steps done by the end of each epoch where they are known."""
    path = run.path / "epochs.csv"
    if not path.is_file():
        return {}
    rows = list(csv.DictReader(path.read_text(encoding="utf-8", errors="replace").splitlines()))
    columns = {name: [_number(row.get(name)) for row in rows] for name in (rows[0] if rows else ()) if name}
    images, batch = data.images.get("train"), run.config().data.batch_size
    if images is not None and batch != "auto" and "epoch" in columns:
        columns["step"] = [
            None if epoch is None else epoch * -(-images // batch) for epoch in columns["epoch"]
        ]
    return columns


def _curves(courses: Sequence[Mapping[str, list[float | None]] | None]) -> dict[str, Any]:
    """Per column one entry for each model, with the three axes that it can be drawn over."""
    names = dict.fromkeys(name for course in courses if course for name in course)
    return {
        plain(name): [
            None
            if course is None or name not in course
            else {
                **{axis: course.get(axis) for axis in ("epoch", "step", "elapsed_s")},
                "value": course[name],
            }
            for course in courses
        ]
        for name in names
        if name not in (*_AXES, "step")
    }


def _number(shown: str | None) -> float | None:
    return float(shown) if shown and re.fullmatch(r"-?\d+(\.\d+)?(e[-+]?\d+)?", shown) else None


class Comparisons:
    """Comparisons for a page: what files say at once, what the pictures say as soon as a process has looked.

    Its results are kept below `<home>/.comparisons`, and can be deleted at any time. Safe to use from several
    threads."""

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self._folder = self.home / ".comparisons"
        self._work = SideWork(RESULT, KEPT)

    def compare(
        self, names: Sequence[str], split: str = "", data: str = "", language: str | None = None
    ) -> dict[str, Any]:
        """Everything about these runs and versions, the first being the one that the others are held against.

        `split`: default the test pictures, or the validation ones where there are none. `data`: a data set to judge
        on, if not the one that all were trained with. Raises as `contenders`."""
        sides = contenders(names, self.home)
        facts = described(sides)
        if not data:
            data, reason = common_data(sides)
            if not data:
                return {**facts, "judged": {"state": "none", "error": "", "reason": reason}}
        return {**facts, "judged": self._judged(sides, split, str(Path(data).absolute()), language)}

    def picture(self, key: str, file: str) -> Path:
        """A picture of the comparison `key`. Raises RunNotFound."""
        path = self._folder / key / file
        if not (_KEY.fullmatch(key) and _PICTURE.fullmatch(file) and path.is_file()):
            raise RunNotFound("run_not_found", name=f"{key}/{file}", home=str(self.home))
        return path

    def close(self) -> None:
        """End what is still being looked at."""
        self._work.close()

    def _judged(
        self, sides: Sequence[Contender], split: str, data: str, language: str | None
    ) -> dict[str, Any]:
        wanted = [FORMAT, *(side.identity for side in sides), split, data]
        key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:24]
        folder = self._folder / key
        command = ["compare", "--data", data, "--out", str(folder), "--home", str(self.home)]
        command += ["--split", split] if split else []
        command += ["--lang", language or current_language(), "--", *(side.place for side in sides)]
        state = self._work.advance(folder, command)
        if state == "ready":
            judged: dict[str, Any] = json.loads((folder / RESULT).read_bytes())["judged"]
            return {**judged, "key": key}
        error = self._work.said(folder) if state == "failed" else ""
        return {"state": state, "error": error, "reason": ""}
