"""Ukiyo-e: flat woodblock colours from a few old pigments, bokashi gradients and a dark key-block, on mulberry paper.

Colour areas are a small palette found by k-means in Lab and drawn toward Edo pigments, cut with smooth borders after
Winnemoeller, Olsen and Gooch, "Real-time video abstraction" (SIGGRAPH 2006); the key-block is XDoG (2012) along the
structure tensor. Bokashi, the plank's grain and the paper's fibres are modelled on the prints themselves.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from glaze_trt.styles import flow, paper, tone
from glaze_trt.styles.orientation import along_edges, luma
from glaze_trt.styles.scale import clouds, ramp, resized, soften, unit, working

Array = NDArray[np.float32]

_SHEET = np.array([0.935, 0.885, 0.765], dtype=np.float32)
_SUMI = np.array([0.095, 0.105, 0.15], dtype=np.float32)
_BERO = np.array([0.13, 0.25, 0.43], dtype=np.float32)  # Prussian blue, as in the skies of Hiroshige

_PIGMENTS = (
    np.array(
        [
            (240, 228, 200),  # bare paper
            (226, 205, 160),  # faded yellow
            (222, 178, 92),  # kihada yellow
            (196, 148, 84),  # ochre
            (206, 172, 128),  # thin ochre
            (168, 128, 92),  # ochre and sumi
            (118, 106, 80),  # dark ochre and sumi
            (214, 118, 66),  # tan, red lead
            (186, 66, 46),  # bengara red
            (224, 160, 140),  # safflower pink
            (128, 62, 48),  # brown
            (150, 164, 112),  # pale green
            (92, 118, 82),  # green
            (62, 92, 60),  # deep green
            (166, 192, 192),  # pale blue
            (122, 164, 158),  # blue-green
            (104, 146, 166),  # blue
            (74, 122, 136),  # Prussian blue and indigo
            (46, 88, 130),  # Prussian blue
            (30, 58, 100),  # deep Prussian blue
            (136, 116, 136),  # dayflower violet
            (150, 144, 132),  # thin sumi
            (100, 106, 112),  # sumi and indigo
            (38, 46, 66),  # indigo and sumi
        ],
        dtype=np.float32,
    )
    / 255
)
_COLOURS = 10


def ukiyo_e(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    shape, size = rgb.shape[:2], unit(rgb.shape)
    small, scale = working(rgb)
    plain = _simplified(small, scale)
    field = flow.Flow(along_edges(small, detail=1.2 * scale, reach=3 * scale)[0])
    label, colours = _blocks(plain, field, scale, rng)
    edge = _edges(plain, scale)
    flat, graded = _impressed(luma(plain), label, colours, edge, shape, scale)
    graded = _sky(graded, label, rng)
    key = _key_block(flat, edge, plain, small, field, scale, size)[..., None]

    calm = np.exp(-resized(soften(np.abs(luma(small) - soften(luma(small), 3 * scale)), 5 * scale), shape) / 0.02)
    graded = graded * (1 + 0.11 * calm[..., None] * _wood_grain(shape, size, rng)[..., None])
    fibre = paper.fibres(shape, size, rng)[..., None]
    print_ = np.clip(graded + key * (_SUMI - graded), 0, 1)
    print_ = print_ * (0.975 + 0.05 * fibre) + 0.05 * fibre * (1 - print_)
    print_ = print_ * (1 + 0.014 * clouds(shape, 1.6 * max(size, 0.7), rng, octaves=1)[..., None])
    return np.asarray(np.clip(print_, 0, 1), dtype=np.float32)


def _simplified(rgb: Array, scale: float) -> Array:
    """The picture without its small forms, edges kept."""
    plain = rgb
    for _ in range(3):
        plain = np.asarray(cv2.bilateralFilter(plain, -1, 0.10, 2.6 * scale), dtype=np.float32)
    return plain


def _lab(rgb: Array) -> Array:
    return np.asarray(cv2.cvtColor(rgb.reshape(-1, 1, 3), cv2.COLOR_RGB2LAB), dtype=np.float32).reshape(rgb.shape)


def _rgb(lab: Array) -> Array:
    return np.asarray(cv2.cvtColor(lab.reshape(-1, 1, 3), cv2.COLOR_LAB2RGB), dtype=np.float32).reshape(lab.shape)


def _blocks(plain: Array, field: flow.Flow, scale: float, rng: np.random.Generator) -> tuple[NDArray[np.intp], Array]:
    """Which colour block prints each pixel, (H, W), and the blocks' colours, (N, 3); one pigment, one block."""
    pixels = _lab(_daylight(plain)).reshape(-1, 3)
    sample = pixels[rng.permutation(len(pixels))[:5000]]
    centres = _k_means(sample, min(_COLOURS, len(sample)), rng)
    pigments = _lab(_PIGMENTS.astype(np.float32))
    weight = np.array([1.5, 1.3, 1.3], dtype=np.float32)
    nearest = np.linalg.norm((centres[:, None] - pigments[None]) * weight, axis=2).argmin(axis=1)
    used, block = np.unique(nearest, return_inverse=True)
    distance = (centres**2).sum(axis=1) - 2 * pixels @ centres.T
    label = block[distance.argmin(axis=1)].reshape(plain.shape[:2])
    own = np.stack([centres[block == index].mean(axis=0) for index in range(len(used))], dtype=np.float32)
    for sigma, passes in ((0.8 * scale, 2), (1.4 * scale, 0)):  # a knife follows the form and cuts no crumbs
        masks = np.stack([label == index for index in range(len(used))], axis=2).astype(np.float32)
        thirds = [masks[..., first : first + 3] for first in range(0, len(used), 3)]  # few channels at a time are quick
        cut = [field.smoothed(soften(third, sigma), 2.2 * scale, passes) for third in thirds]
        label = np.concatenate([third.reshape(*label.shape, -1) for third in cut], axis=2).argmax(axis=2)
    label = _without_crumbs(label, 70 * scale * scale)
    return label, np.clip(_rgb(np.asarray(0.2 * own + 0.8 * pigments[used], dtype=np.float32)), 0, 1)


def _without_crumbs(label: NDArray[np.intp], least: float) -> NDArray[np.intp]:
    """The same areas, those under `least` pixels given to what surrounds them."""
    crumb = np.zeros(label.shape, dtype=bool)
    for index in np.unique(label):
        _, parts, facts, _ = cv2.connectedComponentsWithStats((label == index).astype(np.uint8), connectivity=4)
        small = facts[:, cv2.CC_STAT_AREA] < least
        small[0] = False  # what is not of this block
        crumb |= small[parts]
    if crumb.all():
        return label
    near = ndimage.distance_transform_edt(crumb, return_distances=False, return_indices=True)
    return np.asarray(label[tuple(near)], dtype=np.intp)


def _daylight(rgb: Array) -> Array:
    """Even light: prints have no murk. Darks open, colours a little purer."""
    grey = luma(rgb)[..., None]
    even = 1 - tone.spread(grey[..., 0], middle=0.36)[..., None]
    return np.asarray(np.clip(even + 1.5 * (rgb - grey), 0, 1), dtype=np.float32)


def _k_means(points: Array, count: int, rng: np.random.Generator) -> Array:
    """(count, 3) centres by Lloyd's iterations from a spread of starts (k-means++)."""
    centres = points[rng.integers(len(points))][None]
    for _ in range(count - 1):
        distance = ((points[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1).astype(np.float64) + 1e-3
        centres = np.concatenate([centres, points[rng.choice(len(points), p=distance / distance.sum())][None]])
    for _ in range(8):
        owner = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        size = np.bincount(owner, minlength=count)[:, None]
        total = np.stack([np.bincount(owner, axis, count) for axis in points.T], axis=1)
        centres = np.where(size > 0, total / np.maximum(size, 1), centres).astype(np.float32)
    return np.asarray(centres, dtype=np.float32)


def _impressed(
    grey: Array, label: NDArray[np.intp], colours: Array, edge: Array, shape: tuple[int, int], scale: float
) -> tuple[Array, Array]:
    """The blocks printed flat, (H, W, 3), and each with its bokashi, wiped lighter or inked darker, (H, W, 3)."""
    flat, total = np.zeros((*shape, 3), dtype=np.float32), np.zeros((*shape, 1), dtype=np.float32)
    wipe = np.zeros(label.shape, dtype=np.float32)
    for index, colour in enumerate(colours):
        own = label == index
        if not own.any():
            continue
        mask = own.astype(np.float32)
        cut = _meeting(mask, edge, 1.2 * scale, 9 * scale) - np.float32(0.5)
        share = np.exp(np.clip(resized((5 + 9 * edge) * cut, shape), -12, 12))[..., None]
        flat += share * colour
        total += share
        here = soften(mask * grey, 24 * scale) / (soften(mask, 24 * scale) + np.float32(1e-3))
        wipe[own] = np.clip(3.2 * (here - grey[own].mean()), -0.38, 0.42)[own]
    flat /= total
    wipe = resized(_meeting(wipe, edge, 0.0, 9 * scale), shape)[..., None]
    lighter, darker = np.maximum(wipe, 0), np.minimum(wipe, 0)
    return flat, np.asarray((flat + lighter * (_SHEET - flat)) * (1 + darker), dtype=np.float32)


def _meeting(image: Array, edge: Array, near: float, far: float) -> Array:
    """A picture softened by the sigma `near` at edges and `far` elsewhere."""
    wiped = soften(image, far)
    return np.asarray(wiped + edge * (soften(image, near) - wiped), dtype=np.float32)


def _edges(plain: Array, scale: float) -> Array:
    """Where the picture itself has an edge, (H, W) in [0, 1]: elsewhere one block is wiped into the next."""
    side = 2 * max(1, round(3 * scale)) + 1
    step = np.asarray(cv2.morphologyEx(plain, cv2.MORPH_GRADIENT, np.ones((side, side), np.uint8)), dtype=np.float32)
    return soften(ramp(step.max(axis=2), 0.03, 0.085), 2 * scale)


def _sky(graded: Array, label: NDArray[np.intp], rng: np.random.Generator) -> Array:
    """A band of Prussian blue wiped out downward (ichimonji bokashi) in an area that is open at the top."""
    top = label[: max(1, len(label) // 20)]
    names, counts = np.unique(top, return_counts=True)
    if counts.max() < 0.4 * top.size:
        return graded
    _, parts = cv2.connectedComponents((label == names[counts.argmax()]).astype(np.uint8), connectivity=4)
    sky = np.isin(parts, np.unique(parts[: len(top)][top == names[counts.argmax()]])).astype(np.float32)
    shape = graded.shape[:2]
    down = np.arange(shape[0], dtype=np.float32)[:, None] / shape[0]
    uneven = 0.012 * clouds(shape, 0.15 * max(shape), rng, octaves=1)
    band = 0.6 * (1 - ramp(down + uneven, -0.01, 0.19)) * np.clip(resized(soften(sky, 0.8), shape), 0, 1)
    return np.asarray(graded + band[..., None] * (_BERO - graded), dtype=np.float32)


def _key_block(
    flat: Array, edge: Array, plain: Array, small: Array, field: flow.Flow, scale: float, size: float
) -> Array:
    """The outlines, (H, W) coverage: round the colour areas, swelling on the forms, and fine within them."""
    shape = flat.shape[0], flat.shape[1]
    bold = flow.ridges(luma(plain), field, 1.3 * scale)
    fine = flow.ridges(luma(_daylight(small)), field, 0.9 * scale)
    fine = field.smoothed(fine, 1.8 * scale, 3)
    fine = fine / (0.4 * soften(np.abs(fine), 14 * scale) + np.float32(0.0045))
    side = max(2, round(1.6 * size))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    step = np.asarray(cv2.morphologyEx(flat, cv2.MORPH_GRADIENT, kernel), dtype=np.float32).max(axis=2)
    lines = np.maximum(
        flow.inked(resized(bold, shape), -0.010, 110), 0.85 * flow.inked(resized(fine, shape), -1.25, 2.0)
    )
    return np.asarray(
        np.maximum(lines, 0.9 * resized(edge, shape) * ramp(soften(step, 0.4 * size), 0.12, 0.30)), dtype=np.float32
    )


def _wood_grain(shape: tuple[int, int], size: float, rng: np.random.Generator) -> Array:
    """The plank's grain pressed into the flat colours, (H, W) about 0."""
    height, width = shape
    y = np.arange(height, dtype=np.float32)[:, None] / (6.5 * size)
    bend = 1.6 * clouds(shape, 150 * size, rng, octaves=2)
    rings = (y + bend) % 1.0
    return np.asarray(0.9 * (rings**2 - 0.33) + 0.25 * clouds(shape, 2 * size, rng, octaves=1), dtype=np.float32)
