"""What drawn pages share: colours of paper and ink, and a line of text that is cut short where it does not fit."""

from __future__ import annotations

from PIL import ImageDraw, ImageFont

PAPER, INK, FAINT = "#f7f5f1", "#1d1c1a", "#77726a"


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The one font there is everywhere."""
    return ImageFont.load_default(size)


def write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, fill: str = INK, *, room: float
) -> None:
    """One line; `room` is in pixels."""
    used = font(size)
    known = (letter.isascii() and letter.isprintable() or letter == "·" for letter in text)  # the font has no more
    text = "".join(letter if drawn else "?" for letter, drawn in zip(text, known, strict=True))
    if used.getlength(text) > room:
        while text and used.getlength(text + "...") > room:
            text = text[:-1]
        text = text.rstrip(" ,;") + "..."
    draw.text(place, text, font=used, fill=fill)
