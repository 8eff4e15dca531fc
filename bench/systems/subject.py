"""What is cloaked: paintings with their restyled targets, and faces with other people's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.quality.pairs import read_pairs
from bench.systems.system import Toward
from glaze_trt.styles.pattern import pattern

Levels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture, (H, W, 3) uint8, and what it may be moved toward: its target, or other people's faces."""

    name: str
    picture: Levels
    others: tuple[Levels, ...]

    def targets(self, toward: Toward) -> tuple[Levels, ...]:
        """What a system that goes `toward` is given."""
        if toward == "text":
            return (pattern(*self.picture.shape[:2]),)
        return {"none": (), "target": self.others[:1], "people": self.others}[toward]

    @property
    def digest(self) -> str:
        """Of all pixels."""
        content = b"".join(np.ascontiguousarray(each).tobytes() for each in (self.picture, *self.others))
        return hashlib.sha256(content).hexdigest()


def paintings(folder: Path, names: list[str] | None, size: int) -> list[Subject]:
    """`NAME.png` with `NAME.target.png`, cropped to `size` about their centre; see `read_pairs`."""
    return [Subject(pair.name, pair.picture, (pair.target,)) for pair in read_pairs(folder, names, size)]


def faces(folder: Path, size: int) -> list[Subject]:
    """Crops of faces, scaled down to `size` where they are larger; the others of each are all but itself.

    Raises:
        SystemExit: fewer than two, so that nobody is left to move toward.
    """
    paths = sorted(folder.glob("*.png"))
    if len(paths) < 2:
        raise SystemExit(f"{folder}: two faces at least are needed, as .png; found {len(paths)}")
    found = {path.stem: _read(path, size) for path in paths}
    return [
        Subject(name, face, tuple(other for known, other in found.items() if known != name))
        for name, face in found.items()
    ]


def _read(path: Path, size: int) -> Levels:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    side = min(size, *picture.size)
    return np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS), np.uint8)
