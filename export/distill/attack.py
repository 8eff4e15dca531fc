"""Adversarial pictures: what students are trained against and judged by.

``descend`` is the common loop. The cloak made here is a plain one, for training; the product's own is
``glaze_trt.cloak``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from export.distill.pictures import to_levels

Objective = Callable[[Tensor], Tensor]
"""Pictures (B, 3, H, W) -> what to make small, one value a picture (B,)."""


def distance(a: tuple[Tensor, ...] | list[Tensor], b: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """LPIPS between two lists of weighted features, one value a picture (B,)."""
    maps = [(x - y).square().sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]
    return torch.stack(maps).sum(0)


def caps(count: int, generator: Generator, least: float = 3 / 255, most: float = 16 / 255) -> Tensor:
    """Random L-infinity bounds in [0,1] units, one a picture (B, 1, 1, 1)."""
    return least + (most - least) * torch.rand(count, 1, 1, 1, generator=generator)


def activity(image: Tensor, least: float = 0.3, most: float = 2.0) -> Tensor:
    """How much happens about each pixel, relative to the picture's mean (B, 1, H, W): where cloaks may be stronger."""
    grey = image.mean(1, keepdim=True)
    mean, square = (functional.avg_pool2d(x, 9, 1, 4, count_include_pad=False) for x in (grey, grey.square()))
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return (deviation / (deviation.mean((1, 2, 3), keepdim=True) + 1e-6)).clamp(least, most)


def descend(
    image: Tensor, objective: Objective, cap: Tensor, steps: int, generator: Generator, step: float = 0.5
) -> Tensor:
    """Projected descent from a random start; returns pictures within ``cap`` of ``image`` and in [0,1].

    A step follows the gradient divided by its RMS and clipped, between the sign and the plain gradient: dense
    where the gradient is, still where it is not, as cloaks are.
    """
    delta = cap * (torch.rand(image.shape, generator=generator) - 0.5)
    for index in range(steps):
        gradient = slope(image + delta, objective)
        pace = step * cap * (1 - 0.7 * index / steps)
        delta = torch.maximum(torch.minimum(delta - pace * unit(gradient).clamp(-1, 1), cap), -cap)
        delta = (image + delta).clamp(0, 1) - image
    return image + delta


def slope(image: Tensor, objective: Objective) -> Tensor:
    """Gradient of the objective at pictures (B, 3, H, W)."""
    with torch.enable_grad():
        point = image.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(point).sum(), point)
    return gradient


def unit(gradient: Tensor) -> Tensor:
    """Each picture's gradient divided by its RMS."""
    return gradient / (gradient.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12)


def toward(encoder: nn.Module, target: Tensor) -> Objective:
    """Mean squared distance from a target latent (B, C, h, w)."""
    return lambda image: (encoder(image).float() - target).square().mean((1, 2, 3))


def cloak(
    image: Tensor,
    encoder: nn.Module,
    target: Tensor,
    perceptual: nn.Module,
    *,
    budget: float,
    cap: float,
    steps: int,
) -> Tensor:
    """Pictures moved toward ``target`` under an L-infinity cap and about at a perceptual budget, rounded to 8 bits.

    The feature gradient and the LPIPS gradient are each divided by their RMS; the multiplier of the second
    grows while the budget is exceeded. At the end the perturbation is shrunk until the budget holds.
    """
    with torch.no_grad():
        reference = perceptual(image)

    def seen(point: Tensor) -> Tensor:
        return distance(perceptual(point), reference)

    multiplier = torch.zeros(len(image), 1, 1, 1)
    # Not from zero, where the perceptual distance has no direction.
    delta = (torch.rand(image.shape, generator=Generator().manual_seed(0)) - 0.5) * 2 / 255
    momentum = torch.zeros_like(image)
    for index in range(steps):
        gradient = unit(slope(image + delta, toward(encoder, target)))
        with torch.no_grad():
            excess = seen(image + delta).view(-1, 1, 1, 1) / budget - 1
        multiplier = (multiplier + 0.6 * excess).clamp(0, 6)
        gradient = gradient + multiplier * unit(slope(image + delta, seen))
        momentum = 0.8 * momentum + 0.2 * gradient.clamp(-3, 3)
        delta = (delta - 0.3 * cap * (1 - 0.8 * index / steps) * momentum).clamp(-cap, cap)
        delta = (image + delta).clamp(0, 1) - image
    return to_levels(image + delta * _fitting(image, delta, seen, budget))


def _fitting(image: Tensor, delta: Tensor, seen: Objective, budget: float) -> Tensor:
    """A scale in [0,1] (B, 1, 1, 1), found by halving, at which the rounded picture keeps the budget."""
    kept = torch.zeros(len(image), 1, 1, 1)
    scale = torch.ones_like(kept)
    reach = 0.5
    with torch.no_grad():
        for _ in range(6):
            holds = seen(to_levels(image + scale * delta)).view(-1, 1, 1, 1) <= budget
            kept = torch.where(holds, torch.maximum(kept, scale), kept)
            scale = (scale + torch.where(holds, reach, -reach)).clamp(0, 1)
            reach /= 2
    return kept


def progress(encoder: nn.Module, image: Tensor, cloaked: Tensor, target: Tensor) -> Tensor:
    """How much of the way to ``target`` an encoder sees, one value a picture: 1 - |E(x')-t| / |E(x)-t|."""
    with torch.no_grad():
        before, after = (torch.linalg.vector_norm(encoder(x).float() - target, dim=(1, 2, 3)) for x in (image, cloaked))
    seen: Tensor = 1 - after / before
    return seen
