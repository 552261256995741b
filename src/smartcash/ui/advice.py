"""An advice in words, and as one HTML file: no script, no request to anywhere, light or dark as the reader's system is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from smartcash.domain.advice import RATED, Advice, Reason, Trial, front, reasons, recommended, rounds_of
from smartcash.utils.i18n import current_language, decimal, text

COLUMNS = (
    "mark", "backbone", "accuracy", "test", "latency", "size", "parameters", "epochs", "trained", "version",
)  # fmt: skip

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --paper: #fff; --soft: #f2f4f7; --line: #d5dae1; --choice: #2f7d4f;
  --front: #3b6ea5; --rest: #8a93a1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171c; --soft: #1f242c; --line: #39414d;
  --choice: #6fcf97; --front: #6da5e0; --rest: #7d8794; } }
body { margin: 2rem auto; max-width: 68rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
div.wide { overflow-x: auto; } table { border-collapse: collapse; }
td, th { padding: .2rem .8rem; text-align: right; white-space: nowrap; }
td:nth-child(2), th:nth-child(2) { text-align: left; } tr { border-bottom: 1px solid var(--line); }
tr.choice { font-weight: 600; } p.choice { padding: .6rem 1rem; border-left: 4px solid var(--choice);
  background: var(--soft); font-size: 1.1rem; } dt { font-weight: 600; margin-top: .6rem; } dd { margin-left: 1rem; }
svg { max-width: 100%; height: auto; } svg text { fill: currentColor; } .grid { stroke: var(--line); }
.rest { fill: var(--rest); } .front { fill: var(--front); } .choice circle, circle.choice { fill: var(--choice); }
circle { fill-opacity: .75; stroke: var(--paper); } polyline { fill: none; stroke: var(--front); stroke-width: 2;
  stroke-dasharray: 5 4; }
"""
WIDTH, HEIGHT = 860, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 24, 56  # px around the plot
LEAST_PX, MOST_PX = 6.0, 22.0  # radius of the smallest and the largest model


def rows_of(advice: Advice) -> list[dict[str, str]]:
    """What a table shows of each backbone, by COLUMNS; the most accurate first, those without figures last."""
    rated = advice.rated
    choice, on_front = recommended(rated), front(rated)
    others = [trial for trial in advice.trials if trial not in rated]
    return [
        {
            "mark": "★" if trial is choice else "●" if trial in on_front else "",
            "backbone": trial.backbone,
            "accuracy": _share(trial.accuracy),
            "test": _share(next((trial.test[name] for name in RATED if name in trial.test), None)),
            "latency": f"{decimal(trial.speed['latency_ms'], '.1f')} ms" if trial.speed else "",
            "size": f"{decimal(trial.speed['size_mb'], '.1f')} MB" if trial.speed else "",
            "parameters": f"{decimal(trial.speed['parameters'] / 1e6, '.2f')} M" if trial.speed else "",
            "epochs": str(trial.epochs or ""),
            "trained": text("advice.minutes", minutes=decimal(trial.trained_s / 60, ".1f"))
            if trial.epochs
            else "",
            "version": trial.version,
        }
        for trial in [*rated, *others]
    ]


def words_of(advice: Advice) -> dict[str, str]:
    """What is said of each backbone: why it is recommended, or why not."""
    return {backbone: reason_words(reason) for backbone, reason in reasons(advice).items()}


def reason_words(reason: Reason) -> str:
    """A reason as a sentence."""
    return text(f"advice.reason.{reason.code}", **reason.facts)


def notes_of(advice: Advice) -> list[str]:
    """What has to be known to read the figures."""
    minutes = {"budget": decimal(advice.budget_s / 60, ".1f"), "spent": decimal(advice.spent_s / 60, ".1f")}
    notes = [text("advice.note.budget", **minutes)]
    last = len(rounds_of(len(advice.trials)))
    early = [trial.backbone for trial in advice.rated if trial.rounds < last]
    if early:
        notes.append(text("advice.note.early", backbones=", ".join(early)))
    notes.append(text("advice.note.machine"))
    return notes


def advice_page(advice: Advice) -> str:
    """The whole advice as a page in this process's language."""
    choice = recommended(advice.rated)
    title = escape(text("advice.title", data=Path(advice.data).name))
    words = words_of(advice)
    parts = [
        f'<!doctype html><html lang="{current_language()}"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
    ]
    if choice is not None:
        said = text("advice.recommended", backbone=choice.backbone, reason=words[choice.backbone])
        parts.append(f'<p class="choice">★ {escape(said)}</p>')
        parts.append(f"{_chart(advice.rated)}<p>{escape(text('advice.chart'))}</p>")
    parts += [
        _table(rows_of(advice)),
        f"<h2>{escape(text('advice.why'))}</h2><dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in words.items()),
        "</dl><ul>",
        *(f"<li>{escape(note)}</li>" for note in notes_of(advice)),
        "</ul></body></html>\n",
    ]
    return "\n".join(parts)


def _share(value: float | None) -> str:
    return "" if value is None else decimal(value, ".3f")


def _table(rows: Sequence[dict[str, str]]) -> str:
    head = "".join(f"<th>{escape(text(f'advice.column.{name}'))}</th>" for name in COLUMNS)
    body = "".join(
        f'<tr class="{"choice" if row["mark"] == "★" else ""}">'
        + "".join(f"<td>{escape(row[name])}</td>" for name in COLUMNS)
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _chart(rated: Sequence[Trial]) -> str:
    """Accuracy over latency, the area of a circle the size of its model, the front as a line."""
    choice, on_front = recommended(rated), front(rated)
    latencies = [math.log10(trial.cost[0]) for trial in rated]
    accuracies = [trial.accuracy or 0.0 for trial in rated]
    across = _Axis(min(latencies), max(latencies), LEFT, WIDTH - RIGHT, least=0.3)
    upward = _Axis(min(accuracies), max(accuracies), HEIGHT - BOTTOM, TOP, least=0.02)
    largest = max(trial.cost[1] for trial in rated)
    places = {trial.backbone: (across(x), upward(y)) for trial, x, y in zip(rated, latencies, accuracies)}
    lines = [
        f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="12">'
        f"<title>{escape(text('advice.chart'))}</title>"
    ]
    for value in upward.ticks():
        y = upward(value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_share(value)}</text>')
    for value in across.ticks():
        x = across(value)
        lines.append(f'<line class="grid" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="{x:.1f}" x2="{x:.1f}"/>')
        lines.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{decimal(10**value, ".3g")} ms</text>'
        )
    axis = escape(text("advice.axis"))
    lines.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{axis}</text>'
    )
    along = sorted(on_front, key=lambda trial: trial.cost[0])
    points = " ".join("{:.1f},{:.1f}".format(*places[trial.backbone]) for trial in along)
    lines.append(f'<polyline points="{points}"/>')
    for trial in sorted(rated, key=lambda trial: -trial.cost[1]):  # small ones on top
        x, y = places[trial.backbone]
        radius = max(LEAST_PX, MOST_PX * math.sqrt(trial.cost[1] / largest))
        kind = "choice" if trial is choice else "front" if trial in on_front else "rest"
        name = escape(trial.backbone)
        latency, size = (decimal(each, ".1f") for each in trial.cost)
        facts = f"{name}: {_share(trial.accuracy)} · {latency} ms · {size} MB"
        lines.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{facts}</title></circle>'
        )
        mark = "★ " if trial is choice else ""
        lines.append(f'<text x="{x + radius + 4:.1f}" y="{y + 4:.1f}">{mark}{name}</text>')
    return "".join([*lines, "</svg>"])


class _Axis:
    """Values from `low` to `high`, with some room around them and at least `least` between the ends, as px."""

    def __init__(self, low: float, high: float, first_px: float, last_px: float, *, least: float) -> None:
        room = max(0.15 * (high - low), (least - (high - low)) / 2)
        self.low, self.high = low - room, high + room
        self.first_px, self.last_px = first_px, last_px

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.first_px + share * (self.last_px - self.first_px)

    def ticks(self) -> list[float]:
        return [self.low + (self.high - self.low) * number / 4 for number in range(5)]
