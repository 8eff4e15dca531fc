"""Where a picture may change: masks, regions, and what is said of those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.tape import OPSET, Tape
from glaze_trt import area, styles
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.evaluate import Lpips, ssimulacra2
from glaze_trt.measure.ssim import ssim
from glaze_trt.result import to_levels
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


def test_a_mask_lies_as_a_viewer_shows_it(tmp_path: Path) -> None:
    grey = np.zeros((48, 64), np.uint8)
    grey[:12, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    path = tmp_path / "turned.png"
    Image.fromarray(grey).save(path, exif=exif)
    found, _ = area.of(PICTURE, path, (), faces=False)
    np.testing.assert_array_equal(found, grey[::-1, ::-1] / np.float32(255))


@pytest.mark.parametrize(
    ("kind", "scale", "suffix"), [(np.int32, 255, "tif"), (np.int32, 65535, "tif"), (np.float32, 1, "tif")]
)
def test_a_mask_of_any_depth_is_its_grey(kind: type, scale: int, suffix: str, tmp_path: Path) -> None:
    wanted = np.zeros((48, 64))
    wanted[:, 20:40], wanted[:, 40:] = 0.5, 1
    path = tmp_path / f"mask.{suffix}"
    Image.fromarray((wanted * scale).astype(kind)).save(path)
    found, _ = area.of(PICTURE, path, (), faces=False)
    np.testing.assert_allclose(found, wanted, atol=0.005)


def test_what_is_transparent_in_a_mask_is_black(tmp_path: Path) -> None:
    colours = np.full((48, 64, 4), 255, np.uint8)
    colours[:, :30, 3], colours[:, 30:40, 3] = 0, 128
    found, _ = area.of(PICTURE, drawn(tmp_path, colours), (), faces=False)
    np.testing.assert_allclose(found, colours[..., 3] / 255, atol=1e-6)


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


def test_a_budget_is_that_of_the_part_that_may_change() -> None:
    """A small region of a large picture may not be spoilt because the rest of it stays."""
    picture, region = waves(96, 128), (40, 30, 32, 32)
    mask = np.zeros((96, 128), np.float32)
    mask[30:62, 40:72] = 1
    cloaker = Cloaker(objective=make_objective(steps=10), engine_name="onnxruntime")
    report = (result := cloaker(picture, target=waves(96, 128, seed=5), mask=mask)).report
    x, y, w, h = (region[0] - 5, region[1] - 5, 42, 42)
    before, after = (np.ascontiguousarray(each[y : y + h, x : x + w]) for each in (picture, result.rgb))
    scores = ssimulacra2(before, after), ssimulacra2(picture, result.rgb)
    assert min(scores) == pytest.approx(report.ssimulacra2, abs=1e-6)
    assert report.ssimulacra2 >= 70
    assert report.ssimulacra2 < 75 or report.lpips > 0.04  # one of the limits is used up
    assert Lpips(cloaker.perceptual, before)(after) == pytest.approx(report.lpips, rel=1e-3)
    assert report.lpips <= 0.05
    assert report.progress > 0.01
    assert any("LPIPS and SSIM are of the part that may change, at 35,25,42,42;" in note for note in report.notes)
    change = np.abs(result.rgb.astype(int) - picture).max(2)
    assert not change[mask == 0].any()


def test_fawkes_keeps_its_dssim_in_the_face(tmp_path: Path) -> None:
    picture, (x, y, w, h) = waves(96, 96), (20, 30, 32, 32)
    mask = np.zeros((96, 96), np.float32)
    mask[y : y + h, x : x + w] = 1
    objective = make_objective(preset="fawkes", steps=20)
    cloaker = Cloaker(str(embedding(tmp_path)), objective=objective, engine_name="onnxruntime")
    result = cloaker(picture, mask=mask, boxes=[(x, y, w, h)])
    part = slice(y - 5, y + h + 5), slice(x - 5, x + w + 5)
    assert 0.004 < (1 - ssim(picture[part], result.rgb[part])) / 2 <= 0.012
    assert result.report.progress > 0.1


@pytest.mark.parametrize(
    ("used", "wanted"),
    [
        (np.s_[20:40, 10:30], (5, 15, 30, 30)),
        (np.s_[0:1, 0:1], (0, 0, 17, 17)),
        (np.s_[47:48, 63:64], (47, 31, 17, 17)),
        (np.s_[20:21, 30:31], (22, 12, 17, 17)),
        (np.s_[:, 3:40], (0, 0, 45, 48)),
        (np.s_[:, :], None),
    ],
)
def test_the_part_is_what_may_change_with_a_margin(
    used: tuple[slice, slice], wanted: tuple[int, ...] | None, cloaker: Cloaker
) -> None:
    mask = np.full((48, 64), 0.01)  # less than half a level of 24, so nothing
    mask[used] = 1
    assert cloaker.window(mask) == wanted
    assert cloaker.window(None) is None


def test_boxes_that_nothing_would_look_at(tmp_path: Path, cloaker: Cloaker) -> None:
    with pytest.raises(UsageError, match="tiny takes pictures of any size, so it would see all of the picture"):
        cloaker(PICTURE, boxes=[(4, 4, 30, 30)])
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="free")
    shape = ir.Shape((1, 3, "height", "width"))
    graph.inputs.append(ir.Value(name="face", shape=shape, type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    result = tape.ReduceMean(tape.Conv(graph.inputs[0], np.ones((4, 3, 8, 8), np.float32), strides=[8, 8]), [2, 3])
    result.name = "embedding"
    graph.outputs.append(result)
    path = tmp_path / "free.onnx"
    ir.save(ir.Model(graph, ir_version=10), path)
    mixed = Cloaker(["tiny", str(path), str(embedding(tmp_path))], objective=make_objective(steps=1))
    with pytest.raises(UsageError, match="free takes pictures of any size, .* one fixed height and width"):
        mixed(PICTURE, boxes=[(4, 4, 30, 30)])


def test_a_style_of_the_picture_is_seen_through_the_box_of_it_and_a_picture_given_is_not(tmp_path: Path) -> None:
    path, box = embedding(tmp_path), (10, 6, 30, 36)
    cloaker = Cloaker(str(path), objective=make_objective(steps=3), engine_name="onnxruntime")
    styled = to_levels(styles.apply(styles.DEFAULT, PICTURE.astype(np.float32) / 255, 0))
    before = embed_raw(path, PICTURE, box)

    def told(goal: np.ndarray, after: np.ndarray) -> float:
        return float(1 - np.linalg.norm(embed_raw(path, after, box) - goal) / np.linalg.norm(before - goal))

    made, aligned, given = (
        cloaker(PICTURE, boxes=[box], **wanted)
        for wanted in ({}, {"target": styled, "aligned": True}, {"target": styled})
    )
    np.testing.assert_array_equal(made.rgb, aligned.rgb)
    assert made.report.progress == pytest.approx(told(embed_raw(path, styled, box), made.rgb), abs=0.05)
    assert given.report.progress == pytest.approx(told(embed_raw(path, styled), given.rgb), abs=0.05)
    assert not np.array_equal(made.rgb, given.rgb)


def test_without_a_box_an_embedding_sees_the_whole_picture_and_no_mirrored_edge(tmp_path: Path) -> None:
    path, picture, target = embedding(tmp_path), waves(41, 53), waves(41, 53, seed=5)
    cloaker = Cloaker(["tiny", str(path)], objective=make_objective(steps=4), engine_name="onnxruntime")
    result = cloaker(picture, target=target)  # which is grown to 48 x 56 for "tiny"
    (progress,) = [value for name, value in result.report.progresses.items() if name != "tiny"]
    before, after, goal = (embed_raw(path, levels) for levels in (picture, result.rgb, target))
    wanted = 1 - np.linalg.norm(after - goal) / np.linalg.norm(before - goal)
    assert progress == pytest.approx(wanted, abs=0.02)
    assert progress > 0.05
