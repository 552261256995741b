"""A report card as a page: what `worker.report` gives, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from smartcash.backend.calibration import short_of_target
from smartcash.backend.mistakes import KINDS
from smartcash.backend.pages import (
    Series,
    answer_marks,
    answer_words,
    heading,
    legend,
    lines,
    matrix,
    number,
    page,
    paragraph,
    photo,
    table,
    with_interval,
)
from smartcash.domain.banknotes import display_names
from smartcash.utils.i18n import decimal, text

AT_ONCE = 8  # classes in one chart


def card_page(facts: Mapping[str, Any], picture: Callable[[str], bytes]) -> bytes:
    """The page in this process's language; `picture` gives the JPEG of a file that the facts name."""
    return page(
        text("report.title", name=facts["model"]["name"]),
        [
            *_model(facts),
            heading("report.figures"),
            *_figures(facts),
            heading("report.classes"),
            _classes(facts),
            heading("report.robustness"),
            *_robustness(facts["robustness"]),
            heading("report.mistakes"),
            *_mistakes(facts, picture),
            heading("report.confusion"),
            _confusion(facts),
            *_curves(facts["curves"]),
            heading("report.calibration"),
            *_calibration(facts["calibration"]),
            heading("report.limits"),
            *_limits(facts),
            heading("report.pace"),
            paragraph(_pace(facts)),
        ],
    )


def _model(facts: Mapping[str, Any]) -> list[str]:
    model = facts["model"]
    whats = ("title", "backbone", "run", "version", "epoch", "parameters", "threshold", "started")
    shown = {
        what: decimal(model[what], ".3g") if isinstance(model[what], float) else model[what] for what in whats
    }
    rows = [
        [escape(text(f"compare.model.{what}")), escape(str(value))] for what, value in shown.items() if value
    ]
    rows.append(["SHA-256", f"<code>{escape(facts['model']['sha256'])}</code>"])
    return [table(["", ""], rows)]


def _figures(facts: Mapping[str, Any]) -> list[str]:
    counts = {name: facts[name] for name in ("split", "images", "objects", "resamples")}
    parts = [paragraph(text("compare.judged_on", data=facts["data"], **counts), "dim")]
    if facts["chosen_on"]:
        parts.append(paragraph(text("compare.chosen_on"), "note"))
    if facts["seen_in_training"]:
        leak = {"name": facts["model"]["name"], "count": facts["seen_in_training"], "images": facts["images"]}
        parts.append(paragraph(text("compare.leak", **leak), "note"))
    rows = [[escape(text(f"metrics.{row['name']}")), with_interval(row["value"])] for row in facts["metrics"]]
    return [*parts, table([escape(text("compare.figure")), escape(text("report.interval"))], rows)]


def _classes(facts: Mapping[str, Any]) -> str:
    classes, limits = facts["classes"], facts["limits"]["classes"]
    names = [row["name"] for row in classes[0]["metrics"]]
    heads = [text("tables.class"), text("tables.support"), *(text(f"tables.{name}") for name in names)]
    rows = []
    for name, each in zip(display_names([each["name"] for each in classes]), classes):
        cells = [with_interval(row["value"]) for row in each["metrics"]]
        own = [number(limits[each["name"]], 2)] if facts["task"] == "detect" else []
        rows.append([escape(name), str(each["support"]), *cells, *own])
    heads += [text("report.threshold")] if facts["task"] == "detect" else []
    return table([escape(head) for head in heads], rows)


def _robustness(robustness: Mapping[str, Any]) -> list[str]:
    """A chart per hardship, the plain pictures at its left end; below it the figures."""
    metrics = [name for name, value in robustness["plain"].items() if value is not None]
    charts = []
    for hardship in robustness["hardships"]:
        stages = [robustness["plain"], *(level["figures"] for level in hardship["levels"])]
        series = [
            Series(
                text(f"metrics.{metric}"),
                range(len(stages)),
                *(
                    [stage[metric] and stage[metric][side] for stage in stages]
                    for side in ("value", "low", "high")
                ),
            )
            for metric in metrics
        ]
        amounts = " · ".join(decimal(level["amount"]) for level in hardship["levels"])
        title = f"{text('report.hardship.' + hardship['name'])}: {amounts}"
        charts.append(lines(title, series, text("report.level"), "", y_range=(0, 1), small=True))
    return [
        paragraph(text("report.robustness_how", images=robustness["images"]), "dim"),
        legend([text(f"metrics.{metric}") for metric in metrics]),
        f'<div class="charts">{"".join(charts)}</div>',
        *(_robustness_table(robustness, metric) for metric in metrics[-1:]),
    ]


def _robustness_table(robustness: Mapping[str, Any], metric: str) -> str:
    heads = [text(f"metrics.{metric}"), *(text(f"report.levels.{level}") for level in range(4))]
    rows = [
        [
            escape(text(f"report.hardship.{hardship['name']}")),
            with_interval(robustness["plain"][metric]),
            *(with_interval(level["figures"][metric]) for level in hardship["levels"]),
        ]
        for hardship in robustness["hardships"]
    ]
    return table([escape(head) for head in heads], rows)


def _mistakes(facts: Mapping[str, Any], picture: Callable[[str], bytes]) -> list[str]:
    counts, most = facts["mistakes"]["counts"], max(1, *facts["mistakes"]["counts"].values())
    kinds = KINDS if facts["task"] == "detect" else ("wrong_class",)
    rows = [
        [
            escape(text(f"report.kind.{kind}")),
            f'{counts[kind]} <span class="bar" style="width: {120 * counts[kind] / most:.0f}px"></span>',
            f"<small>{escape(text(f'report.kind_means.{kind}'))}</small>",
        ]
        for kind in kinds
    ]
    parts = [table(["", "", ""], rows, "kinds")]
    if not facts["mistakes"]["worst"]:
        return [*parts, paragraph(text("report.no_mistakes", images=facts["images"]))]
    parts.append(paragraph(text("report.worst"), "dim"))
    figures = []
    for each in facts["mistakes"]["worst"]:
        truth = ", ".join(display_names([mark["class"] for mark in each["truth"]])) or text("compare.nothing")
        caption = f"{each['source']} · {text('compare.truth', truth=truth)} · {answer_words(each['answer'])}"
        marks = answer_marks(each["truth"], each["answer"])
        figures.append(photo(picture(each["file"]), (each["width"], each["height"]), marks, caption))
    return [*parts, f'<div class="pictures">{"".join(figures)}</div>']


def _confusion(facts: Mapping[str, Any]) -> str:
    names = display_names(facts["confusion"]["classes"])
    if facts["task"] == "detect":
        names = [*names, text("report.background")]
    return matrix(names, facts["confusion"]["counts"], text("report.truth_found"))


def _curves(curves: Mapping[str, Any] | None) -> list[str]:
    """Of a detector only."""
    if curves is None:
        return []
    whole = curves["all"]
    over_score = [
        Series(text(f"metrics.{name}"), whole["score"], whole[name]) for name in ("precision", "recall")
    ]
    over_score.append(
        Series(text("metrics.f1"), whole["score"], whole["f1"], whole["f1_low"], whole["f1_high"])
    )
    names = display_names([each["name"] for each in curves["classes"]])
    by_class = [
        Series(name, each["recall"], each["precision"]) for name, each in zip(names, curves["classes"])
    ]
    square = {"x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}
    charts = [
        lines(
            text("report.precision_recall"), by_class[first : first + AT_ONCE], text("metrics.recall"),
            text("metrics.precision"), **square,
        ) + legend(names[first : first + AT_ONCE])
        for first in range(0, len(by_class), AT_ONCE)
    ]  # fmt: skip
    scores = lines(text("report.over_score"), over_score, text("metrics.threshold"), "", **square)
    return [
        heading("report.curves"),
        '<div class="charts">',
        f"<div>{scores}{legend([each.name for each in over_score])}</div>",
        *(f"<div>{chart}</div>" for chart in charts),
        "</div>",
    ]


def _calibration(calibration: Mapping[str, Any] | None) -> list[str]:
    if calibration is None:
        return [paragraph(text("report.no_answers"))]
    right = calibration["right"]
    sides = ([each[side] for each in right] for side in ("value", "low", "high"))
    series = Series(text("report.share_right"), calibration["certainty"], *sides)
    square = {"x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}
    chart = lines(
        text("report.reliability"),
        [series],
        text("report.certainty"),
        text("report.share_right"),
        diagonal=True,
        **square,
    )
    return [
        paragraph(text("report.calibration_how"), "dim"),
        f"<p>{escape(text('metrics.ece'))}: {with_interval(calibration['ece'])}</p>",
        f'<div class="charts">{chart}</div>',
    ]


def _limits(facts: Mapping[str, Any]) -> list[str]:
    limits = facts["limits"]
    chosen = {
        "images": limits["images"],
        "abstain": decimal(limits["abstain"], ".2f"),
        "target": f"{limits['target']:.0%}",
    }
    few = short_of_target(limits)
    parts = [
        paragraph(text("report.limits_how", **chosen)),
        paragraph(text("report.limits_kept" if limits["kept"] else "report.limits_not_kept")),
        *([] if limits["reached"] else [paragraph(text("report.limit_not_reached", **chosen), "note")]),
        *([paragraph(text("report.limit_few", **few), "note")] if few else []),
        table(
            ["", escape(text("report.sure")), escape(text("report.right_when_sure"))],
            [
                [escape(text("report.on_valid")), number(limits["sure"]), number(limits["right_when_sure"])],
                [
                    escape(text("report.on_judged", split=facts["split"])),
                    number(limits["judged"]["sure"]),
                    number(limits["judged"]["right_when_sure"]),
                ],
            ],
        ),
    ]
    curve = limits["curve"]
    series = [
        Series(text(f"report.{name}"), curve["abstain"], curve[name]) for name in ("sure", "right_when_sure")
    ]
    chart = lines(text("report.abstaining"), series, text("report.abstain"), "", y_range=(0, 1))
    return [*parts, f'<div class="charts"><div>{chart}{legend([each.name for each in series])}</div></div>']


def _pace(facts: Mapping[str, Any]) -> str:
    pace, width_height = facts["pace"], " × ".join(map(str, facts["pace"]["picture"]))
    return text(
        "report.pace_line", p50=decimal(pace["p50_ms"], ".1f"), p95=decimal(pace["p95_ms"], ".1f"), threads=pace["threads"],
        picture=width_height, megabytes=decimal(facts["model"]["size_bytes"] / 1e6, ".1f"),
    )  # fmt: skip
