"""The graphs that `tests/gpu` holds engines to, without a GPU: rounding alone stays inside the tolerances used there.

ONNX Runtime on the processor imitates the narrow types; see `engine.passes.precision`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bench.compare import cosine
from engine.runtime.onnxruntime import OnnxRuntime
from engine.runtime.protocol import EMULATE, PRECISIONS, Build, Options, Precision
from engine.runtime.tensorrt import RTX
from tests.gpu.graphs import EXAMPLES, LEAST, LOSS, gradient, step


@pytest.mark.parametrize("name", EXAMPLES)
def test_rounding_alone_keeps_gradients(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(EMULATE, "1")
    example = EXAMPLES[name]()
    wanted = OnnxRuntime().compile(example.model, "fp32", Options())(example.feeds)
    for precision in PRECISIONS:
        got = OnnxRuntime().compile(example.model, precision, Options())(example.feeds)
        assert cosine(got["grad:x"], wanted["grad:x"]) >= LEAST[precision], precision
        assert got["loss"] == pytest.approx(wanted["loss"], rel=LOSS[precision] / 2), precision
        assert len(RTX.build(example.model, precision, Options(build=Build(capabilities=("8.9",)))))


@cache
def followed(precision: Precision) -> tuple[np.ndarray, float, float]:
    """The first gradient, and the loss there and some steps later."""
    whole = step(scaled=precision == "fp16")
    session = whole.open(OnnxRuntime().compile(whole.model, precision, Options()))
    session.advance(1)
    first, begin = gradient(session), float(session.read(whole.distance))
    session.advance(15)
    return first, begin, float(session.read(whole.distance))


@pytest.mark.parametrize("precision", ["fp16", "mixed", "bf16"])
def test_rounding_alone_keeps_the_step_on_its_way(monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    monkeypatch.setenv(EMULATE, "1")
    exact, begin, later = followed("fp32")
    first, before, after = followed(precision)
    # Processors round in different orders, and bf16 turns signs in networks of ReLU.
    assert cosine(first, exact) >= LEAST[precision] - (0.04 if precision == "bf16" else 0.02)
    assert before == pytest.approx(begin, rel=LOSS[precision])
    assert later < 0.98 * begin
    assert begin - after >= 0.9 * (begin - later)
