"""Pictures, styles and the cloaking loop on compiled engines; `glaze_trt.cloak` cloaks one picture."""

from __future__ import annotations

from glaze_trt.cloak import Cloaker, cloak
from glaze_trt.errors import GlazeError
from glaze_trt.objective import Budget, Constraint, Features, Objective, Search, Update
from glaze_trt.result import CloakReport, CloakResult

__all__ = [
    "Budget",
    "CloakReport",
    "CloakResult",
    "Cloaker",
    "Constraint",
    "Features",
    "GlazeError",
    "Objective",
    "Search",
    "Update",
    "cloak",
]
