"""Where the result of every picture goes; what would collide or be overwritten is found before any work begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glaze_trt import picture
from glaze_trt.errors import OutputError, UsageError
from glaze_trt.picture import Picture


@dataclass(frozen=True)
class Job:
    """One picture and where its results go."""

    input: Path
    output: Path
    sheet: Path | None = None


def plan(inputs: Sequence[Path], output: str | None, sheet: str | None) -> list[Job]:
    """Name the output of every input.

    Args:
        inputs: the pictures.
        output: a file for one picture; a folder (made if missing) for one or several; None for `NAME.cloaked.png`
            beside each.
        sheet: a file for one picture's contact sheet, or a folder for several.

    Raises:
        UsageError: several pictures for one file, or two that would get one name.
        OutputError: the folder cannot be made.
    """
    several = len(inputs) > 1
    if output is None:
        outputs = [path.with_name(f"{path.stem}.cloaked.png") for path in inputs]
    elif _is_folder(output):
        outputs = [Path(output) / f"{path.stem}.png" for path in inputs]
    elif several:
        raise UsageError(f"{len(inputs)} pictures cannot go into one file, {output}; give a folder: -o FOLDER/")
    else:
        outputs = [Path(output)]
    sheets: list[Path | None] = [None] * len(inputs)
    if sheet is not None and _is_folder(sheet):
        sheets = [Path(sheet) / f"{path.stem}.sheet.png" for path in inputs]
    elif sheet is not None and several:
        raise UsageError(f"{len(inputs)} contact sheets cannot go into one file, {sheet}; give a folder")
    elif sheet is not None:
        sheets = [Path(sheet)]
    planned = [Job(*each) for each in zip(inputs, outputs, sheets, strict=True)]
    _refuse_collisions(planned)
    for folder in (output, sheet):
        if folder is not None and _is_folder(folder):
            _make(Path(folder))
    return planned


def _is_folder(path: str) -> bool:
    return path.endswith(("/", os.sep)) or Path(path).is_dir() or not Path(path).suffix


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the folder cannot be made ({error.strerror or error})") from error


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.input): job.input for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        for result in filter(None, (job.output, job.sheet)):
            name = os.path.realpath(result).casefold()  # some file systems do not tell cases apart
            if name in taken:
                raise UsageError(f"{taken[name]} and {job.input} would both be written to {result}; rename one")
            taken[name] = job.input
            other = sources.get(os.path.realpath(result))
            if other is not None and other != job.input:
                raise UsageError(f"the result of {job.input} would overwrite the input {other}; choose another folder")


def refuse_outputs(job: Job, source: Picture, overwrite: bool) -> None:
    """What cannot be written, found before the work.

    Raises:
        OutputError: a result would replace what it must not, or cannot lie where it was asked for.
    """
    if not overwrite and os.path.realpath(job.output) == os.path.realpath(job.input):
        raise OutputError(f"{job.output}: is the input itself; choose another name or add --overwrite")
    picture.check_writable(job.output, source, overwrite=overwrite)
    if job.sheet is not None:
        picture.check_writable(job.sheet, overwrite=overwrite)
        if os.path.realpath(job.sheet) == os.path.realpath(job.input):
            raise OutputError(f"{job.sheet}: the contact sheet would replace the input; choose another name")
        if job.sheet.suffix.lower() != ".png":
            raise OutputError(f"{job.sheet}: the contact sheet is a PNG; give it a .png name")
