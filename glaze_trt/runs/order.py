"""What a run was asked for, beside what changes a picture; and how it went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from glaze_trt.runs.plan import Wishes


@dataclass(frozen=True)
class Order:
    """What was asked for, beside what changes a picture.

    Attributes:
        images: files, folders and patterns.
        wishes: where results go.
        recursive: whether to look into folders below a folder.
        manifest: the manifest; None for the one in the output folder, where a folder or a pattern is cloaked.
        resume: go on with a run that has ended.
        report: folder of a page, or None.
        ray: address of a cluster, "" for whatever Ray finds or starts, or None for this process.
    """

    images: tuple[Path, ...]
    wishes: Wishes
    recursive: bool = False
    manifest: Path | None = None
    resume: bool = False
    report: Path | None = None
    ray: str | None = None


@dataclass
class Tally:
    """How a run went.

    Attributes:
        tree: whether a folder or a pattern was cloaked.
        pictures: found in all.
        cloaked: done by this run.
        failed: not done.
        earlier: done by the run that this one goes on with.
        passed_over: files that were not taken, by suffix.
        unread: folders that cannot be read, and why, a line each.
        failures: the input and the reason; the first ones, for a tree.
        note: what must be said of the models.
        interrupted: whether a person stopped it.
        manifest: where it is, or None.
        page: the page that shows the results, or None.
        seconds: since the first picture was begun.
    """

    tree: bool = False
    pictures: int = 0
    cloaked: int = 0
    failed: int = 0
    earlier: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    note: str | None = None
    interrupted: bool = False
    manifest: Path | None = None
    page: Path | None = None
    seconds: float = 0.0
