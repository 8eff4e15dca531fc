"""The works by name, importable by a child process that tries to compile one (`__main__` is not)."""

from __future__ import annotations

from pathlib import Path

from bench.networks import kl_encoder, taesd
from bench.step.whole import whole_work
from bench.step.work import Work, encoder_work

WORKS = ("sd-vae", "taesd", "step")


def make_work(name: str, size: int, weights: Path | None) -> Work:
    """The work of that name: an encoder's gradient, or the whole step."""
    if name == "sd-vae":
        return encoder_work(name, kl_encoder(), size)
    if name == "taesd":
        return encoder_work(name, taesd(weights), size)
    return whole_work(size, weights)
