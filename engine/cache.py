"""Compiled engines on disk, found by everything that they depend on.

    DIGEST.engine            one line of JSON (format, key, size, sha256 of the rest), then the engine's bytes
    DIGEST.TOKEN.partial     an engine that is being written; renamed when it is whole
    DIGEST.lock              held while an engine is built, and let go by the system when its process dies

Only the holder of an entry's lock writes or removes its files, so a partial file whose lock is free was left by a
process that died: the next one to keep an engine removes it. Reading takes no lock; what is read is checked, and what
is damaged is built again. Files with other names are never touched, whatever folder this is. Nothing is asked of a
network disk but that renaming is atomic and `filelock` works. How an engine is built is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from engine.digest import code_version as code_version
from engine.digest import graph_digest as graph_digest

FORMAT = 1
LIMIT = 20 * 2**30
"""Bytes that all engines of a folder take at most."""

_OURS = re.compile(r"([0-9a-f]{64}(\.[0-9a-f]+)?|kernels-\w+)\.(engine|partial|lock|bin|bin\.lock)")
"""File names that may be removed; `kernels-*` are written by TensorRT-RTX's runtime, see `runtime.tensorrt`."""

_HEADER = 1 << 16
"""Bytes that a header takes at most."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Key:
    """Everything that changes what a compiled engine is.

    Attributes:
        graph: of the graph and its weights (`graph_digest`).
        backend: name of the engine's maker, such as "tensorrt-rtx".
        version: of its library.
        device: what it runs on, such as "sm89".
        precision: one of `protocol.PRECISIONS`.
        shapes: of all inputs, by name.
        flags: every option of the build.
        code: of this package (`code_version`), which rewrites graphs before they are built.
    """

    graph: str
    backend: str
    version: str
    device: str
    precision: str
    shapes: str
    flags: tuple[tuple[str, str], ...]
    code: str

    @property
    def digest(self) -> str:
        """The key as a file name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What lies in the cache: the file, its key's fields, its size in bytes, and when it was last used (Unix time)."""

    file: Path
    key: dict[str, Any]
    bytes: int
    used: float


def default_folder() -> Path:
    """$GLAZE_TRT_CACHE, else `engines` in the user's cache folder."""
    named = os.environ.get("GLAZE_TRT_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("glaze-trt")) / "engines"


class Cache:
    """A folder of compiled engines."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """Take a folder, which is made when something is kept; `limit` is in bytes."""
        self.folder = folder
        self.limit = limit

    def fetch(self, key: Key, build: Callable[[], bytes], say: Say = lambda line: None) -> bytes:
        """The engine of a key: read, or built once by whoever comes first while the others wait.

        What cannot be kept is still returned, with a line that says why.

        Args:
            key: what it depends on.
            build: makes it; whatever it raises passes through, and leaves nothing behind.
            say: takes lines for a person.
        """
        path = self.folder / f"{key.digest}.engine"
        found = self._read(path, key, say=lambda line: None)
        if found is not None:
            return found
        lock = self._lock(path, say)
        try:
            found = self._read(path, key, say)  # built while we waited; if not, this says what is wrong with it
            if found is not None:
                return found
            plan = build()
            if lock is not None:
                self._keep(path, key, plan, say)
            return plan
        finally:
            if lock is not None:
                with contextlib.suppress(OSError):  # a network disk that went away must not cost the engine
                    lock.release()

    def discard(self, key: Key) -> None:
        """Removes the engine of a key, unless another process builds it just now."""
        _remove(self.folder / f"{key.digest}.engine")

    def entries(self) -> list[Entry]:
        """What is there, the last used first; what is damaged or of another format is left out."""
        found = []
        for path in self._files(".engine"):
            with contextlib.suppress(OSError, ValueError):
                state = path.stat()
                with path.open("rb") as file:
                    header = _header(file.readline(_HEADER))
                found.append(Entry(path, header["key"], state.st_size, state.st_mtime))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Removes everything that is not in the making; the bytes that this freed."""
        return sum(_remove(path) for path in self._files())

    def _lock(self, path: Path, say: Say) -> filelock.BaseFileLock | None:
        """An entry's lock, held; None where the folder does not let us."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(_lock_of(path))
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                say(f"another process builds this engine; waiting for it ({lock.lock_file})")
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            say(f"the engine will not be kept: {self.folder}: {_reason(error)}")
            return None
        return lock

    def _read(self, path: Path, key: Key, say: Say) -> bytes | None:
        try:
            with path.open("rb") as file:
                line = file.readline(_HEADER)
                plan = file.read()
            header = _header(line)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            say(f"{path.name}: cannot be read ({_reason(error)}); built again")
            return None
        except ValueError as error:
            say(f"{path.name}: {error}; built again")
            return None
        if header.get("size") != len(plan) or header.get("sha256") != hashlib.sha256(plan).hexdigest():
            say(f"{path.name}: is damaged; built again")
            return None
        if header["key"] != json.loads(json.dumps(asdict(key))):
            say(f"{path.name}: belongs to another engine; built again")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # access times are not kept on every disk
        return plan

    def _keep(self, path: Path, key: Key, plan: bytes, say: Say) -> None:
        """Writes an entry; called with its lock held."""
        header = {"format": FORMAT, "key": asdict(key), "size": len(plan), "sha256": hashlib.sha256(plan).hexdigest()}
        partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
        self._sweep(path)
        try:
            try:
                with partial.open("xb") as file:
                    file.write(json.dumps(header).encode() + b"\n")
                    file.write(plan)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
        except OSError as error:
            say(f"the engine was not kept: {self.folder}: {_reason(error)}")
            return
        self._make_room(path)

    def _sweep(self, held: Path) -> None:
        """Removes what killed processes were writing; called with the lock of one entry held."""
        for path in self._files(".partial"):
            if _lock_of(path) == _lock_of(held):
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                _remove(path)

    def _make_room(self, newest: Path) -> None:
        """Drops what was longest unused; not what was just written, and nothing that is being built."""
        found = []
        for path in self._files(".engine"):
            with contextlib.suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for used, _, path in sorted(found):
            if total <= self.limit:
                return
            if path != newest:
                total -= _remove(path, unless_used_since=used)

    def _files(self, suffix: str = "") -> list[Path]:
        try:
            paths = sorted(self.folder.iterdir())
        except OSError:
            return []
        return [path for path in paths if _OURS.fullmatch(path.name) and path.name.endswith(suffix)]


def _lock_of(path: Path) -> Path:
    name = path.name.partition(".")[0]
    return path.with_name(f"{name}.bin.lock" if name.startswith("kernels-") else f"{name}.lock")


def _remove(path: Path, unless_used_since: float | None = None) -> int:
    """Removes a file unless someone holds its lock; the bytes that this freed.

    The lock's file goes too. Who waits for it notices and takes a new one; an old `filelock` does not, and then two
    may build the same engine, each into a partial file of its own.
    """
    with contextlib.suppress(OSError, filelock.Timeout, NotImplementedError):
        lock = _lock_of(path)
        with filelock.FileLock(lock, timeout=0):
            try:
                state = path.stat()
                if unless_used_since in (None, state.st_mtime):
                    path.unlink()
                    return state.st_size
            finally:
                lock.unlink(missing_ok=True)
    return 0


def _header(line: bytes) -> dict[str, Any]:
    """What the first line of an entry says.

    Raises:
        ValueError: it is none of ours; the message goes after the file's name.
    """
    try:
        header = json.loads(line)
    except ValueError as error:
        raise ValueError("is damaged") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("key"), dict):
        raise ValueError("is of another format")
    return header


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
