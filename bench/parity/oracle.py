"""Torch's side of a parity case: the scalar, its gradients, and the exported ONNX files, kept in a folder.

Exports take most of the time, so everything lands in a cache that a second run reads: one folder a case and torch
version, `oracle.npz` (inputs, value, gradients in float32 and float64) and one `VARIANT.onnx` an exporter and opset.
An export that torch cannot make leaves `VARIANT.error` with its reason: that is torch's gap, and no failure of ours.
"""

from __future__ import annotations

import copy
import io
import time
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.parity.cases import Case

Array = NDArray[np.float32] | NDArray[np.float64]
EXPORTERS = ("dynamo", "raw", "torchscript")
VALUE = "value"
SEEDS, SETTLED = 24, 1e-5  # inputs tried at most, and torch's own error that ends the search


class Probed(nn.Module):
    """Any network as a scalar: the sum of its output times a fixed random tensor."""

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            output = network(*inputs)
        generator = torch.Generator().manual_seed(7)
        probe = torch.randn(output.shape, generator=generator) / output.numel() ** 0.5
        self.register_buffer("probe", probe)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The scalar."""
        value: Tensor = (self.network(*inputs) * self.probe).sum()
        return value


@dataclass(frozen=True)
class Oracle:
    """What torch says of a case."""

    inputs: Mapping[str, NDArray[np.float32]]
    value: float
    gradients: Mapping[str, Array]
    exact: Mapping[str, Array]

    def own_error(self) -> float:
        """Torch's float32 gradient against its float64 one: the noise that no parity can be below."""
        return max(relative_error(self.gradients[name], self.exact[name]) for name in self.inputs)


@dataclass(frozen=True)
class Export:
    """One exported file, or the reason why torch made none."""

    variant: str
    path: Path
    error: str | None


def relative_error(ours: Array, theirs: Array) -> float:
    """‖ours − theirs‖ / ‖theirs‖, in float64; infinite where `ours` is not finite."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    theirs64 = theirs.astype(np.float64)
    return float(np.linalg.norm(ours.astype(np.float64) - theirs64) / max(float(np.linalg.norm(theirs64)), 1e-30))


class Reference:
    """A case's module, made when something is missing from the cache, and not before."""

    def __init__(self, case: Case, folder: Path, weights: Path | None) -> None:
        trained = "trained" if weights is not None else "seeded"
        self.case = case
        self.folder = folder / f"torch-{torch.__version__.split('+')[0]}-{trained}" / case.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._weights = weights
        self._module: nn.Module | None = None

    def _inputs(self, seed: int = 3) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(shape, generator=generator) for name, shape in self.case.shapes.items()}

    def _built(self) -> nn.Module:
        if self._module is None:
            network = self.case.build(self._weights)
            self._module = Probed(network, tuple(self._inputs().values())).eval().requires_grad_(False)
        return self._module

    def oracle(self, index: int = 0) -> Oracle:
        """Value and gradients by autograd at the input of this index, from the cache if they are there.

        Where one ReLU or one pooling window of thousands stands at its kink, float32 and float64 take different sides
        and their gradients differ by a percent, whoever computes them. So the first random input is taken at which
        torch agrees with itself; if none is found, the best one, and the table shows torch's own error beside ours.
        """
        path = self.folder / ("oracle.npz" if index == 0 else f"oracle_{index}.npz")
        if not path.exists():
            double = copy.deepcopy(self._built()).double()
            tried = []
            for seed in range(3 + 100 * index, 3 + 100 * index + SEEDS):
                tried.append(self._ask(self._built(), double, seed))
                if tried[-1].own_error() < SETTLED:
                    break
            found = min(tried, key=Oracle.own_error)
            parts = {"input": found.inputs, "grad32": found.gradients, "grad64": found.exact}
            arrays = {f"{part}:{name}": array for part, named in parts.items() for name, array in named.items()}
            np.savez(path, value=np.float64(found.value), **arrays)  # type: ignore[arg-type]
        with np.load(path) as stored:
            return Oracle(
                {name: stored[f"input:{name}"] for name in self.case.shapes},
                float(stored["value"]),
                {name: stored[f"grad32:{name}"] for name in self.case.shapes},
                {name: stored[f"grad64:{name}"] for name in self.case.shapes},
            )

    def _ask(self, single: nn.Module, double: nn.Module, seed: int) -> Oracle:
        inputs = self._inputs(seed)
        _, gradients = _gradients(single, inputs)
        value, exact = _gradients(double, {name: tensor.double() for name, tensor in inputs.items()})
        return Oracle({name: tensor.numpy() for name, tensor in inputs.items()}, value, gradients, exact)

    def has(self, variant: str) -> bool:
        """Whether this variant's export (or the reason for its absence) is in the cache already."""
        return any((self.folder / f"{variant}.{ending}").exists() for ending in ("onnx", "error"))

    def export(self, exporter: str, opset: int) -> Export:
        """The case as ONNX, from the cache if it is there."""
        variant = f"{exporter}@{opset}"
        path, reason = self.folder / f"{variant}.onnx", self.folder / f"{variant}.error"
        if not path.exists() and not reason.exists():
            started = time.perf_counter()
            try:
                write_onnx(self._built(), tuple(self._inputs().values()), list(self.case.shapes), path, exporter, opset)
                _refuse_broken(path)
            except Exception as error:  # any exporter failure whatever is a row of the table
                path.unlink(missing_ok=True)
                reason.write_text(f"{type(error).__name__}: {error}"[:2000])
            (self.folder / f"{variant}.seconds").write_text(f"{time.perf_counter() - started:.1f}")
        return Export(variant, path, reason.read_text() if reason.exists() else None)


def _gradients(module: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[float, dict[str, Array]]:
    leaves = [tensor.clone().requires_grad_(True) for tensor in inputs.values()]
    value = module(*leaves)
    gradients = torch.autograd.grad(value, leaves)
    return value.item(), {name: gradient.numpy() for name, gradient in zip(inputs, gradients, strict=True)}


def _refuse_broken(path: Path) -> None:
    """Raises if ONNX Runtime itself cannot load what torch wrote: some exports are not valid ONNX."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def write_onnx(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], path: Path, exporter: str, opset: int
) -> None:
    """Exports by the dynamo exporter, the same with its optimiser off (`raw`), or the TorchScript one."""
    partial = path.with_suffix(".partial")
    torch.backends.mha.set_fastpath_enabled(False)  # the fused attention of inference has no ONNX form
    settings: dict[str, Any] = {"dynamo": False}
    if exporter != "torchscript":
        settings = {"dynamo": True, "optimize": exporter == "dynamo", "external_data": False, "verbose": False}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # a failing export prints its whole graph
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, inputs, str(partial), input_names=names, output_names=[VALUE], opset_version=opset, **settings
        )
    partial.replace(path)
