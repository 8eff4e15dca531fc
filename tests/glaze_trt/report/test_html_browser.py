"""The page in a real browser: nothing is fetched, dividers move by mouse, keys and fingers, the index sorts.

Needs Chromium (Debian: `apt-get install chromium`), which playwright, of the extra `dev`, is told of. Under CI their
absence is a failure, elsewhere a reason to skip.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from glaze_trt.report import html_report
from tests.glaze_trt.report.reported import entry

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
_CLIP = "stage => getComputedStyle(stage.querySelector('.before')).clipPath"
_EVIL = "<script>window.evil = 1<\u2215script><img src=x onerror='window.evil = 2'>.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None or find_spec("playwright") is None:
        reason = "needs chromium on PATH (Debian: apt-get install chromium) and playwright"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(_FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of one picture, and one of several."""
    folder = tmp_path_factory.mktemp("pages")
    html_report.write(folder / "one", [entry(size=(300, 1100))], settings={"seed": 1})
    several = [
        entry("a10.png", progress=0.2, ssimulacra2=75.0),
        entry("a9.png", (96, 80), progress=0.5, ssimulacra2=100.0, handled={}),
        entry(_EVIL, (40, 400), progress=0.3, ssimulacra2=-5.0, notes=[_EVIL]),
    ]
    with html_report.Page(folder / "several", {"seed": 1}) as page:
        for each in several:
            page.add(each)
        page.fail(_EVIL, "damaged")
    return folder


class Watched:
    """A page that is open, and what it said and asked for."""

    def __init__(self, context: Any, path: Path) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)

    def names(self) -> list[str]:
        return [str(name) for name in self.page.locator(".index tbody tr:visible td:nth-child(2)").all_inner_texts()]


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Any]:
    """Opens a page by its folder's name; in the end none has said, or asked for, anything."""
    watched: list[Watched] = []
    contexts = []

    def opened(name: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        watched.append(Watched(context, folder / name / "index.html"))
        return watched[-1]

    yield opened
    for each in watched:
        assert each.said == []
        assert [url for url in each.asked if not url.startswith("data:")] == [each.url]
    for context in contexts:
        context.close()


def test_every_picture_is_loaded_and_nothing_is_run_or_fetched(opened: Any) -> None:
    for name, count in (("one", 10), ("several", 3 * 8)):
        page = opened(name).page
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(widths) == count
        assert min(widths) > 0
        assert page.evaluate("window.evil") is None


def test_a_divider_moves_by_mouse(opened: Any) -> None:
    page = opened("one").page
    stage = page.locator(".stage").first
    box = stage.bounding_box()
    before = stage.evaluate(_CLIP)
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 60, steps=3)
    assert stage.evaluate(_CLIP) != before
    assert stage.locator("input").input_value() in ("24", "26")
    page.mouse.move(box["x"] - 300, box["y"] + 60)  # beyond the edge it stops there, and follows still
    assert stage.locator("input").input_value() == "0"
    page.mouse.up()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 60)
    assert stage.locator("input").input_value() == "0"
    page.locator(".flip").first.get_by_role("button", name="Before").click()
    assert "0%" in stage.evaluate(_CLIP)
    assert stage.locator("input").get_attribute("aria-valuetext") == "100 % original, 0 % cloaked"


def test_a_divider_moves_by_keys(opened: Any) -> None:
    page = opened("one").page
    slider = page.get_by_role("slider", name="Divider between original and cloaked", exact=True)
    seen = [page.locator(".stage").first.evaluate(_CLIP)]
    for _ in range(20):
        page.keyboard.press("Tab")
        if slider.evaluate("input => input === document.activeElement"):
            break
    for key, value in (("ArrowRight", "52"), ("PageDown", None), ("Home", "0"), ("End", "100")):
        page.keyboard.press(key)
        assert value in (None, slider.input_value())
        seen.append(page.locator(".stage").first.evaluate(_CLIP))
    assert len(set(seen)) == len(seen)
    outline = page.locator(".stage").first.evaluate("stage => getComputedStyle(stage).outlineStyle")
    assert outline == "solid"  # where the focus is can be seen


def test_a_divider_moves_by_touch_and_the_page_still_scrolls(opened: Any) -> None:
    page = opened("one", has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800}).page
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.touchscreen.tap(box["x"] + 0.75 * box["width"], box["y"] + 10)
    assert stage.locator("input").input_value() in ("74", "76")
    assert stage.evaluate("stage => getComputedStyle(stage).touchAction") == "pan-y"


def test_the_index_sorts_and_filters(opened: Any) -> None:
    watched = opened("several")
    page = watched.page
    first = watched.names()
    evil = first[2]

    def sort(label: str) -> Any:
        page.get_by_role("button", name=label, exact=True).click()
        return page.locator("th", has_text=label).first.get_attribute("aria-sort")

    assert sort("Name") == "ascending"
    assert watched.names() == [evil, "a9.png", "a10.png"]
    assert sort("Progress") == "descending"
    assert watched.names() == ["a9.png", evil, "a10.png"]
    assert sort("Progress") == "ascending"
    assert watched.names() == ["a10.png", evil, "a9.png"]
    assert sort("SSIMULACRA2") == "descending"
    assert watched.names() == ["a9.png", "a10.png", evil]
    for _ in range(2):  # what was not measured is last either way
        sort("Left after JPEG 75")
        assert watched.names()[2] == "a9.png"
    assert page.locator("th[aria-sort]").count() == 1
    page.get_by_label("Filter by name").fill("A10")
    assert watched.names() == ["a10.png"]
    assert page.locator("section.picture:visible").count() == 1
    page.get_by_label("Filter by name").fill("")
    assert len(watched.names()) == 3
    page.get_by_role("link", name="a9.png").click()
    assert page.locator("#p2").evaluate("section => Math.abs(section.getBoundingClientRect().top) < 200")


@pytest.mark.parametrize("how", ["paper", "without scripts"])
def test_without_a_divider_both_stand_side_by_side(how: str, opened: Any) -> None:
    page = opened("one", java_script_enabled=how == "paper").page
    if how == "paper":
        page.emulate_media(media="print", color_scheme="dark")
    boxes = [page.locator(f".stage .{name} img").first.bounding_box() for name in ("before", "after")]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert boxes[0]["y"] == boxes[1]["y"]
    clip = page.locator(".stage .before").first
    assert clip.is_visible()
    assert not page.locator(".stage input").first.is_visible()
    assert not page.locator(".flip").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str, opened: Any) -> None:
    page = opened("several", color_scheme=scheme).page
    pairs = page.evaluate(
        """() => ["body", ".how", ".up a", ".note", ".failures h2", ".facts dt", "figcaption", ".remarks", "summary",
                  ".flip button", ".index th", ".left thead th", ".end", ".limit-name", ".chart-name"].map(name => {
          const found = document.querySelector(name), style = getComputedStyle(found);
          let ground = found;
          while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
          const ink = found.tagName === "text" ? style.fill : style.color;
          return [name, ink, getComputedStyle(ground).backgroundColor];
        })"""
    )
    grounds = {ground for _, _, ground in pairs}
    assert len(grounds) > 1
    for name, ink, ground in pairs:
        light, dark = sorted((_luminance(ink), _luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ink, ground)
    assert (_luminance(pairs[0][2]) < 0.1) == (scheme == "dark")


def _luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    channels = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["one", "several"])
def test_everything_has_a_name_and_fits_a_telephone(name: str, opened: Any) -> None:
    page = opened(name, viewport={"width": 360, "height": 700}, reduced_motion="reduce").page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getAnimations().length") == 0
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("img:not([alt])").count() == 0
    assert page.evaluate("[...document.querySelectorAll('input')].every(each => each.ariaLabel || each.labels.length)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    known = page.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')].map(e => e.getAttribute('aria-labelledby'))"
    )
    assert set(known) <= set(ids)
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(each => +each.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
