"""The detector: backbone, path-aggregation neck, decoupled anchor-free head.

Neck: PANet (Liu et al. 2018). Head: one box and one class branch, separate (YOLOX, Ge et al. 2021), their
convolutions shared by the three levels with batch norms of each level's own (RTMDet, Lyu et al. 2022); each
side of a box is a distribution over `BINS` distances (Generalized Focal Loss, Li et al. 2020). The class branch
is depthwise separable (MobileNet, Howard et al. 2017), as in small detectors (PP-PicoDet, Yu et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smartcash.backend.backbones import STRIDES, Backbone
from smartcash.backend.boxes import from_distances, grid_points
from smartcash.backend.depthwise import DepthwiseConv2d
from smartcash.backend.norms import NormAct2d

BINS = 16  # distances of 0 … 15 strides


@dataclass(frozen=True)
class Scale:
    """Width (channels of neck and head) and depth (convolutions per block) of a size."""

    width: int
    depth: int


SCALES = {"n": Scale(64, 1), "s": Scale(96, 1), "m": Scale(128, 2)}


@dataclass
class Prediction:
    """Raw outputs at all A points of all levels, for the criterion and for post-processing.

    scores_BAC: class logits. distances_BA4K: logits of each side's distance distribution. points_A2: px.
    strides_A1: px."""

    scores_BAC: Tensor
    distances_BA4K: Tensor
    points_A2: Tensor
    strides_A1: Tensor

    def boxes(self) -> Tensor:
        """Decoded boxes xyxy in px of the input, (B, A, 4), float32."""
        bins = torch.arange(self.distances_BA4K.shape[-1], dtype=torch.float32, device=self.points_A2.device)
        expected = self.distances_BA4K.float().softmax(-1) @ bins
        return from_distances(self.points_A2, expected * self.strides_A1)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        norm(outputs),
    )


def norm(channels: int) -> NormAct2d:
    """Batch norm, SiLU."""
    return NormAct2d(channels, 1e-3, 0.03, nn.SiLU(inplace=True))


class Fuse(nn.Module):
    """Two maps side by side → one: a 1×1 convolution, then `depth` residual 3×3 ones."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.reduce = conv(inputs, width)
        self.blocks = nn.ModuleList(conv(width, width, 3) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        for block in self.blocks:
            x = x + block(x)
        return x


class Neck(nn.Module):
    """Feature maps at strides 8/16/32 → three maps of `width` channels, each having seen the others."""

    def __init__(self, channels: tuple[int, ...], width: int, depth: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv(c, width) for c in channels)
        self.down_16 = Fuse(2 * width, width, depth)
        self.down_8 = Fuse(2 * width, width, depth)
        self.shrink_8 = conv(width, width, 3, 2)
        self.up_16 = Fuse(2 * width, width, depth)
        self.shrink_16 = conv(width, width, 3, 2)
        self.up_32 = Fuse(2 * width, width, depth)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        c8, c16, c32 = (lateral(m) for lateral, m in zip(self.lateral, maps))
        p16 = self.down_16(torch.cat((c16, F.interpolate(c32, scale_factor=2.0)), 1))
        p8 = self.down_8(torch.cat((c8, F.interpolate(p16, scale_factor=2.0)), 1))
        n16 = self.up_16(torch.cat((p16, self.shrink_8(p8)), 1))
        n32 = self.up_32(torch.cat((c32, self.shrink_16(n16)), 1))
        return [p8, n16, n32]


class SharedConv(nn.Module):
    """A 3×3 convolution shared by the levels, with one batch norm per level."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(norm(outputs) for _ in STRIDES)

    def forward(self, x: Tensor, level: int) -> Tensor:
        return self.norms[level](self.conv(x))


class SharedSeparable(nn.Module):
    """A depthwise 5×5 and a 1×1 convolution shared by the levels, with batch norms of each level's own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        spatial = nn.Conv2d(channels, channels, 5, 1, 2, groups=channels, bias=False)
        self.spatial = DepthwiseConv2d(spatial)
        self.spatial_norms = nn.ModuleList(norm(channels) for _ in STRIDES)
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.norms = nn.ModuleList(norm(channels) for _ in STRIDES)

    def forward(self, x: Tensor, level: int) -> Tensor:
        x = self.spatial_norms[level](self.spatial(x))
        return self.norms[level](self.mix(x))


class Detector(nn.Module):
    """images_BCHW (normalised; height and width multiples of 32) → Prediction."""

    def __init__(self, backbone: Backbone, classes: int, scale: str = "s") -> None:
        super().__init__()
        size = SCALES[scale]
        self.classes = classes
        self.backbone = backbone
        self.neck = Neck(backbone.channels, size.width, size.depth)
        # classes need more room than boxes: what tells a 20.000 from a 2.000 must pass through here; plain 3×3
        # convolutions of that width would be half of the whole net's cost
        self.class_lateral = nn.ModuleList(conv(c, size.width) for c in backbone.channels)
        self.class_convs = nn.ModuleList([SharedSeparable(2 * size.width), SharedSeparable(2 * size.width)])
        self.box_convs = nn.ModuleList(
            [SharedConv(size.width, size.width), SharedConv(size.width, size.width)]
        )
        self.class_out = nn.Conv2d(2 * size.width, classes, 1)
        self.box_out = nn.Conv2d(size.width, 4 * BINS, 1)
        nn.init.normal_(self.class_out.weight, std=0.01)
        nn.init.constant_(self.class_out.bias, -4.0)
        nn.init.normal_(self.box_out.weight, std=0.01)
        nn.init.constant_(self.box_out.bias, 1.0)

    def forward(self, images_BCHW: Tensor) -> Prediction:
        maps = self.backbone(images_BCHW)
        scores, distances = [], []
        necks = self.neck(maps)
        for level, x in enumerate(necks):
            by_class = torch.cat((x, self.class_lateral[level](maps[level])), 1)
            by_box = x
            for shared in self.class_convs:
                by_class = shared(by_class, level)
            for shared in self.box_convs:
                by_box = shared(by_box, level)
            scores.append(self.class_out(by_class).flatten(2).transpose(1, 2))
            distances.append(self.box_out(by_box).flatten(2).transpose(1, 2))
        sizes = [(x.shape[-2], x.shape[-1]) for x in necks]
        points_A2, strides_A1 = grid_points(sizes, STRIDES, images_BCHW.device)
        scores_BAC, flat = torch.cat(scores, 1), torch.cat(distances, 1)
        return Prediction(scores_BAC.float(), flat.unflatten(-1, (4, BINS)), points_A2, strides_A1)

    def decode(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """boxes_BA4 (xyxy px) and scores_BAC (0…1), before non-maximum suppression."""
        return prediction.boxes(), prediction.scores_BAC.sigmoid()
