"""The file that is saved keeps the budget: encoded, decoded again and measured before it is written.

PNG, WebP and TIFF are written without loss, so the first try holds. JPEG changes pixels: its quality is raised, and
then the cloak is weakened, until what a viewer will decode is inside the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glaze_trt import picture
from glaze_trt.errors import BudgetError
from glaze_trt.evaluate import Judge, Measures
from glaze_trt.picture import Picture

_QUALITIES = (95, 98, 100)
_STRENGTHS = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_ROUNDING = 1e-4
"""What a measure may differ by between two engines."""


@dataclass(frozen=True)
class Fitted:
    """A file's bytes that keep the budget, and what was measured on the pixels they decode to."""

    data: bytes
    levels: NDArray[np.uint8]
    measures: Measures
    notes: tuple[str, ...]


def within_budget(
    original: Picture, cloaked: NDArray[np.uint8], path: Path, budget: Mapping[str, float | None], judge: Judge
) -> Fitted:
    """Encode a cloaked picture for `path` so that the file keeps the budget.

    Args:
        original: the picture that was cloaked; its alpha, profile and EXIF go along.
        cloaked: (H, W, 3) uint8.
        path: its suffix names the format.
        budget: `lpips`, `linf` and `dssim` at most, `ssimulacra2` at least; None or missing is no limit.
        judge: measures against the original.

    Raises:
        BudgetError: no quality and no strength down to a half keeps it.
    """
    lossy = picture.FORMATS[path.suffix.lower()] == "JPEG"
    tries = [(quality, 1.0) for quality in (_QUALITIES if lossy else _QUALITIES[-1:])]
    tries += [(100, strength) for strength in _STRENGTHS]
    before = original.levels.astype(np.float32)
    for quality, strength in tries:
        levels = np.rint(before + strength * (cloaked - before)).astype(np.uint8)
        data = picture.encode(original.with_levels(levels), path.suffix, quality=quality)
        decoded = picture.decode(data, path).levels
        measures = judge(decoded)
        if keeps(measures, budget):
            return Fitted(data, decoded, measures, _remarks(lossy, quality, strength))
    raise BudgetError(f"{path}: no JPEG of this cloak keeps the budget; choose .png" if lossy else _never(path))


def keeps(measures: Measures, budget: Mapping[str, float | None]) -> bool:
    """Whether measures are inside a budget, but for rounding."""
    lpips, linf, ssimulacra2, dssim = (budget.get(name) for name in ("lpips", "linf", "ssimulacra2", "dssim"))
    return (
        (lpips is None or measures.lpips is None or measures.lpips <= lpips + _ROUNDING)
        and (linf is None or measures.linf <= linf + _ROUNDING)
        and (dssim is None or (1 - measures.ssim) / 2 <= dssim + _ROUNDING)
        and (ssimulacra2 is None or measures.ssimulacra2 >= ssimulacra2 - 100 * _ROUNDING)
    )


def _remarks(lossy: bool, quality: int, strength: float) -> tuple[str, ...]:
    remarks = []
    if lossy:
        remarks.append(f"JPEG quality {quality}, 4:4:4; .png keeps the cloak exactly")
    if strength < 1:
        remarks.append(f"the cloak was weakened to {strength:.0%} to keep the budget in the file as saved")
    return tuple(remarks)


def _never(path: Path) -> str:
    return f"{path}: the cloak breaks its budget even at half strength; try --intensity low"
