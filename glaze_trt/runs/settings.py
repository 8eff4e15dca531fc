"""What holds for every picture of a run, and how a manifest tells of it so that only the same run goes on."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from glaze_trt import models
from glaze_trt.errors import UsageError
from glaze_trt.graph.sight import Box
from glaze_trt.targets import Wanted

Frames = Literal["one", "all"]

_NO_MATTER = ("overwrite", "device", "engines")
"""Fields that do not change a picture."""


@dataclass(frozen=True)
class Settings:
    """What holds for every picture of a run.

    Attributes:
        models: encoders and other extractors, by name or path.
        weights: how much each of them counts; alike if none are given.
        perceptual: the net for LPIPS.
        target: what pictures are moved toward.
        preset: whose objective.
        intensity: the budget, for the preset `glaze`.
        robust: transformations that cloaks shall outlast.
        steps: the preset's, if None.
        mask: a picture, white where the other may change.
        regions: boxes outside which nothing may change; what extractors of one fixed size look at.
        faces: whether these are to look at faces, where no region is given.
        frames: `one` refuses files of several frames or pages; `all` cloaks each.
        seed: of styles, choices, and the first δ.
        engine: what runs the networks.
        precision: of the step.
        device: which GPU, as "cuda:1"; None for the first.
        engines: a folder made by `glaze-trt build`.
        overwrite: whether files that are there may be replaced.
    """

    models: tuple[str, ...] = ("tiny",)
    weights: tuple[float, ...] = ()
    perceptual: str = "tiny"
    target: Wanted = Wanted()
    preset: str = "glaze"
    intensity: str = "default"
    robust: tuple[str, ...] = ()
    steps: int | None = None
    mask: Path | None = None
    regions: tuple[Box, ...] = ()
    faces: bool = False
    frames: Frames = "one"
    seed: int = 0
    engine: str = "auto"
    precision: str = "auto"
    device: str | None = None
    engines: Path | None = None
    overwrite: bool = False

    def told(self) -> dict[str, Any]:
        """What changes a picture, ready for JSON; files are told by their contents, so they may be moved.

        Raises:
            GlazeError: a model or a file that is not there.
        """
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NO_MATTER}
        wanted = self.target
        plain["models"] = [_model(name, "encoder") for name in self.models]
        plain["perceptual"] = _model(self.perceptual, "perceptual")
        plain["mask"] = _file(self.mask)
        plain |= {name: list(plain[name]) for name in ("weights", "robust")}
        plain["regions"] = [list(box) for box in self.regions]
        plain["target"] = asdict(wanted) | {
            "images": [_file(path) for path in wanted.images],
            "style_image": _file(wanted.style_image),
            "portfolio": None if wanted.portfolio is None else _listing(wanted.portfolio),
        }
        return plain

    def reads(self) -> tuple[Path, ...]:
        """The files that a run reads beside its pictures, and folders of such; no result may take their place."""
        wanted = self.target
        files = [self.mask, *wanted.images, wanted.style_image, wanted.portfolio]
        found = [
            path for name in (*self.models, self.perceptual) for path in (Path(name), Path(name).with_suffix(".json"))
        ]
        return (*(path for path in files if path is not None), *(path for path in found if path.is_file()))

    def absolute(self) -> Settings:
        """The same with whole paths, for a process with another working folder."""
        wanted, diffusion = self.target, self.target.diffusion

        def whole(path: Path | None) -> Path | None:
            return None if path is None else path.absolute()

        def named(name: str) -> str:
            return str(Path(name).absolute()) if Path(name).exists() else name

        return replace(
            self,
            models=tuple(map(named, self.models)),
            perceptual=named(self.perceptual),
            mask=whole(self.mask),
            engines=whole(self.engines),
            target=replace(
                wanted,
                images=tuple(path.absolute() for path in wanted.images),
                style_image=whole(wanted.style_image),
                portfolio=whole(wanted.portfolio),
                diffusion=None if diffusion is None else replace(diffusion, model=named(diffusion.model)),
            ),
        )


def _model(name: str, kind: Literal["encoder", "perceptual"]) -> str:
    found = models.find(name, kind)
    return f"{found.name} {_checksum(found.path)}"


def _file(path: Path | None) -> str | None:
    return None if path is None else f"{path.name} {_checksum(path)}"


def _checksum(path: Path) -> str:
    try:
        return models.sha256_of(path)[:16]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _listing(folder: Path) -> str:
    """A folder by its files' names and sizes: reading them all would take as long as the run's first pictures."""
    try:
        found = sorted((path.name, path.stat().st_size) for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return f"{folder.name} {hashlib.sha256(repr(found).encode()).hexdigest()[:16]}"
