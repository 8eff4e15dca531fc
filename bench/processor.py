"""What a result must say of the machine that made it: processor, threads and versions."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

from engine.runtime.processor import detect

PACKAGES = (
    "torch", "torchvision", "diffusers", "lpips", "ssimulacra2", "onnx", "onnxscript", "onnx-ir", "onnxruntime",
    "openvino", "glaze-trt",
)  # fmt: skip


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(threads: int) -> dict[str, object]:
    """For the JSON: everything that a reader needs to judge the numbers."""
    return {"processor": detect().name, "cores": cores(), "threads": threads, "versions": versions()}


def versions() -> dict[str, str]:
    """Installed versions of what matters here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
