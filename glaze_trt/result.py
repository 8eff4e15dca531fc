"""What goes into the loop and what comes out of it, as plain values: pictures of any kind, steps, results.

Nothing is computed here but the change from one kind of picture to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt.errors import PictureError
from glaze_trt.objective import Budget
from glaze_trt.pictures.picture import levels_and_alpha

Levels = NDArray[np.uint8]
Picture = NDArray[Any] | Image.Image


@dataclass(frozen=True)
class StepInfo:
    """Where the loop stands: steps done and in all, progress toward the target, LPIPS (None without a net)."""

    step: int
    steps: int
    progress: float
    lpips: float | None


@dataclass(frozen=True)
class CloakReport:
    """What a cloak was made with and what it measured on its 8-bit picture; `as_dict` is ready for JSON.

    `progress` is the mean over the encoders, `progresses` has each by its name. Of a large picture these are means over
    its `tiles`, and `progress_at` has the progress of the picture scaled down to a longer side of so many pixels.
    """

    engine: str
    device: str
    precision: str
    preset: str
    steps: int
    scale: float
    progress: float
    progresses: Mapping[str, float]
    lpips: float | None
    linf: float
    ssimulacra2: float
    budget: Budget
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()
    tiles: int = 1
    progress_at: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report by name; the budget and the seconds are dictionaries of their own."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["budget"] = {name: getattr(self.budget, name) for name in ("lpips", "linf", "ssimulacra2", "dssim")}
        plain |= {"progresses": dict(self.progresses), "progress_at": dict(self.progress_at)}
        return plain | {"seconds": dict(self.seconds), "notes": list(self.notes)}


@dataclass(frozen=True)
class CloakResult:
    """A cloaked picture.

    Attributes:
        rgb: (H, W, 3) uint8, the picture that was measured.
        picture: the same, of the kind that was given: a Pillow picture, uint8 levels, or float32 in [0,1].
        report: how it was made.
    """

    rgb: Levels
    picture: Picture
    report: CloakReport


def to_levels(picture: Picture) -> Levels:
    """(H, W, 3) uint8 from uint8 levels, floats in [0,1] or a Pillow picture.

    Raises:
        PictureError: another shape, type or range.
    """
    if isinstance(picture, Image.Image):
        try:
            return levels_and_alpha(picture, picture.info.get("icc_profile"))[0]
        except ValueError as error:
            raise PictureError(f"a picture of mode {picture.mode} cannot be read as RGB: {error}") from error
    array = np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise PictureError(f"a picture is (H, W, 3) RGB; got an array of shape {array.shape}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise PictureError(f"a picture is uint8 levels or floats in [0,1]; got {array.dtype}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise PictureError("a picture of floats must lie in [0,1]")
    return np.asarray(np.rint(array * 255), np.uint8)


def as_given(levels: Levels, picture: Picture) -> Picture:
    """(H, W, 3) uint8 as the kind of picture that `picture` is, with its alpha."""
    if isinstance(picture, Image.Image):
        result = Image.fromarray(levels)
        if picture.has_transparency_data:
            result.putalpha(picture.convert("RGBA").getchannel("A"))
        return result
    return levels if np.asarray(picture).dtype == np.uint8 else (levels / np.float32(255)).astype(np.float32)
