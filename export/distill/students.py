"""The three networks that are shipped: their shapes, and which stages they borrow from their teachers.

TAESD spends nine tenths of its work at full and half resolution. The students of its encoder and decoder begin from
the teacher's own deeper stages, and replace what lies above by one convolution or a thin tail. The perceptual student
keeps six of SqueezeNet's eight modules and has one small one of its own. No normalisation layers anywhere: every
backend runs convolutions and ReLU well, in both directions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.squeezenet import Fire

from export.distill.teachers import WIDTH, LpipsSqueeze, taesd_decoder, taesd_encoder

_ENCODER_LENT = 5
"""First layer of TAESD's encoder that the student keeps: the last block at stride 2."""

_ENTRY = 7
"""The layer of TAESD's encoder before which its features are compared: the first block at stride 4."""

_DECODER_LENT = 11
"""How many layers of TAESD's decoder the student keeps: up to the blocks at stride 4."""

_PERCEPTUAL_TAPS = (1, 4, 7, 9, 10)
"""Layers of SqueezeNet whose outputs the student compares; it keeps what leads to the last of them."""

_LENT = "deep."
"""How the names of borrowed parameters begin."""

HASTE = 10.0
"""Adam moves every parameter equally far in a step; a scale has further to go than a convolution's weight."""


class ThinBlock(nn.Module):
    """Two 3x3 convolutions with an identity skip, ReLU last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return functional.relu(self.second(functional.relu(self.first(x))) + x)


class TinyEncoder(nn.Module):
    """RGB in [0,1] (B, 3, H, W) -> SD 1.x scaled latent (B, 4, H/8, W/8).

    One convolution stands for all that the teacher does at full resolution, and a thin block for two of its three
    blocks at stride 2. After 150 steps on the same crops, with the third of these blocks kept more of the latents of
    held-out pictures is explained (R^2 0.72) than with thin blocks of 32 or 48 channels in its place (0.69, 0.70).
    """

    def __init__(self, teacher: nn.Sequential | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, WIDTH, 6, stride=2, padding=2)  # 6: whole 2x2 cells and one more on each side
        self.thin = ThinBlock(WIDTH)
        for parameter in self.thin.second.parameters():
            nn.init.normal_(parameter, std=1e-3)  # begins as hardly more than its skip
        lender = taesd_encoder() if teacher is None else teacher
        self.deep = copy.deepcopy(lender[_ENCODER_LENT:]).requires_grad_(True)

    def front(self, image: Tensor) -> Tensor:
        """Features (B, 64, H/4, W/4) where they meet the teacher's; see `encoder_entry`."""
        entry: Tensor = self.deep[: _ENTRY - _ENCODER_LENT](self.thin(self.first(image)))
        return entry

    def rest(self, entry: Tensor) -> Tensor:
        """The latent of such features."""
        latent: Tensor = self.deep[_ENTRY - _ENCODER_LENT :](entry)
        return latent

    def forward(self, image: Tensor) -> Tensor:
        """Encode a picture."""
        return self.rest(self.front(image))


def encoder_entry(teacher: nn.Sequential, image: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's features where the student's must meet them (B, 64, H/4, W/4), and its latent."""
    entry = teacher[:_ENTRY](image)
    return entry, teacher[_ENTRY:](entry)


class TinyDecoder(nn.Module):
    """SD 1.x scaled latent (B, 4, h, w) -> RGB in [0,1] (B, 3, 8h, 8w)."""

    def __init__(self, teacher: nn.Sequential | None = None, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        lender = taesd_decoder() if teacher is None else teacher
        self.deep = copy.deepcopy(lender[:_DECODER_LENT]).requires_grad_(True)
        self.tail = nn.Sequential(
            nn.Conv2d(WIDTH, width * 4, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            *(ThinBlock(width) for _ in range(depth)),
            nn.Conv2d(width, 3 * 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def unclipped(self, latent: Tensor) -> Tensor:
        """Decode a latent without the final clip, whose gradient is zero outside [0,1]."""
        image: Tensor = self.tail(self.deep(latent))
        return image

    def forward(self, latent: Tensor) -> Tensor:
        """Decode a latent."""
        return self.unclipped(latent).clamp(0, 1)


class TinyPerceptual(nn.Module):
    """RGB in [0,1] (B, 3, H, W) -> features (B, C_k, h_k, w_k) at strides 2, 4, 8, 16, 16 and 16.

    As in LPIPS each feature is unit-normalised over its channels and multiplied by the square root of a
    positive weight per channel, so that the distance is sum_k mean_hw sum_c (f_k(a) - f_k(b))^2.

    SqueezeNet's last two modules hold more than half of its weights: one small module stands for both, and it alone is
    taught. Convolutions and pooling lie on the teacher's grid, without borders: on one that is a pixel off, the loop
    finds changes that fall between what is sampled, and LPIPS-squeeze sees 0.1 where the student says 0.05.
    """

    def __init__(self, teacher: LpipsSqueeze | None = None) -> None:
        super().__init__()
        lender = LpipsSqueeze() if teacher is None else teacher
        self.lent = copy.deepcopy(lender.features[: _PERCEPTUAL_TAPS[-1] + 1]).requires_grad_(False)
        _scale_inside_(self.lent[0], lender.mean, lender.deviation)
        self.last = Fire(384, 48, 128, 128)
        scales = [lender.linear[tap].detach() for tap in range(len(_PERCEPTUAL_TAPS))] + [torch.ones(1, 256, 1, 1)]
        self.log_scale = nn.ParameterList(nn.Parameter(x.clamp(min=1e-6).log() / 2 / HASTE) for x in scales)
        for log_scale in self.log_scale[:-1]:
            log_scale.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of a picture."""
        x = image
        taps = []
        for index, layer in enumerate(self.lent):
            x = layer(x)
            if index in _PERCEPTUAL_TAPS:
                taps.append(x)
        taps.append(self.last(x))
        features = []
        for tap, log_scale in zip(taps, self.log_scale, strict=True):
            y = tap.float()
            norm = torch.sqrt((y * y).sum(1, keepdim=True) + 1e-6)  # a floor: dark, flat areas have no direction
            features.append(y / norm * (HASTE * log_scale).exp())
        return tuple(features)


@torch.no_grad()
def _scale_inside_(first: nn.Module, mean: Tensor, deviation: Tensor) -> None:
    """Make a convolution without a border one of unscaled pictures."""
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    first.weight.div_(deviation)
    first.bias.sub_((first.weight * mean).sum((1, 2, 3)))


def parameter_groups(student: nn.Module, rate: float) -> list[dict[str, Any]]:
    """The student's parameters for an optimizer: borrowed stages learn at a fifth of the rate of new ones."""
    taught = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    borrowed = [p for name, p in taught if name.startswith(_LENT)]
    new = [p for name, p in taught if not name.startswith(_LENT)]
    groups = [{"params": new, "rate": rate}, {"params": borrowed, "rate": rate / 5}]
    return [group for group in groups if group["params"]]
