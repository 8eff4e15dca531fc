"""Objectives that would not do what they say are refused, with a reason."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest

from glaze_trt import Budget, Constraint, Features, Objective, Search, Update
from glaze_trt.errors import UsageError

BETWEEN = Features("between", "l2")
SHORTEST = (Constraint("l2", "penalty"),)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"features": BETWEEN, "constraints": ()}, "give it a constraint l2"),
        ({"features": BETWEEN}, "give it a constraint l2"),
        ({"features": Features("between", views=("jpeg",)), "constraints": SHORTEST}, "untouched picture.*--robust"),
        ({"features": BETWEEN, "constraints": SHORTEST, "search": Search()}, "not preconditioned"),
        ({"search": Search(), "constraints": (), "update": Update("adam")}, "needs the direction between"),
        ({"budget": Budget(dssim=0.01), "constraints": ()}, "needs a constraint dssim"),
        ({"constraints": SHORTEST * 2}, "one constraint a measure"),
    ],
)
def test_what_contradicts_itself(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Objective(**wrong)


@pytest.mark.parametrize("name", ["lpips", "linf", "ssimulacra2", "dssim"])
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_budget_is_of_numbers(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        Budget(**{name: value})


def test_a_budget_of_dssim_brings_its_constraint() -> None:
    bounds = Objective(budget=Budget(dssim=0.01)).bounds
    assert [(bound.how, bound.limit) for bound in bounds if bound.measure == "dssim"] == [("multiplier", 0.01)]


def test_a_search_takes_an_update_whose_weights_mean_something() -> None:
    objective = Objective(features=BETWEEN, constraints=SHORTEST, update=Update("adam"), search=Search())
    assert objective.search is not None
