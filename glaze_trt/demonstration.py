"""What must be said of a cloak that was made with built-in models: how much it is worth, as far as that was measured.

The figures are in the models' manifests (`measured`, written by `python -m bench.builtin`).
"""

from __future__ import annotations

from collections.abc import Sequence

from glaze_trt.models import Manifest


def note(encoders: Sequence[Manifest], perceptual: Manifest) -> str | None:
    """One line, or None where every model is a real one."""
    built_in = [manifest for manifest in encoders if manifest.demonstration]
    if built_in:
        return _of_encoder(built_in[0])
    return _of_perceptual(perceptual) if perceptual.demonstration else None


def _of_encoder(manifest: Manifest) -> str:
    share = manifest.cloaks.get("transfer")
    seen = (
        f"TAESD, of which it is a copy, sees {share:.0%} of its progress, and what the real one sees was not measured"
        if isinstance(share, float)
        else "what that sees of its progress was not measured"
    )
    return (
        f"The built-in model '{manifest.name}' is a small stand-in and no protection against the real encoder: {seen}. "
        "Get that once with `glaze-trt export sd-vae`, then cloak with `--model sd-vae`."
    )


def _of_perceptual(manifest: Manifest) -> str:
    real = manifest.cloaks.get("lpips_squeeze_at_budget")
    seen = f": where it says 0.050, LPIPS-squeeze says {real:.3f} on average" if isinstance(real, float) else ""
    return (
        f"The built-in perceptual net '{manifest.name}' is a small stand-in{seen}. "
        "Get a published one once with `glaze-trt export lpips-alex`, then cloak with `--perceptual alex`."
    )
