"""What JPEG does to a picture, as a graph piece with a gradient: colour, 4:2:0, 8×8 DCT, quantisation, and back.

After ITU-T T.81 and JFIF 1.02, with libjpeg's choices, which are Pillow's: tables scaled by quality, chroma halved by
2×2 means and doubled by a triangle filter. There is no entropy coding (it loses nothing), and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from engine.tape import Tape, dims

Rounding = Callable[[Tape, ir.Value], ir.Value]

_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Quantisation steps of T.81, annex K, at quality 50."""

_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TO_RGB = np.array([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]])

_MIDDLE = 128.0


def steps(quality: int) -> np.ndarray:
    """Libjpeg's quantisation steps of luma and chroma, in levels: (2, 64), row by row of the 8×8 frequencies."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = np.stack([_LUMA, _CHROMA]).reshape(2, 64)
    return np.asarray(np.clip((tables * scale + 50) // 100, 1, 255), np.float32)


def rounded(t: Tape, x: ir.Value) -> ir.Value:
    """The nearest integer r, with a slope: r + (x − r)³ (Shin and Song, NIPS 2017 workshop on computer security)."""
    nearest = t.Round(x)
    off = t.Sub(x, nearest)
    return t.Add(nearest, t.Mul(off, t.Mul(off, off)))


def jpeg(t: Tape, x: ir.Value, table: ir.Value, rounding: Rounding = rounded) -> ir.Value:
    """A picture after compression with 4:2:0 and decompression.

    Args:
        t: the tape.
        x: (1, 3, H, W) RGB in [0,1]; H and W are multiples of 8.
        table: (2, 64), see `steps`.
        rounding: of DCT coefficients, in units of their step; `Round` itself has no slope.

    Returns:
        (1, 3, H, W), not clipped.
    """
    height, width = dims(x)[2:]
    colours = t.Conv(x, _pointwise(255 * _TO_YCC), np.array([-_MIDDLE, 0, 0], np.float32))
    luma, chroma = t.ops("Split", colours, [1, 2], outputs=2, axis=1)
    luma = _coded(t, luma, t.Slice(table, [0], [1], [0]), rounding)
    if width % 16:  # libjpeg fills the last blocks so: to the right before chroma is halved, downwards after
        chroma = t.Pad(chroma, [0, 0, 0, 0, 0, 0, 0, 8], mode="edge")
    halved = t.AveragePool(chroma, kernel_shape=[2, 2], strides=[2, 2])
    if height % 16:
        halved = t.Pad(halved, [0, 0, 0, 0, 0, 0, 4, 0], mode="edge")
    planes = t.Reshape(halved, [2, 1, *dims(halved)[2:]])
    coded = t.Reshape(_coded(t, planes, t.Slice(table, [1], [2], [0]), rounding), dims(halved))
    coded = t.Slice(coded, [0, 0], [height // 2, width // 2], [2, 3])
    both = t.Concat(luma, _doubled(t, coded), axis=1)
    return t.Conv(both, _pointwise(_TO_RGB / 255), np.full(3, _MIDDLE / 255, np.float32))


def _coded(t: Tape, planes: ir.Value, table: ir.Value, rounding: Rounding) -> ir.Value:
    """(N, 1, h, w) after the DCT of its blocks, rounding to multiples of the (1, 64) steps, and the inverse DCT."""
    basis = _dct().astype(np.float32)
    step = t.Reshape(table, [1, 64, 1, 1])
    ratio = t.Div(t.Conv(planes, basis.reshape(64, 1, 8, 8), strides=[8, 8]), step)
    blocks = t.Conv(t.Mul(rounding(t, ratio), step), _pointwise(basis.T))
    return t.DepthToSpace(blocks, blocksize=8, mode="DCR")


def _doubled(t: Tape, x: ir.Value) -> ir.Value:
    """(1, C, h, w) → (1, C, 2h, 2w): 3/4 of the nearer sample and 1/4 of the farther, in both directions."""
    channels = dims(x)[1]
    sides = np.array([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])
    phases = np.einsum("ai,bj->abij", sides, sides).reshape(4, 1, 3, 3).astype(np.float32)
    framed = t.Pad(x, [0, 0, 1, 1, 0, 0, 1, 1], mode="edge")
    fine = t.Conv(framed, np.tile(phases, (channels, 1, 1, 1)), group=channels)
    return t.DepthToSpace(fine, blocksize=2, mode="CRD")


def _dct() -> np.ndarray:
    """The orthonormal two-dimensional DCT-II of 8×8 blocks: (frequency, pixel), 64 each, row by row."""
    k, n = np.mgrid[:8, :8]
    line = np.cos(np.pi * (2 * n + 1) * k / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    return np.kron(line, line)


def _pointwise(matrix: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matrix, np.float32)[:, :, None, None]
