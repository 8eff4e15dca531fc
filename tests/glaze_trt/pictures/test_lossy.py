"""Lossy files: how closely a source is matched, and what is said of it (`runs.fit`, `pictures.formats`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench import formats_samples as samples
from glaze_trt.evaluate import Judge, Measures
from glaze_trt.pictures import formats, picture
from glaze_trt.runs import fit

LEVELS = samples.levels(height=96, width=128)


class Chance:
    """A judge to whom every file keeps its budget, with so much of the progress left in one after the other."""

    def __init__(self, left: Sequence[float]) -> None:
        self._left = iter(left)

    def __call__(self, levels: Any) -> Measures:
        return Measures(linf=0.01, ssimulacra2=90.0, ssim=0.99, psnr=40.0, progress=next(self._left))

    def mean_progress(self, levels: Any) -> float:
        return 1.0


def jpeg(sampling: str, quality: int = 80) -> picture.Picture:
    """By OpenCV, as Pillow does not write every sampling."""
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling.replace(':', '')}")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return picture.decode(cv2.imencode(".jpg", LEVELS[:, :, ::-1], options)[1].tobytes(), Path("source.jpg"))


@pytest.mark.parametrize(
    ("sampling", "written", "same"),
    [
        ("4:4:4", "4:4:4", True),
        ("4:2:2", "4:2:2", True),
        ("4:2:0", "4:2:0", True),
        ("4:1:1", "4:2:2", False),
        ("4:4:0", "4:4:4", False),
    ],
)
def test_a_sampling_that_is_not_written_is_not_said_to_be_matched(sampling: str, written: str, same: bool) -> None:
    source = jpeg(sampling)
    assert source.source is not None
    assert source.source.encoding is not None
    assert source.source.encoding.subsampling == sampling
    fitted = fit.within_budget(source, source.levels, Path("a.jpg"), {}, Judge(source.levels))
    again = picture.decode(fitted.data, Path("b")).source
    assert again is not None
    assert again.encoding is not None
    assert again.encoding.subsampling == written
    assert again.encoding.tables == source.source.encoding.tables
    assert f"quality 80, {written}{', as the input' if same else ';'}" in fitted.notes[0]


def test_a_better_quality_than_the_inputs_is_said() -> None:
    source = jpeg("4:2:0")
    fitted = fit.within_budget(source, source.levels, Path("a.jpg"), {}, Chance([0.1, 0.9]))  # type: ignore[arg-type]
    assert "JPEG quality 95, 4:2:0, better than the input's 80; 90% of the cloak's progress" in fitted.notes[0]
    other = fit.within_budget(source, source.levels, Path("a.webp"), {}, Chance([0.9]))  # type: ignore[arg-type]
    assert other.notes[0].startswith("WebP quality 90, 4:2:0; 90% of")


def test_webp_that_had_to_be_lossless_is_said() -> None:
    source = picture.decode(samples.SAMPLES["webp lossy"](), Path("a"))
    fitted = fit.within_budget(source, source.levels, Path("a.webp"), {"linf": 0.0}, Judge(source.levels))
    assert fitted.encoding == formats.LOSSLESS
    assert "WebP without loss" in fitted.notes[-1]


def test_the_file_that_keeps_most_of_the_cloak_is_taken_where_none_keeps_enough() -> None:
    source = picture.from_levels(LEVELS)
    judge = Chance([0.4, 0.6, 0.5])
    fitted = fit.within_budget(source, LEVELS ^ 1, Path("a.jpg"), {}, judge)  # type: ignore[arg-type]
    assert fitted.measures.progress == 0.6
    assert fitted.encoding.quality == 98
    assert np.array_equal(picture.decode(fitted.data, Path("b")).levels, fitted.levels)
