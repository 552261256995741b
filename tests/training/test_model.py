"""Backbones, weights, the fast depthwise backward, boxes, assignment: checked against stock torch and timm."""

from __future__ import annotations

import socket
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torchvision.ops import box_iou

from smartcash.backend import compiled
from smartcash.backend.backbones import Backbone, bundled_weights, in_timm_order, near_names
from smartcash.backend.boxes import (
    complete_iou,
    from_distances,
    grid_points,
    pairwise_iou,
    select,
    to_distances,
)
from smartcash.backend.classifier import Classifier, PooledBackbone
from smartcash.backend.criterion import DetectionCriterion, Targets, assign, distribution_focal
from smartcash.backend.depthwise import DepthwiseConv2d, replace_depthwise
from smartcash.backend.detector import Detector
from smartcash.backend.images import read_image
from smartcash.backend.optim import Schedule, clip_gradients
from smartcash.backend.preprocess import Preprocess
from smartcash.domain.config import ScheduleConfig
from smartcash.domain.errors import BackboneUnknown, WeightsUnavailable

BACKBONES = [
    *(
        "efficientnet_lite0",
        "mobilenetv4_conv_small",
        "cs3darknet_s",
        "resnet50",
        "cspdarknet53",
        "efficientnet_b4",
    ),
    *(
        "resnet18",
        "resnext50_32x4d",
        "regnety_002",
        "mobilenetv3_small_050",
        "mobilenetv2_035",
        "efficientnet_b0",
    ),
    *(
        "ghostnet_050",
        "convnext_atto",
        "darknet17",
        "densenet121",
        "edgenext_xx_small",
        "fbnetc_100",
    ),
    *(
        "hrnet_w18_small",
        "mnasnet_050",
        "repvgg_a0",
        "selecsls42b",
        "swin_tiny_patch4_window7_224",
        "tinynet_e",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_under_the_detector_gives_strides_8_16_32_and_takes_a_step(name: str) -> None:
    """D7, A1: any timm feature backbone by name; every parameter that should learn gets a finite gradient."""
    torch.manual_seed(0)
    size = 224 if "224" in name else 64
    model = Detector(Backbone(name, pretrained=False), classes=3)
    maps = model.backbone(torch.randn(2, 3, size, size))
    assert [m.shape[-1] for m in maps] == [size // 8, size // 16, size // 32]
    assert tuple(m.shape[1] for m in maps) == model.backbone.channels
    targets = Targets(
        torch.tensor([[[4.0, 8.0, 40.0, 50.0]]] * 2), torch.tensor([[1]] * 2), torch.tensor([[True]] * 2)
    )
    losses = DetectionCriterion()(model(torch.randn(2, 3, size, size)), targets)
    losses["loss"].backward()
    gradients = [parameter.grad for parameter in model.neck.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_the_lowest_stages_are_those_up_to_the_stride_asked_for() -> None:
    """D7: freezing 2 stages freezes everything up to stride 4, nothing above, in nets of any family."""
    for name in ("efficientnet_lite0", "cs3darknet_s", "resnet18", "convnext_atto"):
        backbone = Backbone(name, pretrained=False)
        counts = [sum(p.numel() for p in backbone.lowest_parameters(stages)) for stages in range(6)]
        assert counts[0] == 0 and counts == sorted(counts), name
        assert 0 < counts[2] < counts[3] < counts[5] <= sum(p.numel() for p in backbone.parameters()), name


def test_an_unknown_backbone_names_near_ones() -> None:
    """A11: the error has the name, the reason and names that exist."""
    with pytest.raises(BackboneUnknown) as caught:
        Backbone("efficentnet_lite0", pretrained=False)
    assert "efficientnet_lite0" in caught.value.message("en")
    with pytest.raises(BackboneUnknown):
        Backbone("vit_tiny_patch16_224", pretrained=False)
    with pytest.raises(BackboneUnknown):  # timm's feature maps of this family are off by a level
        Backbone("dla34", pretrained=False)
    assert "resnet50" in near_names("resnet-50")


def test_weights_that_cannot_be_had_are_said_and_not_replaced_by_random_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D16: train from scratch only if told to."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable) as caught:
        Backbone("resnet18", pretrained=True)
    assert "model.pretrained=false" in caught.value.message("en")


def test_without_internet_weights_that_are_not_here_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """D16: in one sentence, where the hub's client tries for most of a minute and prints every attempt; what is here
    is named. Behind a proxy it is that client that tries."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    monkeypatch.setattr("smartcash.backend.backbones.getproxies", dict)
    with pytest.raises(WeightsUnavailable) as caught:
        Backbone("resnet18", pretrained=True)
    assert caught.value.code == "hub_unreachable"
    message = caught.value.message("en")
    assert "resnet18" in message and "127.0.0.1" in message and "efficientnet_lite0" in message
    assert capfd.readouterr() == ("", "")

    def client(name: str, *, pretrained: bool, **form: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("asked by its own client")
        return made(name, pretrained=False, **form)

    made = timm.create_model
    monkeypatch.setattr("timm.create_model", client)
    monkeypatch.setattr("smartcash.backend.backbones.getproxies", lambda: {"https": closed})
    with pytest.raises(WeightsUnavailable, match="asked by its own client"):
        Backbone("resnet18", pretrained=True)
    monkeypatch.setattr("smartcash.backend.backbones.getproxies", lambda: {"no": "localhost"})
    with pytest.raises(WeightsUnavailable, match=r"127\.0\.0\.1"):
        Backbone("resnet18", pretrained=True)


def test_the_bundled_weights_fit_tensor_by_tensor() -> None:
    """D16: all 296 tensors of the package find their place, in order, with their shapes."""
    file = bundled_weights("efficientnet_lite0")
    assert file is not None
    source = torch.load(file, weights_only=True)
    renamed = in_timm_order(source, "tf_efficientnet_lite0")
    assert len(renamed) == len(source) == 296
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(renamed)
    net = Backbone("efficientnet_lite0", pretrained=True).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        features = whole.eval().forward_features(images)
        head = torch.nn.functional.conv2d(net(images)[-1], whole.conv_head.weight)
        assert torch.allclose(whole.bn2(head), features, atol=1e-4)


@pytest.mark.photos
def test_the_bundled_weights_know_what_imagenet_pictures_show(photos: Path) -> None:
    """D16: top-1 agreement on real pictures: the package's network as its authors define it (padding "same")
    and ours agree on every photo, and a net of the other padding does not give the same logits."""
    file = bundled_weights("efficientnet_lite0")
    assert file is not None
    source = torch.load(file, weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours.load_state_dict(in_timm_order(source, "tf_efficientnet_lite0"))
    fast = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    fast.load_state_dict(ours.state_dict())
    assert replace_depthwise(fast) == 16
    other = timm.create_model("efficientnet_lite0", pretrained=False).eval()
    other.load_state_dict(dict(zip(other.state_dict(), source.values())))
    preprocess = Preprocess(224, (0.5,) * 3, (0.5,) * 3, "stretch")
    files = sorted((photos / "bccd-detect" / "images" / "test").iterdir())[:4]
    files += sorted((photos / "rupiah-classify" / "test").glob("*/*"))[:12]
    batch = torch.stack(
        [torch.from_numpy(preprocess.image(read_image(path))).permute(2, 0, 1) for path in files]
    )
    with torch.inference_mode():
        images = preprocess.normalize(batch)
        logits, fast_logits, other_logits = ours(images), fast(images), other(images)
    assert torch.equal(logits.argmax(1), fast_logits.argmax(1))
    assert torch.allclose(logits, fast_logits, atol=1e-4)
    assert (logits - other_logits).abs().max() > 0.5
    assert logits.softmax(1).amax(1).mean() > 0.2  # a net with shuffled weights is unsure of everything


@pytest.fixture(params=["torch", "numba"])
def depthwise_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways that the gradients can be computed."""
    if request.param == "numba" and not compiled.COMPILED:
        pytest.skip('numba is not installed: pip install "smartcash[fast]"')
    monkeypatch.setattr(compiled, "COMPILED", request.param == "numba")
    return request.param


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding"),
    [
        *[(48, (33, 33), 3, 1, 1), (48, (32, 32), 3, 2, 1), (16, (28, 28), 5, 1, 2), (16, (29, 29), 5, 2, 2)],
        *[(208, (6, 11), 5, 1, 2), (144, (9, 4), 3, 2, 1), (64, (3, 2), 5, 2, 2), (80, (17, 20), 3, 3, 1)],
        *[(48, (31, 16), 5, 2, 0), (16, (12, 9), 3, 2, 0), (24, (28, 28), 5, 2, 2), (32, (20, 20), 7, 2, 3)],
    ],
)
def test_the_fast_depthwise_gradients_are_those_of_stock_fp32(
    depthwise_kernels: str, channels: int, size: tuple[int, int], kernel: int, stride: int, padding: int
) -> None:
    """D16: every path, relative error of bf16 below 1 %; also odd sizes, channels and kernels that are
    not compiled, maps smaller than the kernel."""
    torch.manual_seed(0)
    stock = torch.nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    fast = DepthwiseConv2d(stock)
    x = torch.randn(4, channels, *size).to(memory_format=torch.channels_last)
    x_stock, x_fast = x.clone().requires_grad_(), x.clone().requires_grad_()
    upstream = torch.randn_like(stock(x))
    stock(x_stock).backward(upstream)
    expected_weight, stock.weight.grad = stock.weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        output = fast(x_fast)
    output.backward(upstream.to(output.dtype))
    for got, wanted in ((x_fast.grad, x_stock.grad), (fast.weight.grad, expected_weight)):
        assert (got - wanted).norm() / wanted.norm() < 0.01


@pytest.mark.parametrize(("size", "kernel", "stride"), [((28, 28), 5, 1), ((9, 30), 5, 2), ((16, 16), 3, 2)])
def test_fp32_trains_with_the_fast_depthwise_gradients_too(
    depthwise_kernels: str, size: tuple[int, int], kernel: int, stride: int
) -> None:
    """D16: on CPUs without bf16; only the order of the sums differs from the stock convolution."""
    torch.manual_seed(0)
    stock = torch.nn.Conv2d(48, 48, kernel, stride, kernel // 2, groups=48, bias=False)
    x = torch.randn(3, 48, *size).to(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn_like(stock(x))
    wanted = torch.autograd.grad(stock(x), (x, stock.weight), upstream)
    for got, expected in zip(
        torch.autograd.grad(DepthwiseConv2d(stock)(x), (x, stock.weight), upstream), wanted
    ):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [
        *[((32, 32), 3, 2), ((20, 12), 5, 2), ((2, 2), 5, 2)],
        *[((31, 16), 3, 2), ((17, 17), 3, 3), ((9, 9), 2, 1)],
    ],
)
def test_an_odd_pixel_of_padding_at_the_end_needs_no_padded_copy(
    depthwise_kernels: str, size: tuple[int, int], kernel: int, stride: int, bias: bool
) -> None:
    """D16: TensorFlow's padding, as timm computes it: the same output, and its gradients in fp32."""
    torch.manual_seed(0)
    stock = Conv2dSame(48, 48, kernel, stride, groups=48, bias=False)
    fast = DepthwiseConv2d(stock)
    shift = torch.randn(48, requires_grad=True) if bias else None
    x = torch.randn(3, 48, *size).to(memory_format=torch.channels_last).requires_grad_()
    expected = stock(x) + (0 if shift is None else shift[:, None, None])
    upstream = torch.randn_like(expected)
    trained = [x, stock.weight, *([] if shift is None else [shift])]
    wanted = torch.autograd.grad(expected, trained, upstream)
    fast.pair = (
        None if shift is None else SimpleNamespace(folded=True, parameters=lambda: (stock.weight, shift))
    )
    with torch.autocast("cpu", torch.bfloat16):
        output = fast(x)
    assert output.shape == expected.shape
    assert (output - expected).norm() / expected.norm() < 0.01
    for got, exact in zip(
        torch.autograd.grad(output, trained, upstream.to(output.dtype)), wanted, strict=True
    ):
        assert (got - exact).norm() / exact.norm() < 0.01
    with torch.inference_mode():
        assert torch.equal(DepthwiseConv2d(stock)(x), stock(x))


def test_compiled_depthwise_gradients_do_not_depend_on_the_number_of_threads() -> None:
    """A27: bit for bit, with more threads than pictures too."""
    kernels = pytest.importorskip(
        "smartcash.backend.depthwise_kernels", reason='pip install "smartcash[fast]"'
    )
    torch.manual_seed(0)
    x = torch.randn(5, 80, 15, 15).bfloat16().to(memory_format=torch.channels_last)
    grad = torch.randn(5, 80, 8, 8).bfloat16().to(memory_format=torch.channels_last)
    weight = torch.randn(80, 1, 3, 3).bfloat16()
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        of_input = kernels.input_gradient(grad, weight, (15, 15), 2, 1)
        found.append((*kernels.weight_gradient(grad, x, 3, 2, 1), of_input))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(other, found[0], strict=True))


def test_compiled_depthwise_gradients_carry_what_is_not_a_number() -> None:
    """D16: an overflow upstream is seen in the gradients, not turned into a finite number."""
    kernels = pytest.importorskip(
        "smartcash.backend.depthwise_kernels", reason='pip install "smartcash[fast]"'
    )
    x = torch.ones(1, 16, 4, 4).bfloat16().to(memory_format=torch.channels_last)
    for strange in (float("nan"), float("inf")):
        grad = torch.full((1, 16, 2, 2), strange).bfloat16().to(memory_format=torch.channels_last)
        assert not any(each.isfinite().any() for each in kernels.weight_gradient(grad, x, 3, 2, 1))
        weight = torch.ones(16, 1, 3, 3).bfloat16()
        assert not kernels.input_gradient(grad, weight, (4, 4), 2, 1).isfinite().any()


def test_replacing_depthwise_layers_keeps_names_and_outputs() -> None:
    """D16: a checkpoint made without the fast layers loads with them, and fp32 outputs are equal."""
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    images = torch.randn(1, 3, 70, 70)
    with torch.inference_mode():
        before, names = net(images), list(net.state_dict())
        assert replace_depthwise(net) == 16
        assert list(net.state_dict()) == names
        assert torch.allclose(net(images), before, atol=1e-5)


def test_complete_iou_and_pairwise_iou_agree_with_torchvision() -> None:
    """Zheng et al. 2020: values of a well-kept library on random boxes."""
    from torchvision.ops import complete_box_iou_loss

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200, 4, generator=generator) * 50 for _ in range(2))
    a[:, 2:] += a[:, :2] + 1
    b[:, 2:] += b[:, :2] + 1
    iou, ciou = complete_iou(a, b)
    assert torch.allclose(1 - ciou, complete_box_iou_loss(a, b), atol=1e-4)
    assert torch.allclose(pairwise_iou(a[None], b[None])[0], box_iou(a, b), atol=1e-5)
    assert torch.allclose(iou, box_iou(a, b).diagonal(), atol=1e-5)


def test_points_and_distances_are_inverse() -> None:
    """Boxes → distances → boxes, at every point of every level."""
    points, strides = grid_points([(8, 8), (4, 4), (2, 2)], (8, 16, 32), torch.device("cpu"))
    assert points.shape == (84, 2) and points[0].tolist() == [4, 4] and strides[-1].item() == 32
    boxes = torch.rand(84, 4) * 30
    assert torch.allclose(from_distances(points, to_distances(points, boxes)), boxes, atol=1e-4)


def test_distribution_focal_loss_is_least_at_the_true_distance() -> None:
    """Li et al. 2020: for a distance of 3.25 the best distribution puts 75 % on 3 and 25 % on 4."""
    best = torch.full((1, 4, 16), -20.0)
    best[..., 3], best[..., 4] = torch.log(torch.tensor(0.75)), torch.log(torch.tensor(0.25))
    worse = best.clone()
    worse[..., 3], worse[..., 4] = best[..., 4], best[..., 3]
    sides = torch.full((1, 4), 3.25)
    assert distribution_focal(best, sides) < distribution_focal(worse, sides)
    assert distribution_focal(best, sides).item() == pytest.approx(0.5623, abs=1e-3)  # the entropy of 75/25


def test_every_true_box_gets_points_and_no_point_answers_for_two() -> None:
    """TOOD: also at the start, when nothing overlaps, and where boxes lie on each other; padding gets none."""
    points, _ = grid_points([(8, 8), (4, 4), (2, 2)], (8, 16, 32), torch.device("cpu"))
    truth = torch.tensor(
        [[[4.0, 4.0, 36.0, 36.0], [6.0, 6.0, 40.0, 40.0], [50.0, 50.0, 53.0, 53.0], [0.0, 0.0, 0.0, 0.0]]]
    )
    targets = Targets(truth, torch.tensor([[0, 1, 1, 0]]), torch.tensor([[True, True, True, False]]))
    scores = torch.full((1, 84, 2), 0.01)
    for predicted in (torch.zeros(1, 84, 4), truth[:, :1].expand(1, 84, 4), truth[:, 1:2].expand(1, 84, 4)):
        found = assign(scores, predicted, points, targets)
        answered = set(found.truth_BA[found.positive_BA].tolist())
        assert answered >= {2} and 3 not in answered and answered <= {0, 1, 2}
        assert ((found.quality_BA >= 0) & (found.quality_BA <= 1)).all()
        assert found.quality_BA[found.positive_BA].min() >= 0
    nothing = Targets(
        torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.bool)
    )
    assert not assign(scores, torch.zeros(1, 84, 4), points, nothing).positive_BA.any()


def test_the_assignment_is_what_its_equations_say_point_by_point() -> None:
    """TOOD, equations 2–3, written out for each box and point: crowded, twins of the same IoU, nothing aligned."""
    generator = torch.Generator().manual_seed(5)
    points, _ = grid_points([(8, 8), (4, 4)], (8, 16), torch.device("cpu"))
    for close in (True, False):
        corner = torch.rand(3, 6, 2, generator=generator) * 30
        truth = torch.cat((corner, corner + 4 + torch.rand(3, 6, 2, generator=generator) * 30), -1)
        truth[:, 1] = truth[:, 0]
        valid = torch.rand(3, 6, generator=generator) > 0.2
        labels = torch.randint(0, 4, (3, 6), generator=generator)
        scores = torch.rand(3, len(points), 4, generator=generator)
        predicted = torch.cat((points - 12, points + 9), -1).expand(3, -1, -1) + (0 if close else 500)
        found = assign(scores, predicted, points, Targets(truth, labels, valid), top=5)
        for b in range(3):
            iou = box_iou(truth[b], predicted[b]).numpy()
            align = scores[b].T[labels[b]].numpy() * iou**6
            chosen = np.zeros(iou.shape, bool)
            alone = np.zeros(6, bool)
            for m in valid[b].nonzero()[:, 0].tolist():
                left, top, right, bottom = truth[b, m].tolist()
                inside = [left < x < right and top < y < bottom for x, y in points.tolist()]
                align[m] *= inside
                best = np.argsort(-align[m])[:5]
                chosen[m, best[align[m, best] > 1e-9]] = True
                alone[m] = not chosen[m].any()
                if alone[m]:
                    centre = torch.tensor([(left + right) / 2, (top + bottom) / 2])
                    chosen[m, (points - centre).square().sum(-1).numpy().argsort(kind="stable")[:3]] = True
            for point in np.flatnonzero(chosen.sum(0) > 1):
                rivals = np.flatnonzero(chosen[:, point])
                chosen[:, point] = False
                chosen[rivals[iou[rivals, point].argmax()], point] = True
            assert np.array_equal(found.positive_BA[b].numpy(), chosen.any(0))
            for m, point in zip(*chosen.nonzero()):
                assert found.truth_BA[b, point] == m
                share = (align[m] * chosen[m]).max()
                quality = align[m, point] / (share + 1e-9) * (iou[m] * chosen[m]).max()
                if alone[m]:
                    quality = max(iou[m, point], 0.1)
                assert found.quality_BA[b, point].item() == pytest.approx(quality, rel=1e-4)


def test_a_lower_threshold_adds_detections_and_changes_none() -> None:
    """B2: scores in bf16 are often equal; which of two boxes wins must not depend on what else is a candidate."""
    rng = torch.Generator().manual_seed(3)
    corners = torch.rand(3000, 2, generator=rng) * 60
    boxes = torch.cat((corners, corners + 20 + torch.rand(3000, 2, generator=rng) * 20), 1)
    scores = (torch.rand(3000, 4, generator=rng) ** 4).bfloat16().float()
    few = select(boxes, scores, score_threshold=0.9, limit=10_000)
    many = select(boxes, scores, score_threshold=0.01, limit=10_000)
    assert (scores > 0.9).sum() < 1000 < (scores > 0.01).sum()
    for mine, others in zip(few, many):
        assert torch.equal(mine, others[many[1] > 0.9])


def test_post_processing_keeps_the_best_of_each_class_and_respects_its_limit() -> None:
    """One box twice is one detection; the same box of another class is another; at most `limit` come out."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 10, 10], [30, 30, 40, 40]])
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.0], [0.3, 0.0]])
    kept, kept_scores, labels = select(boxes, scores)
    assert kept_scores.tolist() == pytest.approx([0.9, 0.3, 0.2]) and labels.tolist() == [0, 0, 1]
    assert kept[0].tolist() == [0, 0, 10, 10]
    assert len(select(boxes, scores, limit=1)[0]) == 1
    assert len(select(boxes, scores, score_threshold=0.95)[0]) == 0


def test_a_classifier_pools_any_backbone() -> None:
    """C7: logits of the right shape, and a last layer that fits, for nets with and without a wide head."""
    for name in ("mobilenetv4_conv_small", "resnet18", "convnext_atto", "efficientnet_lite0"):
        model = Classifier(PooledBackbone(name, pretrained=False), classes=7).eval()
        assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7), name


def test_preprocessing_brings_boxes_there_and_back(english: None) -> None:
    """A3: letterbox and stretch, wide and tall and small pictures; half a pixel at the most."""
    rng = np.random.default_rng(0)
    for resize in ("letterbox", "stretch"):
        for width, height in ((640, 480), (300, 900), (50, 40), (224, 224)):
            preprocess = Preprocess(224, (0.5,) * 3, (0.5,) * 3, resize)
            boxes = (rng.random((20, 4)) * [width, height, width, height]).astype(np.float32)
            boxes = np.concatenate(
                (np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])), 1
            )
            back = preprocess.boxes_back(preprocess.boxes(boxes, width, height), width, height)
            assert np.abs(back - boxes).max() < 1e-3
            image = preprocess.image(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
            assert image.shape == (224, 224, 3)
            assert Preprocess.from_dict(preprocess.to_dict()) == preprocess


@pytest.mark.parametrize("limit", [0.0, 0.5, 5.0, 1e3, float("inf")])
def test_gradients_are_clipped_as_torch_clips_them(limit: float) -> None:
    """A2: to the bit, also where some parameters have no gradient; the norm before is told."""
    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(4, 4))]
    nets.append(deepcopy(nets[0]))
    for net in nets:
        torch.manual_seed(1)
        net[:2](torch.randn(2, 3, 8, 8)).square().sum().backward()
    norm = clip_gradients(list(nets[0].parameters()), limit)
    assert norm == float(torch.nn.utils.clip_grad_norm_(nets[1].parameters(), limit)) > 5
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters()):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


def test_a_figure_that_is_not_defined_is_no_improvement_for_the_plateau_schedule() -> None:
    """A2: a metric without a value in one epoch must not count as the best one for ever."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [parameter], "lr": 1.0, "peak_lr": 1.0, "name": "head"}])
    schedule = Schedule(optimizer, ScheduleConfig(name="plateau", patience=1, warmup_epochs=0), 1, 10, 0)
    for value in (None, 0.1, 0.2, 0.3, 0.4):
        schedule.epoch_ended(value, "max")
    assert schedule.reductions == 0 and schedule.best == -0.4
