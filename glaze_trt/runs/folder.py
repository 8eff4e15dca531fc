"""What a run shall cloak: files, folders and patterns become a list of pictures with names of their own.

In a folder, and behind a pattern, what is no picture by its suffix is passed over and counted; a file that is named is
taken as it is, and is an error where it is no picture. Results of earlier runs are not taken for pictures:
folders that hold a manifest, folders that this run writes to, and `NAME.cloaked.png`. Hidden files are left alone.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

from glaze_trt.errors import PictureError, UsageError
from glaze_trt.pictures.picture import READABLE
from glaze_trt.runs import manifest

OURS = ".cloaked"
"""What stands before the suffix of a result that lies beside its picture."""


@dataclass(frozen=True)
class Found:
    """A picture's file, and its name below the folder that was given: `sea/a.jpg`; the whole path of a named file."""

    path: Path
    name: str
    named: bool


@dataclass(frozen=True)
class Inputs:
    """What was found.

    Attributes:
        pictures: in the order given, those of a folder by name.
        passed_over: how many files were not taken, by suffix; `results` are of earlier runs.
        tree: whether a folder or a pattern was given.
    """

    pictures: list[Found]
    passed_over: Counter[str] = field(default_factory=Counter)
    tree: bool = False


def find(given: Sequence[Path], *, recursive: bool = False, apart: Sequence[Path] = ()) -> Inputs:
    """Look for pictures.

    Args:
        given: files, folders and patterns (`*`, `?`, `[...]`, and `**` for any depth).
        recursive: whether to look into folders below a folder.
        apart: folders that results go to.

    Raises:
        UsageError: two folders of one name.
        PictureError: a folder without a picture, or a pattern that fits none.
    """
    passed: Counter[str] = Counter()
    own = {os.path.realpath(path) for path in apart}
    roots = [_root(path) for path in given]
    folders = [root.name for root in roots if root is not None]
    several = len(folders) > 1
    if len(set(folders)) < len(folders):
        raise UsageError(
            "two of the folders have one name, which their results would share; give each a run of its own"
        )
    pictures: list[Found] = []
    taken: set[str] = set()
    for path, root in zip(given, roots, strict=True):
        if root is None:
            files: Iterator[Path] = iter([path])
        elif path.is_dir():
            files = _below(path, recursive, own, passed)
        else:
            files = _matching(path, recursive, own, passed)
        count = len(pictures)
        for file in files:
            if root is not None:
                real = os.path.realpath(file)
                if real in taken:
                    continue
                taken.add(real)
            pictures.append(Found(file, _name(file, root, several), named=root is None))
        if root is not None and len(pictures) == count:
            raise PictureError(_empty(path, recursive, passed))
    return Inputs(pictures, passed, bool(folders))


def _root(path: Path) -> Path | None:
    """The folder that names of results are taken from; None for a file that is named."""
    if path.is_dir():
        return path.absolute()
    if path.exists() or not glob.has_magic(str(path)):
        return None
    return Path(*takewhile(lambda part: not glob.has_magic(part), path.parts[:-1])).absolute()


def _below(folder: Path, recursive: bool, own: Collection[str], passed: Counter[str]) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        at = Path(place)
        folders[:] = sorted(name for name in folders if recursive and _enter(at / name, own, passed))
        yield from _pictures([at / name for name in sorted(files)], passed)


def _matching(pattern: Path, recursive: bool, own: Collection[str], passed: Counter[str]) -> Iterator[Path]:
    for text in sorted(glob.iglob(str(pattern), recursive=True)):
        path = Path(text)
        if not path.is_dir():
            if not any(_is_apart(parent, own) for parent in path.parents):
                yield from _pictures([path], passed)
        elif recursive and _enter(path, own, passed):
            yield from _below(path, recursive, own, passed)


def _enter(folder: Path, own: Collection[str], passed: Counter[str]) -> bool:
    """Whether to look into a folder below the one that was given."""
    if folder.name.startswith("."):
        return False
    if folder.is_symlink():  # it may lead in a circle
        passed["links"] += 1
        return False
    if _is_apart(folder, own):
        passed["results"] += 1
        return False
    return True


def _is_apart(folder: Path, own: Collection[str]) -> bool:
    return os.path.realpath(folder) in own or manifest.is_output(folder)


def _pictures(files: Sequence[Path], passed: Counter[str]) -> Iterator[Path]:
    for file in files:
        suffix = file.suffix.lower()
        if file.name.startswith("."):
            continue
        if Path(file.stem).suffix.lower() == OURS:
            passed["results"] += 1
        elif suffix not in READABLE:
            passed[suffix or "no suffix"] += 1
        else:
            yield file


def _name(file: Path, root: Path | None, several: bool) -> str:
    if root is None:
        return str(file.absolute())
    below = PurePosixPath(*file.absolute().relative_to(root).parts)
    return str(PurePosixPath(root.name) / below) if several else str(below)


def _empty(folder: Path, recursive: bool, passed: Counter[str]) -> str:
    others = f" ({passed.total()} passed over)" if passed else ""
    if not folder.is_dir():
        return f"{folder}: fits no picture{others}"
    return f"{folder}: no picture lies there{others}" + ("" if recursive else "; --recursive looks further down")
