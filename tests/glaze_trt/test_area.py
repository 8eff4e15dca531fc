"""Where a picture may change: masks, regions, and what is said of those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from glaze_trt import area
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import PictureError, UsageError
from tests.glaze_trt.embedding import embed, embed_raw, embedding
from tests.glaze_trt.scene import face, waves

PICTURE = waves(48, 64)


def drawn(folder: Path, grey: NDArray[np.uint8], name: str = "mask.png") -> Path:
    path = folder / name
    Image.fromarray(grey).save(path)
    return path


def test_all_of_it_where_nothing_is_said() -> None:
    assert area.of(PICTURE, None, (), faces=False) == (None, ())


def test_a_mask_is_its_grey(tmp_path: Path) -> None:
    grey = np.zeros((48, 64), np.uint8)
    grey[:, 20:40], grey[:, 40:] = 128, 255
    found, boxes = area.of(PICTURE, drawn(tmp_path, grey), (), faces=False)
    assert boxes == ()
    assert found is not None
    np.testing.assert_allclose(found, grey / 255, atol=1e-6)
    assert found.dtype == np.float32
    coloured = np.repeat(grey[..., None], 3, axis=2)
    same, _ = area.of(PICTURE, drawn(tmp_path, coloured, "rgb.png"), (), faces=False)
    np.testing.assert_array_equal(same, found)


def test_a_mask_of_16_bits_is_its_grey(tmp_path: Path) -> None:
    grey = np.full((48, 64), 32768, np.uint16)
    grey[:10], grey[10:20] = 0, 65535
    found, _ = area.of(PICTURE, drawn(tmp_path, grey), (), faces=False)
    np.testing.assert_allclose(found, grey / 65535, atol=0.005)


def test_regions_are_white_and_cut_to_the_picture() -> None:
    found, boxes = area.of(PICTURE, None, [(4, 6, 10, 12), (60, 40, 100, 100)], faces=False)
    wanted = np.zeros((48, 64), np.float32)
    wanted[6:18, 4:14] = wanted[40:, 60:] = 1
    np.testing.assert_array_equal(found, wanted)
    assert boxes == ()
    _, boxes = area.of(PICTURE, None, [(4, 6, 10, 12), (60, 40, 100, 100)], faces=True)
    assert boxes == ((4, 6, 10, 12), (60, 40, 4, 8))


def test_a_mask_and_a_region_leave_what_both_allow(tmp_path: Path) -> None:
    grey = np.zeros((48, 64), np.uint8)
    grey[:, :32] = 255
    found, _ = area.of(PICTURE, drawn(tmp_path, grey), [(24, 0, 16, 48)], faces=False)
    assert found is not None
    assert set(np.flatnonzero(found.any(0))) == set(range(24, 32))
    with pytest.raises(PictureError, match=r"mask\.png: leaves nothing that may change; white is"):
        area.of(PICTURE, tmp_path / "mask.png", [(40, 0, 16, 48)], faces=False)


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    for path, reason in (
        (tmp_path / "none.png", "the mask cannot be read as a picture"),
        (tmp_path, "the mask cannot be read as a picture"),
        (tmp_path / "text.png", "the mask cannot be read as a picture"),
        (drawn(tmp_path, np.full((64, 48), 255, np.uint8)), "the mask is 48 x 64 and the picture 64 x 48"),
        (drawn(tmp_path, np.zeros((48, 64), np.uint8), "black.png"), "leaves nothing that may change"),
    ):
        with pytest.raises(PictureError, match=reason) as caught:
            area.of(PICTURE, path, (), faces=False)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,5,5", "1,2,0,4", "1,2,3,0", "1.5,2,3,4"])
def test_regions_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="give x,y,width,height in pixels, as 100,40,256,256"):
        area.parse(text)


def test_a_region_outside_the_picture() -> None:
    assert area.parse(" 1, 2,3 ,4") == (1, 2, 3, 4)
    for box in ((64, 0, 5, 5), (0, 48, 5, 5), (900, 900, 1, 1)):
        with pytest.raises(UsageError, match="lies outside the picture, which is 64 x 48"):
            area.of(PICTURE, None, [box], faces=False)


def test_faces_are_looked_for_only_where_no_region_is_given() -> None:
    portrait = np.asarray(face())
    found, (box,) = area.of(portrait, None, (), faces=True)
    x, y, w, h = box
    assert found is not None
    assert found[y : y + h, x : x + w].all()
    assert found.sum() == w * h < portrait.shape[0] * portrait.shape[1]
    assert area.of(portrait, None, [(1, 2, 9, 8)], faces=True)[1] == ((1, 2, 9, 8),)
    with pytest.raises(PictureError, match="no face was found; name one by --region .* --region 0,0,64,48 for all"):
        area.of(PICTURE, None, (), faces=True)


@pytest.fixture(scope="module")
def cloaker() -> Cloaker:
    return Cloaker(objective=make_objective("high", steps=6), engine_name="onnxruntime")


def test_outside_a_mask_nothing_changes_and_grey_halves_the_cap(cloaker: Cloaker) -> None:
    mask = np.zeros((48, 64))
    mask[:, 24:44], mask[:, 44:] = 0.5, 1
    result = cloaker(PICTURE, target=waves(48, 64, seed=5), mask=mask)
    change = np.abs(result.rgb.astype(int) - PICTURE).max(2)
    assert not change[:, :24].any()
    assert 4 < change[:, 24:44].max() <= 12
    assert 12 < change[:, 44:].max() <= 24


def test_masks_of_the_library_that_cannot_be_used(cloaker: Cloaker) -> None:
    for mask, reason in (
        (np.ones((64, 48)), "the mask is"),
        (np.full((48, 64), 1.5), r"must lie in \[0,1\]"),
        (np.full((48, 64), np.nan), r"must lie in \[0,1\]"),
        (np.zeros((48, 64)), "black all over"),
    ):
        with pytest.raises(PictureError, match=reason):
            cloaker(PICTURE, mask=mask)


def test_an_embedding_of_every_box_moves(tmp_path: Path) -> None:
    path, boxes = embedding(tmp_path), [(2, 3, 20, 24), (36, 10, 40, 30)]
    objective = make_objective(preset="fawkes", steps=15)
    result = Cloaker(str(path), objective=objective, engine_name="onnxruntime")(PICTURE, boxes=boxes)
    assert set(result.report.progresses) == {"face at 2,3,20,24", "face at 36,10,28,30"}  # cut to the picture
    for box in ((2, 3, 20, 24), (36, 10, 28, 30)):
        shift = float(np.linalg.norm(embed(path, result.rgb, box) - embed(path, PICTURE, box)))
        assert shift == pytest.approx(result.report.progresses["face at {},{},{},{}".format(*box)], abs=0.02)
        assert shift > 0.1
    with pytest.raises(PictureError, match="the box 64,0,5,5 lies outside the picture"):
        Cloaker(str(path), objective=objective)(PICTURE, boxes=[(64, 0, 5, 5)])


def test_without_a_box_an_embedding_sees_the_whole_picture_and_no_mirrored_edge(tmp_path: Path) -> None:
    path, picture, target = embedding(tmp_path), waves(41, 53), waves(41, 53, seed=5)
    cloaker = Cloaker(["tiny", str(path)], objective=make_objective(steps=4), engine_name="onnxruntime")
    result = cloaker(picture, target=target)  # which is grown to 48 x 56 for "tiny"
    (progress,) = [value for name, value in result.report.progresses.items() if name != "tiny"]
    before, after, goal = (embed_raw(path, levels) for levels in (picture, result.rgb, target))
    wanted = 1 - np.linalg.norm(after - goal) / np.linalg.norm(before - goal)
    assert progress == pytest.approx(wanted, abs=0.02)
    assert progress > 0.05
