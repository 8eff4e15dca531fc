"""The published Glaze recipe in PyTorch: the reference, written as its public implementations are.

    minimise  mean (Φ(x+δ) − Φ(target))² + α·max(LPIPS(x, x+δ) − p, 0)      Adam, last iterate

with x in [-1,1], α = 30, p = 0.05, learning rate 0.01 and δ₀ uniform in ±0.025 of the picture's range (Shan et al.,
"Glaze", USENIX Security 2023; settings of the clean public re-implementation in Impress, NeurIPS 2023). It runs in the
fastest PyTorch form of this processor, which `fastest_form` finds by measuring.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.networks import DistanceFrom, lpips_network, taesd
from bench.quality.pairs import Levels, Pair, to_levels, to_tensor
from bench.step.torch_forms import Form, compile_fails, usable_forms

ALPHA, BUDGET, RATE, START = 30.0, 0.05, 0.01, 0.05  # START in units of [-1,1]: ±0.025 of the picture's range


class Recipe:
    """The optimisation of one pair in one form; `step()` is one iteration."""

    def __init__(self, pair: Pair, form: Form, weights: Path | None, seed: int = 0) -> None:
        self._form = form
        encoder = taesd(weights)
        perceptual = DistanceFrom(lpips_network("squeeze", weights), to_tensor(pair.picture))
        original = to_tensor(pair.picture) * 2 - 1
        with torch.no_grad():
            goal = encoder(to_tensor(pair.target))
        form.lay_out(encoder)
        form.lay_out(perceptual)
        self._original = form.place(original)

        def loss(delta: Tensor, original: Tensor, goal: Tensor) -> Tensor:
            moved = ((original + delta).clamp(-1, 1) + 1) / 2
            latent: Tensor = encoder(moved).float()
            distance = (latent - goal).square().mean()
            hinge: Tensor = (perceptual(moved) - BUDGET).clamp(min=0)
            return distance + ALPHA * hinge

        self._goal = goal
        self._loss: Callable[..., Tensor] = form.wrap(loss)
        generator = torch.Generator().manual_seed(seed)
        start = (torch.rand(original.shape, generator=generator) * 2 - 1) * START
        self.delta = form.place(start).requires_grad_(True)
        self.optimizer = torch.optim.Adam([self.delta], lr=RATE)

    def step(self) -> None:
        """One Adam step."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._form.autocast():
            loss = self._loss(self.delta, self._original, self._goal)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def picture(self) -> Levels:
        """The current iterate as it would be saved."""
        return to_levels(((self._original + self.delta).clamp(-1, 1) + 1) / 2)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on."""
        return {"delta": self.delta.detach().clone(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        with torch.no_grad():
            self.delta.copy_(state["delta"])
        self.optimizer.load_state_dict(state["optimizer"])


def _prepared(pair: Pair, form: Form, weights: Path | None) -> Callable[[], None]:
    return Recipe(pair, form, weights).step


def fastest_form(
    pair: Pair, weights: Path | None, compile_limit: float, say: Callable[[str], None], repeats: int = 3
) -> tuple[Form, dict[str, float | str]]:
    """Measures every form of PyTorch on this pair's size, in alternating rounds.

    Returns:
        The fastest form, and by form its median seconds a step or why it could not run.
    """
    findings: dict[str, float | str] = {}
    running: list[tuple[Form, Recipe, list[float]]] = []
    for form in usable_forms():
        reason = compile_fails(partial(_prepared, pair, form, weights), compile_limit) if form.compiled else None
        if reason is None:
            try:
                recipe = Recipe(pair, form, weights)
                recipe.step()
                running.append((form, recipe, []))
                say(f"{form.name}: ready")
                continue
            except Exception as error:  # a form that cannot run is a finding
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
        findings[form.name] = reason
        say(f"{form.name}: {reason}")
    for _ in range(repeats):
        for _, recipe, samples in running:
            started = time.perf_counter()
            recipe.step()
            samples.append(time.perf_counter() - started)
    findings |= {form.name: statistics.median(samples) for form, _, samples in running}
    fastest = min(running, key=lambda entry: statistics.median(entry[2]))[0]
    return fastest, findings
