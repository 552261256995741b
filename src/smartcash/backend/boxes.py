"""Boxes: (N, 4) tensors, `xyxy` in pixels of the network's input unless a name says otherwise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import batched_nms

NMS_IOU = 0.65  # boxes of one class that overlap by more are one object


def grid_points(
    sizes: list[tuple[int, int]], strides: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Centres of all cells of all levels: points_A2 (x, y in px) and the stride of each, strides_A1."""
    points, steps = [], []
    for (rows, columns), stride in zip(sizes, strides):
        y, x = torch.meshgrid(
            (torch.arange(rows, device=device) + 0.5) * stride,
            (torch.arange(columns, device=device) + 0.5) * stride,
            indexing="ij",
        )
        points.append(torch.stack((x, y), -1).reshape(-1, 2))
        steps.append(torch.full((rows * columns, 1), float(stride), device=device))
    return torch.cat(points), torch.cat(steps)


def from_distances(points_A2: Tensor, distances_BA4: Tensor) -> Tensor:
    """Points and their distances to left, top, right, bottom (px) → boxes xyxy, (…, A, 4)."""
    return torch.cat((points_A2 - distances_BA4[..., :2], points_A2 + distances_BA4[..., 2:]), -1)


def to_distances(points_A2: Tensor, boxes_BA4: Tensor) -> Tensor:
    """The inverse of `from_distances`."""
    return torch.cat((points_A2 - boxes_BA4[..., :2], boxes_BA4[..., 2:] - points_A2), -1)


def pairwise_iou(a_BM4: Tensor, b_BN4: Tensor, eps: float = 1e-9) -> Tensor:
    """Intersection over union of every pair, (B, M, N)."""
    # one coordinate at a time: with the pairs' x and y side by side in memory, nothing can be vectorised
    left_a, top_a, right_a, bottom_a = a_BM4[:, :, None].unbind(-1)
    left_b, top_b, right_b, bottom_b = b_BN4.transpose(1, 2).contiguous()[:, :, None].unbind(1)
    width = (torch.minimum(right_a, right_b) - torch.maximum(left_a, left_b)).clamp_(min=0)
    height = (torch.minimum(bottom_a, bottom_b) - torch.maximum(top_a, top_b)).clamp_(min=0)
    inner = width.mul_(height)
    area_a = (right_a - left_a).clamp(min=0) * (bottom_a - top_a).clamp(min=0)
    area_b = (right_b - left_b).clamp(min=0) * (bottom_b - top_b).clamp(min=0)
    return inner / (area_a + area_b - inner + eps)


def complete_iou(a_N4: Tensor, b_N4: Tensor, eps: float = 1e-7) -> tuple[Tensor, Tensor]:
    """IoU and complete IoU of pairs, both (N,): overlap less centre distance and aspect mismatch.

    Zheng et al. 2020, "Distance-IoU Loss", equations 7–11. The aspect weight takes no gradient, as there."""
    top_left = torch.maximum(a_N4[:, :2], b_N4[:, :2])
    bottom_right = torch.minimum(a_N4[:, 2:], b_N4[:, 2:])
    inner = (bottom_right - top_left).clamp(min=0).prod(-1)
    size_a, size_b = a_N4[:, 2:] - a_N4[:, :2], b_N4[:, 2:] - b_N4[:, :2]
    iou = inner / (size_a.prod(-1) + size_b.prod(-1) - inner + eps)
    hull = torch.maximum(a_N4[:, 2:], b_N4[:, 2:]) - torch.minimum(a_N4[:, :2], b_N4[:, :2])
    diagonal = hull.square().sum(-1) + eps
    centre = ((a_N4[:, :2] + a_N4[:, 2:] - b_N4[:, :2] - b_N4[:, 2:]) / 2).square().sum(-1)
    angle = torch.atan(size_b[:, 0] / (size_b[:, 1] + eps)) - torch.atan(size_a[:, 0] / (size_a[:, 1] + eps))
    aspect = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + eps)
    return iou, iou - centre / diagonal - weight * aspect


def select(
    boxes_A4: Tensor,
    scores_AC: Tensor,
    *,
    score_threshold: float = 0.001,
    iou_threshold: float = NMS_IOU,
    limit: int = 100,
    candidates: int = 1000,
) -> tuple[Tensor, Tensor, Tensor]:
    """Post-processing of one image: boxes_N4, scores_N, labels_N, best first, N ≤ `limit`.

    Each (point, class) above `score_threshold` is a candidate; the best `candidates` go through per-class
    non-maximum suppression at `iou_threshold`."""
    points, labels = (scores_AC > score_threshold).nonzero(as_tuple=True)
    scores = scores_AC[points, labels]
    if len(scores) > candidates:
        # of equal scores, of which bf16 has many, the first point wins, whatever the threshold is
        best = scores.sort(descending=True, stable=True).indices[:candidates]
        points, labels, scores = points[best], labels[best], scores[best]
    boxes = boxes_A4[points]
    keep = batched_nms(boxes, scores, labels, iou_threshold)[:limit]
    return boxes[keep], scores[keep], labels[keep]
