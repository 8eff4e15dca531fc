from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from glaze_trt.styles.statistics import match
from tests.glaze_trt.scene import scene

Array = NDArray[np.float32]


def content(height: int = 160, width: int = 200) -> Array:
    return scene(height, width).astype(np.float32) / np.float32(255)


def brushed(side: int = 180, seed: int = 5) -> Array:
    """A stand-in for a painting: short slanting strokes of red and ochre."""
    rng = np.random.default_rng(seed)
    strokes = ndimage.gaussian_filter(rng.standard_normal((side, side)), (1.0, 5.0))
    strokes = ndimage.rotate(np.tile(strokes, (2, 2)), 30, reshape=False)[
        side // 2 : -side // 2, side // 2 : -side // 2
    ]
    tone = np.clip(0.5 + 0.16 * strokes / strokes.std(), 0.05, 0.95)[..., None]
    slope = np.linspace(0.6, 1.0, side)[:, None, None]
    return np.asarray(slope * (tone * (0.9, 0.65, 0.3) + (1 - tone) * (0.45, 0.1, 0.15)), dtype=np.float32)


def repainted(rgb: Array, example: Array, seed: int = 0) -> Array:
    return match(rgb, example, np.random.default_rng(seed))


def grey(rgb: Array) -> Array:
    return np.asarray(rgb.mean(axis=2), dtype=np.float32)


def fine_energy(rgb: Array, sigma: float) -> float:
    band = ndimage.gaussian_filter(grey(rgb), sigma) - ndimage.gaussian_filter(grey(rgb), 2 * sigma)
    return float(band.std())


def test_the_colours_become_the_examples() -> None:
    rgb, example = content(), brushed()
    painted = repainted(rgb, example)
    assert painted.shape == rgb.shape
    assert painted.dtype == np.float32
    assert painted.min() >= 0
    assert painted.max() <= 1
    colours = [image.reshape(-1, 3).astype(np.float64) for image in (rgb, example, painted)]
    means = [c.mean(axis=0) for c in colours]
    spreads = [np.cov(c.T) for c in colours]
    assert np.abs(means[2] - means[1]).max() < 0.03 < np.abs(means[0] - means[1]).max()
    assert np.linalg.norm(spreads[2] - spreads[1]) < 0.35 * np.linalg.norm(spreads[1])
    assert np.linalg.norm(spreads[0] - spreads[1]) > 0.7 * np.linalg.norm(spreads[1])


@pytest.mark.parametrize("sigma", [0.6, 1.2])
def test_the_brushwork_becomes_as_strong_as_the_examples(sigma: float) -> None:
    smooth = np.asarray(ndimage.gaussian_filter(content(), (3, 3, 0)), dtype=np.float32)
    example = brushed()
    wanted = fine_energy(example, sigma)
    assert fine_energy(smooth, sigma) < 0.4 * wanted
    assert fine_energy(repainted(smooth, example), sigma) == pytest.approx(wanted, rel=0.35)


def test_the_content_stays_where_it_is() -> None:
    rgb = content()
    masses = [ndimage.gaussian_filter(grey(image), 5).ravel() for image in (rgb, repainted(rgb, brushed()))]
    assert np.corrcoef(*masses)[0, 1] > 0.9


def test_the_seed_decides() -> None:
    rgb, example = content(), brushed()
    np.testing.assert_array_equal(repainted(rgb, example, 1), repainted(rgb, example, 1))
    assert (repainted(rgb, example, 1) != repainted(rgb, example, 2)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (8, 8), (17, 16), (5, 300), (33, 47)])
@pytest.mark.parametrize("other", [(1, 1), (9, 70), (64, 40)])
def test_any_two_sizes_and_flat_colours(shape: tuple[int, int], other: tuple[int, int]) -> None:
    flat = np.full((*shape, 3), 0.25, dtype=np.float32)
    for example in (np.ones((*other, 3), dtype=np.float32), brushed()[: other[0], : other[1]]):
        painted = repainted(flat, example)
        assert painted.shape == flat.shape
        assert np.isfinite(painted).all()
        assert painted.mean(axis=(0, 1)) == pytest.approx(example.mean(axis=(0, 1)), abs=0.06)
