"""From a graph to a model file with its manifest: written beside, checked, then renamed, or not there at all."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx_ir as ir

import engine
from export import check, graph
from export.network import Network
from glaze_trt.atomic import write_bytes
from glaze_trt.errors import ModelError, OutputError
from glaze_trt.models import Manifest, ModelFile, sha256_of

_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript")


def network(each: Network, folder: Path, progress: Callable[[str], None]) -> ModelFile:
    """Trace, check and keep one network in `folder`.

    Raises:
        ModelError: the file cannot be written, or does not compute what the network computes.
    """
    manifest = Manifest(
        each.name,
        each.kind,
        latent_space=each.latent_space,
        input_range=each.input_range,
        scaling_factor=each.scaling_factor,
        shift_factor=each.shift_factor,
        multiple=each.multiple,
        minimum=each.minimum,
        fp16=each.fp16,
        source=each.source.name,
        licence=each.source.licence,
        weights_sha256=each.source.sha256,
        versions=versions(*_PACKAGES, "lpips" if each.kind == "perceptual" else "diffusers"),
    )
    _make(folder)
    progress(f"tracing {each.stem}")
    model = graph.trace(each)
    progress(f"checking {each.stem} against torch")
    return model_file(model, manifest, each.stem, folder, lambda path: check.against_torch(each, path))


def model_file(
    model: ir.Model, draft: Manifest, stem: str, folder: Path, judge: Callable[[Path], check.Check]
) -> ModelFile:
    """Keep a graph as `stem`.onnx with its manifest.

    Args:
        model: The graph.
        draft: Its manifest, but for the checksum, the count of parameters and the check.
        stem: Name of the file.
        folder: Where it goes; made if missing.
        judge: Checks the very file that will be kept; raises where it is wrong.

    Raises:
        ModelError: the folder cannot be written, or the engine cannot differentiate the graph.
        OutputError: the manifest cannot be written.
    """
    path = folder / f"{stem}.onnx"
    temporary: Path | None = None
    _make(folder)
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{stem}-", suffix=".onnx", dir=folder)
        os.close(descriptor)
        temporary = Path(part)
        ir.save(model, temporary)
        result = judge(temporary)
        manifest = dataclasses.replace(
            draft, sha256=sha256_of(temporary), parameters=parameters(model), check=_rounded(result)
        )
        temporary.chmod(0o644)
        # The model goes first: between the two renames its checksum is wrong, never its contents unknown.
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error}); nothing was left behind") from error
    except engine.EngineError as error:
        raise ModelError(f"{stem}: the engine cannot differentiate it: {error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
    try:
        write_bytes(path.with_suffix(".json"), manifest.text().encode())
    except OutputError:
        path.unlink(missing_ok=True)  # without its manifest it is no model
        raise
    return ModelFile(manifest.name, manifest.kind, path, manifest)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be made ({error.strerror}); choose another with GLAZE_TRT_HOME") from error


def parameters(model: ir.Model) -> int:
    """How many floating numbers the graph's initialisers hold."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return sum(math.prod(tensor.shape.numpy()) for tensor in tensors if tensor and tensor.dtype.is_floating_point())


def versions(*packages: str) -> dict[str, str]:
    """Those of the packages that are installed, without local build tags."""
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package).split("+")[0]
    return found


def _rounded(result: check.Check) -> dict[str, float | None]:
    return {key: float(f"{value:.2e}") for key, value in dataclasses.asdict(result).items()}
