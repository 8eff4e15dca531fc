"""Sequences of known length leave nothing in the graph."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from engine import InvalidModelError, UnsupportedOpError, load, value_and_grad
from tests.engine.written import assert_same, data, parsed, run


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("q = SplitToSequence <axis = 1> (x, sizes)  p = SequenceAt (q, last)", {"Split"}),
        ("q = SplitToSequence <axis = 1> (x, two)  p = SequenceAt (q, last)", {"Split"}),
        ("q = SplitToSequence <axis = -1, keepdims = 0> (x)  p = SequenceAt (q, one)", {"Split", "Squeeze"}),
        (
            "q = SplitToSequence <axis = 1> (x)  i = Identity (q)  p = ConcatFromSequence <axis = 0> (i)",
            {"Split", "Concat"},
        ),
        (
            "q = SequenceConstruct (x, x2)  p = ConcatFromSequence <axis = 1, new_axis = 1> (q)",
            {"Mul", "Unsqueeze", "Concat"},
        ),
        (
            "a = SequenceEmpty <dtype = 1> ()  b = SequenceInsert (a, x)  c = SequenceInsert (b, x2, zero)  "
            "d = SequenceInsert (c, x, last)  n = SequenceLength (d)  f = Cast <to = 1> (n)  "
            "e = SequenceErase (d, one)  g = ConcatFromSequence <axis = 0> (e)  p = Mul (g, f)",
            {"Mul", "Concat"},
        ),
    ],
    ids=["sizes", "size", "squeezed", "one by one", "stacked", "grown"],
)
def test_what_comes_out_is_right(body: str, left: set[str]) -> None:
    constants = {"sizes": [1, 2, 2], "two": 2, "last": -1, "one": 1, "zero": 0}
    model = parsed(
        f"x2 = Mul (x, x)  {body}  r = Sin (p)  y = ReduceSum <keepdims = 0> (r)",
        "(float[3,5] x) => (float[] y)",
        **{name: np.asarray(value, np.int64) for name, value in constants.items() if name in body},
    )
    canonical = load(model)
    assert_same(model, canonical, x=data(3, 5))
    assert {node.op_type for node in canonical.graph} == left | {"Sin", "ReduceSum"}
    assert np.abs(run(value_and_grad(model, "y", ["x"]), {"x": data(3, 5)})["grad:x"]).max() > 0.1


def test_sequences_that_are_not_known_are_refused() -> None:
    at = "i = Constant <value_int = {}> ()  p = SequenceAt (q, i)  y = ReduceSum <keepdims = 0> (p)"
    model = parsed(at.format(0))
    sequence = helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, [2, 3])
    model.graph.input.append(sequence)
    with pytest.raises((UnsupportedOpError, InvalidModelError), match="'q'|SequenceAt"):
        load(model)
    with pytest.raises(InvalidModelError, match="position 2 in a sequence of 2"):
        load(parsed("q = SequenceConstruct (x, x)  " + at.format(2)))
    with pytest.raises(UnsupportedOpError, match="SequenceAt .*depends on the data"):
        load(
            parsed(
                "q = SequenceConstruct (x, x)  p = SequenceAt (q, i)  y = ReduceSum <keepdims = 0> (p)",
                "(float[2,3] x, int64[1] i) => (float[] y)",
            )
        )
    with pytest.raises(UnsupportedOpError, match="SplitToSequence .*depend on the data"):
        load(parsed("q = SplitToSequence (x, n)  " + at.format(0), "(float[2,3] x, int64[2] n) => (float[] y)"))


def test_a_sequence_as_an_output_is_refused() -> None:
    model = parsed("y = ReduceSum <keepdims = 0> (x)  q = SequenceConstruct (x, x)")
    model.graph.output.append(helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, [2, 3]))
    with pytest.raises(UnsupportedOpError, match="'q' .*is a sequence"):
        load(model)
