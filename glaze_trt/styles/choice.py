"""Which style an artist's pictures are moved toward, chosen as Glaze chooses: far from their own, but not the farthest.

Shan et al., "Glaze" (USENIX Security 2023), section 5.3. As in the paper, candidates are ordered by their distance from
the artist's style in an encoder's feature space; those between the 50th and the 75th percentile are left, one of them
is picked at random, and all pictures of the artist get that one. What is not as in the paper: there a style is a data
set of an artist's works, and the distance is one between two centroids of features. Here a style is an operator, so its
distance is how far it moves the artist's own pictures, the mean of their distances to their repainted versions. A
style near the artist's own moves them little in both readings.

Nothing is cloaked here, and how a style paints is its own file's subject.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from glaze_trt import styles
from glaze_trt.errors import StyleError
from glaze_trt.network import Levels, Network

BAND = (50.0, 75.0)
"""Percentiles of distance that a target style comes from, both ends included."""

SIDE = 384
"""Pixels of the square that a picture is looked at in. Strokes have a size in pixels of their own, so distances in a
smaller one are others: of 11 styles on three 512-pixel paintings, their order at 384 agrees with that at 512 (rank
correlation 0.88 to 0.98) better than at 256 does (0.65 to 0.93), where it takes half the time."""

LOOKED_AT = 6
"""Pictures of a portfolio that are looked at; of a larger one, this many evenly spread over it."""


@dataclass(frozen=True)
class Choice:
    """The target style of one picture, or of a whole portfolio.

    Attributes:
        style: its name.
        percentile: where its distance lies among those of all candidates, in [50, 75].
        distances: of every candidate by name, the nearest first; root mean square over the features.
    """

    style: str
    percentile: float
    distances: Mapping[str, float]


def choose(pictures: Sequence[Levels], candidates: Sequence[str], encoder: Network, seed: int) -> Choice:
    """Choose the target style of an artist.

    Args:
        pictures: one picture or a portfolio, (H, W, 3) uint8 each, of any sizes. Only those that are looked at are
            asked of the sequence, so it may load them when asked.
        candidates: names that `styles.apply` takes.
        encoder: its `latent` are the features.
        seed: which of the styles inside the band is taken; the distances do not depend on it.

    Raises:
        StyleError: there is no picture, no candidate, or no style of such a name.
    """
    return pick(distances(pictures, candidates, encoder), seed)


def distances(pictures: Sequence[Levels], candidates: Sequence[str], encoder: Network) -> dict[str, float]:
    """How far each style is from an artist's own: the mean over the pictures of |F(style(x)) - F(x)| / sqrt(size of F).

    Pictures are looked at in their central square, scaled down to `SIDE` pixels where it has more.

    Args:
        pictures: (H, W, 3) uint8 each; see `choose`.
        candidates: names that `styles.apply` takes.
        encoder: its `latent` are the features.

    Raises:
        StyleError: there is no picture, or no style of such a name.
    """
    if not pictures:
        raise StyleError("no picture was given whose style could be compared; give one, or a folder that holds some")
    unique = list(dict.fromkeys(candidates))
    sums = dict.fromkeys(unique, 0.0)
    looked_at = [pictures[index] for index in _spread(len(pictures))]
    for picture in looked_at:
        small = _square(picture, encoder)
        own = encoder(small)["latent"]
        rgb = small.astype(np.float32) / np.float32(255)
        for name in unique:
            painted = np.rint(styles.apply(name, rgb) * 255).astype(np.uint8)
            sums[name] += _root_mean_square(encoder(painted)["latent"] - own)
    return {name: total / len(looked_at) for name, total in sums.items()}


def percentiles(found: Mapping[str, float]) -> dict[str, float]:
    """Where each of n distances lies among all, the nearest first: 100 (rank + 1/2) / n with ranks from 0.

    These are the middles of n equal parts of [0, 100] (Hazen's plotting position). From four candidates on they are at
    most 25 apart, and with one, two or three of them one lies at 50, 75 and 50: whatever their number, at least one is
    inside `BAND`. Equal distances are ranked by name.
    """
    ordered = sorted(found, key=lambda name: (found[name], name))
    return {name: 100 * (rank + 0.5) / len(ordered) for rank, name in enumerate(ordered)}


def pick(found: Mapping[str, float], seed: int) -> Choice:
    """One style whose distance lies inside `BAND`.

    Args:
        found: the distance of every candidate by name.
        seed: the same seed picks the same style.

    Raises:
        StyleError: there is no candidate.
    """
    if not found:
        raise StyleError("no style was given to choose a target from; leave the list out to choose among all")
    placed = percentiles(found)
    inside = [name for name, percentile in placed.items() if BAND[0] <= percentile <= BAND[1]]
    style = inside[int(np.random.default_rng(seed).integers(len(inside)))]
    return Choice(style, placed[style], {name: found[name] for name in placed})


def _square(picture: Levels, encoder: Network) -> Levels:
    """The central square, of at most `SIDE` pixels, cut to the encoder's multiple."""
    manifest = encoder.model.manifest
    side = min(SIDE, *picture.shape[:2])
    if manifest.size is None:  # else the network scales whatever it is given to its own size
        side = max(side // manifest.multiple, -(-manifest.minimum // manifest.multiple), 1) * manifest.multiple
    fitted = ImageOps.fit(Image.fromarray(picture), (side, side), Image.Resampling.LANCZOS)
    return np.asarray(fitted, dtype=np.uint8)


def _spread(count: int) -> Sequence[int]:
    """Of `count` pictures the places of those that are looked at."""
    if count <= LOOKED_AT:
        return range(count)
    return [index * count // LOOKED_AT for index in range(LOOKED_AT)]


def _root_mean_square(difference: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))
