"""LPIPS v0.1 (Zhang et al., 2018, arXiv 1801.03924) as one perceptual net per backbone: alex, vgg, squeeze.

The graph gives features, not a distance: normalised over channels and multiplied by the square root of the linear
weights, so that LPIPS(a, b) = Σ_k mean_hw Σ_c (f_k(a) − f_k(b))². A reference picture's are then computed once.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lpips
import torch
import torchvision
from torch import Tensor, nn

from export import weights
from export.network import Network, Reference
from export.weights import State
from glaze_trt.errors import ModelError

EPSILON = 1e-10
"""Added to a feature vector's length before dividing by it, as the lpips package does."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in [-1,1]
_BACKBONES = {
    "alex": ("alexnet", "AlexNet_Weights", (1, 4, 7, 9, 11)),
    "vgg": ("vgg16", "VGG16_Weights", (3, 8, 15, 22, 29)),
    "squeeze": ("squeezenet1_1", "SqueezeNet1_1_Weights", (1, 4, 7, 9, 10, 11, 12)),
}
"""LPIPS' name: torchvision's builder and weights, and the layers of `features` that are tapped."""
_WIDTHS = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}
_MINIMUM = {"alex": 31, "vgg": 16, "squeeze": 17}
_LINEAR = re.compile(r"^lin(?:s\.)?(\d+)\.(?:model\.\d+\.)?weight$")
_SLICE = re.compile(r"^net\.slice\d+\.(\d+\..+)$")
_IGNORED = ("classifier.", "scaling_layer.")


def load(name: str, given: Sequence[str | Path]) -> list[Network]:
    """The perceptual net.

    Args:
        name: `lpips-alex`, `lpips-vgg` or `lpips-squeeze`.
        given: A complete file; or a backbone under torchvision's names, with the linear layers in a second file or
            else from the lpips package; or a folder of these. Empty: torchvision's backbone, from its cache or
            downloaded.

    Raises:
        ModelError: no such weights, or another network's.
    """
    kind = name.removeprefix("lpips-")
    paths: list[Path] = []
    state: State = {}
    for path, by_name in _files(given):
        found = weights.read(path, _rename)
        if by_name or any(key.startswith(("features.", "linear.")) for key in found):
            state |= found
            paths.append(path)
    if given and not paths:
        raise ModelError(f"{given[0]}: no file in this folder holds LPIPS layers or a backbone")
    licences = []
    has_linear = any(key.startswith("linear.") for key in state)
    if not any(key.startswith("features.") for key in state) and (has_linear or not paths):
        paths.append(_torchvision(kind))
        state |= weights.read(paths[-1], _rename)
        licences.append("BSD-3-Clause (torchvision)")
    if not has_linear:
        paths.append(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{kind}.pth")
        state |= weights.read(paths[-1], _rename)
        licences.append("BSD-2-Clause (lpips)")
    net = Features(kind)
    weights.fit(net, state, name, " + ".join(map(str, paths)))
    for layer, weight in enumerate(net.linear):
        if bool((weight < 0).any()):
            raise ModelError(f"{paths[0]}: linear layer {layer} of {name} has weights below zero")
    return [
        Network(
            name,
            "perceptual",
            net,
            _reference(kind, state),
            weights.describe(paths, licence=" and ".join(licences) if len(licences) == 2 else None),
            tuple(f"feature_{k}" for k in range(len(net.linear))),
            minimum=_MINIMUM[kind],
            input_range="lpips",
        )
    ]


class Features(nn.Module):
    """Pictures (B, 3, H, W) in [0,1] to features (B, C_k, h_k, w_k) whose squared differences add up to LPIPS."""

    shift: Tensor
    scale: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        builder, _, self.taps = _BACKBONES[kind]
        with torch.device("meta"):
            backbone: Any = getattr(torchvision.models, builder)(weights=None)
            self.features: nn.Sequential = backbone.features[: self.taps[-1] + 1]
            self.linear = nn.ParameterList(torch.empty(1, width, 1, 1) for width in _WIDTHS[kind])
        # Of pictures in [0,1], where lpips' own are of pictures in [-1,1]. Not folded into the first convolution:
        # its zero padding stands for the mean colour.
        scale = torch.tensor(_SCALE)[:, None, None]
        shift = torch.tensor(_SHIFT)[:, None, None]
        self.register_buffer("scale", 2 / scale, persistent=False)
        self.register_buffer("shift", (-1 - shift) / scale, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """One map per tapped layer."""
        x = torch.add(image * self.scale, self.shift)
        found: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                # The square root's slope at 0 is infinite. Below EPSILON the division is ruled by EPSILON, so that
                # the floor changes no distance and lets the gradient of an all-zero vector be zero.
                length = torch.sqrt((x * x).sum(dim=1, keepdim=True).clamp(min=EPSILON**2))
                found.append(x / (length + EPSILON) * torch.sqrt(self.linear[len(found)]))
        return tuple(found)


def _reference(kind: str, state: State) -> Reference:
    """The features by the lpips package's own layers."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it builds its backbone by torchvision's former arguments
        theirs = lpips.LPIPS(net=kind, pretrained=False, pnet_rand=True, verbose=False)
    theirs.scaling_layer = lpips.ScalingLayer()
    names = {key: _rename_one(key) for key in theirs.state_dict()}
    own = theirs.scaling_layer.state_dict(prefix="scaling_layer.")
    theirs.load_state_dict({key: own[key] if key in own else state[names[key]] for key in names}, assign=True)
    theirs.requires_grad_(False)

    def features(image: Tensor) -> tuple[Tensor, ...]:
        maps = theirs.net(theirs.scaling_layer(2 * image - 1))
        pairs = zip(maps, theirs.lins, strict=True)
        return tuple(lpips.normalize_tensor(x) * layer.model[-1].weight.sqrt() for x, layer in pairs)

    return features


def _files(given: Sequence[str | Path]) -> list[tuple[Path, bool]]:
    """The files to look into, and whether each was named itself: a folder may hold other networks' too."""
    found: list[tuple[Path, bool]] = []
    for each in given:
        path = Path(each).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in weights.SUFFIXES)
            if not inside:
                raise ModelError(f"{path}: no weights file ({', '.join(weights.SUFFIXES)}) in this folder")
            found += [(file, False) for file in inside]
        elif path.is_file():
            found.append((path, True))
        else:
            raise ModelError(f"{path}: no such file or folder; LPIPS has no hub id, bring its files")
    return found


def _rename(keys: Sequence[str]) -> Mapping[str, str]:
    """{name in the file: `features.*` or `linear.K`}; a classifier's other layers are left out."""
    return {key: _rename_one(key) for key in keys if not key.startswith(_IGNORED)}


def _rename_one(key: str) -> str:
    if match := _LINEAR.match(key):
        return f"linear.{match[1]}"
    if match := _SLICE.match(key):
        return f"features.{match[1]}"
    return key


def _torchvision_url(kind: str) -> str:
    return str(getattr(torchvision.models, _BACKBONES[kind][1]).DEFAULT.url)


def _torchvision(kind: str) -> Path:
    """The backbone's file in torch's cache, downloaded where it is not there yet."""
    url = _torchvision_url(kind)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"the {kind} backbone cannot be downloaded ({type(error).__name__}) and is not in torch's cache; bring "
                f"{url}, or a complete LPIPS file, and pass it with --weights FILE"
            ) from error
    return path
