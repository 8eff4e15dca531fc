"""What a cloak cost and what it moved, measured on two finished pictures, whoever made them.

    LPIPS, L-infinity, SSIMULACRA2, SSIM, PSNR     what a person may see
    progress                                       how far the encoder was moved toward the target

Everything here works on 8-bit levels, as a saved file holds them, and in fp32. Nothing is optimised here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

import engine
from glaze_trt.errors import PictureError
from glaze_trt.sight import Box, through
from glaze_trt.ssim import psnr, ssim

if TYPE_CHECKING:
    from glaze_trt.models import Manifest, ModelFile

Levels = NDArray[np.uint8]

SIZES_KEPT = 4
"""Picture sizes that a `Network` stays compiled for; the one longest unused goes first."""


@dataclass(frozen=True)
class Measures:
    """The measures of one pair of pictures.

    Attributes:
        linf: the largest change of any channel of any pixel, in [0, 1] (8-bit levels / 255).
        psnr: in dB; None for identical pictures.
        ssim: mean structural similarity.
        ssimulacra2: 100 is identical; 90, 70, 50 and 30 are about JPEG 95, 65, 30 and 15 (lower is more visible).
        lpips: perceptual distance by the given net, or None without one.
        progress: 1 - |F(after) - F(target)| / |F(before) - F(target)| for the given encoder F, or None.
    """

    linf: float
    psnr: float | None
    ssim: float
    ssimulacra2: float
    lpips: float | None = None
    progress: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """The measures by name, ready for JSON."""
        return asdict(self)


class Judge:
    """Measures any number of pictures against one original; what concerns the original is computed once."""

    def __init__(
        self,
        before: Levels,
        *,
        target: Levels | None = None,
        encoder: Network | None = None,
        perceptual: Network | None = None,
    ) -> None:
        """Take the original.

        Args:
            before: the original, (H, W, 3) uint8.
            target: the restyled original, same size; needed for `progress`, as is `encoder`.
            encoder: the encoder whose latent is compared.
            perceptual: the net for LPIPS.

        Raises:
            PictureError: the target differs in size.
        """
        self._before = before
        self._lpips = None if perceptual is None else Lpips(perceptual, before)
        self._progress = None
        if encoder is not None and target is not None:
            _same_size(before, target, "target")
            self._progress = Progress(encoder, before, target)

    def __call__(self, after: Levels) -> Measures:
        """Measure a picture, (H, W, 3) uint8.

        Raises:
            PictureError: it differs in size from the original.
        """
        before = self._before
        _same_size(before, after, "second picture")
        return Measures(
            linf=linf(before, after),
            psnr=psnr(before, after),
            ssim=ssim(before, after),
            ssimulacra2=ssimulacra2(before, after),
            lpips=None if self._lpips is None else self._lpips(after),
            progress=None if self._progress is None else self._progress(after),
        )


def linf(before: Levels, after: Levels) -> float:
    """The largest change of any channel of any pixel, in [0, 1] (8-bit levels / 255)."""
    return float(np.abs(before.astype(np.int16) - after.astype(np.int16)).max()) / 255.0


def ssimulacra2(before: Levels, after: Levels) -> float:
    """SSIMULACRA2 by the reference package: 100 is identical, negative is ruined.

    It sees nothing in a picture under 8 pixels, so those are first extended by their edge.
    """
    short = [max(0, 8 - side) for side in before.shape[:2]]
    extend = ((0, short[0]), (0, short[1]), (0, 0))
    files = []
    for levels in (before, after):
        buffer = io.BytesIO()
        Image.fromarray(np.pad(levels, extend, mode="edge")).save(buffer, "BMP")
        files.append(buffer)
    return float(compute_ssimulacra2(*files))


class Network:
    """A model file fed with 8-bit pictures, in fp32; compiled for each picture size on first use."""

    def __init__(
        self,
        model: ModelFile,
        engine_name: str = "auto",
        options: engine.Options | None = None,
        box: Box | None = None,
    ) -> None:
        """Take a model file; nothing is compiled yet.

        Args:
            model: the file.
            engine_name: as `engine.compile` takes it.
            options: as `engine.compile` takes them.
            box: what a network of one fixed size sees of a picture; None for all of it.
        """
        self.model, self.box = model, box
        self._engine_name, self._options = engine_name, options
        self._programs: dict[tuple[int, ...], engine.Program] = {}

    def __call__(self, levels: Levels) -> Mapping[str, NDArray[np.float32]]:
        """The outputs for (H, W, 3) uint8, padded by its mirror image to what the net takes."""
        return self.run("image", padded(levels, self.model.manifest))

    def run(self, name: str, value: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """The outputs for an input tensor given as it is."""
        return self.compile(name, value.shape)({name: value})

    def compile(self, name: str, shape: tuple[int, ...]) -> engine.Program:
        """The program for one shape of the input; kept.

        Raises:
            EngineError: the file cannot be compiled for it.
        """
        program = self._programs.pop(shape, None)
        if program is None:
            program = engine.compile(self.load(name, shape), self._engine_name, "fp32", self._options)
        self._programs[shape] = program
        if len(self._programs) > SIZES_KEPT:
            del self._programs[next(iter(self._programs))]
        return program

    def load(self, name: str, shape: tuple[int, ...]) -> ir.Model:
        """The graph for one shape of the input."""
        size, ports = self.model.manifest.size, self.model.manifest.ports
        whole = size is None or (shape[2:] == size and self.box is None)
        if whole and ports is None:
            return engine.load(self.model.path, shapes={name: shape})
        taken = shape if size is None else (*shape[:2], *size)
        net = engine.load(self.model.path, shapes={ports[0] if ports else name: taken})
        return through(net, shape, self.box, ports[1] if ports else None)

    def at(self, box: Box | None) -> Network:
        """The same network, looking at a part of the picture."""
        return Network(self.model, self._engine_name, self._options, box)

    def takes(self, levels: Levels) -> tuple[int, ...]:
        """The shape that a picture is padded to."""
        return padded_shape(levels.shape[:2], self.model.manifest)


class Lpips:
    """LPIPS (Zhang et al., CVPR 2018) to one reference picture, whose features are computed once."""

    def __init__(self, net: Network, reference: Levels) -> None:
        """Compute the features of `reference`, (H, W, 3) uint8."""
        self._net = net
        self.features = {name: value for name, value in net(reference).items() if name.startswith("feature_")}

    def __call__(self, levels: Levels) -> float:
        """The distance of a picture to the reference."""
        found = self._net(levels)
        return sum((_mean_square(found[name] - mine) for name, mine in self.features.items()), start=0.0)


class Progress:
    """How much of the way to the target's latent a picture has gone: 0 unmoved, 1 there."""

    def __init__(self, encoder: Network, before: Levels, target: Levels) -> None:
        """Encode the original and the target, (H, W, 3) uint8 each."""
        self._net = encoder
        self._goal = self._latent(target)
        self._whole = float(np.linalg.norm(self._latent(before) - self._goal))

    def __call__(self, levels: Levels) -> float:
        """The progress of a picture."""
        rest = float(np.linalg.norm(self._latent(levels) - self._goal))
        return 0.0 if self._whole == 0.0 else 1.0 - rest / self._whole

    def _latent(self, levels: Levels) -> NDArray[np.float64]:
        return self._net(levels)["latent"].astype(np.float64)


def _mean_square(difference: NDArray[np.float32]) -> float:
    """Of (1, C, H, W), over positions, summed over channels."""
    flat = difference.ravel()
    positions: int = difference.shape[2] * difference.shape[3]
    return float(np.dot(flat, flat)) / positions


def padded(levels: Levels, manifest: Manifest) -> NDArray[np.float32]:
    """An (H, W, 3) uint8 picture as (1, 3, H', W') float32 in [0, 1], grown at the right and bottom.

    H' and W' are the next multiples of the manifest's `multiple`, at least its `minimum`; the picture is mirrored. A
    network of one fixed size takes any picture, see `sight`.
    """
    sides = padded_shape(levels.shape[:2], manifest)[2:]
    grow = [(0, full - side) for full, side in zip(sides, levels.shape[:2], strict=True)]
    image = np.pad(levels, [*grow, (0, 0)], mode="symmetric")
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255.0)


def padded_shape(size: Sequence[int], manifest: Manifest) -> tuple[int, ...]:
    """The shape that `padded` gives a picture of (height, width)."""
    multiple, minimum = (manifest.multiple, manifest.minimum) if manifest.size is None else (1, 1)
    return (1, 3, *(-(-max(side, minimum) // multiple) * multiple for side in size))


def _same_size(first: Levels, other: Levels, name: str) -> None:
    if other.shape != first.shape:
        raise PictureError(
            f"the {name} is {other.shape[1]} x {other.shape[0]} and the first {first.shape[1]} x {first.shape[0]}; "
            "only pictures of one size can be compared"
        )
