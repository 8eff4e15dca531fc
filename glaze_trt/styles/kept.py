"""Targets that took long to make, kept on disk and found by everything that they depend on.

    KEY.png     the target; its `glaze-trt` text is the SHA-256 of the key, the shape and the pixels

Whole files appear by renaming, so no lock is needed: two processes that make one target write the same file. What is
damaged, or lies under another's name, is not found and is made again. Files with other names are never touched. How
targets are made is not known here; the built-in styles are quicker than this is worth.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine import atomic

Levels = NDArray[np.uint8]
Say = Callable[[str], None]

LIMIT = 2**30
"""Bytes that all targets of a folder take at most."""

_FORMAT = 1
_TEXT = "glaze-trt"
_OURS = re.compile(r"[0-9a-f]{64}\.png")
_ABANDONED = 3600.0
"""Seconds after which a file in the making was left by a process that died."""


def default_folder() -> Path:
    """`targets` in $GLAZE_TRT_CACHE, else in the user's cache folder."""
    named = os.environ.get("GLAZE_TRT_CACHE")
    return (Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("glaze-trt"))) / "targets"


def key(levels: Levels, style: str, settings: Mapping[str, object], versions: Mapping[str, str]) -> str:
    """What a target is found by: a SHA-256, in hexadecimal.

    Args:
        levels: the picture, (H, W, 3) uint8.
        style: the style's name, or the words that describe it.
        settings: all else that was asked for, as JSON can say it.
        versions: of what made it: packages, code and weights.
    """
    told = [_FORMAT, levels.shape, style, settings, versions]
    seen = hashlib.sha256(json.dumps(told, sort_keys=True).encode() + b"\n")
    seen.update(np.ascontiguousarray(levels).data)
    return seen.hexdigest()


class Targets:
    """A folder of targets."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT, say: Say = lambda line: None) -> None:
        """Take a folder, which is made when something is kept.

        Args:
            folder: None for `default_folder()`.
            limit: in bytes; the targets longest unused go first.
            say: takes a line for a person where something is damaged or cannot be kept.
        """
        self.folder = default_folder() if folder is None else folder
        self.limit = limit
        self._say = say

    def read(self, name: str) -> Levels | None:
        """The target of a key, (H, W, 3) uint8; None where there is none, or where it is damaged."""
        path = self._path(name)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._say(f"{path}: cannot be read ({error.strerror or error}); made again")
            return None
        levels = _decoded(data, name)
        if levels is None:
            self._say(f"{path}: is damaged; made again")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # access times are not kept on every disk
        return levels

    def keep(self, name: str, levels: Levels) -> None:
        """Keep (H, W, 3) uint8 under a key. That it cannot be kept is said, and is no error."""
        path = self._path(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, _encoded(levels, name))
        except OSError as error:
            self._say(f"the target was not kept: {self.folder}: {error.strerror or error}")
            return
        self._make_room(path)

    def clear(self) -> int:
        """Remove every target; the bytes that this freed."""
        return sum(_remove(path, size) for _, size, path in self._files())

    def total(self) -> int:
        """Bytes that the targets take."""
        return sum(size for _, size, _ in self._files())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.png"

    def _make_room(self, newest: Path) -> None:
        for path in self.folder.glob(".glaze-*.part"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()
        found = sorted(self._files())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= self.limit:
                return
            if path != newest:
                total -= _remove(path, size)

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was last used (Unix time), its bytes, and where it is."""
        found = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if _OURS.fullmatch(path.name):
                    with contextlib.suppress(OSError):
                        state = path.stat()
                        found.append((state.st_mtime, state.st_size, path))
        return found


def _encoded(levels: Levels, name: str) -> bytes:
    buffer = io.BytesIO()
    text = PngInfo()
    text.add_text(_TEXT, _checksum(levels, name))
    Image.fromarray(levels).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _decoded(data: bytes, name: str) -> Levels | None:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            levels = np.asarray(image, dtype=np.uint8)
            told = image.info.get(_TEXT)
    except Exception:  # Pillow lets through whatever a damage leads to: OSError, SyntaxError, ValueError, zlib's own
        return None
    return levels if told == _checksum(levels, name) else None


def _checksum(levels: Levels, name: str) -> str:
    seen = hashlib.sha256(f"{name} {levels.shape}\n".encode())
    seen.update(np.ascontiguousarray(levels).data)
    return seen.hexdigest()


def _remove(path: Path, size: int) -> int:
    try:
        path.unlink()
    except OSError:
        return 0
    return size
