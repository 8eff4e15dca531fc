"""Gradient rules, one function per ONNX operator, one file per family."""

from __future__ import annotations

from engine.vjp import (
    activation,
    attention,
    conv,
    einsum,
    elementwise,
    indexing,
    matmul,
    norm,
    pool,
    reduce,
    resize,
    sample,
    shape,
    trigonometric,
)
from engine.vjp.registry import NO_GRADIENT, REFUSED, RULES, Cotangents, Gradients, Rule, vjp

__all__ = ["NO_GRADIENT", "REFUSED", "RULES", "Cotangents", "Gradients", "Rule", "vjp"]

_FAMILIES = (
    activation,
    attention,
    conv,
    einsum,
    elementwise,
    indexing,
    matmul,
    norm,
    pool,
    reduce,
    resize,
    sample,
    shape,
    trigonometric,
)
