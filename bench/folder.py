"""`python -m bench.folder`: a folder of small pictures, killed twice and gone on with; and how many a minute.

1. 200 pictures, ten of them damaged, are cloaked by the command. It is killed by SIGKILL twice, at points drawn by a
   seed, and resumed. Then: does the manifest tell of every picture, is every good one there once and as the manifest
   says, was any sent through the loop again that was not under way at a kill, is nothing half-written left?
2. Such pictures by three ways, in turn: one command a picture; one process, one picture after the other; the
   command with its stages side by side.

Exits 1 where a check fails. The JSON goes to bench/results/folder.json, or where --json says.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.processor import cores, machine
from engine.runtime.processor import detect
from glaze_trt.runs.manifest import NAME

UNDER_WAY = 3
"""Pictures that a kill may cost: in the loop, behind it, and between the two."""

COUNTED = """
import sys
from glaze_trt import cli
from glaze_trt.runs import stages

log = open(sys.argv.pop(1), "a", buffering=1)

def optimise(self, shot, *others, before=stages.Stages.optimise):
    log.write(shot.job.name + "\\n")
    return before(self, shot, *others)

stages.Stages.optimise = optimise
cli.main()
"""
"""The command, which notes every picture that goes into the loop."""

ONE_BY_ONE = """
from glaze_trt import cli
from glaze_trt.runs import run

def alone(of, *given, overlapped, before, **others):
    before(of, *given, overlapped=False, **others)

for part in (run.Pipeline, run.Stages):
    part.__init__ = lambda of, *given, before=part.__init__, **others: alone(of, *given, before=before, **others)
cli.main()
"""
"""The command without overlap."""


def pictures(folder: Path, count: int, bad: int, side: int) -> None:
    """Smooth noise of one size under names in order; every so many a file that is cut off, empty, or no picture."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    spoilt = set(range(count // bad // 2, count, count // bad)) if bad else set()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        path = folder / f"{number:03}.png"
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(path)
        if number in spoilt:
            data = path.read_bytes()
            path.write_bytes((data[: len(data) // 2], b"", b"no picture")[number % 3])


def lines(out: Path) -> list[dict[str, Any]]:
    """The manifest's whole lines, without the first."""
    if not (out / NAME).exists():
        return []
    text = (out / NAME).read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]


def resident(process: subprocess.Popen[bytes]) -> float:
    """Memory of a process in MB; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def killed_twice(folder: Path, out: Path, given: Sequence[str], log: Path, seed: int) -> tuple[list[int], list[float]]:
    """Run, kill, go on, kill, go on to the end; the manifest's lines at the kills, and MB early and late in the end."""
    rng = random.Random(seed)
    count = len(list(folder.iterdir()))
    order = [sys.executable, "-c", COUNTED, str(log), "cloak", str(folder), "-o", str(out), *given]
    at: list[int] = []
    for share in (0.2, 0.55):
        running = subprocess.Popen([*order, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(lines(out)) < share * count and running.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        running.send_signal(signal.SIGKILL)
        running.wait()
        at.append(len(lines(out)))
        print(f"killed after {at[-1]} lines", file=sys.stderr, flush=True)
    running = subprocess.Popen([*order, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory: list[float] = []
    while running.poll() is None:
        time.sleep(0.2)
        if len(lines(out)) >= at[-1] + 5:  # engines are compiled, and all stages have been at work
            memory.append(resident(running))
    fifth = max(1, len(memory) // 5)
    return at, [max(memory[:fifth], default=0.0), max(memory[-fifth:], default=0.0)]


def checked(folder: Path, out: Path, log: Path, bad: int, kills: int) -> dict[str, Any]:
    """What is to be true in the end, and the numbers behind it."""
    told = lines(out)
    last = {line["name"]: line for line in told}
    done = Counter(line["name"] for line in told if line["status"] == "done")
    names = {path.name for path in folder.iterdir()}
    good = {name for name, line in last.items() if line["status"] == "done"}
    looped = Counter(log.read_text().split())
    again = {name: times for name, times in looped.items() if times > 1}
    intact = all(
        hashlib.sha256((out / file["path"]).read_bytes()).hexdigest() == file["sha256"]
        for name in good
        for file in last[name]["files"]
    )
    left = [path.name for path in out.rglob(".*")]
    return {
        "pictures": len(names),
        "done": len(good),
        "failed": len(last) - len(good),
        "looped_again": len(again),
        "checks": {
            "the manifest tells of every picture": set(last) == names,
            "every good picture is done, and noted as done once": len(good) == len(names) - bad
            and set(done.values()) == {1},
            "every file is as the manifest says": intact,
            f"a kill cost {UNDER_WAY} pictures at most": sum(times - 1 for times in again.values())
            <= kills * UNDER_WAY,
            "nothing half-written is left": not left,
        },
    }


def timed(order: Sequence[str], count: int) -> tuple[float, float]:
    """Seconds of a command, start and all, and pictures a minute."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *order], stdout=subprocess.DEVNULL, check=True)
    took = time.perf_counter() - began
    return took, 60 * count / took


def rates(place: Path, given: Sequence[str], options: argparse.Namespace) -> dict[str, list[float]]:
    """Pictures a minute by each way, one number a heat."""
    folder = place / "timed"
    pictures(folder, options.timed, 0, options.side)
    single = sorted(folder.iterdir())[: options.singles]
    found: dict[str, list[float]] = {"one command a picture": [], "one after the other": [], "side by side": []}
    for heat in range(options.heats):
        began = time.perf_counter()
        for path in single:
            timed(["-m", "glaze_trt.cli", "cloak", str(path), "-o", str(place / f"single{heat}/"), *given], 1)
        found["one command a picture"].append(60 * len(single) / (time.perf_counter() - began))
        for name, start in (("one after the other", ["-c", ONE_BY_ONE]), ("side by side", ["-m", "glaze_trt.cli"])):
            out = place / f"{name}{heat}"
            found[name].append(timed([*start, "cloak", str(folder), "-o", str(out), *given], options.timed)[1])
        print({name: [round(rate, 1) for rate in each] for name, each in found.items()}, file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.folder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--bad", type=int, default=10)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--timed", type=int, default=60, help="pictures of a heat")
    parser.add_argument("--singles", type=int, default=5, help="commands of a heat")
    parser.add_argument("--heats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "folder.json")
    options = parser.parse_args()
    given = ["--steps", str(options.steps)]
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        pictures(place / "art", options.count, options.bad, options.side)
        out, log = place / "out", place / "looped"
        kills, memory = killed_twice(place / "art", out, given, log, options.seed)
        kept = checked(place / "art", out, log, options.bad, len(kills))
        found = rates(place, given, options)
    title = f"{options.side}², {options.steps} steps, {detect().name}, {cores()} cores"
    table = Table(title=f"{options.count} pictures, {options.bad} bad; killed after {kills} lines; {title}")
    table.add_column("check")
    table.add_column("", justify="right")
    for name, holds in kept["checks"].items():
        table.add_row(name, "yes" if holds else "NO")
    table.add_row("pictures done, failed", f"{kept['done']}, {kept['failed']}")
    table.add_row("sent through the loop again", str(kept["looped_again"]))
    table.add_row("memory early and late in the last run, MB", f"{memory[0]:.0f}, {memory[1]:.0f}")
    speed = Table(title=f"Pictures a minute, start and all, median of {options.heats}; {title}")
    speed.add_column("way")
    speed.add_column("pictures", justify="right")
    speed.add_column("a minute", justify="right")
    speed.add_column("to one after the other", justify="right")
    for name, each in found.items():
        ratio = statistics.median(a / b for a, b in zip(each, found["one after the other"], strict=True))
        count = options.singles if name == "one command a picture" else options.timed
        speed.add_row(name, str(count), f"{statistics.median(each):.1f}", f"{ratio:.2f}")
    for each_table in (table, speed):
        Console().print(each_table)
    if options.json:
        asked = {name: getattr(options, name) for name in ("count", "bad", "side", "steps", "timed", "singles", "seed")}
        document = {**machine(cores()), **asked, "killed_after": kills, "megabytes": memory, **kept, "a_minute": found}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(kept["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
