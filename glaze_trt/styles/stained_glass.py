"""Stained glass: pot-metal glass cut along the forms, painted with grisaille, in lead cames with daylight behind.

The pieces are compact watersheds (Neubert and Protzel, "Compact watershed and preemptive SLIC", ICPR 2014) whose
outlines are smoothed until a glazier could cut them. Each takes the glass of a small rack and its thickness by the
Beer-Lambert law: the light that comes through is the glass's transmission to the power of its depth.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import watershed

from glaze_trt.styles import flow
from glaze_trt.styles.orientation import along_edges, luma
from glaze_trt.styles.scale import clouds, ramp, resized, soften, unit, working

Array = NDArray[np.float32]
Labels = NDArray[np.int32]

_RACK = np.array(  # transmission of a pane of each glass
    [
        (0.86, 0.08, 0.06),  # ruby
        (0.93, 0.30, 0.16),  # flashed orange
        (0.98, 0.62, 0.10),  # amber
        (0.99, 0.86, 0.22),  # silver stain
        (0.70, 0.82, 0.18),  # spring green
        (0.12, 0.62, 0.24),  # emerald
        (0.10, 0.50, 0.42),  # sea green
        (0.30, 0.78, 0.84),  # aquamarine
        (0.16, 0.46, 0.90),  # cerulean
        (0.07, 0.16, 0.72),  # cobalt
        (0.34, 0.12, 0.62),  # violet
        (0.70, 0.22, 0.56),  # manganese purple
        (0.97, 0.66, 0.62),  # pink
        (0.90, 0.74, 0.56),  # flesh
        (0.93, 0.96, 0.88),  # white
        (0.66, 0.76, 0.82),  # grey-blue white
        (0.62, 0.42, 0.24),  # brown
    ],
    dtype=np.float32,
)
_DEPTHS = np.array([0.35, 0.55, 0.8, 1.1, 1.5, 2.0, 2.7], dtype=np.float32)
_PAINT = np.array([0.10, 0.06, 0.035], dtype=np.float32)  # fired iron oxide
_LEAD = np.array([0.055, 0.058, 0.065], dtype=np.float32)


def stained_glass(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    shape, size = rgb.shape[:2], unit(rgb.shape)
    small, scale = working(rgb)
    piece = _dense(_cuttable(_joined(_pieces(small, scale, rng), small, scale, rng), 2.2 * scale))
    piece = _dense(np.asarray(cv2.resize(piece, shape[::-1], interpolation=cv2.INTER_NEAREST), dtype=np.int32))
    tone = _normal_tone(rgb)
    lead, width = _leading(tone, piece, size)
    width *= 1 + 0.08 * clouds(shape, 40 * size, rng)
    glass = _through(_glazed(tone, piece, rng), piece, size, rng)
    glass = glass + _grisaille(tone, piece, lead, size, rng)[..., None] * (_PAINT - glass)
    came = np.clip(width - lead + 0.5, 0, 1)[..., None]
    lit = glass + came * (_came(lead, width, size, rng) - glass)
    halo = soften(glass * (1 - came), 2.5 * size) * 0.16 + soften(glass * (1 - came), 16 * size) * 0.12
    return np.asarray(np.clip(1 - (1 - np.clip(lit, 0, 1)) * (1 - np.clip(halo, 0, 1)), 0, 1), dtype=np.float32)


def _normal_tone(rgb: Array) -> Array:
    """The picture with its tones spread as a window's are: a dim picture would leave the glass dead."""
    low, high = np.quantile(luma(rgb)[::2, ::2], [0.02, 0.98])
    if high - low < 0.1:
        return rgb
    return np.asarray(np.clip((rgb - 0.7 * low) / (high - 0.7 * low + 0.15 * (1 - high)), 0, 1), dtype=np.float32)


def _pieces(rgb: Array, scale: float, rng: np.random.Generator) -> Labels:
    """Pieces from 0 on, (H, W): small in detail, large in flat parts."""
    levels = np.rint(255 * rgb).astype(np.uint8)
    flat = cv2.edgePreservingFilter(levels, flags=cv2.RECURS_FILTER, sigma_s=max(1.0, 24 * scale), sigma_r=0.35)
    lab = rgb2lab(soften(flat.astype(np.float32) / np.float32(255), 1.2 * scale))
    dx, dy = cv2.Sobel(lab, cv2.CV_32F, 1, 0), cv2.Sobel(lab, cv2.CV_32F, 0, 1)
    slope = np.sqrt((dx * dx + dy * dy).sum(axis=2)) / 8
    busy = soften(np.minimum(slope, 8).astype(np.float32), 7 * scale)
    radius = scale * (13 + 26 * np.exp(-0.7 * busy))
    order = rng.integers(0, slope.size, 20000)
    seeds = _spread(np.stack(np.unravel_index(order, slope.shape), axis=1), radius)
    markers = np.zeros(slope.shape, np.int32)
    markers[tuple(seeds.T)] = np.arange(1, len(seeds) + 1)
    found = watershed(slope, markers, compactness=0.03 / scale)  # type: ignore[no-untyped-call]
    return np.asarray(found, dtype=np.int32) - 1


def _spread(points: NDArray[np.intp], radius: Array) -> NDArray[np.intp]:
    """The points, in order, that no kept one is nearer to than its radius (Poisson discs)."""
    free = np.ones(radius.shape, np.uint8)
    kept = []
    for (row, column), reach in zip(points.tolist(), radius[tuple(points.T)].tolist(), strict=True):
        if free[row, column]:
            kept.append((row, column))
            cv2.circle(free, (column, row), max(1, round(reach)), 0, -1)
    return np.array(kept, dtype=np.intp)


def _cuttable(label: Labels, sigma: float) -> Labels:
    """The labels with smooth outlines: each pixel goes to the piece whose blurred mask is strongest there."""
    margin = int(np.ceil(3 * sigma))
    best = np.zeros(label.shape, np.float32)
    owner = label.copy()
    for index, (rows, columns) in enumerate(ndimage.find_objects(label + 1)):
        window = np.s_[
            max(0, rows.start - margin) : rows.stop + margin, max(0, columns.start - margin) : columns.stop + margin
        ]
        mask = soften((label[window] == index).astype(np.float32), sigma)
        stronger = mask > best[window]
        best[window][stronger] = mask[stronger]
        owner[window][stronger] = index
    return owner


def _dense(label: Labels) -> Labels:
    """The same pieces numbered without gaps."""
    number = np.cumsum(np.bincount(label.ravel()) > 0) - 1
    return np.asarray(number[label], dtype=np.int32)


def _joined(label: Labels, rgb: Array, scale: float, rng: np.random.Generator) -> Labels:
    """Neighbours of like colour made one piece, rather along the forms: panes of many shapes, not a honeycomb."""
    count = int(label.max()) + 1
    colour = rgb2lab(_means(rgb, label)[None])[0]
    y, x = _means(np.moveaxis(np.indices(label.shape, dtype=np.float32), 0, 2), label).T
    angle, sure = along_edges(rgb, detail=2 * scale, reach=8 * scale)
    at = (y.astype(np.intp), x.astype(np.intp))
    one, other = _neighbours(label)
    across = np.abs(np.sin(np.arctan2(y[one] - y[other], x[one] - x[other]) - angle[at][one])) * sure[at][one]
    apart = np.linalg.norm(colour[one] - colour[other], axis=1) + 9 * across + 3 * rng.random(len(one))
    root, members = np.arange(count), np.ones(count, dtype=int)
    for index in np.argsort(apart, kind="stable")[: int(np.count_nonzero(apart < 13))].tolist():
        keep, gone = root[one[index]], root[other[index]]
        if keep != gone and members[keep] + members[gone] <= 3:
            members[keep] += members[gone]
            root[root == gone] = keep
    return _dense(root[label].astype(np.int32))


def _neighbours(label: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of labels that share a border, the lower one first, each once."""
    count = int(label.max()) + 1
    found = []
    for near, far in ((label[:-1], label[1:]), (label[:, :-1], label[:, 1:])):
        border = near != far
        found.append(np.minimum(near, far)[border].astype(np.int64) * count + np.maximum(near, far)[border])
    one, other = np.divmod(np.unique(np.concatenate(found)), count)
    return one, other


def _means(image: Array, label: Labels) -> Array:
    """The mean of an (H, W, C) picture over each piece, (N, C)."""
    flat = label.ravel()
    size = np.bincount(flat)
    sums = [np.bincount(flat, channel.ravel()) for channel in np.moveaxis(image, 2, 0)]
    return np.asarray(np.stack(sums, axis=1) / size[:, None], dtype=np.float32)


def _leading(rgb: Array, piece: Labels, size: float) -> tuple[Array, Array]:
    """Pixels to the middle of the nearest came and half that came's width, (H, W): wide where forms part."""
    colour = _means(rgb, piece)[piece]
    contrast = np.zeros(piece.shape, np.float32)
    cut = np.zeros(piece.shape, np.float32)
    for axis in (0, 1):
        here = np.s_[1:] if axis == 0 else np.s_[:, 1:]
        step = np.abs(np.diff(colour, axis=axis)).sum(axis=2)
        contrast[here] = np.maximum(contrast[here], step)
        cut[here] = np.maximum(cut[here], np.diff(piece, axis=axis) != 0)
    smooth = soften(contrast, 6 * size) / (soften(cut, 6 * size) + np.float32(1e-3))
    framed = cv2.copyMakeBorder((cut == 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1], dtype=np.float32)
    return soften(distance, 0.5 * size), size * (1.5 + 1.7 * ramp(smooth, 0.25, 1.1))


def _glazed(rgb: Array, piece: Labels, rng: np.random.Generator) -> Array:
    """The light through each piece, (N, 3): the glass and depth of the rack nearest to its richer mean colour."""
    mean = _means(rgb, piece)
    count = len(mean)
    shelf = (_RACK[:, None] ** _DEPTHS[None, :, None]).reshape(-1, 3)
    wanted, offered = rgb2lab(mean[None])[0], rgb2lab(shelf[None])[0]
    wanted[:, 1:] = 1.9 * wanted[:, 1:] + rng.normal(0, 5, (count, 2))
    wanted[:, 0] = 1.05 * wanted[:, 0] + rng.normal(0, 3, count)
    apart = np.abs(wanted[:, None] - offered[None]) * np.array([0.9, 1.0, 1.0])
    chosen = np.argmin((apart**2).sum(axis=2), axis=1)
    pane = shelf[chosen] ** rng.uniform(0.85, 1.2, (count, 1))
    return np.asarray(0.8 * pane + 0.2 * np.clip(mean, 0, 1) * pane.max(axis=1, keepdims=True), dtype=np.float32)


def _through(panes: Array, piece: Labels, size: float, rng: np.random.Generator) -> Array:
    """Uneven glass, (H, W, 3): streaks that run their own way in each piece, reams, seeds, and an uneven sky."""
    shape = piece.shape
    streak = _streaks(piece, len(panes), size, rng)
    ream = clouds(shape, 5 * size, rng, octaves=2)
    slope = np.roll(ream, -1, axis=(0, 1)) - ream
    depth = np.exp(0.16 * streak + 0.10 * clouds(shape, 30 * size, rng))
    sky = 1.10 + 0.10 * clouds(shape, 160 * size, rng, octaves=1)
    light = sky + 0.16 * np.clip(slope, -1.2, 1.2) + 0.5 * _seeds(shape, size, rng)
    return np.asarray(np.maximum(panes, 0.004)[piece] ** depth[..., None] * light[..., None], dtype=np.float32)


def _streaks(piece: Labels, count: int, size: float, rng: np.random.Generator) -> Array:
    """Streaks of thicker glass, (H, W), turned another way in every piece."""
    side = 256
    sheet = rng.standard_normal((side, side), dtype=np.float32)
    sheet = ndimage.gaussian_filter(sheet, (3.0, 30.0), mode="wrap")
    sheet /= sheet.std()
    turn = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
    start = rng.uniform(0, side, (2, count)).astype(np.float32)
    height, width = piece.shape
    y = np.arange(height, dtype=np.float32)[:, None] / np.float32(size)
    x = np.arange(width, dtype=np.float32)[None] / np.float32(size)
    cos, sin = np.cos(turn)[piece], np.sin(turn)[piece]
    u, v = (x * cos + y * sin + start[0][piece]) % side, (y * cos - x * sin + start[1][piece]) % side
    return np.asarray(cv2.remap(sheet, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), dtype=np.float32)


def _seeds(shape: tuple[int, int], size: float, rng: np.random.Generator) -> Array:
    """Bubbles in the glass: bright on one side, dark on the other."""
    dots = (rng.random(shape, dtype=np.float32) < 0.004 / (size * size)).astype(np.float32)
    dots = soften(dots, 0.9 * size) * np.float32(6 * size * size)
    return dots - np.roll(dots, max(1, round(1.2 * size)), axis=(0, 1))


def _grisaille(rgb: Array, piece: Labels, lead: Array, size: float, rng: np.random.Generator) -> Array:
    """How much a place is painted, (H, W): trace lines where the drawing is, matting in the shadows of a piece."""
    grey = luma(rgb)
    small, scale = working(rgb)
    angle, _ = along_edges(small, detail=1.0 * scale, reach=3 * scale)
    drawing = luma(small) - soften(luma(small), 12 * scale)
    drawing /= np.sqrt(soften(drawing**2, 18 * scale)) + np.float32(0.05)  # faint features count where all is faint
    ridge = flow.ridges(drawing, flow.Flow(angle), 1.1 * scale)
    trace = flow.inked(resized(ridge, grey.shape), -0.03, 11)
    shadow = _means(grey[..., None], piece)[piece, 0] - soften(grey, 0.8 * size)
    stipple = 0.05 * clouds(grey.shape, 2.2 * size, rng, octaves=2)
    matting = 0.8 * ramp(shadow + stipple, 0.03, 0.26)
    grime = 0.35 * np.exp(-lead / (4.5 * size)) * (1 + 0.4 * clouds(grey.shape, 12 * size, rng))
    return np.asarray(np.clip(np.maximum(0.85 * trace, matting) + grime, 0, 0.94), dtype=np.float32)


def _came(lead: Array, width: Array, size: float, rng: np.random.Generator) -> Array:
    """Lead seen against the light: nearly black, a dull gleam along its round back."""
    back = np.clip(1 - lead / width, 0, 1)
    gleam = 0.10 * back**2 * (1 + 0.3 * clouds(lead.shape, 6 * size, rng))
    return np.asarray(_LEAD + gleam[..., None], dtype=np.float32)
