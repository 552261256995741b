"""Batch norms with fixed statistics, folded into the convolutions before them (backend/folding.py; row D7)."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tests.training.test_model import BACKBONES
from torch import Tensor, nn

from smartcash.backend.backbones import Backbone
from smartcash.backend.engine import to_training
from smartcash.backend.folding import FoldableConv2d, fold_norms

SHORT = ("efficientnet_lite0", "mobilenetv4_conv_small", "cs3darknet_s")


class Holder(nn.Module):
    """A net that has a backbone, as every model has."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone


def backbone_of(name: str) -> Holder:
    """A backbone whose batch norms have seen something."""
    torch.manual_seed(0)
    model = Holder(Backbone(name, pretrained=False))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return model


def folded(model: Holder) -> Holder:
    other = deepcopy(model)
    assert fold_norms(other.backbone.net)
    return other


def step(model: Holder, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Maps and gradients of one training step with fixed statistics, and the same dropout every time."""
    torch.manual_seed(1)
    to_training(model, freeze_norm=True)
    maps = model.backbone(images)
    sum((m**2).mean() for m in maps).backward()
    return [m.detach() for m in maps], {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


def agree(ours: Tensor, theirs: Tensor, tolerance: float, largest: float) -> bool:
    """Relative to `largest`, a norm, where the tensor itself is next to nothing."""
    return float((ours - theirs).norm()) <= tolerance * max(float(theirs.norm()), 1e-3 * largest)


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_a_folded_backbone_has_the_maps_and_the_gradients_of_the_plain_one(name: str) -> None:
    plain = backbone_of(name).double()  # so that no activation is on the other side of its kink
    other = deepcopy(plain)
    norms = sum(type(m).__name__ in ("NormAct2d", "BatchNorm2d") for m in plain.modules())
    count = fold_norms(other.backbone.net)
    assert 0 < count <= norms if norms else count == 0
    size = 224 if "224" in name else 96
    images = torch.randn(2, 3, size, size, dtype=torch.double)
    (maps, gradients), (maps_folded, gradients_folded) = step(plain, images), step(other, images)
    assert all(agree(a, b, 1e-6, 0.0) for a, b in zip(maps_folded, maps))
    assert gradients_folded.keys() == gradients.keys()
    largest = max(float(g.norm()) for g in gradients.values())
    wrong = [n for n in gradients if not agree(gradients_folded[n], gradients[n], 1e-5, largest)]
    assert not wrong


@pytest.mark.parametrize("name", SHORT)
def test_under_bf16_a_folded_backbone_is_as_near_to_fp32_as_the_plain_one(name: str) -> None:
    plain = backbone_of(name)
    other, images = folded(plain), torch.randn(4, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    _, exact = step(deepcopy(plain), images)
    with torch.autocast("cpu", torch.bfloat16):
        _, rounded = step(plain, images)
        _, rounded_folded = step(other, images)
    whole = torch.cat([g.flatten() for g in exact.values()])
    error = (torch.cat([g.flatten() for g in rounded.values()]) - whole).norm()
    error_folded = (torch.cat([g.flatten() for g in rounded_folded.values()]) - whole).norm()
    assert float(error_folded) < 1.2 * float(error)


@pytest.mark.parametrize("name", SHORT)
def test_evaluation_and_checkpoints_do_not_notice(name: str) -> None:
    plain = backbone_of(name)
    other, images = folded(plain), torch.randn(2, 3, 96, 96)
    ours, theirs = other.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    with torch.inference_mode():
        maps, maps_folded = plain.eval().backbone(images), other.eval().backbone(images)
    assert all(torch.equal(a, b) for a, b in zip(maps, maps_folded))


def test_statistics_that_are_learnt_are_learnt_as_before() -> None:
    plain = backbone_of("efficientnet_lite0")
    other, images = folded(plain), torch.randn(2, 3, 64, 64)
    for model in (plain, other):
        to_training(model, freeze_norm=False)
        model.backbone(images)
    ours, theirs = other.state_dict(), plain.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_copy_of_a_folded_network_is_whole_by_itself() -> None:
    model = folded(backbone_of("efficientnet_lite0"))
    copy = deepcopy(model)
    own = {id(module) for module in copy.modules()}
    pairs = [m.pair for m in copy.modules() if isinstance(m, FoldableConv2d) and m.pair]
    assert pairs
    assert all(id(pair.conv) in own and id(pair.norm) in own for pair in pairs)


class Side(nn.Module):
    """A convolution whose output is read by its batch norm and by somebody else."""

    pretrained_cfg = {"input_size": (3, 64, 64)}

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.other = nn.Conv2d(4, 4, 1)
        self.again, self.norm_again = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.norm(x) + self.other(x)
        return self.norm_again(self.again(self.norm_again(self.again(x))))


def test_what_is_read_twice_or_runs_twice_is_left_as_it_is() -> None:
    assert fold_norms(Side()) == 0
