"""Faults, injected for real: a preloaded library strikes at every single file call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCENARIOS = ("save", "save-sync", "cleanup", "history", "copy", "doctor")
FAULTS = ("kill", "half-write-kill", "EIO", "ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EROFS")


def inject(shim: Path, scenario: str, folder: Path, *faults: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, HERE / "fault_runner.py", scenario, folder, *faults],
        env={**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1700,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("scenario", "faults"), [("save", ["kill", "ENOSPC"])])
def test_after_a_fault_at_any_file_call_the_newest_acknowledged_checkpoint_loads(
    shim: Path, tmp_path: Path, scenario: str, faults: list[str]
) -> None:
    """B29, B31: the fast part of the matrix."""
    result = inject(shim, scenario, tmp_path, *faults)
    assert result["cases"] >= 10 * len(faults)
    assert result["broken"] == {}


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_whole_fault_matrix(shim: Path, tmp_path: Path, scenario: str) -> None:
    """B29: every fault at every file call of save, cleanup, history, copy and doctor."""
    result = inject(shim, scenario, tmp_path, *FAULTS)
    print(f"\nFAULTS {scenario}: {result['calls']} calls, {result['cases']} cases")
    assert result["broken"] == {}
