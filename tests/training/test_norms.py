"""Batch norms and their activations in compiled kernels (backend/norms.py; row D7)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from smartcash.backend import compiled
from smartcash.backend.backbones import Backbone
from smartcash.backend.norms import NormAct2d, replace_norms

pytestmark = pytest.mark.skipif(not compiled.COMPILED, reason="numba is not installed (smartcash[fast])")

ACTIVATIONS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "gelu": nn.GELU,
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def layer(channels: int, activation: str) -> NormAct2d:
    norm = NormAct2d(channels, 1e-3, 0.03, ACTIVATIONS[activation]())
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm.train()


def pictures(channels: int, dtype: torch.dtype, batch: int = 3) -> tuple[Tensor, Tensor]:
    """A map far from zero, as behind a ReLU, and a gradient."""
    shape = (batch, channels, 7, 9)
    x, grad = torch.randn(shape) * 2 + 10, torch.randn(shape)
    return tuple(each.to(dtype).contiguous(memory_format=torch.channels_last) for each in (x, grad))


def step(norm: NormAct2d, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Everything that one step of a layer gives and leaves."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(grad)
    assert norm.weight.grad is not None and norm.bias.grad is not None and x.grad is not None
    return {
        "y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad,
        **{name: buffer.clone() for name, buffer in norm.named_buffers()},
    }  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2)])
def test_a_compiled_norm_gives_what_the_plain_one_gives(
    activation: str, dtype: torch.dtype, tolerance: float
):
    """D7: outputs, three gradients, running statistics and their count, against PyTorch in fp64."""
    torch.manual_seed(0)
    ours = layer(48, activation)
    exact = deepcopy(ours).double()
    x, grad = pictures(48, dtype)
    found, wanted = step(ours, x, grad), step(exact, x.double(), grad.double())
    assert found["y"].dtype == dtype and found["y"].is_contiguous(memory_format=torch.channels_last)
    for name, value in wanted.items():
        error = (found[name].double() - value.double()).norm() / value.double().norm()
        assert error < tolerance, (name, float(error))
    assert int(found["num_batches_tracked"]) == 1


def test_the_number_of_threads_changes_no_bit(threads: None):
    """D7, A10: pictures are summed one by one, whoever does them."""
    torch.manual_seed(0)
    norm, (x, grad) = layer(32, "silu"), pictures(32, torch.bfloat16, batch=5)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(step(deepcopy(norm), x, grad))
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


def test_without_an_openmp_library_a_pool_of_threads_gives_the_same(
    threads: None, monkeypatch: pytest.MonkeyPatch
):
    """D7: where torch is linked with another library, nothing but the time differs."""
    from smartcash.backend import vectors

    torch.manual_seed(0)
    torch.set_num_threads(2)
    norm, (x, grad) = layer(16, "relu"), pictures(16, torch.float32)
    wanted = step(deepcopy(norm), x, grad)
    monkeypatch.setattr(vectors, "_openmp", lambda: None)
    found = step(norm, x, grad)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(value: float):
    """D7, B18: a divergence must reach the loss, where the training looks for it."""
    x, _ = pictures(16, torch.bfloat16)
    x[1, 3, 2, 2] = value
    for activation in ("none", "relu", "relu6", "silu", "leaky"):
        assert not layer(16, activation)(x)[:, 3].isfinite().all()


def test_evaluation_odd_widths_and_other_numbers_go_the_plain_way():
    """D7: what the kernels do not take is computed by PyTorch, to the bit."""
    for channels, dtype, training in (
        (48, torch.float32, False),
        (20, torch.float32, True),
        (48, torch.double, True),
    ):
        norm = layer(channels, "relu").to(dtype).train(training)
        plain = BatchNormAct2d(channels, eps=1e-3, momentum=0.03).to(dtype).train(training)
        plain.load_state_dict(norm.state_dict())
        x, _ = pictures(channels, dtype)
        assert torch.equal(norm(x), plain(x))


def test_statistics_of_all_batches_alike_are_gathered_the_plain_way():
    """D7: without a momentum the running statistics are the mean of all batches."""
    norm = layer(48, "relu")
    norm.momentum = None
    plain = BatchNormAct2d(48, eps=1e-3)
    plain.momentum = None
    plain.load_state_dict(norm.state_dict())
    for _ in range(2):
        x, _ = pictures(48, torch.float32)
        assert torch.equal(norm(x), plain(x))
    assert torch.equal(norm.running_var, plain.running_var)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "cs3darknet_s"])
def test_a_backbone_keeps_its_parameters_and_its_maps(name: str):
    """D7: replacing changes no name and no number of an evaluation, so that weights from anywhere still fit."""
    torch.manual_seed(0)
    import timm

    from smartcash.backend.backbones import resolve_name

    plain = timm.create_model(resolve_name(name), features_only=True)
    other = deepcopy(plain)
    assert replace_norms(other) == sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules()) > 10
    assert list(other.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        for ours, theirs in zip(other.eval()(images), plain.eval()(images)):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "resnet18"])
def test_a_stems_activation_moves_into_its_norm(name: str):
    """D7: where a net holds `act1` beside `bn1`, the maps are those of the plain net."""
    torch.manual_seed(0)
    import timm

    plain = timm.create_model(name, features_only=True)
    other = deepcopy(plain)
    replace_norms(other)
    assert isinstance(other.act1, nn.Identity) and isinstance(other.bn1.act, nn.ReLU)
    assert list(other.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    for ours, theirs in zip(other.train()(images), plain.train()(images)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_backbone_learns_as_near_to_fp64_as_with_plain_norms():
    """D7: gradients of a whole backbone under bf16 are no further from the exact ones than PyTorch's."""
    torch.manual_seed(0)
    model = Backbone("mobilenetv4_conv_small", pretrained=False).to(memory_format=torch.channels_last).train()
    images = torch.randn(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)

    def gradients(net: nn.Module, images: Tensor) -> Tensor:
        sum((m.double() ** 2).mean() for m in net(images)).backward()
        return torch.cat([p.grad.double().flatten() for p in net.parameters() if p.grad is not None])

    exact = gradients(deepcopy(model).double(), images.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(deepcopy(model), images)
        with pytest.MonkeyPatch.context() as without:
            without.setattr(compiled, "COMPILED", False)
            plain = gradients(deepcopy(model), images)
    assert (ours - exact).norm() < 1.2 * (plain - exact).norm()
