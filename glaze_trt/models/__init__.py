"""The model files that a cloak can use: what a manifest says, where the files lie, and how one is found by name.

A model is ``NAME.onnx`` with ``NAME.json``, its manifest, beside it. The built-in ones are package data and lie in
this folder; exported ones lie in ``$GLAZE_TRT_HOME/models``. Nothing here runs a network: `engine` does. Making
model files is the work of `export`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import platformdirs

from glaze_trt.errors import ModelError

__all__ = ["EXPORTABLE", "Kind", "Manifest", "ModelFile", "available", "export_folder", "find", "sha256_of"]

Kind = Literal["encoder", "decoder", "perceptual"]

EXPORTABLE: Mapping[str, Kind] = {
    "sd-vae": "encoder",
    "sdxl-vae": "encoder",
    "taesd": "encoder",
    "taesdxl": "encoder",
    "lpips-alex": "perceptual",
    "lpips-vgg": "perceptual",
    "lpips-squeeze": "perceptual",
}
"""What `glaze-trt export` makes by name, and its kind."""

ALIASES: Mapping[str, str] = {"alex": "lpips-alex", "vgg": "lpips-vgg", "squeeze": "lpips-squeeze"}

_PORTS: Mapping[Kind, tuple[str, str]] = {
    "encoder": ("image", "latent"),
    "decoder": ("latent", "image"),
    "perceptual": ("image", "feature_0"),
}


@dataclass(frozen=True)
class Manifest:
    """What is known of one model file.

    Pictures are (B, 3, H, W) RGB in [0,1] at every graph's ends, whatever range the network inside was trained on.
    """

    name: str
    kind: Kind
    latent_space: str | None = None
    """`sd1` or `sdxl`: encoders and decoders of one space understand each other. None outside these two."""
    input_range: str | None = None
    """What the network inside was trained on: `0,1`, `-1,1`, `imagenet` or `lpips`. The graph converts to it."""
    scaling_factor: float | None = None
    shift_factor: float | None = None
    multiple: int = 1
    """The picture's height and width must be multiples of this many pixels (of latent cells for a decoder)."""
    minimum: int = 1
    """Smallest height and width."""
    size: tuple[int, int] | None = None
    """Height and width where the network takes one size only."""
    ports: tuple[str, str] | None = None
    """The names of the graph's input and output, where they are not those of its kind."""
    source: str = ""
    licence: str | None = None
    sha256: str | None = None
    """Of the .onnx file. None only where a file was given by its path and has no manifest."""
    weights_sha256: str | None = None
    parameters: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    check: Mapping[str, float | None] = field(default_factory=dict)
    """`output_error` and `gradient_error`: relative to the reference, when the file was made."""
    fp16: bool = True
    """Whether activations stay below 65504, where fp16 ends. Those of SDXL's VAE do not."""
    demonstration: bool = False
    """True for the built-in models: a cloak made on them does not protect against the real encoder."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Of the built-in models: what training measured, and under `cloaks` what `python -m bench.builtin` did."""

    @property
    def cloaks(self) -> Mapping[str, Any]:
        """What is known of cloaks made with a built-in model; empty where nothing was measured."""
        found = self.measured.get("cloaks", {})
        return found if isinstance(found, dict) else {}

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Read a manifest; keys that this version does not know are left out.

        Raises:
            ValueError: not JSON, or not a manifest.
        """
        data: Any = json.loads(text)
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise ValueError("it has no name")
        if data.get("kind") not in get_args(Kind):
            raise ValueError(f"its kind is {data.get('kind')!r}")
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        if isinstance(values.get("input_range"), list):
            values["input_range"] = ",".join(f"{float(bound):g}" for bound in values["input_range"])
        if isinstance(values.get("size"), list):
            values["size"] = tuple(values["size"])
        if isinstance(values.get("ports"), list):
            values["ports"] = tuple(values["ports"])
        values.setdefault("fp16", values.get("latent_space") != "sdxl")  # before it was written down
        return cls(**values)

    def text(self) -> str:
        """The manifest as JSON, in the order of the fields."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class ModelFile:
    """One model that can be used: its .onnx file and what is known of it."""

    name: str
    kind: Kind
    path: Path
    manifest: Manifest


def export_folder(home: str | Path | None = None) -> Path:
    """Where exported models lie: `models` in `home`, else in $GLAZE_TRT_HOME, else in the user's data folder."""
    chosen = home or os.environ.get("GLAZE_TRT_HOME") or platformdirs.user_data_dir("glaze-trt")
    return Path(chosen).expanduser() / "models"


def available() -> list[ModelFile]:
    """Every model with a readable manifest, built-in ones first. Checksums are left to `find`."""
    found: dict[tuple[str, Kind], ModelFile] = {}
    for path in _manifests():
        try:
            manifest = Manifest.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        onnx_path = path.with_suffix(".onnx")
        if onnx_path.is_file():
            model = ModelFile(manifest.name, manifest.kind, onnx_path, manifest)
            found.setdefault((model.name, model.kind), model)
    return list(found.values())


def find(name_or_path: str | os.PathLike[str], kind: Kind) -> ModelFile:
    """The model of that name, or the .onnx file at that path.

    Args:
        name_or_path: a name from `available`, `alex`, `vgg` or `squeeze`, or the path of any .onnx file. A file
            without a manifest beside it must have the ends that its kind asks for: `image` in and `latent` out for
            an encoder, `latent` and `image` for a decoder, `image` and `feature_0`, ... for a perceptual net.
        kind: what it is wanted for.

    Raises:
        ModelError: there is no such model, it is of another kind, or the file is damaged.
    """
    name = os.fspath(name_or_path)
    if name.lower().endswith(".onnx") or "/" in name or os.sep in name:
        return _from_path(Path(name).expanduser(), kind)
    name = ALIASES.get(name, name)
    for model in available():
        if (model.name, model.kind) == (name, kind):
            return _verified(model)
    raise ModelError(_not_found(name, kind))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifests() -> list[Path]:
    return [
        *sorted(Path(__file__).parent.glob("*.json")),
        *sorted(export_folder().glob("*.json")),
    ]


def _from_path(path: Path, kind: Kind) -> ModelFile:
    if not path.is_file():
        raise ModelError(f"{path}: {'is a folder, not a model file' if path.is_dir() else 'no such model file'}")
    manifest = _manifest_beside(path)
    if manifest is None:
        return _bare(path, kind)
    if manifest.kind != kind:
        article = "an" if kind == "encoder" else "a"
        raise ModelError(f"{path}: its manifest says {manifest.kind}, and {article} {kind} is needed")
    return _verified(ModelFile(manifest.name, kind, path, manifest))


def _manifest_beside(path: Path) -> Manifest | None:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        return Manifest.parse(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{beside}: not a model's manifest ({error}); export the model again, or remove it") from error


def _verified(model: ModelFile) -> ModelFile:
    try:
        intact = model.manifest.sha256 is None or sha256_of(model.path) == model.manifest.sha256
    except OSError as error:
        raise ModelError(f"{model.path}: cannot be read ({error.strerror})") from error
    if not intact:
        remedy = (
            f"make it again with `glaze-trt export {model.name}`"
            if model.path.parent == export_folder()
            else "install or copy it again"
        )
        raise ModelError(f"{model.path}: damaged: its checksum is not the manifest's; {remedy}")
    return model


def _bare(path: Path, kind: Kind) -> ModelFile:
    """A file without a manifest: one that has the right names, or an extractor with one input and one output."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's errors are its own and have no public root
        raise ModelError(f"{path}: not a readable ONNX file") from error
    if not graph.node:
        raise ModelError(f"{path}: not a readable ONNX file")
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    source, result = _PORTS[kind]
    outputs = [value.name for value in graph.output]
    ports = None
    if set(inputs) != {source} or result not in outputs:
        if kind != "encoder" or len(inputs) != 1 or len(outputs) != 1 or not _takes_pictures(*inputs.values()):
            raise ModelError(
                f"{path}: no manifest, and not one input (B, 3, H, W) with one output; bring an extractor in with "
                "`glaze-trt export NAME --onnx FILE --input-range 0,1`"
            )
        source = next(iter(inputs))
        ports = (source, outputs[0])
    axes = inputs[source].type.tensor_type.shape.dim[2:]
    fixed = tuple(axis.dim_value for axis in axes)
    size = (fixed[0], fixed[1]) if len(fixed) == 2 and all(fixed) else None
    multiple = 8 if kind == "encoder" and size is None else 1
    manifest = Manifest(path.stem, kind, multiple=multiple, minimum=multiple, size=size, ports=ports, source=path.name)
    return ModelFile(path.stem, kind, path, manifest)


def _takes_pictures(value: onnx.ValueInfoProto) -> bool:
    axes = value.type.tensor_type.shape.dim
    return len(axes) == 4 and axes[1].dim_value == 3


def _not_found(name: str, kind: Kind) -> str:
    if (manifest := export_folder() / f"{name}.json").is_file():
        try:
            found = Manifest.parse(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{manifest}: not a model's manifest ({error}); make it again with `glaze-trt export {name}`"
        if found.kind != kind:
            return f"{name} is not {_article(kind)}: it is {_article(found.kind)}"
        return f"{manifest.with_suffix('.onnx')}: missing; make it again with `glaze-trt export {name}`"
    if EXPORTABLE.get(name) == kind:
        return f"{name} is not on this machine yet: make it once with `glaze-trt export {name} --weights FILE`"
    here = [model.name for model in available() if model.kind == kind]
    names = sorted({*here, *(known for known, its_kind in EXPORTABLE.items() if its_kind == kind)})
    guess = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {guess[0]}?" if guess else f"known are {', '.join(names)}, and any path to an .onnx file"
    return f"no {kind} called {name!r}: {hint}"


def _article(kind: Kind) -> str:
    return {"encoder": "an encoder", "decoder": "a decoder", "perceptual": "a perceptual net"}[kind]
