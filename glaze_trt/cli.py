"""The command line, `glaze-trt`: arguments in, calls, lines or one JSON document out. No work is done here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from glaze_trt import cli_cache, cli_engines, console, jobs, models, picture, styles
from glaze_trt.console import Debug, Json, failing_clearly
from glaze_trt.errors import ModelError, UsageError
from glaze_trt.evaluate import Judge, Network
from glaze_trt.progress import Bar
from glaze_trt.result import StepInfo
from glaze_trt.stop import Stop

app = typer.Typer(
    name="glaze-trt",
    help="Cloak pictures: move what a diffusion model's encoder sees, within a budget of what a person sees.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Intensity(StrEnum):
    """How visible a cloak may be: SSIMULACRA2 at least 80, 70 or 50."""

    low = "low"
    default = "default"
    high = "high"


class Preset(StrEnum):
    """Whose objective."""

    glaze = "glaze"


class Engine(StrEnum):
    """What runs the networks."""

    auto = "auto"
    tensorrt = "tensorrt"
    rtx = "tensorrt-rtx"
    cuda = "onnxruntime-cuda"
    openvino = "openvino"
    onnxruntime = "onnxruntime"


class Precision(StrEnum):
    """What convolutions are computed in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    mixed = "mixed"


Perceptual = Annotated[str, typer.Option(help="Net for LPIPS: tiny, alex, vgg, squeeze, or an .onnx file.")]
Target = Annotated[Path | None, typer.Option("--target-image", help="Picture to move toward, in place of a style.")]
Style = Annotated[str | None, typer.Option(help=f"Built-in style to move toward (default: {styles.DEFAULT}).")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same file.")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="What runs the networks.")]


app.add_typer(cli_engines.app)
app.add_typer(cli_cache.app, name="cache")


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Cloak pictures: move what a diffusion model's encoder sees, within a budget of what a person sees."""
    if show_version:
        try:
            typer.echo(f"glaze-trt {version('glaze-trt')}")
        except PackageNotFoundError:
            typer.echo("glaze-trt, not installed as a package")
        raise typer.Exit


@app.command()
def cloak(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures to cloak.", show_default=False)],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File, or folder/ (default: NAME.cloaked.png beside each).")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Encoder: tiny, sd-vae, sdxl-vae, taesd, ... or an .onnx file.")
    ] = None,
    perceptual: Perceptual = "tiny",
    style: Style = None,
    target_image: Target = None,
    preset: Annotated[Preset, typer.Option(help="Whose objective.")] = Preset.glaze,
    intensity: Annotated[Intensity, typer.Option(help="How visible the cloak may be.")] = Intensity.default,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimisation.", show_default=False)] = None,
    seed: Seed = 0,
    engine: EngineOption = Engine.auto,
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
        if model is not None and len(model) > 1:
            raise UsageError("several encoders at once are not possible yet; give one --model")
        if style is not None and target_image is not None:
            raise UsageError("--style and --target-image exclude each other")
        if style is not None and style not in styles.available():
            raise UsageError(f"no style is called '{style}'; the built-in ones are {', '.join(styles.available())}")
        settings = jobs.Settings(
            model=model[0] if model else "tiny",
            perceptual=perceptual,
            style=style,
            target_image=target_image,
            preset=preset.value,
            intensity=intensity.value,
            steps=steps,
            seed=seed,
            engine=engine.value,
            precision=precision.value,
            device=device,
            engines=engines,
            overwrite=overwrite,
        )
        note = jobs.demonstration_note(settings.model, settings.perceptual)
        planned = jobs.plan(images, output, sheet)
        outcome = _run_all(planned, settings, as_json=as_json, debug=debug)
        if as_json:
            shown = note if outcome.made else None
            console.document({"pictures": outcome.made, "failures": outcome.failures, "note": shown})
        elif outcome.made and note:
            typer.echo(note)
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.failures:
            raise typer.Exit(1)


@dataclass(frozen=True)
class _Outcome:
    """The reports of the pictures done, the inputs that failed with their lines, and whether a person stopped it."""

    made: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    interrupted: bool = False


def _run_all(planned: list[jobs.Job], settings: jobs.Settings, *, as_json: bool, debug: bool) -> _Outcome:
    """Every picture in turn; a bad one is reported and the others still done."""
    outcome = _Outcome()
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
        for job in planned:
            bar.begin(job.input.name)
            try:
                report = jobs.run(job, settings, cloaker, options, on_step=on_step, doing=doing)
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


@app.command()
def evaluate(
    before: Annotated[Path, typer.Argument(metavar="A", help="The original.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help="The cloaked picture.", show_default=False)],
    target_image: Annotated[
        Path | None, typer.Option("--target", "--target-image", help="What B was moved toward; gives the progress.")
    ] = None,
    style: Annotated[str | None, typer.Option(help="Built-in style B was moved toward, in place of --target.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that style.")] = 0,
    model: Annotated[str, typer.Option(help="Encoder for the progress.")] = "tiny",
    perceptual: Perceptual = "tiny",
    engine: EngineOption = Engine.auto,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure any pair of pictures, whoever made the second."""
    with failing_clearly(as_json=as_json, debug=debug):
        if style is not None and target_image is not None:
            raise UsageError("--style and --target exclude each other")
        first, second = picture.load(before), picture.load(after)
        target = jobs.target_levels(first, style, target_image, seed) if style or target_image else None
        judge = Judge(
            first.levels,
            target=target,
            encoder=Network(models.find(model, "encoder"), engine.value) if target is not None else None,
            perceptual=Network(models.find(perceptual, "perceptual"), engine.value),
        )
        found = judge(second.levels).as_dict()
        if as_json:
            shown = model if target is not None else None
            console.document({"a": str(before), "b": str(after), "model": shown, "perceptual": perceptual, **found})
        else:
            typer.echo(f"{before} -> {after}")
            console.measures(found, names=("progress", "ssimulacra2", "lpips", "linf", "ssim", "psnr"))


@app.command(name="styles")
def list_styles(as_json: Json = False, debug: Debug = False) -> None:
    """List the built-in styles."""
    with failing_clearly(as_json=as_json, debug=debug):
        rows = [{"name": name, "description": styles.describe(name)} for name in styles.available()]
        if as_json:
            console.document({"styles": rows, "default": styles.DEFAULT})
        else:
            console.table(rows)


@app.command(name="models")
def list_models(as_json: Json = False, debug: Debug = False) -> None:
    """List the models on this machine, and what can be exported."""
    with failing_clearly(as_json=as_json, debug=debug):
        here = [
            {
                "name": model.name,
                "kind": model.kind,
                "latent_space": model.manifest.latent_space,
                "parameters": model.manifest.parameters,
                "demonstration": model.manifest.demonstration,
                "path": str(model.path),
            }
            for model in models.available()
        ]
        missing = [name for name in models.EXPORTABLE if name not in {row["name"] for row in here}]
        if as_json:
            console.document({"models": here, "exportable": missing, "folder": str(models.export_folder())})
        else:
            console.table([row | {"demonstration": "yes" if row["demonstration"] else ""} for row in here])
            if missing:
                typer.echo(f"Made once with `glaze-trt export NAME`: {', '.join(missing)}")


@app.command()
def export(
    name: Annotated[str, typer.Argument(help=f"{', '.join(models.EXPORTABLE)}, or your own with --onnx.")],
    weights: Annotated[
        list[str] | None, typer.Option(help="File, folder or hub id; twice where LPIPS lies in two files.")
    ] = None,
    onnx: Annotated[Path | None, typer.Option(help="Any extractor as an ONNX file.")] = None,
    input_range: Annotated[str | None, typer.Option(help="What that extractor takes: 0,1 or -1,1 or imagenet.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a model file once, checked against its source; then it is found by name."""
    with failing_clearly(as_json=as_json, debug=debug):
        try:
            from export import export_model
        except ImportError as error:
            raise ModelError(f"exporting needs {error.name}: pip install 'glaze-trt[export]'") from error
        kept = export_model(
            name, weights=weights, onnx=onnx, input_range=input_range, progress=lambda line: console.say(f"{line} ...")
        )
        if as_json:
            rows = [{"name": each.name, "kind": each.kind, "path": str(each.path)} for each in kept]
            console.document({"models": rows})
        else:
            for each in kept:
                typer.echo(f"{each.name} ({each.kind}): {each.path}")


def main() -> None:
    """Entry point of `glaze-trt`."""
    console.tolerate_narrow_encodings()
    app()


if __name__ == "__main__":
    main()
