"""One picture's part of the page: which previews it has, at what size, and what stands beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glaze_trt.report import contact_sheet
from glaze_trt.report.chart import Chart, chart
from glaze_trt.report.html_values import percent, rows_of
from glaze_trt.report.preview import Preview, exact, most_changed, most_telling, preview, shrunk

Levels = NDArray[np.uint8]

_CROP = 320
"""Pixels a side of a part that is shown at full size."""

_OVERLAP = 0.5
"""A second part that shares more than this with the first, along both sides, shows nothing new."""

_SHOWN_ELSEWHERE = ("curve", "handled", "notes", "name")


@dataclass(frozen=True)
class Entry:
    """One picture of a run.

    Attributes:
        before: the original, (H, W, 3) uint8.
        after: what was saved, of the same size.
        target: what it was moved toward; None where there is no target.
        seen: what the model sees of them, as `contact_sheet.model_views` makes it, or None.
        made: the picture's JSON report; what it lacks is left out of the page. `curve` is a list of `step`, `progress`
            and `lpips`; `handled` the progress left, by transformation; `name` the heading, else the input's.
    """

    before: Levels
    after: Levels
    target: Levels | None
    seen: contact_sheet.Views | None
    made: Mapping[str, Any]


@dataclass(frozen=True)
class Detail:
    """How large pictures are shown.

    Attributes:
        side: pixels a side, at most, of the two that are compared.
        small: of the others.
        thumb: of the index's.
        crops: parts at full size, where the picture is larger.
        quality: of JPEG.
    """

    side: int
    small: int
    thumb: int
    crops: int
    quality: int

    @property
    def lazy(self) -> bool:
        """Whether a browser had better not decode pictures before they are seen."""
        return self.crops == 0


@dataclass(frozen=True)
class _Pair:
    """The original and the cloaked picture, or a part of them."""

    before: Preview
    after: Preview
    caption: str = ""
    difference: Preview | None = None


@dataclass(frozen=True)
class _Seen:
    """What the model sees; `place` says of which part, where it was shown one."""

    before: Preview
    after: Preview
    target: Preview | None
    place: str


@dataclass(frozen=True)
class _Left:
    """One line of what handling leaves: of the progress, and in percent of the saved file's."""

    name: str
    progress: str
    left: str
    part: float | None


def named(made: Mapping[str, Any]) -> str:
    """What a picture is called: its `name`, or its input's without the folder."""
    return str(made.get("name") or PurePath(str(made.get("input") or made.get("a") or "picture")).name)


def section(entry: Entry, detail: Detail) -> dict[str, Any]:
    """What the template `picture.html` shows."""
    before, after, made = entry.before, entry.after, entry.made
    whole = _Pair(preview(before, detail.side, detail.quality), preview(after, detail.side, detail.quality))
    target = None if entry.target is None else preview(entry.target, detail.small, detail.quality)
    crops = _crops(before, after, detail.crops) if whole.before.scale < 1 else []
    return {
        "lazy": detail.lazy,
        "how": " · ".join(contact_sheet.how(made, "×")),
        "whole": whole,
        "whole_caption": _scale_of(whole.before.scale, bool(crops)),
        "facts": contact_sheet.facts(made),
        "remarks": [str(note) for note in made.get("notes", ())],
        "amplified": contact_sheet.AMPLIFIED,
        "difference": preview(_difference(before, after, detail.small), detail.small, detail.quality),
        "target": target,
        "target_caption": str(made.get("target") or ""),
        "crops": crops,
        "model": _model(entry, detail),
        "curves": _curves(made),
        "handled": _handled(made),
        "reported": rows_of({key: value for key, value in made.items() if key not in _SHOWN_ELSEWHERE}),
    }


def _difference(before: Levels, after: Levels, side: int) -> Levels:
    """The amplified difference at the pixels that are left: a mean over several would be grey all over."""
    return contact_sheet.difference(*(shrunk(levels, side, sampled=True) for levels in (before, after)))


def _scale_of(scale: float, crops: bool) -> str:
    if scale == 1:
        return "At full size."
    if scale > 1:
        return f"Enlarged {scale:.0f} times."
    return f"At {percent(scale)} of its size." + (" Below are parts at full size." if crops else "")


def _crops(before: Levels, after: Levels, count: int) -> list[_Pair]:
    """Parts at full size: the one that changed most, and the one that hides the change least."""
    size = min(_CROP, before.shape[1]), min(_CROP, before.shape[0])
    places = [(most_changed(before, after, size), "The part that changed most")]
    calm = most_telling(before, after, size)
    if any(abs(a - b) > (1 - _OVERLAP) * side for a, b, side in zip(calm, places[0][0], size, strict=True)):
        places.append((calm, "The part that hides its change least"))
    pairs: list[_Pair] = []
    for (x, y), what in places[:count]:
        old, new = (np.ascontiguousarray(levels[y : y + size[1], x : x + size[0]]) for levels in (before, after))
        changed = None if pairs else exact(contact_sheet.difference(old, new))
        pairs.append(_Pair(exact(old), exact(new), f"{what}, at {x}, {y}", changed))
    return pairs


def _model(entry: Entry, detail: Detail) -> _Seen | None:
    seen = entry.seen
    if seen is None:
        return None
    before, after, target = (
        preview(each, detail.small, detail.quality) for each in (seen.before, seen.after, seen.target)
    )
    place = "" if seen.box is None else "the part of {2} × {3} pixels at {0}, {1}".format(*seen.box)
    return _Seen(before, after, None if entry.target is None else target, place)


def _curves(made: Mapping[str, Any]) -> list[Chart]:
    points = made.get("curve") or ()
    limit = (made.get("budget") or {}).get("lpips")
    drawn = [
        chart("Progress", _values(points, "progress")),
        chart("LPIPS", _values(points, "lpips"), "{:.3f}", limit),
    ]
    return [each for each in drawn if each is not None]


def _values(points: Any, name: str) -> list[tuple[float, float]]:
    """The values of a curve; where steps begin anew, as in a search of several rounds, they go on from the last."""
    found: list[tuple[float, float]] = []
    done, last = 0.0, 0.0
    for point in points:
        if point["step"] < last:
            done += last
        last = point["step"]
        if point.get(name) is not None:
            found.append((done + last, float(point[name])))
    return found


def _handled(made: Mapping[str, Any]) -> list[_Left]:
    """As saved, and after each transformation; nothing where none was measured."""
    after, progress = made.get("handled"), made.get("progress")
    if not after or progress is None:
        return []
    lines = []
    for name, value in {"as saved": progress, **after}.items():
        part = 100 * value / progress if progress > 0 else None
        lines.append(
            _Left(
                "As saved" if name == "as saved" else f"After {name.replace('jpeg', 'JPEG')}",
                f"{value:.3f}",
                "–" if part is None else percent(part / 100),
                None if part is None else round(min(100.0, max(0.0, part)), 1),
            )
        )
    return lines
