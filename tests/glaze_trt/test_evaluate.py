from __future__ import annotations

import numpy as np
import pytest

from glaze_trt import evaluate, models, styles
from glaze_trt.errors import PictureError
from glaze_trt.measure.ssim import psnr, ssim
from glaze_trt.pictures.picture import to_levels
from tests.glaze_trt.scene import scene


def noisy(levels: evaluate.Levels, sigma: float) -> evaluate.Levels:
    noise = sigma * np.random.default_rng(5).standard_normal(levels.shape)
    return np.clip(np.rint(levels + noise), 0, 255).astype(np.uint8)


def test_ssim_is_the_published_formula_at_every_window() -> None:
    a, b = scene(20, 23), noisy(scene(20, 23), 12)
    grid = np.arange(-5, 6)
    window = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for channel in range(3):
        for row in range(5, 15):
            for column in range(5, 18):
                x, y = (
                    image[row - 5 : row + 6, column - 5 : column + 6, channel].astype(np.float64) for image in (a, b)
                )
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                vxy = (window * (x - mx) * (y - my)).sum()
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                found.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(a, b) == pytest.approx(np.mean(found), rel=1e-9)


def test_psnr() -> None:
    a = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(a, a) is None
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)


def test_ssimulacra2_falls_with_the_noise_and_sees_even_the_smallest_pictures() -> None:
    a = scene(64, 64)
    scores = [evaluate.ssimulacra2(a, noisy(a, sigma)) for sigma in (0, 2, 6, 20)]
    assert scores[0] == 100
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 50
    dot = np.zeros((1, 1, 3), np.uint8)
    assert evaluate.ssimulacra2(dot, dot) == 100
    assert evaluate.ssimulacra2(dot, dot + 90) < 90


def test_progress_is_nothing_at_the_start_and_whole_at_the_target() -> None:
    before = scene()
    target = to_levels(styles.apply("impasto", before / 255))
    encoder, perceptual = (evaluate.Network(models.find("tiny", kind)) for kind in ("encoder", "perceptual"))
    judge = evaluate.Judge(before, targets=[target], encoders=[encoder], perceptual=perceptual)
    unmoved, arrived = judge(before), judge(target)
    halfway = judge(np.rint((before.astype(float) + target) / 2).astype(np.uint8))
    assert unmoved.progress == 0
    assert unmoved.lpips == 0
    assert unmoved.linf == 0
    assert unmoved.psnr is None
    assert arrived.progress == 1
    assert halfway.progress is not None
    assert 0 < halfway.progress < 1
    assert halfway.lpips is not None
    assert arrived.lpips is not None
    assert 0 < halfway.lpips < arrived.lpips
    assert arrived.linf == np.abs(before.astype(int) - target).max() / 255


def test_what_was_not_asked_for_is_not_measured() -> None:
    found = evaluate.Judge(scene())(noisy(scene(), 3)).as_dict()
    assert found["lpips"] is None
    assert found["progress"] is None


def test_pictures_of_two_sizes_are_refused() -> None:
    with pytest.raises(PictureError, match=r"64 x 40 .* 64 x 48"):
        evaluate.Judge(scene())(scene(40, 64))
