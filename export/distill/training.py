"""The training loop that the three students share: seeded, resumable, averaged weights.

What is being learnt is a ``Task``. Every random choice of step n comes from a generator seeded with (seed,
n), so that an interrupted run goes on exactly as if it had not been interrupted.
"""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from export.distill.package import Port, replace_file
from export.distill.pictures import Pictures
from export.distill.students import parameter_groups

_WARMUP = 8  # steps
_LAST_RATE = 0.03  # of the first, at the last step
_AVERAGE = 0.98  # weight of the past, at most


class Task(Protocol):
    """One student, its teachers, and how far apart they are."""

    port: Port
    student: nn.Module
    source: str

    def lesson(self, image: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """What the teachers say about training crops (B, 3, H, W) in [0,1], perturbed or not; (B, ...) each."""
        ...

    def loss(self, lesson: tuple[Tensor, ...]) -> Tensor:
        """Scalar loss of the student on a part of a lesson."""
        ...

    def measure(self, student: nn.Module, image: Tensor, *, thorough: bool) -> dict[str, float]:
        """Held-out figures of a student on pictures (B, 3, H, W) in [0,1]; ``thorough`` for the manifest."""
        ...


@dataclass(frozen=True)
class Plan:
    """What decides the outcome of a run. A run is resumed under the plan it began with, save the number of steps."""

    steps: int
    """Steps of the whole run; the schedule of the rate follows it, also when a run is resumed with more or fewer."""
    pool: int
    """Crops that the teachers look at in each step."""
    epochs: int
    """How often the student goes over them: it is far cheaper than its teachers."""
    batch: int
    crop: int
    rate: float
    seed: int
    bf16: bool


def supports_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; where it does not, bf16 is emulated and very slow."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(enabled: bool) -> torch.autocast:
    """The context in which networks run; without the cast cache, which drops gradients after a no-grad pass."""
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled, cache_enabled=False)


def train(
    task: Task,
    pictures: Pictures,
    plan: Plan,
    checkpoint: Path,
    *,
    resume: bool = False,
    minutes: float = math.inf,
    report_every: int = 100,
    say: Callable[[str], None] = print,
) -> nn.Module:
    """Train ``task.student`` in place and return the average of its weights over time.

    Args:
        task: What to learn.
        pictures: Where the crops and the held-out views come from.
        plan: Steps, batch, rate, seed.
        checkpoint: The file that is written at every report and at the end, and read when resuming.
        resume: Go on from ``checkpoint`` if it is there; otherwise begin anew.
        minutes: Stop after this time, checkpoint written, even if steps are left.
        report_every: Steps between progress lines.
        say: Receives the progress lines.

    Raises:
        ValueError: The checkpoint was written under another plan.
    """
    student = task.student
    average = copy.deepcopy(student).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        parameter_groups(student, plan.rate), lr=plan.rate, betas=(0.9, 0.98), weight_decay=1e-4
    )
    step = 0
    if resume and checkpoint.exists():
        step = _restore(checkpoint, plan, student, average, optimizer)
        say(f"{task.port.kind}: resumed at step {step} of {plan.steps}")
    views = pictures.views(plan.crop)
    began, total, seen = time.monotonic(), 0.0, 0
    while step < plan.steps:
        generator = Generator().manual_seed(plan.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * _schedule(step, plan.steps)
        with autocast(plan.bf16):
            lesson = task.lesson(pictures.crops(plan.pool, plan.crop, generator), generator)
        for _ in range(plan.epochs):
            for chosen in torch.split(torch.randperm(plan.pool, generator=generator), plan.batch):
                with autocast(plan.bf16):
                    loss = task.loss(tuple(tensor[chosen] for tensor in lesson))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
                optimizer.step()
                total, seen = total + float(loss.detach()), seen + 1
        step += 1
        _follow(average, student, min(_AVERAGE, step / (step + 9)))
        late = time.monotonic() - began > 60 * minutes
        if step % report_every == 0 or step == plan.steps or late:
            with autocast(plan.bf16):
                figures = task.measure(average, views, thorough=False)
            say(_line(task.port.kind, step, plan.steps, total / seen, figures, time.monotonic() - began))
            total, seen = 0.0, 0
            _save(checkpoint, plan, student, average, optimizer, step)
        if late:
            say(f"{task.port.kind}: out of time; --resume goes on from step {step}")
            break
    return average


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine."""
    fall = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / _WARMUP) * (_LAST_RATE + (1 - _LAST_RATE) * fall)


@torch.no_grad()
def _follow(average: nn.Module, student: nn.Module, decay: float) -> None:
    for kept, new in zip(average.parameters(), student.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def _line(kind: str, step: int, steps: int, loss: float, figures: Mapping[str, float], seconds: float) -> str:
    held_out = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
    return f"{kind}: step {step}/{steps}  {seconds:.0f} s  loss {loss:.4f}  held-out: {held_out}"


def _save(
    path: Path,
    plan: Plan,
    student: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    state = {
        "plan": asdict(plan),
        "step": step,
        "student": student.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, buffer.getvalue())


def _restore(path: Path, plan: Plan, student: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["plan"] | {"steps": plan.steps} != asdict(plan):
        raise ValueError(f"{path}: written under another plan, {state['plan']}: give the same options, or no --resume")
    student.load_state_dict(state["student"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
