"""Pairs of pictures, `NAME.png` and its restyled `NAME.target.png`, as 8-bit arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """A picture and its target, both (H, W, 3) 8-bit RGB."""

    name: str
    picture: Levels
    target: Levels


def read_pairs(folder: Path, names: list[str] | None, size: int) -> list[Pair]:
    """The pairs of a folder, cropped to `size` about their centre.

    Raises:
        SystemExit: no pairs, or a name that fits none.
    """
    found = {path.name.removesuffix(".target.png"): path for path in sorted(folder.glob("*.target.png"))}
    if not found:
        raise SystemExit(f"{folder}: no NAME.png with NAME.target.png beside it")
    chosen = list(found)
    if names:
        chosen = [n for n in found if any(asked in n for asked in names)]
        missing = [asked for asked in names if not any(asked in n for n in found)]
        if missing:
            raise SystemExit(f"{folder}: no pair named {', '.join(missing)}; there are {', '.join(found)}")
    return [Pair(n, _read(folder / f"{n}.png", size), _read(found[n], size)) for n in chosen]


def _read(path: Path, size: int) -> Levels:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if min(picture.size) < size:
        raise SystemExit(f"{path}: {picture.width} × {picture.height} is smaller than --size {size}")
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.uint8)


def to_tensor(levels: Levels) -> Tensor:
    """(H, W, 3) levels as (1, 3, H, W) in [0,1]."""
    return torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()


def to_levels(picture: Tensor) -> Levels:
    """(1, 3, H, W) in [0,1], rounded to (H, W, 3) levels, as a saved file holds it."""
    array = picture.detach()[0].permute(1, 2, 0).clamp(0, 1).mul(255).round()
    return np.ascontiguousarray(array.to(torch.uint8).numpy())
