"""LiteRT's converter, which runs in an environment and a process of its own (A19, A34)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smartcash.backend.exporters.environments import TETHERED
from smartcash.backend.exporters.known.litert import CONVERTER

SLOW = """
import time
from pathlib import Path

def convert(program, example):
    Path(__file__).with_name("begun").touch()
    time.sleep(120)
"""


def test_the_converter_ends_when_the_export_that_asked_for_it_is_gone(tmp_path: Path):
    """A34: killed, an export leaves nothing behind that goes on for minutes."""
    (tmp_path / "litert_torch.py").write_text(SLOW)
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3),)), tmp_path / "program.pt2")
    job = {"program": str(tmp_path / "program.pt2"), "shape": [1, 3], "file": "-", "result": "-"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    with subprocess.Popen(
        [sys.executable, TETHERED, CONVERTER, tmp_path / "job.json"], stdin=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(tmp_path)}, start_new_session=True,
    ) as converter:  # fmt: skip
        while not (tmp_path / "begun").exists():
            with pytest.raises(subprocess.TimeoutExpired):  # it waits for its work, not for its stdin
                converter.wait(0.2)
        assert converter.stdin is not None
        converter.stdin.close()
        assert converter.wait(10) == -signal.SIGKILL
