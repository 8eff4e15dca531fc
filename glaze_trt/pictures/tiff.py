"""TIFFs of any depth, of one page or several, written by tifffile."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from glaze_trt.pictures import metadata
from glaze_trt.pictures.pixels import Carried

_ASIDE = 1
"""What is added to the number of a tag that tifffile would not write; no tag in use lies there."""


@dataclass(frozen=True)
class Page:
    """A page of a TIFF to be written.

    Attributes:
        values: (H, W, C) uint8 or uint16; C is 1, 3 or 4 without alpha, 2 or 4 with.
        inks: whether they are CMYK.
        alpha: whether the last channel is.
    """

    values: NDArray[Any]
    inks: bool
    alpha: bool
    icc: bytes | None
    exif: bytes | None
    dpi: tuple[float, float] | None
    carried: Carried


def write(pages: Sequence[Page]) -> bytes:
    """A TIFF of one page or several, deflated with a predictor.

    EXIF lies in directories of its own, which tifffile does not write: a tag beside each is, and is then made to be it.
    """
    from tifffile import TiffWriter

    file = io.BytesIO()
    below: list[dict[int, dict[int, Any]]] = []
    with TiffWriter(file, byteorder="<") as writer:
        for page in pages:
            spoken, directories = metadata.tiff_tags(page.exif)
            below.append(directories)
            tags = [(tag, kind, 1 if kind == "H" else len(value), value, True) for tag, kind, value in spoken]
            tags += [(ifd + _ASIDE, "I", 1, 0, True) for ifd in directories]
            for tag, value in ((700, page.carried.xmp), (33723, page.carried.iptc)):
                if value is not None:
                    tags.append((tag, "B", len(value), value, True))
            values = page.values if page.values.shape[2] > 1 else page.values[:, :, 0]
            writer.write(
                values,
                photometric="separated" if page.inks else "rgb" if page.values.shape[2] > 2 else "minisblack",
                planarconfig="contig" if values.ndim == 3 else None,
                extrasamples=["unassalpha"] if page.alpha else None,
                compression="adobe_deflate",
                predictor=True,
                iccprofile=page.icc,
                resolution=page.dpi,
                resolutionunit="INCH" if page.dpi else None,
                software=False,
                metadata=None,
                extratags=tags,
            )
    if any(below):
        _fill_in(file, below)
    return file.getvalue()


def _fill_in(file: io.BytesIO, below: Sequence[Mapping[int, Mapping[int, Any]]]) -> None:
    """Write each page's directories at the end of a TIFF, and where they lie into the page."""
    from tifffile import TiffFile

    file.seek(0)
    with TiffFile(file) as made:
        places = [
            (page.aspage().tags[ifd + _ASIDE], ifd, entries)
            for page, directories in zip(made.pages, below, strict=True)
            for ifd, entries in directories.items()
        ]
    for tag, ifd, entries in places:
        end = file.seek(0, io.SEEK_END)
        file.write(b"\0" * (end % 2) + metadata.directory(entries, ifd, end + end % 2))
        file.seek(tag.offset)
        file.write(struct.pack("<H", ifd))
        file.seek(tag.valueoffset)
        file.write(struct.pack("<I", end + end % 2))
