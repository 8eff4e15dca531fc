from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from bench import formats_profiles as profiles
from bench import formats_samples as samples
from glaze_trt import models
from glaze_trt.errors import BudgetError
from glaze_trt.evaluate import Judge
from glaze_trt.network import Network
from glaze_trt.pictures import formats, picture
from glaze_trt.pictures.picture import Picture
from glaze_trt.runs import fit
from tests.glaze_trt.scene import scene

ORIGINAL = picture.from_levels(scene(64, 96))
JUDGE = Judge(ORIGINAL.levels)


def cloaked(size: int, original: Picture = ORIGINAL) -> np.ndarray:
    change = size * np.sign(np.random.default_rng(2).standard_normal(original.levels.shape))
    return np.clip(original.levels + change, 0, 255).astype(np.uint8)


def smooth(size: int, original: Picture) -> np.ndarray:
    """A change that a lossy encoder keeps."""
    y, x = np.mgrid[: original.levels.shape[0], : original.levels.shape[1]]
    change = size * np.sin(x / 5)[..., None] * np.cos(y / 7)[..., None] * np.array([1, 0.6, 0.8])
    return np.clip(np.rint(original.levels + change), 0, 255).astype(np.uint8)


def jpeg(quality: int, sampling: str, **options: object) -> Picture:
    image = Image.fromarray(scene(64, 96))
    return picture.decode(
        samples.saved(image, "JPEG", quality=quality, subsampling=sampling, **options), Path("source.jpg")
    )


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_lossless_files_hold_exactly_what_was_made(suffix: str) -> None:
    fitted = fit.within_budget(ORIGINAL, cloaked(4), Path(f"a.{suffix}"), {"linf": 4 / 255}, JUDGE)
    np.testing.assert_array_equal(picture.decode(fitted.data, Path("a")).levels, cloaked(4))
    assert fitted.measures.linf == 4 / 255
    assert fitted.notes == ()


@pytest.mark.parametrize("suffix", ["jpg", "avif", "webp"])
def test_a_lossy_file_is_measured_on_what_it_decodes_to(suffix: str) -> None:
    original = replace(ORIGINAL, source=picture.decode(samples.SAMPLES["webp lossy"](), Path("a")).source)
    loose = fit.within_budget(original, cloaked(8), Path(f"a.{suffix}"), {}, JUDGE)
    strict = fit.within_budget(original, cloaked(8), Path(f"a.{suffix}"), {"linf": 8 / 255}, JUDGE)
    for fitted in (loose, strict):
        decoded = picture.decode(fitted.data, Path("a")).levels
        np.testing.assert_array_equal(decoded, fitted.levels)
        assert fitted.measures == JUDGE(decoded)
    assert loose.measures.linf > 8 / 255
    assert strict.measures.linf <= 8 / 255
    assert len(strict.data) > len(loose.data)


def test_a_budget_that_no_jpeg_can_keep_points_to_png() -> None:
    with pytest.raises(BudgetError, match=r"choose \.png"):
        fit.within_budget(ORIGINAL, cloaked(4), Path("a.jpg"), {"linf": 0.0}, JUDGE)


@pytest.mark.parametrize(("quality", "sampling"), [(75, "4:2:0"), (88, "4:2:2"), (92, "4:4:4"), (98, "4:2:0")])
def test_a_jpegs_quality_and_subsampling_are_matched(quality: int, sampling: str) -> None:
    source = jpeg(quality, sampling, progressive=quality == 88)
    assert source.source is not None
    assert source.source.encoding is not None
    assert source.source.encoding.quality == quality
    fitted = fit.within_budget(source, smooth(6, source), Path("a.jpg"), {"linf": 16 / 255}, Judge(source.levels))
    with Image.open(io.BytesIO(fitted.data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        assert [tuple(table) for table in image.quantization.values()] == list(source.source.encoding.tables or ())
        assert JpegImagePlugin.get_sampling(image) == {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}[sampling]
        assert bool(image.info.get("progressive")) == (quality == 88)
    assert f"quality {quality}, {sampling}, as the input" in fitted.notes[0]


def test_quality_is_raised_where_the_budget_asks_for_it() -> None:
    budget = {"linf": 12 / 255}
    fitted = fit.within_budget(ORIGINAL, smooth(9, ORIGINAL), Path("a.jpg"), budget, JUDGE, quality=50)
    assert fit.keeps(fitted.measures, budget)
    assert (fitted.encoding.quality or 0) > 50


def test_a_jpegs_quality_is_raised_where_it_would_eat_the_cloak() -> None:
    source, other = jpeg(30, "4:2:0"), scene(64, 96, seed=4)[:, ::-1]
    moved = source.levels + np.clip(other.astype(int) - source.levels, -5, 5)
    judge = Judge(source.levels, targets=[other], encoders=[Network(models.find("tiny", "encoder"))])
    whole = judge.mean_progress(moved.astype(np.uint8))
    fitted = fit.within_budget(source, moved.astype(np.uint8), Path("a.jpg"), {"linf": 12 / 255}, judge)
    assert whole > 0
    assert fitted.measures.progress is not None
    assert fitted.measures.progress > 0.6 * whole
    assert (fitted.encoding.quality or 0) > 30


def test_a_cloak_is_weakened_and_that_is_said() -> None:
    def best(budget: dict[str, float | None]) -> fit.Fitted:
        return fit.within_budget(ORIGINAL, smooth(9, ORIGINAL), Path("a.jpg"), budget, JUDGE, quality=100)

    wanted = best({}).measures.ssimulacra2 + 1
    fitted = best({"ssimulacra2": wanted})
    assert fitted.measures.ssimulacra2 >= wanted - 0.01
    assert "weakened to" in fitted.notes[-1]


def test_a_quality_that_is_asked_for_comes_first() -> None:
    assert fit.within_budget(ORIGINAL, cloaked(2), Path("a.jpg"), {}, JUDGE, quality=70).encoding.quality == 70
    webp = fit.within_budget(ORIGINAL, cloaked(2), Path("a.webp"), {}, JUDGE, quality=70)
    assert webp.encoding.quality == 70


def test_webp_follows_its_source() -> None:
    lossless, lossy = (picture.decode(samples.SAMPLES[f"webp {kind}"](), Path("a")) for kind in ("lossless", "lossy"))
    assert formats.ladder(lossless, ".webp") == (formats.LOSSLESS,)
    qualities = [encoding.quality for encoding in formats.ladder(lossy, ".webp")]
    assert qualities[0] is not None
    assert qualities[-1] is None


@pytest.mark.parametrize("profile", ["DISPLAY_P3", "ADOBE_RGB"])
def test_the_budget_holds_on_a_wide_picture_too(profile: str) -> None:
    icc = getattr(profiles, profile)
    image, own = Image.fromarray(samples.levels()), ImageCms.ImageCmsProfile(io.BytesIO(icc))
    image = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), own, outputMode="RGB") or image
    source = picture.decode(samples.saved(image, "PNG", icc_profile=icc), Path("a"))
    for suffix in (".png", ".tif", ".jpg"):
        fitted = fit.within_budget(
            source, smooth(8, source), Path(f"a{suffix}"), {"linf": 9 / 255}, Judge(source.levels)
        )
        again = picture.decode(fitted.data, Path("a"))
        assert again.icc == icc
        assert 0 < np.abs(again.levels.astype(int) - source.levels).max() <= 9


def test_what_a_format_does_not_hold_is_in_the_notes() -> None:
    source = picture.decode(samples.png(samples.levels(1, 16), (b"tEXt", b"Title\0Harbour")), Path("a"))
    fitted = fit.within_budget(source, smooth(5, source), Path("a.jpg"), {}, Judge(source.levels))
    notes = "\n".join(fitted.notes)
    for part in ("stays grey", "8 bits a channel", "PNG text is not kept in JPEG: Title"):
        assert part in notes
    assert (fitted.levels == fitted.levels[:, :, :1]).all()


@pytest.mark.parametrize("name", ["png", "png 16", "png grey", "png alpha", "tiff cmyk", "png palette, one clear"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_what_a_lossless_file_holds_can_be_encoded_again(name: str, suffix: str) -> None:
    source = picture.decode(samples.SAMPLES[name](), Path("a"))
    assert source.bytes == len(samples.SAMPLES[name]())
    fitted = fit.within_budget(source, smooth(5, source), Path(f"a{suffix}"), {"linf": 12 / 255}, Judge(source.levels))
    np.testing.assert_array_equal(fitted.picture.levels, fitted.levels)
    assert picture.encode(fitted.picture, suffix, fitted.encoding) == fitted.data


def test_frames_that_fit_are_kept_as_they_were_measured() -> None:
    for kind in ("GIF", "TIFF"):
        frames = picture.decode_frames(samples.animation(kind), Path("a"))
        for suffix in (".png", ".webp", ".tif"):
            fitted = [
                fit.within_budget(each, smooth(5, each), Path(f"a{suffix}"), {"linf": 5 / 255}, Judge(each.levels))
                for each in frames
            ]
            data = picture.encode_frames([each.picture for each in fitted], suffix)
            for found, each in zip(picture.decode_frames(data, Path("b")), fitted, strict=True):
                np.testing.assert_array_equal(found.levels, each.levels)
