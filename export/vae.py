"""The Stable Diffusion and SDXL autoencoders, from every layout that their weights are passed around in.

The encoder's graph gives the latent's mean times the scaling factor and nothing else: the variance half, the 1×1
`quant_conv` and the factor are folded into the last convolution. What the names in a file mean is `vae_names`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from export import vae_names, weights
from export.network import Network
from glaze_trt.errors import ModelError

SCALING = {"sd-vae": 0.18215, "sdxl-vae": 0.13025}
"""Latent units per unit of the encoder's mean, as the two families of diffusion models were trained."""

_SPACES = {"sd-vae": "sd1", "sdxl-vae": "sdxl"}
_HUB = {"sd-vae": "stabilityai/sd-vae-ft-mse", "sdxl-vae": "stabilityai/sdxl-vae"}
_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
_HUB_FILES = ("README.md", "config.json", "vae/config.json", f"vae/{_FILES[1]}", f"vae/{_FILES[0]}", _FILES[0])


def load(name: str, given: str | Path | None) -> list[Network]:
    """The encoder, and the decoder where the weights hold one.

    Args:
        name: `sd-vae` or `sdxl-vae`.
        given: A diffusers folder (the VAE's or the whole pipeline's), a weights file, a hub id, or None.

    Raises:
        ModelError: no such weights, or another network's.
    """
    place, hub = weights.locate(given, _HUB[name], _HUB_FILES)
    config: dict[str, Any] = {}
    path = place
    if place.is_dir():
        folder = place / "vae" if (place / "vae").is_dir() else place
        path = weights.pick(folder, _FILES)
        config = _config(folder / "config.json")
    state = weights.read(path, partial(_rename, name, path))
    for key in vae_names.attention_weights(state):
        state[key] = state[key].flatten(1)  # 1×1 convolutions in checkpoints, linear layers in diffusers
    scaling = _scaling(name, config, path)
    architecture = _architecture(state) | {key: config[key] for key in _ARCHITECTURE if key in config}
    has_decoder = any(key.startswith("decoder.") for key in state)
    with torch.device("meta"):
        vae: Any = AutoencoderKL(**architecture)  # type: ignore[no-untyped-call]
    if not has_decoder:
        del vae.decoder
        vae.post_quant_conv = None
    weights.fit(vae, state, name, str(path))
    shift = float(config.get("shift_factor") or 0.0)
    latents = int(vae.config["latent_channels"])
    multiple = 2 ** (len(vae.config["block_out_channels"]) - 1)
    source = weights.describe([path], hub)
    both = partial(
        Network,
        name,
        source=source,
        latent_space=_SPACES[name],
        scaling_factor=scaling,
        shift_factor=shift,
        fp16=name != "sdxl-vae",
    )

    def encode(image: Tensor) -> tuple[Tensor]:
        return ((vae.encode(image * 2 - 1).latent_dist.mean - shift) * scaling,)

    def decode(latent: Tensor) -> tuple[Tensor]:
        return ((vae.decode(latent / scaling + shift).sample / 2 + 0.5).clamp(0, 1),)

    encoder = both(
        kind="encoder",
        module=Encoder(vae, scaling, shift),
        reference=encode,
        outputs=("latent",),
        multiple=multiple,
        minimum=multiple,
        input_range="-1,1",
    )
    if not has_decoder:
        return [encoder]
    decoder = both(
        kind="decoder",
        module=Decoder(vae, scaling, shift),
        reference=decode,
        input="latent",
        channels=latents,
        outputs=("image",),
    )
    return [encoder, decoder]


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) in [0,1] to scaled latent means (B, C, H/8, W/8)."""

    def __init__(self, vae: Any, scaling: float, shift: float) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(vae.encoder)
        _spell_out_attention(self.encoder.mid_block)
        last: nn.Conv2d = self.encoder.conv_out
        weight, bias = last.weight.double(), _bias(last)
        if (quant := vae.quant_conv) is not None:
            mixing = quant.weight.double().flatten(1)
            weight, bias = torch.einsum("om,mihw->oihw", mixing, weight), mixing @ bias + _bias(quant)
        mean = slice(0, weight.shape[0] // 2)  # the second half is the logarithm of the variance
        self.encoder.conv_out = _like(last, weight[mean] * scaling, (bias[mean] - shift) * scaling)

    def forward(self, image: Tensor) -> Tensor:
        """The latents."""
        # Not folded into the first convolution: its zero padding is grey here and would become black.
        latent: Tensor = self.encoder(torch.add(image * 2.0, -1.0))
        return latent


class Decoder(nn.Module):
    """Scaled latents (B, C, h, w) to pictures (B, 3, 8h, 8w), clipped to [0,1]."""

    def __init__(self, vae: Any, scaling: float, shift: float) -> None:
        super().__init__()
        self.decoder = copy.deepcopy(vae.decoder)
        _spell_out_attention(self.decoder.mid_block)
        latents = int(vae.config["latent_channels"])
        post = vae.post_quant_conv
        mixing = torch.eye(latents).double() if post is None else post.weight.double().flatten(1)
        bias = mixing.sum(1) * shift + (0.0 if post is None else _bias(post))
        self.unscale = _like(nn.Conv2d(latents, latents, 1), mixing[:, :, None, None] / scaling, bias)
        last: nn.Conv2d = self.decoder.conv_out
        self.decoder.conv_out = _like(last, last.weight.double() * 0.5, _bias(last) * 0.5 + 0.5)

    def forward(self, latent: Tensor) -> Tensor:
        """The pictures."""
        image: Tensor = self.decoder(self.unscale(latent))
        return image.clamp(0.0, 1.0)


class SpatialAttention(nn.Module):
    """Single-head attention over all positions, as three matrix products that every engine and rule knows.

    The scale 1/√C is folded into the queries.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        assert attention.heads == 1
        assert attention.residual_connection
        assert attention.rescale_output_factor == 1
        self.norm: nn.Module = attention.group_norm
        self.key: nn.Module = attention.to_k
        self.value: nn.Module = attention.to_v
        self.out: nn.Module = attention.to_out[0]
        query: nn.Linear = copy.deepcopy(attention.to_q)
        query.weight.mul_(query.in_features**-0.5)
        query.bias.mul_(query.in_features**-0.5)
        self.query = query

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        """(B, C, H, W) to the same."""
        batch, channels, height, width = x.shape
        tokens = self.norm(x).reshape(batch, channels, height * width).transpose(1, 2)
        scores = self.query(tokens) @ self.key(tokens).transpose(1, 2)
        mixed: Tensor = self.out(torch.softmax(scores, dim=-1) @ self.value(tokens))
        mixed = mixed.transpose(1, 2).reshape(batch, channels, height, width)
        return x + mixed


_ARCHITECTURE = (
    "block_out_channels",
    "down_block_types",
    "up_block_types",
    "layers_per_block",
    "latent_channels",
    "norm_num_groups",
    "use_quant_conv",
    "use_post_quant_conv",
    "mid_block_add_attention",
)


def _architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors' shapes say; Stable Diffusion's own where they say nothing."""
    widths: list[int] = []
    while (key := f"encoder.down_blocks.{len(widths)}.resnets.0.conv1.weight") in state:
        widths.append(int(state[key].shape[0]))
    widths = widths or [128, 256, 512, 512]
    layers = sum(f"encoder.down_blocks.0.resnets.{i}.conv1.weight" in state for i in range(8))
    last = state.get("encoder.conv_out.weight")
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": layers or 2,
        "latent_channels": 4 if last is None else int(last.shape[0]) // 2,
        "norm_num_groups": 32,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
    }


def _config(path: Path) -> dict[str, Any]:
    """A diffusers configuration, empty where the folder has none."""
    if not path.is_file():
        return {}
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("_class_name", "AutoencoderKL")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not a diffusers configuration") from error
    if kind != "AutoencoderKL":
        raise ModelError(f"{path}: describes {kind}, and an AutoencoderKL is needed")
    return config


def _scaling(name: str, config: Mapping[str, Any], path: Path) -> float:
    stated = float(config.get("scaling_factor") or SCALING[name])
    for other, factor in SCALING.items():
        if other != name and abs(stated - factor) < 1e-6:
            raise ModelError(f"{path}: scaling factor {stated}: these are the weights of {other}, not of {name}")
    return stated


def _rename(name: str, path: Path, keys: Sequence[str]) -> Mapping[str, str]:
    family = vae_names.checkpoint_family(keys)
    if family is not None and family != name:
        raise ModelError(f"{path}: a checkpoint that holds {family}, not {name}")
    return vae_names.to_diffusers(keys)


def _spell_out_attention(mid_block: Any) -> None:
    for index, attention in enumerate(mid_block.attentions):
        if attention is not None:
            mid_block.attentions[index] = SpatialAttention(attention)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.double()


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the same geometry with other weights."""
    made = copy.deepcopy(conv)
    made.out_channels = weight.shape[0]
    made.weight = nn.Parameter(weight.float(), requires_grad=False)
    made.bias = nn.Parameter(bias.float(), requires_grad=False)
    return made
