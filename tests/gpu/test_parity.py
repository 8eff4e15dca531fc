"""On a GPU: every engine computes what the processor's reference does, in every precision that it offers."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bench.compare import cosine
from engine.errors import BackendError
from engine.runtime import Options
from engine.runtime.onnxruntime import OnnxRuntime
from engine.runtime.onnxruntime_cuda import OnnxRuntimeCuda
from engine.runtime.protocol import Backend, Precision
from tests.engine.step_graph import make_model, node
from tests.gpu.graphs import EXAMPLES, LEAST, LOSS, Example, Step, gradient, step

FIRST_STEPS = 15


@cache
def example(name: str) -> tuple[Example, dict[str, np.ndarray]]:
    """A graph, and what the processor makes of it."""
    made = EXAMPLES[name]()
    return made, OnnxRuntime().compile(made.model, "fp32", Options())(made.feeds)


@cache
def reference() -> tuple[np.ndarray, float, float]:
    """Of the step on the processor in fp32: its first gradient, and the loss there and some steps later."""
    return _followed(step(scaled=False), OnnxRuntime(), "fp32", Options())


def _followed(whole: Step, backend: Backend, precision: Precision, options: Options) -> tuple[np.ndarray, float, float]:
    session = whole.open(backend.compile(whole.model, precision, options))
    session.advance(1)
    first, begin = gradient(session), float(session.read(whole.distance))
    session.advance(FIRST_STEPS)
    return first, begin, float(session.read(whole.distance))


@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_are_the_processors(backend: Backend, options: Options, name: str) -> None:
    made, wanted = example(name)
    for precision in backend.precisions():
        got = backend.compile(made.model, precision, options)(made.feeds)
        assert cosine(got["grad:x"], wanted["grad:x"]) >= LEAST[precision], precision
        assert got["loss"] == pytest.approx(wanted["loss"], rel=LOSS[precision]), precision
        if precision == "fp32":
            size = np.linalg.norm(wanted["grad:x"])
            assert np.linalg.norm(got["grad:x"] - wanted["grad:x"]) <= 1e-4 * size


def test_a_whole_step_descends_as_on_the_processor(backend: Backend, options: Options) -> None:
    exact, begin, later = reference()
    assert later < 0.98 * begin
    for precision in backend.precisions():
        first, before, after = _followed(step(scaled=precision == "fp16"), backend, precision, options)
        assert cosine(first, exact) >= LEAST[precision] - 0.01 * (precision != "fp32"), precision
        assert before == pytest.approx(begin, rel=LOSS[precision]), precision
        assert begin - after >= 0.9 * (begin - later), precision


def test_a_graph_that_cuda_does_not_take_whole_is_refused() -> None:
    model = make_model([node("Det", "m", "d")], {"m": (1, 2, 2)}, {"d": (1,)}, {})  # CUDA has no kernel for it
    with pytest.raises(BackendError, match="did not compile"):
        OnnxRuntimeCuda().compile(model, "fp32", Options())
