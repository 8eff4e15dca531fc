"""The commands about engines: `build` and `doctor`. Arguments in, calls, lines or one JSON document out."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.runtime.protocol import Build
from glaze_trt import build as building
from glaze_trt import doctor
from glaze_trt.errors import UsageError
from glaze_trt.terminal import console
from glaze_trt.terminal.console import Debug, Json, failing_clearly
from glaze_trt.terminal.progress import Bar
from glaze_trt.terminal.stop import Stop

app = typer.Typer()


class Builder(StrEnum):
    """What builds engines."""

    tensorrt = "tensorrt"
    rtx = "tensorrt-rtx"


class Tiling(StrEnum):
    """How hard to try to keep tensors in the GPU's cache."""

    none = "none"
    fast = "fast"
    moderate = "moderate"
    full = "full"


@app.command()
def build(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Encoders: tiny, taesd, sd-vae, ... or .onnx.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the engines.")],
    engine: Annotated[Builder, typer.Option(help="tensorrt-rtx needs no GPU to build.")] = Builder.rtx,
    size: Annotated[list[str] | None, typer.Option(help="Pictures as 512 or 768x512, width first; repeatable.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Of the companion pair; a cloak takes one.")] = 1,
    perceptual: Annotated[str, typer.Option(help="Net for LPIPS: tiny, alex, vgg, squeeze, or .onnx.")] = "tiny",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or mixed.")] = "auto",
    capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability", help="GPUs to build for, as 8.9 or sm89; repeatable (default: the one here)."
        ),
    ] = None,
    level: Annotated[int | None, typer.Option(min=0, max=5, help="How long to look for fast kernels.")] = None,
    workspace: Annotated[float | None, typer.Option(min=0.01, max=4096, help="GiB of scratch memory at most.")] = None,
    tiling: Annotated[Tiling, typer.Option(help="Try to keep tensors in the GPU's cache.")] = Tiling.none,
    strip: Annotated[bool, typer.Option("--strip", help="Leave weights out; they are put back on loading.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build engines ahead of time, for this machine or to ship: `glaze-trt cloak --engines FOLDER` then builds none."""
    with failing_clearly(as_json=as_json, debug=debug):
        order = building.Order(
            models=models,
            perceptual=perceptual,
            sizes=[read_size(text) for text in size or ["512"]],
            batch=batch,
            precision=precision,
            engine=engine.value,
            build=Build(
                level=level,
                workspace=None if workspace is None else int(workspace * 2**30),
                tiling=tiling.value,
                capabilities=tuple(building.capability(text) for text in capability or ()),
                strip=strip,
            ),
        )
        with Bar() as bar, Stop(bar.say, bar.leave) as stop:

            def begin(name: str) -> None:
                bar.begin(name)
                stop.check()

            def progress(phase: str, share: float) -> None:
                bar.building(phase, share)
                stop.building(phase, share)

            rows = building.run(order, output, begin, progress)
        if as_json:
            console.document({"folder": str(output), "engines": rows})
        else:
            console.table([{**row, "seconds": _seconds(row["seconds"]), "bytes": _size(row["bytes"])} for row in rows])


@app.command(name="doctor")
def examine(
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, which engines work on it, and the one thing to install for each other."""
    with failing_clearly(as_json=as_json, debug=debug):
        findings, auto = doctor.examine(), doctor.chosen()
        if as_json:
            console.document({"auto": auto, "findings": [vars(finding) for finding in findings]})
            return
        width = max(len(finding.about) for finding in findings)
        for finding in findings:
            typer.echo(f"{'ok' if finding.well else '--'}  {finding.about:<{width}}  {finding.found}")
            if finding.advice:
                typer.echo(f"    {'':<{width}}  {finding.advice}")
        typer.echo(f"auto: {auto['engine']} in {auto['precision']}" if auto else "no engine can be used")


def read_size(text: str) -> tuple[int, int]:
    """(height, width) from `512` or `WIDTHxHEIGHT`.

    Raises:
        UsageError: it is neither.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?", text.strip().lower())
    if found is None:
        raise UsageError(f"--size {text}: give 512, or WIDTHxHEIGHT as 768x512")
    return int(found[2] or found[1]), int(found[1])


def _seconds(value: float | None) -> str:
    return "kept" if value is None else f"{value:.1f}"


def _size(value: int) -> str:
    return f"{value / 1e6:.1f} MB"
