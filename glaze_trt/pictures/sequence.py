"""Files of several frames or pages: what cannot hold them, whether a file kept them, and their reports as one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from glaze_trt.errors import OutputError
from glaze_trt.pictures import frames
from glaze_trt.pictures.encoding import in_bits
from glaze_trt.pictures.formats import ANIMATED, FORMATS
from glaze_trt.pictures.picture import Picture
from glaze_trt.result import Levels

_MEASURES = ("progress", "lpips", "linf", "ssimulacra2", "ssim", "psnr")


def refuse(path: Path, pictures: Sequence[Picture]) -> None:
    """Find out before the work whether a file can hold these.

    Raises:
        OutputError: it cannot.
    """
    kind = FORMATS.get(path.suffix.lower())
    if len(pictures) == 1 or kind is None:
        return
    if kind not in ANIMATED:
        raise OutputError(
            f"{path}: {kind} holds one picture, and there are {len(pictures)}; choose .png, .webp or .tif"
        )
    if kind != "TIFF" and len({picture.size for picture in pictures}) > 1:
        raise OutputError(f"{path}: {kind} holds frames of one size, and these pages have several; choose .tif")


def check_kept(data: bytes, path: Path, pictures: Sequence[Picture]) -> None:
    """Read a file's bytes again: every frame must be as it was measured. One like that before it may be joined to it.

    Raises:
        OutputError: a frame differs.
    """
    found = frames.read(io.BytesIO(data), path)
    wanted = [picture for picture in pictures if picture.frame is None or not picture.frame.poster] or pictures
    for many in (pictures, wanted):  # a WebP has no poster
        if _alike([_shown(each) for each in many], [_shown(each) for each in found]):
            return
    raise OutputError(f"{path}: the frames could not be kept as they were measured; choose .tif")


def together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The reports of a file's frames as one: the worst of every measure, the mean of progress, all seconds.

    `frames` has each frame's own.
    """
    first = reports[0]
    seconds = {name: sum(report["seconds"][name] for report in reports) for name in first["seconds"]}
    notes = dict.fromkeys(note for report in reports for note in report["notes"])
    return {
        **first,
        "progress": _mean([report["progress"] for report in reports]),
        "progresses": _means([report["progresses"] for report in reports]),
        "handled": _means([report["handled"] for report in reports]),
        "lpips": _worst(max, reports, "lpips"),
        "linf": _worst(max, reports, "linf"),
        "ssimulacra2": _worst(min, reports, "ssimulacra2"),
        "ssim": _worst(min, reports, "ssim"),
        "psnr": _worst(min, reports, "psnr"),
        "seconds": seconds,
        "notes": [f"{len(reports)} frames; the measures are the worst of them, the progress is their mean", *notes],
        "frames": [{name: report[name] for name in _MEASURES} for report in reports],
    }


def _shown(picture: Picture) -> Levels:
    """A frame's levels and its alpha, (H, W, 4)."""
    opaque = np.full(picture.levels.shape[:2], 255, np.uint8)
    return np.dstack([picture.levels, opaque if picture.alpha is None else in_bits(picture.alpha, 8)])


def _alike(wanted: Sequence[Levels], found: Sequence[Levels]) -> bool:
    pairs = zip_longest(_changes(wanted), _changes(found))
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)


def _changes(many: Sequence[Levels]) -> Iterator[Levels]:
    """Every frame that differs from the one before it."""
    before: Levels | None = None
    for levels in many:
        if before is None or not np.array_equal(levels, before):
            yield levels
        before = levels


def _worst(which: Callable[[list[float]], float], reports: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [report[name] for report in reports if report[name] is not None]
    return which(values) if values else None


def _means(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: _mean([each[name] for each in many]) for name in many[0]}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
