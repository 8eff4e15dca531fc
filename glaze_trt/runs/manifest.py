"""A run's manifest: what it was asked for, then one line a picture as each is done, in JSON lines.

    {"manifest": "glaze-trt", "format": 1, "run": ..., "version": ..., "begun": ..., "settings": {...}}
    {"name": "sea/a.jpg", "status": "done", "input": {...}, "files": [...], "finished": ..., "report": {...}}
    {"name": "b.png", "status": "failed", "kind": "PictureError", "error": ..., "finished": ...}

Every line is on disk before what it tells of is put in place (see `parts`), so a run that was killed can go on and
loses nothing that a line tells of. The last line of a name counts; where that is a failure, the results that an
earlier one tells of are still the run's own. Which pictures there are is not known here.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import filelock

from glaze_trt.errors import OutputError, UsageError
from glaze_trt.models import sha256_of
from glaze_trt.runs.identity import Identity
from glaze_trt.runs.parts import Part, claim

NAME = "manifest.jsonl"
"""What it is called in an output folder."""

FORMAT = 1

_BEGINNING = b'{"manifest": "glaze-trt"'

_SHOWN = 60
"""Characters of a setting that a message shows."""


@dataclass(frozen=True)
class Done:
    """A picture that a line says is done.

    Attributes:
        identity: the file it was made from.
        files: its results.
        offset: where its line begins.
        stale: whether a later line tells of a failure.
    """

    identity: Identity
    files: tuple[Part, ...]
    offset: int
    stale: bool = False

    def restore(self) -> bool:
        """Whether every file is in its place, after what was whole but not yet there has been put there."""
        return all([claim(file) or _is_there(file) for file in self.files])

    @property
    def ours(self) -> bool:
        """Whether what lies at the results' places is still what was made, to the byte."""
        return all(_is_whole(file) for file in self.files if file.path.exists())


class RunManifest:
    """An open manifest. One run at a time writes it, from one thread at a time.

    Attributes:
        path: the file.
        run: what files in the making are called after.
        done: by name, pictures of which the run that is gone on with says that they are done.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Begin a manifest, or go on with one.

        Args:
            path: the file; its folder is made if missing.
            settings: what changes a picture, ready for JSON.
            resume: go on where the file ends, if there is one.
            overwrite: begin anew where there is one.
            say: told lines for a person.

        Raises:
            UsageError: it was begun with other settings, or is there and neither `resume` nor `overwrite` is given.
            OutputError: it cannot be written, is another file, or another run is writing it.
        """
        self.path = path
        self.done: dict[str, Done] = {}
        self._empty = False
        self._settings = json.loads(json.dumps(settings, default=str))
        if path.is_file() and not _may_be_ours(path):
            raise _foreign(path)
        if path.is_file() and not (resume or overwrite):
            raise UsageError(
                f"{path}: an earlier run was begun here; add --resume to go on with it, --overwrite to begin anew, "
                "or choose another folder"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path, say)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
        try:
            header = self._read(say) if resume and path.is_file() else None
            self.run = str(header["run"]) if header else secrets.token_hex(4)
            self._empty = header is None
            self._file = self._open(fresh=self._empty)
        except BaseException as error:
            if self._empty and isinstance(error, KeyboardInterrupt):
                path.unlink(missing_ok=True)
            self._unlock()
            if isinstance(error, OSError):
                raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
            raise

    def report(self, done: Done) -> dict[str, Any]:
        """The report in a line; read again, as thousands of them would fill the memory."""
        with self.path.open("rb") as file:
            file.seek(done.offset)
            return dict(json.loads(file.readline())["report"])

    def finished(self, name: str, identity: Identity, files: Sequence[Part], report: Mapping[str, Any]) -> None:
        """Tell of a picture whose files are whole.

        Raises:
            OutputError: the disk is full, or went away.
        """
        told = [{"path": self._relative(file.path), "bytes": file.bytes, "sha256": file.sha256} for file in files]
        self._write(
            {"name": name, "status": "done", "input": asdict(identity), "files": told}
            | {"finished": _now(), "report": dict(report)}
        )

    def failed(self, name: str, kind: str, error: str) -> None:
        """Tell of a picture that was not done.

        Raises:
            OutputError: the disk is full, or went away.
        """
        self._write({"name": name, "status": "failed", "kind": kind, "error": error, "finished": _now()})

    def close(self) -> None:
        """Let another run have it; nothing is left of a run that ended before it told of anything."""
        with contextlib.suppress(OSError):  # of a full disk, which was told of already
            self._file.close()
        if self._empty:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._unlock()

    def __enter__(self) -> RunManifest:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _read(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The first line, after all others have been taken in; None where nothing was written."""
        header: dict[str, Any] | None = None
        for number, offset, line in _lines(self.path):
            try:
                told = json.loads(line)
                if header is None:
                    header = self._checked(told, say)
                elif told["status"] == "done":
                    self.done[told["name"]] = self._taken(told, header["run"], offset)
                elif told["name"] in self.done:
                    self.done[told["name"]] = replace(self.done[told["name"]], stale=True)
            except (ValueError, KeyError, TypeError) as error:
                raise OutputError(
                    f"{self.path}: line {number} is damaged, so the run cannot go on; remove that line, or add "
                    "--overwrite to begin anew"
                ) from error
        return header

    def _checked(self, header: Any, say: Callable[[str], None]) -> dict[str, Any]:
        if not isinstance(header, dict) or (header.get("manifest"), header.get("format")) != ("glaze-trt", FORMAT):
            raise _foreign(self.path)
        other = dict.fromkeys(_differences(header["settings"], self._settings))
        if other:
            raise UsageError(
                f"{self.path}: the run was begun with other settings ({'; '.join(other)}); give the same, or choose "
                "another output folder"
            )
        if header.get("version") != _version():
            say(f"note: the run was begun with glaze-trt {header.get('version')}; the rest is made by {_version()}")
        return dict(header)

    def _taken(self, told: Mapping[str, Any], run: str, offset: int) -> Done:
        files = tuple(
            Part(self.path.parent / each["path"], each["sha256"], each["bytes"], run) for each in told["files"]
        )
        return Done(Identity(**told["input"]), files, offset)

    def _open(self, *, fresh: bool) -> IO[bytes]:
        file = self.path.open("wb" if fresh else "r+b")
        if fresh:
            header = {"manifest": "glaze-trt", "format": FORMAT, "run": self.run, "version": _version()}
            _append(file, header | {"begun": _now(), "settings": self._settings})
        else:
            file.truncate(_whole(self.path))  # what was cut off in the middle of a line
            file.seek(0, os.SEEK_END)
        return file

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            _append(self._file, line)
            self._empty = False
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def _relative(self, path: Path) -> str:
        try:
            return Path(os.path.relpath(path, self.path.parent)).as_posix()
        except ValueError:  # another drive
            return str(path.absolute())

    def _unlock(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()


def is_output(folder: Path) -> bool:
    """Whether a folder holds the results of a run."""
    try:
        with (folder / NAME).open("rb") as file:
            return file.readline(64).startswith(_BEGINNING)
    except OSError:
        return False


def _may_be_ours(path: Path) -> bool:
    """Whether a file begins as a manifest does; one of which the first line was cut off is ours too."""
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGINNING)) == _BEGINNING[: path.stat().st_size]
    except OSError:
        return True  # what opens it will say why


def _foreign(path: Path) -> OutputError:
    return OutputError(f"{path}: is no manifest of this program, or of another version; choose another file")


def _locked(path: Path, say: Callable[[str], None]) -> filelock.BaseFileLock | None:
    """The lock of a manifest, held; None where the disk has no locks."""
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise OutputError(f"{path}: another run is writing it; wait for its end, or choose another folder") from None
    except NotImplementedError:
        say(f"note: {path.parent} has no locks; let no other run write there")
        return None
    return lock


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of every whole line."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, offset, line
            offset += len(line)


def _whole(path: Path) -> int:
    """Bytes of the lines that are whole."""
    return max((offset + len(line) for _, offset, line in _lines(path)), default=0)


def _append(file: IO[bytes], line: Mapping[str, Any]) -> None:
    file.write(json.dumps(line, allow_nan=False, default=str).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new)
        elif old != new:
            shown = f"{name}: {json.dumps(old)}, now {json.dumps(new)}"
            found.append(shown if len(shown) <= _SHOWN else name)
    return found


def _is_there(file: Part) -> bool:
    try:
        return file.path.stat().st_size == file.bytes
    except OSError:
        return False


def _is_whole(file: Part) -> bool:
    try:
        return _is_there(file) and sha256_of(file.path) == file.sha256
    except OSError:
        return False


def _version() -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version("glaze-trt")
    return None


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
