"""ICC profiles made here, as no system has them all: wide RGB, grey, and inks by tables. For samples and tests.

After ICC.1:2022: matrix profiles (8.4.2), grey (8.4.3), and lut8 (10.10) for CMYK, whose inks are the plain ones.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65_XY, _D50_XY = (0.3127, 0.3290), (0.3457, 0.3585)


def _profile(space: bytes, device: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("made by bench"), b"cprt": _text("public domain"), b"wtpt": _xyz(_D50), **tags}
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x04300000, device, space, connection)
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28
    header += struct.pack(">3i", *(round(part * 65536) for part in _D50)) + b"\0" * 48
    return header[:128] + struct.pack(">I", len(tags)) + table + body


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def _xyz(colour: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(part) * 65536) for part in colour))


def gamma(value: float) -> bytes:
    """A curve that is a power."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def parametric(*numbers: float) -> bytes:
    """A parametric curve of type 3, as sRGB's."""
    return b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *(round(number * 65536) for number in numbers))


SRGB_CURVE = parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def rgb(primaries: Sequence[tuple[float, float]], white: tuple[float, float], curve: bytes) -> bytes:
    """An RGB profile of a matrix and one curve; chromaticities x, y."""

    def at(x: float, y: float) -> NDArray[np.float64]:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    columns = np.stack([at(*primary) for primary in primaries], axis=1)
    columns = columns * np.linalg.solve(columns, at(*white))
    cone = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ at(*white)))
    matrix = np.linalg.inv(_BRADFORD) @ cone @ _BRADFORD @ columns
    colours = {name: _xyz(matrix[:, number]) for number, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"RGB ", b"mntr", b"XYZ ", {**colours, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def grey(curve: bytes) -> bytes:
    """A grey profile of one curve."""
    return _profile(b"GRAY", b"mntr", b"XYZ ", {b"kTRC": curve})


def inks() -> bytes:
    """A CMYK profile by tables, there and back: light is what plain inks leave, black takes half of the shared grey."""
    points = 9
    grid = np.linspace(0, 1, points)
    c, m, y, k = np.meshgrid(*[grid] * 4, indexing="ij")
    lights = (1 - np.stack([c, m, y], axis=-1)) * (1 - k[..., None])
    bright, a, b = np.meshgrid(grid, *[np.linspace(0, 1, 17)] * 2, indexing="ij")
    light = _rgb_of_lab(np.stack([100 * bright, 255 * a - 128, 255 * b - 128], axis=-1))
    black = 0.5 * (1 - light.max(axis=-1, keepdims=True))
    back = np.concatenate([1 - light / np.maximum(1 - black, 1e-6), black], axis=-1)
    tables = {b"A2B0": _lut8(4, 3, points, _lab_bytes(lights))}
    return _profile(b"CMYK", b"prtr", b"Lab ", tables | {b"B2A0": _lut8(3, 4, (points, 17, 17), np.rint(255 * back))})


def _lut8(inputs: int, outputs: int, points: int | tuple[int, ...], table: NDArray[np.float64]) -> bytes:
    if isinstance(points, tuple):  # lut8 has one number of points for all, so the coarse axis is made finer
        table = np.stack([_finer(table[..., channel], max(points)) for channel in range(outputs)], axis=-1)
        points = max(points)
    identity = bytes(range(256))
    header = struct.pack(">4sIBBBB", b"mft1", 0, inputs, outputs, points, 0)
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    return header + matrix + identity * inputs + np.clip(table, 0, 255).astype(np.uint8).tobytes() + identity * outputs


def _finer(table: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    where = np.linspace(0, table.shape[0] - 1, points)
    low = np.minimum(where.astype(int), table.shape[0] - 2)
    part = (where - low)[:, None, None]
    return np.asarray(np.rint(table[low] * (1 - part) + table[low + 1] * part))


def _srgb_to_xyz() -> NDArray[np.float64]:
    columns = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169],
                        [0.0139322, 0.0971045, 0.7141733]])  # fmt: skip
    return columns


def _lab_bytes(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Encoded sRGB in [0, 1] to 8-bit Lab."""
    linear = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    part = linear @ _srgb_to_xyz().T / _D50
    f = np.where(part > 0.008856, np.cbrt(part), 7.787 * part + 16 / 116)
    lab = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
    return np.rint(lab * [2.55, 1, 1] + [0, 128, 128])


def _rgb_of_lab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = (lab[..., 0] + 16) / 116
    f = np.stack([middle + lab[..., 1] / 500, middle, middle - lab[..., 2] / 200], axis=-1)
    part = np.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    linear = np.clip((part * _D50) @ np.linalg.inv(_srgb_to_xyz()).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


DISPLAY_P3 = rgb(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), _D65_XY, SRGB_CURVE)
ADOBE_RGB = rgb(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), _D65_XY, gamma(563 / 256))
PROPHOTO = rgb(((0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105)), _D50_XY, gamma(1.8))
GREY_22 = grey(gamma(2.2))
INKS = inks()
