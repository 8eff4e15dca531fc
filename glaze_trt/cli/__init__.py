"""The command line, `glaze-trt`: arguments in, calls, lines or one JSON document out. No work is done here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from glaze_trt import models, styles
from glaze_trt.cli import cache, cloak, engines, evaluate
from glaze_trt.errors import ModelError, UsageError
from glaze_trt.pictures import picture
from glaze_trt.report import contact_sheet
from glaze_trt.styles import sheet
from glaze_trt.terminal import console
from glaze_trt.terminal.console import Debug, Json, failing_clearly

app = typer.Typer(
    name="glaze-trt",
    help="Cloak pictures: move what a diffusion model's encoder sees, within a budget of what a person sees.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(cloak.app)
app.add_typer(evaluate.app)
app.add_typer(engines.app)
app.add_typer(cache.app, name="cache")


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


@app.command(name="styles")
def list_styles(
    of: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="A picture to show them on.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG that shows IMAGE in every style.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the styles.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the built-in styles, or show them on a picture."""
    with failing_clearly(as_json=as_json, debug=debug):
        if (of is None) != (output is None):
            raise UsageError(
                "to see the styles on a picture, give it and a file: glaze-trt styles art.png -o styles.png"
            )
        if of is not None and output is not None:
            if output.suffix.lower() != ".png":
                raise UsageError(f"{output}: the sheet is a PNG; give it a .png name")
            picture.check_writable(output, overwrite=overwrite)
            if output.exists() and output.samefile(of):
                raise UsageError(f"{output}: the sheet would replace the picture; choose another name")
            contact_sheet.save_sheet(output, sheet.sheet(picture.load(of).levels, seed))
            console.say(f"{output}: {of.name} in every style")
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
