"""The curves as a picture: progress and SSIMULACRA2 against seconds, a row a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.quality.headlines import Point

Curves = Mapping[str, Sequence[Point]]

STYLES = {
    "reference": ("#8a8a8a", "-", "published recipe, PyTorch"),
    "reference scaled": ("#8a8a8a", "--", "the same, scaled down to SSIMULACRA2 70"),
    "ours": ("#c2410c", "-", "glaze-trt, default budget"),
    "ours loose": ("#1d4ed8", "", "glaze-trt, the recipe's own SSIMULACRA2"),
}


def plot(pairs: Mapping[str, Curves], title: str, path: Path) -> None:
    """Writes the PNG.

    Args:
        pairs: pair name → curve name (a key of `STYLES`) → points.
        title: names the processor.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(pairs), 2, figsize=(12, 4 * len(pairs)), squeeze=False, layout="constrained")
    for (name, curves), (left, right) in zip(pairs.items(), rows, strict=True):
        for label, points in curves.items():
            colour, line, words = STYLES[label]
            ordered = sorted(points, key=lambda p: p.seconds)
            seconds = [p.seconds for p in ordered]
            for axes, values in (
                (left, [p.measures.progress for p in ordered]),
                (right, [p.measures.ssimulacra2 for p in ordered]),
            ):
                axes.plot(seconds, values, line, color=colour, marker="o", markersize=3, label=words)
        left.set(title=name, xlabel="seconds", ylabel="progress toward the target", xscale="log")
        right.set(title=name, xlabel="seconds", ylabel="SSIMULACRA2 (100 identical, 70 about JPEG 65)", xscale="log")
        right.axhline(70, color="#cccccc", linewidth=1, zorder=0)
        for axes in (left, right):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)
