"""What a picture is moved toward: every way to say it, every contradiction, one style for a portfolio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glaze_trt import models, styles
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.network import Network
from glaze_trt.pictures import picture
from glaze_trt.styles import choice
from glaze_trt.styles.diffusion import Diffusion
from glaze_trt.styles.pattern import pattern
from glaze_trt.targets import Target, Targets, Wanted
from tests.glaze_trt.scene import scene, waves

Make = Callable[..., Targets]


@pytest.fixture(scope="module")
def encoder() -> Network:
    return Network(models.find("tiny", "encoder"), "onnxruntime")


@pytest.fixture
def make(encoder: Network) -> Make:
    def made(preset: str = "glaze", **wanted: Any) -> Targets:
        return Targets(Wanted(**wanted), preset, encoder, lambda line: None)

    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`art.png` 64 x 48, `a.png` 50 x 60, `b.png` 64 x 48, `text.png`, `folder` of two, `empty`."""
    folder = tmp_path_factory.mktemp("targets")
    for name, levels in (("art", scene()), ("a", waves(60, 50, seed=1)), ("b", waves(48, 64, seed=2))):
        Image.fromarray(levels).save(folder / f"{name}.png")
    (folder / "text.png").write_text("no picture")
    (folder / "empty").mkdir()
    (folder / "folder").mkdir()
    for index in range(2):
        Image.fromarray(waves(64, 64, seed=index)).save(folder / "folder" / f"{index}.png")
    (folder / "folder" / "notes.txt").write_text("not a picture, and not looked at")
    return folder


def of(targets: Targets, path: Path, *, sized: bool = True) -> Target:
    return targets.of(picture.load(path), sized=sized)


def test_the_default_style_and_a_style_by_name(make: Make, files: Path) -> None:
    art = picture.load(files / "art.png")
    for given, name in ((None, styles.DEFAULT), ("mosaic", "mosaic")):
        found = make(style=given, seed=3).of(art, sized=True)
        (levels,) = found.levels
        np.testing.assert_array_equal(levels, picture.to_levels(styles.apply(name, art.rgb, 3)))
        assert (found.style, found.percentile, found.name) == (name, None, name)
    other = make(style="mosaic", seed=4).of(art, sized=True)
    assert not np.array_equal(other.levels[0], levels)


def test_auto_chooses_inside_the_band_by_seed(make: Make, files: Path, encoder: Network) -> None:
    targets = [make(style="auto", seed=seed) for seed in (0, 0, *range(1, 6))]
    found = [of(each, files / "art.png") for each in targets]
    assert found[0].style == found[1].style
    assert len({each.style for each in found}) > 1
    expected = choice.choose([scene()], styles.available(), encoder, 0)
    assert (found[0].style, found[0].percentile, found[0].name) == (
        expected.style,
        expected.percentile,
        expected.style,
    )
    assert all(each.percentile is not None and 50 <= each.percentile <= 75 for each in found)


@pytest.mark.parametrize("style", [None, "auto"])
def test_a_portfolio_gets_one_style_for_all_pictures(
    style: str | None, make: Make, files: Path, encoder: Network
) -> None:
    targets = make(style=style, portfolio=files / "folder", seed=2)
    found = [of(targets, files / f"{name}.png") for name in ("art", "a", "b")]
    portfolio = [waves(64, 64, seed=index) for index in range(2)]
    expected = choice.choose(portfolio, styles.available(), encoder, 2)
    assert {(each.style, each.percentile) for each in found} == {(expected.style, expected.percentile)}
    assert [each.levels[0].shape for each in found] == [(48, 64, 3), (60, 50, 3), (48, 64, 3)]


def test_a_portfolio_takes_the_place_of_mists_pattern(make: Make, files: Path) -> None:
    found = of(make("mist", portfolio=files / "folder"), files / "art.png")
    assert found.style in styles.available()


def test_pictures_are_scaled_to_cover_where_targets_must_have_the_size(make: Make, files: Path) -> None:
    targets = make(images=(files / "a.png", files / "b.png"))
    sized, raw = (of(targets, files / "art.png", sized=sized) for sized in (True, False))
    assert [levels.shape for levels in sized.levels] == [(48, 64, 3), (48, 64, 3)]
    assert [levels.shape for levels in raw.levels] == [(60, 50, 3), (48, 64, 3)]
    np.testing.assert_array_equal(raw.levels[0], waves(60, 50, seed=1))
    np.testing.assert_array_equal(sized.levels[1], waves(48, 64, seed=2))
    assert (sized.style, sized.percentile, sized.name) == (None, None, "a.png, b.png")


def test_a_style_image_lends_its_manner(make: Make, files: Path) -> None:
    found = of(make(style_image=files / "a.png"), files / "art.png")
    (levels,) = found.levels
    assert (found.style, found.name, levels.shape) == (None, "the manner of a.png", (48, 64, 3))

    def gap(x: np.ndarray) -> float:
        return float(np.abs(x.mean((0, 1)) - waves(60, 50, seed=1).mean((0, 1))).max())

    assert gap(levels) < 0.5 * gap(scene())
    again, other = (of(make(style_image=files / "a.png", seed=seed), files / "art.png").levels[0] for seed in (0, 1))
    np.testing.assert_array_equal(again, levels)
    assert not np.array_equal(other, levels)


def test_mist_has_a_pattern_unless_something_is_given(make: Make, files: Path) -> None:
    found = of(make("mist"), files / "art.png")
    np.testing.assert_array_equal(found.levels[0], pattern(48, 64))
    assert (found.style, found.name) == (None, "a text pattern")
    assert of(make("mist", style="mosaic"), files / "art.png").style == "mosaic"
    assert of(make("mist", images=(files / "b.png",)), files / "art.png").name == "b.png"


def test_the_pattern_is_black_words_on_white_of_any_size() -> None:
    for size in ((48, 64), (512, 300), (1, 1), (7, 200)):
        levels = pattern(*size)
        assert levels.shape == (*size, 3)
        assert levels.dtype == np.uint8
    page = pattern(512, 512)
    assert (page == 0).mean() > 0.1
    assert (page == 255).mean() > 0.4
    assert np.array_equal(page, pattern(512, 512))


@pytest.mark.parametrize("preset", ["photoguard", "fawkes", "lowkey"])
def test_presets_that_need_no_target(preset: str, make: Make, files: Path) -> None:
    assert of(make(preset), files / "art.png") == Target((), None, None, "none")
    for option, given in (
        ("--style", {"style": "mosaic"}),
        ("--style", {"style": "auto"}),
        ("--target-image", {"images": (files / "a.png",)}),
        ("--style-image", {"style_image": files / "a.png"}),
        ("--portfolio", {"portfolio": files / "folder"}),
    ):
        with pytest.raises(UsageError, match=f"the preset {preset} moves a picture away or to zero.*drop {option}"):
            make(preset, **given)


@pytest.mark.parametrize("preset", ["face-off", "foggysight"])
def test_presets_that_need_other_people(preset: str, make: Make, files: Path) -> None:
    with pytest.raises(UsageError, match="give them by --target-image"):
        make(preset)
    assert len(of(make(preset, images=(files / "a.png", files / "b.png")), files / "art.png").levels) == 2


def test_contradictions(make: Make, files: Path) -> None:
    image, words = (files / "a.png",), Diffusion("cubism by Picasso")
    diffusion = {"stylizer": "diffusion"}
    for given, reason in (
        ({"style": "mosaic", "images": image}, "--style and --target-image exclude each other"),
        ({"style": "auto", "style_image": image[0]}, "--style and --style-image exclude each other"),
        ({"images": image, "style_image": image[0]}, "--target-image and --style-image exclude each other"),
        ({"images": image, "portfolio": files / "folder"}, "--target-image and --portfolio exclude each other"),
        ({"style_image": image[0], "portfolio": files / "folder"}, "--style-image and --portfolio exclude each other"),
        ({"style": "mosaic", "portfolio": files / "folder"}, "--portfolio is what a style is chosen by"),
        ({"style": "vaporwave"}, "no style is called 'vaporwave': choose auto, charcoal, .*--stylizer diffusion"),
        (diffusion, "--stylizer diffusion needs words"),
        ({**diffusion, "style": "auto", "diffusion": words}, "--stylizer diffusion needs words"),
        ({**diffusion, "images": image}, "--stylizer diffusion needs words"),
        ({**diffusion, "style": "words", "diffusion": words, "portfolio": files / "folder"}, "--portfolio is what"),
    ):
        with pytest.raises(UsageError, match=reason) as caught:
            make(**given)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_found_before_any_work(make: Make, files: Path) -> None:
    for given, reason in (
        ({"images": (files / "a.png", files / "none.png")}, r"none\.png: no such file"),
        ({"images": (files / "text.png",)}, r"text\.png: not a picture"),
        ({"style_image": files / "text.png"}, r"text\.png: not a picture"),
        ({"portfolio": files / "none"}, "none: the portfolio cannot be read"),
        ({"portfolio": files / "art.png"}, r"art\.png: the portfolio cannot be read"),
        ({"portfolio": files / "empty"}, "empty: no picture of the portfolio was found there"),
    ):
        with pytest.raises(PictureError, match=reason):
            make(**given)
