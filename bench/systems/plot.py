"""The curves as a picture: progress and FLIP against SSIMULACRA2, means over the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.systems import equal
from bench.systems.curve import FREE, OURS, SIGN, Found

_COLOURS = {OURS: "#c2410c", FREE: "#fb923c", SIGN: "#404040"}
_OTHERS = ("#1d4ed8", "#15803d", "#7e22ce", "#0e7490", "#a16207")


def plot(found: Found, scores: Sequence[float], another_claim: Sequence[str], title: str, path: Path) -> None:
    """Writes the PNG.

    Args:
        found: the curves.
        scores: SSIMULACRA2 asked for; drawn is what came out.
        another_claim: systems whose progress is not one toward the target; drawn dashed.
        title: names the processor.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    others = iter(_OTHERS * len(found.curves))
    for name, curves in found.curves.items():
        there = [spot for score in scores if (spot := equal.mean(curves, score)) is not None]
        colour = _COLOURS.get(name) or next(others)
        apart = name in another_claim
        words = f"{name} ({len(curves)} pictures{', toward zero' if apart else ''})"
        for axes, values in (
            (left, [spot.progress for spot in there]),
            (right, [spot.flip for spot in there]),
        ):
            axes.plot(
                [spot.score for spot in there], values, "--" if apart else "-", color=colour, marker="o", markersize=4,
                linewidth=2.5 if name == OURS else 1.5, label=words,
            )  # fmt: skip
    left.set(ylabel="progress", title="what the encoder sees: progress")
    right.set(ylabel="FLIP", title="a judge that nobody optimised: FLIP")
    for axes in (left, right):
        axes.set_xlabel("SSIMULACRA2 (100 identical, 70 about JPEG 65)")
        axes.set_ylim(bottom=0)
        axes.invert_xaxis()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)
