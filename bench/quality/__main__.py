"""`python -m bench.quality --pairs DIR`: the published Glaze recipe in PyTorch against this project, on the same pairs.

Both loops run on this processor, one after the other, pair by pair; the recipe in whichever PyTorch form measures
fastest here. Every picture is judged as the 8-bit file it would be saved as, by code that neither loop uses, and the
judging is not on the clock. Prints both headlines with their factors; writes a JSON and a plot. A stopped run goes on
where it was. Needs the models `taesd` and `lpips-squeeze` (`glaze-trt export`) made from the same weights as --weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.networks import weights_folder
from bench.processor import machine
from bench.quality.headlines import HeadlineB, Point, SpeedUp, headline_a, headline_b
from bench.quality.measure import Judge
from bench.quality.pairs import Levels, Pair, read_pairs
from bench.quality.plot import plot
from bench.quality.recipe import BUDGET, Recipe, fastest_form
from bench.quality.run import STEP_BUDGETS, Shot, read_shot, run_ours, run_reference
from bench.step.torch_forms import FORMS, Form

FLOOR = 70.0
CONSOLE = Console(stderr=True)


def say(line: str) -> None:
    """A progress line on stderr."""
    CONSOLE.print(line, markup=False, highlight=False)


def judged(judge: Judge, shots: list[Shot], folder: Path) -> list[Point]:
    """The curve of a run."""
    return [Point(s.steps, s.seconds, s.total, judge(read_shot(folder, s))) for s in shots]


def judged_scaled(judge: Judge, shots: list[Shot], folder: Path) -> list[Point]:
    """The same with every picture's change scaled down to SSIMULACRA2 ≥ 70, off the clock."""
    points = []
    for shot in shots:
        scale, levels = judge.scaled_down(read_shot(folder, shot), FLOOR)
        points.append(Point(shot.steps, shot.seconds, shot.total, judge(levels), scale))
    return points


def run_pair(pair: Pair, form: Form, arguments: argparse.Namespace, weights: Path | None) -> dict[str, list[Point]]:
    """Both sides of one pair, judged."""
    folder: Path = arguments.work / f"{pair.name}-{pair.picture.shape[0]}"
    folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(pair, weights)
    make = partial(Recipe, pair, form, weights)
    shots = run_reference(pair, make, form, arguments.steps, folder, say)
    reference = judged(judge, shots, folder)
    say(f"{pair.name}: reference ends at {reference[-1].measures}")
    curves = {"reference": reference, "reference scaled": judged_scaled(judge, shots, folder)}

    settings: dict[str, Any] = {
        "model": arguments.model, "perceptual": arguments.perceptual, "engine": arguments.engine,
        "precision": arguments.precision, "seed": 0,
    }  # fmt: skip
    budgets = [b for b in STEP_BUDGETS if b <= arguments.our_steps]
    curves["ours"] = judged(judge, run_ours(pair, "ours", budgets, settings, folder, say), folder)

    goal, visible = reference[-1].measures.progress, reference[-1].measures.ssimulacra2

    def reached(levels: Levels) -> bool:
        return judge(levels).progress >= goal

    budgets = [b for b in STEP_BUDGETS if b <= arguments.loose_steps]
    curves["ours loose"] = []
    for index, bounds in enumerate(arguments.loose):
        loose = settings | {"budget": loose_budget(bounds, visible)}
        shots = run_ours(pair, f"ours_loose_{index}", budgets, loose, folder, say, enough=reached)
        curves["ours loose"] += judged(judge, shots, folder)
    return curves


def loose_budget(bounds: tuple[float | None, int], ssimulacra2: float) -> Any:
    """A budget for headline A: LPIPS and L∞ (in levels) as given, SSIMULACRA2 no lower than the recipe's own result."""
    from glaze_trt import Budget

    return Budget(lpips=bounds[0], linf=bounds[1] / 255, ssimulacra2=ssimulacra2 + 0.1)


def read_bounds(text: str) -> tuple[float | None, int]:
    """`LPIPS,LEVELS` from the command line; LPIPS may be `none`."""
    lpips, _, levels = text.partition(",")
    return None if lpips == "none" else float(lpips), int(levels)


def curve_table(name: str, curves: dict[str, list[Point]]) -> Table:
    """Every point of a pair."""
    shown = Table(title=name)
    for column in ("run", "steps", "seconds", "in all", "scale", "progress", "LPIPS", "L∞/255", "SSIMULACRA2"):
        shown.add_column(column, justify="left" if column == "run" else "right")
    for label, points in curves.items():
        for p in points:
            m = p.measures
            shown.add_row(
                label, str(p.steps), f"{p.seconds:.1f}", f"{p.total:.1f}", f"{p.scale:.2f}", f"{m.progress:.3f}",
                f"{m.lpips:.4f}", str(m.linf), f"{m.ssimulacra2:.1f}",
            )  # fmt: skip
    return shown


def in_words(speed: SpeedUp | None) -> str:
    """A ratio with its two factors."""
    if speed is None:
        return "not reached"
    return (
        f"{speed.ratio:.1f} times ({speed.reference.seconds:.1f} s against {speed.ours.seconds:.2f} s to progress "
        f"{speed.goal:.3f}: {speed.reference.steps} steps against {speed.ours.steps}, ×{speed.steps_factor:.1f}; "
        f"seconds a step ×{speed.step_factor:.2f}); {speed.ratio_total:.1f} with our loading and compiling counted; "
        f"SSIMULACRA2 {speed.reference.measures.ssimulacra2:.1f} against {speed.ours.measures.ssimulacra2:.1f}, LPIPS "
        f"{speed.reference.measures.lpips:.3f} against {speed.ours.measures.lpips:.3f}"
    )


def report(name: str, a: SpeedUp | None, strict: SpeedUp | None, b: HeadlineB | None) -> str:
    """Both headlines of a pair; `strict` is A at no higher LPIPS either."""
    lines = [name, f"  A  {in_words(a)}", f"     at no higher LPIPS either: {in_words(strict)}"]
    if b is None:
        return "\n".join([*lines, f"  B  nothing of ours holds SSIMULACRA2 {FLOOR:.0f}"])
    theirs, ours = b.reference.measures, b.ours.measures
    lines.append(
        f"  B  progress {ours.progress:.3f} (SSIMULACRA2 {ours.ssimulacra2:.1f}, {b.ours.steps} steps) against "
        f"{theirs.progress:.3f} (SSIMULACRA2 {theirs.ssimulacra2:.1f}, change scaled to {b.reference.scale:.2f}): "
        f"{b.progress_ratio:.1f} times"
    )
    lines.append(f"     in time {in_words(b.speed)}")
    lines.append(f"     the reference stopped at its best moment: {in_words(b.speed_earliest)}")
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of NAME.png with NAME.target.png")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="pairs whose name holds one of these")
    parser.add_argument("--size", type=int, default=512, help="centre crop, in pixels")
    parser.add_argument("--steps", type=int, default=500, help="of the published recipe")
    parser.add_argument("--our-steps", type=int, default=60, help="largest step budget of ours, for B")
    parser.add_argument("--loose-steps", type=int, default=max(STEP_BUDGETS), help="the same for A")
    parser.add_argument(
        "--loose", nargs="+", type=read_bounds, metavar="LPIPS,LEVELS", default=[(BUDGET, 24), (None, 24)],
        help="our budgets for A beside the recipe's SSIMULACRA2: LPIPS or none, and L∞ in 8-bit levels",
    )  # fmt: skip
    parser.add_argument("--weights", type=Path, help="folder with taesd_encoder and lpips_squeeze_v01 .safetensors")
    parser.add_argument("--model", default="taesd")
    parser.add_argument("--perceptual", default="squeeze")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--form", choices=[form.name for form in FORMS], help="of PyTorch; default: measured")
    parser.add_argument("--compile-limit", type=float, default=600, metavar="SECONDS")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", type=Path, default=Path(".cache/quality"), help="pictures and logs of a run")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    return parser.parse_args(argv)


def choose_form(pair: Pair, arguments: argparse.Namespace, weights: Path | None) -> tuple[Form, dict[str, Any]]:
    """The form asked for, or the fastest, measured once for a work folder and size."""
    kept = arguments.work / f"forms-{arguments.size}.json"
    if arguments.form:
        return next(form for form in FORMS if form.name == arguments.form), {}
    if kept.exists():
        found = json.loads(kept.read_text())
        return next(form for form in FORMS if form.name == found["fastest"]), found["seconds"]
    say("measuring PyTorch's forms on the first pair")
    form, findings = fastest_form(pair, weights, arguments.compile_limit, say)
    kept.write_text(json.dumps({"fastest": form.name, "seconds": findings}, indent=1))
    return form, findings


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    weights = weights_folder(arguments.weights)
    if weights is None:
        say("no --weights: the networks are seeded, so times hold and progress means nothing")
    arguments.work.mkdir(parents=True, exist_ok=True)
    pairs = read_pairs(arguments.pairs, arguments.only, arguments.size)
    form, findings = choose_form(pairs[0], arguments, weights)
    say(f"the reference runs as: {form.name}")

    console = Console(width=None if sys.stdout.isatty() else 140)
    described = machine(arguments.threads)
    curves: dict[str, dict[str, list[Point]]] = {}
    results: dict[str, Any] = {}
    for pair in pairs:
        curves[pair.name] = run_pair(pair, form, arguments, weights)
        reference, loose = curves[pair.name]["reference"], curves[pair.name]["ours loose"]
        a = headline_a(reference, loose)
        strict = headline_a(reference, loose, lpips=max(BUDGET, reference[-1].measures.lpips))
        b = headline_b(curves[pair.name]["reference scaled"], curves[pair.name]["ours"], FLOOR)
        console.print(curve_table(pair.name, curves[pair.name]))
        print(report(pair.name, a, strict, b), flush=True)
        results[pair.name] = {
            "A": asdict(a) if a else None,
            "A at no higher LPIPS": asdict(strict) if strict else None,
            "B": asdict(b) if b else None,
            "curves": {label: [asdict(p) for p in points] for label, points in curves[pair.name].items()},
        }
        if arguments.json:  # written after every pair, so that a stopped run leaves something
            document = described | {
                "size": arguments.size, "torch form": form.name, "torch forms, seconds a step": findings,
                "command": "python -m bench.quality " + " ".join(
                    Path(word).name for word in (sys.argv[1:] if argv is None else argv)
                ),
                "pairs": results,
            }  # fmt: skip
            arguments.json.write_text(json.dumps(document, indent=1))
    if arguments.plot:
        plot(curves, f"{described['processor']}, {arguments.threads} threads, {arguments.size}²", arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
