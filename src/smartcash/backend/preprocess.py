"""From a picture to the network's input and back: one object, used unchanged by training, evaluation,
prediction and export, and saved with every checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

PAD_VALUE = 114  # mid grey, as the ImageNet mean


@dataclass(frozen=True)
class Preprocess:
    """RGB uint8 picture → `image_size` × `image_size`, then (x / 255 − mean) / std per channel.

    `letterbox` keeps the aspect ratio, centred on grey; `stretch` fills the square."""

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["letterbox", "stretch"] = "letterbox"
    pad_value: int = PAD_VALUE
    color_order: Literal["RGB"] = "RGB"

    def placed(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Where a picture of that size lies in the square: left, top, width, height, whole px."""
        if self.resize == "stretch":
            return 0, 0, self.image_size, self.image_size
        ratio = self.image_size / max(width, height)
        inner_width = max(1, min(self.image_size, round(width * ratio)))
        inner_height = max(1, min(self.image_size, round(height * ratio)))
        return (
            (self.image_size - inner_width) // 2,
            (self.image_size - inner_height) // 2,
            inner_width,
            inner_height,
        )

    def matrix(self, width: int, height: int) -> np.ndarray:
        """The 3×3 matrix from edge coordinates of the picture (px) to those of the square."""
        left, top, inner_width, inner_height = self.placed(width, height)
        return np.array(
            [[inner_width / width, 0, left], [0, inner_height / height, top], [0, 0, 1]], np.float64
        )

    def image(self, image_HW3: np.ndarray) -> np.ndarray:
        """The picture in the square, uint8 (S, S, 3)."""
        height, width = image_HW3.shape[:2]
        left, top, inner_width, inner_height = self.placed(width, height)
        shrinks = inner_width < width or inner_height < height
        inner = image_HW3
        if (inner_width, inner_height) != (width, height):
            inner = cv2.resize(
                image_HW3,
                (inner_width, inner_height),
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
            )
        if (inner_width, inner_height) == (self.image_size, self.image_size):
            return np.ascontiguousarray(inner)
        square = np.full((self.image_size, self.image_size, 3), self.pad_value, np.uint8)
        square[top : top + inner_height, left : left + inner_width] = inner
        return square

    def boxes(self, boxes_N4: np.ndarray, width: int, height: int) -> np.ndarray:
        """Boxes of the picture (xyxy px) → boxes of the square."""
        left, top, inner_width, inner_height = self.placed(width, height)
        scale = np.array([inner_width / width, inner_height / height] * 2, np.float32)
        return (boxes_N4 * scale + np.array([left, top] * 2, np.float32)).astype(np.float32)

    def boxes_back(self, boxes_N4: np.ndarray, width: int, height: int) -> np.ndarray:
        """Boxes of the square → boxes of the picture (xyxy px), clipped to it."""
        left, top, inner_width, inner_height = self.placed(width, height)
        scale = np.array([inner_width / width, inner_height / height] * 2, np.float32)
        boxes = (boxes_N4 - np.array([left, top] * 2, np.float32)) / scale
        return np.clip(boxes, 0, np.array([width, height] * 2, np.float32)).astype(np.float32)

    def normalize(self, images_B3HW: Tensor) -> Tensor:
        """uint8 → normalised float32, channels last in memory."""
        images_BHW3 = images_B3HW.permute(0, 2, 3, 1).to(torch.float32, copy=True)
        rows = images_BHW3.contiguous().flatten(0, 1).flatten(1)  # three numbers at a time would be slow
        mean, std = (torch.tensor(each, device=rows.device) * 255 for each in (self.mean, self.std))
        rows.sub_(mean.repeat(images_B3HW.shape[3])).div_(std.repeat(images_B3HW.shape[3]))
        return rows.view(images_BHW3.shape).permute(0, 3, 1, 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and exports."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of `to_dict`."""
        return cls(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        )
