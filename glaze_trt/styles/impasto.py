"""Oil impasto: thick oriented strokes, large to small, lit from the side.

Painting in layers after Hertzmann (SIGGRAPH 1998), strokes along the edges after Litwinowicz (SIGGRAPH 1997); the
paint's relief is the height field the bristles leave.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glaze_trt.styles import brush
from glaze_trt.styles.orientation import along_edges, blur, luma

Array = NDArray[np.float32]


def impasto(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    height, width = rgb.shape[:2]
    unit = float(np.clip(min(height, width) / 512, 0.5, 3.0))
    strong = _richer(rgb)
    angle, coherence = along_edges(rgb, detail=1.5 * unit, reach=5 * unit)
    swirl = 2.2 * blur(rng.standard_normal((height, width)).astype(np.float32), 24 * unit) * 24 * unit
    angle = angle + (1 - coherence) ** 2 * swirl  # flat parts get the painter's own movement

    sizes = [(44 * unit, 13 * unit), (26 * unit, 7.5 * unit), (15 * unit, 4.2 * unit)]
    brushes = [brush.make(*size, rng) for size in sizes]
    canvas = brush.Canvas(blur(strong, 12 * unit) * 0.8, brushes[0].half)
    detail = blur(np.abs(luma(rgb) - blur(luma(rgb), 4 * unit)), 3 * unit)
    for layer, (tool, (long, wide)) in enumerate(zip(brushes, sizes, strict=True)):
        step = max(2, round(0.55 * np.sqrt(long * wide)))
        rows, columns = _jittered_grid(height, width, step, rng)
        if layer:  # smaller brushes only where there is something to say
            wanted = detail[rows, columns] > (0.012, 0.028)[layer - 1]
            rows, columns = rows[wanted], columns[wanted]
        colours = blur(strong, 0.3 * wide)[rows, columns]
        lighter, stray = 0.09 * rng.standard_normal((len(rows), 1)), 0.025 * rng.standard_normal((len(rows), 3))
        mixed = np.clip(colours * (1 + lighter) + stray, 0, 1).astype(np.float32)
        canvas.paint(tool, rows, columns, angle[rows, columns], mixed)
    return canvas.lit(depth=0.6)


def _richer(rgb: Array) -> Array:
    """More saturated and with deeper darks, as paint straight from the tube."""
    grey = luma(rgb)[..., None]
    strong = grey + 1.45 * (rgb - grey)
    return np.asarray(np.clip(strong + 0.25 * (strong - 0.55) * (1 - np.abs(2 * grey - 1)), 0, 1), dtype=np.float32)


def _jittered_grid(
    height: int, width: int, step: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One stroke a cell, somewhere in it, in random order."""
    rows, columns = (axis.ravel() for axis in np.mgrid[0:height:step, 0:width:step])
    order = rng.permutation(len(rows))
    rows, columns = (axis[order] + rng.integers(0, step, len(rows)) for axis in (rows, columns))
    return np.minimum(rows, height - 1), np.minimum(columns, width - 1)
