"""Gives the nodes and values of a graph names of their own: files repeat them, omit them, or use them twice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import onnx_ir as ir


@dataclass
class Names:
    """Names that are taken in a graph: those of its inputs, outputs and initializers, and all that were given."""

    values: set[str]
    nodes: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, graph: ir.Graph) -> Names:
        """Names every node and every computed value; inputs, outputs and initializers keep theirs."""
        names = cls({str(v.name) for v in (*graph.inputs, *graph.outputs, *graph.initializers.values())})
        _count_on(graph)
        for node in graph:
            names.give(node)
        return names

    def give(self, node: ir.Node, scope: str = "") -> None:
        """Names one node, after `scope` if there is one, and its outputs after it."""
        node.name = _unique(scope + (node.name or f"{node.op_type}_{len(self.nodes)}"), self.nodes)
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = _unique(f"{node.name}:{value.index()}", self.values)

    def adopt(self, value: ir.Value, scope: str) -> None:
        """Names an initializer that comes from another graph."""
        value.name = _unique(f"{scope}{value.name}", self.values)


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or with a number after it where it is taken; from then on it is."""
    unique, count = name, 1
    while unique in taken:
        unique, count = f"{name}#{count}", count + 1
    taken.add(unique)
    return unique


def _count_on(graph: ir.Graph) -> None:
    """A tape numbers what it writes: in a graph that a tape wrote before, it goes on after the highest number."""
    names = (str(node.name) for node in ir.traversal.RecursiveGraphIterator(graph))
    numbers = [int(found[1]) for name in names if (found := re.search(r"\.(\d{1,9})$", name))]
    graph.meta["written"] = max([graph.meta.get("written", 0), *numbers])
