"""LPIPS and progress of pictures that no network can take in one piece: tile by tile, each pixel counted once.

Tiles overlap, so that a network sees a neighbourhood of all that counts. LPIPS is then what it is of the whole but for
what lies further away than half an overlap. Progress is the mean over tiles of each tile's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glaze_trt.graph.sight import Box
from glaze_trt.large.tiles import Plan
from glaze_trt.loop.aim import Aim
from glaze_trt.network import Network, padded
from glaze_trt.objective import Features

Levels = NDArray[np.uint8]
Array = NDArray[np.float32]


class Lpips:
    """LPIPS to one reference picture of any size; its features are computed anew for each picture, as they are many."""

    def __init__(self, net: Network, reference: Levels, plan: Plan) -> None:
        """Take the reference, (H, W, 3) uint8."""
        self._net, self._reference, self._plan = net, reference, plan

    def __call__(self, levels: Levels) -> float:
        """The distance of a picture to the reference."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for tile, core in zip(self._plan, self._plan.cores(), strict=True):
            before, after = self._reference[tile], levels[tile]
            same = np.array_equal(before, after)
            mine = self._net(before)
            theirs = mine if same else self._net(after)
            size = self._net.takes(before)[2:]
            for name in (name for name in mine if name.startswith("feature_")):
                rows, columns = (
                    _counted(mine[name].shape[2 + axis], size[axis], tile[axis], core[axis]) for axis in (0, 1)
                )
                counts[name] = counts.get(name, 0) + len(rows) * len(columns)
                if not same and len(rows) and len(columns):
                    change = (theirs[name] - mine[name])[0][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                    sums[name] = sums.get(name, 0.0) + float(np.square(change).sum(dtype=np.float64))
        return sum((total / counts[name] for name, total in sums.items()), start=0.0)


class Progress:
    """How far an encoder's features of a picture's tiles have gone; see `Aim.progress`."""

    def __init__(
        self,
        encoder: Network,
        before: Levels,
        targets: Sequence[Levels],
        features: Features | None,
        plan: Plan,
        window: Box | None = None,
    ) -> None:
        """Encode every tile of the original and of the targets, (H, W, 3) uint8 each.

        Args:
            encoder: it takes pictures of any size.
            before: the original.
            targets: of the same size.
            features: what is done with the features; moved toward the targets, if None.
            plan: the tiles.
            window: the part, (x, y, width, height), that may change; tiles beside it do not count.
        """
        self._net = encoder
        self._parts = [part for part in plan if window is None or _meets(part, window)]
        self._aims = [
            Aim.of(
                encoder,
                features or Features(),
                self._grown(before[part]),
                [target[part] for target in targets],
                self._grown,
            )
            for part in self._parts
        ]

    @property
    def name(self) -> str:
        """Of the encoder."""
        return self._aims[0].name

    def __call__(self, levels: Levels) -> float:
        """The progress of a picture, the mean over its tiles."""
        ways = [
            aim.progress(aim.distance(self._grown(levels[tile])))
            for aim, tile in zip(self._aims, self._parts, strict=True)
        ]
        return float(np.mean(ways))

    def _grown(self, levels: Levels) -> Array:
        return padded(levels, self._net.model.manifest)


def _meets(part: tuple[slice, slice], window: Box) -> bool:
    x, y, w, h = window
    rows, columns = part
    return bool(rows.start < y + h and y < rows.stop and columns.start < x + w and x < columns.stop)


def _counted(positions: int, size: int, tile: slice, core: slice) -> NDArray[np.intp]:
    """Of the places of a feature map along a side, those whose middle lies in a tile's core."""
    middle = tile.start + (np.arange(positions) + 0.5) * size / positions
    return np.flatnonzero((core.start <= middle) & (middle < core.stop))
