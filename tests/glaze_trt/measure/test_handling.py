from __future__ import annotations

import numpy as np
import pytest

from glaze_trt import models, styles
from glaze_trt.errors import UsageError
from glaze_trt.evaluate import Progress
from glaze_trt.measure import handling
from glaze_trt.network import Network
from glaze_trt.pictures.picture import to_levels
from tests.glaze_trt.scene import scene


@pytest.mark.parametrize("name", handling.NAMES)
@pytest.mark.parametrize("size", [(48, 64), (33, 17), (1, 1)])
def test_a_picture_stays_a_picture_of_its_size(name: str, size: tuple[int, int]) -> None:
    before = scene(*size)
    kept = before.copy()
    after = handling.apply(name, before)
    assert after.shape == before.shape
    assert after.dtype == np.uint8
    np.testing.assert_array_equal(before, kept)
    np.testing.assert_array_equal(handling.apply(name, before), after)


def test_the_changes_are_what_their_names_say() -> None:
    before = scene(96, 128)
    change = {name: np.abs(handling.apply(name, before).astype(float) - before) for name in handling.NAMES}
    assert change["jpeg 90"].mean() < change["jpeg 75"].mean()
    assert change["noise"].std() > 0
    noise = handling.noise(np.full((256, 256, 3), 128, np.uint8)).astype(float) - 128
    assert noise.mean() == pytest.approx(0, abs=0.1)
    assert noise.std() == pytest.approx(handling.NOISE, rel=0.02)
    y = np.linspace(0, 255, 64)[:, None, None]
    smooth = np.broadcast_to(np.rint(y), (64, 64, 3)).astype(np.uint8)
    assert np.abs(handling.halved_and_back(smooth).astype(int) - smooth).max() <= 2
    fine = np.broadcast_to(np.indices((64, 64)).sum(0)[..., None] % 2 * 255, (64, 64, 3)).astype(np.uint8)
    assert np.ptp(handling.halved_and_back(fine)[4:-4, 4:-4].astype(int)) <= 40


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match="jpeg 75"):
        handling.apply("jpeg 76", scene())


def test_progress_is_measured_on_what_is_left() -> None:
    before = scene()
    target = to_levels(styles.apply("impasto", before / 255))
    progress = Progress(Network(models.find("tiny", "encoder")), before, [target])
    found = handling.left(target, progress)
    assert tuple(found) == handling.NAMES
    assert found == {name: pytest.approx(progress(handling.apply(name, target))) for name in handling.NAMES}
    assert found["jpeg 75"] < found["jpeg 90"] < 1
