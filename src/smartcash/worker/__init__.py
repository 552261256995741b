"""The composition root: builds every part and runs it. Nothing else knows all layers.

training    train, resume, check, extend: one process's time with one run
stores      where its checkpoints go
data        load_data, preview_data
answers     what a workbench says of models and the machine; data_answers: of data sets
facts       what a run records of machine, code and results
models      a trained model by name: evaluate, predict, count
serving     a model version that answers many at once
advising    what a backbone's model costs on this machine
comparing   several models on the same pictures
reporting   the report card of one
exporting   files for other runtimes, with their proof
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smartcash.worker.comparing import compare
    from smartcash.worker.data import load_data, preview_data
    from smartcash.worker.exporting import benchmark_exports, export_model, verify_export
    from smartcash.worker.facts import backbone_problems, torch_facts
    from smartcash.worker.models import count_files, evaluate_model, load, open_model, predict_files
    from smartcash.worker.reporting import report
    from smartcash.worker.training import check, extend, resume, train

__all__ = [
    "backbone_problems",
    "benchmark_exports",
    "check",
    "compare",
    "count_files",
    "evaluate_model",
    "export_model",
    "extend",
    "load",
    "load_data",
    "open_model",
    "predict_files",
    "preview_data",
    "report",
    "resume",
    "torch_facts",
    "train",
    "verify_export",
]

# loaded when first asked for: what looks at data alone must not wait for torch
_HOMES = {
    "backbone_problems": "facts",
    "benchmark_exports": "exporting",
    "check": "training",
    "compare": "comparing",
    "count_files": "models",
    "evaluate_model": "models",
    "export_model": "exporting",
    "extend": "training",
    "load": "models",
    "load_data": "data",
    "open_model": "models",
    "predict_files": "models",
    "preview_data": "data",
    "report": "reporting",
    "resume": "training",
    "torch_facts": "facts",
    "train": "training",
    "verify_export": "exporting",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import_module("numpy")  # torch would do it, and swallow a signal that comes meanwhile
        return getattr(import_module(f"smartcash.worker.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'smartcash.worker' has no attribute {name!r}")
