from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glaze_trt import models
from glaze_trt.network import Network
from glaze_trt.report import contact_sheet
from tests.glaze_trt.scene import scene

FACTS = [contact_sheet.Fact("LPIPS", "0.041", "at most 0.05")] * 6


def views(height: int = 48, width: int = 64) -> contact_sheet.Views:
    return contact_sheet.Views(*(scene(height, width, seed) for seed in range(3)))


def test_the_difference_is_amplified_about_grey() -> None:
    before = np.full((2, 2, 3), 100, np.uint8)
    assert (contact_sheet.difference(before, before) == 128).all()
    assert (contact_sheet.difference(before, before + 3) == 128 + 3 * contact_sheet.AMPLIFIED).all()
    assert (contact_sheet.difference(before, before - 90) == 0).all()


@pytest.mark.parametrize("size", [(512, 512), (48, 64), (900, 40), (1, 700), (1, 1)])
def test_every_picture_is_on_the_sheet(size: tuple[int, int]) -> None:
    seen = views(*size)
    one = contact_sheet.contact_sheet(seen, None, title="a" * 300, subtitle="日本 " * 90, facts=FACTS)
    two = contact_sheet.contact_sheet(seen, seen, title="a", subtitle="b", facts=FACTS, note="mind " * 200)
    assert two.height > one.height
    if max(size) <= 512:  # shown as it is, unscaled
        page = np.asarray(one)
        found = np.lib.stride_tricks.sliding_window_view(page[:, :, 0], seen.after.shape[:2])
        corner = np.argwhere(
            (found[:, :, 0, 0] == seen.after[0, 0, 0]) & (found[:, :, -1, -1] == seen.after[-1, -1, 0])
        )
        height, width = size
        assert any((page[y : y + height, x : x + width] == seen.after).all() for y, x in corner)


def test_the_difference_of_a_large_picture_is_not_averaged_away() -> None:
    before = np.full((1024, 1024, 3), 120, np.uint8)
    after = before + np.random.default_rng(0).choice(np.uint8([0, 6]), before.shape)
    sheet = contact_sheet.contact_sheet(
        contact_sheet.Views(before, after, before), None, title="", subtitle="", facts=[]
    )
    page = np.asarray(sheet)
    for value in (128, 128 + 6 * contact_sheet.AMPLIFIED):
        assert (page == value).mean() > 0.05


def test_a_name_is_drawn_in_one_line() -> None:
    first, second = (
        np.asarray(contact_sheet.contact_sheet(views(), None, title=title, subtitle="", facts=FACTS))
        for title in ("a\nb\x1b.png", "a?b?.png")
    )
    np.testing.assert_array_equal(first, second)


def test_the_model_sees_three_pictures_of_the_same_size() -> None:
    seen = contact_sheet.model_views(Network(models.find("tiny", "encoder")), views(43, 61))
    assert seen is not None
    assert seen.before.shape == seen.after.shape == seen.target.shape == (43, 61, 3)


def test_the_sheet_is_saved_whole(tmp_path: Path) -> None:
    sheet = contact_sheet.contact_sheet(views(), None, title="a", subtitle="b", facts=FACTS)
    contact_sheet.save_sheet(tmp_path / "sheet.png", sheet)
    with Image.open(tmp_path / "sheet.png") as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(sheet))
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_budget_of_dssim_is_a_fact() -> None:
    made = {"progress": 0.4, "model": "tiny", "ssim": 0.98, "psnr": None, "budget": {"dssim": 0.012, "linf": 15 / 255}}
    found = {fact.label: (fact.value, fact.remark) for fact in contact_sheet.facts(made | {"linf": 15 / 255})}
    assert found["DSSIM"] == ("0.0100", "at most 0.012")
    assert found["Largest change"] == ("15 / 255", "at most 15 / 255")
    assert found["PSNR"] == ("identical", "")
    assert "SSIMULACRA2" not in found
    assert "DSSIM" not in {fact.label for fact in contact_sheet.facts(made | {"budget": {"dssim": None}})}


def test_of_a_large_picture_the_model_is_shown_the_part_that_changed_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "MODEL_SIDE", 64)
    before = scene(96, 128)
    after = before.copy()
    after[70:90, 10:30] += 5
    encoder = Network(models.find("tiny", "encoder"))
    seen = contact_sheet.model_views(encoder, contact_sheet.Views(before, after, before))
    assert seen is not None
    assert seen.box is not None
    x, y, width, height = seen.box
    assert (width, height) == (64, 48)
    assert x <= 10
    assert x + width >= 30
    assert y <= 70
    assert y + height >= 90
    part = (slice(y, y + height), slice(x, x + width))
    alone = contact_sheet.model_views(
        encoder, contact_sheet.Views(*(np.ascontiguousarray(p[part]) for p in (before, after, before)))
    )
    assert alone is not None
    np.testing.assert_array_equal(alone.after, seen.after)
