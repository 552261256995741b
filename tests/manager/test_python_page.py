"""The example of the page "From Python" is run as it stands there, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smartcash import TrainConfig
from smartcash.backend.samples import write_samples
from smartcash.utils.i18n import LANGUAGES

DOCS = Path(__file__).parents[2] / "docs"


def example(language: str) -> str:
    """The first Python block of the page."""
    page = (DOCS / language / "python.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return str(block)


def test_both_languages_show_the_same_example() -> None:
    """A33: only comments and the name of the data set differ."""

    def plain(language: str) -> str:
        return re.sub(r"  #.*", "", example(language)).replace('"uang"', '"notes"')

    assert plain("en") == plain("id")


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_example_of_the_page_trains(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A1, A20, A21, D9: check, confirm, start, watch, result, from an empty folder with the defaults."""
    code = example(language)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SMARTCASH_HOME", raising=False)
    write_samples(tmp_path / ("notes" if language == "en" else "uang"), images=20, seed=3, size_px=96)
    exec(compile(code, "python.md", "exec"), {})
    said = capsys.readouterr().out
    assert (
        "duration_s" in said
        and f"training.epochs: {TrainConfig().training.epochs} → 2" in said
        and "'mAP50'" in said
    )
    assert list((tmp_path / "runs").glob("*/*/report/metrics.json"))
