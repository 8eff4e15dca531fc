"""A picture as plain values: sRGB levels for the encoder beside what its file had, so that both can be written again.

Nothing is read, written or converted here; see `decoding`, `encoding` and `colour`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glaze_trt.pictures.colour import Space, Values

Levels = NDArray[np.uint8]

Chunk = tuple[bytes, bytes]
"""Of a PNG: name and data."""


@dataclass(frozen=True)
class Encoding:
    """How the pixels of a file are encoded.

    Attributes:
        quality: 1 to 100, or None for lossless.
        subsampling: of chroma, as "4:2:0".
        tables: of quantisation, of a JPEG, 64 steps each; they are what counts, and `quality` an estimate.
        progressive: whether a JPEG is.
    """

    quality: int | None = None
    subsampling: str = "4:4:4"
    tables: tuple[tuple[int, ...], ...] | None = None
    progressive: bool = False


@dataclass(frozen=True)
class Source:
    """The file that a picture came from: Pillow's name of its format, its size, and its encoding, where known."""

    format: str
    bytes: int
    encoding: Encoding | None = None

    @property
    def lossy(self) -> bool:
        """Whether its pixels had been through a lossy encoder."""
        return self.encoding is not None and self.encoding.quality is not None


@dataclass(frozen=True)
class Own:
    """A picture's values as its file has them, where those are not 8-bit sRGB.

    Attributes:
        values: (H, W, C) uint8 or uint16; C is 1 for grey, 3 for RGB, 4 for CMYK.
        levels: the same in sRGB, (H, W, 3) uint8; a change is counted from here.
        space: leads from one to the other.
    """

    values: Values
    levels: Levels
    space: Space

    def moved(self, levels: Levels) -> Values:
        """The values that look like other levels; where these are the original's, the original's to the bit."""
        return self.space.moved(self.values, self.levels, levels)


@dataclass(frozen=True)
class Frame:
    """One of several frames or pages.

    Attributes:
        duration: how long it is shown, in milliseconds; None for a page.
        loop: how often the animation is shown, 0 for ever; None for a page.
        poster: whether it stands for an animation where that cannot be shown, and is no part of it.
    """

    duration: float | None = None
    loop: int | None = None
    poster: bool = False


@dataclass(frozen=True)
class Carried:
    """What else a file carries for its reader.

    Attributes:
        xmp: an XMP packet.
        iptc: IPTC records, as newspapers and agencies use them.
        comment: of a JPEG.
        text: chunks of PNG text, as they were.
        colours: PNG chunks that say what its colours mean, beside a profile or without one.
    """

    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    text: tuple[Chunk, ...] = ()
    colours: tuple[Chunk, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A still picture, upright.

    Attributes:
        levels: the colours in sRGB, (H, W, 3) uint8: what encoders see.
        alpha: (H, W) uint8, or uint16 where the file had 16 bits; None where it had no transparency.
        icc: the colour profile of the file's own values, or None.
        exif: EXIF bytes without the orientation tag, or None.
        dpi: pixels per inch (x, y), or None.
        path: where it came from, or None.
        notes: what the file held that this picture does not, one line each.
        own: the file's own values, where those are not 8-bit sRGB.
        carried: text and the like.
        source: the file it came from, or None.
        frame: its place among several, or None.
    """

    levels: Levels
    alpha: Values | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    path: Path | None = None
    notes: tuple[str, ...] = ()
    own: Own | None = None
    carried: Carried = Carried()
    source: Source | None = None
    frame: Frame | None = None

    @property
    def rgb(self) -> NDArray[np.float32]:
        """The colours as (H, W, 3) float32 in [0, 1]; made anew every time, as it is four times the levels."""
        return to_rgb(self.levels)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.levels.shape[1], self.levels.shape[0]

    @property
    def bytes(self) -> int | None:
        """Of the file it came from, or None."""
        return None if self.source is None else self.source.bytes

    @property
    def transparent(self) -> bool:
        """Whether anything shines through."""
        return self.alpha is not None and bool((self.alpha < np.iinfo(self.alpha.dtype).max).any())

    def with_levels(self, levels: Levels) -> Picture:
        """The same picture with other colours, (H, W, 3) uint8.

        Where a frame is wholly transparent its colours stay, as animations do not keep them.
        """
        if levels.shape != self.levels.shape:
            raise ValueError(f"levels of shape {levels.shape} for a picture of shape {self.levels.shape}")
        if self.frame is not None and self.alpha is not None:
            levels = np.where(self.alpha[:, :, None] > 0, levels, self.levels)
        return replace(self, levels=levels)


def to_levels(rgb: NDArray[Any]) -> Levels:
    """Colours in [0, 1] to the nearest 8-bit levels; values outside are clipped."""
    return np.clip(np.rint(np.asarray(rgb) * 255.0), 0, 255).astype(np.uint8)


def to_rgb(levels: Levels) -> NDArray[np.float32]:
    """8-bit levels to float32 colours in [0, 1]."""
    return levels.astype(np.float32) / np.float32(255.0)
