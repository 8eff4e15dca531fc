"""What pictures are moved toward: a picture given, themselves in a style, or what a preset brings.

--target-image          pictures, scaled to cover the one that is cloaked
--style NAME            a built-in style; `auto` chooses one as Glaze does, of one picture or of a portfolio
--style-image           the colours and the texture of any picture
--stylizer diffusion    a diffusion model's img2img, with the words of --style
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glaze_trt import faces as detector
from glaze_trt import presets, styles
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.network import Network
from glaze_trt.pictures import picture
from glaze_trt.pictures.picture import Picture
from glaze_trt.styles import choice, statistics
from glaze_trt.styles.diffusion import Diffusion, Stylizer
from glaze_trt.styles.kept import Targets as Kept
from glaze_trt.styles.pattern import pattern

Levels = NDArray[np.uint8]

AUTO = "auto"
"""In place of a style's name: the style is chosen."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        style: a built-in style, `auto`, or words for a diffusion model.
        images: pictures to move toward; several are met in the middle.
        style_image: the picture whose manner is taken over.
        portfolio: a folder of the artist's pictures, by which `auto` chooses.
        stylizer: what makes a style.
        diffusion: its settings, where it is a diffusion model; its prompt is `style`.
        seed: of styles and of the choice.
    """

    style: str | None = None
    images: tuple[Path, ...] = ()
    style_image: Path | None = None
    portfolio: Path | None = None
    stylizer: Literal["built-in", "diffusion"] = "built-in"
    diffusion: Diffusion | None = None
    seed: int = 0


@dataclass(frozen=True)
class Target:
    """What one picture is moved toward.

    Attributes:
        levels: pictures; none for presets that need none.
        style: the style's name, or None.
        percentile: where a chosen style's distance lies among all, or None.
        name: for a person.
        aligned: whether they are the picture itself in another manner, so that each place shows what it shows there.
        close: the same as extractors of one fixed size see them, their faces; none where all see `levels`.
    """

    levels: tuple[Levels, ...]
    style: str | None
    percentile: float | None
    name: str
    aligned: bool = False
    close: tuple[Levels, ...] = ()


class Targets:
    """Makes the targets of a run's pictures; what is slow is made once and kept."""

    def __init__(self, wanted: Wanted, preset: str, encoder: Network, say: Callable[[str], None]) -> None:
        """Check what was asked for.

        Args:
            wanted: what was asked for.
            preset: a name of `presets.PRESETS`.
            encoder: in whose feature space a style is chosen.
            say: told lines for a person.

        Raises:
            UsageError: a contradiction, or a preset that needs what was not given.
            PictureError: a picture given cannot be read.
        """
        self._wanted, self._encoder = wanted, encoder
        system = presets.PRESETS[preset]
        given = [
            name
            for name, value in (
                ("--style", wanted.style),
                ("--target-image", wanted.images),
                ("--style-image", wanted.style_image),
                ("--portfolio", wanted.portfolio if wanted.style in (None, AUTO) else None),
            )
            if value
        ]
        if len(given) > 1 and given != ["--style", "--portfolio"]:
            raise UsageError(f"{' and '.join(given)} exclude each other")
        self._needless = system.objective.features.direction in ("away", "zero")
        if self._needless and given:
            raise UsageError(
                f"the preset {preset} moves a picture away or to zero, not toward a target; drop {given[0]}"
            )
        if not given and not self._needless and system.target == "none":
            raise UsageError(f"the preset {preset} moves a face toward other people's: give them by --target-image")
        self._patterned = system.target == "text" and not given
        if wanted.stylizer == "diffusion" and (wanted.style in (None, AUTO) or wanted.diffusion is None):
            raise UsageError('--stylizer diffusion needs words: --style "cubism by ..."')
        if wanted.portfolio is not None and wanted.style not in (None, AUTO):
            raise UsageError("--portfolio is what a style is chosen by; it does not go with a --style by name")
        if wanted.stylizer == "built-in" and wanted.style not in (None, AUTO, *styles.available()):
            raise UsageError(
                f"no style is called {wanted.style!r}: choose {AUTO}, {', '.join(styles.available())}; "
                "words of your own need --stylizer diffusion"
            )
        self._images = [picture.load(path).levels for path in wanted.images]
        self._example = picture.load(wanted.style_image).levels if wanted.style_image is not None else None
        self._portfolio = _Folder(wanted.portfolio) if wanted.portfolio is not None else None
        self._stylizer: Stylizer | None = None
        if wanted.stylizer == "diffusion" and wanted.diffusion is not None:
            self._stylizer = Stylizer(wanted.diffusion, Kept(say=say))
        self._chosen: choice.Choice | None = None

    def of(
        self,
        source: Picture,
        *,
        sized: bool,
        faces: bool = False,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Target:
        """The target of one picture.

        Args:
            source: the picture.
            sized: whether targets must be of the picture's size.
            faces: whether of pictures given the largest face is meant, where there is one.
            on_step: told of a diffusion model's steps.

        Raises:
            GlazeError: a style that cannot be made.
        """
        if self._needless:
            return Target((), None, None, "none")
        size = (source.rgb.shape[0], source.rgb.shape[1])
        if self._images:
            fitted = (
                picture.to_levels(styles.target_from(i, size)) if sized else _face(i) if faces else i
                for i in self._images
            )
            close = tuple(map(_face, self._images)) if sized and faces else ()
            names = ", ".join(path.name for path in self._wanted.images)
            return Target(tuple(fitted), None, None, names, close=close)
        if self._patterned:
            return Target((pattern(*size),), None, None, "a text pattern")
        if self._example is not None:
            example = self._example.astype(np.float32) / np.float32(255)
            matched = statistics.match(source.rgb, example, np.random.default_rng(self._wanted.seed))
            assert self._wanted.style_image is not None
            return Target(
                (picture.to_levels(matched),), None, None, f"the manner of {self._wanted.style_image.name}", True
            )
        if self._stylizer is not None:
            words = str(self._wanted.style)
            return Target((self._stylizer(source.levels, on_step),), words, None, f'"{words}"', True)
        style, percentile = self._style(source)
        return Target(
            (picture.to_levels(styles.apply(style, source.rgb, self._wanted.seed)),), style, percentile, style, True
        )

    def _style(self, source: Picture) -> tuple[str, float | None]:
        wanted = self._wanted
        if self._portfolio is None and wanted.style != AUTO:
            return wanted.style or styles.DEFAULT, None
        if self._portfolio is None:
            found = choice.choose([source.levels], styles.available(), self._encoder, wanted.seed)
        else:
            self._chosen = self._chosen or choice.choose(
                self._portfolio, styles.available(), self._encoder, wanted.seed
            )
            found = self._chosen
        return found.style, found.percentile


def _face(levels: Levels) -> Levels:
    """The largest face of a picture, or all of it where none is found."""
    x, y, w, h = next(iter(detector.find(levels)), (0, 0, levels.shape[1], levels.shape[0]))
    return levels[y : y + h, x : x + w]


class _Folder(Sequence[Levels]):
    """The pictures of a folder, each loaded when it is asked for."""

    def __init__(self, folder: Path) -> None:
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in picture.FORMATS)
        except OSError as error:
            raise PictureError(f"{folder}: the portfolio cannot be read ({error.strerror or error})") from error
        if not paths:
            raise PictureError(f"{folder}: no picture of the portfolio was found there")
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return picture.load(self._paths[index]).levels
