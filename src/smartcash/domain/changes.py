"""What differs between two configurations, and which differences matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smartcash.domain.config import TrainConfig, merge, nested
from smartcash.domain.records import Change as Change

# A change of these breaks comparability with what went before. Why: the texts `changes.why.<reason>`.
SIGNIFICANT = {
    "task": "model",
    "model.backbone": "model",
    "model.scale": "model",
    "data.path": "data",
    "data.image_size": "input",
    "data.resize": "input",
    "data.batch_size": "optimization",
    "optimizer.name": "optimization",
    "optimizer.lr": "optimization",
    "seed": "randomness",
}
# A checkpoint does not fit a model that was changed in these.
FIXED_BY_WEIGHTS = ("task", "model.backbone", "model.scale")


def changes_between(old: TrainConfig, new: TrainConfig) -> list[Change]:
    """Every field that differs, in the order of the configuration."""
    before, after = dict(_leaves(old.model_dump(mode="json"))), dict(_leaves(new.model_dump(mode="json")))
    return [
        Change(field, before.get(field), value, SIGNIFICANT.get(field, ""))
        for field, value in after.items()
        if before.get(field) != value
    ]


def carried_over(changes: Iterable[Change], config: TrainConfig) -> TrainConfig:
    """`config` with the new values of `changes`, which were found between two others."""
    values = config.model_dump()
    for change in changes:
        values = merge(values, nested(change.field, change.new))
    return TrainConfig.parse(values)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@dataclass(frozen=True)
class Difference:
    """One field that is not the same in several configurations; `values` in their order. `why` as in `Change`."""

    field: str
    values: tuple[Any, ...]
    why: str = ""


def differences(configs: Sequence[TrainConfig]) -> list[Difference]:
    """Every field that differs, in the order of the configuration."""
    leaves = [dict(_leaves(config.model_dump(mode="json"))) for config in configs]
    fields = dict.fromkeys(field for values in leaves for field in values)
    return [
        Difference(field, tuple(values.get(field) for values in leaves), SIGNIFICANT.get(field, ""))
        for field in fields
        if any(values.get(field) != leaves[0].get(field) for values in leaves)
    ]
