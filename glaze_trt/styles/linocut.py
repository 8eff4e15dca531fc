"""Linocut: two or three blocks cut with a gouge, printed in solid inks a little out of register on warm paper.

Each block is a tone cut to a hard edge; where the tone passes from ink to paper the gouge has left tapered cuts along
the form, laid side by side as streamlines are (Jobard and Lefer, "Creating evenly-spaced streamlines of arbitrary
density", 1997), the wider the lighter, and in the cleared parts thin ridges the gouge missed still take ink.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import lab2rgb, rgb2lab

from glaze_trt.styles.orientation import along_edges, luma
from glaze_trt.styles.scale import clouds, ramp, resized, soften, unit, working

Array = NDArray[np.float32]

_PAPER = np.array([0.955, 0.93, 0.865], dtype=np.float32)
_SHIFT = 4  # bits of a pixel that cv2 draws with


def linocut(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    shape, size = rgb.shape[:2], unit(rgb.shape)
    small, scale = working(rgb)
    tone = resized(_tone(small, scale), shape)
    angle = _cutting_direction(small, scale, rng)
    angle = resized(np.stack([np.cos(2 * angle), np.sin(2 * angle)], axis=2), shape)
    angle = np.asarray(0.5 * np.arctan2(angle[..., 1], angle[..., 0]), dtype=np.float32)
    inks = _inks(rgb, tone)
    print_ = _PAPER * (1 + 0.012 * clouds(shape, 1.6 * size, rng, octaves=2))[..., None]
    for ink, (solid, bare) in zip(inks, ((0.60, 0.84), (0.42, 0.64), (0.22, 0.42)), strict=True):
        block = _block(tone, angle, solid, bare, size, rng)
        print_ = _printed(print_, block, ink, size, rng)
    return np.asarray(np.clip(print_, 0, 1), dtype=np.float32)


def _cutting_direction(rgb: Array, scale: float, rng: np.random.Generator) -> Array:
    """The way the gouge goes, (H, W) radians: round the forms, and one way where there is none."""
    angle, sure = along_edges(rgb, detail=1.6 * scale, reach=6 * scale)
    usual = np.float32(rng.uniform(-0.4, 0.4))
    cos = soften(sure**2 * np.cos(2 * angle), 2 * scale) + 0.16 * np.cos(2 * usual)
    sin = soften(sure**2 * np.sin(2 * angle), 2 * scale) + 0.16 * np.sin(2 * usual)
    return np.asarray(0.5 * np.arctan2(sin, cos) + 0.1 * clouds(angle.shape, 60 * scale, rng, octaves=1), np.float32)


def _tone(rgb: Array, scale: float) -> Array:
    """Tone in [0, 1], (H, W), without fine texture, its histogram partly evened and its forms made clear."""
    levels = np.rint(255 * rgb).astype(np.uint8)
    flat = cv2.edgePreservingFilter(levels, flags=cv2.RECURS_FILTER, sigma_s=max(1.0, 16 * scale), sigma_r=0.3)
    grey = soften(luma(flat.astype(np.float32) / np.float32(255)), 0.8 * scale)
    low, high = np.quantile(grey[::2, ::2], [0.02, 0.98])
    if high - low > 0.05:
        bins = np.linspace(0, 1, 257)
        share = np.cumsum(np.histogram(grey, bins)[0]) / grey.size
        even = np.interp(grey, bins[1:], share).astype(np.float32)
        grey = 0.45 * even + 0.55 * np.clip((grey - low) / (high - low), 0, 1)
    clear = grey + 0.7 * (grey - soften(grey, 5 * scale)) + 0.5 * (grey - soften(grey, 24 * scale))
    return np.asarray(np.clip(clear, 0, 1), dtype=np.float32)


def _inks(rgb: Array, tone: Array) -> list[Array]:
    """The inks of the light, the middle and the dark block: the commonest hue of each tone, mixed strong."""
    lab = rgb2lab(rgb[::2, ::2]).reshape(-1, 3)
    tones = tone[::2, ::2].ravel()
    hue, chroma = np.arctan2(lab[:, 2], lab[:, 1]), np.hypot(lab[:, 1], lab[:, 2])
    inks = []
    for low, high, light, strong in ((0.5, 0.9, 80, 34), (0.25, 0.65, 54, 62), (0.0, 0.4, 15, 22)):
        weight = np.where((tones >= low) & (tones <= high), chroma**1.5 + 1e-3, 1e-6)
        votes = np.histogram(hue, 48, (-np.pi, np.pi), weights=weight)[0]
        votes = ndimage.gaussian_filter1d(votes, 2, mode="wrap")
        common = (np.argmax(votes) + 0.5) * (2 * np.pi / 48) - np.pi
        ink = lab2rgb([[[light, strong * np.cos(common), strong * np.sin(common)]]])
        inks.append(np.clip(ink[0, 0], 0.02, 0.98).astype(np.float32))
    return inks


def _block(tone: Array, angle: Array, solid: float, bare: float, size: float, rng: np.random.Generator) -> Array:
    """Where a block carries ink, (H, W) in [0, 1]: darker than `solid` it is uncut, lighter than `bare` cleared."""
    shape = tone.shape
    wobble = 0.02 * clouds(shape, 5 * size, rng, octaves=1)
    edge = np.asarray(bare - 0.25 * (bare - solid) - tone - wobble, dtype=np.float32)
    steep = np.hypot(cv2.Sobel(edge, cv2.CV_32F, 1, 0), cv2.Sobel(edge, cv2.CV_32F, 0, 1)) / 8
    face = np.asarray(np.clip(edge / (steep + np.float32(1e-4)) + 0.5, 0, 1), dtype=np.float32)  # a knife's edge
    light = ramp(tone, solid, bare)
    cuts = _gouged(light, angle, (tone > solid - 0.05) & (tone < bare + 0.05), 1.9, 4.6, 26, size, rng)
    near = soften(face, 9 * size)
    strays = _gouged(np.full(shape, 0.3, np.float32), angle, (face < 0.1) & (near > 0.06), 0.8, 13.0, 18, size, rng)
    return np.asarray(np.maximum(face * (1 - cuts), strays * (face < 0.5)), dtype=np.float32)


def _gouged(
    light: Array,
    angle: Array,
    where: NDArray[np.bool_],
    wide: float,
    apart: float,
    long: float,
    size: float,
    rng: np.random.Generator,
) -> Array:
    """Tapered cuts along the form, (H, W) in [0, 1], about `apart` units from one to the next."""
    height, width = light.shape
    candidates = np.flatnonzero(where)
    count = min(len(candidates), int(4 * len(candidates) / (apart * apart * size * size)) + 1)
    drawn = np.zeros((height, width), np.uint8)
    if not len(candidates):
        return drawn.astype(np.float32)
    picked = candidates[rng.integers(0, len(candidates), count)]
    paths = _streamlines(angle, picked, long * size * rng.uniform(0.6, 1.3, count), 9)
    rows, columns = (np.clip(np.rint(paths[..., a]), 0, s - 1).astype(np.intp) for a, s in ((1, height), (0, width)))
    half = 0.5 * wide * size * (0.35 + 1.0 * light[rows, columns]) * (light[rows, columns] > 0.02)
    taper = np.sin(np.pi * np.linspace(0.03, 1, 9) ** 0.7)  # in quickly, out slowly, as a gouge leaves
    half = half * taper * where[rows, columns]
    way = np.gradient(paths, axis=1)
    normal = np.stack([-way[..., 1], way[..., 0]], axis=2) / (np.linalg.norm(way, axis=2, keepdims=True) + 1e-6)
    outline = np.concatenate([paths + normal * half[..., None], (paths - normal * half[..., None])[:, ::-1]], axis=1)
    polygons = np.rint(outline * 2**_SHIFT).astype(np.int32)
    taken = np.zeros((height, width), np.uint8)
    pixels = np.rint(paths).astype(np.int32)
    thick = max(1, round(2 * (apart - wide) * size * 0.9))
    for index in range(count):
        row, column = rows[index], columns[index]
        if taken[row, column].sum() > 2:  # of nine
            continue
        cv2.fillPoly(drawn, [polygons[index]], 255, cv2.LINE_AA, _SHIFT)
        cv2.polylines(taken, [pixels[index]], False, 1, thick)
    return drawn.astype(np.float32) / np.float32(255)


def _streamlines(
    angle: Array, start: NDArray[np.intp], length: NDArray[np.float64], points: int
) -> NDArray[np.float64]:
    """Paths of (N, points, 2) x and y that follow the (H, W) directions, `start` (flat pixels) in the middle."""
    height, width = angle.shape
    middle = np.stack([start % width, start // width], axis=1).astype(np.float64)
    step = (length / (points - 1))[:, None]
    halves = []
    for sign in (-1.0, 1.0):
        at, before, path = middle, None, []
        for _ in range(points // 2):
            turn = angle[
                np.clip(np.rint(at[:, 1]), 0, height - 1).astype(np.intp),
                np.clip(np.rint(at[:, 0]), 0, width - 1).astype(np.intp),
            ]
            way = sign * np.stack([np.cos(turn), np.sin(turn)], axis=1)
            if before is not None:
                way = np.where((way * before).sum(axis=1, keepdims=True) < 0, -way, way)
            at, before = at + step * way, way
            path.append(at)
        halves.append(path)
    return np.stack([*halves[0][::-1], middle, *halves[1]], axis=1)


def _printed(paper: Array, block: Array, ink: Array, size: float, rng: np.random.Generator) -> Array:
    """The block pressed on the paper, out of register by a pixel or two, the ink thin in places."""
    shape = block.shape
    by = np.column_stack([np.eye(2), rng.uniform(-1.3, 1.3, 2) * size])
    shifted = cv2.warpAffine(block, by, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = np.asarray(shifted, dtype=np.float32)
    salt = ramp(clouds(shape, 1.5 * size, rng, octaves=2) + 0.6 * clouds(shape, 40 * size, rng, octaves=1), 1.7, 3.0)
    rim = np.clip(moved - soften(moved, 2.2 * size), 0, 1)  # ink squeezed to the edges is denser
    cover = moved * (1 - 0.75 * salt) * (0.93 + 0.07 * rim)
    film = ink * (1 + 0.035 * clouds(shape, 2.5 * size, rng, octaves=2) - 0.12 * rim)[..., None]
    return np.asarray(paper + cover[..., None] * (film - paper), dtype=np.float32)
