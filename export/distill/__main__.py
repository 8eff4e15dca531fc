"""Command line of the training: ``python -m export.distill encoder|decoder|perceptual``."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from export.distill import package, teachers
from export.distill.decoder import DecoderTask
from export.distill.encoder import EncoderTask
from export.distill.perceptual import PerceptualTask
from export.distill.pictures import HELD_OUT, Pictures
from export.distill.students import TinyEncoder
from export.distill.training import Plan, Task, autocast, supports_bf16, train


class Kind(StrEnum):
    """Which student."""

    encoder = "encoder"
    decoder = "decoder"
    perceptual = "perceptual"


@dataclass(frozen=True)
class Recipe:
    """What a student is trained with unless told otherwise."""

    steps: int
    pool: int
    epochs: int
    batch: int
    rate: float
    crop: int = 128


RECIPES = {
    Kind.encoder: Recipe(steps=2000, pool=8, epochs=3, batch=4, rate=2e-3),
    Kind.decoder: Recipe(steps=100, pool=16, epochs=3, batch=8, rate=1e-3),
    Kind.perceptual: Recipe(steps=100, pool=8, epochs=3, batch=4, rate=2e-3, crop=256),
}


def task(kind: Kind, weights: Path, attacked: Path | None = None) -> Task:
    """The task of a kind with the teachers found in a folder.

    Args:
        kind: which student.
        weights: of the teachers.
        attacked: a tiny_encoder.onnx, against which cloaks are made in place of TAESD: a perceptual student alone asks.
    """
    if kind is Kind.encoder:
        return EncoderTask(teachers.load_encoder(weights), teachers.load_perceptual(weights))
    if kind is Kind.decoder:
        return DecoderTask(teachers.load_encoder(weights), teachers.load_decoder(weights))
    encoder: nn.Module = teachers.load_encoder(weights) if attacked is None else TinyEncoder()
    if attacked is not None:
        package.load_weights_(encoder, attacked)
    return PerceptualTask(teachers.load_perceptual(weights), teachers.frozen(encoder))


def distill(
    kind: Annotated[Kind, typer.Argument(help="Which student to train.")],
    teacher_weights: Annotated[Path, typer.Option(help="Folder of the teachers' .safetensors files.")],
    pictures: Annotated[Path, typer.Option(help="Folder of pictures.")],
    out: Annotated[Path, typer.Option(help="Where tiny_KIND.onnx and its manifest go.")],
    checkpoints: Annotated[Path, typer.Option(help="Where the checkpoint is kept.")] = Path("checkpoints"),
    report_every: Annotated[int, typer.Option(help="Steps between progress lines and checkpoints.")] = 100,
    steps: Annotated[int | None, typer.Option(help="Steps of the whole run.")] = None,
    rate: Annotated[float | None, typer.Option(help="Of learning, at its highest.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop this call after so long; --resume goes on.")] = math.inf,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint.")] = False,
    start: Annotated[
        Path | None, typer.Option(help="Begin with the weights of a tiny_KIND.onnx written before.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    attacked: Annotated[
        Path | None,
        typer.Option(help="A tiny_encoder.onnx to cloak against for a perceptual student: faster than TAESD."),
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the training crops in pixels.")] = None,
    view: Annotated[int, typer.Option(help="Side of the held-out pictures at the end, in pixels.")] = 384,
    held_out: Annotated[
        list[str], typer.Option(help="Beginning of the name of a picture to hold out; may be repeated.")
    ] = list(HELD_OUT),  # noqa: B006
    threads: Annotated[int, typer.Option(help="Of the processor.")] = 2,
) -> None:
    """Train a student and write it as a built-in model."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    recipe = RECIPES[kind]
    plan = Plan(
        steps=steps or recipe.steps,
        pool=recipe.pool,
        epochs=recipe.epochs,
        batch=recipe.batch,
        crop=crop or recipe.crop,
        rate=rate or recipe.rate,
        seed=seed,
        bf16=supports_bf16(),
    )
    collection = Pictures.load(pictures, held_out)
    job = task(kind, teacher_weights, attacked)
    if start is not None:
        package.load_weights_(job.student, start)
    teachers.channels_last(job.student)
    student = train(
        job,
        collection,
        plan,
        checkpoints / f"{kind}.pt",
        resume=resume,
        minutes=minutes,
        report_every=report_every,
        say=_say,
    )
    package.half_weights_(student)
    with autocast(plan.bf16):
        figures = job.measure(student, collection.views(view), thorough=True)
    measured: dict[str, object] = {name: round(value, 4) for name, value in figures.items()}
    measured |= {"held_out": sorted(collection.held_out), "size": view, "plan": asdict(plan)}
    path = package.write(student, job.port, out, source=job.source, measured=measured)
    _say(f"{path}: {path.stat().st_size} bytes; {measured}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    typer.run(distill)
