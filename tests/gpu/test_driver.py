"""On a GPU: `cuda.core`'s calls as `driver` makes them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BackendError
from engine.runtime.driver import open_driver


def test_driver_describes_the_gpu():
    driver = open_driver()
    assert driver.name
    assert driver.capability >= (7, 0)
    assert driver.stream not in (0, 1, 2)  # none of CUDA's default streams
    assert driver.version
    assert driver.memory is None or driver.memory > 2**30
    driver.close()
    driver.close()


def test_there_is_no_hundredth_gpu():
    with pytest.raises(BackendError, match="no GPU cuda:99"):
        open_driver(99)


@pytest.mark.parametrize("nbytes", [1, 4, 4097, 1 << 22])
def test_memory_is_aligned_zeroed_and_copied(nbytes):
    driver = open_driver()
    driver.attach()
    memory = driver.allocate(nbytes)
    assert memory.address % 256 == 0
    assert memory.nbytes == nbytes
    driver.zero(memory)
    got = np.ones(nbytes, np.uint8)
    driver.copy_out(memory, got)
    assert not got.any()
    given = np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)
    driver.copy_in(memory, given)
    driver.copy_out(memory, got)
    np.testing.assert_array_equal(got, given)
    driver.close()


def test_what_is_captured_runs_at_launch_and_an_error_leaves_the_stream_usable():
    driver = open_driver()
    driver.attach()
    memory = driver.allocate(256)
    got, ones = np.empty(256, np.uint8), np.ones(256, np.uint8)
    driver.copy_in(memory, ones)
    graph = driver.capture(lambda stream: driver.zero(memory))
    driver.copy_out(memory, got)
    assert got.all()
    graph.launch()
    driver.synchronise()
    driver.copy_out(memory, got)
    assert not got.any()
    graph.close()
    with pytest.raises(BackendError):
        driver.capture(lambda stream: driver.synchronise())  # not permitted while capturing
    with pytest.raises(BackendError, match="nothing was enqueued"):
        driver.capture(lambda stream: None)
    driver.copy_in(memory, ones)
    driver.capture(lambda stream: driver.zero(memory)).launch()
    driver.copy_out(memory, got)
    assert not got.any()
    driver.close()
