from __future__ import annotations

import numpy as np
import pytest

from glaze_trt import styles
from glaze_trt.styles import flow, paper, scale, tone
from tests.glaze_trt.scene import scene

PICTURE = scene(160, 208) / np.float32(255)


@pytest.mark.parametrize("name", ["charcoal", "engraving"])
def test_a_drawing_has_one_ink_on_its_sheet(name: str) -> None:
    drawn = styles.apply(name, PICTURE, seed=1)
    hue = drawn - drawn.mean(axis=2, keepdims=True)
    assert np.abs(hue).max() < 0.1
    assert np.quantile(drawn, 0.01) < 0.2
    assert np.quantile(drawn, 0.99) > 0.85


def test_an_engraving_is_ink_or_paper() -> None:
    grey = styles.apply("engraving", scene(512, 512) / np.float32(255), seed=1).mean(axis=2)
    assert ((grey > 0.35) & (grey < 0.65)).mean() < 0.25


def test_engraved_lines_are_wider_in_the_darks() -> None:
    greys = [np.full((128, 128, 3), level, dtype=np.float32) for level in (0.8, 0.6, 0.4, 0.2)]
    ramp = np.concatenate(greys, axis=1)
    light = styles.apply("engraving", ramp, seed=1).reshape(128, 4, 128, 3).mean(axis=(0, 2, 3))
    assert (np.diff(light) < -0.05).all()


def test_a_print_wipes_a_gradient_and_outlines_an_edge() -> None:
    y = np.linspace(0.9, 0.3, 256, dtype=np.float32)[:, None, None]
    sky = np.broadcast_to(y, (256, 256, 3)).copy()
    edged = np.where(np.arange(256)[:, None, None] < 128, np.float32(0.85), np.float32(0.4)) * np.ones((1, 256, 3))
    darkest = [styles.apply("ukiyo-e", rgb, seed=1)[100:156].mean(axis=(1, 2)).min() for rgb in (sky, edged)]
    assert darkest[1] < 0.3 < darkest[0]


def test_watercolour_leaves_a_margin_of_bare_paper() -> None:
    painted = styles.apply("watercolour", np.full((256, 256, 3), (0.2, 0.3, 0.5), dtype=np.float32), seed=1)
    edge = np.concatenate([painted[0], painted[-1], painted[:, 0], painted[:, -1]])
    assert edge.mean() > 0.93
    assert painted[40:-40, 40:-40].mean() < 0.8


def test_sizes_grow_with_the_picture_up_to_a_limit() -> None:
    assert [scale.unit((side, 4000)) for side in (8, 512, 1024, 4000)] == [0.5, 1.0, 2.0, 3.0]
    copy, unit = scale.working(np.zeros((2048, 1536, 3), dtype=np.float32))
    assert copy.shape == (683, 512, 3)
    assert unit == 1.0


def test_noise_and_paper_are_spread_as_said() -> None:
    rng = np.random.default_rng(0)
    assert scale.clouds((400, 500), 8, rng).std() == pytest.approx(1, abs=0.12)
    histogram = np.histogram(paper.tooth((400, 500), 2.0, rng), bins=5, range=(0, 1))[0] / 200_000
    np.testing.assert_allclose(histogram, 0.2, atol=0.06)


def test_smoothing_along_lines_keeps_them_and_removes_noise() -> None:
    x = np.arange(96, dtype=np.float32)[None]
    lines = np.broadcast_to(np.sin(x / 2), (96, 96)).astype(np.float32)
    noisy = lines + 0.5 * np.random.default_rng(0).standard_normal(lines.shape, dtype=np.float32)
    smooth = flow.Flow(np.full((96, 96), np.pi / 2, dtype=np.float32)).smoothed(noisy, 1.0, 3)
    assert np.abs(smooth - lines).mean() < 0.4 * np.abs(noisy - lines).mean()


def test_a_dark_picture_is_spread_over_the_sheet() -> None:
    night = (0.02 + 0.25 * np.random.default_rng(0).random((64, 64))).astype(np.float32)
    dark = tone.spread(night, middle=0.4)
    assert np.median(dark) < np.median(1 - night) - 0.2
    assert dark.max() > 0.8
    order = np.argsort(night.ravel())
    assert (np.diff(dark.ravel()[order]) <= 1e-6).all()
