"""What a run shall cloak: files, folders and patterns become a list of pictures with names of their own.

In a folder, and behind a pattern, what is no picture by its suffix is passed over and counted; a file that is named is
taken as it is, and is an error where it is no picture. Results of earlier runs are not taken for pictures:
folders that hold a manifest, folders that this run writes to, and `NAME.cloaked.png`. Hidden files are left alone. No
file comes twice, however often it is named or linked to.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
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
        passed_over: how many files were not taken, by suffix; `results` are of earlier runs, `links` lead to folders or
            to pictures that were taken.
        unread: folders below a given one that cannot be read, and why, a line each.
        tree: whether a folder or a pattern was given.
    """

    pictures: list[Found]
    passed_over: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    tree: bool = False


def find(given: Sequence[Path], *, recursive: bool = False, apart: Sequence[Path] = ()) -> Inputs:
    """Look for pictures.

    Args:
        given: files, folders and patterns (`*`, `?`, `[...]`, and `**` for any depth).
        recursive: whether to look into folders below a folder.
        apart: folders that results go to.

    Raises:
        UsageError: two folders of one name.
        PictureError: a folder that cannot be read or has no picture, or a pattern that fits none.
    """
    roots = [_root(path) for path in given]
    folders = [root.name for root in roots if root is not None]
    several = len(folders) > 1
    if len(set(folders)) < len(folders):
        raise UsageError(
            "two of the folders have one name, which their results would share; give each a run of its own"
        )
    search = _Search(recursive, frozenset(os.path.realpath(path) for path in apart))
    pictures: list[Found] = []
    places: set[str] = set()
    contents: set[str] = set()
    for path, root in zip(given, roots, strict=True):
        files = [path] if root is None else list(search.below(path) if os.path.isdir(path) else search.matching(path))
        if not files:
            raise PictureError(_empty(path, recursive, search.passed))
        for file in files:
            place, real = os.path.abspath(file), os.path.realpath(file)
            if place in places:
                continue
            places.add(place)
            if root is not None and real in contents:
                search.passed["links"] += 1
                continue
            contents.add(real)
            pictures.append(Found(file, _name(file, root, several), named=root is None))
    return Inputs(pictures, search.passed, search.unread, bool(folders))


def _root(path: Path) -> Path | None:
    """The folder that names of results are taken from; None for a file that is named."""
    if os.path.isdir(path):
        return path.absolute()
    if os.path.exists(path) or not glob.has_magic(str(path)):
        return None
    return Path(*_plain(path)).absolute()


def _plain(pattern: Path) -> Sequence[str]:
    """The first parts of a pattern, which stand for themselves."""
    return list(takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1]))


class _Search:
    """What is looked for in folders and behind patterns, and what was met on the way."""

    def __init__(self, recursive: bool, own: frozenset[str]) -> None:
        self._recursive, self._own = recursive, own
        self.passed: Counter[str] = Counter()
        self.unread: list[str] = []

    def below(self, folder: Path) -> Iterator[Path]:
        """Pictures of a folder that was given.

        Raises:
            PictureError: it cannot be read.
        """

        def refused(error: OSError) -> None:
            if error.filename == str(folder):
                raise PictureError(_unread(error)) from error
            self.unread.append(_unread(error))

        for place, folders, files in os.walk(folder, onerror=refused):
            at = Path(place)
            folders[:] = sorted(name for name in folders if self._recursive and self._enter(at / name))
            yield from self._pictures([at / name for name in sorted(files)])

    def matching(self, pattern: Path) -> Iterator[Path]:
        """Pictures that fit a pattern."""
        plain = _plain(pattern)
        for path in sorted(set(self._fitting(Path(*plain), pattern.parts[len(plain) :]))):
            if not os.path.isdir(path):
                if not any(map(self._is_apart, path.parents)):
                    yield from self._pictures([path])
            elif self._recursive and self._enter(path):
                yield from self.below(path)

    def _fitting(self, folder: Path, parts: Sequence[str]) -> Iterator[Path]:
        """What fits the parts of a pattern below a folder.

        As in `glob`, but that `**` follows no links: two that lead in a circle would never come to an end there.
        """
        first, *rest = parts
        deep = first == "**"
        further = parts if deep else rest
        if deep and rest:
            yield from self._fitting(folder, rest)
        for path in self._called(first, folder):
            if not rest:
                yield path
            if further and os.path.isdir(path) and not (deep and os.path.islink(path)):
                yield from self._fitting(path, further)

    def _called(self, part: str, folder: Path) -> Sequence[Path]:
        """What fits one part of a pattern in a folder; hidden files only where the part begins with a dot."""
        if not glob.has_magic(part):
            return [folder / part] if os.path.lexists(folder / part) else []
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            self.unread.append(_unread(error))
            return []
        return [folder / name for name in names if fnmatch(name, part) and (part[0] == "." or name[0] != ".")]

    def _enter(self, folder: Path) -> bool:
        """Whether to look into a folder below the one that was given."""
        if folder.name.startswith("."):
            return False
        if os.path.islink(folder):  # it may lead in a circle
            self.passed["links"] += 1
            return False
        if self._is_apart(folder):
            self.passed["results"] += 1
            return False
        return True

    def _is_apart(self, folder: Path) -> bool:
        return os.path.realpath(folder) in self._own or manifest.is_output(folder)

    def _pictures(self, files: Sequence[Path]) -> Iterator[Path]:
        for file in files:
            suffix = file.suffix.lower()
            if file.name.startswith("."):
                continue
            if Path(file.stem).suffix.lower() == OURS:
                self.passed["results"] += 1
            elif suffix not in READABLE:
                self.passed[suffix or "no suffix"] += 1
            else:
                yield file


def _unread(error: OSError) -> str:
    return f"{error.filename}: the folder cannot be read ({error.strerror or error})"


def _name(file: Path, root: Path | None, several: bool) -> str:
    if root is None:
        return str(file.absolute())
    below = PurePosixPath(*file.absolute().relative_to(root).parts)
    return str(PurePosixPath(root.name) / below) if several else str(below)


def _empty(folder: Path, recursive: bool, passed: Counter[str]) -> str:
    others = f" ({passed.total()} passed over)" if passed else ""
    if not os.path.isdir(folder):
        return f"{folder}: fits no picture{others}"
    return f"{folder}: no picture lies there{others}" + ("" if recursive else "; --recursive looks further down")
