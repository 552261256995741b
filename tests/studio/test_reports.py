"""Report cards that a page asks for: one is worked on at a time, and none is forgotten."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from smartcash.domain.records import ModelVersion
from smartcash.handlers.reports import Reports


def version(number: int) -> ModelVersion:
    """A version that no home knows: its report card fails, and says which one it was."""
    texts = dict.fromkeys(
        ("created", "backbone", "run", "parent", "checkpoint", "config_hash", "code", "started", "ended"), ""
    )
    tables: dict[str, Any] = {name: {} for name in ("config", "data", "environment", "metrics")}
    return ModelVersion(
        number=number, path="", task="detect", classes=(), epoch=1, threshold=None, elapsed_s=None,
        sha256=f"{number:064}", size=0, **texts, **tables,
    )  # fmt: skip


def test_a_report_card_asked_for_while_another_is_made_is_made_after_it(tmp_path: Path) -> None:
    """D14: each says of itself what hindered it; asked for its state only, nothing is begun."""
    reports, both = Reports(tmp_path), (version(7), version(8))
    assert [reports.state(each, "en")["state"] for each in both] == ["none", "none"]
    assert [reports.begin(each, "en")["state"] for each in both] == ["working", "working"]
    limit, said = time.monotonic() + 120, dict[str, str]()
    while len(said) < 2 and time.monotonic() < limit:
        for each in both:
            found = reports.state(each, "en")
            if found["state"] == "failed":
                said[each.name] = found["error"]
        time.sleep(0.2)
    reports.close()
    assert "v7" in said["v7"] and "v8" in said["v8"]
    assert reports.state(both[0], "en")["state"] == "none"
