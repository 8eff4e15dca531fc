"""The manner of an example picture on another's content: its palette, and its brushwork laid along the forms.

Colour goes through the linear Monge-Kantorovitch map between the two pictures' Lab colours (Pitie and Kokaram, "The
linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", CVMP 2007). Brushwork is quilted
from patches of the example's detail (Efros and Freeman, SIGGRAPH 2001), each taken where the example has the colour of
the place, turned until its strokes follow the form there, and blended so that variance is kept (Heitz and Neyret,
"High-performance by-example noise", 2018). Last, the bands of a Laplacian pyramid take the example's histograms (Heeger
and Bergen, "Pyramid-based texture analysis/synthesis", SIGGRAPH 1995). Nothing here is learned.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.color import lab2rgb, rgb2lab

from glaze_trt.styles.orientation import along_edges
from glaze_trt.styles.scale import ramp, resized, soften, unit

Array = NDArray[np.float32]

_LEVELS = np.array([2.55, 1, 1], dtype=np.float32)  # 8-bit levels to a unit of L, a and b
_ZERO = np.array([0, 128, 128], dtype=np.float32)
_EFFORT = np.array([4.0, 1.0, 1.0])
_PATCH = 40  # units a side
_SPACING = 16
_COARSE = 5.0  # what is wider than this, sigma in units, is content; what is finer is manner
_SAMPLES = 6000
_CHOICE = 6  # patches of the right colour to choose from


def match(rgb: Array, example: Array, rng: np.random.Generator) -> Array:
    """Repaint a picture in the manner of an example.

    Args:
        rgb: (H, W, 3) in [0, 1].
        example: (h, w, 3) in [0, 1], of any size; a larger one is reduced to the picture's.
        rng: decides which patches are laid where.

    Returns:
        (H, W, 3) float32 in [0, 1]: the content of `rgb` where it was, the palette and brushwork of `example`.
    """
    ratio = min(min(rgb.shape[:2]) / min(example.shape[:2]), 1.5)
    height, width = (max(1, round(side * ratio)) for side in example.shape[:2])
    manner = _lab(resized(example, (height, width)))
    coloured = _recoloured(_lab(rgb), manner)
    size = unit(rgb.shape)
    if min(*rgb.shape[:2], *manner.shape[:2]) >= 16:
        form = _form(coloured, size)
        coloured = form + _brushwork(coloured, manner, size, rng) * _room(form, coloured, size)
        coloured = _recoloured(_with_bands_of(coloured, manner, size), manner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # colours out of gamut, which are clipped
        return np.asarray(np.clip(lab2rgb(coloured), 0, 1), dtype=np.float32)


def _lab(rgb: Array) -> Array:
    return np.asarray(rgb2lab(np.clip(rgb, 0, 1)), dtype=np.float32)


def _recoloured(lab: Array, example: Array) -> Array:
    """Lab colours moved by the linear map that gives them the example's mean and covariance at the least effort.

    Effort in lightness counts more than in hue, so that lights stay light whatever hue the example's have.
    """
    middle, first = _spread(lab)
    other, second = _spread(example)
    root, unroot = _power(first, 0.5), _power(first, -0.5)
    plan = unroot @ _power(root @ second @ root, 0.5) @ unroot
    plan = plan * _EFFORT[:, None] / _EFFORT
    moved = (lab - middle) @ plan.astype(np.float32) + other
    return np.asarray(moved, dtype=np.float32)


def _spread(lab: Array) -> tuple[Array, NDArray[np.float64]]:
    """The mean of Lab colours, and their covariance in units of effort."""
    mean = lab.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)
    away = lab.reshape(-1, 3) - mean
    ridge = 0.25 * np.eye(3)  # a quarter of a just noticeable difference squared: flat pictures stay finite
    covariance = (away.T @ away).astype(np.float64) / len(away) + ridge
    return mean, covariance * _EFFORT[:, None] * _EFFORT


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """A power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 1e-9) ** exponent) @ vectors.T)


def _form(lab: Array, size: float) -> Array:
    """The picture without its own texture, its edges kept."""
    levels = np.rint(np.clip(lab * _LEVELS + _ZERO, 0, 255)).astype(np.uint8)
    flat = cv2.edgePreservingFilter(levels, flags=cv2.RECURS_FILTER, sigma_s=max(1.0, 14 * size), sigma_r=0.35)
    return soften((flat.astype(np.float32) - _ZERO) / _LEVELS, 0.7 * size)


def _room(form: Array, lab: Array, size: float) -> Array:
    """How much brushwork a place bears, (H, W, 1): less where small forms of the content would drown in it."""
    edge = np.abs(form[..., 0] - soften(form[..., 0], 3 * size))
    return (1 - 0.5 * ramp(soften(edge, 2 * size), 2, 9))[..., None]


@dataclass(frozen=True)
class _Look:
    """What a patch is chosen by: the wide colour, (H, W, 3), and the direction of strokes, (H, W)."""

    colour: Array
    angle: Array


def _look(lab: Array, reach: float, size: float) -> _Look:
    rgb = np.repeat(lab[..., :1] / np.float32(100), 3, axis=2)
    return _Look(soften(lab, _COARSE * size), along_edges(rgb, detail=1.2 * size, reach=reach * size)[0])


def _brushwork(lab: Array, example: Array, size: float, rng: np.random.Generator) -> Array:
    """The example's detail laid along the picture's forms, (H, W, 3)."""
    (height, width), side = lab.shape[:2], max(8, round(_PATCH * size))
    here, there = _look(lab, 7, size), _look(example, 5, size)
    detail = example - there.colour
    rows, columns = (rng.integers(0, extent, _SAMPLES) for extent in example.shape[:2])
    busy = soften(np.abs(detail[..., 0]), 0.4 * side)[rows, columns]
    plain = busy <= np.quantile(busy, 0.85)  # the rest is things, a signature, an outline, rather than brushwork
    rows, columns = rows[plain], columns[plain]
    tree = cKDTree(there.colour[rows, columns])

    step = max(2, round(_SPACING * size))
    y, x = (axis.ravel() for axis in np.mgrid[0 : height + step : step, 0 : width + step : step])
    order = rng.permutation(len(y))
    y, x = (axis[order] + rng.integers(-step // 2, step // 2 + 1, len(y)) for axis in (y, x))
    at = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    near = tree.query(here.colour[at], k=_CHOICE)[1]
    chosen = near[np.arange(len(y)), rng.integers(0, _CHOICE, len(y))]
    rows, columns = rows[chosen], columns[chosen]
    turn = there.angle[rows, columns] - here.angle[at] + np.pi * rng.integers(0, 2, len(y))

    fade = _fade(side)
    keep = np.sqrt(1 - fade * fade)
    canvas = np.zeros((height + 3 * side, width + 3 * side, 3), np.float32)
    for top, left, row, column, angle in zip(*(a.tolist() for a in (y, x, rows, columns, turn)), strict=True):
        cos, sin, half = np.cos(angle), np.sin(angle), (side - 1) / 2
        turned = np.array([[cos, -sin, column - half * (cos - sin)], [sin, cos, row - half * (sin + cos)]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = cv2.warpAffine(detail, turned, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT)
        window = canvas[top + side : top + 2 * side, left + side : left + 2 * side]
        window *= keep
        window += fade * patch
    start = side + side // 2
    return canvas[start : start + height, start : start + width]


def _fade(side: int) -> Array:
    """A round window, (side, side, 1): 1 in the middle, 0 at the rim."""
    y, x = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / side - 0.5
    return ramp(0.5 - np.hypot(y, x), 0.0, 0.22)[..., None]


def _with_bands_of(lab: Array, example: Array, size: float) -> Array:
    """The picture whose fine bands, octaves below `_COARSE`, have the histograms of the example's."""
    rest, other = lab, example
    done = np.zeros_like(lab)
    sigma = 0.8
    while sigma < _COARSE * size:
        low, other_low = soften(rest, sigma), soften(other, sigma)
        done += _as_spread(rest - low, other - other_low)
        rest, other = low, other_low
        sigma *= 2
    return done + rest


def _as_spread(band: Array, example: Array) -> Array:
    """A band with each channel's histogram moved to the example's, quantile by quantile."""
    share = np.linspace(0, 1, 257)
    stride, other = (max(1, picture.size // 3 // 60000) for picture in (band, example))
    matched = np.empty_like(band)
    for channel in range(3):
        here = np.quantile(band[..., channel].ravel()[::stride], share)
        there = np.quantile(example[..., channel].ravel()[::other], share)
        here = here + np.arange(257) * 1e-6  # a flat band has one value
        grid = np.linspace(here[0], here[-1], 4096)  # a table: looking 16 million values up one by one is slow
        table = np.interp(grid, here, there).astype(np.float32)
        place = (band[..., channel] - np.float32(here[0])) * np.float32(4095 / (here[-1] - here[0]))
        matched[..., channel] = table[np.clip(np.rint(place), 0, 4095).astype(np.int16)]
    return matched
