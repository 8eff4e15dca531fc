"""Compiled programs: one file per backend behind the small protocol of `protocol.py`."""

from __future__ import annotations

from engine.runtime.protocol import PRECISIONS, Options, Precision, Program, TensorSpec
from engine.runtime.select import EngineInfo, available_engines, compile
from engine.runtime.session import Session

__all__ = [
    "PRECISIONS",
    "EngineInfo",
    "Options",
    "Precision",
    "Program",
    "Session",
    "TensorSpec",
    "available_engines",
    "compile",
]
