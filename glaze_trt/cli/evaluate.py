"""The command `evaluate`: arguments in, calls, lines or one JSON document out. No work is done here."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from engine.errors import EngineError
from glaze_trt import pairs
from glaze_trt.cli.cloak import Intensity
from glaze_trt.cli.options import EngineName, EngineOption, Perceptual
from glaze_trt.errors import GlazeError, PictureError, UsageError
from glaze_trt.objective import INTENSITIES, Objective
from glaze_trt.targets import Targets, Wanted
from glaze_trt.terminal import console
from glaze_trt.terminal.console import Debug, Json, failing_clearly

if TYPE_CHECKING:
    from glaze_trt.report.html_report import Page

app = typer.Typer()

_SUMS = ("mean", "median", "worst")

_FORMS = {"progress": ".3f", "ssimulacra2": ".1f", "lpips": ".4f", "linf": ".4f", "ssim": ".4f", "psnr": ".1f"}


@app.command()
def evaluate(
    before: Annotated[
        Path,
        typer.Argument(metavar="A", help="The original, or a folder of originals.", show_default=False, readable=False),
    ],
    after: Annotated[
        Path | None,
        typer.Argument(
            metavar="B",
            help="The cloaked picture; of a folder, that of the cloaked ones, found by relative name: "
            "x/y.jpg is met by x/y.png or x/y.cloaked.png.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    portfolio: Annotated[
        Path | None, typer.Option(help="The folder of cloaked pictures, in place of B.", show_default=False)
    ] = None,
    target_image: Annotated[
        Path | None, typer.Option("--target", "--target-image", help="What B was moved toward; gives the progress.")
    ] = None,
    style: Annotated[str | None, typer.Option(help="Built-in style B was moved toward, in place of --target.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that style.")] = 0,
    model: Annotated[list[str] | None, typer.Option(help="Encoder for the progress; repeatable.")] = None,
    handled: Annotated[
        bool, typer.Option("--handled", help="Also the progress after JPEG 90 and 75, half size and back, and noise.")
    ] = False,
    perceptual: Perceptual = "tiny",
    intensity: Annotated[Intensity, typer.Option(help="The budget they are held against.")] = Intensity.default,
    engine: EngineOption = EngineName.auto,
    report: Annotated[
        Path | None, typer.Option(help="Folder for one HTML page of all pairs.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report that is there already.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure any pair of pictures, or two folders of them, whoever made the second."""
    with failing_clearly(as_json=as_json, debug=debug):
        matched = _matched(before, after, portfolio)
        if style is not None and target_image is not None:
            raise UsageError("--style and --target exclude each other")
        if handled and not (style or target_image):
            raise UsageError("--handled measures progress, which needs --target or --style")
        encoders, net = pairs.networks(model or ["tiny"], perceptual, engine.value)
        wanted = Wanted(style=style, images=(target_image,) if target_image else (), seed=seed)
        targets = Targets(wanted, Objective.name, encoders[0], console.say) if style or target_image else None
        measurer = pairs.Measurer(encoders, net, INTENSITIES[intensity.value], targets, handled=handled)
        settings = {
            "a": before,
            "b": after or portfolio,
            "target": target_image,
            "style": style,
            "seed": seed if style else None,
            "model": [each.model.name for each in encoders] if targets is not None or report is not None else None,
            "perceptual": net.model.name,
            "budget": intensity.value,
            "engine": engine.value,
        }
        page = None
        with contextlib.ExitStack() as opened:
            if report is not None:
                from glaze_trt.report.html_report import Page  # only a page needs what draws pages

                page = Page(
                    report,
                    settings,
                    models=[each.model for each in (*encoders, net)],
                    expected=len(matched.pairs),
                    title="Measured pictures",
                    note=_note(measurer),
                    overwrite=overwrite,
                )
                opened.enter_context(page)
            outcome = _measured(matched, measurer, page, engine.value, debug=debug)
        written = None if page is None else str(page.close())
        if as_json:
            console.document(_document(matched, outcome, settings, written))
        else:
            _say(matched, outcome, written)
        if outcome.failures:
            raise typer.Exit(1)


@dataclass(frozen=True)
class _Outcome:
    """What was found of every pair, and which could not be measured."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


def _note(measurer: pairs.Measurer) -> str | None:
    nets = (*measurer.encoders, measurer.perceptual)
    if not any(net.model.manifest.demonstration for net in nets):
        return None
    return (
        "Measured with built-in models, which are a demonstration. For what a real encoder sees, get one once with "
        "`glaze-trt export sd-vae`, then add `--model sd-vae`; for the published LPIPS, `glaze-trt export lpips-alex` "
        "and `--perceptual alex`."
    )


def _matched(before: Path, after: Path | None, portfolio: Path | None) -> pairs.Matched:
    if (after is None) == (portfolio is None):
        raise UsageError("give what A is compared with: a picture B, or for a folder a folder, as B or by --portfolio")
    other = after or portfolio or before
    for path in (before, other):
        if not os.path.exists(path):
            raise PictureError(f"{path}: no such file or folder")
    if before.is_dir() != other.is_dir():
        folder, picture = (before, other) if before.is_dir() else (other, before)
        raise UsageError(f"{folder} is a folder and {picture} is none; give two pictures or two folders")
    if before.is_dir():
        return pairs.match(before, other)
    return pairs.Matched((pairs.Pair(before.name, before, other),))


def _measured(
    matched: pairs.Matched, measurer: pairs.Measurer, page: Page | None, engine_name: str, *, debug: bool
) -> _Outcome:
    """Every pair in turn; of several, a bad one is reported and the others still measured."""
    outcome = _Outcome()
    shown = Console(file=sys.stderr)
    alone = matched.folders is None
    hidden = alone or not shown.is_terminal
    for pair in track(matched.pairs, "measuring", console=shown, transient=True, disable=hidden):
        try:
            measured = measurer(pair)
            if page is not None:
                page.add(measurer.entry(measured, pair.name, engine_name))
        except (GlazeError, EngineError) as error:
            if alone:
                raise
            if debug:
                console.trace()
            line = console.one_line(error)
            console.say(f"error: {line}")
            outcome.failures.append({"a": str(pair.before), "b": str(pair.after), "error": line})
            if page is not None:
                page.fail(pair.name, line)
        else:
            outcome.rows.append(measured.found)
    return outcome


def _document(
    matched: pairs.Matched, outcome: _Outcome, settings: Mapping[str, Any], written: str | None
) -> dict[str, Any]:
    if matched.folders is None:
        return outcome.rows[0] | {"report": written}
    return {
        "a": settings["a"],
        "b": settings["b"],
        "pictures": outcome.rows,
        "summary": pairs.summary(outcome.rows),
        "missing": list(map(str, matched.missing)),
        "unmatched": list(map(str, matched.unmatched)),
        "failures": outcome.failures,
        "report": written,
    }


def _say(matched: pairs.Matched, outcome: _Outcome, written: str | None) -> None:
    if matched.folders is None:
        (found,) = outcome.rows
        console.tell(f"{found['a']} -> {found['b']}")
        console.measures(found, names=tuple(pairs.MEASURES))
        console.shares(found)
        console.tell(f"  {'inside' if found['within'] else 'outside'} the budget: {_budget(found['budget'])}")
        for note in found["notes"]:
            console.tell(f"  note: {note}")
    elif outcome.rows:
        _say_rows(matched, outcome)
    for path in matched.missing:
        console.say(f"no cloaked picture of {path}")
    for path in matched.unmatched:
        console.say(f"no original of {path}")
    if written is not None:
        console.tell(f"report: {written}")


def _say_rows(matched: pairs.Matched, outcome: _Outcome) -> None:
    """A line for every pair, and three that sum up."""
    found = pairs.summary(outcome.rows)
    shown = [name for name in pairs.MEASURES if name in found["mean"]]
    names = [pair.name for pair in matched.pairs if str(pair.before) in {row["a"] for row in outcome.rows}]
    lines = [
        {"picture": name} | _written(row, shown) | {"budget": "inside" if row["within"] else "outside"}
        for name, row in zip(names, outcome.rows, strict=True)
    ]
    lines += [{"picture": f"({each})"} | _written(found[each], shown) | {"budget": ""} for each in _SUMS]
    console.table(lines)
    budget = _budget(outcome.rows[0]["budget"])
    console.tell(f"{found['within']} of {found['pairs']} inside the budget: {budget}")


def _written(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    return {name: "" if values.get(name) is None else f"{values[name]:{_FORMS[name]}}" for name in names}


def _budget(budget: Mapping[str, float | None]) -> str:
    parts = {
        "LPIPS <= {:.3g}": budget["lpips"],
        "largest change <= {:.4f}": budget["linf"],
        "SSIMULACRA2 >= {:.0f}": budget["ssimulacra2"],
    }
    return ", ".join(text.format(value) for text, value in parts.items() if value is not None)
