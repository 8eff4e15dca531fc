"""Without a GPU the run ends with one line; TensorRT is skipped where it is not there, and the summary says why.

ONNX Runtime's CUDA provider is never skipped: `make test-gpu` installs it, so that nothing passes unseen.
"""

from __future__ import annotations

import contextlib

import pytest

from engine.errors import BackendError
from engine.runtime.driver import open_driver
from engine.runtime.onnxruntime_cuda import OnnxRuntimeCuda
from engine.runtime.protocol import Backend, Options
from engine.runtime.tensorrt import RTX, TENSORRT, TensorRt

BACKENDS: dict[str, Backend] = {
    "onnxruntime-cuda": OnnxRuntimeCuda(),
    "onnxruntime-cuda-nhwc": OnnxRuntimeCuda(prefer_nhwc=True),
    TENSORRT.name: TENSORRT,
    RTX.name: RTX,
}


def lacks(backend: Backend) -> str | None:
    """Why a library cannot be used on this GPU, in a line."""
    try:
        backend.version()
        if backend is RTX and RTX.gpu().upper() not in RTX.library().ComputeCapability.__members__:
            return f"tensorrt-rtx {RTX.version()} does not know this GPU ({RTX.gpu()})"
    except BackendError as error:
        return str(error)
    return None


def pytest_collection_modifyitems() -> None:
    try:
        with contextlib.closing(open_driver()):
            pass
    except BackendError as error:
        raise pytest.UsageError(f"tests/gpu runs on a machine with an NVIDIA GPU: {error}") from error


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """With an engine cache of this run's own, which all tests share."""
    return Options(cache_dir=tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def absent() -> dict[str, str]:
    """Engines that cannot be used here, and why."""
    return {name: why for name, backend in BACKENDS.items() if (why := lacks(backend)) is not None}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, absent: dict[str, str]) -> Backend:
    """Every engine for GPUs in turn."""
    return _present(request.param, absent)


@pytest.fixture(params=[TENSORRT.name, RTX.name])
def tensorrt(request: pytest.FixtureRequest, absent: dict[str, str]) -> TensorRt:
    """TensorRT and TensorRT-RTX in turn."""
    found = _present(request.param, absent)
    assert isinstance(found, TensorRt)
    return found


def _present(name: str, absent: dict[str, str]) -> Backend:
    if name in absent and isinstance(BACKENDS[name], TensorRt):
        pytest.skip(absent[name])
    if name in absent:
        pytest.fail(absent[name], pytrace=False)
    return BACKENDS[name]
