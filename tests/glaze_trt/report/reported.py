"""Entries for pages: small pictures with the reports that a run would make of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from glaze_trt.report import contact_sheet
from glaze_trt.report.html_report import Entry
from tests.glaze_trt.scene import scene


def entry(name: str = "art.png", size: tuple[int, int] = (48, 64), seed: int = 0, **changed: Any) -> Entry:
    """One picture of (height, width), changed by some noise, and its report; `changed` is laid over the report."""
    before = scene(*size, seed)
    after = np.clip(before + np.random.default_rng(seed).integers(-4, 5, before.shape), 0, 255).astype(np.uint8)
    target = before[::-1].copy()
    made: dict[str, Any] = {
        "input": f"pictures/{name}",
        "output": f"out/{name}",
        "model": "tiny",
        "perceptual": "tiny",
        "target": "impasto",
        "preset": "glaze",
        "size": [size[1], size[0]],
        "steps": 40,
        "seed": 7,
        "engine": "onnxruntime",
        "precision": "fp32",
        "device": "a processor",
        "budget": {"lpips": 0.05, "linf": 16 / 255, "ssimulacra2": 70.0, "dssim": None},
        "progress": 0.4,
        "progresses": {"tiny": 0.4},
        "lpips": 0.0312,
        "linf": 4 / 255,
        "ssimulacra2": 71.25,
        "ssim": 0.95,
        "psnr": 36.5,
        "seconds": {"total": 12.5, "load": None},
        "notes": ["JPEG quality 98, 4:4:4; .png keeps the cloak exactly"],
        "demonstration": True,
        "handled": {"jpeg 90": 0.3, "jpeg 75": 0.2, "half size and back": -0.1, "noise": 0.44},
        "curve": [{"step": step, "progress": step / 100, "lpips": 0.06 - step / 1000} for step in range(1, 41)],
    }
    return Entry(before, after, target, contact_sheet.Views(after, before, target), made | changed)
