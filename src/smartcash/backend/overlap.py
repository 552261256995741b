"""How much boxes overlap, as numpy arrays; no torch, so that a data set can be looked at without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def iou(a_M4: NDArray[np.floating], b_N4: NDArray[np.floating], eps: float = 1e-9) -> NDArray[np.floating]:
    """Intersection over union of every pair of boxes (xyxy, one unit for both), shape (M, N)."""
    low = np.maximum(a_M4[:, None, :2], b_N4[None, :, :2])
    high = np.minimum(a_M4[:, None, 2:], b_N4[None, :, 2:])
    inner = (high - low).clip(0).prod(-1)
    areas_M, areas_N = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a_M4, b_N4))
    share: NDArray[np.floating] = inner / np.maximum(areas_M[:, None] + areas_N - inner, eps)
    return share
