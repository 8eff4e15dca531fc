"""The three networks that are shipped: their shapes, and which stages they borrow from their teachers.

TAESD spends nine tenths of its work at full and half resolution. The students of its encoder and decoder keep
the teacher's own stages at strides 4 and 8 as a starting point, and replace what lies above by a thin front
or tail. The perceptual student is a plain stack of convolutions. No normalisation layers anywhere: every
backend runs convolutions and ReLU well, in both directions.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.distill.teachers import WIDTH, taesd_decoder, taesd_encoder

_ENCODER_LENT = 7
"""First layer of TAESD's encoder that the student keeps: the blocks at stride 4."""

_DECODER_LENT = 11
"""How many layers of TAESD's decoder the student keeps: up to the blocks at stride 4."""


_HASTE = 10.0
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
    """RGB in [0,1] (B, 3, H, W) -> SD 1.x scaled latent (B, 4, H/8, W/8)."""

    def __init__(self, teacher: nn.Sequential | None = None, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv2d(3, width, 6, stride=2, padding=2),  # 6: whole 2x2 cells and one more on each side
            nn.ReLU(),
            *(ThinBlock(width) for _ in range(depth)),
            nn.Conv2d(width, WIDTH, 3, stride=2, padding=1),
        )
        lender = taesd_encoder() if teacher is None else teacher
        self.deep = copy.deepcopy(lender[_ENCODER_LENT:]).requires_grad_(True)

    def forward(self, image: Tensor) -> Tensor:
        """Encode a picture."""
        latent: Tensor = self.deep(self.front(image))
        return latent


def encoder_entry(teacher: nn.Sequential, image: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's features where the student's front must meet them (B, 64, H/4, W/4), and its latent."""
    entry = teacher[:_ENCODER_LENT](image)
    return entry, teacher[_ENCODER_LENT:](entry)


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
    """RGB in [0,1] (B, 3, H, W) -> features (B, C_k, h_k, w_k) at strides 2, 4, 8 and 16.

    As in LPIPS each feature is unit-normalised over its channels and multiplied by the square root of a
    positive weight per channel, so that the distance is sum_k mean_hw sum_c (f_k(a) - f_k(b))^2.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.ReLU())]
        for narrow, wide in zip(widths, widths[1:], strict=False):
            stages.append(
                nn.Sequential(
                    nn.Conv2d(narrow, wide, 3, stride=2, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(wide, wide, 3, padding=1),
                    nn.ReLU(),
                )
            )
        self.stages = nn.ModuleList(stages)
        self.log_scale = nn.ParameterList(nn.Parameter(torch.zeros(1, c, 1, 1)) for c in widths)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of a picture."""
        x = image
        features = []
        for stage, log_scale in zip(self.stages, self.log_scale, strict=True):
            x = stage(x)
            y = x.float()
            norm = torch.sqrt((y * y).sum(1, keepdim=True) + 1e-6)  # a floor: dark, flat areas have no direction
            features.append(y / norm * (_HASTE * log_scale).exp())
        return tuple(features)


def parameter_groups(student: nn.Module, rate: float) -> list[dict[str, Any]]:
    """The student's parameters for an optimizer: borrowed stages learn at a tenth of the rate of new ones."""
    borrowed = [p for name, p in student.named_parameters() if name.startswith("deep.")]
    new = [p for name, p in student.named_parameters() if not name.startswith("deep.")]
    groups = [{"params": new, "rate": rate}, {"params": borrowed, "rate": rate / 10}]
    return [group for group in groups if group["params"]]
