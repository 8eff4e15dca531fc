"""TAESD and TAESDXL, from the authors' files and from diffusers'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from export import export_model, taesd
from glaze_trt.errors import ModelError
from glaze_trt.models import find

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def network() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny().requires_grad_(False).eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))


def authors_names(network: AutoencoderTiny, part: str) -> State:
    """The authors' decoder has its input clamp as layer 0."""
    shift = part == "decoder"
    found = {}
    for key, value in getattr(network, part).layers.state_dict().items():
        index, rest = key.split(".", 1)
        found[f"{int(index) + shift}.{rest}"] = value
    return found


def halves(folder: Path, network: AutoencoderTiny) -> Path:
    for part in ("encoder", "decoder"):
        save_file(authors_names(network, part), folder / f"taesd_{part}.safetensors")
    return folder / "taesd_encoder.safetensors"


def whole(folder: Path, network: AutoencoderTiny) -> Path:
    both = {f"{p}.{key}": value for p in ("encoder", "decoder") for key, value in authors_names(network, p).items()}
    save_file(both, folder / "both.safetensors")
    return folder / "both.safetensors"


def diffusers_folder(folder: Path, network: AutoencoderTiny) -> Path:
    network.save_pretrained(folder / "mine")
    return folder / "mine"


def diffusers_file(folder: Path, network: AutoencoderTiny) -> Path:
    save_file(network.state_dict(), folder / "mine.safetensors")
    return folder / "mine.safetensors"


def folder_of_halves(folder: Path, network: AutoencoderTiny) -> Path:
    return halves(folder, network).parent


@pytest.mark.parametrize("layout", [halves, whole, diffusers_folder, diffusers_file, folder_of_halves])
def test_every_layout_gives_the_same_latents(
    layout: Callable[[Path, AutoencoderTiny], Path], tmp_path: Path, network: AutoencoderTiny, image: torch.Tensor
) -> None:
    encoder, decoder = taesd.load("taesd", layout(tmp_path, network))
    latent = network.encode(image * 2 - 1).latents
    torch.testing.assert_close(encoder.module(image), latent, atol=1e-6, rtol=1e-5)
    seen = (network.decode(latent).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoder.module(latent), seen, atol=1e-6, rtol=1e-5)


def test_an_export_is_found_and_checked(
    tmp_path: Path, network: AutoencoderTiny, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAZE_TRT_HOME", str(tmp_path / "home"))
    lines: list[str] = []
    export_model("taesdxl", weights=whole(tmp_path, network), progress=lines.append)
    assert "tracing taesdxl-decoder" in lines
    encoder, decoder = find("taesdxl", "encoder"), find("taesdxl", "decoder")
    assert encoder.manifest.latent_space == decoder.manifest.latent_space == "sdxl"
    assert encoder.manifest.scaling_factor == 1.0
    assert all(error is not None and 0 < error < 1e-4 for error in encoder.manifest.check.values())
    (latent,) = onnxruntime.InferenceSession(encoder.path).run(None, {"image": image.numpy()})
    np.testing.assert_allclose(latent, network.encode(image * 2 - 1).latents.numpy(), atol=1e-5)
    (seen,) = onnxruntime.InferenceSession(decoder.path).run(None, {"latent": latent})
    assert seen.shape == image.shape
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_an_encoder_alone_is_enough(tmp_path: Path, network: AutoencoderTiny) -> None:
    path = halves(tmp_path, network)
    (tmp_path / "taesd_decoder.safetensors").unlink()
    assert [each.kind for each in taesd.load("taesd", path)] == ["encoder"]


def test_a_decoder_alone_is_not(tmp_path: Path, network: AutoencoderTiny) -> None:
    halves(tmp_path, network)
    with pytest.raises(ModelError, match="holds the decoder only"):
        taesd.load("taesd", tmp_path / "taesd_decoder.safetensors")


def test_the_other_familys_file_is_refused(tmp_path: Path, network: AutoencoderTiny) -> None:
    path = halves(tmp_path, network).rename(tmp_path / "taesdxl_encoder.safetensors")
    with pytest.raises(ModelError, match="by its name the weights of taesdxl"):
        taesd.load("taesd", path)


def test_more_latent_channels_are_another_network(tmp_path: Path) -> None:
    path = halves(tmp_path, AutoencoderTiny(latent_channels=16))
    with pytest.raises(ModelError, match=r"not the weights of taesd: \S+ is \(16, .*in place of \(4,"):
        taesd.load("taesd", path)


def test_another_network(tmp_path: Path) -> None:
    save_file({"encoder.conv_in.weight": torch.zeros(4)}, tmp_path / "vae.safetensors")
    with pytest.raises(ModelError, match=r"not the weights of taesd: .*1 unknown, first encoder\.conv_in\.weight"):
        taesd.load("taesd", tmp_path / "vae.safetensors")
