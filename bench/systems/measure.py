"""What one finished 8-bit picture is worth to a system's claim, and what it costs an eye.

`glaze_trt.evaluate` measures what the product reports (`bench.budget` holds it against torch); FLIP is added here, as a
judge that no system optimises, and what the papers on faces claim. LPIPS is of the backbone that is optimised: another
one would need its trained weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import flip_evaluator
import numpy as np

from bench.systems.subject import Levels, Subject
from bench.systems.system import System
from glaze_trt.evaluate import Judge
from glaze_trt.network import Network
from glaze_trt.objective import Features

BLUR = ((7, 7), 3.0)
"""LowKey's: pixels of the kernel, and σ."""


def flip(before: Levels, after: Levels) -> float:
    """Mean LDR-FLIP (Andersson et al., HPG 2020) at its usual 67 pixels a degree; 0 is identical, 1 the most."""
    images = (levels.astype(np.float32) / np.float32(255) for levels in (before, after))
    _, mean, _ = flip_evaluator.evaluate(*images, "LDR", applyMagma=False)
    return float(mean)


class Measure:
    """Measures any number of pictures that a system made of one subject."""

    def __init__(self, system: System, subject: Subject, encoders: Sequence[Network], lpips: Network) -> None:
        """Look at the subject.

        Args:
            system: who made them.
            subject: of what.
            encoders: the system's, or others that look at its pictures.
            lpips: the perceptual net.
        """
        self._before, self._features = subject.picture, system.objective.features
        targets = subject.targets(system.toward)
        self._judge = Judge(
            self._before,
            targets=targets,
            encoders=encoders,
            perceptual=lpips,
            features=self._features,
        )
        self._faces = [_Face(net, self._before, targets) for net in encoders if system.faces]

    def __call__(self, after: Levels) -> dict[str, Any]:
        """Everything, by name; `linf` in 8-bit levels."""
        found = self._judge(after)
        progress = float(np.mean(list(found.progresses.values())))
        return {
            "progress": progress,
            "progresses": dict(found.progresses),
            "norm": 1 - progress if self._features.direction == "zero" else None,
            **(self._faces[0](after, self._features) if self._faces else {}),
            "lpips": found.lpips,
            "ssimulacra2": found.ssimulacra2,
            "ssim": found.ssim,
            "dssim": (1 - found.ssim) / 2,
            "linf": round(found.linf * 255),
            "psnr": found.psnr,
            "flip": flip(self._before, after),
        }

    def progress(self, after: Levels) -> float:
        """The mean progress of the encoders."""
        return float(np.mean(list(self.progresses(after).values())))

    def progresses(self, after: Levels) -> dict[str, float]:
        """The progress of each encoder."""
        return self._judge.progress(after)


class _Face:
    """How far embeddings of length one have moved: a distance between 0 and 2."""

    def __init__(self, net: Network, before: Levels, targets: Sequence[Levels]) -> None:
        self._net = net
        self._own, self._own_blurred = self._embedding(before), self._embedding(_blurred(before))
        self._goal = np.mean([self._embedding(target) for target in targets], axis=0) if targets else None

    def __call__(self, after: Levels, features: Features) -> dict[str, float | None]:
        """The shift, the shift seen through a blur, and for a hinge what is left of it."""
        found = self._embedding(after)
        hinge = None
        if features.direction == "between" and self._goal is not None:
            gap = np.linalg.norm(found - self._goal) - np.linalg.norm(found - self._own)
            hinge = max(0.0, float(gap) + features.margin)
        blurred = self._embedding(_blurred(after))
        return {
            "shift": float(np.linalg.norm(found - self._own)),
            "shift_blurred": float(np.linalg.norm(blurred - self._own_blurred)),
            "hinge": hinge,
        }

    def _embedding(self, levels: Levels) -> Any:
        whole = self._net(levels)["latent"].astype(np.float64).ravel()
        return whole / np.linalg.norm(whole)


def _blurred(levels: Levels) -> Levels:
    return np.asarray(cv2.GaussianBlur(levels, *BLUR), np.uint8)
