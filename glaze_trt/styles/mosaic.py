"""Mosaic: rows of hand-cut stone and glass along the contours, set in grout, each piece tilted its own way (Ravenna).

Rows are the level lines of the distance to the picture's edges, after Di Blasi and Gallo, "Artificial mosaics" (2005);
each piece is a cell of a Voronoi partition whose metric is a square turned to its row, after Hausner, "Simulating
decorative mosaics" (SIGGRAPH 2001), so that neighbours are cut to fit and no tessera crosses an edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from glaze_trt.styles.orientation import luma
from glaze_trt.styles.scale import clouds, soften, unit, working

Array = NDArray[np.float32]

_TILE = 7.6  # units from one row to the next
_GROUT = np.array([0.36, 0.325, 0.29], dtype=np.float32)


def mosaic(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    size = unit(rgb.shape)
    small, scale = working(rgb)
    places, angles = _rows(small, _TILE * scale, rng)
    grow = np.divide(rgb.shape[:2], small.shape[:2], dtype=np.float32)
    setting = _set((places + 0.5) * grow - np.float32(0.5), angles, rgb.shape[:2], _TILE * size, rng)
    return _lit(rgb, setting, len(places), size, rng)


@dataclass(frozen=True)
class _Setting:
    """Which tessera a pixel belongs to, (H, W), where in it, and how deep inside it in pixels; negative is grout."""

    tile: NDArray[np.int32]
    along: Array
    across: Array
    angle: Array
    depth: Array


def _rows(rgb: Array, tile: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Centres, (N, 2) rows and columns, and directions, (N,), of the tesserae: the rows next to an edge come first."""
    distance = soften(_distance_to_edges(rgb, tile), 0.12 * tile)
    places, angles = [np.empty((0, 2), np.float32)], [np.empty(0, np.float32)]
    for level in np.arange(0.5 * tile, float(distance.max()), tile):
        inside = np.pad(distance, 1) > level  # the pad closes rows along the frame
        for line in cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]:
            place, angle = _along(line[:, 0, ::-1].astype(np.float32) - 1, tile, rng)
            places.append(place)
            angles.append(angle)
    place, angle = np.concatenate(places), np.concatenate(angles)
    keep = _apart(place, 0.7 * tile)
    place, angle = place[keep], angle[keep]
    return _without_holes(place, angle, distance.shape, tile, rng)


def _distance_to_edges(rgb: Array, tile: float) -> Array:
    """(H, W) pixels to the nearest long edge or to the frame."""
    levels = np.rint(255 * soften(rgb, 0.22 * tile)).astype(np.uint8)
    edge = np.zeros(levels.shape[:2], np.uint8)
    for channel in cv2.split(cv2.cvtColor(levels, cv2.COLOR_RGB2LAB)):
        edge |= np.asarray(cv2.Canny(channel, 22, 55), dtype=np.uint8)
    _, label, stats, _ = cv2.connectedComponentsWithStats(edge, connectivity=8)
    long = stats[:, cv2.CC_STAT_AREA] > 2.5 * tile
    long[0] = False
    free = np.where(long[label], 0, 1).astype(np.uint8)
    framed = cv2.copyMakeBorder(free, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1], dtype=np.float32)


def _along(line: Array, tile: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Places one tile apart on a closed chain of (N, 2) pixels, and the chain's direction there."""
    reach = max(1, round(0.35 * tile))
    if len(line) < 2 * reach + 2:
        return line[:1], np.zeros(1, np.float32)
    ring = np.concatenate([line[-reach:], line, line[:reach]])
    total = np.cumsum(ring, axis=0, dtype=np.float64)
    smooth = (total[2 * reach :] - total[: -2 * reach]) / (2 * reach)
    step = np.hypot(*np.diff(smooth, axis=0, append=smooth[:1]).T)
    length = np.concatenate([[0.0], np.cumsum(step)])
    count = max(1, round(length[-1] / tile))
    at = (np.arange(count) + rng.random()) * (length[-1] / count)
    index = np.minimum(np.searchsorted(length, at), len(smooth) - 1)
    way = ring[index + 2 * reach] - ring[index]
    return smooth[index].astype(np.float32), np.arctan2(way[:, 0], way[:, 1]).astype(np.float32)


def _apart(places: Array, distance: float) -> NDArray[np.bool_]:
    """Which places to keep so that none is nearer than `distance` to one before it."""
    keep = np.ones(len(places), dtype=bool)
    pairs = np.sort(cKDTree(places).query_pairs(distance, output_type="ndarray"), axis=1)
    for first, second in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if keep[first]:
            keep[second] = False
    return keep


def _without_holes(
    places: Array, angles: Array, shape: tuple[int, int], tile: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The same with small pieces where rows that meet have left a hole."""
    taken = np.ones(shape, np.uint8)
    at = np.clip(np.rint(places), 0, np.array(shape) - 1).astype(np.intp)
    taken[at[:, 0], at[:, 1]] = 0
    free = cv2.distanceTransform(taken, cv2.DIST_L2, 5) if len(places) else np.full(shape, tile, np.float32)
    grid = np.stack([axis.ravel() for axis in np.mgrid[0 : shape[0] : 0.3 * tile, 0 : shape[1] : 0.3 * tile]], axis=1)
    gap = free[tuple(grid.astype(np.intp).T)]
    holes = grid[gap > 0.82 * tile][np.argsort(gap[gap > 0.82 * tile], kind="stable")].astype(np.float32)
    holes = holes[_apart(holes, 0.82 * tile)] if len(holes) else holes  # packed from the rows inward
    if not len(places):
        places, angles = np.array([[(side - 1) / 2 for side in shape]], dtype=np.float32), np.zeros(1, np.float32)
    turned = angles[cKDTree(places).query(holes)[1]] if len(holes) else np.empty(0, np.float32)
    return np.concatenate([places, holes]), np.concatenate([angles, turned])


def _set(places: Array, angles: Array, shape: tuple[int, int], tile: float, rng: np.random.Generator) -> _Setting:
    """Lay the tesserae: each pixel goes to the nearest in the metric of a turned square."""
    reach = int(np.ceil(1.15 * tile))
    full = (shape[0] + 2 * reach, shape[1] + 2 * reach)
    first, second = (np.full(full, 1e3, np.float32) for _ in range(2))
    owner = np.zeros(full, np.int32)
    angles = angles + rng.normal(0, 0.05, len(angles)).astype(np.float32)
    wide = rng.uniform(0.92, 1.1, len(angles))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    corner = np.rint(places).astype(np.intp)
    turns = zip(np.cos(angles).tolist(), np.sin(angles).tolist(), wide.tolist(), strict=True)
    for index, ((top, left), (cos, sin, size)) in enumerate(zip(corner.tolist(), turns, strict=True)):
        window = np.s_[max(top, 0) : top + 2 * reach + 1, max(left, 0) : left + 2 * reach + 1]
        u, v = np.abs(x * (cos / size) + y * (sin / size)), np.abs(y * (cos * size) - x * (sin * size))
        far = np.maximum(np.maximum(u, v), 0.62 * (u + v))  # corners are nipped a little
        best, next_best, mine = first[window], second[window], owner[window]
        far = far[: best.shape[0], : best.shape[1]]
        nearer = far < best
        np.minimum(next_best, np.maximum(far, best), out=next_best)
        np.minimum(best, far, out=best)
        mine[nearer] = index
    inside = np.s_[reach : reach + shape[0], reach : reach + shape[1]]
    tile_of, near, next_near = owner[inside], first[inside], second[inside]
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    dy, dx = rows - corner[tile_of, 0].astype(np.float32), columns - corner[tile_of, 1].astype(np.float32)
    angle = angles[tile_of]
    cos, sin = np.cos(angle), np.sin(angle)
    depth = np.minimum(0.5 * (next_near - near), 0.68 * tile - near)
    return _Setting(tile_of, dx * cos + dy * sin, dy * cos - dx * sin, angle, depth)


def _lit(rgb: Array, setting: _Setting, count: int, size: float, rng: np.random.Generator) -> Array:
    shape, tile = setting.tile.shape, setting.tile
    joint = 0.085 * _TILE * size
    cover = np.clip(setting.depth - joint + 0.5, 0, 1)
    colour = _stones(rgb, tile, cover, count, rng)[tile]
    tilt = rng.normal(0, 1, (3, count)).astype(np.float32)[:, tile]
    reach = 1 / (0.5 * _TILE * size)
    light = 1 + 0.055 * tilt[2] + 0.06 * reach * (tilt[0] * setting.along + tilt[1] * setting.across)
    light += 0.02 * clouds(shape, 2.0 * size, rng, octaves=1)
    # the side that faces the light, upper left, has a bright rim, the other a dark one
    sideways = np.abs(setting.along) > np.abs(setting.across)
    facing = np.where(sideways, np.sign(setting.along), np.sign(setting.across))
    turned = setting.angle + np.where(sideways, 0, np.float32(np.pi / 2))
    faced = -facing * np.cos(turned - np.float32(np.pi / 4))
    rim = np.clip(1 - (setting.depth - joint) / (1.5 * size), 0, 1)
    stone = colour * (light + 0.22 * faced * rim)[..., None]
    gleam = (rng.random(count) < 0.035)[tile] * np.clip(0.5 - reach * (setting.along + setting.across), 0, 1)
    stone += 0.16 * gleam[..., None] * cover[..., None]
    sunk = np.clip(1 + 0.5 * (setting.depth - joint) / joint, 0.55, 1)
    grout = _GROUT * (sunk * (1 + 0.10 * clouds(shape, 3 * size, rng)))[..., None]
    return np.asarray(np.clip(grout + cover[..., None] * (stone - grout), 0, 1), dtype=np.float32)


def _stones(rgb: Array, tile: NDArray[np.int32], cover: Array, count: int, rng: np.random.Generator) -> Array:
    """A stone for every tessera, (N, 3): its place's mean colour, richer, from a box with few shades of each."""
    weight = cover.ravel() + 1e-3
    total = np.bincount(tile.ravel(), weight, count) + 1e-6
    mean = np.stack([np.bincount(tile.ravel(), weight * c.ravel(), count) / total for c in cv2.split(rgb)], axis=1)
    mean = mean.astype(np.float32)
    grey = luma(mean)[:, None]
    rich = grey + 1.45 * (mean - grey)
    rich = 0.5 + 1.12 * (rich - 0.5)
    steps = 7.0  # shades of each colour in the box
    shade = np.rint(steps * (rich + 0.035 * rng.standard_normal((count, 1)))) / steps
    mixed = 0.45 * rich + 0.55 * shade + 0.02 * rng.standard_normal((count, 3))
    return np.clip(mixed, 0.03, 0.97).astype(np.float32)
