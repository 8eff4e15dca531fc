"""On a GPU: plans of TensorRT and TensorRT-RTX that are kept, shipped, stripped of their weights, or no good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import cache, shipped
from engine.runtime.protocol import Build, Options
from engine.runtime.tensorrt import RTX, TensorRt
from tests.gpu.graphs import Example, convolution


@pytest.fixture(scope="module")
def example() -> Example:
    return convolution()


def gradient(tensorrt: TensorRt, example: Example, options: Options, precision: str = "fp32") -> np.ndarray:
    program = tensorrt.compile(example.model, precision, options)
    assert program.notes == ()
    return program(example.feeds)["grad:x"]


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing may be built."""

    def build(*arguments: object) -> bytes:
        raise AssertionError("built again")

    monkeypatch.setattr(TensorRt, "build", build)


def test_a_plan_is_taken_from_the_cache(
    tensorrt: TensorRt, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(cache_dir=tmp_path)
    built = gradient(tensorrt, example, options)
    forbid(monkeypatch)
    np.testing.assert_array_equal(gradient(tensorrt, example, options), built)


def test_kernels_of_the_first_run_are_kept(tensorrt: TensorRt, example: Example, tmp_path: Path) -> None:
    gradient(tensorrt, example, Options(cache_dir=tmp_path))
    kept = list(tmp_path.glob("kernels-*.bin"))
    assert len(kept) == (tensorrt is RTX)
    before = [file.read_bytes() for file in kept]
    gradient(tensorrt, example, Options(cache_dir=tmp_path))
    assert [file.read_bytes() for file in kept] == before


def test_a_shipped_plan_is_taken(
    tensorrt: TensorRt, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision = tensorrt.precisions()[0]
    options = Options(cache_dir=tmp_path / "cache", shipped=tmp_path / "shipped")
    plan = tensorrt.build(example.model, precision, options)
    key = tensorrt.key(example.model, precision, options, tensorrt.gpu())
    shipped.write(tmp_path / "shipped", "a.plan", plan, key, {"stripped": False})
    built = gradient(tensorrt, example, Options(cache_dir=tmp_path / "other"), precision)
    forbid(monkeypatch)
    np.testing.assert_allclose(gradient(tensorrt, example, options, precision), built, rtol=0.05, atol=1e-5)


def test_a_stripped_plan_is_smaller_and_computes_the_same(
    tensorrt: TensorRt, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, bare = (Options(cache_dir=tmp_path / str(strip), build=Build(strip=strip)) for strip in (False, True))
    for precision in tensorrt.precisions():
        wanted = gradient(tensorrt, example, whole, precision)
        tolerance = 1e-5 if precision == "fp32" else 0.02
        for _ in range(2):  # built, then from the cache
            got = gradient(tensorrt, example, bare, precision)
            assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted), precision
    sizes = [sum(file.stat().st_size for file in folder.cache_dir.glob("*.engine")) for folder in (whole, bare)]
    assert sizes[1] < sizes[0]
    plan = tensorrt.build(example.model, "fp32", bare)
    key = tensorrt.key(example.model, "fp32", bare, tensorrt.gpu())
    shipped.write(tmp_path / "shipped", "a.plan", plan, key, {"stripped": True})
    forbid(monkeypatch)
    options = replace(bare, shipped=tmp_path / "shipped", cache_dir=tmp_path / "third")
    assert np.linalg.norm(gradient(tensorrt, example, options)) > 0


def test_a_kept_plan_that_is_none_is_built_again(tensorrt: TensorRt, example: Example, tmp_path: Path) -> None:
    options = Options(cache_dir=tmp_path)
    key = tensorrt.key(example.model, "fp32", options, tensorrt.gpu())
    cache.Cache(tmp_path).fetch(key, lambda: b"of another driver" * 99)
    program = tensorrt.compile(example.model, "fp32", options)
    (note,) = program.notes
    assert "built again" in note
    assert np.isfinite(program(example.feeds)["grad:x"]).all()
