"""`engine.atomic` for a user's own files: what cannot be written is an `OutputError` that says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from engine import atomic
from glaze_trt.errors import OutputError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a full disk, a crash or an interrupt leaves the old one, or none, and nothing else.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """The same piece by piece: what is written to the file appears at `path` when the block ends without an error.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    try:
        with atomic.writing(path) as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); nothing was left behind") from error
