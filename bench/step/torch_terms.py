"""The terms that stand for visibility in the step, in PyTorch and from their equations.

`Structure` is SSIM's contrast-structure over three octaves of opponent colours; `Visibility` is SSIMULACRA2's error (in
XYB, six octaves). Both hold everything of the original picture that does not change. They are what a careful author
would write in PyTorch, so that the step is timed against a fair opponent; `glaze_trt.graph.terms` has them as graphs.
"""

from __future__ import annotations

import numpy as np
import torch
from ssimulacra2.ssimulacra2 import kOpsinAbsorbanceMatrix, weights
from torch import Tensor, nn
from torch.nn import functional as F

RADIUS, SIGMA = 5, 1.5
BIAS = 0.0037930732552754493
NEGLIGIBLE = 0.01
SMALLEST = 8


class Blur(nn.Module):
    """Gaussian of σ 1.5 px over 11 × 11, depthwise and separable, zeros outside: (1, 3, H, W) → (1, 3, H, W)."""

    row: Tensor
    column: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.exp(-(torch.arange(-RADIUS, RADIUS + 1).float() ** 2) / (2 * SIGMA**2))
        kernel = (taps / taps.sum()).repeat(3, 1)
        self.register_buffer("row", kernel[:, None, None, :].contiguous())
        self.register_buffer("column", kernel[:, None, :, None].contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """The blurred picture."""
        wide = F.conv2d(x, self.row, padding=(0, RADIUS), groups=3)
        return F.conv2d(wide, self.column, padding=(RADIUS, 0), groups=3)


def octaves(x: Tensor, count: int) -> list[Tensor]:
    """`x` and its halvings by 2 × 2 means, down to 8 pixels; every side must halve evenly."""
    levels = [x]
    while len(levels) < count and min(levels[-1].shape[2:]) // 2 >= SMALLEST:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def mix(x: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """A 3 × 3 matrix on the channels of (1, 3, H, W)."""
    return F.conv2d(x, matrix[:, :, None, None], offset)


class Structure(nn.Module):
    """δ (1, 3, H, W) → mean of 1 − l·s against the original, 0 for no change."""

    opponent: Tensor
    weight: Tensor

    def __init__(self, original: Tensor) -> None:
        super().__init__()
        self.register_buffer("opponent", torch.tensor([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [-0.25, -0.25, 0.5]]))
        weight = torch.tensor([1.0, 0.7, 0.5])
        self.register_buffer("weight", (weight / weight.sum()).view(1, 3, 1, 1))
        self.blur = Blur()
        self.colours = octaves(mix(original, self.opponent), 3)
        self.means = [self.blur(a) for a in self.colours]
        self.variances = [self.blur(a * a) - m * m for a, m in zip(self.colours, self.means, strict=True)]
        shares = (1.0, 0.7, 0.4)[: len(self.colours)]
        self.shares = [share / sum(shares) for share in shares]

    def forward(self, delta: Tensor) -> Tensor:
        """The loss."""
        changes = octaves(mix(delta, self.opponent), len(self.colours))
        parts = []
        for d, a, mean, before, share in zip(
            changes, self.colours, self.means, self.variances, self.shares, strict=True
        ):
            shift = self.blur(d)
            change = self.blur(d * d) - shift * shift
            shared = self.blur(a * d) - mean * shift
            same = 1 - change / (2 * before + change + 2 * shared + 3e-4)
            light = 1 - 2000 * shift * shift
            parts.append(((1 - light * same) * self.weight).mean() * (3 * share))
        return torch.stack(parts).sum()


class Visibility(nn.Module):
    """Picture (1, 3, H, W) in [0,1] → SSIMULACRA2's error e against the original; the score is 100 − 10·e^0.6276."""

    absorbance: Tensor
    to_xyb: Tensor

    def __init__(self, original: Tensor) -> None:
        super().__init__()
        absorbance = torch.tensor(np.array(kOpsinAbsorbanceMatrix, np.float32).reshape(3, 3))
        to_xyb = torch.tensor([[7.0, -7.0, 0.0], [0.5, 0.5, 0.0], [-0.5, -0.5, 1.0]])
        self.register_buffer("absorbance", absorbance)
        self.register_buffer("to_xyb", to_xyb)
        self.register_buffer("bias", torch.full((3,), BIAS))
        self.register_buffer("offset", torch.tensor([0.42, 0.01, 0.55]) - to_xyb.sum(1) * float(np.cbrt(BIAS)))
        self.blur = Blur()
        self.references = [self._xyb(level) for level in octaves(linear(original), 6)]
        self.means = [self.blur(a) for a in self.references]
        self.variances = [self.blur(a * a) - m * m for a, m in zip(self.references, self.means, strict=True)]
        count = len(self.references)
        table = np.asarray(weights)[: 3 * count * 6].reshape(3, count, 2, 3)
        table = np.where(table > NEGLIGIBLE, table, 0).astype(np.float32)
        self.weights = [torch.tensor(table[:, octave]) for octave in range(count)]
        self.used = [[bool(table[:, octave, :, each].any()) for each in range(3)] for octave in range(count)]

    def _xyb(self, level: Tensor) -> Tensor:
        root = mix(level, self.absorbance, self.get_buffer("bias")).clamp(min=1e-6).pow(1 / 3)
        return mix(root, self.to_xyb, self.get_buffer("offset"))

    def forward(self, picture: Tensor) -> Tensor:
        """The error e."""
        parts = []
        levels = octaves(linear(picture), len(self.references))
        known = zip(levels, self.references, self.means, self.variances, self.weights, self.used, strict=True)
        for level, a, mean, before, weight, used in known:  # `weight` is (channel, norm, map)
            if not any(used):
                continue
            b = self._xyb(level)
            mean_b = self.blur(b)
            maps = []
            if used[0]:
                after = self.blur(b * b) - mean_b * mean_b
                shared = self.blur(a * b) - mean * mean_b
                ratio = (2 * shared + 0.0009) / (before + after + 0.0009)
                maps.append((F.relu(1 - (1 - (mean - mean_b).square()) * ratio), weight[:, :, 0]))
            if used[1] or used[2]:
                edge = ((b - mean_b).abs() + 1) / ((a - mean).abs() + 1) - 1
                maps += [(F.relu(edge), weight[:, :, 1]), (F.relu(-edge), weight[:, :, 2])]
            for error, share in maps:
                square = error * error
                fourth = (square * square).mean((0, 2, 3)).add(1e-16).sqrt().sqrt()
                parts.append((error.mean((0, 2, 3)) * share[:, 0] + fourth * share[:, 1]).sum())
        s = 0.9562382616834844 * torch.stack(parts).sum()
        return s * (s * (s * 6.248496625763138e-05 - 0.020884521182843837) + 2.326765642916932)


def linear(x: Tensor) -> Tensor:
    """To linear light, from sRGB in [0,1]."""
    return torch.where(x > 0.04045, ((x.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4), x / 12.92)
