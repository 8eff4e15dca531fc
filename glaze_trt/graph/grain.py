"""Gaussian noise as a function of place, draw and seed: the same on every engine, without random operators.

A pixel's hash is R·C + S mod p, with numbers R and S of its row and C of its column; these come from rounds of
x → (x + k)³ mod p, the MiMC permutation (Albrecht et al., ASIACRYPT 2016), keyed by draw and seed. All in integers
below 2²⁴, as some engines compute integers in float32. Two hashes make a pair of Gaussians (Box and Muller, 1958). Not
for secrets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.tape import Tape

_PRIME = 2039
"""A prime p with p² + p well below 2²⁴, and 3 no divisor of p − 1, so that cubing is a permutation."""

_CONSTANTS = (709, 1531, 1993, 357, 1289, 869)
"""What each round adds beside its key, so that no two are alike; any numbers would do."""


def gaussian(t: Tape, shape: Sequence[int], draw: ir.Value, seed: ir.Value) -> ir.Value:
    """Noise of mean 0 and variance 1.

    Args:
        t: the tape.
        shape: (1, C, H, W), W even.
        draw: a whole number, a float32 scalar; other noise for each up to four million.
        seed: in [0, 1), a float32 scalar.
    """
    _, channels, height, width = shape
    rows, columns = channels * height, width // 2
    sizes = [rows, rows, columns] * 2
    parts = t.ops("Split", _hashed(t, sum(sizes), draw, seed), sizes, outputs=len(sizes), axis=0)
    radius, angle = (
        _uniform(
            t,
            t.Reshape(slope, [1, channels, height, 1]),
            t.Reshape(offset, [1, channels, height, 1]),
            t.Reshape(column, [1, 1, 1, columns]),
        )
        for slope, offset, column in (parts[:3], parts[3:])
    )
    radius, angle = t.Sqrt(t.Mul(t.Log(radius), -2.0)), t.Mul(angle, 2 * np.pi)
    return t.Concat(t.Mul(radius, t.Cos(angle)), t.Mul(radius, t.Sin(angle)), axis=3)


def _hashed(t: Tape, count: int, draw: ir.Value, seed: ir.Value) -> ir.Value:
    """`count` numbers of [0, p), int32."""
    fine = t.Mul(seed, float(_PRIME))
    rest = t.Mul(t.Sub(fine, t.Floor(fine)), float(_PRIME))
    keys = [_whole(t, key) for key in (draw, fine, t.Mul(draw, 1 / _PRIME), rest)]
    low, high = (part.astype(np.int32) for part in np.divmod(np.arange(count), _PRIME)[::-1])
    x: ir.Value = t.constant(low)
    for number, added in enumerate(_CONSTANTS):
        x = _mod(t, t.Add(x, t.Add(high * (number + 1), t.Add(keys[number % len(keys)], added))))
        x = _mod(t, t.Mul(x, _mod(t, t.Mul(x, x))))
    return x


def _whole(t: Tape, x: ir.Value) -> ir.Value:
    return _mod(t, t.Cast(t.Floor(x), to=int(ir.DataType.INT32)))


def _uniform(t: Tape, slope: ir.Value, offset: ir.Value, column: ir.Value) -> ir.Value:
    """Numbers in (0, 1)."""
    whole = _mod(t, t.Add(t.Mul(slope, column), offset))
    return t.Mul(t.Add(t.Cast(whole, to=int(ir.DataType.FLOAT)), 0.5), 1 / _PRIME)


def _mod(t: Tape, x: ir.Value) -> ir.Value:
    return t.Mod(x, _PRIME)
