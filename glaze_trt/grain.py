"""Gaussian noise as a function of place, draw and seed: the same on every engine, without random operators.

A pixel's hash is R·C + S mod 1019 with keys R and S of its row and C of its column; keys come from rounds of
x → (x + k)³ mod 1019, the MiMC permutation (Albrecht et al., ASIACRYPT 2016). All numbers stay below 2²⁴, where
float32 counts exactly. Two hashes make a pair of Gaussians (Box and Muller, 1958). Not for secrets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.tape import Tape

_PRIME = 1019.0
"""A prime p with p² + 2p < 2²⁴ and 3 no divisor of p − 1, so that cubing is a permutation."""

_ROUNDS = 5


def gaussian(t: Tape, shape: Sequence[int], draw: ir.Value, seed: ir.Value) -> ir.Value:
    """Noise of mean 0 and variance 1.

    Args:
        t: the tape.
        shape: (1, C, H, W), W even.
        draw: a whole number, 0 up to 10⁶: other noise for each.
        seed: in [0, 1).
    """
    _, channels, height, width = shape
    fine = t.Mul(seed, _PRIME)
    keys = [_mod(t, draw), t.Floor(t.Mul(draw, 1 / _PRIME)), t.Floor(fine)]
    keys.append(t.Floor(t.Mul(t.Sub(fine, keys[2]), _PRIME)))
    rows = np.arange(channels * height, dtype=np.float32).reshape(1, channels, height, 1)
    columns = np.arange(width // 2, dtype=np.float32).reshape(1, 1, 1, -1)

    def uniform(salt: int) -> ir.Value:
        slope, offset = (_keyed(t, rows, keys, salt + i) for i in (0, 1))
        at = _keyed(t, columns, keys, salt + 2)
        return t.Mul(t.Add(_mod(t, t.Add(t.Mul(slope, at), offset)), 0.5), 1 / _PRIME)

    radius = t.Sqrt(t.Mul(t.Log(uniform(1)), -2.0))
    angle = t.Mul(uniform(4), 2 * np.pi)
    return t.Concat(t.Mul(radius, t.Cos(angle)), t.Mul(radius, t.Sin(angle)), axis=3)


def _keyed(t: Tape, index: np.ndarray, keys: Sequence[ir.Value], salt: int) -> ir.Value:
    """A hash in [0, 1019) of every index under the keys."""
    low, high = np.mod(index, np.float32(_PRIME)), np.floor(index / np.float32(_PRIME))
    x: ir.Value | np.ndarray = low
    for number in range(_ROUNDS):
        key = keys[number % len(keys)]
        x = _mod(t, t.Add(t.Add(x, key), np.float32(101 * salt + 17 * number) + high * np.float32(3)))
        x = _mod(t, t.Mul(x, _mod(t, t.Mul(x, x))))
    return x


def _mod(t: Tape, x: ir.Value) -> ir.Value:
    """X mod 1019 of whole numbers below 2²⁰; the half keeps the quotient clear of the next integer."""
    quotient = t.Floor(t.Mul(t.Add(x, 0.5), 1 / _PRIME))
    return t.Sub(x, t.Mul(quotient, _PRIME))
