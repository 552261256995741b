"""The classifier: a whole timm backbone with its pooled features, and one linear layer."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from smartcash.backend.backbones import load_pretrained, lowest_parameters, resolve_name
from smartcash.backend.depthwise import replace_depthwise
from smartcash.backend.norms import replace_norms
from smartcash.backend.squeeze_excite import replace_squeeze_excite
from smartcash.domain.errors import BackboneUnknown


class PooledBackbone(nn.Module):
    """images_BCHW (normalised) → pooled features_BF, the ones that the ImageNet classifier saw."""

    def __init__(self, name: str, *, pretrained: bool, drop_path: float = 0.0) -> None:
        super().__init__()
        self.name = name
        timm_name = resolve_name(name)
        options = {"drop_path_rate": drop_path} if drop_path else {}
        try:
            self.net = timm.create_model(timm_name, pretrained=False, num_classes=0, **options)
        except TypeError as error:
            raise BackboneUnknown(
                "backbone_option", name=name, option="drop_path", reason=str(error)
            ) from error
        self.features: int = getattr(self.net, "head_hidden_size", self.net.num_features)
        self.mean: tuple[float, ...] = tuple(self.net.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(self.net.pretrained_cfg["std"])
        # a family without feature information has no stages to freeze
        self.stages = [(item["reduction"], item["module"]) for item in getattr(self.net, "feature_info", [])]
        if pretrained:
            load_pretrained(self.net, name, timm_name, num_classes=0)
        replace_depthwise(self.net)
        replace_norms(self.net)
        replace_squeeze_excite(self.net)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.net(images_BCHW)

    def lowest_parameters(self, stages: int) -> list[nn.Parameter]:
        """The parameters of everything up to stride 2^`stages` (0: none)."""
        return lowest_parameters(self.net, self.stages, stages)


class Classifier(nn.Module):
    """images_BCHW (normalised) → logits_BC."""

    def __init__(self, backbone: PooledBackbone, classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(backbone.features, classes)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.out(self.dropout(self.backbone(images_BCHW))).float()
