"""Gathers and scatters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.engine.case import Case


def gather(name: str, indices: Any, axis: int = 0, size: int = 6, opset: int = 23) -> Case:
    """From a tensor of four axes, `size` long on the one that is gathered from."""
    shape = [2, 3, 2, 2]
    shape[axis] = size
    array = np.asarray(indices, np.int64)

    def in_torch(x: torch.Tensor) -> torch.Tensor:
        flat = x.index_select(axis, torch.tensor(array.reshape(-1) % size))
        return flat.reshape(*shape[:axis], *array.shape, *shape[axis + 1 :])

    return Case(
        f"indexing/Gather/{name}",
        lambda g: g.Gather(g.input("x", *shape), g.const(array), axis=axis),
        in_torch,
        opset=opset,
    )


RANDOM = np.random.default_rng(7)

CASES = [
    gather("one", 2),
    gather("negative", [-1, 0], axis=1),
    gather("run", [1, 2, 3], axis=2, opset=13),
    gather("reversed", [5, 4, 3, 2, 1, 0], axis=3),
    gather("repeated", [1, 1, 1, 4], axis=1),
    gather("matrix", [[0, 5], [2, 2]], axis=1),
    gather("permutation", RANDOM.permutation(40), axis=1, size=40),
    gather("many-some-unused", RANDOM.integers(0, 30, 40), axis=2, size=40),
    gather("few-often", RANDOM.integers(0, 3, 60), axis=1, size=4),
    Case(
        "indexing/Gather/computed",
        lambda g: g.Gather(g.input("x", 5, 3), g.ArgMax(g.input("score", 5, 2, distinct=True), axis=0, keepdims=0)),
        lambda x, s: x[s.argmax(0)] + 0 * s.sum(),
    ),
    Case(
        "indexing/GatherElements",
        lambda g: g.GatherElements(g.input("x", 3, 4), g.const(np.asarray([[0, 1, 2, 0], [2, -1, 2, 1]]))),
        lambda x: x.gather(0, torch.tensor([[0, 1, 2, 0], [2, 2, 2, 1]])),
    ),
    Case(
        "indexing/GatherElements/axis",
        lambda g: g.GatherElements(g.input("x", 3, 4), g.const(np.asarray([[0], [3], [3]])), axis=1),
        lambda x: x.gather(1, torch.tensor([[0], [3], [3]])),
        opset=13,
    ),
    Case(
        "indexing/GatherND/elements",
        lambda g: g.GatherND(g.input("x", 3, 4), g.const(np.asarray([[0, 1], [2, -1], [0, 1]]))),
        lambda x: x[[0, 2, 0], [1, 3, 1]],
    ),
    Case(
        "indexing/GatherND/rows",
        lambda g: g.GatherND(g.input("x", 3, 4, 2), g.const(np.asarray([[[2]], [[0]]]))),
        lambda x: x[torch.tensor([[2], [0]])],
        opset=13,
    ),
    Case(
        "indexing/GatherND/batch",
        lambda g: g.GatherND(g.input("x", 2, 4, 3), g.const(np.asarray([[[1], [3]], [[0], [0]]])), batch_dims=1),
        lambda x: torch.stack([x[0][[1, 3]], x[1][[0, 0]]]),
    ),
    Case(
        "indexing/ScatterND",
        lambda g: g.ScatterND(g.input("x", 4, 3), g.const(np.asarray([[2], [0]])), g.input("u", 2, 3)),
        lambda x, u: x.index_put((torch.tensor([2, 0]),), u),
    ),
    Case(
        "indexing/ScatterND/element",
        lambda g: g.ScatterND(g.input("x", 4, 3), g.const(np.asarray([[2, 1], [0, 0]])), g.weight(2)),
        lambda x, u: x.index_put((torch.tensor([2, 0]), torch.tensor([1, 0])), u),
        opset=13,
    ),
    Case(
        "indexing/ScatterND/add",
        lambda g: g.ScatterND(g.input("x", 4, 3), g.const(np.asarray([[2], [2]])), g.input("u", 2, 3), reduction="add"),
        lambda x, u: x.index_put((torch.tensor([2, 2]),), u, accumulate=True),
    ),
    Case(
        "indexing/ScatterElements/add",
        lambda g: g.ScatterElements(
            g.input("x", 3, 2), g.const(np.asarray([[1, 0], [1, -1]])), g.input("u", 2, 2), reduction="add"
        ),
        lambda x, u: x.scatter_add(0, torch.tensor([[1, 0], [1, 2]]), u),
    ),
    Case(
        "indexing/ScatterElements",
        lambda g: g.ScatterElements(
            g.input("x", 2, 5), g.const(np.asarray([[1, 3], [0, 4]])), g.input("u", 2, 2), axis=1
        ),
        lambda x, u: x.scatter(1, torch.tensor([[1, 3], [0, 4]]), u),
    ),
]
