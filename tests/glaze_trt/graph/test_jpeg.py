from __future__ import annotations

import io

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from engine.tape import Tape
from glaze_trt.graph import jpeg
from glaze_trt.measure import handling
from tests.glaze_trt.graph.view_model import View, levels
from tests.glaze_trt.scene import image, waves


def compressed(quality: int, rounding: jpeg.Rounding, size: tuple[int, int]) -> View:
    def shown(tape: Tape, x: ir.Value, draw: ir.Value, seed: ir.Value) -> ir.Value:
        return jpeg.jpeg(tape, x, tape.constant(jpeg.steps(quality)), rounding)

    return View(shown, size)


@pytest.mark.parametrize("quality", [30, 75, 90, 100])
def test_the_tables_are_those_of_the_library(quality: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(waves()).save(buffer, "JPEG", quality=quality)
    written = Image.open(buffer).quantization  # type: ignore[attr-defined]
    np.testing.assert_array_equal(jpeg.steps(quality), np.array([written[0], written[1]]))


@pytest.mark.parametrize("size", [(64, 96), (40, 24), (8, 8), (72, 8)])
@pytest.mark.parametrize("quality", [75, 90])
def test_with_hard_rounding_it_is_what_the_library_does(quality: int, size: tuple[int, int]) -> None:
    picture = waves(*size)
    real = handling.jpeg(picture, quality).astype(int)
    change = np.abs(picture - real).mean()
    hard = levels(compressed(quality, lambda t, x: t.Round(x), size)(image(picture))["shown"])
    # The library also rounds to whole levels between its stages, which tips some coefficients the other way.
    assert np.abs(hard - real).mean() < 0.26 * change
    soft = levels(compressed(quality, jpeg.rounded, size)(image(picture))["shown"])
    assert np.abs(soft - real).mean() < 0.4 * change


def test_the_gradient_is_the_slope() -> None:
    """With a smooth function in the place of the rounding, whose borders no difference quotient may cross."""
    rng = np.random.default_rng(0)
    picture = rng.uniform(0.3, 0.7, (1, 3, 24, 40)).astype(np.float32)
    weight = rng.standard_normal(picture.shape).astype(np.float32)
    view = compressed(50, lambda t, x: t.Mul(x, t.Mul(x, x)), (24, 40))
    gradient = view(picture, weight=weight)["grad:image"].astype(np.float64)
    along = gradient / np.linalg.norm(gradient)
    h = 1e-2
    ends = [float(view((picture + s * h * along).astype(np.float32), weight=weight)["sum"]) for s in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(np.linalg.norm(gradient), rel=1e-2)


def test_the_rounding_has_the_slope_of_its_cubic() -> None:
    def shown(tape: Tape, x: ir.Value, draw: ir.Value, seed: ir.Value) -> ir.Value:
        return jpeg.rounded(tape, x)

    x = np.random.default_rng(0).uniform(-3, 3, (1, 3, 8, 8)).astype(np.float32)
    found = View(shown, (8, 8))(x)
    off = x - np.rint(x)
    np.testing.assert_allclose(found["shown"], np.rint(x) + off**3, atol=1e-6)
    np.testing.assert_allclose(found["grad:image"], 3 * off**2, atol=1e-5)
