"""The autoencoders, from every layout of their weights, against diffusers' own code."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file

from export import export_model, graph, keep, vae, vae_names
from glaze_trt.errors import ModelError, UsageError
from glaze_trt.models import find

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def network() -> AutoencoderKL:
    """Stable Diffusion's architecture, narrow, with every parameter random."""
    torch.manual_seed(0)
    made = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
    )
    for parameter in made.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.3, 0.3)
    return made.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def state(network: AutoencoderKL) -> State:
    return dict(network.state_dict())


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(1))


def latent(network: AutoencoderKL, image: torch.Tensor, scaling: float) -> torch.Tensor:
    return network.encode(image * 2 - 1).latent_dist.mean * scaling


def checkpoint_names(state: State) -> State:
    """The original checkpoints' names, as the inverse of what diffusers converts."""
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    made = {}
    for key, value in state.items():
        if match := re.match(r"(\w+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)$", key):
            key = f"{match[1]}.mid.attn_1.{attention[match[2]]}.{match[3]}"
            if value.ndim == 2:
                value = value[:, :, None, None]
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
        key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
        made[key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")] = value
    return made


def old_attention_names(state: State) -> State:
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {
        re.sub(r"attentions\.0\.(to_q|to_k|to_v|to_out\.0)\.", lambda m: f"attentions.0.{names[m[1]]}.", key): value
        for key, value in state.items()
    }


def write(path: Path, state: State) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def diffusers_folder(folder: Path, network: AutoencoderKL, variant: str | None = None) -> Path:
    network.save_pretrained(folder, variant=variant)
    return folder


def whole_checkpoint(path: Path, state: State) -> Path:
    inside = {f"first_stage_model.{key}": value for key, value in checkpoint_names(state).items()}
    around = {
        "model.diffusion_model.out.2.weight": torch.zeros(4, 4),
        "cond_stage_model.transformer.ln.weight": torch.zeros(4),
    }
    return write(path, inside | around)


def pickled(path: Path, state: State) -> Path:
    torch.save({"state_dict": state}, path)
    return path


LAYOUTS: dict[str, Callable[[Path, AutoencoderKL, State], Path]] = {
    "folder of the autoencoder": lambda home, net, _: diffusers_folder(home / "mine", net),
    "folder of a pipeline": lambda home, net, _: diffusers_folder(home / "pipe" / "vae", net).parent,
    "folder, fp16 variant": lambda home, net, _: diffusers_folder(home / "mine", net, variant="fp16"),
    "diffusers' names": lambda home, _, state: write(home / "a.safetensors", state),
    "former attention names": lambda home, _, state: write(home / "a.safetensors", old_attention_names(state)),
    "checkpoint's names": lambda home, _, state: write(home / "a.safetensors", checkpoint_names(state)),
    "whole checkpoint": lambda home, _, state: whole_checkpoint(home / "a.safetensors", state),
    "pickled tensors": lambda home, _, state: pickled(home / "a.ckpt", checkpoint_names(state)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_latents(
    layout: str, tmp_path: Path, network: AutoencoderKL, state: State, image: torch.Tensor
) -> None:
    encoder, decoder = vae.load("sd-vae", LAYOUTS[layout](tmp_path, network, state))
    expected = latent(network, image, 0.18215)
    torch.testing.assert_close(encoder.module(image), expected, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(encoder.reference(image)[0], expected)
    seen = (network.decode(expected / 0.18215).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoder.module(expected), seen, atol=1e-5, rtol=1e-5)


def test_half_precision_weights_are_widened(tmp_path: Path, state: State, image: torch.Tensor) -> None:
    half = {key: value.half() for key, value in state.items()}
    encoder, _ = vae.load("sd-vae", write(tmp_path / "half.safetensors", half))
    rounded, _ = vae.load("sd-vae", write(tmp_path / "same.safetensors", {k: v.float() for k, v in half.items()}))
    assert encoder.module(image).dtype == torch.float32
    torch.testing.assert_close(encoder.module(image), rounded.module(image))


def test_checkpoint_names_agree_with_diffusers(network: AutoencoderKL, state: State) -> None:
    theirs = convert_ldm_vae_checkpoint(checkpoint_names(state), network.config)
    assert set(theirs) == set(state)
    assert set(vae_names.to_diffusers(list(checkpoint_names(state))).values()) == set(state)


def test_an_encoder_alone_is_enough(tmp_path: Path, state: State, image: torch.Tensor, network: AutoencoderKL) -> None:
    part = {key: value for key, value in state.items() if key.startswith(("encoder.", "quant_conv."))}
    (encoder,) = vae.load("sdxl-vae", write(tmp_path / "encoder.safetensors", part))
    torch.testing.assert_close(encoder.module(image), latent(network, image, 0.13025), atol=2e-6, rtol=1e-5)
    assert encoder.latent_space == "sdxl"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, state: State) -> Path:
    """Where the autoencoder was exported to."""
    folder = tmp_path_factory.mktemp("home")
    kept = export_model("sd-vae", weights=write(folder / "mine.safetensors", state), home=folder)
    assert [(each.name, each.kind) for each in kept] == [("sd-vae", "encoder"), ("sd-vae", "decoder")]
    return folder


def test_an_export_is_found_and_computes_what_diffusers_computes(
    home: Path, network: AutoencoderKL, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAZE_TRT_HOME", str(home))
    encoder, decoder = find("sd-vae", "encoder"), find("sd-vae", "decoder")
    assert decoder.manifest.scaling_factor == 0.18215
    assert sorted(file.name for file in encoder.path.parent.iterdir()) == [
        "sd-vae-decoder.json",
        "sd-vae-decoder.onnx",
        "sd-vae.json",
        "sd-vae.onnx",
    ]
    manifest = encoder.manifest
    assert (manifest.latent_space, manifest.scaling_factor, manifest.multiple) == ("sd1", 0.18215, 8)
    assert manifest.source == "mine.safetensors"
    assert all(error is not None and 0 < error < 1e-4 for error in manifest.check.values())
    session = onnxruntime.InferenceSession(encoder.path)
    operators = {node.op_type for node in ir.load(encoder.path).graph}
    assert {"MatMul", "Softmax", "Conv"} <= operators
    assert operators.isdisjoint({"Attention", "ScatterND", "Pad", "If"})
    for picture in (image, torch.rand(1, 3, 8, 24), torch.rand(3, 3, 16, 16)):
        (found,) = session.run(["latent"], {"image": picture.numpy()})
        np.testing.assert_allclose(found, latent(network, picture, 0.18215).numpy(), atol=1e-5, rtol=1e-4)


def test_the_same_weights_give_the_same_file(home: Path) -> None:
    encoder, _ = vae.load("sd-vae", home / "mine.safetensors")
    again = ir.to_proto(graph.trace(encoder)).SerializeToString()
    assert again == (home / "models" / "sd-vae.onnx").read_bytes()


def test_a_graph_that_differs_from_its_reference_is_not_kept(tmp_path: Path, state: State) -> None:
    encoder, _ = vae.load("sd-vae", write(tmp_path / "a.safetensors", state))
    wrong = dataclasses.replace(encoder, reference=lambda image: (encoder.reference(image)[0] * 1.001,))
    with pytest.raises(ModelError, match="differs from its source"):
        keep.network(wrong, tmp_path / "models", lambda line: None)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_other_familys_folder_is_refused(tmp_path: Path, network: AutoencoderKL) -> None:
    folder = diffusers_folder(tmp_path / "vae", network)
    with pytest.raises(ModelError, match=r"0\.18215: these are the weights of sd-vae, not of sdxl-vae"):
        vae.load("sdxl-vae", folder)


def test_the_other_familys_checkpoint_is_refused(tmp_path: Path, state: State) -> None:
    with pytest.raises(ModelError, match="holds sd-vae, not sdxl-vae"):
        vae.load("sdxl-vae", whole_checkpoint(tmp_path / "a.safetensors", state))


def test_the_folders_own_scaling_factor_counts(tmp_path: Path, network: AutoencoderKL, image: torch.Tensor) -> None:
    folder = diffusers_folder(tmp_path / "vae", network)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"scaling_factor": 0.5, "shift_factor": 0.25}))
    encoder, decoder = vae.load("sd-vae", folder)
    expected = (latent(network, image, 1.0) - 0.25) * 0.5
    torch.testing.assert_close(encoder.module(image), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decoder.module(expected), decoder.reference(expected)[0], atol=1e-5, rtol=1e-5)


def test_the_model_card_states_the_licence(tmp_path: Path, network: AutoencoderKL) -> None:
    folder = diffusers_folder(tmp_path / "pipe" / "vae", network)
    (folder.parent / "README.md").write_text("---\nlicense: mit\ntags:\n- x\n---\n# A model\n")
    assert vae.load("sd-vae", folder.parent)[0].source.licence == "mit"


def another_network(path: Path, state: State) -> Path:
    return write(path, {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)})


def one_missing(path: Path, state: State) -> Path:
    return write(path, {key: value for key, value in state.items() if key != "encoder.conv_in.bias"})


def one_misshapen(path: Path, state: State) -> Path:
    return write(path, state | {"encoder.conv_in.weight": torch.zeros(32, 4, 3, 3)})


def not_finite(path: Path, state: State) -> Path:
    return write(path, state | {"encoder.conv_in.bias": torch.full((32,), float("nan"))})


def truncated(path: Path, state: State) -> Path:
    whole = write(path, state).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def text(path: Path, state: State) -> Path:
    path.write_text("<!doctype html>")
    return path


def pointer(path: Path, state: State) -> Path:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_network, r"not the weights of sd-vae: .*first encoder\.\S+; 2 unknown, first features\.0\.bias"),
        (one_missing, r"1 of \d+ tensors missing, first encoder\.conv_in\.bias$"),
        (one_misshapen, r"encoder\.conv_in\.weight is \(32, 4, 3, 3\) in place of \(32, 3, 3, 3\)"),
        (not_finite, r"encoder\.conv_in\.bias holds values that are not finite"),
        (truncated, "not a readable safetensors file"),
        (text, "not a readable safetensors file"),
        (pointer, "a Git LFS pointer"),
    ],
)
def test_unfit_weights_give_one_line(
    make: Callable[[Path, State], Path], message: str, tmp_path: Path, state: State
) -> None:
    path = make(tmp_path / "weights.safetensors", state)
    with pytest.raises(ModelError, match=message) as caught:
        export_model("sd-vae", weights=path, home=tmp_path / "home")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "home").exists()


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must not run",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Payload()}, tmp_path / "a.ckpt")
    with pytest.raises(ModelError, match="bring a .safetensors file"):
        vae.load("sd-vae", tmp_path / "a.ckpt")
    assert capsys.readouterr().out == ""


def test_a_hub_that_cannot_be_reached_says_which_file_to_bring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match=r"stabilityai/sdxl-vae .*bring diffusion_pytorch_model\.safetensors"
    ) as caught:
        export_model("sdxl-vae", home=tmp_path / "home")
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        vae.load("sd-vae", tmp_path / "nowhere.safetensors")
    with pytest.raises(ModelError, match="no safetensors file"):
        vae.load("sd-vae", tmp_path)


def test_a_home_that_cannot_be_written(tmp_path: Path, state: State) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ModelError, match="cannot be made"):
        export_model("sd-vae", weights=write(tmp_path / "a.safetensors", state), home=tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sd-vea", {}),
        ("taesd", {"input_range": "0,1"}),
        ("taesd", {"weights": ["a.safetensors", "b.safetensors"]}),
        ("mine", {"onnx": "a.onnx"}),
        ("mine", {"onnx": "a.onnx", "input_range": "0,255"}),
        ("taesd", {"onnx": "a.onnx", "input_range": "0,1"}),
        ("../mine", {"onnx": "a.onnx", "input_range": "0,1"}),
        ("mine", {"onnx": "a.onnx", "input_range": "0,1", "weights": "b.safetensors"}),
    ],
)
def test_arguments_that_contradict_each_other(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        export_model(name, **arguments)  # type: ignore[arg-type]


def test_loading_reads_only_the_autoencoder(tmp_path: Path, state: State) -> None:
    path = whole_checkpoint(tmp_path / "a.safetensors", state)
    names = vae_names.to_diffusers(list(load_file(path)))
    assert len(names) == len(state)
