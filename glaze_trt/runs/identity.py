"""What a picture's file is known by, when a run goes on with pictures that an earlier one has seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from glaze_trt.errors import PictureError


@dataclass(frozen=True)
class Identity:
    """What a picture's file is known by: its size, when it was written (ns since 1970), and its contents."""

    bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Identity:
        """Of a file as it is now.

        Raises:
            PictureError: it cannot be read.
        """
        try:
            state = path.stat()
            return cls(state.st_size, state.st_mtime_ns, _sha256(path))
        except OSError as error:
            raise PictureError(f"{path}: cannot be read ({error.strerror or error})") from error

    def fits(self, path: Path) -> bool:
        """Whether a file is still the same: by size and time; by its contents, where only the time differs."""
        try:
            state = path.stat()
            if state.st_size != self.bytes:
                return False
            return state.st_mtime_ns == self.mtime_ns or _sha256(path) == self.sha256
        except OSError:
            return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
