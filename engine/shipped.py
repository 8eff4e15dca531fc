"""A folder of engines built on one machine for others: plain plan files, and `engines.json`, which says what each is.

    taesd-512x512-bf16-sm89.step.plan       any TensorRT program can load it
    engines.json                            file, sha256 and the whole cache key of every plan, its inputs and outputs

A plan is found by the digest of its key without the builder's flags, which do not change what it computes; so an engine
of another graph, version or GPU is never taken for the right one. Engines built on demand are in `cache`.
"""

from __future__ import annotations

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
        entries = {**_index(folder), file: entry}
        atomic.write_bytes(folder / file, plan)
        atomic.write_bytes(folder / INDEX, json.dumps(entries, indent=1).encode())
    except OSError as error:
        raise BackendError(f"{folder}: cannot be written ({error.strerror or error})") from error


def find(folder: Path, key: Key) -> Shipped | None:
    """The plan of a key, or None.

    Raises:
        BackendError: there is no such folder, or the plan in it is damaged.
    """
    if not (folder / INDEX).is_file():
        raise BackendError(f"{folder}: has no {INDEX}; make it with `glaze-trt build -o {folder}`")
    for file, entry in _index(folder).items():
        if entry.get("digest") == _digest(key):
            try:
                plan = (folder / file).read_bytes()
            except OSError as error:
                raise BackendError(f"{folder / file}: cannot be read ({error.strerror or error})") from error
            if hashlib.sha256(plan).hexdigest() != entry.get("sha256"):
                raise BackendError(f"{folder / file}: is damaged; copy it again, or build it again")
            return Shipped(plan, bool(entry.get("stripped")))
    return None


def _digest(key: Key) -> str:
    return replace(key, flags=()).digest


def _index(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads((folder / INDEX).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BackendError(f"{folder / INDEX}: cannot be read ({error}); remove it and build again") from error
    return found if isinstance(found, dict) else {}
