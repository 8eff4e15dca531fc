"""The loader against damage and chance: a quick part of `python -m bench.fuzz`, and properties of sound pictures."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench import formats_samples as samples
from bench import fuzz
from glaze_trt.pictures import picture

SEEDS = fuzz.seeds()


@pytest.fixture(scope="module")
def worker() -> Iterator[fuzz.Worker]:
    made = fuzz.Worker(megabytes=500, seconds=20)
    yield made
    made.close()


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_load_or_are_refused_by_a_line(worker: fuzz.Worker, name: str) -> None:
    files = SEEDS[name]
    for number in range(15):
        rng = np.random.default_rng([7, number])
        verdict, line, _, _ = worker(fuzz.damaged(rng, files[number % len(files)], files))
        assert verdict in (fuzz.LOADED, fuzz.REFUSED), f"file {number}: {line}"


@pytest.mark.parametrize("name", SEEDS)
def test_every_start_of_a_file_loads_or_is_refused_by_a_line(worker: fuzz.Worker, name: str) -> None:
    data = SEEDS[name][0]
    for length in sorted({1, 2, 4, 8, 12, 16, 24, 30, 32, 33, 40, 64, 100, len(data) // 2, len(data) - 1}):
        verdict, line, _, _ = worker(data[:length])
        assert verdict in (fuzz.LOADED, fuzz.REFUSED), f"{length} bytes: {line}"


def test_a_worker_that_hangs_is_counted_and_replaced(worker: fuzz.Worker) -> None:
    assert worker(b"started")[0] == fuzz.REFUSED
    os.kill(worker._process.pid, signal.SIGSTOP)
    worker.seconds = 0.2
    assert worker(samples.SAMPLES["png"]())[0] == fuzz.HUNG
    worker.seconds = 20
    assert worker(samples.SAMPLES["png"]())[0] == fuzz.LOADED


@pytest.mark.parametrize("seed", range(12))
def test_any_picture_comes_back_from_a_lossless_file(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    bits, channels = (8, 16)[int(rng.integers(2))], int(rng.integers(1, 5))
    shape = (height, width) if channels == 1 else (height, width, channels)
    values = rng.integers(0, 2**bits, shape).astype(np.uint8 if bits == 8 else np.uint16)
    data = samples.png(values)
    read = picture.decode(data, Path("a"))
    assert read.size == (width, height)
    own = read.levels if read.own is None else read.own.values
    found = own if read.alpha is None else np.dstack([own, read.alpha])
    np.testing.assert_array_equal(found.reshape(shape), values)
    for suffix in (".png", ".tif"):
        again = picture.decode(picture.encode(read, suffix), Path("b"))
        np.testing.assert_array_equal(again.levels, read.levels)
        if not (suffix == ".tif" and channels == 2 and bits == 16):  # which is written with 8
            assert again.own is None or np.array_equal(again.own.values, own)
            assert read.alpha is None or np.array_equal(again.alpha, read.alpha)
