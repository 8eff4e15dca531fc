"""`--report`: one HTML page of a run that holds all it shows, made while the run goes on.

A picture's part of the page is written to disk as it comes, so memory does not grow with the number of pictures; the
page itself appears when it is closed, whole. The more pictures, the smaller their previews. What the page looks like is
in `html/`; nothing is measured here.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import jinja2
from markupsafe import Markup, escape

from engine.errors import EngineError
from engine.runtime.processor import detect
from engine.runtime.select import BACKENDS
from glaze_trt import atomic
from glaze_trt.errors import OutputError
from glaze_trt.models import ModelFile, sha256_of
from glaze_trt.report.html_section import Detail, Entry, named, section
from glaze_trt.report.html_values import COLUMNS, Summary, cells, rows_of
from glaze_trt.report.preview import preview

__all__ = ["Entry", "Page", "is_page", "write"]

_PARTS = Path(__file__).parent / "html"

_NAME = "index.html"

_OURS = b'<meta name="generator" content="glaze-trt">'
"""In the first KiB of every page."""

_MANY = 8
"""Pictures from which on a browser need not draw those that are out of sight."""

_DEMONSTRATION = (
    "A built-in model took part. It is a demonstration: such a cloak is no protection against a real encoder."
)


_DETAILS = (
    (12, Detail(1024, 512, 160, crops=2, quality=92)),
    (60, Detail(640, 320, 128, crops=1, quality=90)),
    (300, Detail(384, 192, 96, crops=0, quality=85)),
    (1500, Detail(224, 96, 80, crops=0, quality=75)),
)
_LEAST = Detail(128, 64, 64, crops=0, quality=70)
"""By the number of pictures: a page of thousands comes to some 100 MB, which a browser still opens."""


class Page:
    """The page of a run: `add` pictures as they are done, `close` in the end. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        models: Sequence[ModelFile] = (),
        note: str | None = None,
        expected: int = 0,
        title: str = "Cloaked pictures",
        overwrite: bool = False,
    ) -> None:
        """Make the folder, and see that the page can be written there.

        Args:
            folder: where `index.html` will lie; made if missing.
            settings: what held for every picture, by name; values may be numbers, text, paths or sequences.
            models: the networks that took part; named with their checksums.
            note: a warning at the head; a general one if None and a picture's report says `demonstration`.
            expected: about how many pictures will come, for the size of previews; more may.
            title: of the page, where it has several pictures.
            overwrite: whether a page that is there already may be replaced.

        Raises:
            OutputError: the folder cannot be made or written, or holds a page.
        """
        self._path = folder / _NAME
        if self._path.exists() and not overwrite:
            raise OutputError(f"{self._path}: exists already; choose another folder or add --overwrite")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                self._rows, self._pictures = (
                    opened.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0)) for _ in range(2)
                )
                self._opened = opened.pop_all()
        except OSError as error:
            raise OutputError(f"{folder}: no report can be written there ({error.strerror or error})") from error
        self._settings, self._models, self._note, self._title = dict(settings), list(models), note, title
        self._expected, self._taken, self._count, self._only = expected, 0, 0, ""
        self._failures: list[tuple[str, str]] = []
        self._summary = Summary()
        self._engines: dict[str, None] = {}
        self._devices: dict[str, None] = {}
        self._demonstration = False
        self._lock = threading.Lock()
        self._began = datetime.now(UTC)
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_PARTS),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"coded": _coded, "breakable": _breakable}

    def __enter__(self) -> Page:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the page where the block came to its end, or was interrupted; leave nothing after an error."""
        with self._opened:
            if kind is None or kind is KeyboardInterrupt:
                self.close()

    def add(self, entry: Entry) -> None:
        """Write a picture's part of the page to disk.

        Raises:
            OutputError: the disk is full; the page can go on without this picture.
        """
        made, name = entry.made, named(entry.made)
        with self._lock:
            self._taken += 1
            number = self._taken
        detail = next((one for most, one in _DETAILS if max(self._expected, number) <= most), _LEAST)
        height, width = entry.before.shape[:2]
        row = self._text(
            "row.html",
            number=number,
            name=name,
            thumb=preview(entry.after, detail.thumb, quality=75).uri,
            pixels=width * height,
            size=f"{width} × {height}",
            cells=cells(made),
            lazy=detail.lazy,
        )
        part = self._text("picture.html", number=number, name=name, **section(entry, detail))
        with self._lock:
            self._append(row, part)
            self._count += 1
            self._only = name if self._count == 1 else ""
            self._summary.add(made)
            self._demonstration |= bool(made.get("demonstration"))
            for kept, key in ((self._engines, "engine"), (self._devices, "device")):
                if made.get(key):
                    kept[str(made[key])] = None

    def fail(self, name: str, error: str) -> None:
        """Tell of a picture that was not done."""
        with self._lock:
            self._failures.append((name, error))

    def close(self) -> Path:
        """Write the page, whole or not at all; nothing can be added any more.

        Raises:
            OutputError: it cannot be written.
        """
        with self._lock, self._opened:
            if self._rows.closed:
                return self._path
            script, style = ((_PARTS / name).read_text(encoding="utf-8") for name in ("page.js", "style.css"))
            several = self._count > 1
            head = self._text(
                "head.html",
                script=Markup(script),
                script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
                style=Markup(style),
                title=self._only or self._title,
                subtitle=self._subtitle(),
                note=self._note or (_DEMONSTRATION if self._demonstration else None),
                failures=self._failures,
                several=several,
                many=self._count > _MANY,
                facts=self._summary.facts(self._count, len(self._failures)),
                columns=COLUMNS,
                missing=self._summary.missing,
            )
            foot = self._text(
                "foot.html", settings=self._about(), version=_version("glaze-trt"), written=_when(datetime.now(UTC))
            )
            with atomic.writing(self._path) as file:
                file.write(head)
                if several:
                    _copy(self._rows, file)
                    file.write(b"</tbody></table></div>\n")
                _copy(self._pictures, file)
                file.write(foot)
        return self._path

    def _append(self, row: bytes, part: bytes) -> None:
        """Both or neither."""
        files = (self._rows, self._pictures)
        ends = [file.tell() for file in files]
        try:
            for file, data in zip(files, (row, part), strict=True):
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            for file, end in zip(files, ends, strict=True):
                file.seek(end)
                file.truncate()
            raise OutputError(f"{self._path}: the report cannot be written ({error.strerror or error})") from error

    def _text(self, template: str, **values: Any) -> bytes:
        # file names that are no valid text come as lone surrogates, which no file can hold
        return self._templates.get_template(template).render(values).encode("utf-8", "replace")

    def _subtitle(self) -> str:
        failed = f", {len(self._failures)} not done" if self._failures else ""
        count = f"{self._count} picture{'' if self._count == 1 else 's'}{failed}"
        return f"glaze-trt {_version('glaze-trt') or ''} · {count} · {_when(self._began)}"

    def _about(self) -> list[tuple[str, str]]:
        rows = rows_of(self._settings)
        for model in self._models:
            about = model.manifest
            checksum = about.sha256 or sha256_of(model.path)
            words = [f"sha256 {checksum[:12]}", *(["demonstration"] if about.demonstration else []), about.source]
            rows.append((f"{model.kind} {model.name}", "; ".join(filter(None, words))))
        for backend in BACKENDS:
            if backend.name in self._engines:
                with suppress(EngineError):  # a report of another machine's run may speak of an engine not here
                    rows.append((backend.name, backend.version()))
        rows += [("device", name) for name in self._devices]
        rows += [("processor", name) for name in [detect().name] if name not in self._devices]
        rows.append(("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"))
        return rows


def write(folder: Path, entries: Sequence[Entry], *, settings: Mapping[str, Any], **options: Any) -> Path:
    """The page of pictures that are all at hand; see `Page`.

    Raises:
        OutputError: it cannot be written there.
    """
    with Page(folder, settings, expected=len(entries), **options) as page:
        for entry in entries:
            page.add(entry)
    return folder / _NAME


def is_page(folder: Path) -> bool:
    """Whether a folder holds a page of ours, and not somebody's home page."""
    try:
        with (folder / _NAME).open("rb") as file:
            return _OURS in file.read(1024)
    except OSError:
        return False


def _coded(text: str) -> Markup:
    """Text with what stands between backticks, as messages have commands, set as code."""
    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one is alone
        return escape(text)
    return Markup("").join(
        part if i % 2 == 0 else Markup("<code>{}</code>").format(part) for i, part in enumerate(parts)
    )


def _breakable(name: str) -> Markup:
    """A file's name that may be broken where its parts meet."""
    return Markup("<wbr>").join(re.findall(r"[^_\-./\\]*[_\-./\\]?", name))


def _copy(source: IO[bytes], file: IO[bytes]) -> None:
    source.seek(0)
    shutil.copyfileobj(source, file)


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _when(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
