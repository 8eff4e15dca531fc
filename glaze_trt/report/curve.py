"""How progress and LPIPS went over the steps of one picture, in few enough points for a report."""

from __future__ import annotations

from typing import Any

from glaze_trt.result import StepInfo

POINTS = 60
"""At most, and the last step."""


class Curve:
    """Takes what the loop tells, and keeps points evenly spread over the steps."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.points: list[dict[str, Any]] = []

    def add(self, info: StepInfo) -> None:
        """Take a step; a loop that begins anew (a search, a second precision) begins the curve anew."""
        last = self.points[-1]["step"] if self.points else 0
        if info.step < last:
            self.points.clear()
            last = 0
        if info.step > last and (info.step == info.steps or info.step - last >= info.steps / POINTS):
            self.points.append({"step": info.step, "progress": info.progress, "lpips": info.lpips})
