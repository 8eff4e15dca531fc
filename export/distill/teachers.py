"""The frozen networks that the students imitate: TAESD's encoder and decoder, and LPIPS-squeeze.

The architectures are written out here so that their stages can be lent to the students; only the weights are
read from files. Nothing is trained and nothing is downloaded.

TAESD: Ollin Boer Bohan, https://github.com/madebyollin/taesd (MIT). LPIPS: Zhang et al., "The Unreasonable
Effectiveness of Deep Features as a Perceptual Metric", 2018 (BSD-2-Clause).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

WIDTH = 64
"""Channels of every TAESD stage."""

LATENT_CHANNELS = 4

ENCODER_FILE = "taesd_encoder.safetensors"
DECODER_FILE = "taesd_decoder.safetensors"
PERCEPTUAL_FILE = "lpips_squeeze_v01.safetensors"

_LPIPS_TAPS = (1, 4, 7, 9, 10, 11, 12)  # SqueezeNet 1.1 layers whose outputs LPIPS compares
_LPIPS_CHANNELS = (64, 128, 256, 384, 384, 512, 512)


class Block(nn.Module):
    """TAESD's residual block: three 3x3 convolutions, an identity skip, ReLU last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        out: Tensor = self.fuse(self.conv(x) + x)
        return out


class SoftClamp(nn.Module):
    """TAESD's clamp of latents to (-3, 3): 3·tanh(x / 3)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a latent (B, 4, h, w) to one of the same shape."""
        return torch.tanh(x / 3) * 3


def taesd_encoder() -> nn.Sequential:
    """TAESD's encoder, random weights: RGB in [0,1] (B, 3, H, W) -> scaled latent (B, 4, H/8, W/8)."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), Block(WIDTH)]
    for _ in range(3):
        layers.append(nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False))
        layers.extend(Block(WIDTH) for _ in range(3))
    layers.append(nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1))
    return nn.Sequential(*layers)


def taesd_decoder() -> nn.Sequential:
    """TAESD's decoder, random weights: scaled latent (B, 4, h, w) -> RGB, about [0,1], (B, 3, 8h, 8w)."""
    layers: list[nn.Module] = [SoftClamp(), nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers.extend(Block(WIDTH) for _ in range(3))
        layers.append(nn.Upsample(scale_factor=2))
        layers.append(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False))
    layers.extend([Block(WIDTH), nn.Conv2d(WIDTH, 3, 3, padding=1)])
    return nn.Sequential(*layers)


class LpipsSqueeze(nn.Module):
    """LPIPS v0.1 on SqueezeNet 1.1, as features whose squared difference is the distance.

    Feature k is unit-normalised over channels and multiplied by the square root of the linear layer's
    weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = squeezenet1_1(weights=None).features
        self.linear = nn.ParameterList(nn.Parameter(torch.ones(1, c, 1, 1)) for c in _LPIPS_CHANNELS)
        # LPIPS scales pictures in [-1,1]; here both scalings are one, for pictures in [0,1].
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("mean", ((shift + 1) / 2).view(1, 3, 1, 1))
        self.register_buffer("deviation", (scale / 2).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map RGB in [0,1] (B, 3, H, W) to seven features (B, C, h, w), at strides 2, 4, 8, 16, 16, 16, 16."""
        x = (image - self.mean) / self.deviation
        features: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _LPIPS_TAPS:
                y = x.float()
                unit = y / torch.sqrt(y.square().sum(1, keepdim=True) + 1e-20)
                features.append(unit * self.linear[len(features)].sqrt())
        return features

    def load_lpips(self, weights: Mapping[str, Tensor]) -> None:
        """Take the tensors of a complete LPIPS file (``net.sliceN.M.*`` and ``linN.model.1.weight``).

        Raises:
            RuntimeError: A tensor is missing or has another shape.
        """
        trunk = {k.split(".", 2)[2]: v for k, v in weights.items() if k.startswith("net.slice")}
        self.features.load_state_dict(trunk)
        linear = {str(k): weights[f"lin{k}.model.1.weight"] for k in range(len(_LPIPS_CHANNELS))}
        self.linear.load_state_dict(linear)


def channels_last(module: nn.Module) -> nn.Module:
    """Lay the weights out as the processor's convolutions like them, in place; returns the module."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.contiguous(memory_format=torch.channels_last)
    return module


def frozen(module: nn.Module) -> nn.Module:
    """Put a module into inference mode, without weight gradients, in place; returns it."""
    return channels_last(module.eval().requires_grad_(False))


def load_encoder(folder: Path) -> nn.Sequential:
    """TAESD's encoder with the weights found in ``folder``."""
    model = taesd_encoder()
    model.load_state_dict({k: v.float() for k, v in load_file(folder / ENCODER_FILE).items()})
    frozen(model)
    return model


def load_decoder(folder: Path) -> nn.Sequential:
    """TAESD's decoder with the weights found in ``folder``."""
    model = taesd_decoder()
    model.load_state_dict({k: v.float() for k, v in load_file(folder / DECODER_FILE).items()})
    frozen(model)
    return model


def load_perceptual(folder: Path) -> LpipsSqueeze:
    """LPIPS-squeeze with the weights found in ``folder``."""
    model = LpipsSqueeze()
    model.load_lpips(load_file(folder / PERCEPTUAL_FILE))
    frozen(model)
    return model
