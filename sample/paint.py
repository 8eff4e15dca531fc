"""Paint the sample picture, `harbour.png`: an evening harbour, of our own making and free to use.

    python sample/paint.py

It has what a cloak finds hard and easy: a smooth sky, flat hills, fine foliage, hard edges, glitter on water. The
same code and the same numpy give the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glaze_trt.styles import brush
from glaze_trt.styles.orientation import blur

Array = NDArray[np.float32]
Numbers = NDArray[np.floating]
Places = tuple[Numbers, Numbers]  # rows and columns

WIDTH, HEIGHT, HORIZON = 640, 512, 268
SUN = (446, 196)
_SUPER = 3  # shapes are drawn larger and reduced, for smooth edges


def main() -> None:
    """Write the picture beside this file."""
    rng = np.random.default_rng(1874)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    scene = np.where((y < HORIZON)[..., None], _sky(x, y, rng), _water(x, y))
    scene = _over(scene, _hills())
    scene = _brush_hills_and_water(scene, rng)
    for thing in (_village(rng), _boats(), _jetty(), _bank()):
        scene = _over(scene, thing)
    scene = _brush_grass_and_leaves(scene, rng)
    levels = np.clip(np.rint(scene * 255), 0, 255).astype(np.uint8)
    Image.fromarray(levels).save(Path(__file__).parent / "harbour.png", optimize=True)


def _sky(x: Array, y: Array, rng: np.random.Generator) -> Array:
    stops = [0.0, 0.45, 0.8, 1.0]
    colours = np.array([[0.36, 0.52, 0.68], [0.62, 0.72, 0.76], [0.95, 0.84, 0.66], [0.97, 0.75, 0.55]])
    sky = np.stack([np.interp(y / HORIZON, stops, colours[:, c]) for c in range(3)], axis=2)
    distance = np.hypot(x - SUN[0], y - SUN[1])
    glow = np.exp(-distance / 90)[..., None]
    sky = sky + glow * (np.array([1.0, 0.88, 0.62]) - sky) * 0.85
    noises = [blur(rng.standard_normal((HEIGHT, WIDTH)).astype(np.float32), size) * size for size in (22.0, 11.0, 6.0)]
    cloud = np.sum(noises, axis=0, dtype=np.float32)
    cloud = np.asarray(Image.fromarray(cloud).crop((0, 0, 260, HEIGHT)).resize((WIDTH, HEIGHT)))  # drawn out sideways
    band = np.exp(-(((y - 96 - 0.08 * x) / 34) ** 2)) + 0.7 * np.exp(-(((y - 186 + 0.05 * x) / 16) ** 2))
    cover = np.clip(cloud * 1.4 + 0.15, 0, 1) * band
    lit = np.array([0.99, 0.92, 0.83]) - 0.16 * np.clip(cloud + 0.3, 0, 1)[..., None] * np.array([0.6, 0.9, 0.7])
    sky = sky + 0.8 * cover[..., None] * (lit - sky)
    disc = np.clip(17.5 - distance, 0, 1)[..., None]
    return np.asarray(sky + disc * (np.array([1.0, 0.95, 0.80]) - sky), dtype=np.float32)


def _water(x: Array, y: Array) -> Array:
    depth = np.clip((y - HORIZON) / (HEIGHT - HORIZON), 0, 1)[..., None]
    near, far = np.array([0.10, 0.27, 0.38]), np.array([0.78, 0.71, 0.63])
    water = far + (near - far) * depth**0.55
    path = np.exp(-(((x - SUN[0]) / (26 + 60 * depth[..., 0])) ** 2))[..., None]
    return np.asarray(water + path * (1 - 0.55 * depth) * (np.array([1.0, 0.83, 0.56]) - water) * 0.75, np.float32)


Point = tuple[float, float]
Colour = tuple[int, ...]

_BANK: Sequence[Point] = ((60, 424), (150, 444), (250, 478), (322, 516))  # its upper edge
_CROWN = (  # clumps of leaves: centre, half width, half height
    (128, 152, 50, 30),
    (16, 120, 46, 30),
    (84, 82, 58, 34),
    (152, 106, 34, 22),
    (12, 224, 34, 20),
    (34, 46, 60, 32),
    (112, 34, 50, 26),
)


class _Sheet:
    """A transparent sheet to draw shapes on, in picture coordinates."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (WIDTH * _SUPER, HEIGHT * _SUPER), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        self._draw.polygon(self._large(points), fill=fill)

    def line(self, start: Point, end: Point, width: float, fill: Colour) -> None:
        self._draw.line(self._large([start, end]), fill=fill, width=max(1, round(width * _SUPER)))

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    @staticmethod
    def _large(points: Sequence[Point]) -> list[Point]:
        return [(float(x) * _SUPER, float(y) * _SUPER) for x, y in points]


def _over(scene: Array, sheet: _Sheet) -> Array:
    """The scene with a sheet laid on it, reduced to the picture's size."""
    large = np.asarray(sheet.image, dtype=np.float32) / 255
    large[..., :3] *= large[..., 3:]
    small = large.reshape(HEIGHT, _SUPER, WIDTH, _SUPER, 4).mean(axis=(1, 3))
    return np.asarray(scene * (1 - small[..., 3:]) + small[..., :3], dtype=np.float32)


def _hills() -> _Sheet:
    sheet = _Sheet()
    for start, end, height, seed, colour in (
        (200, 760, 58, 4, (166, 162, 172, 255)),
        (-220, 400, 88, 9, (128, 140, 160, 255)),
        (500, 820, 46, 2, (122, 126, 142, 255)),
        (-160, 310, 54, 12, (94, 118, 96, 255)),
        (-120, 200, 36, 7, (74, 100, 72, 255)),
    ):
        rng = np.random.default_rng(seed)
        across = np.linspace(0, 1, 80)
        waves = sum(rng.uniform(0.3, 1) / k * np.sin(2 * np.pi * (k * across + rng.random())) for k in range(1, 7))
        top = HORIZON - height * np.sin(np.pi * across) ** 0.8 * (1 + 0.14 * waves)
        outline = list(zip(start + (end - start) * across, top, strict=True))
        sheet.polygon([(start, HORIZON), *outline, (end, HORIZON)], colour)
    return sheet


def _village(rng: np.random.Generator) -> _Sheet:
    sheet = _Sheet()
    tower = [(184, HORIZON - 4), (184, HORIZON - 36), (188.5, HORIZON - 52), (193, HORIZON - 36), (193, HORIZON - 4)]
    sheet.polygon(tower, (228, 212, 182, 255))
    sheet.polygon(tower[1:4], (124, 86, 78, 255))
    for base in np.sort(HORIZON - 18 * rng.random(24) ** 1.6):  # the upper houses stand behind
        left, wide, high = rng.uniform(104, 262), rng.uniform(7, 13), rng.uniform(6, 10)
        base = max(base, HORIZON - 0.12 * (282 - left))
        wall, roof = int(rng.uniform(208, 242)), int(rng.uniform(166, 200))
        sheet.box(left, base - high, left + wide, base, (wall, wall - 12, wall - 36, 255))
        eaves, ridge = base - high, base - high - 4.5
        sheet.polygon([(left - 1, eaves), (left + wide / 2, ridge), (left + wide + 1, eaves)], (roof, 96, 70, 255))
        sheet.box(left + 0.4 * wide, base - 0.65 * high, left + 0.6 * wide, base - 0.25 * high, (78, 80, 92, 255))
    sheet.box(90, HORIZON - 1, 286, HORIZON + 2.5, (120, 108, 96, 255))  # the quay
    return sheet


def _boats() -> _Sheet:
    sheet = _Sheet()
    for x, y, size, sail in (
        (600, 282, 0.40, (232, 214, 180)),
        (286, 288, 0.50, (240, 232, 214)),
        (545, 302, 0.80, (206, 120, 74)),
        (352, 338, 1.45, (238, 226, 200)),
    ):

        def at(points: Sequence[Point], x: float = x, y: float = y, size: float = size) -> list[Point]:
            return [(x + size * px, y + size * py) for px, py in points]

        shaded, mirrored = (tuple(int(part * c + rest) for c in sail) for part, rest in ((0.84, 0), (0.5, 60)))
        sheet.polygon(at([(-3, 8), (3, 60), (9, 66), (34, 10)]), (*mirrored, 105))
        sheet.polygon(at([(-30, 3), (36, 3), (26, 17), (-22, 17)]), (36, 44, 56, 165))
        mast, deck = at([(0, 0), (0, -86)]), at([(-31, -3), (37, -3)])
        sheet.line(mast[0], mast[1], 1.7 * size, (74, 54, 44, 255))
        sheet.polygon(at([(2, -82), (8, -46), (2, -7), (38, -11), (30, -32), (16, -62)]), (*sail, 255))
        sheet.polygon(at([(-2, -72), (-2, -8), (-27, -6), (-18, -36)]), (*shaded, 255))
        sheet.polygon(at([(-32, -4), (38, -4), (28, 7), (-24, 7)]), (58, 42, 44, 255))
        sheet.line(deck[0], deck[1], 1.5 * size, (198, 162, 112, 255))
    return sheet


def _jetty() -> _Sheet:
    sheet = _Sheet()
    for x in range(494, 660, 24):
        top = 366 + (x - 486) * 0.115
        sheet.line((x + 2, top + 36), (x + 4, top + 66), 5, (34, 50, 62, 120))
        sheet.line((x, top - 6), (x, top + 38), 5, (66, 52, 50, 255))
    sheet.polygon([(650, 387), (486, 368), (486, 374), (650, 397)], (182, 146, 112, 255))
    sheet.polygon([(650, 397), (486, 374), (486, 379), (650, 405)], (98, 76, 64, 255))
    for x in range(494, 660, 48):
        top = 366 + (x - 486) * 0.115
        sheet.line((x, top - 12), (x, top + 12), 5, (84, 66, 58, 255))
    return sheet


def _bank() -> _Sheet:
    sheet = _Sheet()
    wood = (80, 58, 50, 255)
    sheet.polygon([(-5, 418), *_BANK, (330, 520), (-5, 520)], (66, 74, 44, 255))
    sheet.polygon([(40, 445), (58, 330), (54, 230), (66, 110), (73, 110), (70, 230), (77, 332), (90, 448)], wood)
    for start, end, width in (
        ((60, 262), (126, 172), 6),
        ((62, 214), (10, 140), 6),
        ((68, 170), (112, 96), 5),
        ((60, 312), (6, 240), 5),
    ):
        sheet.line(start, end, width, wood)
    return sheet


class _Painter:
    """Lays strokes on a canvas, each colour a little off the one asked for."""

    def __init__(self, scene: Array, rng: np.random.Generator) -> None:
        self.canvas = brush.Canvas(scene, margin=40)
        self._scene, self._rng = scene, rng

    def own(self, at: Places) -> Array:
        """The scene's colours at these places."""
        return self._scene[self._inside(at[0], HEIGHT), self._inside(at[1], WIDTH)]

    def lay(self, tool: brush.Brush, at: Places, lean: float, spread: float, colours: Numbers, vary: float) -> None:
        """Strokes leaning by about `lean` radians."""
        count = len(at[0])
        off = vary * (self._rng.standard_normal((count, 1)) + 0.4 * self._rng.standard_normal((count, 3)))
        self.canvas.paint(
            tool,
            self._inside(at[0], HEIGHT),
            self._inside(at[1], WIDTH),
            (lean + spread * self._rng.standard_normal(count)).astype(np.float32),
            np.clip(colours + off, 0, 1).astype(np.float32),
        )

    @staticmethod
    def _inside(places: Numbers, size: int) -> NDArray[np.intp]:
        return np.clip(places, 0, size - 1).astype(np.intp)


def _places_on(sheet: _Sheet, count: int, rng: np.random.Generator) -> Places:
    """Rows and columns of places well inside the solid shapes of a sheet."""
    alpha = np.asarray(sheet.image.resize((WIDTH, HEIGHT), Image.Resampling.BOX), dtype=np.float32)[..., 3]
    rows, columns = np.nonzero(blur(alpha, 2.0) > 225)
    chosen = rng.choice(len(rows), count)
    return rows[chosen].astype(np.float64), columns[chosen].astype(np.float64)


def _brush_hills_and_water(scene: Array, rng: np.random.Generator) -> Array:
    painter = _Painter(scene, rng)
    wide, fine = brush.make(32, 5.5, rng), brush.make(14, 2.6, rng)
    slopes = _places_on(_hills(), 1700, rng)
    painter.lay(fine, slopes, 0.35, 0.35, painter.own(slopes), 0.018)

    depth = np.sort(rng.random(4200) ** 0.8)
    rows, columns = HORIZON + 4 + depth * (HEIGHT - HORIZON), rng.uniform(0, WIDTH, depth.size)
    colours = painter.own((np.maximum(rows + rng.normal(0, 4, depth.size) * (1 + 3 * depth), HORIZON + 2), columns))
    near = depth > 0.3
    painter.lay(fine, (rows[~near], columns[~near]), 0.0, 0.03, colours[~near], 0.02)
    painter.lay(wide, (rows[near], columns[near]), 0.0, 0.04, colours[near], 0.028)

    depth = rng.random(520) ** 1.3
    columns = SUN[0] + rng.standard_normal(depth.size) * (7 + 34 * depth)
    painter.lay(fine, (HORIZON + 4 + depth * 215, columns), 0.0, 0.02, np.array([1.0, 0.89, 0.66]), 0.04)
    return painter.canvas.lit(depth=0.16)


def _brush_grass_and_leaves(scene: Array, rng: np.random.Generator) -> Array:
    painter = _Painter(scene, rng)
    blade, dab = brush.make(15, 2.8, rng), brush.make(7.5, 4.2, rng)
    rough, smooth = brush.make(11, 2.2, rng), brush.make(6, 1.6, rng)
    for thing, tool, lean, count in ((_bank(), rough, 1.5, 1400), (_boats(), smooth, 1.35, 1500)):
        places = _places_on(thing, count, rng)
        painter.lay(tool, places, lean, 0.12, painter.own(places), 0.028)

    rows, columns = np.sort(rng.uniform(412, HEIGHT + 6, 4200)), rng.uniform(0, 345, 4200)
    edge = np.array([(0, 416), *_BANK, (345, 530)], dtype=np.float64)
    on_bank = rows > np.interp(columns, edge[:, 0], edge[:, 1])
    tones = np.array([[0.30, 0.36, 0.18], [0.44, 0.47, 0.23], [0.22, 0.29, 0.17], [0.60, 0.54, 0.29]])
    green = tones[rng.integers(0, 4, on_bank.sum())]
    painter.lay(blade, (rows[on_bank], columns[on_bank]), 1.5, 0.25, green, 0.03)

    leaves = np.array([[0.12, 0.21, 0.15], [0.20, 0.30, 0.17], [0.34, 0.41, 0.20], [0.60, 0.55, 0.28]])
    for light, leaf in enumerate(leaves):  # dark leaves first, lit ones over them, toward the sun
        for x, y, across, down in _CROWN:
            count = 230 - 46 * light
            turn, reach = rng.uniform(0, 2 * np.pi, count), 0.62 * np.abs(rng.standard_normal(count)) ** 0.7
            columns = x + across * reach * np.cos(turn) + 4 * light
            rows = y + down * reach * np.sin(turn) - 3 * light
            painter.lay(dab, (rows, columns), 0.0, 2.0, leaf, 0.035)
    return painter.canvas.lit(depth=0.24)


if __name__ == "__main__":
    main()
