"""TAESD and TAESDXL, the tiny autoencoders that stand in for the Stable Diffusion and SDXL ones.

https://github.com/madebyollin/taesd. Pictures are in [0,1] and latents scaled already, so nothing needs folding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from export import weights
from export.network import Network
from glaze_trt.errors import ModelError

_SPACES = {"taesd": "sd1", "taesdxl": "sdxl"}
_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_NAME = re.compile(r"^(?:taesd_)?(?P<part>encoder|decoder)\.(?P<layers>layers\.)?(?P<index>\d+)\.(?P<rest>.+)$")
_BARE = re.compile(r"^(?P<index>\d+)\.(?P<rest>.+)$")


def load(name: str, given: str | Path | None) -> list[Network]:
    """The encoder, and the decoder where the weights hold one.

    Args:
        name: `taesd` or `taesdxl`.
        given: A file of both halves, `*_encoder.safetensors` (the `*_decoder` beside it is taken too), a folder with
            either, a hub id, or None.

    Raises:
        ModelError: no such weights, or another network's.
    """
    place, hub = weights.locate(given, f"madebyollin/{name}", ("README.md", "config.json", _FILES[0]))
    paths = _files(name, place)
    if name == "taesd" and "taesdxl" in paths[0].name.lower():
        raise ModelError(f"{paths[0]}: by its name the weights of taesdxl, not of {name}")
    state: weights.State = {}
    for path in paths:
        state |= weights.read(path, to_diffusers)
    has_decoder = any(key.startswith("decoder.") for key in state)
    if has_decoder and not any(key.startswith("encoder.") for key in state):
        raise ModelError(f"{paths[0]}: holds the decoder only; bring {name}_encoder.safetensors")
    with torch.device("meta"):
        tiny: Any = AutoencoderTiny()  # type: ignore[no-untyped-call]
    if not has_decoder:
        del tiny.decoder
    weights.fit(tiny, state, name, " + ".join(map(str, paths)))
    source = weights.describe(paths, hub)

    def encode(image: Tensor) -> tuple[Tensor]:
        return (tiny.encode(image * 2 - 1).latents,)

    def decode(latent: Tensor) -> tuple[Tensor]:
        return ((tiny.decode(latent).sample / 2 + 0.5).clamp(0, 1),)

    encoder = Network(
        name,
        "encoder",
        tiny.encoder.layers,
        encode,
        source,
        ("latent",),
        multiple=8,
        minimum=8,
        latent_space=_SPACES[name],
        input_range="0,1",
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    if not has_decoder:
        return [encoder]
    decoder = Network(
        name,
        "decoder",
        Decoder(tiny.decoder.layers),
        decode,
        source,
        ("image",),
        input="latent",
        channels=4,
        latent_space=_SPACES[name],
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    return [encoder, decoder]


class Decoder(nn.Module):
    """Scaled latents (B, 4, h, w), softly limited to ±3, to pictures (B, 3, 8h, 8w) clipped to [0,1]."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, latent: Tensor) -> Tensor:
        """The pictures."""
        image: Tensor = self.layers(torch.tanh(latent / 3) * 3)
        return image.clamp(0.0, 1.0)


def to_diffusers(keys: Sequence[str]) -> Mapping[str, str]:
    """{name in the file: diffusers' name}, from the authors' files (one half or both) or from diffusers' own.

    The authors' decoder counts its input clamp as layer 0; diffusers does not.
    """
    bare_part = "encoder" if any(key.startswith("0.") for key in keys) else "decoder"
    names = {}
    for key in keys:
        match = _NAME.match(key) or _BARE.match(key)
        groups = match.groupdict() if match else {}
        if match is None:
            names[key] = key
            continue
        part = groups.get("part") or bare_part
        shift = 1 if part == "decoder" and not groups.get("layers") else 0
        names[key] = f"{part}.layers.{int(match['index']) - shift}.{match['rest']}"
    return names


def _files(name: str, place: Path) -> list[Path]:
    if place.is_dir():
        halves = f"{name}_encoder.safetensors"
        place = weights.pick(place, (*_FILES, halves))
    if "encoder" not in place.name:
        return [place]
    beside = place.with_name(place.name.replace("encoder", "decoder"))
    return [place, beside] if beside.is_file() else [place]
