"""`python -m bench.fuzz --files 20000`: the loader against damaged files of every format.

Real small pictures (`bench.formats_samples`) are damaged by chance, the same for the same seed, and given to a worker
process: it loads them, one picture or all frames, writes what it loaded as PNG, loads that, and writes another format,
which may be refused. Counted are

    loaded    as a picture, whatever it shows
    refused   by one clear line
    crashed   by another exception, or with the process
    hung      longer than `--seconds`
    over      more memory than `--megabytes` for one file

and the exit status is 1 if there is anything but the first two. What failed is kept under `--keep`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.formats_samples import SAMPLES, levels, saved
from bench.formats_samples import heif as heif_is_here

LOADED, REFUSED, CRASHED, HUNG, OVER = "loaded", "refused", "crashed", "hung", "over memory"

_EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
_STATUS = Path("/proc/self/status")
_OTHERS = (".tif", ".tif", ".jpg", ".webp")
"""In which what was loaded is written besides."""


def seeds() -> dict[str, list[bytes]]:
    """Files to begin with, by format."""
    made: dict[str, list[bytes]] = {}
    for name, make in SAMPLES.items():
        made.setdefault("jpeg 2000" if name == "jpeg 2000" else name.split()[0], []).append(make())
    if heif_is_here():
        from PIL import Image

        made["heif"] = [saved(Image.fromarray(levels()), "HEIF")]
    return made


def damaged(rng: np.random.Generator, data: bytes, others: Sequence[bytes]) -> bytes:
    """A file with one to four things wrong with it.

    Args:
        rng: chance.
        data: a sound file.
        others: more of the same format, to graft from.
    """
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if len(made) < 16:
            break
        _WAYS[int(rng.integers(len(_WAYS)))](rng, made, others)
    if made[:4] == b"\x89PNG" and rng.random() < 0.7:
        _sum_up(made)
    return bytes(made)


def _place(rng: np.random.Generator, made: bytearray, size: int = 1) -> int:
    """Somewhere in a file, half the time in its head, where its sizes stand."""
    end = max(1, len(made) - size)
    return int(rng.integers(min(end, 300) if rng.random() < 0.5 else end))


def _flip(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    for _ in range(int(rng.integers(1, 9))):
        made[_place(rng, made)] ^= 1 << int(rng.integers(8))


def _overwrite(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    at, size = _place(rng, made, 32), int(rng.integers(1, 32))
    made[at : at + size] = rng.bytes(size)


def _edge(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    """A number at the edge of its type, in either order of bytes."""
    kind = ("B", "<H", ">H", "<I", ">I")[int(rng.integers(5))]
    size = struct.calcsize(kind)
    value = _EDGES[int(rng.integers(len(_EDGES)))] % 256**size
    at = _place(rng, made, size)
    made[at : at + size] = struct.pack(kind, value)


def _cut(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    at = _place(rng, made)
    del made[at : at + int(rng.integers(1, 200))]


def _end(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    del made[max(1, int(rng.integers(len(made)))) :]


def _repeat(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    at, size = _place(rng, made), int(rng.integers(1, 400))
    made[at:at] = made[at : at + size] * int(rng.integers(1, 4))


def _swap(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    size = int(rng.integers(1, 64))
    first, other = _place(rng, made, size), _place(rng, made, size)
    a, b = bytes(made[first : first + size]), bytes(made[other : other + size])
    made[first : first + len(b)] = b
    made[other : other + len(a)] = a


def _graft(rng: np.random.Generator, made: bytearray, others: Sequence[bytes]) -> None:
    other = others[int(rng.integers(len(others)))]
    made[_place(rng, made) :] = other[int(rng.integers(len(other))) :]


_WAYS: tuple[Callable[[np.random.Generator, bytearray, Sequence[bytes]], None], ...] = (
    _flip, _flip, _overwrite, _edge, _edge, _edge, _cut, _end, _repeat, _swap, _graft,
)  # fmt: skip


def _sum_up(made: bytearray) -> None:
    """Right checksums in a PNG, so that the damage is looked at and not only noticed."""
    at = 8
    while at + 12 <= len(made):
        (length,) = struct.unpack_from(">I", made, at)
        if at + 12 + length > len(made):
            break
        struct.pack_into(">I", made, at + 8 + length, zlib.crc32(made[at + 4 : at + 8 + length]))
        at += 12 + length


def judged(data: bytes) -> tuple[str, str]:
    """What the loader makes of a file: `LOADED`, `REFUSED` or `CRASHED`, and its line."""
    from glaze_trt.errors import GlazeError
    from glaze_trt.pictures import picture

    path = Path("fuzz")
    try:
        try:
            found = [picture.decode(data, path)]
        except GlazeError as error:
            if "--frames all" not in str(error):
                raise
            found = list(picture.decode_frames(data, path))
        other = _OTHERS[zlib.crc32(data) % len(_OTHERS)]
        for one in found[:2]:
            try:
                again = picture.decode(picture.encode(one, ".png"), Path("again"))
            except GlazeError as error:
                return CRASHED, f"loaded, and not written: {error}"
            if not np.array_equal(again.levels, one.levels) and (one.own is None or one.own.values.shape[2] != 4):
                return CRASHED, "loaded, and not written as it was"
            with contextlib.suppress(GlazeError):
                picture.encode(one, other)
        return LOADED, ""
    except GlazeError as error:
        line = str(error)
        return (REFUSED if "\n" not in line and line.startswith("fuzz: ") else CRASHED), line
    except Exception as error:
        return CRASHED, f"{type(error).__name__}: {error}"


def _peak(*, reset: bool = False) -> float:
    """The most memory this process had since the last reset, in megabytes; 0 where that cannot be told."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1000
    except (OSError, StopIteration):
        return 0.0


def work(pipe: Connection, megabytes: int) -> None:
    """A worker: files in, verdicts out, for ever."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # the decoders' own remarks
    judged(b"warm up")
    limit = (megabytes + 6000) * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        data = pipe.recv_bytes()
        before = _peak(reset=True)
        verdict, line = judged(data)
        pipe.send((verdict, line, _peak() - before))


@dataclass
class Worker:
    """A process that loads files one after the other, and another in its place when it dies."""

    megabytes: int
    seconds: float
    _process: Any = None
    _pipe: Any = None

    def __call__(self, data: bytes) -> tuple[str, str, float, float]:
        """Verdict, line, megabytes and seconds for one file."""
        if self._process is None or not self._process.is_alive():
            self._start()
        began = time.perf_counter()  # without the start
        self._pipe.send_bytes(data)
        try:
            if not self._pipe.poll(self.seconds):
                self.close()
                return HUNG, f"over {self.seconds} s", 0.0, time.perf_counter() - began
            verdict, line, used = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(10)
            line = f"the process ended with {self._process.exitcode}"
            self.close()
            return CRASHED, line, 0.0, time.perf_counter() - began
        if used > self.megabytes:
            verdict, line = OVER, f"{used:.0f} MB"
        return verdict, line, used, time.perf_counter() - began

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self.megabytes), daemon=True)
        self._process.start()
        theirs.close()
        for _ in range(2):  # what is made once is no file's
            self._pipe.send_bytes(b"warm up")
            self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
            self._pipe.close()
        self._process = None


@dataclass
class Row:
    """One format's results."""

    counts: Counter[str] = field(default_factory=Counter)
    megabytes: float = 0.0
    seconds: float = 0.0


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", metavar="FORMAT")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    begin = {name: files for name, files in seeds().items() if not options.formats or name in options.formats}
    rows, faults = {name: Row() for name in begin}, []
    worker = Worker(options.megabytes, options.seconds)
    for number in range(options.files):
        name = list(begin)[number % len(begin)]
        rng = np.random.default_rng([options.seed, number])
        data = damaged(rng, begin[name][int(rng.integers(len(begin[name])))], begin[name])
        verdict, line, used, took = worker(data)
        row = rows[name]
        row.counts[verdict] += 1
        row.megabytes, row.seconds = max(row.megabytes, used), max(row.seconds, took)
        if verdict not in (LOADED, REFUSED):
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{number}.{name.replace(' ', '')}").write_bytes(data)
            faults.append({"file": number, "format": name, "verdict": verdict, "line": line})
            print(f"{number} {name}: {verdict}: {line}", file=sys.stderr, flush=True)
    worker.close()
    show(rows, options.files)
    if options.json:
        found = {name: {**row.counts, "megabytes": row.megabytes, "seconds": row.seconds} for name, row in rows.items()}
        document = {"files": options.files, "seed": options.seed, "formats": found, "faults": faults}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if faults else 0


def show(rows: dict[str, Row], files: int) -> None:
    """Print one table."""
    verdicts = (LOADED, REFUSED, CRASHED, HUNG, OVER)
    shown = Table(title=f"{files} damaged files")
    for column in ("format", *verdicts, "most MB", "longest s"):
        shown.add_column(column, justify="left" if column == "format" else "right")
    for name, row in rows.items():
        counts = (str(row.counts[verdict]) for verdict in verdicts)
        shown.add_row(name, *counts, f"{row.megabytes:.0f}", f"{row.seconds:.1f}")
    shown.add_section()
    total = (str(sum(row.counts[verdict] for row in rows.values())) for verdict in verdicts)
    most = max(row.megabytes for row in rows.values())
    shown.add_row("all", *total, f"{most:.0f}", f"{max(row.seconds for row in rows.values()):.1f}")
    Console(width=None if sys.stdout.isatty() else 130).print(shown)


if __name__ == "__main__":
    sys.exit(main())
