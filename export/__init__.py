"""From trained networks to the ONNX files that the engine differentiates.

The only package that needs torch, diffusers and lpips; nothing at run time imports it. Importing it is light: what
is heavy loads inside `export_model`. How the built-in models were trained is `export.distill`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glaze_trt.errors import ModelError, UsageError
from glaze_trt.models import ALIASES, EXPORTABLE, ModelFile, export_folder

if TYPE_CHECKING:
    from export.network import Network

__all__ = ["INPUT_RANGES", "export_model"]

INPUT_RANGES = ("0,1", "-1,1", "imagenet")
"""What an extractor brought as ONNX may have been trained on."""

Progress = Callable[[str], None]


def export_model(
    name: str,
    *,
    weights: str | Path | Sequence[str | Path] | None = None,
    onnx: str | Path | None = None,
    input_range: str | None = None,
    home: str | Path | None = None,
    progress: Progress = lambda line: None,
) -> tuple[ModelFile, ...]:
    """Make a model file once, check it against its source, and keep it where `glaze_trt.models.find` looks.

    Args:
        name: one of `glaze_trt.models.EXPORTABLE` (`alex`, `vgg` and `squeeze` too), or, with `onnx`, a name of
            your own.
        weights: a file, a folder or a hub id; several for LPIPS, whose backbone and linear layers may lie apart.
            None asks the hub for the usual weights.
        onnx: an extractor's ONNX file, to be used as an encoder.
        input_range: what that extractor was trained on, one of `INPUT_RANGES`.
        home: folder in place of $GLAZE_TRT_HOME.
        progress: called with one line before each stage.

    Returns:
        What was kept: the model asked for, then its decoder where the weights hold one.

    Raises:
        ModelError: the weights cannot be found or read, are another network's, or the result differs from them.
        UsageError: the arguments contradict each other.
    """
    name = ALIASES.get(name, name)
    folder = export_folder(home)
    if onnx is not None:
        if weights is not None:
            raise UsageError("--onnx and --weights exclude each other: an ONNX file holds its own weights")
        if input_range not in INPUT_RANGES:
            raise UsageError(f"--onnx needs --input-range, one of {', '.join(INPUT_RANGES)}: what the network expects")
        if name in EXPORTABLE or name == "tiny" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise UsageError(f"{name!r} cannot name a model of your own: choose another of letters, digits, - and _")
        _require("torch")
        from export import onnx_file

        return (onnx_file.wrap(name, Path(onnx).expanduser(), input_range, folder, progress),)
    if input_range is not None:
        raise UsageError("--input-range goes with --onnx: the range of a named model is known")
    if name not in EXPORTABLE:
        raise UsageError(f"no recipe for {name!r}: known are {', '.join(EXPORTABLE)}; anything else with --onnx FILE")
    given = [weights] if isinstance(weights, str | Path) else list(weights or ())
    if len(given) > 1 and not name.startswith("lpips-"):
        raise UsageError(f"{name} takes one --weights; only LPIPS may come in two files")
    _require("torch", "safetensors", "onnxscript")
    progress("reading the weights")
    from export import keep

    return tuple(keep.network(each, folder, progress) for each in _load(name, given))


def _load(name: str, weights: Sequence[str | Path]) -> Sequence[Network]:
    if name.startswith("lpips-"):
        _require("lpips", "torchvision")
        from export import lpips

        return lpips.load(name, weights)
    _require("diffusers")
    given = weights[0] if weights else None
    if name.startswith("taesd"):
        from export import taesd

        return taesd.load(name, given)
    from export import vae

    return vae.load(name, given)


def _require(*packages: str) -> None:
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ModelError(
                f"exporting needs {package}, which is not installed: pip install 'glaze-trt[export]'"
            ) from error
