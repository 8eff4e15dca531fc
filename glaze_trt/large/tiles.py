"""How a large picture is laid out in overlapping tiles of one shape, and how they are joined without a seam.

Tiles lie evenly, the first and the last of a row at the picture's edges. They are joined one after another: each fades
in over what the tiles left of it and above it have left, in a strip about the middle of the overlap; what is nearer to
a tile's own edge, where a network sees no neighbourhood, is not used. Nothing is optimised here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]
Array = NDArray[np.float32]

SIDE = 512
"""Of a tile, where nothing asks for a larger one."""

_LOCAL = 31
"""Pixels over which the energy of a change is averaged where two tiles are joined."""

_LARGEST_GAIN = 1.5
"""Two changes that have nothing in common need √2 in the middle."""

_TINY = 1e-12


@dataclass(frozen=True)
class Tiling:
    """When a picture is cut, and how.

    Attributes:
        whole: pixels up to which a picture is cloaked in one piece.
        side: of a tile, in pixels; None for 512 on a processor and 1024 on a GPU, which a larger tile keeps busy as a
            batch of small ones would.
        edge: pixels at a tile's edge that are not used.
        fade: pixels in which one tile gives way to the next.
        coarse: longer sides at which encoders see the picture first, from small to large; it is cloaked at the last.
        share: of the visible error, that may be used for these.
        cap: of the largest change of a channel, likewise.
        steps: of a tile, as a part of the objective's.
    """

    whole: int = 2_250_000
    side: int | None = None
    edge: int = 16
    fade: int = 32
    coarse: tuple[int, ...] = (512, 1024)
    share: float = 0.85
    cap: float = 0.75
    steps: float = 0.25

    def cuts(self, size: Sequence[int]) -> bool:
        """Whether a picture of (height, width) is cut."""
        return size[0] * size[1] > self.whole


@dataclass(frozen=True)
class Plan:
    """Where the tiles lie.

    Attributes:
        size: of the picture, (height, width).
        tile: of each tile.
        tops: their first rows.
        lefts: their first columns.
        edge: see `Tiling`.
        fade: see `Tiling`.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    edge: int
    fade: int

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every tile, row by row."""
        for top in self.tops:
            for left in self.lefts:
                yield slice(top, top + self.tile[0]), slice(left, left + self.tile[1])

    def cores(self) -> Iterator[tuple[slice, slice]]:
        """The rows and columns that count for each tile: between the middles of its overlaps, every pixel once."""
        rows, columns = (_cores(*side) for side in self._sides())
        for row in rows:
            for column in columns:
                yield row, column

    def seams(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The first row and the first column after the middle of every overlap."""
        rows, columns = (tuple(core.start for core in _cores(*side)[1:]) for side in self._sides())
        return rows, columns

    def fades(self, rows: slice, columns: slice) -> Array:
        """How much of each pixel a tile takes over from those before it, (h, w, 1) in [0,1]."""
        down, across = (
            _rise(part, self.fade, seams) for part, seams in zip((rows, columns), self.seams(), strict=True)
        )
        return (down[:, None] * across[None])[..., None]

    def _sides(self) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
        return (self.size[0], self.tile[0], self.tops), (self.size[1], self.tile[1], self.lefts)


def plan(size: tuple[int, int], side: int, tiling: Tiling | None = None) -> Plan:
    """Lay out tiles of `side` pixels over a picture of (height, width); narrower ones where the picture is narrower."""
    tiling = tiling or Tiling()
    overlap = 2 * tiling.edge + tiling.fade
    tile = (min(side, size[0]), min(side, size[1]))
    tops, lefts = (_firsts(whole, part, overlap) for whole, part in zip(size, tile, strict=True))
    return Plan(size, tile, tops, lefts, tiling.edge, tiling.fade)


def cut(size: Sequence[int]) -> Plan | None:
    """The tiles in which a picture of (height, width) is measured; None for one that networks take in one piece."""
    usual = Tiling()
    return plan((size[0], size[1]), SIDE, usual) if usual.cuts(size) else None


def join(before: Array, after: Array, fade: Array) -> Array:
    """What a tile leaves of the change of a picture, (h, w, 3).

    In a mixture of two changes that differ, much cancels. Its energy is brought back to what it is on both sides.

    Args:
        before: what the tiles before it have left.
        after: the tile's own.
        fade: how much of each pixel the tile takes over, (h, w, 1).
    """
    mixed = before + fade * (after - before)
    partly = (fade > 0) & (fade < 1)
    if not partly.any():
        return mixed
    old, new = 1 - fade[..., 0], fade[..., 0]
    energies = _shared(before, before), _shared(after, after)
    wanted = old * energies[0] + new * energies[1]
    left = old * old * energies[0] + new * new * energies[1] + 2 * old * new * _shared(before, after)
    gain = np.sqrt((wanted + _TINY) / (left.clip(0) + _TINY)).clip(1.0, _LARGEST_GAIN)
    return np.where(partly, mixed * gain[..., None], mixed).astype(np.float32)


def seam(before: Levels, after: Levels, plan: Plan) -> float:
    """How much more the change of a picture has of energy where tiles meet than beside it; 0.05 is 5 % more.

    The strips in which tiles fade are compared with those of the same width on both sides, so that content, which
    decides how much a picture may change, is about the same.

    Args:
        before: (H, W, 3) uint8.
        after: the cloaked picture.
        plan: where the tiles lay.
    """
    here = beside = 0.0
    for axis, seams in enumerate(plan.seams()):
        lines = _line_energies(before, after, axis)
        half = plan.fade // 2
        for place in seams:
            near = lines[max(0, place - half) : place + half]
            far = np.concatenate([lines[max(0, place - 2 * half) : place - half], lines[place + half :][:half]])
            here, beside = here + float(near.mean()), beside + float(far.mean())
    return here / beside - 1.0 if beside > 0 else 0.0


def _firsts(whole: int, part: int, overlap: int) -> tuple[int, ...]:
    count = 1 if part >= whole else math.ceil((whole - overlap) / max(1, part - overlap))
    return tuple(round(place) for place in np.linspace(0, whole - part, count))


def _cores(whole: int, part: int, firsts: Sequence[int]) -> list[slice]:
    middles = [(first + part + after) // 2 for first, after in zip(firsts, firsts[1:], strict=False)]
    return [slice(*ends) for ends in zip([0, *middles], [*middles, whole], strict=True)]


def _rise(part: slice, fade: int, seams: Sequence[int]) -> Array:
    """From 0 to 1 about the seam with the tile before, if there is one."""
    place, middle = np.arange(part.start, part.stop), (part.start + part.stop) // 2
    for seam in seams:
        if part.start < seam < middle:
            along = ((place + 0.5 - seam) / max(fade, 1) + 0.5).clip(0, 1)
            return np.asarray(along * along * (3 - 2 * along), np.float32)
    return np.ones(len(place), np.float32)


def _shared(one: Array, other: Array) -> Array:
    """Local mean product of two (h, w, 3) changes, summed over channels."""
    return np.asarray(cv2.blur((one * other).sum(2), (_LOCAL, _LOCAL)), np.float32)


def _line_energies(before: Levels, after: Levels, axis: int) -> NDArray[np.float64]:
    """The mean square of the change in every row (axis 0) or column (axis 1)."""
    found = np.zeros(before.shape[axis])
    for top in range(0, before.shape[0], 256):
        rows = slice(top, top + 256)
        change = np.square(after[rows].astype(np.float32) - before[rows]).sum(2, dtype=np.float32)
        if axis == 0:
            found[rows] = change.sum(1, dtype=np.float64) / before.shape[1]
        else:
            found += change.sum(0, dtype=np.float64) / before.shape[0]
    return found
