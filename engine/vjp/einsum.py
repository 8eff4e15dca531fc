"""Einsum as transposes, reshapes and one MatMul a pair of operands, whose gradients are known.

Engines take only part of what Einsum may say (no ellipsis, no diagonals, no broadcasting in TensorRT), so every
equation is taken apart.
"""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import InvalidModelError
from engine.passes.decompose import decomposition
from engine.tape import Tape, attribute, dims


@decomposition("Einsum")
def einsum(t: Tape, node: ir.Node) -> Sequence[ir.Value | None]:
    """Operands are contracted from left to right; a letter is summed as soon as nothing later names it."""
    operands = [v for v in node.inputs if v is not None]
    terms, result = _terms(attribute(node, "equation", ""), [len(dims(v)) for v in operands], str(node.name))
    pairs = [_single(t, v, term) for v, term in zip(operands, terms, strict=True)]
    value, term = pairs[0]
    for position, (other, letters) in enumerate(pairs[1:], start=1):
        later = set(result).union(*(letters for _, letters in pairs[position + 1 :]))
        value, term = _contract(t, value, term, other, letters, later)
    value, term = _summed(t, value, term, set(result))
    return [_ordered(t, value, term, result)]


def _terms(equation: str, ranks: Sequence[int], name: str) -> tuple[list[str], str]:
    """One letter per axis of each operand and of the result; an ellipsis becomes capital Greek letters."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise InvalidModelError(f"Einsum {name!r}: {equation!r} takes {len(terms)} operands, got {len(ranks)}")
    missing = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    width = max((m for m, term in zip(missing, terms, strict=True) if "..." in term), default=0)
    greek = [chr(ord("Α") + i) for i in range(width)]
    expanded = [t.replace("...", "".join(greek[width - m :])) for t, m in zip(terms, missing, strict=True)]
    if not arrow:
        once = sorted(c for c in string.ascii_letters if "".join(terms).count(c) == 1)
        right = ("..." if width else "") + "".join(once)
    return expanded, right.replace("...", "".join(greek))


def _single(t: Tape, value: ir.Value, term: str) -> tuple[ir.Value, str]:
    """Takes the diagonal over letters that one operand repeats: a masked sum."""
    for letter in sorted(set(term)):
        while term.count(letter) > 1:
            first, second = term.index(letter), term.rindex(letter)
            size = dims(value)[first]
            shape = [size if axis in (first, second) else 1 for axis in range(len(term))]
            mask = t.constant(np.eye(size).reshape(shape), value.dtype)
            value = t.ReduceSum(t.Mul(value, mask), [second], keepdims=0)
            term = term[:second] + term[second + 1 :]
    return value, term


def _summed(t: Tape, value: ir.Value, term: str, keep: set[str]) -> tuple[ir.Value, str]:
    axes = [axis for axis, letter in enumerate(term) if letter not in keep]
    if not axes:
        return value, term
    return t.ReduceSum(value, axes, keepdims=0), "".join(c for c in term if c in keep)


def _ordered(t: Tape, value: ir.Value, term: str, wanted: str) -> ir.Value:
    perm = [term.index(c) for c in wanted]
    return value if perm == sorted(perm) else t.Transpose(value, perm=perm)


def _contract(t: Tape, a: ir.Value, a_term: str, b: ir.Value, b_term: str, later: set[str]) -> tuple[ir.Value, str]:
    """One pair: letters of both are batch (kept) or summed, the others rows or columns."""
    a, a_term = _summed(t, a, a_term, later | set(b_term))
    b, b_term = _summed(t, b, b_term, later | set(a_term))
    size = dict(zip(a_term, dims(a), strict=True))
    other = dict(zip(b_term, dims(b), strict=True))
    shared = [c for c in a_term if c in b_term]
    batch = [c for c in shared if c in later]
    inner = [c for c in shared if c not in later]
    rows = [c for c in a_term if c not in b_term]
    columns = [c for c in b_term if c not in a_term]
    if not inner:
        return _product(t, a, a_term, b, b_term)
    left = _ordered(t, a, a_term, "".join(itertools.chain(batch, rows, inner)))
    right = _ordered(t, b, b_term, "".join(itertools.chain(batch, inner, columns)))
    left_batch, right_batch = [size[c] for c in batch], [other[c] for c in batch]
    depth = math.prod(size[c] for c in inner)
    height, width = [size[c] for c in rows], [other[c] for c in columns]
    left = t.Reshape(left, [*left_batch, math.prod(height), depth])
    right = t.Reshape(right, [*right_batch, depth, math.prod(width)])
    full = [max(p, q) for p, q in zip(left_batch, right_batch, strict=True)]
    return t.Reshape(t.MatMul(left, right), [*full, *height, *width]), "".join(batch + rows + columns)


def _product(t: Tape, a: ir.Value, a_term: str, b: ir.Value, b_term: str) -> tuple[ir.Value, str]:
    """Nothing is summed: a broadcast Mul over the letters of both."""
    letters = a_term + "".join(c for c in b_term if c not in a_term)
    aligned = []
    for value, term in ((a, a_term), (b, b_term)):
        value = _ordered(t, value, term, "".join(c for c in letters if c in term))
        size = iter(dims(value))
        aligned.append(t.Reshape(value, [next(size) if c in term else 1 for c in letters]))
    return t.Mul(*aligned), letters
