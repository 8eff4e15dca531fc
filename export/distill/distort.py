"""Everyday damage to pictures, for training and judging the perceptual student. Adversarial: see ``attack``."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

Distortion = Callable[[Tensor, float, Generator], Tensor]
"""(pictures (B, 3, H, W) in [0,1], strength in [0,1], generator) -> damaged pictures of the same shape and range."""


def noise(image: Tensor, strength: float, generator: Generator) -> Tensor:
    """Gaussian noise of standard deviation up to 0.15, at a random grain (white to 8-pixel blotches)."""
    grain = 2 ** int(torch.randint(4, (), generator=generator))
    size = [max(1, length // grain) for length in image.shape[2:]]
    field = torch.randn((*image.shape[:2], *size), generator=generator)
    field = functional.interpolate(field, image.shape[2:], mode="bilinear")
    return (image + field * (0.003 + 0.15 * strength**2)).clamp(0, 1)


def blur(image: Tensor, strength: float, generator: Generator) -> Tensor:
    """Gaussian blur of standard deviation up to 4 pixels, blended with the original."""
    sigma = 0.4 + 3.6 * strength
    taps = torch.arange(-12, 13)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(image, (12, 12, 12, 12), mode="reflect")
    across = functional.conv2d(padded, kernel, groups=3)
    blurred = functional.conv2d(across, kernel.transpose(2, 3), groups=3)
    return torch.lerp(image, blurred, 0.3 + 0.7 * float(torch.rand((), generator=generator)))


def jpeg(image: Tensor, strength: float, generator: Generator) -> Tensor:
    """JPEG at quality 95 down to 5."""
    quality = round(95 - 90 * strength)
    decoded = []
    for picture in (image * 255).round().byte().permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
        decoded.append(np.array(Image.open(buffer)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255


def colour(image: Tensor, strength: float, generator: Generator) -> Tensor:
    """A gain, an offset and a mixing of channels, each up to about a quarter."""
    reach = 0.01 + 0.25 * strength
    mix = torch.eye(3) + reach * 0.5 * torch.randn(3, 3, generator=generator)
    offset = reach * 0.5 * torch.randn(3, 1, 1, generator=generator)
    return (torch.einsum("dc,bchw->bdhw", mix, image) + offset).clamp(0, 1)


def warp(image: Tensor, strength: float, generator: Generator) -> Tensor:
    """A smooth displacement of up to about 6 pixels."""
    batch, _, height, width = image.shape
    coarse = torch.randn(batch, 2, 5, 5, generator=generator) * (0.2 + 5.8 * strength**2)
    pixels = functional.interpolate(coarse, (height, width), mode="bicubic").permute(0, 2, 3, 1)
    identity = functional.affine_grid(torch.eye(2, 3).expand(batch, 2, 3), list(image.shape), align_corners=False)
    grid = identity + pixels * 2 / torch.tensor([width, height])
    return functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


DISTORTIONS: dict[str, Distortion] = {
    "noise": noise,
    "blur": blur,
    "jpeg": jpeg,
    "colour": colour,
    "warp": warp,
}


def apply(kind: Distortion, image: Tensor, strength: float, generator: Generator) -> Tensor:
    """Damage pictures in one way, in float32 whatever the caller's precision."""
    with torch.autocast("cpu", enabled=False):
        return kind(image.float(), strength, generator)


def any_of(image: Tensor, generator: Generator) -> Tensor:
    """Each picture of a batch damaged in one random way, at a random strength."""
    damaged = []
    kinds = list(DISTORTIONS.values())
    for picture in torch.split(image, 1):
        kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
        damaged.append(apply(kind, picture, float(torch.rand((), generator=generator)), generator))
    return torch.cat(damaged)
