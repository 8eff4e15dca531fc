"""Numbers and settings of a run as text for the page: the index's columns, their summary, names with their values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glaze_trt.report.contact_sheet import Fact

_MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column of the index: its name in the page, its label, where its value is found and how it is written."""

    name: str
    label: str
    value: Callable[[Mapping[str, Any]], Any]
    form: Callable[[float], str]


@dataclass(frozen=True)
class Cell:
    """One value of the index: its column, its text, and the number by which it is sorted."""

    name: str
    text: str
    order: str


COLUMNS: Sequence[Column] = (
    Column("progress", "Progress", lambda made: made.get("progress"), "{:.3f}".format),
    Column("ssimulacra2", "SSIMULACRA2", lambda made: made.get("ssimulacra2"), "{:.1f}".format),
    Column("lpips", "LPIPS", lambda made: made.get("lpips"), "{:.4f}".format),
    Column("linf", "Largest change", lambda made: made.get("linf"), lambda value: f"{value * 255:.0f} / 255"),
    Column("left", "Left after JPEG 75", lambda made: _left(made, "jpeg 75"), lambda value: percent(value)),
    Column("within", "In the budget", lambda made: made.get("within"), lambda value: "yes" if value else "no"),
    Column("seconds", "Seconds", lambda made: made.get("seconds", {}).get("total"), "{:.1f}".format),
)
"""What the index can show; a column that no picture has is left out."""


def cells(made: Mapping[str, Any]) -> list[Cell]:
    """A picture's line of the index."""
    found = []
    for column in COLUMNS:
        value = _number(column.value(made))
        text = _MISSING if value is None else column.form(value)
        found.append(Cell(column.name, text, "" if value is None else f"{value:.9g}"))
    return found


class Summary:
    """What a run's numbers come to; keeps a few floats a picture."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {column.name: [] for column in COLUMNS}

    def add(self, made: Mapping[str, Any]) -> None:
        """Count a picture in."""
        for column in COLUMNS:
            value = _number(column.value(made))
            if value is not None:
                self._values[column.name].append(value)

    @property
    def missing(self) -> list[str]:
        """Columns that no picture has."""
        return [name for name, values in self._values.items() if not values]

    def facts(self, pictures: int, failures: int) -> list[Fact]:
        """The head of the page."""
        values = self._values
        found = [Fact("Pictures", str(pictures), f"{failures} not done" if failures else "")]
        if progress := values["progress"]:
            found.append(Fact("Mean progress", f"{statistics.fmean(progress):.3f}", f"lowest {min(progress):.3f}"))
        if score := values["ssimulacra2"]:
            found.append(Fact("Lowest SSIMULACRA2", f"{min(score):.1f}", f"mean {statistics.fmean(score):.1f}"))
        if lpips := values["lpips"]:
            found.append(Fact("Highest LPIPS", f"{max(lpips):.4f}", f"mean {statistics.fmean(lpips):.4f}"))
        if left := values["left"]:
            found.append(
                Fact("Left after JPEG 75", percent(statistics.fmean(left)), f"mean; least {percent(min(left))}")
            )
        if within := values["within"]:
            found.append(Fact("In the budget", f"{sum(within):.0f} of {len(within)}"))
        if seconds := values["seconds"]:
            found.append(Fact("Seconds", f"{sum(seconds):.0f}", f"mean {statistics.fmean(seconds):.1f}"))
        return found


def percent(part: float) -> str:
    """A part of one."""
    return f"{100 * part:.0f}\u00a0%"


def rows_of(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text; what is None or empty is left out."""
    rows = [(key.replace("_", " "), _text(value)) for key, value in values.items()]
    return [(key, text) for key, text in rows if text]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text}" for key, text in rows_of(value))
    if isinstance(value, list | tuple):
        inner = (f"({_text(each)})" if isinstance(each, list | tuple | Mapping) else _text(each) for each in value)
        return ", ".join(inner)
    return str(value)


def _left(made: Mapping[str, Any], name: str) -> float | None:
    left, progress = (made.get("handled") or {}).get(name), made.get("progress")
    return left / progress if left is not None and progress and progress > 0 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, bool | int | float) and math.isfinite(value) else None
