from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from glaze_trt import styles
from glaze_trt.styles.sheet import sheet
from tests.glaze_trt.scene import scene


def test_the_sheet_holds_the_picture_and_every_style() -> None:
    levels = scene(48, 64)
    page = np.asarray(sheet(levels, seed=2))
    assert _holds(page, levels)
    for name in styles.available():
        painted = np.rint(styles.apply(name, levels / np.float32(255), seed=2) * 255).astype(np.uint8)
        assert _holds(page, painted), name


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (8, 8)])
def test_any_shape_is_laid_out(shape: tuple[int, int]) -> None:
    page = sheet(scene(*shape))
    assert page.mode == "RGB"
    assert len(page.getcolors(1 << 24)) > 8


def test_a_large_picture_is_shown_reduced() -> None:
    page = np.asarray(sheet(scene(400, 1600)))
    assert page.shape[1] < 5 * 600


def _holds(page: NDArray[np.uint8], picture: NDArray[np.uint8]) -> bool:
    """Whether the picture lies on the page, pixel for pixel."""
    height, width = picture.shape[:2]
    first = (page[: -height + 1, : -width + 1] == picture[0, 0]).all(axis=2)
    last = (page[height - 1 :, width - 1 :] == picture[-1, -1]).all(axis=2)
    places = zip(*np.nonzero(first & last), strict=True)
    return any(np.array_equal(page[y : y + height, x : x + width], picture) for y, x in places)
