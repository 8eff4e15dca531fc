"""The page as it is written; what a browser makes of it is in `test_html_browser`."""

from __future__ import annotations

import io
import re
import threading
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.runtime.processor import detect
from glaze_trt import models
from glaze_trt.errors import OutputError
from glaze_trt.report import html_report
from tests.glaze_trt.report.reported import entry

_URI = re.compile(r"data:image/(\w+);base64,([A-Za-z0-9+/=]+)")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def pictures(page: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(b64decode(data))) for _, data in _URI.findall(page)]


def test_one_file_holds_all(tmp_path: Path) -> None:
    path = html_report.write(tmp_path / "new" / "report", [entry()], settings={"seed": 7})
    assert [each.name for each in path.parent.iterdir()] == ["index.html"]
    page = text(path)
    assert page.startswith("<!doctype html>")
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "url(" not in page
    assert "@import" not in page
    shown = pictures(page)
    # before, after, the difference, the target, three that the model sees, and the index's, which is not shown for one
    assert [image.size for image in shown] == [(64, 48)] * 7
    before = np.asarray(shown[0].convert("RGB"), np.int16)
    assert np.abs(before - entry().before).mean() < 4


def test_what_was_measured_and_set_is_there(tmp_path: Path) -> None:
    nets = [models.find("tiny", "encoder"), models.find("tiny", "perceptual")]
    settings = {"robust": ("jpeg", "noise"), "engines": None, "overwrite": False, "mask": Path("masks/a.png")}
    page = text(html_report.write(tmp_path, [entry()], settings=settings, models=nets))
    for shown in (
        *("0.40", "71.2", "at least 70", "0.031", "at most 0.05", "4 / 255", "at most 16 / 255", "36.5 dB"),
        *("After JPEG 75", "50\u00a0%", "After half size and back", "-25\u00a0%", "110\u00a0%", "limit 0.05"),
        *("<dt>robust</dt><dd>jpeg, noise</dd>", "<dt>overwrite</dt><dd>no</dd>", "masks/a.png", "a processor"),
        *("64 × 48 · target: impasto · model tiny · 40 steps · 12.5 s", "JPEG quality 98", "demonstration"),
        *(f"<dt>encoder tiny</dt><dd>sha256 {(nets[0].manifest.sha256 or '')[:12]}", "<dt>onnxruntime</dt>"),
    ):
        assert shown in page, shown
    assert "engines</dt>" not in page


def test_a_target_keeps_its_name_and_a_device_is_named_once(tmp_path: Path) -> None:
    given = entry(target="2 x 2.png", device=detect().name)
    page = text(html_report.write(tmp_path, [given], settings={}))
    assert "64 × 48 · target: 2 x 2.png" in page
    assert page.count(f"<dd>{detect().name}</dd>") == 2  # of the picture and of the run


def test_a_report_may_lack_anything(tmp_path: Path) -> None:
    first = entry()
    bare = html_report.Entry(first.before, first.before, None, None, {})
    page = text(html_report.write(tmp_path, [bare, bare], settings={}))
    assert page.count('<section class="picture"') == 2
    assert "What the model sees" not in page
    assert "no-progress" in page
    for number, lacking in enumerate(list(entry().made)):
        made = {key: value for key, value in entry().made.items() if key != lacking}
        given = html_report.Entry(first.before, first.after, None, None, made)
        html_report.write(tmp_path / str(number), [given], settings={})


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (2000, 3), (700, 900)])
def test_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    page = text(html_report.write(tmp_path, [entry(size=size)], settings={}))
    assert all(max(image.size) <= 1024 for image in pictures(page))
    assert ("Parts at full size" in page) == (max(size) > 1024)


def test_parts_of_a_large_picture_are_shown_as_they_are(tmp_path: Path) -> None:
    given = entry(size=(900, 1300))
    after = given.before.copy()
    after[500:600, 800:900] += 9
    changed = html_report.Entry(given.before, after, None, None, given.made)
    page = text(html_report.write(tmp_path, [changed], settings={}))
    exact = [np.asarray(image.convert("RGB")) for image in pictures(page) if image.format == "WEBP"]
    place = re.search(r"The part that changed most, at (\d+), (\d+)", page)
    assert place is not None
    x, y = map(int, place.groups())
    assert x <= 800
    assert x + 320 >= 900
    assert y <= 500
    assert y + 320 >= 600
    np.testing.assert_array_equal(exact[0], given.before[y : y + 320, x : x + 320])
    np.testing.assert_array_equal(exact[1], after[y : y + 320, x : x + 320])


def test_text_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;.png"
    given = entry(name=evil.replace("/", "\u2215"), notes=[evil], target=evil, model=evil, device=evil, engine=evil)
    with html_report.Page(tmp_path, {evil: evil, "also": {evil: [evil]}}, note=evil, title=evil) as page:
        page.add(given)
        page.add(given)
        page.fail(evil, f"`{evil}`: {evil}")
    written = text(tmp_path / "index.html")
    assert written.count("<script>") == 1  # the page's own
    assert "<img src=x" not in written
    assert "&lt;script&gt;alert(1)" in written


def test_a_name_that_is_no_text_is_no_trouble(tmp_path: Path) -> None:
    page = text(html_report.write(tmp_path, [entry(name="caf\udce9\u202e.png")], settings={"a": "\udcff"}))
    assert "caf?" in page


def test_the_page_comes_to_be_when_it_is_closed(tmp_path: Path) -> None:
    page = html_report.Page(tmp_path, {})
    page.add(entry())
    assert not (tmp_path / "index.html").exists()
    page.fail("b.png", "b.png: is empty")
    path = page.close()
    assert page.close() == path
    assert [each.name for each in tmp_path.iterdir()] == ["index.html"]
    assert "b.png: is empty" in text(path)
    assert "b.png: b.png" not in text(path)


def test_an_error_leaves_nothing_and_an_interrupt_what_was_done(tmp_path: Path) -> None:
    def begun(error: BaseException) -> None:
        with html_report.Page(tmp_path, {}) as page:
            page.add(entry())
            raise error

    for error, there in ((ValueError(), []), (KeyboardInterrupt(), ["index.html"])):
        with pytest.raises(type(error)):
            begun(error)
        assert [each.name for each in tmp_path.iterdir()] == there


def test_a_page_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(OutputError, match=r"index\.html: exists already; .* --overwrite"):
        html_report.Page(tmp_path, {})
    assert not html_report.is_page(tmp_path)
    html_report.write(tmp_path, [entry()], settings={}, overwrite=True)
    assert "art.png" in text(tmp_path / "index.html")
    assert html_report.is_page(tmp_path)
    assert not html_report.is_page(tmp_path / "none")


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="no report can be written there"):
        html_report.Page(tmp_path / "file" / "report", {})


def test_a_full_disk_costs_the_page_one_picture(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with html_report.Page(tmp_path, {}) as page:
        page.add(entry(name="first.png"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
        try:
            with pytest.raises(OutputError, match="the report cannot be written"):
                page.add(entry(name="large.png", size=(700, 700)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        page.add(entry(name="last.png"))
    written = text(tmp_path / "index.html")
    assert "2 pictures" in written
    assert "large.png" not in written
    assert written.count("</section>") == written.count("<section") == 3
    assert 'id="p3"' in written


def test_the_more_pictures_the_smaller_and_memory_does_not_grow(tmp_path: Path) -> None:
    sizes = []
    for expected in (1, 50, 300, 1000, 5000):
        with html_report.Page(tmp_path / str(expected), {}, expected=expected) as page:
            page.add(entry(size=(900, 1200)))
        sizes.append((tmp_path / str(expected) / "index.html").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert 5000 * (sizes[-1] - 20_000) < 400e6


def test_threads_may_share_a_page(tmp_path: Path) -> None:
    names = [f"{index}.png" for index in range(12)]
    with html_report.Page(tmp_path, {}) as page:
        threads = [threading.Thread(target=page.add, args=(entry(name=name),)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    written = text(tmp_path / "index.html")
    assert sorted(re.findall(r'<section class="picture" id="p(\d+)"', written), key=int) == [
        str(number) for number in range(1, 13)
    ]
    assert sorted(re.findall(r'<td data-v="([^"]+\.png)"', written)) == sorted(names)
