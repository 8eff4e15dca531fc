"""The table of gradient rules: one function per ONNX operator.

A rule gets the tape, the forward node and one cotangent per output (None where none arrives), emits nodes, and
returns one gradient, or None, per input. Broadcasting is undone by the caller, so a rule may return the gradient
in the broadcast shape. Rules name their formula, not their network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from engine.tape import Tape

Cotangents = Sequence[ir.Value | None]
Gradients = Sequence[ir.Value | None]
Rule = Callable[[Tape, ir.Node, Cotangents], Gradients]

RULES: dict[str, Rule] = {}

NO_GRADIENT = frozenset(
    "ArgMax ArgMin And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil ConstantOfShape Equal EyeLike Floor "
    "Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual NonZero Not OneHot Or RandomNormal RandomNormalLike "
    "RandomUniform RandomUniformLike Range Round Shape Sign Size Xor".split()
)
"""Operators whose derivative is zero or undefined everywhere: no gradient flows through them."""

REFUSED = frozenset(
    "If Loop Scan StringConcat StringNormalizer StringSplit RegexFullMatch LabelEncoder TfIdfVectorizer SequenceMap "
    "Optional OptionalGetElement OptionalHasElement".split()
)
"""Operators that no compiled static graph can hold: refused by name when a model is read."""


def vjp(*op_types: str) -> Callable[[Rule], Rule]:
    """Registers a rule for one or several operators."""

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            if op_type in RULES:
                raise ValueError(f"{op_type} has a rule already: {RULES[op_type].__qualname__}")
            RULES[op_type] = rule
        return rule

    return register
