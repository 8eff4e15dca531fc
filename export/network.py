"""What one network is, between its weights and its model file: the form to trace, and the form to check it against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from export.weights import Source
from glaze_trt.models import Kind

Reference = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Network:
    """A network ready to be traced.

    `module` and `reference` compute the same thing and share no code above single layers: the first is written to
    differentiate cleanly, the second is its authors' own. Both take (B, `channels`, H, W).
    """

    name: str
    kind: Kind
    module: nn.Module
    reference: Reference
    """The same outputs, computed by the authors' code."""
    source: Source
    outputs: tuple[str, ...]
    input: str = "image"
    channels: int = 3
    multiple: int = 1
    """Height and width of the input must be multiples of this."""
    minimum: int = 1
    """Smallest height and width of the input."""
    fp16: bool = True
    """Whether activations stay inside fp16's range."""
    latent_space: str | None = None
    input_range: str | None = None
    scaling_factor: float | None = None
    shift_factor: float | None = None

    @property
    def stem(self) -> str:
        """Name of the file, without suffix."""
        return f"{self.name}-decoder" if self.kind == "decoder" else self.name

    @property
    def cell(self) -> int:
        """Side of the smallest example that is worth checking: pixels for pictures, cells for latents."""
        return 1 if self.kind == "decoder" else 8
