"""ICC profiles made of a matrix and curves, read into numbers: what Pillow's colour management does in 8 bits only.

After ICC.1:2022, clauses 10.6 (curveType), 10.18 (parametricCurveType) and 10.31 (XYZType). Profiles made of tables
(printers, most CMYK) are told apart and left to Little CMS.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POINTS = 65536
"""Of a sampled curve: one for each 16-bit value."""

_CHANNELS = {b"RGB ": 3, b"GRAY": 1, b"CMYK": 4}
_PARAMETERS = (1, 3, 4, 5, 7)


@dataclass(frozen=True)
class Profile:
    """A profile's device side.

    Attributes:
        channels: 1 for grey, 3 for RGB, 4 for CMYK.
        curves: device value to linear light, (channels, POINTS) over [0, 1]; None where the profile has tables.
        matrix: linear light to XYZ under D50, (3, 3); None for grey and tables.
    """

    channels: int
    curves: NDArray[np.float64] | None = None
    matrix: NDArray[np.float64] | None = None


def parse(icc: bytes) -> Profile:
    """Read a profile.

    Raises:
        ValueError: damaged, or of another kind of colour.
    """
    try:
        with np.errstate(all="ignore"):  # what a damaged curve computes is judged afterwards
            return _parse(icc)
    except (struct.error, IndexError, KeyError, OverflowError) as error:
        raise ValueError("not a whole ICC profile") from error


def _parse(icc: bytes) -> Profile:
    if len(icc) < 132 or icc[36:40] != b"acsp" or icc[16:20] not in _CHANNELS:
        raise ValueError("not an ICC profile of RGB, grey or CMYK")
    channels = _CHANNELS[icc[16:20]]
    (count,) = struct.unpack_from(">I", icc, 128)
    tags = {}
    for number in range(min(count, 200)):
        name, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * number)
        if offset + size > len(icc):
            raise ValueError("a tag lies outside the profile")
        tags[name] = icc[offset : offset + size]
    if channels == 4 or any(name.startswith(b"A2B") for name in tags):
        return Profile(channels)
    if channels == 1:
        return Profile(1, _curve(tags[b"kTRC"])[None])
    curves = np.stack([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")])
    matrix = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise ValueError("its primaries lie on a line")
    return Profile(3, curves, matrix)


def _xyz(tag: bytes) -> NDArray[np.float64]:
    if tag[:4] != b"XYZ ":
        raise ValueError("a colour is no XYZ")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> NDArray[np.float64]:
    x = np.linspace(0, 1, POINTS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        if count == 1:
            return _rising(x ** (struct.unpack_from(">H", tag, 12)[0] / 256))
        table = np.frombuffer(tag, ">u2", count, 12) / 65535
        return _rising(np.interp(x, np.linspace(0, 1, count), table))
    if tag[:4] != b"para":
        raise ValueError("a curve of an unknown kind")
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind >= len(_PARAMETERS):
        raise ValueError("a curve of an unknown kind")
    count = _PARAMETERS[kind]
    gamma, a, b, c, d, e, f = (*(value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12)), *[0.0] * 7)[:7]
    if kind == 0:
        a = 1.0
    if kind in (1, 2):  # Y = (aX+b)^g + c from X = -b/a on, and c before it
        if a == 0:
            raise ValueError("a curve without a slope")
        c, d, e, f = 0.0, -b / a, c, c
    power = np.maximum(a * x + b, 0) ** gamma + e
    return _rising(np.clip(np.where(x >= d, power, c * x + f), 0, 1))


def _rising(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """A curve that can be read backwards."""
    if not np.isfinite(curve).all() or curve[-1] <= curve[0]:
        raise ValueError("a curve that does not rise")
    return np.maximum.accumulate(curve)
