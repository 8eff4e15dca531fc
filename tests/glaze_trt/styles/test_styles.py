from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from glaze_trt import styles
from glaze_trt.errors import StyleError
from tests.glaze_trt.scene import scene

NAMES = styles.available()


@pytest.mark.parametrize("name", NAMES)
def test_a_style_changes_the_manner_and_keeps_the_content(name: str) -> None:
    rgb = scene(128, 160) / 255
    painted = styles.apply(name, rgb, seed=3)
    assert painted.shape == rgb.shape
    assert painted.dtype == np.float32
    assert painted.min() >= 0
    assert painted.max() <= 1
    assert np.abs(painted - rgb).mean() > 0.04
    masses = [ndimage.gaussian_filter(image.mean(axis=2), 6).ravel() for image in (rgb, painted)]
    assert np.corrcoef(*masses)[0, 1] > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name: str) -> None:
    rgb = scene() / 255
    np.testing.assert_array_equal(styles.apply(name, rgb, seed=1), styles.apply(name, rgb, seed=1))
    assert (styles.apply(name, rgb, seed=1) != styles.apply(name, rgb, seed=2)).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (5, 300), (33, 47)])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_odd_sizes_and_flat_colours(name: str, shape: tuple[int, int], fill: float) -> None:
    painted = styles.apply(name, np.full((*shape, 3), fill, dtype=np.float32))
    assert painted.shape == (*shape, 3)
    assert np.isfinite(painted).all()


def test_every_style_is_described() -> None:
    assert styles.DEFAULT in NAMES
    assert all(len(styles.describe(name)) > 20 for name in NAMES)


def test_an_unknown_style_names_the_known_ones() -> None:
    with pytest.raises(StyleError, match=", ".join(NAMES)):
        styles.apply("vaporwave", scene() / 255)


def test_a_target_covers_the_picture_without_distortion() -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255  # a white square in the middle is all that a square picture keeps
    target = styles.target_from(wide, (64, 64))
    assert target.shape == (64, 64, 3)
    assert target[4:-4, 4:-4].min() > 0.99
    same = scene()
    np.testing.assert_array_equal(np.rint(styles.target_from(same, (48, 64)) * 255), same)
