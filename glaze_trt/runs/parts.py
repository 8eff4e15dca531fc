"""Result files in two moves: written whole beside their place, then put there once it is noted that they are whole.

A file in the making is `.glaze-RUN-DIGEST.part`; the digest is of the file's name and contents, so a run that goes on
after a kill finds what was whole already (`claim`) and sweeps away the rest. Files of other runs are never touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from glaze_trt.errors import OutputError


@dataclass(frozen=True)
class Part:
    """A file that is whole and not yet in its place.

    Attributes:
        path: where it belongs.
        sha256: of its contents.
        bytes: its size.
        run: the run that made it.
    """

    path: Path
    sha256: str
    bytes: int
    run: str

    @property
    def temporary(self) -> Path:
        """Where it is now."""
        return _temporary(self.path, self.sha256, self.run)

    def place(self) -> None:
        """Put it in its place, over what is there.

        Raises:
            OutputError: the folder went away, or cannot be written any more.
        """
        try:
            os.replace(self.temporary, self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be put in place ({error.strerror or error})") from error

    def discard(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self.temporary.unlink()


def write(path: Path, data: bytes, run: str) -> Part:
    """Write what will lie at `path`, flushed to disk.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    part = Part(path, hashlib.sha256(data).hexdigest(), len(data), run)
    try:
        with part.temporary.open("wb") as file:  # its own name: two that write it write the same
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(part.temporary, path.stat().st_mode & 0o777)
    except OSError as error:
        part.discard()
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); nothing was left behind") from error
    except BaseException:
        part.discard()
        raise
    return part


def claim(part: Part) -> bool:
    """Put in place what a run that was killed had noted as whole; False where it is not there.

    Raises:
        OutputError: as `Part.place`.
    """
    if not part.temporary.exists():
        return False
    part.place()
    return True


def sweep(folders: Iterable[Path], run: str) -> None:
    """Remove every file in the making that a run left in these folders."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in folder.glob(f".glaze-{run}-*.part"):
                path.unlink(missing_ok=True)


def _temporary(path: Path, sha256: str, run: str) -> Path:
    digest = hashlib.sha256(f"{path.name}\n{sha256}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return path.with_name(f".glaze-{run}-{digest}.part")
