"""The benchmark of growth runs, and the page that shows it has every cost of every subject (A33, D16)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks.__main__ import NAMES as BENCHMARKS
from benchmarks.scale import NAMES, SIZES, Growth, chart, table

from smartcash.utils.i18n import LANGUAGES, decimal

ROOT = Path(__file__).parents[2]
COSTS = [name for name in NAMES if "." in name]


def test_growth_in_proportion_has_the_exponent_one() -> None:
    assert Growth("runs.again", (100, 300, 1000), (0.2, 0.6, 2.0)).exponent == pytest.approx(1)
    assert Growth("runs.again", (100, 300, 1000), (0.2, 0.2, 0.2)).exponent == pytest.approx(0)
    assert Growth("runs.again", (1, 10, 100), (0.1, 10.0, 1000.0)).exponent == pytest.approx(2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmark_of_growth_measures_every_cost() -> None:
    """As `python -m benchmarks scale --small` runs it."""
    command = [sys.executable, "-m", "benchmarks", "scale", "--small"]
    told = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=550, check=True
    )
    assert [name for name in NAMES.values() if name["en"] not in told.stdout] == []
    rows = re.findall(r"(?:\s+[\d.,e-]+){4}\s+-?[\d.e-]+$", told.stdout, re.MULTILINE)
    assert len(rows) == len(COSTS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_every_cost_as_it_is_written(language: str) -> None:
    """A table and a chart of the same costs; every benchmark has its line."""
    page = (ROOT / "docs" / language / "benchmarks.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- scale -->")[2].partition("<!-- /scale -->")[0]
    rows = [line for line in shown.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[1] for row in rows] == [NAMES[cost][language] for cost in COSTS]
    assert all(f"| `{name}` |" in page for name in BENCHMARKS)
    drawn = ElementTree.parse(ROOT / "docs" / "images" / f"scale.{language}.svg")
    words = {"".join(each.itertext()) for each in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert all(NAMES[cost][language].replace("`", "") in words for cost in COSTS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_figures_are_written_with_the_signs_of_the_language(language: str) -> None:
    """A33."""
    made = [Growth(cost, SIZES[cost.partition(".")[0]], (0.0123, 0.04, 1.5)) for cost in COSTS]
    assert decimal(0.012, "", language) in table(made, language)
    assert ("3,000" if language == "en" else "3.000") in table(made, language)
    ElementTree.fromstring(chart(made, language))
