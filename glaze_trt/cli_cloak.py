"""The command `cloak`: arguments in, calls, lines or one JSON document out. No work is done here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from glaze_trt import area, console, jobs, plan, presets, styles, views
from glaze_trt.cli_options import EngineName, EngineOption, Perceptual, Precision
from glaze_trt.console import Debug, Json, failing_clearly
from glaze_trt.errors import UsageError
from glaze_trt.progress import Bar
from glaze_trt.result import StepInfo
from glaze_trt.stop import Stop
from glaze_trt.styles.diffusion import DEFAULT_MODEL, Diffusion
from glaze_trt.targets import Targets, Wanted

app = typer.Typer()


class Intensity(StrEnum):
    """How visible a cloak may be: SSIMULACRA2 at least 80, 70 or 50."""

    low = "low"
    default = "default"
    high = "high"


class Stylizer(StrEnum):
    """What makes a target of --style."""

    built_in = "built-in"
    diffusion = "diffusion"


@app.command()
def cloak(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures to cloak.", show_default=False)],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File, or folder/ (default: NAME.cloaked.png beside each).")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Encoder: tiny, sd-vae, sdxl-vae, taesd, ... or an .onnx file; repeatable, to move several."),
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="How much each --model counts, in their order; alike by default.")
    ] = None,
    extractor: Annotated[
        list[Path] | None, typer.Option(help="A face embedding as an .onnx file, pictures in [0,1]; repeatable.")
    ] = None,
    perceptual: Perceptual = "tiny",
    preset: Annotated[str, typer.Option(help=f"Whose objective: {', '.join(presets.PRESETS)}.")] = "glaze",
    intensity: Annotated[Intensity, typer.Option(help="How visible the cloak may be.")] = Intensity.default,
    robust: Annotated[
        str | None,
        typer.Option(help=f"What the cloak shall outlast, by commas: {', '.join(views.NAMES)}.", show_default=False),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(help=f"Style to move toward, auto to have one chosen (default: {styles.DEFAULT}), or a prompt."),
    ] = None,
    target_image: Annotated[
        list[Path] | None, typer.Option("--target-image", help="Picture to move toward, in place of a style.")
    ] = None,
    style_image: Annotated[Path | None, typer.Option(help="Picture whose colours and texture to move toward.")] = None,
    portfolio: Annotated[Path | None, typer.Option(help="Folder by which one style is chosen for all.")] = None,
    stylizer: Annotated[Stylizer, typer.Option(help="What makes the style.")] = Stylizer.built_in,
    diffusion_model: Annotated[str, typer.Option(help="Hub id or folder, for diffusion.")] = DEFAULT_MODEL,
    strength: Annotated[float | None, typer.Option(help="Of diffusion, 0 to 1.", show_default=False)] = None,
    guidance: Annotated[float | None, typer.Option(help="Of diffusion.", show_default=False)] = None,
    diffusion_steps: Annotated[int | None, typer.Option(help="Of diffusion.", show_default=False)] = None,
    mask: Annotated[Path | None, typer.Option(help="Picture of the same size, white where it may change.")] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="x,y,width,height: only there may it change; repeatable.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimisation.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same file.")] = 0,
    engine: EngineOption = EngineName.auto,
    precision: Annotated[Precision, typer.Option(help="What convolutions are computed in.")] = Precision.auto,
    device: Annotated[
        str | None, typer.Option(help="Which GPU: cuda:1 is the second (default: the first).", show_default=False)
    ] = None,
    engines: Annotated[Path | None, typer.Option(help="Folder made by `glaze-trt build`, looked into first.")] = None,
    sheet: Annotated[str | None, typer.Option(help="Contact sheet: a PNG file, or a folder/.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Cloak pictures and measure the saved files."""
    with failing_clearly(as_json=as_json, debug=debug):
        presets.find(preset)
        if stylizer is not Stylizer.diffusion and (strength, guidance, diffusion_steps) != (None, None, None):
            raise UsageError("--strength, --guidance and --diffusion-steps are for --stylizer diffusion")
        kind: Literal["built-in", "diffusion"] = "diffusion" if stylizer is Stylizer.diffusion else "built-in"
        settings = jobs.Settings(
            models=(*(model or ([] if extractor else ["tiny"])), *map(str, extractor or ())),
            weights=tuple(weight or ()),
            perceptual=perceptual,
            target=Wanted(
                style=style,
                images=tuple(target_image or ()),
                style_image=style_image,
                portfolio=portfolio,
                stylizer=kind,
                diffusion=(
                    Diffusion.usual(
                        style,
                        diffusion_model,
                        strength=strength,
                        guidance=guidance,
                        steps=diffusion_steps,
                        seed=seed,
                    )
                    if style and kind == "diffusion"
                    else None
                ),
                seed=seed,
            ),
            preset=preset,
            intensity=intensity.value,
            robust=_names(robust),
            steps=steps,
            mask=mask,
            regions=tuple(map(area.parse, region or ())),
            faces=bool(extractor) or presets.PRESETS[preset].faces,
            seed=seed,
            engine=engine.value,
            precision=precision.value,
            device=device,
            engines=engines,
            overwrite=overwrite,
        )
        if presets.PRESETS[preset].faces and not extractor and model is None:
            raise UsageError(f"the preset {preset} acts on a face embedding: give one by --extractor FILE.onnx")
        outcome = _run_all(settings, lambda: plan.plan(images, output, sheet), as_json=as_json, debug=debug)
        note = outcome.note if outcome.made else None
        if as_json:
            console.document({"pictures": outcome.made, "failures": outcome.failures, "note": note})
        elif note:
            typer.echo(note)
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.failures:
            raise typer.Exit(1)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


@dataclass(frozen=True)
class _Outcome:
    """What must be said of the models, reports of the pictures done, what failed, and whether a person stopped it."""

    note: str | None
    made: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    interrupted: bool = False


def _run_all(
    settings: jobs.Settings, plan_all: Callable[[], list[plan.Job]], *, as_json: bool, debug: bool
) -> _Outcome:
    """Every picture in turn; a bad one is reported and the others still done.

    Nothing is planned, and so no folder made, before all else that was asked for is known to be there.
    """
    with Bar() as bar, Stop(bar.say, bar.leave) as stop:

        def building(phase: str, share: float) -> None:
            bar.building(phase, share)
            stop.building(phase, share)

        def on_step(info: StepInfo) -> None:
            bar.on_step(info)
            stop.check()

        def doing(stage: str) -> None:
            bar.doing(stage)
            stop.check()

        options = jobs.make_options(settings, building)
        cloaker = jobs.make_cloaker(settings, options)
        targets = Targets(settings.target, settings.preset, cloaker.encoders[0], bar.say)
        outcome = _Outcome(jobs.demonstration_note(cloaker))
        for job in plan_all():
            bar.begin(job.input.name)
            try:
                report = jobs.run(job, settings, cloaker, targets, options, on_step=on_step, doing=doing)
            except KeyboardInterrupt:
                return replace(outcome, interrupted=True)
            except Exception as error:  # whatever it is, it must not lose the other pictures
                outcome.failures.append({"input": str(job.input), "error": console.one_line(error)})
                bar.say(f"error: {console.one_line(error)}")
                if debug:
                    console.trace()
                continue
            outcome.made.append(report)
            if not as_json:
                with bar.paused():
                    console.cloaked(report)
    return outcome
