"""What a file is that could not be opened as a picture, by its first bytes, and what to do about it."""

from __future__ import annotations

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_heif(head: bytes) -> bool:
    """Whether a file begins as HEIF does."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def what_it_is(head: bytes) -> str:
    """What a file is instead, as far as its first bytes tell."""
    start = head[:512].lstrip().lower()
    if is_heif(head):
        return "is HEIF, and either damaged or pillow-heif is missing: pip install pillow-heif"
    if head[4:8] == b"ftyp" and head[8:12].startswith(b"avi"):
        return "is AVIF, and either damaged or this Pillow cannot read it: pip install --upgrade pillow"
    if start.startswith((b"%!ps", b"%pdf", b"<svg")) or (start.startswith(b"<?xml") and b"<svg" in head[:4096]):
        return "is PostScript, PDF or SVG, a drawing and not a picture; export it as PNG first"
    if head[8:11] == b"CR\x02" or head[:16] == b"FUJIFILMCCD-RAW " or head[4:11] == b"ftypcrx":
        return "is a camera's raw file; develop it to a TIFF or PNG first"
    if head[:4] == b"8BPS":
        return "a Photoshop file of a kind that cannot be read; save it as a TIFF or PNG"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a TIFF that is damaged or of a kind that cannot be read; save it as RGB of 8 or 16 bits"
    known = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
    if head.startswith(known):
        return "damaged, though it begins like a picture; get the file again"
    return "not a picture of a known format, whatever its name says; give PNG, JPEG, WebP, AVIF or TIFF"
