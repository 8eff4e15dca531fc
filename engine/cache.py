"""Compiled engines on disk, found by everything that they depend on.

    DIGEST.engine    one line of JSON (format, key, size, sha256 of the rest), then the engine's bytes
    DIGEST.lock      held while it is built, and gone with the process that held it

An entry is written beside its place and renamed, under its lock; so a killed build leaves a partial file that the next
one removes, and nothing that looks like an engine. What is read is checked; what is damaged is built again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import onnx_ir as ir
import platformdirs

FORMAT = 1
LIMIT = 20 * 2**30
"""Bytes that all entries of a folder take at most."""

_SUFFIX = ".engine"
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


def graph_digest(model: ir.Model) -> str:
    """Sha256 of a graph: nodes, attributes, shapes, and every weight's bytes, wherever they are stored."""
    graph = model.graph
    seen = hashlib.sha256()
    for name, initializer in graph.initializers.items():
        tensor = initializer.const_value
        if tensor is not None:
            seen.update(f"{name} {tensor.dtype} {list(tensor.shape.numpy())} ".encode())
            seen.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    for node in graph:
        ends = [[None if v is None else v.name for v in values] for values in (node.inputs, node.outputs)]
        attributes = sorted((name, _shown(attribute)) for name, attribute in node.attributes.items())
        told = [node.domain, node.op_type, node.name, *ends, attributes, sorted(node.metadata_props.items())]
        seen.update(json.dumps(told, default=str).encode())
    for values in (graph.inputs, graph.outputs):
        seen.update(json.dumps([[v.name, str(v.dtype), str(v.shape)] for v in values]).encode())
    seen.update(json.dumps(sorted(graph.opset_imports.items())).encode())
    return seen.hexdigest()


def _shown(attribute: ir.Attr) -> str:
    value = attribute.value
    if isinstance(value, ir.TensorProtocol):
        return hashlib.sha256(value.numpy().tobytes()).hexdigest()
    return f"{attribute.type} {value}"


@functools.cache
def code_version() -> str:
    """Sha256 of this package's own sources: a graph that is rewritten otherwise is another engine."""
    folder = Path(__file__).parent
    seen = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        seen.update(path.relative_to(folder).as_posix().encode())
        seen.update(path.read_bytes())
    return seen.hexdigest()


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
        path = self.folder / f"{key.digest}{_SUFFIX}"
        found = self._read(path, key, say)
        if found is not None:
            return found
        with self._locked(path, say) as locked:
            if locked:
                found = self._read(path, key, say)  # built while we waited
                if found is not None:
                    return found
            plan = build()
            if locked:
                self._keep(path, key, plan, say)
            return plan

    def entries(self) -> list[Entry]:
        """What is there, the last used first; files of another format are left out."""
        found = []
        for path in self._files():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                state = path.stat()
                with path.open("rb") as file:
                    key = _header(file.readline(_HEADER))["key"]
                found.append(Entry(path, key, state.st_size, state.st_mtime))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Removes every engine that is not in the making; the bytes that this freed."""
        freed = 0
        for path in [*self._files(), *self._files(".partial"), *self._files(".lock"), *self._files(".bin")]:
            with contextlib.suppress(OSError, filelock.Timeout):
                size = path.stat().st_size
                if path.suffix in (_SUFFIX, ".partial"):
                    with filelock.FileLock(_beside(path, ".lock"), timeout=0):
                        path.unlink()
                elif path.suffix == ".lock":
                    with filelock.FileLock(path, timeout=0):
                        pass
                    path.unlink(missing_ok=True)
                else:
                    path.unlink()
                freed += size
        return freed

    @contextlib.contextmanager
    def _locked(self, path: Path, say: Say) -> Iterator[bool]:
        """Holds an entry's lock; False where the folder does not let us."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(_beside(path, ".lock"))
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                say("another process builds this engine; waiting for it")
                lock.acquire()
        except (OSError, NotImplementedError) as error:
            say(f"the engine will not be kept: {self.folder}: {getattr(error, 'strerror', None) or error}")
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _read(self, path: Path, key: Key, say: Say) -> bytes | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            say(f"{path.name}: cannot be read ({error.strerror or error}); built again")
            return None
        line, _, plan = data.partition(b"\n")
        try:
            header = _header(line)
            whole = header["size"] == len(plan) and header["sha256"] == hashlib.sha256(plan).hexdigest()
            ours = header["key"] == json.loads(json.dumps(asdict(key)))
        except (ValueError, KeyError, TypeError):
            whole = ours = False
        if not (whole and ours):
            say(f"{path.name}: {'belongs to another engine' if whole else 'is damaged'}; built again")
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return plan

    def _keep(self, path: Path, key: Key, plan: bytes, say: Say) -> None:
        """Writes an entry; called with its lock held."""
        header = {"format": FORMAT, "key": asdict(key), "size": len(plan), "sha256": hashlib.sha256(plan).hexdigest()}
        partial = _beside(path, ".partial")
        try:
            with partial.open("wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(plan)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            say(f"the engine was not kept: {self.folder}: {error.strerror or error}")
            return
        self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        """Drops what was longest unused; not what was just written, and nothing that is being built."""
        entries = [(entry.file, entry.bytes) for entry in self.entries()]
        total = sum(size for _, size in entries)
        for file, size in reversed(entries):
            if total <= self.limit:
                return
            if file != newest:
                with (
                    contextlib.suppress(OSError, filelock.Timeout),
                    filelock.FileLock(_beside(file, ".lock"), timeout=0),
                ):
                    file.unlink()
                    total -= size

    def _files(self, suffix: str = _SUFFIX) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == suffix)
        except OSError:
            return []


def _beside(path: Path, suffix: str) -> Path:
    return path.with_suffix(suffix)


def _header(line: bytes) -> dict[str, Any]:
    header = json.loads(line)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("another format")
    return header
