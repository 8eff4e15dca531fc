"""`glaze-trt doctor`: what this machine has, which engines work on it, and the one thing to install for each other."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from dataclasses import dataclass
from typing import Any

import engine
from engine import cache
from engine.errors import BackendError
from engine.runtime.driver import open_driver
from engine.runtime.processor import BF16_FEATURES, detect
from glaze_trt import models

_TOLD = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "fma")


_MOST_GPUS = 64


@dataclass(frozen=True)
class Finding:
    """One line: what it is about, whether it is well, what was found, and what to do if it is not."""

    about: str
    well: bool
    found: str
    advice: str | None = None


def examine() -> list[Finding]:
    """Everything, the processor first. Nothing is compiled and nothing is changed."""
    return [_processor(), *_gpus(), *_engines(), *_models(), _store()]


def chosen() -> dict[str, Any] | None:
    """The engine and the precision that `auto` means here, or None if there is none."""
    usable = [info for info in engine.available_engines() if info.version is not None and info.precisions]
    return {"engine": usable[0].name, "precision": usable[0].precisions[0]} if usable else None


def _processor() -> Finding:
    processor = detect()
    flags = [flag for flag in _TOLD if flag in processor.features]
    narrow = "bf16 in hardware" if any(flag in BF16_FEATURES for flag in flags) else "no bf16: fp32 is used"
    cores = os.cpu_count() or 1
    return Finding(
        "processor",
        True,
        f"{processor.name}, {cores} logical cores; {', '.join(flags) or platform.machine()}; {narrow}",
    )


def _gpus() -> list[Finding]:
    lines = []
    for index in range(_MOST_GPUS):
        try:
            with contextlib.closing(open_driver(index)) as driver:
                memory = "" if driver.memory is None else f", {driver.memory / 2**30:.0f} GiB"
                capability = "{}.{}".format(*driver.capability)
                found = f"{driver.name}, compute capability {capability}{memory}; driver {driver.version or 'unknown'}"
                lines.append(Finding(f"gpu cuda:{index}", True, found))
        except BackendError as error:
            if not lines:
                return [Finding("gpu", False, "none that can be used", str(error))]
            break
    return lines


def _engines() -> list[Finding]:
    lines = []
    for info in engine.available_engines():
        if info.version is None:
            lines.append(Finding(info.name, False, "not installed", info.reason))
        elif info.reason is not None:
            lines.append(Finding(info.name, False, f"{info.version}, cannot run here", info.reason))
        else:
            lines.append(Finding(info.name, True, f"{info.version}: {', '.join(info.precisions)} on {info.device}"))
    return lines


def _models() -> list[Finding]:
    here = {model.name for model in models.available() if not model.manifest.demonstration}
    if here:
        return [Finding("models", True, ", ".join(sorted(here)))]
    return [Finding("models", False, "only the built-in demonstration", "glaze-trt export sd-vae")]


def _store() -> Finding:
    folder = cache.default_folder()
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(parent).free / 2**30
    if not os.access(parent, os.W_OK):
        return Finding("engine cache", False, f"{folder} cannot be written", "set GLAZE_TRT_CACHE to a folder that can")
    return Finding("engine cache", True, f"{folder}, {free:.0f} GiB free")
