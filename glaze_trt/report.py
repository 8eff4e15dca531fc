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

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import engine
from glaze_trt import atomic, models
from glaze_trt.network import Network

Levels = NDArray[np.uint8]

AMPLIFIED = 8
"""How many times the difference is enlarged about mid grey."""

_PAPER, _INK, _FAINT, _RULE, _ALARM = "#f7f5f1", "#1d1c1a", "#77726a", "#d9d4ca", "#a8321e"
_MARGIN, _GAP, _SIDE, _NARROWEST = 56, 24, 512, 300


@dataclass(frozen=True)
class Fact:
    """One measured number: its name, its value, and a remark such as its limit."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Views:
    """One row of the sheet: three pictures of one size, (H, W, 3) uint8."""

    before: Levels
    after: Levels
    target: Levels


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

    def rebuilt(levels: Levels) -> Levels:
        image = decode.run("latent", encode(levels)["latent"])["image"][0].transpose(1, 2, 0)
        return np.asarray(np.clip(np.rint(image[:height, :width] * 255), 0, 255), dtype=np.uint8)

    return Views(rebuilt(pictures.before), rebuilt(pictures.after), rebuilt(pictures.target))


def difference(before: Levels, after: Levels) -> Levels:
    """The change, `AMPLIFIED` times about mid grey, (H, W, 3) uint8."""
    return np.asarray(np.clip(128 + AMPLIFIED * (after.astype(np.int16) - before), 0, 255), dtype=np.uint8)


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
        sheet.row("What the model sees, decoded from its latents", captions, model)
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
    budget, seconds = made["budget"], made["seconds"]
    limits = {"lpips": "at most {:.3g}", "linf": "at most {:.0f} / 255", "ssimulacra2": "at least {:.0f}"}
    remark = {
        name: text.format(budget[name] * (255 if name == "linf" else 1)) if budget.get(name) is not None else ""
        for name, text in limits.items()
    }
    facts = [
        Fact("Progress toward the target", f"{made['progress']:.2f}", f"as the model {made['model']} sees it"),
        Fact("SSIMULACRA2", f"{made['ssimulacra2']:.1f}", remark["ssimulacra2"]),
        Fact(f"LPIPS ({made['perceptual']})", f"{made['lpips']:.3f}", remark["lpips"]),
        Fact("Largest change", f"{made['linf'] * 255:.0f} / 255", remark["linf"]),
        Fact("SSIM", f"{made['ssim']:.3f}"),
        Fact("PSNR", "identical" if made["psnr"] is None else f"{made['psnr']:.1f} dB"),
    ]
    how = [
        "{} x {}".format(*made["size"]),
        f"target: {made['target']}",
        f"model {made['model']}",
        f"{made['steps']} steps",
        f"{seconds['total']:.1f} s",
        f"{made['engine']} {made['precision']}",
        made["device"],
    ]
    return contact_sheet(
        seen,
        model,
        title=Path(made["input"]).name,
        subtitle="  ·  ".join(how),
        facts=facts,
        note=note,
    )


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
        self._page = Image.new("RGB", (self._width, 420 + rows * (self._panel[1] + 110)), _PAPER)
        self._draw = ImageDraw.Draw(self._page)
        self._y = _MARGIN

    def heading(self, title: str, subtitle: str) -> None:
        self._text(_MARGIN, self._y, title, 40)
        self._text(_MARGIN, self._y + 56, subtitle, 19, _FAINT)
        self._y += 100

    def facts(self, facts: Sequence[Fact]) -> None:
        self._draw.line((_MARGIN, self._y, self._width - _MARGIN, self._y), fill=_RULE, width=1)
        step = (self._width - 2 * _MARGIN) / max(1, len(facts))
        for index, fact in enumerate(facts):
            x = round(_MARGIN + index * step)
            self._text(x, self._y + 20, fact.label, 17, _FAINT, step)
            self._text(x, self._y + 44, fact.value, 34, _INK, step)
            self._text(x, self._y + 88, fact.remark, 16, _FAINT, step)
        self._y += 124
        self._draw.line((_MARGIN, self._y, self._width - _MARGIN, self._y), fill=_RULE, width=1)
        self._y += 34

    def row(self, heading: str, captions: Sequence[str], views: Views) -> None:
        self._text(_MARGIN, self._y, heading, 24)
        pictures = (views.before, views.after, difference(views.before, views.after), views.target)
        for index, (caption, levels) in enumerate(zip(captions, pictures, strict=True)):
            x = _MARGIN + index * (self._column + _GAP)
            self._text(x, self._y + 38, caption, 17, _FAINT, self._column)
            image = Image.fromarray(levels)
            if image.size != self._panel:
                image = image.resize(self._panel, Image.Resampling.LANCZOS)
            self._page.paste(image, (x, self._y + 66))
        self._y += self._panel[1] + 66 + 36

    def note(self, text: str) -> None:
        for line in _wrapped(text, _font(19), self._width - 2 * _MARGIN):
            self._text(_MARGIN, self._y, line, 19, _ALARM)
            self._y += 28

    def finished(self) -> Image.Image:
        return self._page.crop((0, 0, self._width, self._y + _MARGIN - 20))

    def _text(self, x: int, y: int, text: str, size: int, fill: str = _INK, room: float | None = None) -> None:
        font = _font(size)
        room = self._width - _MARGIN - x if room is None else room - 8
        text = "".join(letter if letter.isascii() or letter == "·" else "?" for letter in text)  # the font has no more
        if font.getlength(text) > room:
            while text and font.getlength(text + "...") > room:
                text = text[:-1]
            text += "..."
        self._draw.text((x, y), text, font=font, fill=fill)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
