"""Alternating rounds: every contender once a round, medians over the rounds, as many at a time as memory holds.

Contenders that would not fit beside the others run in a later heat; each heat holds the fastest PyTorch form anew, so
every ratio compares times of the same minutes. Nothing here knows what the contenders compute.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.step.torch_forms import Call, Outputs

TOO_SLOW = 25.0  # a contender this many times slower than the fastest is called once and then left out of the rounds


@dataclass(frozen=True)
class Contender:
    """A way to run a work; `build` compiles it and returns the call to time."""

    name: str
    family: str
    build: Callable[[], Call]


@dataclass
class Result:
    """What one contender showed."""

    name: str
    family: str
    build_seconds: float | None = None
    samples: list[float] = field(default_factory=list)
    base_samples: list[float] = field(default_factory=list)
    outputs: Outputs | None = None
    note: str = ""

    @property
    def median(self) -> float | None:
        """Median seconds of one call, or None if it never ran."""
        return statistics.median(self.samples) if self.samples else None


def race(contenders: list[Contender], repeats: int, reserve: float, say: Callable[[str], None]) -> list[Result]:
    """Times all contenders.

    Args:
        contenders: PyTorch's forms (family "torch") first.
        repeats: rounds a heat.
        reserve: bytes of memory to leave free; a heat is closed when less is left.
        say: takes progress lines.

    Returns:
        One result a contender, in order; `base_samples` are the fastest PyTorch form's times in the same heat.
    """
    results: list[Result] = []
    base: Contender | None = None
    waiting = list(contenders)
    while waiting:
        heat, waiting = _fill(waiting, base, reserve, say)
        ran = _rounds(heat, repeats, say)
        torch_results = [r for r in ran if r.family == "torch" and r.median is not None]
        if base is None and torch_results:
            fastest = min(torch_results, key=lambda r: r.median or 0.0)
            base = next(c for c in contenders if c.name == fastest.name)
        samples = next((r.samples for r in ran if base is not None and r.name == base.name), [])
        known = {r.name for r in results}
        for result in ran:
            if result.name not in known:
                result.base_samples = samples
                results.append(result)
        del heat, ran
        _release()
    return results


Entry = tuple[Result, Call | None]


def _fill(
    waiting: list[Contender], base: Contender | None, reserve: float, say: Callable[[str], None]
) -> tuple[list[Entry], list[Contender]]:
    """Builds and warms up contenders until memory runs low."""
    heat: list[Entry] = []
    if base is not None:
        heat.append(_build(base, say))
    while waiting:
        first_of_heat = len(heat) == (base is not None)
        if not first_of_heat and waiting[0].family != "torch" and available_memory() < reserve:
            say(f"memory is low: {len(waiting)} contenders wait for another heat")
            break
        heat.append(_build(waiting[0], say))
        waiting = waiting[1:]
    return heat, waiting


def _build(contender: Contender, say: Callable[[str], None]) -> Entry:
    result = Result(contender.name, contender.family)
    started = time.perf_counter()
    try:
        call = contender.build()
        result.build_seconds = time.perf_counter() - started
        result.outputs = call()  # the warm-up
        _release()
        say(f"{contender.name}: ready after {time.perf_counter() - started:.1f} s")
        return result, call
    except Exception as error:  # a contender that cannot run is a row with its reason
        result.note = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        say(f"{contender.name}: {result.note}")
        return result, None


def _rounds(heat: list[Entry], repeats: int, say: Callable[[str], None]) -> list[Result]:
    for turn in range(repeats):
        for result, call in heat:
            if call is None or (turn > 0 and _hopeless(result, heat)):
                continue
            started = time.perf_counter()
            call()
            result.samples.append(time.perf_counter() - started)
        say(f"round {turn + 1} of {repeats}")
    for result, _ in heat:
        if result.samples and len(result.samples) < repeats:
            result.note = f"over {TOO_SLOW:.0f} times slower than the fastest: called once"
    return [result for result, _ in heat]


def _hopeless(result: Result, heat: list[Entry]) -> bool:
    fastest = min(r.samples[0] for r, _ in heat if r.samples)
    return result.samples[0] > TOO_SLOW * fastest


def available_memory() -> float:
    """Bytes that can still be used without swapping; infinite where the system does not tell."""
    for line in _meminfo():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return float("inf")


def total_memory() -> float:
    """Bytes of memory in the machine; infinite where the system does not tell."""
    with suppress(ValueError, OSError, AttributeError):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float("inf")


def _meminfo() -> Iterator[str]:
    path = Path("/proc/meminfo")
    if path.exists():
        yield from path.read_text().splitlines()


def _release() -> None:
    """Gives freed memory back to the system, so that the next contender is judged by what is really free."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
