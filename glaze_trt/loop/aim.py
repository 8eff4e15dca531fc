"""Where one extractor's features shall go, and how much of the way a picture has gone.

In fp32, on the host: targets for the step graph, and the number that people read. The loss itself is in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glaze_trt.errors import ModelError, PictureError
from glaze_trt.network import Levels, Network
from glaze_trt.objective import Features

Array = NDArray[np.float32]

_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Aim:
    """One extractor's features of the original and of the target.

    Attributes:
        net: the extractor.
        features: what shall be done with them.
        own: of the original.
        goal: of the target, or the mean of several targets'; None where the direction has none.
        whole: mean squared distance from `own` to the goal, or of `own` to zero where there is no target.
    """

    net: Network
    features: Features
    own: Array
    goal: Array | None
    whole: float

    @classmethod
    def of(
        cls,
        net: Network,
        features: Features,
        image: Array,
        targets: Sequence[Levels],
        grown: Callable[[Levels], Array],
        aligned: bool = False,
    ) -> Aim:
        """Look at a picture and its targets.

        Args:
            net: the extractor.
            features: what shall be done with its features.
            image: the picture, (1, 3, H, W) in [0,1].
            targets: (h, w, 3) uint8; of the picture's size, unless the extractor takes one fixed size.
            grown: makes an image of a target as `image` was made of the picture.
            aligned: whether targets of the picture's size show the same in the same places; an extractor that looks at
                a box of the picture then looks at that box of them, and else at all of them.

        Raises:
            PictureError: a direction that needs a target has none.
            ModelError: the extractor's features are not finite.
        """
        own = _finite(net, _feature(net, features, image))
        if features.direction not in ("toward", "between"):
            return cls(net, features, own, None, float(np.mean(np.square(own))))
        if not targets:
            raise PictureError("this preset moves a picture toward a target; give one (--target-image), or a --style")
        if net.model.manifest.size is not None and not aligned:
            whole = net.at(None)
            goals = [_unit(features, whole(target)["latent"]) for target in targets]
        else:
            goals = [_feature(net, features, grown(target)) for target in targets]
        goal = np.asarray(np.mean([_finite(net, each) for each in goals], axis=0), np.float32)
        return cls(net, features, own, goal, float(np.mean(np.square(own - goal))))

    @property
    def name(self) -> str:
        """Of the model, with the place it looks at."""
        return self.net.model.name + ("" if self.net.box is None else " at {},{},{},{}".format(*self.net.box))

    def distance(self, image: Array) -> float:
        """Mean squared distance of a picture's features to the goal, to the original's, or to zero."""
        reference = self.own if self.features.direction == "away" else self.goal
        found = _feature(self.net, self.features, image)
        return float(np.mean(np.square(found if reference is None else found - reference)))

    def progress(self, distance: float) -> float:
        """1 − d/d₀ with d the distance that is left; for `away`, how far the features are, relative to their length."""
        if self.whole < _TINY:
            return 0.0
        part = float(np.sqrt(max(distance, 0.0) / self.whole))
        return part if self.features.direction == "away" else 1.0 - part


def _finite(net: Network, feature: Array) -> Array:
    if not np.isfinite(feature).all():
        raise ModelError(
            f"{net.model.name} gives infinite values for this picture in fp32 already; choose another model"
        )
    return feature


def _feature(net: Network, features: Features, image: Array) -> Array:
    return _unit(features, net.run("image", image)["latent"])


def _unit(features: Features, found: Array) -> Array:
    if not features.unit:
        return found
    return np.asarray(found / np.sqrt(np.sum(np.square(found, dtype=np.float64)) + _TINY), np.float32)
