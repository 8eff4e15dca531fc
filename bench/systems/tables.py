"""The tables: which systems each has, and how their means are printed. The numbers come from `work` and `curve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from rich.table import Table

from bench.systems import equal
from bench.systems.curve import Found, Plan
from bench.systems.equal import Spot
from bench.systems.subject import Subject
from bench.systems.system import System
from bench.systems.work import Row, Work
from glaze_trt import styles
from glaze_trt.measure import handling
from glaze_trt.styles import choice

Planned = Sequence[tuple[System, Sequence[Subject]]]

_COLUMNS = {
    "progress": ("progress", ".3f"),
    "norm": ("latent's length", ".3f"),
    "shift": ("shift", ".3f"),
    "shift_blurred": ("shift, blurred", ".3f"),
    "hinge": ("hinge", ".3f"),
    "lpips": ("LPIPS", ".4f"),
    "ssimulacra2": ("SSIMULACRA2", ".1f"),
    "ssim": ("SSIM", ".4f"),
    "dssim": ("DSSIM", ".4f"),
    "linf": ("L∞ /255", ".1f"),
    "psnr": ("PSNR", ".1f"),
    "flip": ("FLIP", ".4f"),
    "seconds": ("seconds", ".1f"),
}
"""Of a cloak's row: heading and format."""

_EYE = ("lpips", "ssimulacra2", "ssim", "linf", "psnr", "flip", "seconds")
_PAINTINGS = ("progress", "norm", *_EYE)
_FACES = ("progress", "shift", "shift_blurred", "hinge", "dssim", *_EYE)


def cloaked(work: Work, planned: Planned) -> list[Row]:
    """Every system on its subjects."""
    return [work.cloaked(system, subject) | {"system": system.name} for system, mine in planned for subject in mine]


def cloaks(title: str, rows: Sequence[Row], *, faces: bool = False) -> Table:
    """Means by system."""
    columns = _FACES if faces else _PAINTINGS
    table = _table(title, ["system", "pictures", "steps", *(_COLUMNS[name][0] for name in columns)])
    for name, mine in by_system(rows).items():
        cells = [_shown(_mean([row.get(column) for row in mine]), _COLUMNS[column][1]) for column in columns]
        table.add_row(name, str(len(mine)), str(mine[0]["steps"]), *cells)
    return table


def handled(work: Work, planned: Planned) -> list[Row]:
    """What ordinary handling leaves of every system's cloaks."""
    return [
        work.cloaked(system, subject) | {"system": system.name, "left": work.handled(system, subject)}
        for system, mine in planned
        for subject in mine
    ]


def handling_table(title: str, rows: Sequence[Row]) -> Table:
    """Mean progress as saved and after each transformation, with its ratio to the first system's."""
    table = _table(title, ["system", "pictures", "as saved", *handling.NAMES, "LPIPS", "SSIMULACRA2", "FLIP"])
    systems = by_system(rows)
    first = _left(next(iter(systems.values())))
    for row, (name, mine) in enumerate(systems.items()):
        left = _left(mine)
        cells = [
            f"{left[way]:.3f}" + (f" (×{left[way] / first[way]:.2f})" if first[way] > 0 and row else "") for way in left
        ]
        eye = [_shown(_mean([each[m] for each in mine]), _COLUMNS[m][1]) for m in ("lpips", "ssimulacra2", "flip")]
        table.add_row(name, str(len(mine)), *cells, *eye)
    return table


def seen(work: Work, planned: Planned, encoders: Sequence[str]) -> list[Row]:
    """Every system's cloaks as every encoder sees them."""
    return [
        work.cloaked(system, subject) | {"system": system.name, "seen": work.seen(system, subject, encoders)}
        for system, mine in planned
        for subject in mine
    ]


def encoders_table(title: str, rows: Sequence[Row]) -> Table:
    """Mean and smallest progress by encoder that looks; those that a system does not move are a transfer."""
    names = list(rows[0]["seen"])
    table = _table(
        title, ["moved", "pictures", *(f"seen by {n} (least)" for n in names), "LPIPS", "SSIMULACRA2", "seconds"]
    )
    for name, mine in by_system(rows).items():
        ways = [[float(row["seen"][encoder]) for row in mine] for encoder in names]
        cells = [f"{np.mean(way):.3f} ({min(way):.3f})" for way in ways]
        eye = [_shown(_mean([row[m] for row in mine]), _COLUMNS[m][1]) for m in ("lpips", "ssimulacra2", "seconds")]
        table.add_row(name, str(len(mine)), *cells, *eye)
    return table


def chosen(work: Work, subjects: Sequence[Subject], encoder: str, seed: int = 0) -> list[Row]:
    """The target style that is chosen for each painting."""

    def choose(subject: Subject) -> Row:
        found = choice.choose([subject.picture], styles.available(), work.encoder(encoder), seed)
        return {
            "subject": subject.name,
            "style": found.style,
            "percentile": found.percentile,
            "distances": dict(found.distances),
        }

    found = []
    for subject in subjects:
        key = f"{subject.name}-{subject.digest[:16]} style by {encoder}, seed {seed}"
        found.append(work.ledger.kept(key, partial(choose, subject)))
    return found


def styles_table(title: str, rows: Sequence[Row]) -> Table:
    """The choice beside the nearest and the farthest candidate."""
    table = _table(title, ["painting", "style", "percentile", "distance", "nearest", "farthest"])
    for row in rows:
        distances = row["distances"]
        ends = [
            f"{name} {distances[name]:.3f}"
            for name in (min(distances, key=distances.get), max(distances, key=distances.get))
        ]
        table.add_row(row["subject"], row["style"], f"{row['percentile']:.1f}", f"{distances[row['style']]:.3f}", *ends)
    return table


def curve_tables(title: str, found: Found, plan: Plan) -> list[Table]:
    """Mean progress at each SSIMULACRA2; ours beside the others; and the step sizes tried for sign descent."""
    progress = _table(title, ["system", "pictures", *(f"{score:g}" for score in plan.scores)])
    for name, curves in found.curves.items():
        spots = [equal.mean(curves, score) for score in plan.scores]
        progress.add_row(
            name,
            str(len(curves)),
            *(
                "" if s is None else f"{s.progress:.3f}{_elsewhere(s, score)}"
                for score, s in zip(plan.scores, spots, strict=True)
            ),
        )
    beside = _table(
        "Beside another at our own SSIMULACRA2, picture by picture; then at the one asked for, where ours may be above",
        [
            *("ours", "other", "asked", "SSIMULACRA2", "pictures", "progress", "other's", "ratio"),
            *("FLIP", "other's", "LPIPS", "other's", "other's, as asked", "ratio"),
        ],
    )
    for (own, name), several in found.versus.items():
        for v in several:
            a, b = v.ours, v.theirs
            beside.add_row(
                *(own, name, f"{v.asked:g}", f"{a.score:.1f}", str(v.pictures)),
                *(f"{a.progress:.3f}", f"{b.progress:.3f}", f"{v.ratio:.2f}", f"{a.flip:.4f}", f"{b.flip:.4f}"),
                *(f"{a.lpips:.4f}", f"{b.lpips:.4f}", f"{v.theirs_at_asked.progress:.3f}", f"{v.ratio_at_asked:.2f}"),
            )
    tried = _table(
        f"Step sizes tried for sign descent on {plan.tuned_on} pictures; taken: {found.rate:g}",
        ["first step / cap", *(f"progress at {score:g}" for score in plan.compared)],
    )
    for rate, ways in found.tried.items():
        tried.add_row(f"{rate:g}", *(_shown(way, ".3f") for way in ways))
    return [progress, beside, tried]


def by_system(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Rows by their system, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["system"], []).append(row)
    return found


def _left(rows: Sequence[Row]) -> dict[str, float]:
    ways = {"as saved": [row["progress"] for row in rows]}
    ways |= {name: [row["left"][name] for row in rows] for name in handling.NAMES}
    return {name: float(np.mean(values)) for name, values in ways.items()}


def _elsewhere(spot: Spot, asked: float) -> str:
    """What SSIMULACRA2 came out, where another limit stopped a cloak well above."""
    return f" (at {spot.score:.1f})" if abs(spot.score - asked) > 0.5 else ""


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def _shown(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)
