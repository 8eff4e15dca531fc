"""The command `cloak`: arguments in, a run, lines or one JSON document out. No work is done here."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from glaze_trt import area, presets, styles
from glaze_trt.cli.options import EngineName, EngineOption, Perceptual, Precision
from glaze_trt.errors import UsageError
from glaze_trt.graph import views
from glaze_trt.runs import run
from glaze_trt.runs.order import Order
from glaze_trt.runs.plan import Wishes
from glaze_trt.runs.settings import Settings
from glaze_trt.styles.diffusion import DEFAULT_MODEL, Diffusion
from glaze_trt.targets import Wanted
from glaze_trt.terminal import console
from glaze_trt.terminal.console import Debug, Json, failing_clearly
from glaze_trt.terminal.progress import Bar

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


class Frames(StrEnum):
    """What is taken of a file with several frames or pages."""

    one = "one"
    all = "all"


_ADDRESS = re.compile(r"auto|local|[\w.-]+:\d+")


class _Cloak(TyperCommand):
    """`--ray` may stand without an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        filled: list[str] = []
        for word, following in zip(args, [*args[1:], ""], strict=True):
            filled.append(word)
            if word == "--ray" and not _ADDRESS.fullmatch(following):
                filled.append("")
        return super().parse_args(ctx, filled)


@app.command(cls=_Cloak)
def cloak(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|FOLDER|PATTERN",
            help="Pictures to cloak.",
            show_default=False,
            readable=False,  # one that cannot be read is told of and skipped
        ),
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File, or folder/ (default: NAME.cloaked.png beside each).")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the folders below a folder too.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(help="One line of JSON a picture (default, of a folder: manifest.jsonl in the output)."),
    ] = None,
    frames: Annotated[Frames, typer.Option(help="all: every frame or page of a file that has several.")] = Frames.one,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]", help="On a Ray cluster: its address, or whatever Ray finds.", show_default=False
        ),
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
    report: Annotated[Path | None, typer.Option(help="Folder for one HTML page that shows all results.")] = None,
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
        settings = Settings(
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
            frames="all" if frames is Frames.all else "one",
            seed=seed,
            engine=engine.value,
            precision=precision.value,
            device=device,
            engines=engines,
            overwrite=overwrite,
        )
        if presets.PRESETS[preset].faces and not extractor and model is None:
            raise UsageError(f"the preset {preset} acts on a face embedding: give one by --extractor FILE.onnx")
        if ray is not None and device is not None:
            raise UsageError("--device chooses one GPU of this machine; on a cluster Ray chooses, so leave it out")
        order = Order(
            images=tuple(images),
            wishes=Wishes(output, sheet, pages=frames is Frames.all, reads=settings.reads()),
            recursive=recursive,
            manifest=manifest,
            resume=resume,
            report=report,
            ray=ray,
        )
        screen = _Screen(as_json=as_json, debug=debug)
        tally = run.run(order, settings, screen)
        if as_json:
            console.document(console.told(tally, screen.reports))
        else:
            console.summary(tally)
        if tally.interrupted:
            raise KeyboardInterrupt
        if tally.failed or tally.unread:
            raise typer.Exit(1)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


class _Screen:
    """What a person is shown of every picture; see `runs.run.Screen`."""

    def __init__(self, *, as_json: bool, debug: bool) -> None:
        self._as_json, self._debug = as_json, debug
        self.reports: list[dict[str, Any]] = []  # of named files; those of a folder are in its manifest

    def cloaked(self, made: dict[str, Any], bar: Bar, *, tree: bool) -> None:
        """Its results on stdout, in one line for one of many."""
        if self._as_json:
            self.reports += [] if tree else [made]
            return
        with bar.paused():
            if tree:
                console.line(made)
            else:
                console.cloaked(made)

    def failed(self, error: Exception, bar: Bar) -> None:
        """Why, on stderr."""
        bar.say(f"error: {console.one_line(error)}")
        if self._debug:
            console.trace(error)
