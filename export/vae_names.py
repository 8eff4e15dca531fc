"""What the tensors of an autoencoder are called: from checkpoints and old releases to today's diffusers names.

Names only, no tensors. Three layouts are in use: the original checkpoints' (alone, or under `first_stage_model.`
in a whole Stable Diffusion file), diffusers', and diffusers' with the attention names it had before version 0.18.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_PREFIXES = ("first_stage_model.", "vae.")
_NOT_THE_NETWORK = ("loss.", "model_ema.")  # what training leaves in an autoencoder's own checkpoint

_CHECKPOINT = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
        (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
        (r"^decoder\.up\.(\d+)\.block\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
        (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
    )
)
_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_out": "to_out.0",
    "proj_attn": "to_out.0",
}
_ATTENTION_LAYER = re.compile(rf"(\.attentions\.\d+\.)({'|'.join(_ATTENTION)})\.")
_UP_BLOCK = re.compile(r"^decoder\.up_blocks\.(\d+)\.")


def to_diffusers(keys: Sequence[str]) -> Mapping[str, str]:
    """{name in the file: diffusers' name} of an autoencoder's tensors, alone or inside a larger checkpoint."""
    prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in keys)), "")
    names = {key: key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
    names = {key: name for key, name in names.items() if not name.startswith(_NOT_THE_NETWORK)}
    if any(name.startswith(("encoder.down.", "decoder.up.")) for name in names.values()):
        names = {key: _from_checkpoint(name) for key, name in names.items()}
        # Checkpoints count the decoder's blocks from the picture, diffusers from the latent.
        blocks = {int(match[1]) for name in names.values() if (match := _UP_BLOCK.match(name))}
        last = max(blocks, default=0)
        names = {key: _UP_BLOCK.sub(lambda m: f"decoder.up_blocks.{last - int(m[1])}.", n) for key, n in names.items()}
    return {key: _ATTENTION_LAYER.sub(_attention_layer, name) for key, name in names.items()}


def attention_weights(names: Iterable[str]) -> list[str]:
    """Those of the names that are weights of an attention's linear layers."""
    return [name for name in names if re.search(r"\.attentions\.\d+\.to_(q|k|v|out\.0)\.weight$", name)]


def checkpoint_family(keys: Iterable[str]) -> str | None:
    """`sd-vae` or `sdxl-vae` for a whole checkpoint, known by the text encoders that it holds; None for others."""
    tops = {key.partition(".")[0] for key in keys}
    if "conditioner" in tops:
        return "sdxl-vae"
    return "sd-vae" if "cond_stage_model" in tops else None


def _from_checkpoint(name: str) -> str:
    for pattern, replacement in _CHECKPOINT:
        name = pattern.sub(replacement, name)
    return name


def _attention_layer(match: re.Match[str]) -> str:
    return f"{match[1]}{_ATTENTION[match[2]]}."
