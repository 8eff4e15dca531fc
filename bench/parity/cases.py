"""The networks whose gradients are compared, each small in pixels and real in architecture.

A case is a module and its input shapes. Weights are seeded unless `--weights` brings trained ones. What is done with
a case is in `oracle.py` (torch's side) and `__main__.py` (the engine's).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.networks import SDXL_SCALING, Distance, kl_encoder, lpips_network, seeded, taesd

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A network to differentiate: `build(weights folder)` and the shape of each named input."""

    name: str
    group: str
    build: Callable[[Path | None], nn.Module]
    shapes: Mapping[str, Shape]
    note: str = ""


class Output(nn.Module):
    """Picks one tensor out of what a segmentation or a `transformers` model returns."""

    def __init__(self, network: nn.Module, key: str) -> None:
        super().__init__()
        self.network = network
        self.key = key

    def forward(self, image: Tensor) -> Tensor:
        """That tensor."""
        value: Tensor = self.network(image)[self.key]
        return value


def _calibrated(network: nn.Module, shape: Shape) -> nn.Module:
    """Gives batch normalisation the statistics of one random batch, so that activations keep a natural scale."""
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
    if not norms:
        return network
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        network(torch.rand(8, *shape[1:]))
    return network.eval()


def _vision(name: str, shape: Shape = (2, 3, 64, 64), note: str = "", key: str | None = None, **kwargs: Any) -> Case:
    def build(_: Path | None) -> nn.Module:
        import torchvision.models

        def make() -> nn.Module:
            network: nn.Module = torchvision.models.get_model(name, weights=None, **kwargs)
            if name.startswith(("vgg", "alexnet")):  # their classifier's adaptive pooling has no ONNX form at this size
                network = network.get_submodule("features")
            return network if key is None else Output(network, key)

        return _calibrated(seeded(make, seed=0), shape)

    return Case(name, "torchvision", build, {"image": shape}, note)


def _maxvit(_: Path | None) -> nn.Module:
    from torchvision.models import MaxVit

    def make() -> nn.Module:
        network: nn.Module = MaxVit(
            input_size=(64, 64), stem_channels=32, partition_size=4, block_channels=[32, 64], block_layers=[2, 2],
            head_dim=16, stochastic_depth_prob=0.0, num_classes=10,
        )  # fmt: skip
        return network

    return _calibrated(seeded(make, seed=0), (2, 3, 64, 64))


def _transformer(name: str, key: str = "last_hidden_state", **config: Any) -> Callable[[Path | None], nn.Module]:
    def build(_: Path | None) -> nn.Module:
        import transformers

        def make() -> nn.Module:
            settings = getattr(transformers, f"{name}Config")(**config)
            return Output(getattr(transformers, f"{name}Model")(settings), key)

        return seeded(make, seed=0)

    return build


def _deep_compression(_: Path | None) -> nn.Module:
    from diffusers import AutoencoderDC

    def make() -> nn.Module:
        network: Any = AutoencoderDC(  # type: ignore[no-untyped-call]
            latent_channels=8, attention_head_dim=16,
            encoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(32, 64, 64), decoder_block_out_channels=(32, 64, 64),
            encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), (5,)), decoder_qkv_multiscales=((), (), (5,)),
        )  # fmt: skip
        encoder: nn.Module = network.encoder
        return encoder

    return seeded(make, seed=0)


def _vector_quantised(_: Path | None) -> nn.Module:
    from diffusers import VQModel

    def make() -> nn.Module:
        network: Any = VQModel(  # type: ignore[no-untyped-call]
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            block_out_channels=(32, 64), latent_channels=3,
        )  # fmt: skip
        return nn.Sequential(network.encoder, network.quant_conv)

    return seeded(make, seed=0)


class FaceResidual(nn.Module):
    """A face embedding in miniature, as ArcFace's IR nets: PReLU, batch norm first, linear head, unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16))
        self.residual = nn.Sequential(
            nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16),
            nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.shortcut = nn.MaxPool2d(1, 2)
        self.head = nn.Sequential(nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16 * 28 * 28, 64))

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings, (B, 64), of length 1."""
        hidden = self.stem(image)
        return nn.functional.normalize(self.head(self.residual(hidden) + self.shortcut(hidden)))


def _lpips(net: str) -> Case:
    shapes = {"image": (1, 3, 64, 64), "reference": (1, 3, 64, 64)}
    return Case(f"lpips-{net}", "required", lambda folder: Distance(lpips_network(net, folder)), shapes)


def all_cases() -> list[Case]:
    """Every case, the ones that must hold first."""
    image: dict[str, Shape] = {"image": (1, 3, 64, 64)}
    return [
        Case("sd-vae", "required", lambda _: kl_encoder(), image),
        Case("sdxl-vae", "required", lambda _: kl_encoder(SDXL_SCALING, seed=1), {"image": (1, 3, 64, 96)}),
        Case("taesd", "required", lambda folder: taesd(folder), image),
        *(_lpips(net) for net in ("alex", "vgg", "squeeze")),
        _vision("resnet18"),
        _vision("resnext50_32x4d", (1, 3, 64, 64), "grouped convolution"),
        _vision("vgg11_bn"),
        _vision("densenet121"),
        _vision("googlenet", note="ceil-mode pooling", init_weights=True, aux_logits=False),
        _vision("inception_v3", (2, 3, 96, 96), init_weights=True, aux_logits=False),
        _vision("squeezenet1_0", note="ceil-mode pooling"),
        _vision("mobilenet_v2"),
        _vision("mobilenet_v3_small", note="hard-swish, squeeze and excitation"),
        _vision("mnasnet0_5"),
        _vision("shufflenet_v2_x0_5", note="channel shuffle"),
        _vision("regnet_y_400mf", note="grouped convolution"),
        _vision("efficientnet_b0"),
        _vision("convnext_tiny", note="LayerNorm over channels"),
        _vision("vit_b_16", (1, 3, 64, 64), "transformer", image_size=64),
        _vision("swin_t", (1, 3, 64, 64), "shifted windows"),
        _vision("swin_v2_t", (1, 3, 64, 64), "cosine attention"),
        Case("maxvit", "torchvision", _maxvit, {"image": (2, 3, 64, 64)}, "block and grid attention"),
        _vision("deeplabv3_mobilenet_v3_large", (1, 3, 64, 64), "dilated, Resize", key="out", weights_backbone=None),
        _vision("lraspp_mobilenet_v3_large", (1, 3, 64, 64), "Resize", key="out", weights_backbone=None),
        _vision("r3d_18", (1, 3, 8, 32, 32), "3-D convolution"),
        Case("dc-ae", "further", _deep_compression, image, "linear attention, RMSNorm, pixel unshuffle"),
        Case("vq-encoder", "further", _vector_quantised, image),
        Case("face-residual", "further", lambda _: _calibrated(seeded(FaceResidual, 0), (1, 3, 56, 56)),
             {"image": (1, 3, 56, 56)}, "PReLU, unit length"),
        Case("clip-vision", "further", _transformer(
            "CLIPVision", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            image_size=64, patch_size=16), image, "quick GELU"),
        Case("dinov2", "further", _transformer(
            "Dinov2", hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14),
            {"image": (1, 3, 84, 84)}, "cubic Resize of positions"),
        Case("segformer", "further", _transformer(
            "Segformer", num_encoder_blocks=2, depths=[1, 1], sr_ratios=[4, 2], hidden_sizes=[16, 32],
            patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2]), image),
        Case("convnextv2", "further", _transformer(
            "ConvNextV2", hidden_sizes=[16, 32], depths=[1, 1], num_stages=2), image, "response normalisation"),
        Case("swin2sr", "further", _transformer(
            "Swin2SR", image_size=32, embed_dim=24, depths=[2], num_heads=[2], window_size=8), image),
    ]  # fmt: skip
