"""Published protection systems as objectives: their settings, on this package's engine.

Sizes are in [0,1] pixel units; where a paper works in [-1,1], they are halved. A paper's budget is kept as published
and the last δ is saved as it is, but `fawkes` saves the best δ, shortened until the picture keeps its DSSIM; only
`glaze` fits δ to the budget of `--intensity`. What each paper claims, and is tested for, stands beside it. Settings are
from the papers and their public releases; no code is theirs. docs/presets.md lists what still differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from glaze_trt.errors import UsageError
from glaze_trt.objective import Budget, Constraint, Features, Objective, Search, Update


@dataclass(frozen=True)
class Preset:
    """A system.

    Attributes:
        objective: its settings.
        source: where they are from.
        claim: what it does to an extractor, in a few words.
        target: what the picture is moved toward where none is given: itself in a `style`, a high-contrast `text`
            pattern, or `none`: no target is used, or one must be given.
        faces: whether its extractor is meant to be a face embedding (`--extractor`).
    """

    objective: Objective
    source: str
    claim: str
    target: Literal["style", "text", "none"] = "style"
    faces: bool = False


def _free(linf: float) -> Budget:
    """No promise but the largest change of a channel."""
    return Budget(lpips=None, linf=linf, ssimulacra2=None)


_GLAZE = Preset(
    Objective(),
    "Shan et al., Glaze, USENIX Security 2023 (arXiv 2302.04222); budget and update are this package's own",
    "the encoder sees another style",
)

_GLAZE_PAPER = Preset(
    Objective(
        name="glaze-paper",
        budget=_free(1.0),
        features=Features(unscaled=True),
        constraints=(Constraint("lpips", "hinge", limit=0.05, weight=30.0),),
        steps=500,
        update=Update("adam", rate=0.005, schedule="constant", momentum=0.9, memory=0.999),
        start=0.025,
        finish="last",
    ),
    "the same, as published: Adam 0.01 in [-1,1], 500 steps, 30·max(LPIPS − 0.05, 0), last iterate",
    "the encoder sees another style",
)

_NIGHTSHADE = Preset(
    Objective(
        name="nightshade",
        budget=_free(0.04),
        features=Features(metric="l2"),
        constraints=(),
        steps=500,
        update=Update("sign", rate=1.0, schedule="line"),
        start=0.0,
        finish="last",
    ),
    "Shan et al., Nightshade, IEEE S&P 2024 (arXiv 2310.13828): L∞ 0.04, sign steps from the whole budget down to 1 %",
    "the encoder sees another concept",
)

_PHOTOGUARD = Preset(
    Objective(
        name="photoguard",
        budget=_free(0.03),
        features=Features(direction="zero", metric="l2"),
        constraints=(),
        steps=1000,
        update=Update("sign", rate=1 / 3, schedule="line"),
        start=0.03,
        finish="last",
    ),
    "Salman et al., PhotoGuard, ICML 2023 (arXiv 2302.06588), encoder attack: L∞ 0.06 in [-1,1], sign steps from 0.02, "
    "random start",
    "the latent's norm falls",
    target="none",
)

_MIST = Preset(
    Objective(
        name="mist",
        budget=_free(16 / 255),
        features=Features(metric="sum-squared"),
        constraints=(),
        steps=100,
        update=Update("sign", rate=1 / 16, schedule="constant"),
        start=16 / 255,
        finish="last",
    ),
    "Liang and Wu, Mist (arXiv 2305.12683), texture mode: L∞ 16/255, 100 sign steps of 1/255, random start",
    "the encoder sees a high-contrast pattern",
    target="text",
)

_FAWKES = Preset(
    Objective(
        name="fawkes",
        budget=Budget(lpips=None, linf=15 / 255, ssimulacra2=None, dssim=0.012),
        features=Features(direction="away", metric="relative-squared", unit=True),
        constraints=(Constraint("dssim", "doubling", limit=0.012, weight=1e6),),
        steps=75,
        update=Update("adadelta", rate=1.5, schedule="constant", memory=0.95, damping=1e-4),
    ),
    "Shan et al., Fawkes, USENIX Security 2020 (arXiv 2002.08327), mode mid: DSSIM ≤ 0.012, δ within ±15/255",
    "the face's embedding moves away from itself, DSSIM within 0.012",
    target="none",
    faces=True,
)

_LOWKEY = Preset(
    Objective(
        name="lowkey",
        budget=_free(1.0),
        features=Features(direction="away", metric="relative", blurred=True),
        constraints=(Constraint("lpips", "penalty", weight=0.05),),
        steps=50,
        update=Update("sign", rate=0.00125, schedule="constant"),
        start=0.0025,
        finish="last",
    ),
    "Cherepanova et al., LowKey, ICLR 2021 (arXiv 2101.07922): 50 sign steps of 0.0025 in [-1,1], 0.05·LPIPS",
    "the face's embedding moves away from itself, also seen through a blur",
    target="none",
    faces=True,
)

_FACE_OFF = Preset(
    Objective(
        name="face-off",
        budget=_free(1.0),
        features=Features(direction="between", metric="l2", unit=True, margin=0.05),
        constraints=(Constraint("l2", "penalty"),),
        steps=60,
        update=Update("adam", rate=0.01, schedule="constant", momentum=0.9, memory=0.999),
        start=0.0,
        finish="last",
        search=Search(rounds=6, first=1.0, amplify=1.2),
    ),
    "Chandrasekaran et al., Face-Off, PETS 2021 (arXiv 2003.08861): CW-L2 with a binary search over c, amplified",
    "the face's embedding is nearer another person's than its own: the hinge is at zero",
    target="none",
    faces=True,
)

_FOGGYSIGHT = Preset(
    Objective(
        name="foggysight",
        budget=_free(0.125),
        features=Features(metric="cosine", unit=True, views=("brightness", "crop", "noise")),
        constraints=(Constraint("l2", "penalty", weight=1e-6),),
        steps=2000,
        update=Update("adam", rate=0.02, schedule="constant", momentum=0.9, memory=0.999),
        finish="last",
    ),
    "Evtimov et al., FoggySight, PETS 2021 (arXiv 2012.08588): cosine to the mean of other people's embeddings, Adam "
    "0.01 and ε 0.5 in standardised units (a quarter of that in [0,1])",
    "the face's embedding moves toward the mean of other people's",
    target="none",
    faces=True,
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.objective.name: preset
        for preset in (
            _GLAZE,
            _GLAZE_PAPER,
            _NIGHTSHADE,
            _PHOTOGUARD,
            _MIST,
            _FAWKES,
            _LOWKEY,
            _FACE_OFF,
            _FOGGYSIGHT,
        )
    }
)


def find(name: str) -> Objective:
    """A preset's objective.

    Raises:
        UsageError: there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name].objective
