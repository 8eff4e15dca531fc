from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from scipy import ndimage

from engine.runtime.protocol import Build, Options
from engine.runtime.tensorrt import RTX
from engine.tape import Tape
from glaze_trt.errors import UsageError
from glaze_trt.graph import grain, views
from glaze_trt.measure import handling
from tests.glaze_trt.graph.view_model import Shown, View, levels, view_model
from tests.glaze_trt.scene import image, waves

SMOOTH = [name for name, view in views.VIEWS.items() if view.kind != "jpeg"]
TOGETHER = {"one": ("resize",), "two": ("brightness", "noise"), "all": views.NAMES}


def alone(name: str) -> Shown:
    return lambda tape, x, draw, seed: views.apply(tape, name, x, draw, seed)


def together(names: tuple[str, ...]) -> Shown:
    return lambda tape, x, draw, seed: views.sampled(tape, x, names, draw, seed)


def resized(picture: np.ndarray, part: float) -> np.ndarray:
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((round(width * part), round(height * part)), Image.Resampling.LANCZOS)
    return np.asarray(small.resize((width, height), Image.Resampling.LANCZOS))


def real(name: str, picture: np.ndarray) -> np.ndarray:
    if name.startswith("jpeg"):
        return handling.apply(name, picture)
    if name == "half size":
        return handling.apply("half size and back", picture)
    if name == "three quarters":
        return resized(picture, 0.75)
    if name in ("brighter", "darker"):
        return np.clip(picture * {"brighter": 1.15, "darker": 0.85}[name], 0, 255)
    if name == "blur":
        blurred = ndimage.gaussian_filter(picture.astype(float), (0.8, 0.8, 0), mode="constant", truncate=6)
        inside = ndimage.gaussian_filter(np.ones(picture.shape), (0.8, 0.8, 0), mode="constant", truncate=6)
        return np.asarray(blurred / inside)
    top, bottom, left, right = {"crop": (5, 3, 2, 6), "other crop": (0, 7, 6, 1)}[name]
    inner = Image.fromarray(picture[top : picture.shape[0] - bottom, left : picture.shape[1] - right])
    return np.asarray(inner.resize(picture.shape[1::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", [name for name in views.VIEWS if name not in ("untouched", "noise")])
@pytest.mark.parametrize("size", [(64, 96), (56, 72)])
def test_a_view_is_what_the_real_transformation_does(name: str, size: tuple[int, int]) -> None:
    picture = waves(*size)
    wanted = real(name, picture).astype(float)
    shown = levels(View(alone(name), size)(image(picture))["shown"])
    change = np.abs(wanted - picture).mean()
    # Compression is written with a smooth rounding; the rest differs only by whole levels between two resamplings.
    assert np.abs(shown - wanted).mean() < (0.4 * change if name.startswith("jpeg") else 0.6)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_gradient_is_the_slope(name: str) -> None:
    rng = np.random.default_rng(0)
    picture = rng.uniform(0.3, 0.7, (1, 3, 24, 16)).astype(np.float32)
    weight = rng.standard_normal(picture.shape).astype(np.float32)
    view = View(alone(name), (24, 16))
    gradient = view(picture, draw=3, weight=weight)["grad:image"].astype(np.float64)
    along = gradient / np.linalg.norm(gradient)
    h = 0.2
    ends = [float(view((picture + s * h * along).astype(np.float32), 3, weight=weight)["sum"]) for s in (1, -1)]
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(np.linalg.norm(gradient), rel=1e-3)


@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_every_draw_shows_the_view_whose_turn_it_is(names: tuple[str, ...]) -> None:
    picture = image(waves(32, 24))
    weight = np.random.default_rng(0).standard_normal(picture.shape).astype(np.float32)
    order = views.turns(names)
    view = View(together(names), (32, 24))
    single = {name: View(alone(name), (32, 24)) for name in dict.fromkeys(order)}
    for draw in range(2 * len(order) + 1):
        found = view(picture, draw, 0.25, weight)
        expected = single[order[draw % len(order)]](picture, draw, 0.25, weight)
        for output in ("shown", "grad:image"):
            np.testing.assert_allclose(found[output], expected[output], atol=1e-4)


@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_every_name_has_its_share_and_so_has_the_untouched_picture(names: tuple[str, ...]) -> None:
    order = views.turns(names)
    assert Counter(order) == Counter(view for name in ("untouched", *names) for view in views.ROUND[name])
    for name in ("untouched", *names):  # spread over the round: so many in each half
        mine = [view in views.ROUND[name] for view in order]
        assert abs(sum(mine[: len(order) // 2]) - len(views.ROUND[name]) / 2) <= 1
    assert set(views.NAMES) < set(views.ROUND)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="rotate"):
        views.turns(["jpeg", "rotate"])


def test_noise_is_that_of_its_draw_and_seed() -> None:
    picture = np.full((1, 3, 64, 64), 0.5, np.float32)
    view = View(alone("noise"), (64, 64))
    first = view(picture, 5, 0.25)["shown"]
    np.testing.assert_array_equal(view(picture, 5, 0.25)["shown"], first)
    for draw, seed in ((6, 0.25), (5, 0.26), (5 + 1019, 0.25), (5, 0.2501)):
        other = view(picture, draw, seed)["shown"]
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.04
    np.testing.assert_allclose(View(alone("noise"), (64, 64), "openvino")(picture, 5, 0.25)["shown"], first, atol=1e-5)


@pytest.mark.parametrize("draw", [0, 1, 77])
def test_noise_is_gaussian_and_white(draw: int) -> None:
    def shown(tape: Tape, x: ir.Value, draw: ir.Value, seed: ir.Value) -> ir.Value:
        return tape.Add(tape.Mul(x, 0.0), grain.gaussian(tape, (1, 3, 128, 96), draw, seed))

    noise = View(shown, (128, 96))(np.zeros((1, 3, 128, 96), np.float32), draw, 0.37)["shown"][0].astype(np.float64)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert (noise**4).mean() == pytest.approx(3, abs=0.2)
    for quantile, share in ((-1.0, 0.1587), (0.0, 0.5), (1.0, 0.8413), (2.0, 0.9772)):
        assert (noise < quantile).mean() == pytest.approx(share, abs=0.01)
    for axis in range(3):
        assert abs((noise * np.roll(noise, 1, axis)).mean()) < 0.02
    spectrum = np.abs(np.fft.fft2(noise)) ** 2 / noise[0].size
    assert spectrum.max() < 20  # of 36,864 exponential variates of mean 1, the largest is 10 or 11


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (24, 16)])
@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_small_pictures_have_views(size: tuple[int, int], engine_name: str) -> None:
    picture = image(waves(*size))
    view = View(together(views.NAMES), size, engine_name)
    for draw in range(len(views.turns(views.NAMES))):
        found = view(picture, draw, 0.5)
        assert found["shown"].shape == picture.shape
        assert found["shown"].min() >= 0
        assert found["shown"].max() <= 1
        assert np.isfinite(found["grad:image"]).all()


def test_tensorrt_builds_all_of_it() -> None:
    model = view_model(together(views.NAMES), (40, 64))
    assert RTX.build(model, "fp32", Options(build=Build(capabilities=("8.9",))))
