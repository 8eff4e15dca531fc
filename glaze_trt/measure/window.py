"""The part of a picture that a budget speaks of: where it may change, and a little around it.

LPIPS, SSIMULACRA2 and SSIM are means over pixels. Over a picture of which only a face may change they would allow
nearly anything in the face, so what a cloak costs is measured here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glaze_trt.graph.sight import Box
from glaze_trt.measure.ssimulacra import score
from glaze_trt.network import Network

_MARGIN = 5
"""Pixels around what may change; half a window of SSIM, so that every pixel that may change is the middle of one."""

_LEAST = 16
"""Pixels of the shortest side, where the picture has as many: SSIMULACRA2 then has two octaves."""


def around(mask: NDArray[np.floating] | None, linf: float, net: Network) -> Box | None:
    """The bounding box of where a picture may change, as (x, y, width, height); None where that is all of it.

    Args:
        mask: (H, W) in [0,1], how much of `linf` each pixel may use; None for all of it.
        linf: the largest change of a channel, in [0,1].
        net: of LPIPS; the box is as large as it needs.
    """
    if mask is None:
        return None
    allowed = np.asarray(mask) * (linf * 255) >= 0.5
    if not allowed.any():
        return None
    manifest = net.model.manifest
    least = max(_LEAST, manifest.minimum if manifest.size is None else 1)
    (y, h), (x, w) = (_side(np.flatnonzero(allowed.any(axis=1 - axis)), allowed.shape[axis], least) for axis in (0, 1))
    return None if (h, w) == allowed.shape else (x, y, w, h)


def cut(levels: NDArray[Any], box: Box | None) -> NDArray[Any]:
    """That part of (H, W, 3), a view; all of it if None."""
    if box is None:
        return levels
    x, y, w, h = box
    return levels[y : y + h, x : x + w]


def ssimulacra2(before: NDArray[np.uint8], after: NDArray[np.uint8], box: Box | None) -> float:
    """SSIMULACRA2 of that part or of the whole picture, whichever is lower: a small part has fewer octaves."""
    whole = score(before, after)
    if box is None:
        return whole
    return min(whole, score(np.ascontiguousarray(cut(before, box)), np.ascontiguousarray(cut(after, box))))


def note(box: Box) -> str:
    """What a report says of it."""
    return (
        "LPIPS and SSIM are of the part that may change, at {},{},{},{}; SSIMULACRA2 of that or of all, "
        "whichever is lower".format(*box)
    )


def _side(places: NDArray[np.intp], whole: int, least: int) -> tuple[int, int]:
    """Where a side of the box begins, and how long it is."""
    first, last = max(0, int(places[0]) - _MARGIN), min(whole, int(places[-1]) + 1 + _MARGIN)
    length = max(last - first, min(least, whole))
    first = min(max(0, (first + last - length) // 2), whole - length)
    return first, length
