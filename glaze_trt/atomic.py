"""`engine.atomic` for a user's own files: what cannot be written is an `OutputError` that says so."""

from __future__ import annotations

from pathlib import Path

from engine import atomic
from glaze_trt.errors import OutputError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a full disk, a crash or an interrupt leaves the old one, or none, and nothing else.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    try:
        atomic.write_bytes(path, data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); nothing was left behind") from error
