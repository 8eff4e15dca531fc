"""Faces are found where they are, in pictures of any size, the largest first; and where there is none, none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from glaze_trt import faces
from tests.glaze_trt.scene import face, waves


def holds(box: tuple[int, ...], x: float, y: float) -> bool:
    return bool(box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3])


@pytest.mark.parametrize("side", [96, 160, 700])
def test_a_face_is_found_with_its_eyes_and_mouth(side: int) -> None:
    (box,) = faces.find(np.asarray(face(side)))
    for x, y in ((0.39, 0.48), (0.61, 0.48), (0.5, 0.72)):
        assert holds(box, x * side, y * side)
    assert 0.5 * side < box[2] <= side
    assert box[0] >= 0
    assert box[1] >= 0
    assert box[0] + box[2] <= side
    assert box[1] + box[3] <= side


def test_several_faces_the_largest_first_in_a_picture_that_is_looked_at_smaller() -> None:
    page = Image.new("RGB", (2400, 1400), (90, 110, 130))
    page.paste(face(500), (100, 500))
    page.paste(face(900), (1200, 200))
    large, small = faces.find(np.asarray(page))
    assert holds(large, 1200 + 0.5 * 900, 200 + 0.55 * 900)
    assert holds(small, 100 + 0.5 * 500, 500 + 0.55 * 500)
    assert large[2] > small[2]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (8, 8), (23, 200), (3000, 20), (64, 96)])
def test_pictures_without_a_face(size: tuple[int, int]) -> None:
    assert faces.find(waves(*size)) == []
