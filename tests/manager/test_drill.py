"""The drill: a worker, the process that holds the Training Service, or both are killed at random moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.service_kills import VICTIMS, broken_records, drill

Toy = Callable[..., dict[str, Any]]


@pytest.mark.drills
@pytest.mark.timeout(900)
def test_whatever_is_killed_the_state_is_true_and_the_run_goes_on(toy: Toy, tmp_path: Path) -> None:
    """A26, A34: preparing, queueing, training and resuming; what the command line shows is true within ten seconds, no
    process is left, every run goes on, the events have no gap and the operation log is whole."""
    values = toy(training={"epochs": 50_000, "previews": {"count": 0}}, data={"workers": 1})
    home = tmp_path / "home"
    rounds = list(drill(home, values, 12, most_s=9.0, seed=20))
    assert [each.problem for each in rounds if each.problem] == []
    assert {each.victim for each in rounds} == set(VICTIMS)
    assert len({each.at for each in rounds}) >= 3, [each.at for each in rounds]
    assert broken_records(home) == []
