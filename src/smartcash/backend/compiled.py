"""Whether there are compiled kernels: they need numba, the extra `smartcash[fast]`.

Modules of kernels are imported only when a training needs them, which takes a second.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

COMPILED = find_spec("numba") is not None


def kernels(name: str) -> ModuleType | None:
    """The module of this package with this name; None without numba."""
    return import_module(f"smartcash.backend.{name}") if COMPILED else None


def kernels_for(x_BCHW: Tensor, name: str) -> ModuleType | None:
    """The same, but None also for a map that no kernel takes, see `vectors.takes`."""
    vectors = kernels("vectors")
    return kernels(name) if vectors and vectors.takes(x_BCHW) else None
