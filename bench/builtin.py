"""`python -m bench.builtin --pairs DIR --weights DIR`: what the built-in `tiny` models are worth beside their teachers.

Default cloaks of pictures that training never saw, made with `tiny` alone and judged by TAESD and LPIPS-squeeze in
torch on the 8-bit picture. With --into the figures go into the manifests, from which `glaze-trt cloak` quotes them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor, nn

import engine
from bench.precision import loss_and_gradient
from bench.processor import cores, machine
from bench.quality.pairs import Pair, read_pairs, to_tensor
from engine.runtime.processor import detect
from export.distill import attack, distort, package, students, teachers
from export.distill.encoder import r_squared
from export.distill.perceptual import spearman
from export.distill.pictures import HELD_OUT, to_levels
from glaze_trt import models
from glaze_trt.cloak import Cloaker

BUDGET = 0.05
"""LPIPS of the student at which the teacher's is asked."""

_SCALES = (0.25, 0.5, 0.75, 1.0, 1.5)
_STRENGTHS = 6


class Students:
    """The built-in networks in torch, with their teachers."""

    def __init__(self, weights: Path) -> None:
        self.encoder, self.perceptual = students.TinyEncoder(), students.TinyPerceptual()
        package.load_weights_(self.encoder, models.find("tiny", "encoder").path)
        package.load_weights_(self.perceptual, models.find("tiny", "perceptual").path)
        for network in (self.encoder, self.perceptual):
            network.eval().requires_grad_(False)
        self.taesd, self.squeeze = teachers.load_encoder(weights), teachers.load_perceptual(weights)

    def distances(self, before: Tensor, after: Tensor) -> tuple[float, float]:
        """LPIPS by the student and by its teacher."""
        return _distance(self.perceptual, before, after), _distance(self.squeeze, before, after)


def cloaks(pairs: list[Pair], nets: Students) -> tuple[list[dict[str, float | str]], list[Tensor]]:
    """A row for every pair, and the cloaked pictures (1, 3, H, W)."""
    cloaker = Cloaker()
    rows: list[dict[str, float | str]] = []
    made = []
    for pair in pairs:
        began = time.perf_counter()
        result = cloaker(pair.picture, target=pair.target)
        seconds = time.perf_counter() - began
        before, after, target = (to_tensor(levels) for levels in (pair.picture, result.rgb, pair.target))
        own, real = (float(attack.progress(net, before, after, net(target))) for net in (nets.encoder, nets.taesd))
        found, wanted = nets.distances(before, after)
        rows.append(
            {
                "picture": pair.name,
                "r2_clean": r_squared(nets.encoder(before), nets.taesd(before)),
                "r2_cloaked": r_squared(nets.encoder(after), nets.taesd(after)),
                "progress": own,
                "progress_taesd": real,
                "transfer": real / own,
                "lpips": found,
                "lpips_squeeze": wanted,
                "lpips_squeeze_at_budget": nets.distances(before, _at(BUDGET, before, after, nets.perceptual))[1],
                "ssimulacra2": result.report.ssimulacra2,
                "seconds": seconds,
            }
        )
        print(f"{pair.name}: {rows[-1]}", file=sys.stderr, flush=True)
        made.append(after)
    return rows, made


def agreement(pairs: list[Pair], made: list[Tensor], nets: Students, size: int) -> float:
    """Rank correlation of the two LPIPS over everyday damage at all strengths, and cloaks weakened and exaggerated."""
    generator = Generator().manual_seed(1)
    found = []
    for pair, after in zip(pairs, made, strict=True):
        before, after = _centre(to_tensor(pair.picture), size), _centre(after, size)
        changed = [
            distort.apply(kind, before, strength, generator)
            for kind in distort.DISTORTIONS.values()
            for strength in torch.linspace(0.05, 1, _STRENGTHS).tolist()
        ]
        changed += [before + scale * (after - before) for scale in _SCALES]
        found += [nets.distances(before, to_levels(each)) for each in changed]
    return spearman(*torch.tensor(found).T)


def speed(size: int, rounds: int) -> dict[str, float]:
    """Median seconds of one value and gradient by the student's encoder and by TAESD, on the engine chosen here."""
    calls = {name: _gradient(name, size) for name in ("tiny", "taesd")}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def _gradient(name: str, size: int) -> Callable[[], object]:
    program = engine.compile(loss_and_gradient(name, "encoder", size, 1.0))
    rng = np.random.default_rng(0)
    feeds = {name: rng.random(spec.shape, dtype=np.float32) for name, spec in program.inputs.items()}
    program(feeds)
    return lambda: program(feeds)


def _at(budget: float, before: Tensor, after: Tensor, perceptual: nn.Module) -> Tensor:
    """A cloak weakened or exaggerated until the student's LPIPS is at the budget."""
    low, high = 0.0, 4.0
    for _ in range(12):
        middle = (low + high) / 2
        inside = _distance(perceptual, before, before + middle * (after - before)) <= budget
        low, high = (middle, high) if inside else (low, middle)
    return before + low * (after - before)


@torch.no_grad()
def _distance(net: nn.Module, before: Tensor, after: Tensor) -> float:
    return float(attack.distance(net(before), net(after)))


def _centre(picture: Tensor, size: int) -> Tensor:
    top, left = ((side - size) // 2 for side in picture.shape[2:])
    return picture[:, :, top : top + size, left : left + size]


def _into(folder: Path, kind: str, figures: Mapping[str, object]) -> None:
    path = folder / f"tiny_{kind}.json"
    manifest = json.loads(path.read_text())
    manifest["measured"]["cloaks"] = dict(figures)
    package.replace_file(path, (json.dumps(manifest, indent=2) + "\n").encode())


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.builtin", description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of NAME.png and NAME.target.png")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the teachers' files")
    parser.add_argument("--only", nargs="+", default=list(HELD_OUT), help="parts of names (default: those held out)")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7, help="of the encoders' timing; 0 for none (needs `taesd`)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--into", type=Path, metavar="DIR", help="folder of the manifests to write the figures into")
    options = parser.parse_args(argv)

    nets = Students(options.weights)
    pairs = read_pairs(options.pairs, options.only, options.size)
    rows, made = cloaks(pairs, nets)
    rank = agreement(pairs, made, nets, options.size // 2)
    taken = speed(options.size, options.rounds) if options.rounds else None

    columns = list(rows[0])
    table = Table(title=f"Built-in models, default cloak, {options.size}², {detect().name}, {cores()} cores")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "picture" else "right")
    for row in rows:
        table.add_row(*(str(v) if isinstance(v, str) else f"{v:.3f}" for v in row.values()))
    means = {c: statistics.mean(float(row[c]) for row in rows) for c in columns[1:]}
    table.add_section()
    table.add_row("mean", *(f"{value:.3f}" for value in means.values()))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    console.print(f"Spearman of the two LPIPS over damage and cloaks: {rank:.3f}")
    if taken:
        console.print(
            f"encoder, value and gradient: tiny {taken['tiny']:.3f} s, taesd {taken['taesd']:.3f} s, "
            f"ratio {taken['tiny'] / taken['taesd']:.2f}"
        )
    if options.json:
        document = {**machine(cores()), "size": options.size, "rows": rows, "spearman": rank, "seconds": taken}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.into:
        names = [pair.name for pair in pairs]
        kept = {"pictures": names, "size": options.size}
        encoder = ("r2_clean", "r2_cloaked", "progress", "progress_taesd")
        transfer = {"transfer": round(means["progress_taesd"] / means["progress"], 3)}
        _into(options.into, "encoder", kept | {c: round(means[c], 3) for c in encoder} | transfer)
        perceptual = ("lpips", "lpips_squeeze", "lpips_squeeze_at_budget")
        _into(
            options.into,
            "perceptual",
            kept | {c: round(means[c], 4) for c in perceptual} | {"spearman": round(rank, 3)},
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
