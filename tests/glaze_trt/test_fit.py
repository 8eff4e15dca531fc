from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glaze_trt import fit, picture
from glaze_trt.errors import BudgetError
from glaze_trt.evaluate import Judge
from tests.glaze_trt.scene import scene

ORIGINAL = picture.from_levels(scene(64, 96))
JUDGE = Judge(ORIGINAL.levels)


def cloaked(size: int) -> np.ndarray:
    change = size * np.sign(np.random.default_rng(2).standard_normal(ORIGINAL.rgb.shape))
    return np.clip(ORIGINAL.levels + change, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_lossless_files_hold_exactly_what_was_made(suffix: str) -> None:
    fitted = fit.within_budget(ORIGINAL, cloaked(4), Path(f"a.{suffix}"), {"linf": 4 / 255}, JUDGE)
    np.testing.assert_array_equal(picture.decode(fitted.data, Path("a")).levels, cloaked(4))
    assert fitted.measures.linf == 4 / 255
    assert fitted.notes == ()


def test_a_jpeg_is_measured_on_what_it_decodes_to() -> None:
    loose = fit.within_budget(ORIGINAL, cloaked(8), Path("a.jpg"), {}, JUDGE)
    strict = fit.within_budget(ORIGINAL, cloaked(8), Path("a.jpg"), {"linf": 8 / 255}, JUDGE)
    for fitted in (loose, strict):
        decoded = picture.decode(fitted.data, Path("a")).levels
        assert fitted.measures == JUDGE(decoded)
    assert loose.measures.linf > 8 / 255
    assert strict.measures.linf <= 8 / 255
    assert "weakened" in strict.notes[-1]


def test_a_budget_that_no_jpeg_can_keep_points_to_png() -> None:
    with pytest.raises(BudgetError, match=r"choose \.png"):
        fit.within_budget(ORIGINAL, cloaked(4), Path("a.jpg"), {"linf": 0.0}, JUDGE)
