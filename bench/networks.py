"""The torch networks that the benchmarks run: VAE encoders, TAESD and LPIPS.

Weights come from a folder named by option (`--weights DIR`) or by `GLAZE_BENCH_WEIGHTS`; a network whose file is not
there gets seeded random weights of the real architecture: times and gradient errors mean the same, picture quality
does not. Not for export: the product's own exporters are in `export/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTS_ENV = "GLAZE_BENCH_WEIGHTS"
SD_SCALING, SDXL_SCALING = 0.18215, 0.13025


def weights_folder(option: Path | None) -> Path | None:
    """The folder of weights: the option, else the environment variable, else None (seeded weights)."""
    if option is not None:
        if not option.is_dir():
            raise SystemExit(f"--weights {option}: no such folder; leave it out to run on seeded weights")
        return option
    named = os.environ.get(WEIGHTS_ENV)
    return Path(named) if named else None


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """`build()` under a fixed seed, frozen, in eval mode, with no parameter left at a constant.

    A fresh norm multiplies by 1 and adds 0, some heads and layer scales begin at (nearly) 0: each would hide a gradient
    that forgets the term. Parameters whose entries are all equal are moved off it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


class KLEncoder(nn.Module):
    """Stable Diffusion's encoder: image (B, 3, H, W) in [0,1] → scaled latent mean (B, 4, H/8, W/8)."""

    def __init__(self, vae: Any, scaling: float) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv
        self.scaling = scaling

    def forward(self, image: Tensor) -> Tensor:
        """The scaled latent mean."""
        moments: Tensor = self.quant_conv(self.encoder(image * 2 - 1))
        return moments.chunk(2, dim=1)[0] * self.scaling


def kl_encoder(scaling: float = SD_SCALING, seed: int = 0) -> nn.Module:
    """The encoder of the SD 1.x VAE (SDXL's is the same network with another scaling), seeded weights."""
    from diffusers import AutoencoderKL

    def build() -> nn.Module:
        vae = AutoencoderKL(  # type: ignore[no-untyped-call]
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
        )
        return KLEncoder(vae, scaling)

    return seeded(build, seed)


def taesd(folder: Path | None = None, name: str = "taesd", seed: int = 0) -> nn.Module:
    """TAESD's encoder: image (B, 3, H, W) in [0,1] → scaled latent (B, 4, H/8, W/8)."""
    from diffusers.models.autoencoders.vae import EncoderTiny

    def build() -> nn.Module:
        layers: nn.Module = EncoderTiny(3, 4, (1, 3, 3, 3), (64, 64, 64, 64), "relu").layers
        return layers

    network = seeded(build, seed)
    state = _read(folder, f"{name}_encoder.safetensors")
    if state is not None:
        network.load_state_dict(state)
    return network


def lpips_network(net: str, folder: Path | None = None, seed: int = 0) -> Any:
    """The `lpips` package's own network (linear layers of v0.1); its trunk is seeded where no file is given."""
    import lpips

    def build() -> nn.Module:
        network: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        return network

    network = seeded(build, seed)
    state = _read(folder, f"lpips_{net}_v01.safetensors")
    if state is not None:
        network.load_state_dict(state)
    return network


class Distance(nn.Module):
    """LPIPS between two pictures in [0,1], both (1, 3, H, W), as a scalar."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """LPIPS, (1, 1, 1, 1)."""
        value: Tensor = self.network(image, reference, normalize=True)
        return value


class DistanceFrom(nn.Module):
    """LPIPS from one fixed picture, whose features are computed once: image (1, 3, H, W) in [0,1] → scalar.

    Half the forward work of calling the `lpips` package at every step, and the same number.
    """

    def __init__(self, network: Any, reference: Tensor) -> None:
        super().__init__()
        self.network = network
        with torch.no_grad():
            self.reference = self._features(reference)

    def _features(self, image: Tensor) -> list[Tensor]:
        outputs = self.network.net(self.network.scaling_layer(image * 2 - 1))
        return [nn.functional.normalize(output.float(), dim=1, eps=1e-10) for output in outputs]

    def forward(self, image: Tensor) -> Tensor:
        """LPIPS as a scalar."""
        layers = zip(self._features(image), self.reference, self.network.lins, strict=True)
        # The linear layer is a 1 × 1 convolution to one channel: the dot product with its weights, kept in float32.
        parts = [((a - b).square().mean((2, 3)) * lin.model[-1].weight.float().flatten()).sum() for a, b, lin in layers]
        return torch.stack(parts).sum()


def _read(folder: Path | None, name: str) -> dict[str, Tensor] | None:
    if folder is None or not (folder / name).is_file():
        return None
    from safetensors.torch import load_file

    state: dict[str, Tensor] = load_file(folder / name)
    return state
