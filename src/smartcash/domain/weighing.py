"""The recorded figures of two model versions side by side: of the one that an alias names and of the one that is to
take its place."""

from __future__ import annotations

from dataclasses import dataclass

from smartcash.domain.records import ModelVersion
from smartcash.utils.i18n import text

# what is held side by side; of all of these more is better
FIGURES = {"detect": ("mAP50_95", "mAP50", "exact_sum"), "classify": ("accuracy", "f1")}


@dataclass(frozen=True)
class Figure:
    """One figure of both; None where it was not recorded."""

    name: str
    old: float | None
    new: float | None

    @property
    def difference(self) -> float | None:
        """new − old, to the three decimals that are shown."""
        return None if self.old is None or self.new is None else round(self.new - self.old, 3) + 0.0  # no -0


@dataclass(frozen=True)
class Weighing:
    """What is recorded of version `new` beside what is of `old`, on the pictures of `split`. `hindrance`: why the two
    cannot be compared (task_differs, data_differs, data_unknown), or ""."""

    old: str
    new: str
    split: str
    figures: tuple[Figure, ...]
    hindrance: str

    @property
    def worse(self) -> list[str]:
        """The figures in which the new one is worse; none where the two cannot be compared."""
        known = [] if self.hindrance else self.figures
        return [each.name for each in known if each.difference is not None and each.difference < 0]

    def verdict(self, language: str | None = None) -> str:
        """In one sentence: that the two cannot be compared and why, or in what the new one is worse; "" if in nothing."""
        named = {"old": self.old, "new": self.new}
        if self.hindrance:
            return text(f"models.weighing.{self.hindrance}", language, **named)
        figures = ", ".join(text(f"metrics.{name}", language) for name in self.worse)
        return text("models.weighing.worse", language, figures=figures, **named) if figures else ""


def weighed(old: ModelVersion, new: ModelVersion) -> Weighing:
    """Both on their test pictures, or on the validation ones where one of them has no test."""
    split = "test" if old.metrics["test"] and new.metrics["test"] else "valid"
    before, after = old.metrics[split], new.metrics[split]
    figures = tuple(
        Figure(name, before.get(name), after.get(name))
        for name in FIGURES[new.task]
        if name in before or name in after
    )
    return Weighing(old.name, new.name, split, figures, _hindrance(old, new))


def _hindrance(old: ModelVersion, new: ModelVersion) -> str:
    if old.task != new.task:
        return "task_differs"
    data = [each.data.get("content_hash") for each in (old, new)]
    if not all(data):
        return "data_unknown"
    return "" if data[0] == data[1] else "data_differs"
