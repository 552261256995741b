"""SmartCash: an open training studio for banknote vision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ModelVersions", "TrainConfig", "TrainingManager", "__version__", "compare", "load", "report"]

if TYPE_CHECKING:
    from smartcash.domain.config import TrainConfig
    from smartcash.handlers.model_versions import ModelVersions
    from smartcash.handlers.training_manager import TrainingManager
    from smartcash.worker import compare, load, report

# loaded when first asked for: `smartcash --help` must not wait for them
_HOMES = {
    "TrainConfig": "smartcash.domain.config",
    "TrainingManager": "smartcash.handlers.training_manager",
    "ModelVersions": "smartcash.handlers.model_versions",
    "load": "smartcash.worker",
    "compare": "smartcash.worker",
    "report": "smartcash.worker",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'smartcash' has no attribute {name!r}")
