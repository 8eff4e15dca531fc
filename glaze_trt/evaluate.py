"""What a cloak cost and what it moved, measured on two finished pictures, whoever made them.

    LPIPS, L-infinity, SSIMULACRA2, SSIM, PSNR     what a person may see
    progress                                       how far the encoder was moved toward the target

Everything here works on 8-bit levels, as a saved file holds them, and in fp32. Nothing is optimised here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glaze_trt.errors import PictureError
from glaze_trt.graph.sight import Box
from glaze_trt.large import pooled, tiles
from glaze_trt.loop.aim import Aim
from glaze_trt.measure import ssimulacra
from glaze_trt.measure.ssim import psnr, ssim
from glaze_trt.measure.window import cut
from glaze_trt.measure.window import ssimulacra2 as lower
from glaze_trt.network import Network, padded
from glaze_trt.objective import Features

Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class Measures:
    """The measures of one pair of pictures.

    Attributes:
        linf: the largest change of any channel of any pixel, in [0, 1] (8-bit levels / 255).
        psnr: in dB; None for identical pictures.
        ssim: mean structural similarity.
        ssimulacra2: 100 is identical; 90, 70, 50 and 30 are about JPEG 95, 65, 30 and 15 (lower is more visible).
        lpips: perceptual distance by the given net, or None without one.
        progress: 1 - |F(after) - F(target)| / |F(before) - F(target)| for the given encoder F, the mean over several,
            or None.
        progresses: the same for each encoder by its name.
    """

    linf: float
    psnr: float | None
    ssim: float
    ssimulacra2: float
    lpips: float | None = None
    progress: float | None = None
    progresses: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The measures by name, ready for JSON."""
        return asdict(self)


class Judge:
    """Measures any number of pictures against one original; what concerns the original is computed once."""

    def __init__(
        self,
        before: Levels,
        *,
        targets: Sequence[Levels] = (),
        encoders: Sequence[Network] = (),
        perceptual: Network | None = None,
        features: Features | None = None,
        window: Box | None = None,
        aligned: bool = False,
        close: Sequence[Levels] = (),
    ) -> None:
        """Take the original.

        Args:
            before: the original, (H, W, 3) uint8.
            targets: what it was moved toward, as `Aim.of` takes them.
            encoders: those whose features are compared.
            perceptual: the net for LPIPS.
            features: what was done with the features; moved toward the targets, if None.
            window: the part (x, y, width, height) of which LPIPS, SSIM and PSNR are, and SSIMULACRA2 too where it is
                lower than that of the whole picture; all of it, if None.
            aligned: whether targets are the picture itself in a style, see `Aim.of`.
            close: targets as encoders of one fixed size see them; none where all see the same.

        Raises:
            PictureError: a target differs in size, or there is none and the direction needs one.
        """
        self._before, self._window = before, window
        self._lpips = None if perceptual is None else _lpips(perceptual, self._within(before))
        self._ways = [
            _progress(net, before, close if close and net.model.manifest.size else targets, features, aligned, window)
            for net in encoders
        ]

    def __call__(self, after: Levels) -> Measures:
        """Measure a picture, (H, W, 3) uint8.

        Raises:
            PictureError: it differs in size from the original.
        """
        before = self._before
        _same_size(before, after, "second picture")
        ways = self.progress(after)
        furthest, score = linf(before, after), lower(before, after, self._window)
        before, after = self._within(before), self._within(after)
        return Measures(
            linf=furthest,
            psnr=psnr(before, after),
            ssim=ssim(before, after),
            ssimulacra2=score,
            lpips=None if self._lpips is None else self._lpips(after),
            progress=_mean(ways) if ways else None,
            progresses=ways,
        )

    def _within(self, levels: Levels) -> Levels:
        return np.ascontiguousarray(cut(levels, self._window))

    def progress(self, after: Levels) -> dict[str, float]:
        """The progress of a picture alone, by encoder."""
        return {way.name: way(after) for way in self._ways}

    def mean_progress(self, after: Levels) -> float:
        """The same, the mean over the encoders."""
        return _mean(self.progress(after))


def linf(before: Levels, after: Levels) -> float:
    """The largest change of any channel of any pixel, in [0, 1] (8-bit levels / 255)."""
    return float(np.abs(before.astype(np.int16) - after.astype(np.int16)).max()) / 255.0


def ssimulacra2(before: Levels, after: Levels) -> float:
    """SSIMULACRA2: 100 is identical, negative is ruined.

    It sees nothing in a picture under 8 pixels, so those are first extended by their edge.
    """
    return ssimulacra.score(before, after)


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
    """How far an encoder's features of a picture have gone; see `Aim.progress`."""

    def __init__(
        self,
        encoder: Network,
        before: Levels,
        targets: Sequence[Levels],
        features: Features | None = None,
        *,
        aligned: bool = False,
    ) -> None:
        """Encode the original and the targets, (H, W, 3) uint8 each.

        Raises:
            PictureError: a target differs in size, or there is none and the direction needs one.
        """
        self._net = encoder
        for target in targets if encoder.model.manifest.size is None or aligned else ():
            _same_size(before, target, "target")
        self._aim = Aim.of(encoder, features or Features(), self._grown(before), targets, self._grown, aligned)

    @property
    def name(self) -> str:
        """Of the encoder."""
        return self._aim.name

    def __call__(self, levels: Levels) -> float:
        """The progress of a picture."""
        return self._aim.progress(self._aim.distance(self._grown(levels)))

    def _grown(self, levels: Levels) -> NDArray[np.float32]:
        return padded(levels, self._net.model.manifest)


def _lpips(net: Network, reference: Levels) -> Lpips | pooled.Lpips:
    """In one piece, or in tiles where the picture is large."""
    plan = tiles.cut(reference.shape)
    return Lpips(net, reference) if plan is None else pooled.Lpips(net, reference, plan)


def _progress(
    net: Network,
    before: Levels,
    targets: Sequence[Levels],
    features: Features | None,
    aligned: bool,
    window: Box | None,
) -> Progress | pooled.Progress:
    """The same; a network of one fixed size sees all of any picture."""
    plan = tiles.cut(before.shape)
    if plan is None or net.model.manifest.size is not None:
        return Progress(net, before, targets, features, aligned=aligned)
    for target in targets:
        _same_size(before, target, "target")
    return pooled.Progress(net, before, targets, features, plan, window)


def _mean(ways: Mapping[str, float]) -> float:
    return float(np.mean(list(ways.values())))


def _mean_square(difference: NDArray[np.float32]) -> float:
    """Of (1, C, H, W), over positions, summed over channels."""
    flat = difference.ravel()
    positions: int = difference.shape[2] * difference.shape[3]
    return float(np.dot(flat, flat)) / positions


def _same_size(first: Levels, other: Levels, name: str) -> None:
    if other.shape != first.shape:
        raise PictureError(
            f"the {name} is {other.shape[1]} x {other.shape[0]} and the first {first.shape[1]} x {first.shape[0]}; "
            "only pictures of one size can be compared"
        )
