"""Runs both sides on a pair and keeps what they leave: pictures, seconds and steps, in a folder a pair.

The clock covers the loops alone. Pictures are saved at checkpoints and judged afterwards. A stopped run goes on where
it was: the reference from its last checkpoint, ours from the last step budget that has a picture.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.quality.pairs import Levels, Pair
from bench.quality.recipe import Recipe
from bench.step.torch_forms import Form

CHECKPOINTS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 160, 200, 250, 300, 350, 400, 450, 500)
STEP_BUDGETS = (2, 3, 5, 8, 10, 12, 15, 20, 25, 30, 40, 60, 80, 120)


@dataclass(frozen=True)
class Shot:
    """A picture at some point of a run.

    Attributes:
        steps: gradient steps taken.
        seconds: of the loop alone.
        total: seconds with everything that came with them: loading, compiling, verifying. The same where nothing did.
        file: the 8-bit picture, in the pair's folder.
    """

    steps: int
    seconds: float
    total: float
    file: str


def run_reference(
    pair: Pair, make: Callable[[], Recipe], form: Form, steps: int, folder: Path, say: Callable[[str], None]
) -> list[Shot]:
    """The recipe, with a picture at every checkpoint; one untimed step first, on a copy that is thrown away."""
    log, state_file = folder / "reference.json", folder / "reference.pt"
    shots = _read_shots(log, form.name)
    wanted = [c for c in CHECKPOINTS if c < steps] + [steps]
    if shots and shots[-1].steps >= steps:
        return [shot for shot in shots if shot.steps <= steps]
    make().step()  # warm-up: allocation, and compilation where the form compiles
    recipe = make()
    recipe_started_at, seconds = 0, 0.0
    if shots and state_file.exists():
        recipe.restore(torch.load(state_file, weights_only=True))
        recipe_started_at, seconds = shots[-1].steps, shots[-1].seconds
        say(f"{pair.name}: reference goes on after step {recipe_started_at}")
    else:
        shots = []
    for step in range(recipe_started_at + 1, steps + 1):
        started = time.perf_counter()
        recipe.step()
        seconds += time.perf_counter() - started
        if step in wanted:
            shots.append(_shot(folder, f"reference_{step:04d}.png", recipe.picture(), step, seconds, seconds))
            torch.save(recipe.state(), state_file)
            _write_shots(log, form.name, shots)
            say(f"{pair.name}: reference step {step} of {steps}, {seconds:.0f} s")
    state_file.unlink(missing_ok=True)
    return shots


def run_ours(
    pair: Pair,
    label: str,
    budgets: Sequence[int],
    settings: dict[str, Any],
    folder: Path,
    say: Callable[[str], None],
    enough: Callable[[Levels], bool] | None = None,
) -> list[Shot]:
    """`glaze_trt.cloak` at each step budget, whole runs each; stops after the first picture that is `enough`."""
    import glaze_trt

    log = folder / f"{label}.json"
    identity = json.dumps(settings, sort_keys=True, default=str)
    shots = _read_shots(log, identity)
    for steps in budgets:
        known = next((shot for shot in shots if shot.steps == steps), None)
        if known is None:
            started = time.perf_counter()
            result = glaze_trt.cloak(
                Image.fromarray(pair.picture), target=Image.fromarray(pair.target), steps=steps, **settings
            )
            total = time.perf_counter() - started
            levels = np.asarray(result.picture, dtype=np.uint8)
            seconds = float(result.report.seconds["optimize"])
            known = _shot(folder, f"{label}_{steps:04d}.png", levels, steps, seconds, total)
            shots = sorted([*shots, known], key=lambda shot: shot.steps)
            _write_shots(log, identity, shots)
            say(f"{pair.name}: {label}, {steps} steps, {seconds:.1f} s, {total:.1f} s in all")
        if enough is not None and enough(read_shot(folder, known)):
            break
    return [shot for shot in shots if shot.steps in budgets]


def read_shot(folder: Path, shot: Shot) -> Levels:
    """The picture of a shot."""
    with Image.open(folder / shot.file) as opened:
        return np.asarray(opened.convert("RGB"), dtype=np.uint8)


def _shot(folder: Path, file: str, levels: Levels, steps: int, seconds: float, total: float) -> Shot:
    Image.fromarray(levels).save(folder / file)
    return Shot(steps, seconds, total, file)


def _read_shots(log: Path, identity: str) -> list[Shot]:
    """The shots kept by an earlier run with the same settings; none if they differ."""
    if not log.exists():
        return []
    kept = json.loads(log.read_text())
    return [Shot(**shot) for shot in kept["shots"]] if kept["identity"] == identity else []


def _write_shots(log: Path, identity: str, shots: list[Shot]) -> None:
    partial = log.with_suffix(".partial")
    partial.write_text(json.dumps({"identity": identity, "shots": [asdict(shot) for shot in shots]}, indent=1))
    partial.replace(log)
