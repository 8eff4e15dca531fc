"""A folder of pictures as training crops and held-out views. Distortions live in ``distort``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional

HELD_OUT = ("hokusai_great_wave", "turner_shipwreck", "watts_edith_villiers", "munch_the_scream")
"""Paintings that training never sees, by the beginning of their file names."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_MOST_SHRUNK = 0.35  # a crop is taken at this scale or larger


def read(path: Path) -> Tensor:
    """A picture as 8-bit RGB (3, H, W)."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


def to_unit(picture: Tensor) -> Tensor:
    """8-bit levels to [0,1]."""
    return picture.float() / 255


def to_levels(picture: Tensor) -> Tensor:
    """Round a picture in [0,1] to what an 8-bit file holds, still in [0,1]."""
    return (picture.clamp(0, 1) * 255).round() / 255


def centre(picture: Tensor, size: int) -> Tensor:
    """The centred (3, size, size) square in [0,1]; a picture that is too small is enlarged first."""
    shortest = min(picture.shape[1:])
    unit = to_unit(picture)
    if shortest < size:
        unit = functional.interpolate(unit[None], scale_factor=size / shortest + 1e-3, mode="bilinear")[0]
    top, left = ((length - size) // 2 for length in unit.shape[1:])
    return unit[:, top : top + size, left : left + size]


@dataclass(frozen=True)
class Pictures:
    """Training pictures, and held-out ones by name; all 8-bit RGB (3, H, W)."""

    training: tuple[Tensor, ...]
    held_out: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path, held_out: Sequence[str] = HELD_OUT) -> Pictures:
        """Read every picture of a folder and set aside those whose names begin with one of ``held_out``.

        Raises:
            ValueError: Nothing is left to train on, or a held-out name is not there.
        """
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        kept = {name: [p for p in paths if p.stem.startswith(name)] for name in held_out}
        missing = [name for name, found in kept.items() if not found]
        if missing:
            raise ValueError(f"{folder}: no picture named {', '.join(missing)}: choose others with --held-out")
        aside = {path for found in kept.values() for path in found}
        training = tuple(read(path) for path in paths if path not in aside)
        if not training:
            raise ValueError(f"{folder}: no picture left to train on")
        return cls(training, {path.stem: read(path) for path in sorted(aside)})

    def crops(self, count: int, size: int, generator: Generator) -> Tensor:
        """Random training crops (count, 3, size, size) in [0,1]: any scale, turned, mirrored, some recoloured."""
        return torch.stack([self._crop(size, generator) for _ in range(count)])

    def views(self, size: int) -> Tensor:
        """The held-out pictures' centres (N, 3, size, size) in [0,1], in the order of their names."""
        return torch.stack([centre(picture, size) for picture in self.held_out.values()])

    def _crop(self, size: int, generator: Generator) -> Tensor:
        picture = self.training[_integer(len(self.training), generator)]
        scale = _MOST_SHRUNK ** float(torch.rand((), generator=generator))
        side = min(round(size / scale), *picture.shape[1:])
        top, left = (_integer(length - side + 1, generator) for length in picture.shape[1:])
        crop = to_unit(picture[:, top : top + side, left : left + side])
        if side != size:
            crop = functional.interpolate(crop[None], (size, size), mode="bilinear", antialias=True)[0]
        crop = torch.rot90(crop, _integer(4, generator), (1, 2))
        if _integer(2, generator):
            crop = crop.flip(2)
        return _recolour(crop, generator) if _integer(3, generator) == 0 else crop.clamp(0, 1)


def _recolour(crop: Tensor, generator: Generator) -> Tensor:
    """Other pigments: channels permuted, each with a gamma between 0.6 and 1.7."""
    gamma = torch.exp((torch.rand(3, 1, 1, generator=generator) - 0.5) * 1.04)
    return crop[torch.randperm(3, generator=generator)].clamp(0, 1) ** gamma


def _integer(below: int, generator: Generator) -> int:
    return int(torch.randint(below, (), generator=generator))
