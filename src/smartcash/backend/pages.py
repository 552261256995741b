"""Pages as one HTML file each, and their charts as inline SVG: no script, no request to anywhere, light or dark as the
reader's system is. Every text that comes from outside goes through `escape`."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from smartcash.utils.i18n import current_language, decimal, text

# Okabe and Ito's colours, which colour-blind eyes tell apart; darker or lighter as the ground needs
_LIGHT = ("#0072b2", "#d55e00", "#00805e", "#a8467f", "#9a6a00", "#2b7fb5", "#6b6b00", "#555555")
_DARK = ("#56b4e9", "#f0803c", "#2fcf9f", "#e596c4", "#e8b13e", "#8fd0f5", "#e5dc4f", "#bbbbbb")

_STYLE = (
    ":root { color-scheme: light dark; --ink: #1d2129; --paper: #fff; --soft: #f2f4f7; --line: #d5dae1; --dim: #5a6472;"
    " --good: #00704f; --bad: #b3261e; --heat: 0, 114, 178;"
    + " ".join(f"--s{number}: {colour};" for number, colour in enumerate(_LIGHT))
    + "}\n@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171c; --soft: #1f242c;"
    " --line: #39414d; --dim: #a3adba; --good: #4fd6a4; --bad: #ff8a80; --heat: 86, 180, 233;"
    + " ".join(f"--s{number}: {colour};" for number, colour in enumerate(_DARK))
    + """} }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; } p.dim, .dim, figcaption { color: var(--dim); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th { font-weight: 600; } td:first-child, th:first-child { text-align: left; }
td small { color: var(--dim); white-space: nowrap; } .better { color: var(--good); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; } .charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { margin: 0; } svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
svg .dim { fill: var(--dim); } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; } svg .band { opacity: .18; stroke: none; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } .pictures figure { flex: 1 1 18rem; max-width: 30rem; }
.note { background: var(--soft); border-left: 4px solid var(--s1); padding: .4rem .8rem; }
.bar { display: inline-block; height: .7rem; background: var(--s0); vertical-align: middle; }
.confusion td { text-align: center; min-width: 2.2rem; } .confusion td:first-child { text-align: left; }
"""
)


def page(title: str, parts: Iterable[str]) -> bytes:
    """A whole page; the parts are HTML."""
    head = [
        f'<!doctype html><html lang="{current_language()}"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>",
    ]
    # a file name that is no UTF-8 stands in Python as lone surrogates, which cannot be written
    return "\n".join([*head, *parts, "</body></html>\n"]).encode("utf-8", "replace")


def heading(key: str, **facts: object) -> str:
    return f"<h2>{escape(text(key, **facts))}</h2>"


def paragraph(words: str, kind: str = "") -> str:
    """`kind`: a class of the style: dim, note."""
    return f'<p class="{kind}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """The cells are HTML."""
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><tr>{heads}</tr>{body}</table></div>'


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else decimal(value, f".{digits}f")


def with_interval(estimate: Mapping[str, float] | None) -> str:
    """HTML: the figure, and its interval in small."""
    if estimate is None:
        return "–"
    return f"{number(estimate['value'])} <small>{number(estimate['low'])}–{number(estimate['high'])}</small>"


def change(delta: Mapping[str, Any] | None) -> str:
    """HTML: a paired difference, its interval, and the verdict in words as well as in colour."""
    if delta is None:
        return "–"
    verdict = delta["verdict"]
    words = escape(text(f"compare.verdict.{verdict}"))
    value, low, high = (decimal(delta[each], "+.3f") for each in ("value", "low", "high"))
    interval = f"<small>{low} … {high}</small>"
    return f'<span class="{verdict}">{value}</span> {interval} <span class="{verdict}">{words}</span>'


# ---------------------------------------------------------------- charts


@dataclass(frozen=True)
class Series:
    """One line of a chart; `low` and `high`, if given, its interval. A y of None leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40  # px around the field of a chart
_DASHES = ("none", "7 3", "2 3", "9 3 2 3", "4 2")
DOTTED = 12  # up to so many points each is marked


def lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    small: bool = False,
) -> str:
    """Lines over common axes, with their bands; the axes span the data unless told. `diagonal`: where y is x."""
    width, height = (300, 190) if small else (460, 260)
    sides = [side for each in series for side in (each.y, each.low or (), each.high or ())]
    x_low, x_high = x_range or _span([value for each in series for value in each.x])
    y_low, y_high = y_range or _span([value for side in sides for value in side if value is not None])

    def across(x: float) -> str:
        return f"{_LEFT + (x - x_low) / (x_high - x_low) * (width - _LEFT - _RIGHT):.1f}"

    def down(y: float) -> str:
        return f"{height - _BOTTOM - (y - y_low) / (y_high - y_low) * (height - _TOP - _BOTTOM):.1f}"

    def path(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{across(x)},{down(y)}" for x, y in points)

    drawn = [f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    drawn.append(f"<title>{escape(title)}</title>")
    for tick in _ticks(y_low, y_high):
        up, words = down(tick), f'<tspan dy="4">{decimal(tick)}</tspan>'
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{up}" y2="{up}"/>')
        drawn.append(f'<text class="dim" x="{_LEFT - 6}" y="{up}" text-anchor="end">{words}</text>')
    below = height - _BOTTOM + 16
    for tick in _ticks(x_low, x_high):
        drawn.append(
            f'<text class="dim" x="{across(tick)}" y="{below}" text-anchor="middle">{decimal(tick)}</text>'
        )
    if diagonal:
        ends = path([(x_low, y_low), (x_high, y_high)])
        drawn.append(f'<polyline class="grid" stroke-dasharray="4 4" points="{ends}"/>')
    for position, each in enumerate(series):
        colour, dash = _look(position)
        if each.low is not None and each.high is not None:
            band = [
                (x, a, b) for x, a, b in zip(each.x, each.low, each.high) if a is not None and b is not None
            ]
            outline = path([*((x, high) for x, _, high in band), *((x, low) for x, low, _ in reversed(band))])
            drawn.append(f'<polygon class="band" style="fill: {colour}" points="{outline}"/>')
        for run in _runs(each):
            line = f'style="stroke: {colour}" stroke-dasharray="{dash}" points="{path(run)}"'
            drawn.append(f'<polyline class="line" {line}/>')
            if len(run) <= DOTTED:
                drawn += [
                    f'<circle cx="{across(x)}" cy="{down(y)}" r="3" style="fill: {colour}"/>' for x, y in run
                ]
    middle = _LEFT + (width - _LEFT - _RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f"translate(12 {height / 2 - 14}) rotate(-90)"
    drawn.append(f'<text transform="{turned}" text-anchor="middle">{escape(y_label)}</text>')
    return f"<figure>{''.join(drawn)}</svg><figcaption>{escape(title)}</figcaption></figure>"


def legend(names: Sequence[str]) -> str:
    """Which line is whose, for all charts of a section."""
    marks = []
    for position, name in enumerate(names):
        colour, dash = _look(position)
        line = f'x1="0" x2="28" y1="5" y2="5" style="stroke: {colour}" stroke-dasharray="{dash}"'
        marks.append(
            f'<span><svg width="28" height="10" aria-hidden="true"><line class="line" {line}/></svg> {escape(name)}</span>'
        )
    return f'<p class="legend">{"".join(marks)}</p>'


def _look(position: int) -> tuple[str, str]:
    """Colour and dashes of a line: the colour alone must not tell."""
    return f"var(--s{position % len(_LIGHT)})", _DASHES[position % len(_DASHES)]


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], corner: str) -> str:
    """A confusion matrix; each row's cells are as deep as their share of the row."""
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = max(1, sum(row))
        cells = [
            f'<span style="display: block; background: rgba(var(--heat), {0.75 * count / total:.2f})">{count or "·"}</span>'
            for count in row
        ]
        rows.append([escape(name), *cells])
    return table([escape(corner), *map(escape, names)], rows, "confusion")


def photo(
    jpeg: bytes, size: tuple[int, int], marks: Sequence[tuple[Mapping[str, Any], str, bool]], caption: str
) -> str:
    """A picture with boxes: (mark, words, dashed) each, the mark with `box_xyxy` in px. Dashed ones are yellow, others
    green where the mark is `right`, else red."""
    width, height = size
    scale = max(width, height) / 460  # so that letters and lines are as large in every picture
    drawn = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}"><title>{escape(caption)}</title>'
        f'<image href="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" width="{width}" height="{height}"/>'
    ]
    for mark, words, dashed in marks:
        if "box_xyxy" not in mark:
            continue
        left, top, right, bottom = mark["box_xyxy"]
        colour = "#ffd400" if dashed else "#00d08a" if mark.get("right") else "#ff5a4d"
        box = f'x="{left}" y="{top}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="none"'
        dash = f' stroke-dasharray="{6 * scale:.1f} {5 * scale:.1f}"' if dashed else ""
        drawn.append(f'<rect {box} stroke="#000" stroke-width="{4 * scale:.1f}" opacity=".45"{dash}/>')
        drawn.append(f'<rect {box} stroke="{colour}" stroke-width="{2.2 * scale:.1f}"{dash}/>')
        if words:
            place = f'x="{left + 3 * scale:.1f}" y="{max(top + 15 * scale, 15 * scale):.1f}"'
            style = f"font-size: {14 * scale:.1f}px; paint-order: stroke; stroke: #000; stroke-width: {3 * scale:.1f}px"
            drawn.append(f'<text {place} style="{style}; fill: {colour}">{escape(words)}</text>')
    return f"<figure>{''.join(drawn)}</svg><figcaption>{escape(caption)}</figcaption></figure>"


def answer_marks(
    truth: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], str, bool]]:
    """What `photo` draws of a model's answer: what is there dashed, and what was found with its score."""
    found = [(mark, f"{mark['class']} {number(mark['score'], 2)}", False) for mark in answer["found"]]
    return [*((mark, "", True) for mark in truth), *found]


def answer_words(answer: Mapping[str, Any]) -> str:
    """How a model did in one picture, and what it said where there is no box to write it on."""
    words = text("compare.answer", right=answer["right"], missed=answer["missed"], wrong=answer["wrong"])
    said = [
        f"{mark['class']} {number(mark['score'], 2)}" for mark in answer["found"] if "box_xyxy" not in mark
    ]
    return ", ".join([words, *said])


def _runs(series: Series) -> list[list[tuple[float, float]]]:
    """The unbroken pieces of a line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.x, series.y):
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers within the range."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 10) for index in range(first, math.floor(high / step + 1e-9) + 1)]
