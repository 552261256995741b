"""Squeeze-and-excitation in compiled kernels (backend/squeeze_excite.py; row D7)."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from smartcash.backend import compiled
from smartcash.backend.squeeze_excite import SqueezeExcite2d, replace_squeeze_excite

pytestmark = pytest.mark.skipif(
    not compiled.COMPILED, reason='numba is not installed: pip install "smartcash[fast]"'
)


def layers(channels: int) -> tuple[SqueezeExcite, SqueezeExcite2d]:
    """timm's and ours, with the same numbers."""
    torch.manual_seed(0)
    plain = SqueezeExcite(channels, act_layer=nn.SiLU)
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.5)
    return plain, SqueezeExcite2d(deepcopy(plain))


def pictures(channels: int, dtype: torch.dtype, batch: int = 3) -> tuple[Tensor, Tensor]:
    """A map and a gradient."""
    shape = (batch, channels, 7, 9)
    return tuple(
        each.to(dtype).contiguous(memory_format=torch.channels_last)
        for each in (torch.randn(shape) + 1, torch.randn(shape))
    )


def step(layer: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Output and gradients of one step, under autocast where the map is bf16."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = layer(x * 1)  # not a leaf, as inside a net
    y.backward(grad)
    assert x.grad is not None
    return {
        "y": y.detach(), "x": x.grad,
        **{name: p.grad for name, p in layer.named_parameters() if p.grad is not None},
    }  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
def test_the_compiled_layer_gives_what_timms_gives(dtype: torch.dtype, tolerance: float):
    """D7: the output, the gradient of the map and those of all parameters, against PyTorch in fp64."""
    plain, ours = layers(48)
    x, grad = pictures(48, dtype)
    wanted, found = step(plain.double(), x.double(), grad.double()), step(ours, x, grad)
    assert found.keys() == wanted.keys() and len(found) == 6
    assert found["y"].dtype == dtype and found["y"].is_contiguous(memory_format=torch.channels_last)
    for name, value in wanted.items():
        assert (found[name].double() - value).norm() / value.norm() < tolerance, name


def test_the_number_of_threads_changes_no_bit():
    """D7, A10: pictures are summed one by one, whoever does them."""
    _, ours = layers(32)
    x, grad = pictures(32, torch.bfloat16, batch=5)
    before, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(step(deepcopy(ours), x, grad))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(value: float):
    """D7, B18: a divergence must reach the loss and the gradients."""
    _, ours = layers(16)
    x, grad = pictures(16, torch.float32)
    strange = x.clone()
    strange[1, 3, 2, 2] = value
    assert not step(deepcopy(ours), strange, grad)["y"][1].isfinite().all()
    grad[1, 3, 2, 2] = value
    assert not step(ours, x, grad)["x"][1].isfinite().all()


def test_fixed_layers_and_a_step_made_twice_get_the_same_gradient():
    """D7: a gate that is not trained hands the gradient of the map on; nothing of one step is left in the next."""
    plain, ours = layers(16)
    x, grad = pictures(16, torch.float32)
    for layer in (plain, ours):
        layer.requires_grad_(False)
    wanted = step(plain, x, grad)
    for _ in range(2):
        found = step(ours, x, grad)
        assert found.keys() == wanted.keys() == {"y", "x"}
        assert all(torch.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)


def test_odd_widths_other_numbers_and_evaluation_go_the_plain_way():
    """D7: what the kernels do not take is computed by PyTorch, to the bit."""
    for channels, dtype in ((20, torch.float32), (48, torch.double)):
        plain, ours = layers(channels)
        x, grad = pictures(channels, dtype)
        wanted, found = step(plain.to(dtype), x, grad), step(ours.to(dtype), x, grad)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    plain, ours = layers(48)
    x, _ = pictures(48, torch.float32)
    with torch.inference_mode():
        assert torch.equal(ours(x), plain(x))


@pytest.mark.parametrize(("name", "count"), [("efficientnet_b0", 16), ("mobilenetv3_small_100", 9)])
def test_a_backbone_keeps_its_parameters_and_its_maps(name: str, count: int):
    """D7: replacing changes no name and no number of an evaluation, so that weights from anywhere still fit."""
    torch.manual_seed(0)
    plain = timm.create_model(name, features_only=True)
    other = deepcopy(plain)
    assert replace_squeeze_excite(other) == count
    assert list(other.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        for ours, theirs in zip(other.eval()(images), plain.eval()(images)):
            assert torch.equal(ours, theirs)
