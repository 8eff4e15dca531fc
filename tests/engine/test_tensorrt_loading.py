"""What happens to a plan that does not load, and whose kernels are kept where; with a stand-in for the GPU's half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import cache
from engine.errors import BackendError
from engine.runtime import tensorrt
from engine.runtime.protocol import Options
from tests.engine.stand_in_driver import StandInDriver
from tests.engine.test_tensorrt import Library, StandIn, doubling, loaded


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Builds what it loads, in a count of attempts."""
    driver = StandInDriver()
    monkeypatch.setattr(tensorrt, "open_driver", lambda index: driver)
    return StandIn(Library(driver))


def counted(backend: StandIn, monkeypatch: pytest.MonkeyPatch, plans: list[bytes]) -> list[bytes]:
    made: list[bytes] = []

    def build(*arguments: Any) -> bytes:
        made.append(plans[len(made)])
        return made[-1]

    monkeypatch.setattr(backend, "build", build)
    return made


def test_a_kept_plan_that_does_not_load_is_built_again(
    backend: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, model = Options(cache_dir=tmp_path), doubling()
    key = backend.key(model, "fp32", options, "sm89")
    cache.Cache(tmp_path).fetch(key, lambda: b"of another driver")
    made = counted(backend, monkeypatch, [b"plan"])
    program = backend.compile(model, "fp32", options)
    assert made == [b"plan"]
    assert any("built again" in note for note in program.notes)
    np.testing.assert_array_equal(program({"x": np.ones((2, 3), np.float32)})["y"], 2)
    assert cache.Cache(tmp_path).fetch(key, lambda: b"never") == b"plan"


def test_a_new_plan_that_does_not_load_is_an_error_and_not_a_loop(
    backend: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(backend, monkeypatch, [b"bad", b"bad", b"bad"])
    with pytest.raises(BackendError, match="does not load"):
        backend.compile(doubling(), "fp32", Options(cache_dir=tmp_path))
    assert len(made) == 1


def test_a_precision_that_the_gpu_lacks_is_refused_before_a_build(
    backend: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(backend, monkeypatch, [b"plan"])
    monkeypatch.setattr(StandInDriver, "capability", (7, 5))
    with pytest.raises(BackendError, match="does not compute bf16"):
        backend.compile(doubling(), "bf16", Options(cache_dir=tmp_path))
    assert not made


def test_every_engine_keeps_kernels_of_its_own(tmp_path: Path) -> None:
    for factor in (2.0, 3.0):
        _, program = loaded(tmp_path, doubling(factor=factor))
        program({"x": np.ones((2, 3), np.float32)})
    assert len(list(tmp_path.glob("kernels-*.bin"))) == 2
