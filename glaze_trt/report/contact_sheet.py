"""The contact sheet: one PNG that shows what was done to a picture and what the model makes of it.

Two rows of four: what a person sees and what the model sees of the original, the cloaked picture, their difference
amplified, and the target. Everything measured is passed in; nothing is computed here but the drawing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import engine
from glaze_trt import atomic, models
from glaze_trt.graph.sight import Box
from glaze_trt.network import Network
from glaze_trt.report.page import FAINT, INK, PAPER, font, write
from glaze_trt.report.preview import most_changed, shrunk

Levels = NDArray[np.uint8]

AMPLIFIED = 8
"""How many times the difference is enlarged about mid grey."""

MODEL_SIDE = 1024
"""Pixels a side that a model is shown at most: of a larger picture, the part that changed most."""

_RULE, _ALARM = "#d9d4ca", "#a8321e"
_MARGIN, _GAP, _SIDE, _NARROWEST = 56, 24, 512, 300


@dataclass(frozen=True)
class Fact:
    """One measured number: its name, its value, and a remark such as its limit."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Views:
    """One row of the sheet: three pictures of one size, (H, W, 3) uint8.

    `box` is (x, y, width, height) where they are a part of a larger picture, else None.
    """

    before: Levels
    after: Levels
    target: Levels
    box: Box | None = None


def decoder_of(encoder: models.ModelFile) -> models.ModelFile | None:
    """The decoder that turns an encoder's latents back into pictures; None where none is at hand."""
    space = encoder.manifest.latent_space
    fitting = [
        model
        for model in models.available()
        if model.kind == "decoder" and (model.name == encoder.name or (space and model.manifest.latent_space == space))
    ]
    return min(fitting, key=lambda model: (model.name != encoder.name, model.manifest.demonstration), default=None)


def model_views(
    encode: Network, pictures: Views, engine_name: str = "auto", options: engine.Options | None = None
) -> Views | None:
    """The pictures as the encoder's own decoder rebuilds them from the latents; None where no decoder is at hand.

    Of pictures over `MODEL_SIDE`, a part of the same form: the one that changed most.

    Args:
        encode: the encoder.
        pictures: what it is shown.
        engine_name: what runs the decoder.
        options: how, as the encoder's.
    """
    nearest = decoder_of(encode.model)
    if nearest is None:
        return None
    decode = Network(nearest, engine_name, options)
    height, width = pictures.before.shape[:2]
    box = None
    if max(height, width) > MODEL_SIDE:
        scale = MODEL_SIDE / max(height, width)
        shown = max(1, round(width * scale)), max(1, round(height * scale))
        box = (*most_changed(pictures.before, pictures.after, shown), *shown)

    def rebuilt(levels: Levels) -> Levels:
        if box is not None:
            levels = levels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        image = decode.run("latent", encode(levels)["latent"])["image"][0].transpose(1, 2, 0)
        levels = np.clip(np.rint(image[: levels.shape[0], : levels.shape[1]] * 255), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels)

    return Views(rebuilt(pictures.before), rebuilt(pictures.after), rebuilt(pictures.target), box)


def difference(before: Levels, after: Levels) -> Levels:
    """The change, `AMPLIFIED` times about mid grey, (H, W, 3) uint8."""
    return np.asarray(cv2.addWeighted(after, AMPLIFIED, before, -AMPLIFIED, 128), dtype=np.uint8)


def contact_sheet(
    seen: Views, model: Views | None, *, title: str, subtitle: str, facts: Sequence[Fact], note: str | None = None
) -> Image.Image:
    """Draw the sheet.

    Args:
        seen: what a person sees.
        model: what the model sees of the same, or None.
        title: the picture's name.
        subtitle: how it was made, one line.
        facts: what was measured on the saved file.
        note: a warning under all, or None.
    """
    sheet = _Sheet(seen.before.shape[1], seen.before.shape[0], rows=1 if model is None else 2)
    sheet.heading(title, subtitle)
    sheet.facts(facts)
    sheet.row("What you see", ("Before", "After", f"Difference x {AMPLIFIED}", "Target"), seen)
    if model is not None:
        captions = ("Before", "After", f"Difference x {AMPLIFIED}", "Target")
        part = "" if model.box is None else " of the part that changed most"
        sheet.row(f"What the model sees{part}, decoded from its latents", captions, model)
    if note:
        sheet.note(note)
    return sheet.finished()


def of_run(seen: Views, model: Views | None, made: Mapping[str, Any], note: str | None = None) -> Image.Image:
    """The contact sheet of one cloaked picture.

    Args:
        seen: what a person sees.
        model: what the model sees of the same, or None.
        made: the picture's report, as `glaze-trt cloak --json` prints it.
        note: a warning under all, or None.
    """
    return contact_sheet(
        seen,
        model,
        title=Path(made["input"]).name,
        subtitle="  ·  ".join(how(made)),
        facts=facts(made),
        note=note,
    )


def facts(made: Mapping[str, Any]) -> list[Fact]:
    """What was measured of one picture, with its limits; what was not measured is left out.

    Args:
        made: a report of `glaze-trt cloak --json`, or of `evaluate --json`.
    """
    budget = made.get("budget") or {}

    def fact(name: str, label: str, form: str, value: float | None, limit: str = "", scale: float = 1) -> Fact | None:
        if value is None:
            return None
        bound = budget.get(name)
        return Fact(label, form.format(value * scale), "" if bound is None else limit.format(bound * scale))

    progress, ssim = made.get("progress"), made.get("ssim")
    dssim = None if ssim is None or budget.get("dssim") is None else (1 - ssim) / 2
    found = [
        None
        if progress is None
        else Fact(
            "Progress" if made.get("target") == "none" else "Progress toward the target",
            f"{progress:.2f}",
            f"as the model {made['model']} sees it" if made.get("model") else "",
        ),
        fact("ssimulacra2", "SSIMULACRA2", "{:.1f}", made.get("ssimulacra2"), "at least {:.0f}"),
        fact("lpips", f"LPIPS ({made.get('perceptual')})", "{:.3f}", made.get("lpips"), "at most {:.3g}"),
        fact("linf", "Largest change", "{:.0f} / 255", made.get("linf"), "at most {:.0f} / 255", 255),
        fact("dssim", "DSSIM", "{:.4f}", dssim, "at most {:.3g}"),
        fact("ssim", "SSIM", "{:.3f}", ssim),
        Fact("PSNR", "identical" if made.get("psnr") is None else f"{made['psnr']:.1f} dB"),
    ]
    return [each for each in found if each is not None]


def how(made: Mapping[str, Any], times: str = "x") -> list[str]:
    """How one picture was made, in a few words each; what is not known is left out. `times` stands in its size."""
    engine_name, seconds = made.get("engine"), made.get("seconds", {}).get("total")
    return [
        *([f" {times} ".join(map(str, made["size"]))] if made.get("size") else []),
        *([f"target: {made['target']}"] if made.get("target") else []),
        *([f"model {made['model']}"] if made.get("model") else []),
        *([f"{made['steps']} steps"] if made.get("steps") else []),
        *([f"{seconds:.1f} s"] if seconds is not None else []),
        *([f"{engine_name} {made.get('precision') or ''}".strip()] if engine_name else []),
        *([made["device"]] if made.get("device") else []),
    ]


def save_sheet(path: Path, sheet: Image.Image) -> None:
    """Write the sheet as PNG, whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    atomic.write_bytes(path, buffer.getvalue())


class _Sheet:
    """A page that is filled from the top."""

    def __init__(self, width: int, height: int, rows: int) -> None:
        scale = min(1.0, _SIDE / max(width, height))
        self._panel = max(1, round(width * scale)), max(1, round(height * scale))
        self._column = max(self._panel[0], _NARROWEST)
        self._width = 2 * _MARGIN + 4 * self._column + 3 * _GAP
        self._page = Image.new("RGB", (self._width, 420 + rows * (self._panel[1] + 110)), PAPER)
        self._draw = ImageDraw.Draw(self._page)
        self._y = _MARGIN

    def heading(self, title: str, subtitle: str) -> None:
        self._text(_MARGIN, self._y, title, 40)
        self._text(_MARGIN, self._y + 56, subtitle, 19, FAINT)
        self._y += 100

    def facts(self, facts: Sequence[Fact]) -> None:
        self._draw.line((_MARGIN, self._y, self._width - _MARGIN, self._y), fill=_RULE, width=1)
        step = (self._width - 2 * _MARGIN) / max(1, len(facts))
        for index, fact in enumerate(facts):
            x = round(_MARGIN + index * step)
            self._text(x, self._y + 20, fact.label, 17, FAINT, step)
            self._text(x, self._y + 44, fact.value, 34, INK, step)
            self._text(x, self._y + 88, fact.remark, 16, FAINT, step)
        self._y += 124
        self._draw.line((_MARGIN, self._y, self._width - _MARGIN, self._y), fill=_RULE, width=1)
        self._y += 34

    def row(self, heading: str, captions: Sequence[str], views: Views) -> None:
        self._text(_MARGIN, self._y, heading, 24)
        # at the pixels that are left: a mean over several would be grey all over
        changed = difference(*(shrunk(levels, _SIDE, sampled=True) for levels in (views.before, views.after)))
        pictures = (views.before, views.after, changed, views.target)
        for index, (caption, levels) in enumerate(zip(captions, pictures, strict=True)):
            x = _MARGIN + index * (self._column + _GAP)
            self._text(x, self._y + 38, caption, 17, FAINT, self._column)
            image = Image.fromarray(levels)
            if image.size != self._panel:
                image = image.resize(self._panel, Image.Resampling.LANCZOS)
            self._page.paste(image, (x, self._y + 66))
        self._y += self._panel[1] + 66 + 36

    def note(self, text: str) -> None:
        for line in _wrapped(text, font(19), self._width - 2 * _MARGIN):
            self._text(_MARGIN, self._y, line, 19, _ALARM)
            self._y += 28

    def finished(self) -> Image.Image:
        return self._page.crop((0, 0, self._width, self._y + _MARGIN - 20))

    def _text(self, x: int, y: int, text: str, size: int, fill: str = INK, room: float | None = None) -> None:
        room = self._width - _MARGIN - x if room is None else room - 8
        write(self._draw, (x, y), text, size, fill, room=room)


def _wrapped(text: str, used: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and used.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
