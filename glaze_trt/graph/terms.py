"""The terms of the objective as graph pieces: each takes values on a tape and returns a scalar value.

    features      how far an extractor's view is from another
    l2            the length of δ
    dssim         (1 − SSIM) / 2
    lpips         learned perceptual distance (Zhang et al., CVPR 2018)
    visibility    SSIMULACRA2's error, in XYB over six octaves
    structure     contrast-structure of SSIM over three octaves of opponent colours, and slow shifts of colour

What concerns the original picture alone is written by the `*_reference` functions, in a graph of its own that runs
once; its outputs are constants of the step. Everything here stays in fp32: differences of local variances cancel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from ssimulacra2.ssimulacra2 import kOpsinAbsorbanceMatrix, weights

from engine.tape import Tape, dims
from glaze_trt.objective import Metric

Named = dict[str, ir.Value]

_BIAS = 0.0037930732552754493
"""Opsin absorbance bias of XYB (libjxl)."""

_SIGMA, _RADIUS = 1.5, 5

_SMALLEST = 8
"""The shortest side that SSIMULACRA2 still measures."""

_OPPONENT = np.array([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [-0.25, -0.25, 0.5]], np.float32)
_OPPONENT_WEIGHT = np.array([1.0, 0.7, 0.5], np.float32)
_SHIFT_WEIGHT = 2000.0
"""Price of a squared shift of a local mean. SSIMULACRA2 is blind to a slow change of hue: at 100 the loop turned a
brown robe blue (low-pass ΔE2000 3.3 on the Watts pair, progress 0.49); at 1000 it is 1.3 (0.45), at 3000 1.1 (0.44)."""
_OCTAVE_WEIGHT = (1.0, 0.7, 0.4)
_STABILISER = 3e-4
"""SSIM's C₂, in squared units of [0,1]."""

_C1, _C2 = 0.01**2, 0.03**2
"""SSIM's constants, in squared units of [0,1]."""

_LEAST = 1e-12
"""Keeps roots and quotients away from zero."""

_OCTAVES = 6
"""Of SSIMULACRA2, at most."""

_NEGLIGIBLE = 0.01
"""SSIMULACRA2 has 108 weights from 0.0001 to 225; those below this move a score by under 0.01 and are left out."""


def features(t: Tape, ours: ir.Value, theirs: ir.Value, metric: Metric) -> ir.Value:
    """The distance of two features of one shape; `theirs` is what a relative one is relative to."""
    if metric == "cosine":
        shared = _sum(t, t.Mul(ours, theirs))
        return t.Sub(1.0, t.Div(shared, t.Sqrt(t.Mul(_sum_square(t, ours), _sum_square(t, theirs)))))
    gap = t.Sub(ours, theirs)
    if metric == "mean-squared":
        return _mean_square(t, gap)
    square = _sum_square(t, gap)
    if metric.startswith("relative"):
        square = t.Div(square, t.Add(_sum_square(t, theirs), _LEAST))
    return t.Sqrt(t.Add(square, _LEAST)) if metric in ("l2", "relative") else square


def unit(t: Tape, feature: ir.Value) -> ir.Value:
    """A feature of length 1."""
    return t.Div(feature, t.Sqrt(t.Add(_sum_square(t, feature), _LEAST)))


def l2(t: Tape, delta: ir.Value) -> ir.Value:
    """Σ δ²."""
    return _sum_square(t, delta)


def dssim_reference(t: Tape, x: ir.Value) -> Named:
    """Local means and variances of the original's channels."""
    mean = _blur(t, x)
    return {"dssim_mean": mean, "dssim_variance": t.Sub(_blur(t, t.Mul(x, x)), t.Mul(mean, mean))}


def dssim(t: Tape, x: ir.Value, picture: ir.Value, reference: Mapping[str, ir.Value]) -> ir.Value:
    """(1 − SSIM) / 2 of RGB in [0,1] (Wang et al., IEEE TIP 2004), as Fawkes bounds it."""
    mean, variance = reference["dssim_mean"], reference["dssim_variance"]
    ours = _blur(t, x)
    spread = t.Sub(_blur(t, t.Mul(x, x)), t.Mul(ours, ours))
    shared = t.Sub(_blur(t, t.Mul(x, picture)), t.Mul(ours, mean))
    light = t.Div(t.Add(t.Mul(t.Mul(ours, mean), 2.0), _C1), t.Add(t.Add(t.Mul(ours, ours), t.Mul(mean, mean)), _C1))
    same = t.Div(t.Add(t.Mul(shared, 2.0), _C2), t.Add(t.Add(spread, variance), _C2))
    return t.Mul(t.Sub(1.0, _mean(t, t.Mul(light, same))), 0.5)


def gaussian(t: Tape, x: ir.Value, radius: int, sigma: float) -> ir.Value:
    """A Gaussian over (2·radius+1)², depthwise and separable, zeros outside."""
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    channels = dims(x)[1]
    kernel = np.tile((taps / taps.sum()).astype(np.float32), (channels, 1))
    row, column = kernel[:, None, None, :], kernel[:, None, :, None]
    wide = t.Conv(x, row, group=channels, pads=[0, radius, 0, radius])
    return t.Conv(wide, column, group=channels, pads=[radius, 0, radius, 0])


def lpips(t: Tape, maps: Sequence[ir.Value], reference: Sequence[ir.Value]) -> ir.Value:
    """LPIPS from feature maps that are already normalised and weighted, (B, C, H, W) each: Σ mean_hw Σ_c (a−b)²."""
    total: ir.Value | None = None
    for ours, theirs in zip(maps, reference, strict=True):
        layer = t.Mul(_mean_square(t, t.Sub(ours, theirs)), float(dims(ours)[1]))
        total = layer if total is None else t.Add(total, layer)
    assert total is not None
    return total


def structure_reference(t: Tape, x: ir.Value) -> Named:
    """Opponent colours of the original per octave, with their local means and variances."""
    named: Named = {}
    for octave, y in enumerate(_octaves(t, t.Conv(x, _pointwise(_OPPONENT)), len(_OCTAVE_WEIGHT))):
        mean = _blur(t, y)
        named |= {
            f"structure_colour_{octave}": y,
            f"structure_mean_{octave}": mean,
            f"structure_variance_{octave}": t.Sub(_blur(t, t.Mul(y, y)), t.Mul(mean, mean)),
        }
    return named


def structure(t: Tape, delta: ir.Value, reference: Mapping[str, ir.Value]) -> ir.Value:
    """Mean of 1 − l·s: s is SSIM's contrast-structure, l = 1 − 2000·(Δmean)². 0 for equal pictures.

    Written in the change d of each opponent colour, 1 − s = Var(d) / (Var(a) + Var(a+d) + C), so that nothing
    cancels where d is small.
    """
    total: ir.Value | None = None
    octaves = sum(name.startswith("structure_colour_") for name in reference)
    share = np.array(_OCTAVE_WEIGHT[:octaves]) / sum(_OCTAVE_WEIGHT[:octaves])
    weight = (_OPPONENT_WEIGHT / _OPPONENT_WEIGHT.sum()).reshape(1, 3, 1, 1)
    for octave, d in enumerate(_octaves(t, t.Conv(delta, _pointwise(_OPPONENT)), octaves)):
        a, mean = reference[f"structure_colour_{octave}"], reference[f"structure_mean_{octave}"]
        before = reference[f"structure_variance_{octave}"]
        shift = _blur(t, d)
        change = t.Sub(_blur(t, t.Mul(d, d)), t.Mul(shift, shift))
        shared = t.Sub(_blur(t, t.Mul(a, d)), t.Mul(mean, shift))
        scale = t.Add(t.Add(t.Mul(before, 2.0), change), t.Add(t.Mul(shared, 2.0), _STABILISER))
        same = t.Sub(1.0, t.Div(change, scale))
        light = t.Sub(1.0, t.Mul(t.Mul(shift, shift), _SHIFT_WEIGHT))
        loss = t.Mul(t.Sub(1.0, t.Mul(light, same)), weight)
        layer = t.Mul(_mean(t, loss), float(3.0 * share[octave]))
        total = layer if total is None else t.Add(total, layer)
    assert total is not None
    return total


def visibility_reference(t: Tape, x: ir.Value) -> Named:
    """XYB of the original per octave, with local means and variances."""
    named: Named = {}
    for octave, linear in enumerate(_octaves(t, _linear(t, x), _OCTAVES)):
        a = _xyb(t, linear)
        mean = _blur(t, a)
        named |= {
            f"visibility_xyb_{octave}": a,
            f"visibility_mean_{octave}": mean,
            f"visibility_variance_{octave}": t.Sub(_blur(t, t.Mul(a, a)), t.Mul(mean, mean)),
        }
    return named


def visibility(t: Tape, x: ir.Value, reference: Mapping[str, ir.Value], first: int = 0) -> ir.Value:
    """SSIMULACRA2's error e of a picture against the original: its score is 100 − 10·e^0.6276.

    After libjxl's definition (Sneyers, 2022), by the weights of the `ssimulacra2` package: per octave and XYB
    channel the mean and the 4-norm of an SSIM error, of added edges and of lost detail.

    Args:
        t: the tape.
        x: the picture, (1, 3, H, W) in [0,1].
        reference: what `visibility_reference` says of the original.
        first: the octave of a larger picture that this one is; what is seen in that one's finer octaves is not counted.
    """
    octaves = min(sum(name.startswith("visibility_xyb_") for name in reference), _OCTAVES - first)
    # the package numbers its weights by the octaves that a small picture has
    table = weights[: 3 * (first + octaves) * 6].reshape(3, first + octaves, 2, 3)[:, first:]
    total: ir.Value | None = None
    for octave, linear in enumerate(_octaves(t, _linear(t, x), octaves)):
        used = table[:, octave]
        if not (used > _NEGLIGIBLE).any():
            continue
        a, mean = reference[f"visibility_xyb_{octave}"], reference[f"visibility_mean_{octave}"]
        b = _xyb(t, linear)
        mean_b = _blur(t, b)
        maps = []
        if (used[:, :, 0] > _NEGLIGIBLE).any():
            before = reference[f"visibility_variance_{octave}"]
            after = t.Sub(_blur(t, t.Mul(b, b)), t.Mul(mean_b, mean_b))
            shared = t.Sub(_blur(t, t.Mul(a, b)), t.Mul(mean, mean_b))
            shift = t.Sub(mean, mean_b)
            ratio = t.Div(t.Add(t.Mul(shared, 2.0), 0.0009), t.Add(t.Add(before, after), 0.0009))
            error = t.Sub(1.0, t.Mul(t.Sub(1.0, t.Mul(shift, shift)), ratio))
            maps.append((t.Relu(error), used[:, :, 0]))
        if (used[:, :, 1:] > _NEGLIGIBLE).any():
            edge = t.Div(t.Add(t.Abs(t.Sub(b, mean_b)), 1.0), t.Add(t.Abs(t.Sub(a, mean)), 1.0))
            edge = t.Sub(edge, 1.0)
            maps += [(t.Relu(edge), used[:, :, 1]), (t.Relu(t.Neg(edge)), used[:, :, 2])]
        for error, weight in maps:
            for part in _norms(t, error, weight):
                total = part if total is None else t.Add(total, part)
    assert total is not None
    s = t.Mul(total, 0.9562382616834844)
    cubic = t.Add(t.Mul(s, 6.248496625763138e-05), -0.020884521182843837)
    return t.Mul(s, t.Add(t.Mul(s, cubic), 2.326765642916932))


def _norms(t: Tape, error: ir.Value, weight: np.ndarray) -> list[ir.Value]:
    """The weighted mean and the weighted 4-norm of a (1, 3, H, W) error; `weight` is (channel, norm)."""
    parts = []
    if (weight[:, 0] > _NEGLIGIBLE).any():
        means = t.ReduceMean(error, [0, 2, 3], keepdims=0)
        parts.append(t.ReduceSum(t.Mul(means, weight[:, 0].astype(np.float32)), [0], keepdims=0))
    if (weight[:, 1] > _NEGLIGIBLE).any():
        square = t.Mul(error, error)
        fourth = t.ReduceMean(t.Mul(square, square), [0, 2, 3], keepdims=0)
        norm = t.Sqrt(t.Sqrt(t.Add(fourth, 1e-16)))
        parts.append(t.ReduceSum(t.Mul(norm, weight[:, 1].astype(np.float32)), [0], keepdims=0))
    return parts


def _linear(t: Tape, x: ir.Value) -> ir.Value:
    """SRGB in [0,1] to linear light."""
    bright = _power(t, t.Mul(t.Add(t.Max(x, 0.04045), 0.055), 1 / 1.055), 2.4)
    return t.Where(t.Greater(x, 0.04045), bright, t.Mul(x, 1 / 12.92))


def _xyb(t: Tape, linear: ir.Value) -> ir.Value:
    """Linear RGB to XYB, shifted to positive values as SSIMULACRA2 does."""
    mixed = t.Conv(linear, _pointwise(kOpsinAbsorbanceMatrix.reshape(3, 3)), np.full(3, _BIAS, np.float32))
    root = _power(t, t.Max(mixed, 1e-6), 1 / 3)
    to_xyb = np.array([[7.0, -7.0, 0.0], [0.5, 0.5, 0.0], [-0.5, -0.5, 1.0]])
    offset = np.array([0.42, 0.01, 0.55]) - to_xyb @ np.full(3, np.cbrt(_BIAS))
    return t.Conv(root, _pointwise(to_xyb), offset.astype(np.float32))


def _power(t: Tape, x: ir.Value, exponent: float) -> ir.Value:
    """A power of positive numbers, whose gradient needs no second power: (y·p)/x, where Pow's is p·x^(p−1)."""
    return t.Exp(t.Mul(t.Log(x), exponent))


def _octaves(t: Tape, x: ir.Value, count: int) -> list[ir.Value]:
    """`x` and its halvings by 2×2 means (of what there is, at an odd edge), down to 8 pixels."""
    levels = [x]
    while len(levels) < count and (min(dims(levels[-1])[2:]) + 1) // 2 >= _SMALLEST:
        odd = any(d % 2 for d in dims(levels[-1])[2:])
        levels.append(t.AveragePool(levels[-1], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=int(odd)))
    return levels


def _blur(t: Tape, x: ir.Value) -> ir.Value:
    """Gaussian of σ 1.5 px over 11×11, as SSIM and SSIMULACRA2 use it."""
    return gaussian(t, x, _RADIUS, _SIGMA)


def _pointwise(matrix: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matrix, np.float32)[:, :, None, None]


def _mean(t: Tape, x: ir.Value) -> ir.Value:
    return t.ReduceMean(x, list(range(len(dims(x)))), keepdims=0)


def _mean_square(t: Tape, x: ir.Value) -> ir.Value:
    return _mean(t, t.Mul(x, x))


def _sum(t: Tape, x: ir.Value) -> ir.Value:
    return t.ReduceSum(x, list(range(len(dims(x)))), keepdims=0)


def _sum_square(t: Tape, x: ir.Value) -> ir.Value:
    return _sum(t, t.Mul(x, x))
