"""The target style: inside the band whatever the number of candidates, by seed, one for a portfolio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import pytest
from numpy.typing import NDArray

from glaze_trt import models, styles
from glaze_trt.errors import StyleError
from glaze_trt.network import Network
from glaze_trt.styles import choice
from tests.glaze_trt.scene import scene

FEW = ("charcoal", "engraving", "pointillism", "watercolour")


@pytest.fixture(scope="module")
def encoder() -> Network:
    return Network(models.find("tiny", "encoder"))


@pytest.mark.parametrize("count", range(1, 41))
def test_the_band_is_never_empty(count: int) -> None:
    found = {f"style {index}": float(index) for index in range(count)}
    placed = choice.percentiles(found)
    inside = [name for name, percentile in placed.items() if 50 <= percentile <= 75]
    assert inside
    assert {choice.pick(found, seed).style for seed in range(200)} == set(inside)


def test_equal_distances_leave_the_band_filled_too() -> None:
    for count in range(1, 12):
        assert 50 <= choice.pick(dict.fromkeys(map(str, range(count)), 1.0), seed=0).percentile <= 75


def test_a_choice_names_its_percentile_and_every_distance() -> None:
    found = {"far": 9.0, "near": 1.0, "middling": 5.0, "farther": 7.0}
    chosen = choice.pick(found, seed=3)
    assert (chosen.style, chosen.percentile) == ("farther", 62.5)
    assert list(chosen.distances) == ["near", "middling", "farther", "far"]


def test_the_same_pictures_and_seed_give_the_same_choice(encoder: Network) -> None:
    first = choice.choose([scene(80, 120)], FEW, encoder, seed=4)
    assert choice.choose([scene(80, 120)], tuple(reversed(FEW)), encoder, seed=4) == first
    assert set(first.distances) == set(FEW)
    assert all(distance > 0.05 for distance in first.distances.values())


def test_a_style_that_the_artist_paints_in_is_near() -> None:
    """Repainted in its own manner a picture moves less than one that was not in it."""
    encoder = Network(models.find("tiny", "encoder"))
    plain = scene(256, 256)
    painted = np.rint(styles.apply("charcoal", plain / np.float32(255), 5) * 255).astype(np.uint8)
    near, far = (choice.distances([x], ("charcoal",), encoder)["charcoal"] for x in (painted, plain))
    assert near < 0.8 * far


def test_a_portfolio_has_the_mean_of_its_pictures(encoder: Network) -> None:
    pictures = [scene(64, 96, seed=1), scene(120, 70, seed=2)]
    each = [choice.distances([picture], FEW[:2], encoder) for picture in pictures]
    both = choice.distances(pictures, FEW[:2], encoder)
    for name in FEW[:2]:
        assert both[name] == pytest.approx(np.mean([found[name] for found in each]))


class Shelf(Sequence[NDArray[np.uint8]]):
    """A portfolio that notes what it is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Sequence[NDArray[np.uint8]]:
        assert isinstance(index, int)
        self.asked.append(index)
        return scene(32, 32, seed=index)


def test_of_a_large_portfolio_a_few_are_looked_at_all_over_it(encoder: Network) -> None:
    shelf = Shelf(1000)
    choice.distances(shelf, ("watercolour",), encoder)
    assert len(shelf.asked) == choice.LOOKED_AT
    assert np.diff(shelf.asked).min() > 100


def test_what_is_missing_is_said(encoder: Network) -> None:
    with pytest.raises(StyleError, match="no picture was given"):
        choice.choose([], FEW, encoder, seed=0)
    with pytest.raises(StyleError, match="no style was given"):
        choice.choose([scene()], (), encoder, seed=0)
    with pytest.raises(StyleError, match="vaporwave"):
        choice.choose([scene()], ("vaporwave",), encoder, seed=0)
