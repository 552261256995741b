"""A comparison as a page: what `worker.compare` gives, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from smartcash.backend.pages import (
    Series,
    answer_marks,
    answer_words,
    change,
    heading,
    legend,
    lines,
    page,
    paragraph,
    photo,
    table,
    with_interval,
)
from smartcash.domain.banknotes import display_names
from smartcash.utils.i18n import decimal, text

CURVES = {"detect": ("mAP50_95", "exact_sum", "train_loss"), "classify": ("accuracy", "loss", "train_loss")}
AXES = ("epoch", "step", "elapsed_s")


def comparison_page(facts: Mapping[str, Any], picture: Callable[[str], bytes]) -> bytes:
    """The page in this process's language; `picture` gives the JPEG of a file that the facts name."""
    names = [model["name"] for model in facts["models"]]
    judged = facts["judged"]
    return page(
        text("compare.title", names=", ".join(names)),
        [
            *_summary(facts, names),
            heading("compare.figures"),
            *_notes(judged, names),
            _figures(judged, names),
            heading("compare.of_classes"),
            _classes(judged, names),
            heading("compare.pictures"),
            *_pictures(judged, names, picture),
            heading("compare.curves"),
            *_curves(facts, names),
            heading("compare.config"),
            _config(facts["config"], names),
            heading("compare.data"),
            _data(facts["data"], names),
        ],
    )


def _summary(facts: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    heads = ["", *map(escape, names)]
    whats = ("title", "backbone", "run", "epoch", "parameters", "threshold", "started")
    rows = [
        [escape(text(f"compare.model.{what}")), *(_cell(m[what]) for m in facts["models"])] for what in whats
    ]
    return [table(heads, [row for row in rows if any(cell not in ("", "–") for cell in row[1:])])]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return decimal(value, ".3g")
    return "–" if value in (None, "") else escape(str(value))


def _notes(judged: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    counts = {name: judged[name] for name in ("split", "images", "objects", "resamples")}
    notes = [paragraph(text("compare.judged_on", data=judged["data"], **counts), "dim")]
    if judged["chosen_on"]:
        notes.append(paragraph(text("compare.chosen_on"), "note"))
    for name, known in zip(names, judged["seen_in_training"]):
        if known:
            notes.append(
                paragraph(text("compare.leak", name=name, count=known, images=judged["images"]), "note")
            )
    return notes


def _figures(judged: Mapping[str, Any], names: Sequence[str]) -> str:
    rows = [[escape(text(f"metrics.{row['name']}")), *_cells(row)] for row in judged["metrics"]]
    return table(_heads("compare.figure", names), rows)


def _heads(first: str, names: Sequence[str]) -> list[str]:
    others = [text("compare.less", name=name, first=names[0]) for name in names[1:]]
    return [escape(each) for each in (text(first), *names, *others)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [*map(with_interval, row["values"]), *map(change, row["deltas"][1:])]


def _classes(judged: Mapping[str, Any], names: Sequence[str]) -> str:
    shown = display_names([each["name"] for each in judged["classes"]])
    rows = []
    for name, each in zip(shown, judged["classes"]):
        if each["support"]:
            first = each["metrics"][0]
            rows.append([f"{escape(name)} <small>× {each['support']}</small>", *_cells(first)])
    metric = text(f"tables.{judged['classes'][0]['metrics'][0]['name']}")
    return paragraph(metric, "dim") + table(_heads("tables.class", names), rows)


def _pictures(judged: Mapping[str, Any], names: Sequence[str], picture: Callable[[str], bytes]) -> list[str]:
    agreement = judged["agreement"]
    only = ", ".join(f"{name} {count}" for name, count in zip(names, agreement["only"]))
    facts = {"right": agreement["all_right"], "wrong": agreement["all_wrong"], "only": only}
    parts = [paragraph(text("compare.agreement", images=judged["images"], **facts))]
    if judged["pictures"]:
        parts.append(paragraph(text("compare.boxes"), "dim"))
    for each in judged["pictures"]:
        jpeg, size = picture(each["file"]), (each["width"], each["height"])
        figures = [
            photo(jpeg, size, answer_marks(each["truth"], answer), f"{name}: {answer_words(answer)}")
            for name, answer in zip(names, each["models"])
        ]
        truth = ", ".join(display_names([mark["class"] for mark in each["truth"]])) or text("compare.nothing")
        parts.append(
            f"<h3>{escape(each['source'])}</h3>" + paragraph(text("compare.truth", truth=truth), "dim")
        )
        parts.append(f'<div class="pictures">{"".join(figures)}</div>')
    return parts


def _curves(facts: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    charts = []
    for metric in CURVES[facts["task"]]:
        for axis in AXES:
            series = [_course(name, each, axis) for name, each in zip(names, facts["curves"].get(metric, ()))]
            if any(each.x for each in series):
                shown = text(f"compare.curve.{metric}")
                charts.append(lines(shown, series, text(f"compare.axis.{axis}"), shown))
    return [legend(names), f'<div class="charts">{"".join(charts)}</div>'] if charts else [paragraph("–")]


def _course(name: str, course: Mapping[str, Any] | None, axis: str) -> Series:
    if course is None or course[axis] is None:
        return Series(name, [], [])
    known = [(x, y) for x, y in zip(course[axis], course["value"]) if x is not None]
    return Series(name, [x / 60 if axis == "elapsed_s" else x for x, _ in known], [y for _, y in known])


def _config(config: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    if not config:
        return paragraph(text("compare.same_config"))
    rows = [
        [f"<code>{escape(each['field'])}</code>{' ⚠' if each['why'] else ''}", *map(_value, each["values"])]
        for each in config
    ]
    return table([escape(text("compare.field")), *map(escape, names)], rows)


def _value(value: object) -> str:
    return "–" if value in (None, "", [], ()) else escape(str(value))


def _data(data: Mapping[str, Any], names: Sequence[str]) -> str:
    if data["same"]:
        return paragraph(text("compare.same_data", hash=data["sets"][0]["content_hash"][:16]))
    rows = [
        [f"<code>{escape(each['what'])}</code>", *(_value(_short(value)) for value in each["values"])]
        for each in data["differences"]
    ]
    return table([escape(text("compare.field")), *map(escape, names)], rows)


def _short(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
