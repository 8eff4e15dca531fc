"""`python -m bench.systems --pairs DIR`: our cloak, plain sign descent and the published systems on the same pictures.

    presets    each system as published, with its claim and what it costs an eye
    curve      progress against SSIMULACRA2 from 85 to 40
    robust     what ordinary handling leaves, without and with --robust
    encoders   several encoders alone and together
    styles     the target style chosen for each painting

Everything is measured on 8-bit pictures. Each cloak is kept in --work, so that a stopped run goes on where it was, and
asking for another table costs what is new in it. LPIPS is of the backbone that ours optimises. Prints the tables;
writes a JSON and a plot. Needs the models `taesd` and `lpips-squeeze` (`glaze-trt export`), and `taesdxl` for encoders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.processor import cores, machine
from bench.systems import curve, tables
from bench.systems.plot import plot
from bench.systems.subject import Subject, faces, paintings
from bench.systems.system import System, lasting, ours, published
from bench.systems.work import Networks, Work
from engine.runtime.processor import detect
from glaze_trt.graph.views import NAMES
from glaze_trt.objective import INTENSITIES, Objective
from glaze_trt.presets import PRESETS

TABLES = ("presets", "curve", "robust", "encoders", "styles")
ROBUST = ("jpeg", "resize", ",".join(NAMES))
COUNTS = {"glaze-paper": 3, "nightshade": 4, "photoguard": 3, "mist": 6}
"""Pictures of the presets with many steps, for want of time; the first ones."""

Planned = list[tuple[System, Sequence[Subject]]]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.systems", description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=Path, required=True, help="folder of NAME.png with NAME.target.png")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="pairs whose name holds one of these")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument(
        "--intensities", nargs="+", choices=list(INTENSITIES), default=list(INTENSITIES), help="of glaze"
    )
    parser.add_argument("--size", type=int, default=512, help="centre crop, in pixels")
    parser.add_argument(
        "--count", nargs="+", type=_count, default=[], metavar="PRESET=N",
        help=f"pictures of a preset (default: {' '.join(f'{k}={v}' for k, v in COUNTS.items())}, all of the others)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=Objective.steps, help="of ours and of sign descent")
    parser.add_argument("--published-steps", type=int, help="at most, for a quick look (default: as published)")
    parser.add_argument("--faces", type=Path, help="folder of crops of faces, for presets that act on them")
    parser.add_argument("--extractor", help="a face embedding as .onnx")
    parser.add_argument("--scores", nargs="+", type=float, default=[85, 80, 70, 60, 50, 40], help="of the curve")
    parser.add_argument("--compared", nargs="+", type=float, default=[70, 50], help="those held against the others")
    parser.add_argument(
        "--rates", nargs="+", type=float, default=[0.05, 0.1, 0.2, 0.4, 0.8],
        help="step sizes tried for sign descent, as parts of its cap",
    )  # fmt: skip
    parser.add_argument("--tuned-on", type=int, default=3, metavar="N", help="pictures on which they are tried")
    parser.add_argument("--robust", nargs="+", default=list(ROBUST), metavar="NAMES", help="beside the plain cloak")
    parser.add_argument("--free", action="store_true", help="ours with no limit of LPIPS too, at the scores compared")
    parser.add_argument("--model", default="taesd")
    parser.add_argument("--second-model", default="taesdxl", help="for the table of encoders")
    parser.add_argument("--perceptual", default="lpips-squeeze")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--work", type=Path, default=Path(".cache/systems"), help="cloaks and results of a run")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="of the curve")
    options = parser.parse_args(argv)
    if missing := [score for score in options.compared if score not in options.scores]:
        parser.error(f"--compared {missing[0]:g} is not among --scores")
    return options


class Bench:
    """The tables of one command line, and their numbers for the JSON."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._say = Console(stderr=True).print
        networks = Networks(options.perceptual, options.engine, options.precision)
        self._work = Work(
            options.work, networks, lambda line: self._say(line, markup=False, highlight=False, soft_wrap=True)
        )
        self._subjects = paintings(options.pairs, options.only, options.size)
        self._models = (options.model,)
        self._where = f"{detect().name}, {cores()} cores, {options.size}²"

    def presets(self) -> tuple[list[Table], Any]:
        """Systems as published, those for paintings and those for faces."""
        own = [ours(self._models, intensity, self._options.steps) for intensity in self._options.intensities]
        planned: Planned = [(system, self._subjects) for system in own] if "glaze" in self._options.presets else []
        rows = tables.cloaked(self._work, planned + self._published())
        title = f"Systems, {self._options.model} and {self._options.perceptual}, {self._where}; means"
        found = [tables.cloaks(title, rows)]
        on_faces = tables.cloaked(self._work, self._on_faces())
        if on_faces:
            title = f"Systems for faces, {Path(self._options.extractor).stem}, {self._where}; means"
            found.append(tables.cloaks(title, on_faces, faces=True))
        return found, {"paintings": rows, "faces": on_faces}

    def curve(self) -> tuple[list[Table], Any]:
        """Progress against SSIMULACRA2."""
        o = self._options
        scores = tuple(sorted(o.scores, reverse=True))
        plan = curve.Plan(scores, tuple(o.compared), self._models, o.steps, tuple(o.rates), o.tuned_on, o.free)
        others = self._published()
        found = curve.measured(self._work, plan, self._subjects, others)
        title = f"Progress at equal SSIMULACRA2, {o.steps} steps of ours and of sign descent, {self._where}"
        if o.plot:
            plot(found, scores, [s.name for s, _ in others if s.objective.features.direction == "zero"], title, o.plot)
        numbers = {
            "rate of sign descent": found.rate,
            "rates tried, progress at " + " and ".join(f"{score:g}" for score in o.compared): found.tried,
            "versus": {" | ".join(names): [asdict(v) for v in several] for names, several in found.versus.items()},
            "curves": {
                name: {
                    subject: {f"{s:g}": asdict(spot) for s, spot in mine.items()} for subject, mine in curves.items()
                }
                for name, curves in found.curves.items()
            },
        }
        return tables.curve_tables(title, found, plan), numbers

    def robust(self) -> tuple[list[Table], Any]:
        """What ordinary handling leaves."""
        wanted = [(), *(tuple(names.split(",")) for names in self._options.robust)]
        planned = [(lasting(names, self._models, self._options.steps), self._subjects) for names in wanted]
        rows = tables.handled(self._work, planned)
        return [tables.handling_table(f"Progress left by ordinary handling, {self._where}; means", rows)], rows

    def encoders(self) -> tuple[list[Table], Any]:
        """Two encoders alone and together."""
        both = (self._options.model, self._options.second_model)
        systems = [ours(names, steps=self._options.steps) for names in (both[:1], both[1:], both)]
        named = [replace(each, name=" and ".join(Path(model).stem for model in each.models)) for each in systems]
        rows = tables.seen(self._work, [(system, self._subjects) for system in named], both)
        return [tables.encoders_table(f"Encoders alone and together, {self._where}; means", rows)], rows

    def styles(self) -> tuple[list[Table], Any]:
        """The target style of each painting."""
        rows = tables.chosen(self._work, self._subjects, self._options.model)
        return [tables.styles_table("The target style chosen for each painting, seed 0", rows)], rows

    def _published(self) -> Planned:
        counts = COUNTS | dict(self._options.count)
        return [
            (published(name, self._models, self._options.published_steps), self._subjects[: counts.get(name)])
            for name in self._options.presets
            if name != Objective.name and not PRESETS[name].faces
        ]

    def _on_faces(self) -> Planned:
        wanted = [name for name in self._options.presets if PRESETS[name].faces]
        if not wanted:
            return []
        if self._options.faces is None or self._options.extractor is None:
            self._say(f"no --faces or no --extractor: {', '.join(wanted)} left out")
            return []
        found, counts = faces(self._options.faces, self._options.size), dict(self._options.count)
        return [
            (published(name, (self._options.extractor,), self._options.published_steps), found[: counts.get(name)])
            for name in wanted
        ]


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    options = parse(argv)
    bench = Bench(options)
    words = " ".join(Path(word).name for word in (sys.argv[1:] if argv is None else argv))
    document: dict[str, Any] = machine(cores()) | {
        "size": options.size,
        "command": f"python -m bench.systems {words}",
        "tables": {},
    }
    printed = []
    for name in options.tables:
        shown, numbers = getattr(bench, name)()
        printed += shown
        document["tables"][name] = numbers
        if options.json:  # written after every table, so that a stopped run leaves something
            options.json.write_text(json.dumps(document, indent=1) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 180)
    for table in printed:
        console.print(table)
    return 0


def _count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in PRESETS or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not PRESET=N")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main())
