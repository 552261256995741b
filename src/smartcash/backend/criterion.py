"""What a prediction costs.

Detection: task-aligned assignment (TOOD, Feng et al. 2021), varifocal class loss (Zhang et al. 2021),
complete-IoU box loss (Zheng et al. 2020) and distribution focal loss (Li et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smartcash.backend.boxes import complete_iou, pairwise_iou, to_distances
from smartcash.backend.detector import Prediction
from smartcash.backend.distributed import World


@dataclass
class Targets:
    """The true boxes of a batch, padded: boxes_BM4 (xyxy px), labels_BM, valid_BM."""

    boxes_BM4: Tensor
    labels_BM: Tensor
    valid_BM: Tensor

    def to(self, device: torch.device) -> Targets:
        return Targets(self.boxes_BM4.to(device), self.labels_BM.to(device), self.valid_BM.to(device))


@dataclass
class Assignment:
    """Which point answers for which true box: positive_BA, truth_BA (index into M), quality_BA (0…1)."""

    positive_BA: Tensor
    truth_BA: Tensor
    quality_BA: Tensor


@torch.no_grad()
def assign(
    scores_BAC: Tensor,
    boxes_BA4: Tensor,
    points_A2: Tensor,
    targets: Targets,
    *,
    top: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> Assignment:
    """Task-aligned assignment: alignment = score^alpha · IoU^beta, the `top` points inside each box.

    A point claimed twice goes to the box of larger IoU. `quality` is the alignment scaled so that the best
    point of each box has its best IoU (TOOD, equations 2–3). Where nothing aligns yet (all IoU 0, at the
    start), the three points nearest to the centre stand in."""
    batch, points, _ = scores_BAC.shape
    truths = targets.boxes_BM4.shape[1]
    if truths == 0:
        empty = scores_BAC.new_zeros((batch, points))
        return Assignment(empty.bool(), empty.long(), empty)
    iou_BMA = pairwise_iou(targets.boxes_BM4, boxes_BA4)
    x_A, y_A = points_A2.unbind(-1)
    left, top_edge, right, bottom = targets.boxes_BM4[:, :, None].unbind(-1)
    inside_BMA = (x_A > left) & (y_A > top_edge) & (x_A < right) & (y_A < bottom)
    inside_BMA &= targets.valid_BM[:, :, None]
    index = targets.labels_BM[:, None, :].expand(-1, points, -1)
    score_BMA = scores_BAC.gather(2, index).transpose(1, 2)
    align_BMA = (score_BMA.pow(alpha) * iou_BMA.pow(beta)).masked_fill_(~inside_BMA, 0.0)

    chosen = align_BMA.topk(min(top, points), -1)
    candidate_BMA = torch.zeros_like(inside_BMA).scatter_(2, chosen.indices, chosen.values > 1e-9)
    orphan_BM = targets.valid_BM & ~candidate_BMA.any(-1)
    if bool(orphan_BM.any()):
        centre_N2 = ((targets.boxes_BM4[..., :2] + targets.boxes_BM4[..., 2:]) / 2)[orphan_BM]
        distance_NA = (x_A - centre_N2[:, :1]).square() + (y_A - centre_N2[:, 1:]).square()
        near = distance_NA.topk(min(3, points), -1, largest=False).indices
        candidate_BMA[orphan_BM] = torch.zeros_like(distance_NA, dtype=torch.bool).scatter_(1, near, True)

    # few points are candidates: what follows looks at these alone
    picture_N, truth_N, point_N = candidate_BMA.nonzero(as_tuple=True)
    claims_BA = torch.bincount(picture_N * points + point_N, minlength=batch * points).view(batch, points)
    contested_BA = claims_BA > 1
    if bool(contested_BA.any()):
        claim_KM = candidate_BMA.transpose(1, 2)[contested_BA]
        rival_K = iou_BMA.transpose(1, 2)[contested_BA].masked_fill(~claim_KM, -1.0).argmax(1)
        candidate_BMA.transpose(1, 2)[contested_BA] = F.one_hot(rival_K, truths).bool()
        picture_N, truth_N, point_N = candidate_BMA.nonzero(as_tuple=True)

    best_align_BM = align_BMA.masked_fill_(~candidate_BMA, 0.0).amax(-1)
    best_iou_BM = iou_BMA.masked_fill(~candidate_BMA, 0.0).amax(-1)
    owner, place = (picture_N, truth_N), (picture_N, truth_N, point_N)
    quality_N = align_BMA[place] / (best_align_BM[owner] + 1e-9) * best_iou_BM[owner]
    # a stand-in has no alignment to be judged by; its IoU, at least a tenth, is its target
    quality_N = torch.where(orphan_BM[owner], iou_BMA[place].clamp(min=0.1), quality_N)
    truth_BA, quality_BA = torch.zeros_like(claims_BA), iou_BMA.new_zeros((batch, points))
    truth_BA[picture_N, point_N] = truth_N
    quality_BA[picture_N, point_N] = quality_N
    return Assignment(claims_BA > 0, truth_BA, quality_BA)


class DetectionCriterion(nn.Module):
    """Prediction, Targets → loss parts (scalars): `class`, `box`, `dfl` and their weighted sum `loss`."""

    def __init__(
        self,
        *,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        dfl_weight: float = 1.0,
        world: World | None = None,
    ) -> None:
        super().__init__()
        self.world = world or World()
        self.weights = {"class": class_weight, "box": box_weight, "dfl": dfl_weight}

    def forward(self, prediction: Prediction, targets: Targets) -> dict[str, Tensor]:
        logits = prediction.scores_BAC
        boxes_BA4 = prediction.boxes()
        found = assign(logits.detach().sigmoid(), boxes_BA4.detach(), prediction.points_A2, targets)
        positive = found.positive_BA
        labels_BA = (
            targets.labels_BM.gather(1, found.truth_BA) if targets.labels_BM.shape[1] else found.truth_BA
        )
        quality_BAC = torch.zeros_like(logits)
        quality_BAC.scatter_(2, labels_BA[..., None], (found.quality_BA * positive)[..., None])
        total = self.world.sum(quality_BAC.sum()).clamp(min=1.0)
        parts = {"class": varifocal(logits, quality_BAC) / total}
        if bool(positive.any()):
            truth_N4 = targets.boxes_BM4.gather(1, found.truth_BA[..., None].expand(-1, -1, 4))[positive]
            weight_N = found.quality_BA[positive]
            _, ciou_N = complete_iou(boxes_BA4[positive], truth_N4)
            parts["box"] = ((1 - ciou_N) * weight_N).sum() / total
            anchors = positive.nonzero()[:, 1]
            sides_N4 = to_distances(prediction.points_A2[anchors], truth_N4) / prediction.strides_A1[anchors]
            parts["dfl"] = (
                distribution_focal(prediction.distances_BA4K[positive], sides_N4) * weight_N
            ).sum() / total
        else:
            zero = prediction.distances_BA4K.sum() * 0.0
            parts["box"] = parts["dfl"] = zero
        parts["loss"] = sum(self.weights[name] * part for name, part in parts.items())
        return parts


def varifocal(logits: Tensor, quality: Tensor, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Varifocal loss, summed (Zhang et al. 2021, equation 2): a positive weighs its quality, a negative
    alpha · p^gamma."""
    with torch.no_grad():
        weight = torch.where(quality > 0, quality, alpha * logits.sigmoid().pow(gamma))
    return (F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * weight).sum()


def distribution_focal(logits_N4K: Tensor, sides_N4: Tensor) -> Tensor:
    """Distribution focal loss per box, (N,): cross entropy with the two bins around each side's distance in
    strides (Li et al. 2020, equation 6)."""
    bins = logits_N4K.shape[-1]
    target = sides_N4.clamp(0, bins - 1 - 1e-3)
    low = target.floor().long()
    share = target - low
    flat = logits_N4K.float().reshape(-1, bins)
    left = F.cross_entropy(flat, low.reshape(-1), reduction="none").view_as(target)
    right = F.cross_entropy(flat, low.reshape(-1) + 1, reduction="none").view_as(target)
    return (left * (1 - share) + right * share).mean(-1)


class ClassificationCriterion(nn.Module):
    """logits_BC, probabilities_BC (soft targets) → {"loss"}: cross entropy with label smoothing."""

    def __init__(self, label_smoothing: float = 0.0, *, world: World | None = None) -> None:
        super().__init__()
        self.label_smoothing, self.world = label_smoothing, world or World()

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> dict[str, Tensor]:
        summed = F.cross_entropy(
            logits_BC.float(), targets_BC, reduction="sum", label_smoothing=self.label_smoothing
        )
        return {"loss": summed / self.world.sum(logits_BC.new_tensor(float(len(logits_BC))))}
