"""Where the result of every picture goes; what would collide or be overwritten is found before any work begins.

Named files    `FOLDER/NAME.png`; two that would get one name are an error.
Folders        the tree below the folder is mirrored. Where two pictures would get one name (`a.png` and `a.jpg`, or
               `A.jpg` and `a.jpg`, which some file systems do not tell apart), the one that is a PNG keeps its own, and
               others keep their suffix too: `a.jpg.png`.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from glaze_trt.errors import OutputError, UsageError
from glaze_trt.pictures import picture
from glaze_trt.pictures.picture import Picture
from glaze_trt.runs.folder import OURS, Found, Inputs

SHEET = ".sheet"
"""What stands before the suffix of a contact sheet in a folder of such."""

_PAGES = (".tif", ".tiff")


@dataclass(frozen=True)
class Job:
    """One picture and where its results go.

    Attributes:
        input: its file.
        output: the cloaked picture.
        sheet: the contact sheet, or None.
        name: what a manifest calls it.
        replace: whether what lies at the output is a result of this run's own, which may be replaced.
    """

    input: Path
    output: Path
    sheet: Path | None = None
    name: str = ""
    replace: bool = False


@dataclass(frozen=True)
class Wishes:
    """What was asked for.

    Attributes:
        output: a file for one picture; a folder (made if missing) for one or several; None for `NAME.cloaked.png`
            beside each.
        sheet: a file for one picture's contact sheet, or a folder for several.
        pages: whether TIFFs stay TIFFs, which alone hold several pages.
        reads: files that a run reads beside its pictures (a mask, targets, models), and folders of such.
    """

    output: str | None = None
    sheet: str | None = None
    pages: bool = False
    reads: tuple[Path, ...] = ()


def plan(inputs: Inputs, wishes: Wishes, known: Mapping[str, Path] | None = None) -> list[Job]:
    """Name the output of every input.

    Args:
        inputs: the pictures.
        wishes: where results shall go.
        known: outputs that a run which goes on has given already, below the folder, by the picture's name; kept, also
            those of pictures that are gone.

    Raises:
        UsageError: several pictures for one file, a tree without a folder for it, results that would lie among the
            pictures of a tree, or two named files that would get one name.
    """
    output, sheet, pictures = wishes.output, wishes.sheet, inputs.pictures
    suffixes = [".tif" if wishes.pages and found.path.suffix.lower() in _PAGES else ".png" for found in pictures]
    if inputs.tree:
        if output is None or not is_folder(output):
            raise UsageError("the results of a folder or a pattern need a folder of their own: -o FOLDER/")
        names = _names(pictures, suffixes, known or {})
        outputs = [Path(output) / name for name in names]
        _refuse_among_inputs(pictures, outputs)
    else:
        outputs = list(_outputs(pictures, suffixes, output))
        names = [Path(f"{found.path.stem}.png") for found in pictures]
    sheets: list[Path | None] = [None] * len(pictures)
    if sheet is not None and is_folder(sheet):
        sheets = [Path(sheet) / name.with_name(f"{_bare(name)}{SHEET}.png") for name in names]
    elif sheet is not None and (inputs.tree or len(pictures) > 1):
        raise UsageError(f"{len(pictures)} contact sheets cannot go into one file, {sheet}; give a folder")
    elif sheet is not None:
        sheets = [Path(sheet)]
    jobs = [
        Job(found.path, to, sheet_to, found.name) for found, to, sheet_to in zip(pictures, outputs, sheets, strict=True)
    ]
    _refuse_collisions(jobs)
    _refuse_replacing(jobs, wishes.reads)
    return jobs


def make_folders(jobs: Sequence[Job], inputs: Inputs, wishes: Wishes) -> None:
    """Make the folders for results, and those below them that mirror a tree.

    Raises:
        OutputError: one cannot be made.
    """
    given = (wishes.output, wishes.sheet)
    folders = {Path(folder) for folder in given if folder is not None and is_folder(folder)}
    if inputs.tree:
        folders |= {path.parent for job in jobs for path in (job.output, job.sheet) if path is not None}
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: the folder cannot be made ({error.strerror or error})") from error


def is_folder(path: str) -> bool:
    """Whether a place for results is a folder: one that is there, one with a slash, or a name without a suffix."""
    return path.endswith(("/", os.sep)) or Path(path).is_dir() or not Path(path).suffix


def _bare(name: Path) -> str:
    return name.stem if name.suffix == ".png" else name.name


def _outputs(pictures: Sequence[Found], suffixes: Sequence[str], output: str | None) -> Iterator[Path]:
    """Of files that are named."""
    if output is not None and not is_folder(output):
        if len(pictures) > 1:
            raise UsageError(f"{len(pictures)} pictures cannot go into one file, {output}; give a folder: -o FOLDER/")
        yield Path(output)
        return
    for found, suffix in zip(pictures, suffixes, strict=True):
        if output is None:
            yield found.path.with_name(f"{found.path.stem}{OURS}{suffix}")
        else:
            yield Path(output) / f"{found.path.stem}{suffix}"


def _names(pictures: Sequence[Found], suffixes: Sequence[str], known: Mapping[str, Path]) -> list[Path]:
    """A name below the output folder for every picture of a tree, no two alike on any file system, and no folder's."""
    names = dict(known)
    own = [Path(found.path.name if found.named else found.name) for found in pictures]
    taken = {_folded(path) for path in (*names.values(), *(folder for path in own for folder in path.parents))}
    turns = sorted(range(len(pictures)), key=lambda i: own[i].suffix != suffixes[i])  # those that keep their name first
    for i in turns:
        if pictures[i].name not in names:
            free = next(name for name in _candidates(own[i], suffixes[i]) if _folded(name) not in taken)
            names[pictures[i].name] = free
            taken.add(_folded(free))
    return [names[found.name] for found in pictures]


def _candidates(path: Path, suffix: str) -> Iterator[Path]:
    yield path.with_suffix(suffix)
    yield path.with_name(f"{path.name}{suffix}")
    for number in count(2):
        yield path.with_name(f"{path.name}-{number}{suffix}")


def _folded(path: Path) -> str:
    """A name as the least discerning file system sees it: without cases, and composed."""
    return unicodedata.normalize("NFC", path.as_posix()).casefold()


def _refuse_among_inputs(pictures: Sequence[Found], outputs: Sequence[Path]) -> None:
    """Results beside or over the pictures of a tree, which the next run would cloak again."""
    places = {os.path.realpath(output.parent): output.parent for output in outputs}
    for found in pictures:
        place = places.get(os.path.realpath(found.path.parent))
        if place is not None:
            raise UsageError(
                f"{place}: the pictures lie in this folder themselves ({found.path.name}); give their results another"
            )


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.input): job.input for job in jobs}
    taken: dict[str, Path] = {}
    for job in jobs:
        for result in filter(None, (job.output, job.sheet)):
            real = os.path.realpath(result)
            name = unicodedata.normalize("NFC", real).casefold()  # some file systems do not tell cases apart
            if name in taken:
                raise UsageError(f"{taken[name]} and {job.input} would both be written to {result}; rename one")
            taken[name] = job.input
            other = sources.get(real)
            if other is not None and other != job.input:
                raise UsageError(f"the result of {job.input} would overwrite the input {other}; choose another folder")


def _refuse_replacing(jobs: Sequence[Job], reads: Sequence[Path]) -> None:
    """Results in place of what the run reads; --overwrite is for results."""
    real = {os.path.realpath(path): path for path in reads}
    for job in jobs:
        for result in filter(None, (job.output, job.sheet)):
            place = os.path.realpath(result)
            read = real.get(place)
            if read is None and not result.stem.endswith(OURS) and os.path.exists(place):
                read = real.get(os.path.dirname(place))
            if read is not None:
                raise UsageError(f"{result}: would replace what this run reads ({read}); choose another name")


def refuse_outputs(job: Job, source: Picture, overwrite: bool) -> None:
    """What cannot be written, found before the work.

    Raises:
        OutputError: a result would replace what it must not, or cannot lie where it was asked for.
    """
    if not overwrite and os.path.realpath(job.output) == os.path.realpath(job.input):
        raise OutputError(f"{job.output}: is the input itself; choose another name or add --overwrite")
    picture.check_writable(job.output, source, overwrite=overwrite or job.replace)
    if job.sheet is not None:
        picture.check_writable(job.sheet, overwrite=overwrite or job.replace)
        if os.path.realpath(job.sheet) == os.path.realpath(job.input):
            raise OutputError(f"{job.sheet}: the contact sheet would replace the input; choose another name")
        if job.sheet.suffix.lower() != ".png":
            raise OutputError(f"{job.sheet}: the contact sheet is a PNG; give it a .png name")
