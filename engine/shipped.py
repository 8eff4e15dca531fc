"""A folder of engines built on one machine for others: plain plan files, and `engines.json`, which says what each is.

    taesd-512x512.encoder-fp32.tensorrt-rtx-sm89-0f3c9a1b.plan      any TensorRT program can load it
    engines.json      file, sha256 and the whole cache key of every plan, its inputs and outputs

To be run, a plan is found by the digest of its key without the builder's flags, which do not change what it computes;
so an engine of another graph, version or GPU is never taken for the right one. To be kept instead of built anew, it
must have been built with the same flags too. Engines built on demand are in `cache`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine import atomic
from engine.cache import Key
from engine.errors import BackendError

INDEX = "engines.json"


@dataclass(frozen=True)
class Shipped:
    """A plan, and whether its weights were left out."""

    plan: bytes
    stripped: bool


def write(folder: Path, file: str, plan: bytes, key: Key, facts: dict[str, Any]) -> None:
    """Put a plan into a folder, replacing one of the same name.

    Args:
        folder: made if missing.
        file: the plan's name in it.
        plan: its bytes.
        key: what it was built from.
        facts: whatever else a reader of the index should know, ready for JSON; `stripped` if the weights are not in it.

    Raises:
        BackendError: the folder cannot be written.
    """
    entry = {"digest": _digest(key), "sha256": hashlib.sha256(plan).hexdigest(), "key": asdict(key), **facts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = {name: other for name, other in _index(folder).items() if name != file}
        atomic.write_bytes(folder / file, plan)
        atomic.write_bytes(folder / INDEX, json.dumps({**others, file: entry}, indent=1).encode())
    except OSError as error:
        raise BackendError(f"{folder}: cannot be written ({error.strerror or error})") from error


def check(folder: Path) -> None:
    """See that a folder is one of engines.

    Raises:
        BackendError: there is no such folder, no index in it, or an index that cannot be read.
    """
    if not folder.is_dir():
        raise BackendError(f"{folder}: there is no such folder; make it with `glaze-trt build -o {folder}`")
    if not (folder / INDEX).is_file():
        raise BackendError(f"{folder}: has no {INDEX}; make it with `glaze-trt build -o {folder}`")
    _index(folder)


def find(folder: Path, key: Key) -> Shipped | None:
    """The plan that was built last of those that compute what a key says, whatever the builder's flags; or None.

    Raises:
        BackendError: there is no such folder, or the plan in it is damaged.
    """
    check(folder)
    for file, entry in reversed(_index(folder).items()):
        if entry.get("digest") == _digest(key):
            return _read(folder / file, entry)
    return None


def kept(folder: Path, key: Key) -> Shipped | None:
    """The plan of exactly this key, or None: then it is to be built, as it is where the file is missing or damaged.

    Raises:
        BackendError: the index cannot be read.
    """
    wanted = json.loads(json.dumps(asdict(key)))
    for file, entry in _index(folder).items():
        if entry.get("key") == wanted:
            with contextlib.suppress(BackendError):
                return _read(folder / file, entry)
    return None


def _read(file: Path, entry: dict[str, Any]) -> Shipped:
    try:
        plan = file.read_bytes()
    except OSError as error:
        raise BackendError(f"{file}: cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(plan).hexdigest() != entry.get("sha256"):
        raise BackendError(f"{file}: is damaged; copy it again, or build it again")
    return Shipped(plan, bool(entry.get("stripped")))


def _digest(key: Key) -> str:
    return replace(key, flags=()).digest


def _index(folder: Path) -> dict[str, dict[str, Any]]:
    """Entries by file name, those written last at the end."""
    file = folder / INDEX
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BackendError(f"{file}: cannot be read ({error}); remove it and build again") from error
    if not (isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values())):
        raise BackendError(f"{file}: is no index of engines; remove it and build again")
    return found
