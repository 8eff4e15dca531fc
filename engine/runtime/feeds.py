"""Do these arrays fit this program? Names, shapes and types checked, with an error that says which and how."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.errors import FeedError
from engine.runtime.protocol import Array, TensorSpec


def check_array(name: str, array: Array, spec: TensorSpec) -> Array:
    """Return `array` as a numpy array if it has exactly the shape and type of `spec`.

    Raises:
        FeedError: the shape or the type differs. Nothing is cast or broadcast silently.
    """
    array = np.asarray(array)
    if array.shape != spec.shape or array.dtype != spec.dtype:
        given = TensorSpec(array.shape, array.dtype)
        raise FeedError(f"input {name!r} takes {spec}, but was given {given}; reshape or cast it first")
    return array


def check_feeds(feeds: Mapping[str, Array], inputs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Return the feeds as arrays if they are exactly the inputs.

    Raises:
        FeedError: a name is missing or unknown, or an array does not fit.
    """
    check_names(feeds, inputs)
    return {name: check_array(name, feeds[name], spec) for name, spec in inputs.items()}


def check_names(given: Mapping[str, object], inputs: Mapping[str, TensorSpec]) -> None:
    """Raise `FeedError` unless the given names are exactly the inputs."""
    missing = [name for name in inputs if name not in given]
    unknown = [name for name in given if name not in inputs]
    if missing or unknown:
        parts = [f"missing {', '.join(map(repr, missing))}"] if missing else []
        parts += [f"unknown {', '.join(map(repr, unknown))}"] if unknown else []
        raise FeedError(f"{'; '.join(parts)}; the program's inputs are {', '.join(map(repr, inputs))}")
