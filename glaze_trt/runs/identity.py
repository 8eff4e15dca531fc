"""What a picture's file is known by, when a run goes on with pictures that an earlier one has seen."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from glaze_trt.errors import PictureError
from glaze_trt.models import sha256_of


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
            PictureError: it cannot be read, or is a pipe or the like.
        """
        try:
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):  # of a pipe there is no end
                raise PictureError(f"{path}: is not an ordinary file")
            return cls(state.st_size, state.st_mtime_ns, sha256_of(path))
        except OSError as error:
            raise PictureError(f"{path}: cannot be read ({error.strerror or error})") from error

    def fits(self, path: Path) -> bool:
        """Whether a file is still the same: by size and time; by its contents, where only the time differs."""
        try:
            state = path.stat()
            if state.st_size != self.bytes:
                return False
            return state.st_mtime_ns == self.mtime_ns or sha256_of(path) == self.sha256
        except OSError:
            return False
