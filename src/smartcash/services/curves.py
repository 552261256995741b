"""What a run's steps have logged, as columns: read once from its events, then only what was added."""

from __future__ import annotations

import json
import struct
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from smartcash.services.event_log import EventTail, finite

KEPT_RUNS = 6  # 100,000 steps of 8 figures take 9 MB
SINGLE = ("loss", "lr", "images_per_s")
DIGITS = 6  # what a float32 has
_NAN = float("nan")
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """A stretch of a run's steps, thinned to `length` points. `count`: how many there were; `seq`: the number of the
    last event that was read; `began`: the time of the run's first step, s since 1970.

    `columns`: step, epoch (with its fraction: 0.5 in the middle of the first), time (s since `began`) and, for each
    key, `<key>.mean` and, if it was thinned, `<key>.low` and `<key>.high`. A value that is not finite is NaN."""

    run: str
    seq: int
    count: int
    keys: tuple[str, ...]
    began: float
    columns: Mapping[str, Numbers]

    @property
    def length(self) -> int:
        return len(self.columns["step"])

    @property
    def thinned(self) -> bool:
        return self.length < self.count

    def facts(self) -> dict[str, Any]:
        """Everything but the columns."""
        return {
            "run": self.run, "seq": self.seq, "count": self.count, "thinned": self.thinned,
            "keys": list(self.keys), "began": self.began,
        }  # fmt: skip

    def to_json(self) -> bytes:
        """{…facts, step, epoch, time, series: {key: {mean, low, high}}}; six digits, which is what a float32 has."""
        places: dict[str, list[float]] = {}
        series: dict[str, dict[str, list[float]]] = {}
        for name, values in self.columns.items():
            key, dot, part = name.rpartition(".")
            if dot:
                series.setdefault(key, {})[part] = _rounded(values, DIGITS).tolist()
            else:
                places[name] = _rounded(values, 10).tolist()
        return to_json({**self.facts(), **places, "series": series}, inf_nan_mode="null")

    def to_float32(self) -> bytes:
        """uint32 length of the header, the header as JSON (padded to a multiple of 4 with blanks), then every column
        it names as little-endian float32."""
        header = json.dumps(
            {**finite(self.facts()), "length": self.length, "columns": list(self.columns)}
        ).encode()
        header += b" " * (-len(header) % 4)
        whole = (values.astype("<f4").tobytes() for values in self.columns.values())
        return b"".join([struct.pack("<I", len(header)), header, *whole])


def _rounded(values: Numbers, digits: int) -> Numbers:
    """The values to so many significant digits, which takes a tenth of the time of writing each with them."""
    with np.errstate(divide="ignore"):
        size = np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** (digits - 1 - np.where(np.isfinite(size), size, 0.0))
    return np.round(values * scale) / scale


class CurveReader:
    """The curves of runs, by the path of their events. Safe to use from several threads; keeps those last asked for."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, _Steps] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self, events: Path, run: str, keys: Sequence[str] = (), *, after: int = 0, max_points: int = 2000
    ) -> Curves:
        """The steps beyond event number `after`, of these `keys` (none named: all there are), in `max_points`
        stretches of equally many steps at most."""
        with self._lock:
            steps = self._kept.setdefault(events, _Steps(events))
            self._kept.move_to_end(events)
            while len(self._kept) > KEPT_RUNS:
                self._kept.popitem(last=False)
        return steps.curves(run, keys, after, max_points)


class _Steps:
    """The columns of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._tail = EventTail(self.path)
        self._size = 0
        self._places = {name: array("d") for name in ("seq", "step", "epoch", "time")}
        self._values: dict[str, array[float]] = {}

    def curves(self, run: str, keys: Sequence[str], after: int, max_points: int) -> Curves:
        with self._lock:
            self._catch_up()
            # copies: an array that numpy looks into cannot grow
            places = {name: np.array(values) for name, values in self._places.items()}
            known = tuple(self._values)
            wanted = {key: np.array(self._values[key]) for key in known if not keys or key in keys}
            seq = self._tail.after
        first = int(np.searchsorted(places["seq"], after, side="right")) if after else 0
        began = float(places["time"][0]) if len(places["time"]) else 0.0
        places["time"] = places["time"] - began
        cut = {name: values[first:] for name, values in places.items() if name != "seq"}
        series = {key: values[first:] for key, values in wanted.items()}
        return Curves(run, seq, len(cut["step"]), known, began, _thinned(cut, series, max_points))

    def _catch_up(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._size:  # another file has taken its place
            self._begin()
        self._size = size
        while records := self._tail.read():
            begun = 0
            for place, record in enumerate(records):
                if record.get("type") in ("RunResumed", "RolledBack"):
                    self._add(records[begun:place])
                    begun = place
                    self._forget_beyond(_number(record.get("step")))
            self._add(records[begun:])

    def _add(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Add the steps among them, column by column, which takes a third of the time that one by one would."""
        records = [each for each in events if each.get("type") == "StepEnded"]
        before = len(self._places["seq"])
        for name, key in (("seq", "seq"), ("step", "step_in_run"), ("time", "time")):
            self._places[name].extend(_numbers(records, key))
        places = zip(*(_numbers(records, key) for key in ("epoch", "step", "steps")))
        self._places["epoch"].extend([epoch - 1 + step / (steps or _NAN) for epoch, step, steps in places])
        parts = [found if isinstance(found := record.get("losses"), dict) else {} for record in records]
        figures = {name: _numbers(records, name) for name in SINGLE}
        for name in dict.fromkeys(chain.from_iterable(parts)):
            figures[f"losses.{name}"] = _numbers(parts, name)
        for name, values in figures.items():
            if name not in self._values:
                self._values[name] = array("d", [_NAN]) * before
            self._values[name].extend(values)
        for column in self._values.values():
            if len(column) == before:  # these records do not have it
                column.extend([_NAN] * len(records))

    def _forget_beyond(self, step: float) -> None:
        """What was logged beyond the step from which a training goes on counts no more."""
        steps = self._places["step"]
        kept = len(steps)
        while kept and steps[kept - 1] > step:
            kept -= 1
        for values in (*self._places.values(), *self._values.values()):
            del values[kept:]


def _numbers(records: Sequence[Mapping[str, Any]], key: str) -> array[float]:
    """The numbers of one key; NaN for what is missing or none."""
    try:
        return array("d", map(itemgetter(key), records))
    except (KeyError, TypeError, OverflowError):  # a hundred times rarer, and four times as slow
        return array("d", [_number(record.get(key)) for record in records])


def _number(value: object) -> float:
    if type(value) is float:
        return value
    return float(value) if type(value) is int and abs(value) < 2**63 else _NAN


def _thinned(
    places: Mapping[str, Numbers], series: Mapping[str, Numbers], max_points: int
) -> dict[str, Numbers]:
    """Each stretch becomes the place of its last step, and the mean, least and most of its finite values."""
    series = {key: np.where(np.isfinite(values), values, np.nan) for key, values in series.items()}
    count = len(places["step"])
    if count <= max_points:
        return {**places, **{f"{key}.mean": values for key, values in series.items()}}
    edges = np.linspace(0, count, max_points + 1).astype(int)
    starts, ends = edges[:-1], edges[1:] - 1
    columns = {name: values[ends] for name, values in places.items()}
    for key, values in series.items():
        finite = np.isfinite(values)
        numbers = np.add.reduceat(finite.astype(float), starts)
        sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
        columns[f"{key}.mean"] = np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
        columns[f"{key}.low"] = np.fmin.reduceat(values, starts)
        columns[f"{key}.high"] = np.fmax.reduceat(values, starts)
    return columns
