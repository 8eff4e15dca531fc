"""The whole cloaking step: three terms, their multipliers, the update and the projection.

`whole_work` is the step in PyTorch, written from its equations with every constant of the picture computed
beforehand; `our_step` is the graph that `glaze_trt.step` builds for the same picture. Both advance the same state, so
their advances can be compared.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from bench.step.work import Work


def whole_work(size: int, weights: Path | None) -> Work:
    """The step in PyTorch."""
    raise NotImplementedError


def our_step(size: int, weights: Path | None) -> ir.Model:
    """The step as our graph."""
    raise NotImplementedError
