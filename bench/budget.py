"""`python -m bench.budget --pairs DIR`: does the default cloak keep its promise?

Cloaks every pair with the default settings through the public API, saves a PNG, reads it back, and measures it with
torch, the `lpips` package and `ssimulacra2`: nothing of the loop that made it. Exits 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.processor import cores
from bench.quality.measure import Judge
from bench.quality.pairs import read_pairs
from engine.runtime.processor import detect
from glaze_trt.cloak import Cloaker, make_objective


def main() -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget", description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of NAME.png and NAME.target.png")
    parser.add_argument("--only", nargs="+", help="parts of names")
    parser.add_argument("--weights", type=Path, help="folder of TAESD's and LPIPS' weights, for the judge")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--intensity", default="default")
    parser.add_argument("--out", type=Path, default=Path("out/budget"), help="where the cloaked pictures go")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    objective = make_objective(options.intensity, steps=options.steps)
    cloaker = Cloaker("taesd", "squeeze", objective)
    options.out.mkdir(parents=True, exist_ok=True)
    budget, rows, kept = objective.budget, [], True
    table = Table(title=f"Default cloak, TAESD and LPIPS-squeeze, {options.size}², {detect().name}, {cores()} cores")
    for column in ("pair", "progress", "LPIPS", "L∞ /255", "SSIMULACRA2", "steps", "seconds", "compile"):
        table.add_column(column, justify="left" if column == "pair" else "right")
    for pair in read_pairs(options.pairs, options.only, options.size):
        began = time.perf_counter()
        result = cloaker(pair.picture, target=pair.target)
        seconds = time.perf_counter() - began
        path = options.out / f"{pair.name}.png"
        Image.fromarray(result.rgb).save(path)
        judged = Judge(pair, options.weights)(np.asarray(Image.open(path)))
        compiled = result.report.seconds["compile"] if not rows else 0.0
        kept &= judged.lpips <= (budget.lpips or np.inf) and judged.linf <= round(budget.linf * 255)
        kept &= judged.ssimulacra2 >= (budget.ssimulacra2 or -np.inf)
        rows.append({"pair": pair.name, **vars(judged), "seconds": seconds - compiled, "compile": compiled})
        print(f"{pair.name}: {judged}", file=sys.stderr, flush=True)
        table.add_row(
            pair.name,
            f"{judged.progress:.3f}",
            f"{judged.lpips:.4f}",
            str(judged.linf),
            f"{judged.ssimulacra2:.2f}",
            str(objective.steps),
            f"{seconds - compiled:.1f}",
            f"{compiled:.1f}" if compiled else "",
        )
    mean = statistics.mean(float(row["progress"]) for row in rows)
    middle = statistics.median(float(row["seconds"]) for row in rows)
    table.add_section()
    table.add_row("mean progress, median seconds", f"{mean:.3f}", "", "", "", "", f"{middle:.1f}")
    Console().print(table)
    if options.json:
        report = result.report
        made = {"engine": report.engine, "precision": report.precision, "device": report.device}
        document = {**made, "size": options.size, "steps": objective.steps, "pairs": rows, "mean_progress": mean}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    if not kept:
        print("a cloak broke its budget", file=sys.stderr)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
