"""What a backend is: the types that `select`, `session` and every backend agree on. No backend is named here.

A `Backend` compiles a static graph into a `Program`. A program is called with arrays, or run step after step by a
`Session`, which only wires: it asks the program for buffers, binds every name to one of them, twice (state read from
a and written to b, then the reverse), and tells the program to run so many steps through these two bindings. Where
the buffers live and how steps are repeated (a loop, a captured graph) is the program's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, np.dtype[Any]]

Precision = Literal["fp32", "bf16", "fp16", "mixed"]
"""How convolutions and matrix products are computed; "mixed" is fp16 forward and bf16 backward. Inputs, outputs and
fp32 islands stay float32."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

EMULATE = "GLAZE_TRT_EMULATE"
"""Environment variable: "1" allows precisions that a processor can only imitate, to see what they do to results."""

ISLAND = "precision"
"""Key in `ir.Node.metadata_props`: the value "fp32" keeps that node out of a backend's own lowering to bf16."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape and type of one input or output of a program."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        """As `float32(1, 3, 256, 256)`."""
        return f"{self.dtype}{self.shape}"


@dataclass(frozen=True)
class Build:
    """How an engine builder works, where it does not change what is computed.

    Attributes:
        level: how long to look for fast kernels, 0 to 5; None for the library's own default.
        workspace: scratch memory in bytes at most; None for all there is.
        tiling: how hard to try to keep tensors in the GPU's cache: `none`, `fast`, `moderate` or `full`.
        capabilities: GPUs to build for, as compute capabilities ("8.9"); empty for the one at hand.
        strip: leave the weights out of the plan; they are put back when it is loaded.
    """

    level: int | None = None
    workspace: int | None = None
    tiling: str = "none"
    capabilities: tuple[str, ...] = ()
    strip: bool = False


@dataclass(frozen=True)
class Options:
    """How to build and where to run, where it does not change what is computed.

    Attributes:
        threads: number of threads on a processor; None lets the backend take one per physical core.
        cache_dir: where a backend may keep compiled programs between runs. None: OpenVINO keeps nothing, TensorRT uses
            `cache.default_folder()`.
        device: number of the GPU.
        build: for TensorRT.
        shipped: a folder of engines built elsewhere (see `engine.shipped`), looked into first.
        progress: told what a long build does and the share of it that is done.
    """

    threads: int | None = None
    cache_dir: Path | None = None
    device: int = 0
    build: Build = field(default_factory=Build)
    shipped: Path | None = None
    progress: Callable[[str, float], None] | None = None


class Buffer(Protocol):
    """Memory of fixed shape and type on the program's device."""

    @property
    def spec(self) -> TensorSpec:
        """Shape and type."""

    def write(self, array: Array) -> None:
        """Copy an array of exactly this shape and type in."""

    def read(self) -> Array:
        """Return a copy on the host."""


class Program(Protocol):
    """A graph compiled for one device, shape and precision.

    Attributes:
        engine: name of the backend that compiled it.
        device: the device in words, such as "AMD EPYC (Zen 4, AVX512-BF16)".
        precision: what was really chosen, one of `PRECISIONS`.
        notes: lines a user should see, such as why a faster backend was passed over.
    """

    engine: str
    device: str
    precision: Precision
    notes: tuple[str, ...]
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once. Raises `FeedError` where a feed does not fit, `BackendError` where the backend fails."""

    def allocate(self, spec: TensorSpec) -> Buffer:
        """A zeroed buffer on this program's device."""

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Tie every input and output to one of this program's own buffers; what comes back is for `run` alone.

        No buffer may be both an input and an output.
        """

    def run(self, bindings: Sequence[Any], first: int, steps: int) -> None:
        """Run `bindings[i % len(bindings)]` for i = first ... first + steps - 1, with nothing in between.

        Returns when the last step's outputs can be read.
        """


class Backend(Protocol):
    """One way to compile a graph. Importing its module must not import the library behind it.

    Attributes:
        name: what `engine=` accepts.
        install: the command that installs it.
        needs_gpu: whether it runs on nothing else.
    """

    name: str
    install: str
    needs_gpu: bool

    def version(self) -> str:
        """Version of the library. Raises `BackendError` where it cannot be used, saying what to install."""

    def precisions(self, device: int = 0) -> tuple[Precision, ...]:
        """What GPU `device`, or the processor, computes in hardware through this backend; the fastest first."""

    def device(self, device: int = 0) -> str:
        """GPU `device`, or the processor, in words."""

    def compile(self, model: ir.Model, precision: Precision, options: Options) -> Program:
        """Compile. Raises `BackendError` with the backend's own reason."""
