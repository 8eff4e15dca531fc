"""What the extractor is shown in the loop: the picture as ordinary handling would leave it, a different way each step.

    jpeg        compressed (see `glaze_trt.graph.jpeg`)
    resize      scaled down and back
    crop        a few pixels cut off, scaled back
    blur        by a Gaussian
    noise       Gaussian, other in every step
    brightness  brighter or darker; only for the preset that was published with it

Expectation over transformations (Athalye et al., ICML 2018), one sample a step: a draw picks its turn in a fixed round
in which the untouched picture has one too. Everything is a function of the picture, the draw and the seed, with static
shapes; nothing here is random. What is linear is a matrix a side, so that one pair of products serves all of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from engine.tape import Tape, dims
from glaze_trt.errors import UsageError
from glaze_trt.graph import grain, jpeg
from glaze_trt.graph.resampling import BICUBIC, LANCZOS, Matrix, resampling

Kind = Literal["untouched", "jpeg", "linear", "noise", "light"]


@dataclass(frozen=True)
class View:
    """One way to handle a picture.

    Attributes:
        kind: how it is written.
        amount: quality of a JPEG, noise in [0,1], or a factor of light.
        rows: of a linear one: how rows of pixels are mixed, by the height; (H, H).
        columns: the same of columns, by the width.
    """

    kind: Kind
    amount: float = 0.0
    rows: Callable[[int], Matrix] = np.eye
    columns: Callable[[int], Matrix] = np.eye


Setting = Callable[[Callable[[View], NDArray[np.floating]]], ir.Value]
"""From what a view is set to, to its value for the view whose turn it is."""


def _resized(part: float) -> View:
    def side(size: int) -> Matrix:
        small = max(1, round(size * part))
        return resampling(small, size, LANCZOS) @ resampling(size, small, LANCZOS)

    return View("linear", rows=side, columns=side)


def _cropped(top: int, bottom: int, left: int, right: int) -> View:
    def side(before: int, after: int) -> Callable[[int], Matrix]:
        def mixing(size: int) -> Matrix:
            cut = [min(pixels, size // 8) for pixels in (before, after)]
            inner = resampling(size - sum(cut), size, BICUBIC)
            return np.pad(inner, ((0, 0), (cut[0], cut[1])))

        return mixing

    return View("linear", rows=side(top, bottom), columns=side(left, right))


def _blurred(sigma: float) -> View:
    def side(size: int) -> Matrix:
        place = np.arange(size)
        weight = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
        return np.asarray(weight / weight.sum(1, keepdims=True))

    return View("linear", rows=side, columns=side)


VIEWS: Mapping[str, View] = {
    "untouched": View("untouched"),
    "jpeg 75": View("jpeg", 75),
    "jpeg 90": View("jpeg", 90),
    "half size": _resized(0.5),
    "three quarters": _resized(0.75),
    "crop": _cropped(5, 3, 2, 6),
    "other crop": _cropped(0, 7, 6, 1),
    "blur": _blurred(0.8),
    "noise": View("noise", 6 / 255),
    "brighter": View("light", 1.15),
    "darker": View("light", 0.85),
}
"""By name."""

ROUND: Mapping[str, tuple[str, ...]] = {
    "untouched": ("untouched",) * 3,
    "jpeg": ("jpeg 90", "jpeg 75", "jpeg 90"),
    "resize": ("half size", "three quarters"),
    "crop": ("crop", "other crop"),
    "blur": ("blur",),
    "noise": ("noise",) * 4,
    "brightness": ("brighter", "darker"),
}
"""The views of each name in one round. What costs most of the untouched progress and is least asked for has least."""

MULTIPLE = 8
"""Height and width of what is shown are multiples of this: JPEG has such blocks, and noise is made in pairs."""

NAMES = ("jpeg", "resize", "crop", "blur", "noise")
"""What a cloak can be asked to outlast."""


def turns(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the views in the order in which draws 0, 1, 2, ... take them; then from the start again.

    The views of each name, and the untouched picture's, are spread evenly over the round.

    Raises:
        UsageError: no such name.
    """
    unknown = [name for name in names if name not in ROUND]
    if unknown:
        raise UsageError(f"no transformation {unknown[0]!r}; choose from {', '.join(NAMES)}")
    places = [
        ((place + 0.5) / len(mine), view)
        for name, mine in ROUND.items()
        if name == "untouched" or name in names
        for place, view in enumerate(mine)
    ]
    return tuple(view for _, view in sorted(places, key=lambda place: place[0]))


def sampled(t: Tape, x: ir.Value, names: Sequence[str], draw: ir.Value, seed: ir.Value) -> ir.Value:
    """The picture as the view whose turn it is shows it.

    Args:
        t: the tape.
        x: (1, 3, H, W) RGB in [0,1]; H and W are multiples of 8.
        names: a selection of `NAMES`.
        draw: the number of the step, 0, 1, 2, ..., a float32 scalar.
        seed: in [0, 1), a float32 scalar.

    Returns:
        (1, 3, H, W) in [0,1].

    Raises:
        UsageError: no such name.
    """
    order = turns(names)
    with t.scope("views", precision="fp32"):
        turn = t.Cast(t.Mod(draw, float(len(order)), fmod=1), to=int(ir.DataType.INT64))
        return _shown(t, x, order, turn, draw, seed)


def apply(t: Tape, name: str, x: ir.Value, draw: ir.Value, seed: ir.Value) -> ir.Value:
    """The picture as one of `VIEWS` shows it; see `sampled`."""
    with t.scope("views", precision="fp32"):
        return _shown(t, x, (name,), t.constant(np.int64(0)), draw, seed)


def _shown(t: Tape, x: ir.Value, order: Sequence[str], turn: ir.Value, draw: ir.Value, seed: ir.Value) -> ir.Value:
    """The view number `turn` of `order`; those of one kind share their work, and one of them is chosen beforehand."""
    kinds = list(dict.fromkeys(VIEWS[name].kind for name in order))
    chosen = _entry(t, np.array([kinds.index(VIEWS[name].kind) for name in order], np.int64), turn)
    shown = x
    for number, kind in enumerate(kinds):
        if kind == "untouched":
            continue
        known = [name for name in dict.fromkeys(order) if VIEWS[name].kind == kind]
        which = _entry(t, np.array([known.index(name) if name in known else 0 for name in order], np.int64), turn)
        setting = functools.partial(_setting, t, [VIEWS[name] for name in known], which)
        view = _WRITTEN[kind](t, x, setting, draw, seed)
        shown = view if len(kinds) == 1 else t.Where(t.Equal(chosen, np.int64(number)), view, shown)
    return t.Clip(shown, 0.0, 1.0)


def _setting(t: Tape, views: Sequence[View], which: ir.Value, of: Callable[[View], NDArray[np.floating]]) -> ir.Value:
    """What one of several views of a kind is set to, `of` each of which has one shape."""
    return _entry(t, np.stack([np.asarray(of(view), np.float32) for view in views]), which)


def _entry(t: Tape, choices: NDArray[np.generic], index: ir.Value) -> ir.Value:
    return t.Gather(choices, index, axis=0) if len(choices) > 1 else t.constant(choices[0])


def _compressed(t: Tape, x: ir.Value, setting: Setting, draw: ir.Value, seed: ir.Value) -> ir.Value:
    return jpeg.jpeg(t, x, setting(lambda view: jpeg.steps(int(view.amount))))


def _mixed(t: Tape, x: ir.Value, setting: Setting, draw: ir.Value, seed: ir.Value) -> ir.Value:
    """R·x·Cᵀ."""
    height, width = dims(x)[2:]
    rows = setting(lambda view: view.rows(height))
    return t.MatMul(t.MatMul(rows, x), setting(lambda view: view.columns(width).T))


def _grained(t: Tape, x: ir.Value, setting: Setting, draw: ir.Value, seed: ir.Value) -> ir.Value:
    return t.Add(x, t.Mul(grain.gaussian(t, dims(x), draw, seed), setting(lambda view: np.asarray(view.amount))))


def _lit(t: Tape, x: ir.Value, setting: Setting, draw: ir.Value, seed: ir.Value) -> ir.Value:
    return t.Mul(x, setting(lambda view: np.asarray(view.amount)))


_WRITTEN = {"jpeg": _compressed, "linear": _mixed, "noise": _grained, "light": _lit}
"""How each kind is written, from the setting of the view whose turn it is."""
