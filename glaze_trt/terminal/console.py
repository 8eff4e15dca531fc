"""What the command line says and how it ends: lines for a person, one JSON document for a program, exit statuses.

    0  done        1  failed, one line on stderr        2  bad usage        130  interrupted

Nothing is computed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from engine.errors import EngineError
from glaze_trt.errors import GlazeError

if TYPE_CHECKING:
    from glaze_trt.runs.order import Tally

INTERRUPTED = 130

_COMMANDS = ("Cc", "Cs", "Zl", "Zp")
"""Categories of characters that are no text: controls, halves of surrogates, separators of lines."""

_INTERRUPTION = "interrupted; nothing was left half-written"

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
"""What every command takes."""


@contextlib.contextmanager
def failing_clearly(*, as_json: bool, debug: bool) -> Iterator[None]:
    """Turn what goes wrong inside into one line on stderr and an exit status."""
    try:
        yield
    except KeyboardInterrupt:
        say(_INTERRUPTION)
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:  # `| head` has read enough; typer ends the process without a word
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("click", "typer"):
            raise  # bad usage, which typer itself explains
        if debug:
            trace()
        message = one_line(error)
        say(f"error: {message}")
        if as_json:
            document({"error": message})
        raise typer.Exit(error.exit_status if isinstance(error, GlazeError) else 1) from None


def one_line(error: BaseException) -> str:
    """An error as one line; one that nobody foresaw names its type."""
    text = " ".join(str(error).split())
    if isinstance(error, GlazeError | EngineError):
        return text
    return f"unforeseen {type(error).__name__}: {text or 'no message'} (add --debug to see where)"


def shown(text: str) -> str:
    """Text as it may go to a terminal: what would break the line or command the terminal, in a file's name, escaped."""
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in _COMMANDS else each for each in text
    )


def leave() -> NoReturn:
    """End as interrupted from any thread, with the main one in code that does not return."""
    say(_INTERRUPTION)
    sys.stdout.flush()
    os._exit(INTERRUPTED)


def say(line: str) -> None:
    """One line on stderr."""
    typer.echo(shown(line), err=True)


def tell(line: str) -> None:
    """One line on stdout."""
    typer.echo(shown(line))


def document(value: Mapping[str, Any]) -> None:
    """The one JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, default=str))


def cloaked(made: Mapping[str, Any]) -> None:
    """What was done to one picture and what was measured, on stdout."""
    budget, seconds = made["budget"], made["seconds"]
    tell(f"{made['input']} -> {made['output']}")
    tell(
        f"  {made['size'][0]} x {made['size'][1]}, {made['steps']} steps{_toward(made)} in {seconds['total']:.1f} s; "
        f"{made['engine']} {made['precision']} on {made['device']}"
    )
    linf = None if budget.get("linf") is None or budget["linf"] >= 1 else int(budget["linf"] * 255 + 1e-3)
    lpips = _limit(" <= ", budget.get("lpips"), ".3g")
    tell(f"  progress     {made['progress']:.3f}    as the model {made['model']} sees it")
    shares(made)
    tell(f"  SSIMULACRA2  {made['ssimulacra2']:.1f}{_limit(' >= ', budget.get('ssimulacra2'), '.0f')}")
    tell(f"  LPIPS        {made['lpips']:.4f}{lpips}, net {made['perceptual']}")
    tell(f"  largest      {made['linf'] * 255:.0f}/255{_limit(' <= ', linf, '.0f')}")
    if budget.get("dssim") is not None:
        tell(f"  DSSIM        {(1 - made['ssim']) / 2:.4f}   <= {budget['dssim']:.3g}")
    measures(made, names=("ssim", "psnr"))
    for note in made["notes"]:
        tell(f"  note: {note}")
    if made.get("sheet"):
        tell(f"  contact sheet: {made['sheet']}")


def line(made: Mapping[str, Any]) -> None:
    """One of many pictures, on stdout."""
    lpips = "" if made["lpips"] is None else f"  LPIPS {made['lpips']:.4f}"
    tell(
        f"{made['name']} -> {made['output']}  progress {made['progress']:.3f}  SSIMULACRA2 {made['ssimulacra2']:.1f}"
        f"{lpips}  {made['seconds']['total']:.1f} s"
    )


def summary(tally: Tally) -> None:
    """How a run went, on stdout, after its pictures were told of."""
    if tally.tree:
        rate = f", {per_minute(tally.cloaked, tally.seconds)} a minute" if tally.cloaked else ""
        earlier = f", {tally.earlier} done before" if tally.earlier else ""
        count = len(tally.unread)
        unread = f", {count} folder{'' if count == 1 else 's'} not read" if count else ""
        tell(f"{tally.cloaked} of {tally.pictures} pictures cloaked{rate}{earlier}, {tally.failed} failed{unread}")
        if tally.passed_over:
            which = ", ".join(f"{count} {suffix}" for suffix, count in sorted(tally.passed_over.items()))
            tell(f"  passed over: {which}")
    if tally.manifest is not None:
        tell(f"  manifest: {tally.manifest}")
    if tally.page is not None:
        tell(f"  report: {tally.page}")
    if tally.cloaked and tally.note:
        tell(tally.note)


def per_minute(count: int, seconds: float) -> str:
    """A rate, with a decimal where it is slow."""
    rate = 60 * count / seconds
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def told(tally: Tally, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How a run went, as JSON: every report where files were named, counts where a folder was, whose manifest has them.

    So the document of thousands of pictures stays small.
    """
    note = tally.note if tally.cloaked else None
    ends = {
        name: str(path) for name, path in (("manifest", tally.manifest), ("report", tally.page)) if path is not None
    }
    if not tally.tree:
        return {"pictures": list(reports), "failures": tally.failures, "note": note, **ends}
    counts = {name: getattr(tally, name) for name in ("pictures", "cloaked", "earlier", "failed")}
    passed = {"passed_over": dict(sorted(tally.passed_over.items())), "unread": tally.unread}
    return {**counts, **passed, "seconds": tally.seconds, "failures": tally.failures, "note": note, **ends}


def shares(made: Mapping[str, Any]) -> None:
    """Progress by encoder, where there are several, and what handling leaves of it."""
    for name, value in made["progresses"].items() if len(made["progresses"]) > 1 else ():
        tell(f"    {name:<25}{value:.3f}")
    for name, value in made.get("handled", {}).items():
        tell(f"    {'after ' + name:<25}{value:.3f}")


def _toward(made: Mapping[str, Any]) -> str:
    if made["target"] == "none":
        return f" of {made['preset']}"
    where = made["style_percentile"]
    return f" toward {made['target']}" + ("" if where is None else f" (percentile {where:.0f} of distance)")


def measures(values: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Some of the measures, one a line; what was not measured is left out."""
    forms = {
        "progress": ("progress     ", "{:.3f}"),
        "ssimulacra2": ("SSIMULACRA2  ", "{:.1f}"),
        "lpips": ("LPIPS        ", "{:.4f}"),
        "linf": ("largest      ", "{:.4f}"),
        "ssim": ("SSIM         ", "{:.4f}"),
        "psnr": ("PSNR         ", "{:.1f} dB"),
    }
    for name in names:
        label, form = forms[name]
        if values.get(name) is not None:
            tell(f"  {label}{form.format(values[name])}")


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one shape as columns, on stdout."""
    names = list(rows[0]) if rows else []
    cells = [[shown(str("" if row[name] is None else row[name])) for name in names] for row in rows]
    cells.insert(0, [name.replace("_", " ") for name in names])
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        tell("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def trace(error: BaseException | None = None) -> None:
    """Where an error came from, or the one that is being handled, on stderr."""
    if error is None:
        traceback.print_exc()
    else:
        traceback.print_exception(error)


def _limit(sign: str, value: float | None, form: str) -> str:
    return "" if value is None else f"   {sign}{value:{form}}"


def tolerate_narrow_encodings() -> None:
    """A terminal that cannot show a file's name shows it with marks, and nothing fails for it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
