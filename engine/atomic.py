"""Files that appear whole or not at all: written beside the target, flushed to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a full disk, a crash or an interrupt leaves the old one, or none, and nothing else.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """The same piece by piece: what is written to the file appears at `path` when the block ends without an error.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".glaze-", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions(path))
        os.replace(temporary, path)
        temporary = None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _permissions(path: Path) -> int:
    """Those of the file that is replaced, else what the umask allows."""
    with contextlib.suppress(OSError):
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
