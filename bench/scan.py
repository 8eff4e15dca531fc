"""`python -m bench.scan`: a 24-megapixel scan through `glaze-trt cloak`, and what became of it.

Makes a picture of 6000 × 4000 (the largest painting of a folder, enlarged, with a scanner's grain; drawn fields where
there is none), cloaks it by the command in a process of its own, and prints seconds, peak memory, the seams, what a
person may see at full size, and the progress there and scaled down to 1024 and 512 pixels. Exits 1 where a promise is
broken: the budget, 8 GB, seams within 5 %, or a progress of 0.20 at 512.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from bench.processor import cores, machine
from engine.runtime.processor import detect
from glaze_trt.large import tiles

Levels = NDArray[np.uint8]

MEMORY, SEAM, PROGRESS = 8e9, 0.05, 0.20
"""Bytes at most, energy at seams at most beyond elsewhere, progress at 512 pixels at least."""

GRAIN = 1.5
"""Of the scan, in 8-bit levels."""


def main() -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.scan", description=__doc__)
    parser.add_argument("--picture", type=Path, help="cloak this one instead")
    parser.add_argument("--art", type=Path, help="folder of paintings to make the scan of the largest")
    parser.add_argument("--width", type=int, default=6000)
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--perceptual", default="tiny")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, help="folder for the picture and its cloak; a temporary one if none")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        picture = options.picture or folder / "scan.png"
        if options.picture is None:
            Image.fromarray(scan(options.height, options.width, options.art)).save(picture, compress_level=1)
        found = measure(picture, folder / "scan.cloaked.png", options)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    broken = [name for name, kept in found["kept"].items() if not kept]
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def scan(height: int, width: int, art: Path | None) -> Levels:
    """(H, W, 3) uint8: the largest painting of a folder, enlarged, or drawn fields; with a scanner's grain."""
    rng = np.random.default_rng(0)
    paintings = [Image.open(path) for path in sorted(art.glob("*.jpg"))] if art is not None else []
    if paintings:
        page = max(paintings, key=lambda painting: painting.width * painting.height).convert("RGB")
    else:
        page = Image.fromarray(_fields(rng))
    levels = np.array(ImageOps.fit(page, (width, height), Image.Resampling.LANCZOS))
    for top in range(0, height, 256):
        band = levels[top : top + 256]
        grain = GRAIN * rng.standard_normal(band.shape, dtype=np.float32)
        levels[top : top + 256] = np.clip(np.rint(band + grain), 0, 255)
    return levels


def _fields(rng: np.random.Generator) -> Levels:
    """A graded sky over lumps of several sizes."""
    sky = np.linspace(0, 1, 700)[:, None, None] * rng.uniform(60, 160, 3) + rng.uniform(20, 90, 3)
    ground = sum(
        np.asarray(
            Image.fromarray(rng.integers(0, 255, (700 // cell, 700 // cell, 3), np.uint8)).resize((700, 700), 3), float
        )
        for cell in (4, 20, 100)
    )
    mask = np.linspace(-4, 4, 700)[:, None, None].clip(0, 1)
    return np.clip(sky * np.ones((1, 700, 1)) * (1 - mask) + ground / 3 * mask, 0, 255).astype(np.uint8)


def measure(picture: Path, cloaked: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Cloak a picture in a process of its own, and look at the file that it left."""
    command = [sys.executable, "-m", "glaze_trt.cli", "cloak", str(picture), "-o", str(cloaked), "--overwrite"]
    command += ["--model", options.model, "--perceptual", options.perceptual, "--json"]
    command += [] if options.steps is None else ["--steps", str(options.steps)]
    began = time.perf_counter()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    if ended.returncode:
        raise SystemExit(f"glaze-trt cloak ended with status {ended.returncode}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    document = json.loads(ended.stdout)
    report: Mapping[str, Any] = (document.get("pictures") or [document])[0]
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (picture, cloaked))
    size = (before.shape[0], before.shape[1])
    plans = [tiles.plan(size, side) for side in (512, 1024)]
    plan = next((plan for plan in plans if len(plan) == report["tiles"]), plans[0])
    seam = tiles.seam(before, after, plan)
    budget = report["budget"]
    kept = {
        "budget": report["ssimulacra2"] >= budget["ssimulacra2"] - 0.01
        and report["lpips"] <= budget["lpips"] + 1e-4
        and report["linf"] <= budget["linf"] + 1e-4,
        "memory": peak <= MEMORY,
        "seam": abs(seam) <= SEAM,
        "progress at 512": report["progress_at"].get("512", 0.0) >= PROGRESS,
    }
    names = ("engine", "precision", "steps", "tiles", "scale", "progress", "progress_at", "ssimulacra2", "lpips")
    return {
        "machine": machine(cores()),
        "models": [options.model, options.perceptual],
        "size": [before.shape[1], before.shape[0]],
        "seconds": seconds,
        "stages": report["seconds"],
        "peak_bytes": peak,
        "tile": list(plan.tile),
        "seam": seam,
        **{name: report[name] for name in names},
        "linf": report["linf"],
        "kept": kept,
    }


def show(found: Mapping[str, Any]) -> None:
    """Print the table."""
    width, height = found["size"]
    models = ", ".join(found["models"])
    table = Table(title=f"{width * height / 1e6:.1f} megapixels, {models}, {detect().name}, {cores()} cores")
    table.add_column("measure")
    table.add_column("value", justify="right")
    rows = {
        "seconds, all": f"{found['seconds']:.0f}",
        "peak memory, GB": f"{found['peak_bytes'] / 1e9:.2f}",
        "tiles": f"{found['tiles']} of {found['tile'][1]} x {found['tile'][0]}",
        "energy at seams, beyond beside them": f"{found['seam']:+.1%}",
        "SSIMULACRA2": f"{found['ssimulacra2']:.2f}",
        "LPIPS": f"{found['lpips']:.4f}",
        "L-infinity, /255": f"{found['linf'] * 255:.0f}",
        "progress, full size, mean of tiles": f"{found['progress']:.3f}",
        **{f"progress, scaled to {side}": f"{way:.3f}" for side, way in found["progress_at"].items()},
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
