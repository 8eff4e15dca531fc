"""`glaze-trt evaluate`: originals set against their cloaked pictures, one pair or two folders, and what they come to.

The measures themselves are in `evaluate`; nothing of the command line is known here.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glaze_trt import models, styles
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.evaluate import Judge
from glaze_trt.measure import handling
from glaze_trt.network import Network
from glaze_trt.objective import Budget
from glaze_trt.pictures import picture
from glaze_trt.report import contact_sheet
from glaze_trt.runs import fit, folder, plan
from glaze_trt.runs.remembered import Remembering
from glaze_trt.targets import Targets

if TYPE_CHECKING:
    from glaze_trt.report.html_report import Entry

Levels = NDArray[np.uint8]

MEASURES: Mapping[str, bool] = {
    "progress": True,
    "ssimulacra2": True,
    "lpips": False,
    "linf": False,
    "ssim": True,
    "psnr": True,
}
"""What is summed up, and whether more is better."""


@dataclass(frozen=True)
class Pair:
    """An original and its cloaked picture; `name` is the original's, without what both share."""

    name: str
    before: Path
    after: Path


@dataclass(frozen=True)
class Matched:
    """What is to be measured.

    Attributes:
        pairs: by name.
        folders: the two that were set against each other; None for one pair.
        missing: originals for which there is no cloaked picture.
        unmatched: cloaked pictures for which there is no original; contact sheets are none.
    """

    pairs: tuple[Pair, ...]
    folders: tuple[Path, Path] | None = None
    missing: tuple[Path, ...] = ()
    unmatched: tuple[Path, ...] = ()


def match(originals: Path, cloaked: Path) -> Matched:
    """Pictures of one folder and those of the other, subfolders and all, by their relative names.

    `a/b.jpg` is met by `a/b.jpg.png`, `a/b.cloaked.png`, `a/b.jpg` or `a/b.png`, the first of these that is there and
    has no partner yet: the names that `cloak` gives, and those that others may.

    Raises:
        PictureError: a folder cannot be read, or nothing in one has a partner in the other.
        UsageError: an original has several partners, none nearer than the others.
    """
    same = os.path.realpath(originals) == os.path.realpath(cloaked)
    inputs = folder.find([originals], recursive=True, apart=[cloaked])
    if inputs.unread:
        raise PictureError(inputs.unread[0])
    before = [Path(found.name) for found in inputs.pictures]
    after = sorted(_pictures(cloaked))
    if same:
        after = [path for path in after if path.stem.endswith(folder.OURS)]
    by_stem: dict[str, list[Path]] = {}
    for path in after:
        by_stem.setdefault(str(path.with_suffix("")), []).append(path)
    partners: dict[Path, Path] = {}
    used: set[Path] = set()
    for nearness in _NEARNESS:
        for path in before:
            found = [each for each in nearness(path, by_stem) if each not in used] if path not in partners else []
            if len(found) > 1:
                these = " or ".join(str(cloaked / each) for each in found)
                raise UsageError(f"{originals / path}: may belong to {these}; take one of them away")
            if found:
                partners[path] = found[0]
                used.add(found[0])
    if not partners:
        raise PictureError(
            f"no picture in {originals} has a partner in {cloaked}; partners have one relative name, as a/b.jpg and "
            f"a/b.png or a/b{folder.OURS}.png"
        )
    return Matched(
        tuple(Pair(path.as_posix(), originals / path, cloaked / partners[path]) for path in before if path in partners),
        (originals, cloaked),
        tuple(originals / path for path in before if path not in partners),
        tuple(cloaked / path for path in after if path not in used and not path.stem.endswith(plan.SHEET)),
    )


_ByStem = Mapping[str, Sequence[Path]]

_NEARNESS: Sequence[Callable[[Path, _ByStem], Sequence[Path]]] = (
    lambda path, by_stem: by_stem.get(str(path), ()),
    lambda path, by_stem: by_stem.get(f"{path.with_suffix('')}{folder.OURS}", ()),
    lambda path, by_stem: [each for each in by_stem.get(str(path.with_suffix("")), ()) if each == path],
    lambda path, by_stem: by_stem.get(str(path.with_suffix("")), ()),
)


def _pictures(place: Path) -> Iterator[Path]:
    """Relative paths of what its suffix says is a picture; hidden files and folders are left alone."""

    def refuse(error: OSError) -> None:
        raise PictureError(f"{error.filename}: the folder cannot be read ({error.strerror})") from error

    for at, folders, files in os.walk(place, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in picture.READABLE:
                yield (Path(at) / name).relative_to(place)


@dataclass(frozen=True)
class Measured:
    """One pair: its pictures, (H, W, 3) uint8, the target or None, and what was found, ready for JSON."""

    before: Levels
    after: Levels
    target: Levels | None
    found: dict[str, Any]


class Measurer:
    """Measures any number of pairs with the same networks."""

    def __init__(
        self,
        encoders: Sequence[Network],
        perceptual: Network,
        budget: Budget,
        targets: Targets | None = None,
        *,
        handled: bool = False,
    ) -> None:
        """Take the networks.

        Args:
            encoders: for the progress.
            perceptual: for LPIPS.
            budget: what `within` is told of.
            targets: what the second pictures were moved toward; no progress is measured without.
            handled: whether to measure what ordinary handling leaves of the progress.
        """
        self.encoders, self.perceptual = tuple(encoders), perceptual
        self._budget, self._targets, self._handled = budget, targets, handled

    def __call__(self, pair: Pair) -> Measured:
        """Measure a pair; `found` has its measures, `within` the budget or not, and `notes`.

        Raises:
            PictureError: one cannot be read, or they differ in size.
        """
        first, second = picture.load(pair.before), picture.load(pair.after)
        before, after = first.levels, second.levels
        if before.shape != after.shape:
            raise PictureError(
                f"{pair.after} is {after.shape[1]} x {after.shape[0]} and {pair.before} {before.shape[1]} x "
                f"{before.shape[0]}; only pictures of one size can be compared"
            )
        goals = self._targets.of(first, sized=True) if self._targets is not None else None
        encoders = self.encoders if goals is not None else ()
        judge = Judge(
            before,
            targets=goals.levels if goals is not None else (),
            encoders=encoders,
            perceptual=self.perceptual,
        )
        measures = judge(after)
        budget = asdict(self._budget)
        networks = (*encoders, self.perceptual)
        found: dict[str, Any] = {
            "a": str(pair.before),
            "b": str(pair.after),
            "size": [before.shape[1], before.shape[0]],
            "model": "+".join(net.model.name for net in encoders) or None,
            "perceptual": self.perceptual.model.name,
            "target": None if goals is None else goals.name,
            **measures.as_dict(),
            "budget": budget,
            "within": fit.keeps(measures, budget),
            "notes": [] if _same_alpha(first, second) else ["their transparency differs; only colours were compared"],
            "demonstration": any(net.model.manifest.demonstration for net in networks),
        }
        if self._handled:
            found["handled"] = handling.left(after, judge.mean_progress)
        return Measured(before, after, goals.levels[0] if goals is not None and goals.levels else None, found)

    def entry(self, measured: Measured, name: str, engine_name: str) -> Entry:
        """A pair for the page, with what the first encoder sees of it."""
        from glaze_trt.report.html_report import Entry  # only a page needs what draws pages

        before, target = measured.before, measured.target
        if target is not None:
            target = picture.to_levels(styles.target_from(target, before.shape[:2]))
        views = contact_sheet.Views(before, measured.after, before if target is None else target)
        seen = contact_sheet.model_views(self.encoders[0], views, engine_name)
        return Entry(before, measured.after, target, seen, {**measured.found, "name": name})


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many pairs there are and how many are `within` the budget, and the mean, median and worst of each measure."""
    known = {name: [row[name] for row in rows if row.get(name) is not None] for name in MEASURES}
    known = {name: values for name, values in known.items() if values}
    return {
        "pairs": len(rows),
        "within": sum(bool(row["within"]) for row in rows),
        "mean": {name: statistics.fmean(values) for name, values in known.items()},
        "median": {name: statistics.median(values) for name, values in known.items()},
        "worst": {name: (min if MEASURES[name] else max)(values) for name, values in known.items()},
    }


def networks(names: Sequence[str], perceptual: str, engine_name: str) -> tuple[list[Remembering], Network]:
    """Encoders and a perceptual net by name or path.

    Raises:
        ModelError: there is no such model.
    """
    encoders = [Remembering(Network(models.find(name, "encoder"), engine_name)) for name in dict.fromkeys(names)]
    return encoders, Network(models.find(perceptual, "perceptual"), engine_name)


def _same_alpha(first: picture.Picture, second: picture.Picture) -> bool:
    """Whether two pictures of one size let the same shine through."""
    return bool(np.allclose(_opacity(first), _opacity(second), atol=1 / 255))


def _opacity(of: picture.Picture) -> NDArray[np.float32]:
    """From 0 to 1, (H, W), or (1, 1) where nothing shines through."""
    if of.alpha is None:
        return np.ones((1, 1), np.float32)
    return np.asarray(of.alpha / np.float32(np.iinfo(of.alpha.dtype).max), np.float32)
