"""Pictures, styles and the cloaking loop on compiled engines; `glaze_trt.cloak` cloaks one picture."""

from __future__ import annotations

from glaze_trt.cloak import Cloaker, cloak
from glaze_trt.errors import GlazeError
from glaze_trt.objective import Budget, Objective, Update
from glaze_trt.result import CloakReport, CloakResult

__all__ = ["Budget", "CloakReport", "CloakResult", "Cloaker", "GlazeError", "Objective", "Update", "cloak"]
