"""Repainting by diffusion, through a Stable Diffusion pipeline of a few thousand seeded weights; no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from huggingface_hub import constants
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from glaze_trt.errors import StyleError, UsageError
from glaze_trt.styles.diffusion import Diffusion, Stylizer, restyle
from glaze_trt.styles.kept import Targets
from tests.glaze_trt.scene import scene

PICTURE = scene(32, 40)


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Knows letters, alone and at the end of a word."""
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = ends + [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as the hub's Stable Diffusion folders are, text-to-image by its index."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    blocks = (8, 8, 8, 8)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=blocks,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=4,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=54,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        ),
        tokenizer=tokenizer(folder / "tokenizer"),
        unet=UNet2DConditionModel(
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            sample_size=8,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "tiny")
    return str(folder / "tiny")


def settings(model: str, **changed: object) -> Diffusion:
    return Diffusion(**({"prompt": "cubism", "model": model, "steps": 6, "strength": 0.5} | changed))  # type: ignore[arg-type]


def test_the_settings_decide(model: str) -> None:
    first = restyle(PICTURE, settings(model))
    assert (first != PICTURE).any()
    np.testing.assert_array_equal(restyle(PICTURE, settings(model)), first)
    for changed in ({"prompt": "fauvism"}, {"seed": 1}, {"guidance": 2.0}, {"strength": 0.9}, {"steps": 8}):
        assert (restyle(PICTURE, settings(model, **changed)) != first).any(), changed


def test_the_stronger_the_farther(model: str) -> None:
    """From what the autoencoder alone would make, which one step of fifty comes near."""
    still, some, much = (
        restyle(PICTURE, settings(model, steps=50, strength=strength)).astype(float) for strength in (0.02, 0.2, 0.9)
    )
    assert 0 < np.abs(some - still).mean() < np.abs(much - still).mean()


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 41), (64, 8)])
def test_any_size_comes_back_as_it_was(model: str, size: tuple[int, int]) -> None:
    made = restyle(scene(*size), settings(model))
    assert made.shape == (*size, 3)
    assert made.dtype == np.uint8


def test_a_grown_edge_is_a_mirror_and_is_cut(model: str) -> None:
    """A picture of whole cells and the same one with its mirrored edge already there are one picture to the model."""
    odd = scene(29, 40)
    grown = np.concatenate([odd, odd[:-4:-1]])
    np.testing.assert_array_equal(restyle(odd, settings(model)), restyle(grown, settings(model))[:29])


def test_without_guidance_the_models_own_scheduler_runs(model: str) -> None:
    steps: list[tuple[int, int]] = []
    Stylizer(settings(model, steps=4, guidance=0.0))(PICTURE, on_step=lambda done, total: steps.append((done, total)))
    assert len(steps) == 3  # PNDM takes its second step twice; the DPM-Solver would have taken two
    turbo = Diffusion.usual("cubism", "somebody/sd-turbo")
    assert (turbo.steps, turbo.guidance, turbo.steps_run) == (4, 0.0, 1)
    assert Diffusion.usual("cubism", "somebody/sd-turbo", steps=2, strength=0.5).steps_run == 1
    assert Diffusion.usual("cubism") == Diffusion("cubism")


def test_steps_are_told(model: str) -> None:
    steps: list[tuple[int, int]] = []
    Stylizer(settings(model))(PICTURE, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_kept_target_needs_no_model(model: str, tmp_path: Path) -> None:
    ran: list[int] = []

    def made(changed: Diffusion | None = None) -> tuple[np.ndarray, bool]:
        ran.clear()
        stylizer = Stylizer(changed or settings(model), Targets(tmp_path))
        return stylizer(PICTURE, on_step=lambda done, total: ran.append(done)), bool(ran)

    first, worked = made()
    assert worked
    again, worked = made()
    assert not worked
    np.testing.assert_array_equal(again, first)
    assert made(settings(model, seed=1))[1]
    for path in tmp_path.glob("*.png"):
        path.write_bytes(path.read_bytes()[:-40])
    again, worked = made()
    assert worked
    np.testing.assert_array_equal(again, first)
    assert not made()[1]


def test_other_weights_in_the_same_folder_are_another_target(model: str, tmp_path: Path) -> None:
    ran: list[int] = []
    Stylizer(settings(model), Targets(tmp_path))(PICTURE)
    weights = Path(model) / "unet" / "diffusion_pytorch_model.safetensors"
    times = weights.stat()
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    try:
        Stylizer(settings(model), Targets(tmp_path))(PICTURE, on_step=lambda done, total: ran.append(done))
    finally:
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ran


def test_one_stylizer_repaints_many(model: str, tmp_path: Path) -> None:
    stylizer = Stylizer(settings(model), Targets(tmp_path))
    first = stylizer(PICTURE)
    other = stylizer(scene(32, 40, seed=9))
    assert (first != other).any()
    np.testing.assert_array_equal(restyle(scene(32, 40, seed=9), settings(model)), other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strength": 0.1}, "leaves none to run: take at least 10 steps"),
        ({"strength": 0.0}, "a strength of 0"),
        ({"strength": 1.5}, "a strength of 1.5"),
        ({"steps": 0}, "leaves none to run"),
        ({"guidance": -1.0}, "a guidance of -1"),
        ({"guidance": float("nan")}, "a guidance of nan"),
        ({"seed": -1}, "the seed -1"),
        ({"prompt": " "}, "a style in words"),
    ],
)
def test_settings_that_cannot_be_run(changed: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings("somewhere", **changed)


def refusal(model: str, **changed: object) -> str:
    with pytest.raises(StyleError) as refused:
        restyle(PICTURE, settings(model, **changed))
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_folders_that_are_no_pipeline(model: str, tmp_path: Path) -> None:
    assert "no model_index.json" in refusal(str(tmp_path))
    assert "no such folder" in refusal(str(tmp_path / "a" / "b"))
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert "a folder in diffusers' layout is needed" in refusal(str(tmp_path / "model.ckpt"))
    half = tmp_path / "half"
    half.mkdir()
    (half / "model_index.json").write_text((Path(model) / "model_index.json").read_text())
    assert "cannot be loaded" in refusal(str(half))
    (half / "model_index.json").write_text("{}")
    assert "cannot be loaded" in refusal(str(half))
    (half / "model_index.json").write_text("nothing")
    assert "cannot be loaded" in refusal(str(half))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub client's cache, empty, with the hub away."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_that_cannot_be_reached(hub: Path) -> None:
    message = refusal("nobody/has-such-a-model")
    assert message.startswith("nobody/has-such-a-model: not on this machine")
    assert "name a folder" in message


def test_a_model_that_was_fetched_before_needs_no_hub(
    model: str, hub: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repository = hub / "models--somebody--tiny"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    ran: list[int] = []
    for commit, fresh in (("a" * 40, True), ("a" * 40, False), ("b" * 40, True)):
        (repository / "refs" / "main").write_text(commit)
        ran.clear()
        stylizer = Stylizer(settings("somebody/tiny"), Targets(tmp_path / "targets"))
        made = stylizer(PICTURE, on_step=lambda done, total: ran.append(done))
        assert bool(ran) is fresh
        np.testing.assert_array_equal(made, restyle(PICTURE, settings(model)))
    assert capfd.readouterr() == ("", "")


def test_a_blanked_result_is_no_target(model: str, tmp_path: Path) -> None:
    """A safety checker to which everything is suspect paints black."""
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config={**tower, "image_size": 16, "patch_size": 8}, text_config=tower, projection_dim=16)
    )
    checker.concept_embeds_weights.data.fill_(-2.0)
    size = {"height": 16, "width": 16}
    StableDiffusionPipeline.from_pretrained(
        model,
        safety_checker=checker,
        feature_extractor=CLIPImageProcessor(size=size, crop_size=size),
        requires_safety_checker=True,
    ).save_pretrained(tmp_path / "strict")
    assert "safety checker" in refusal(str(tmp_path / "strict"))


def test_a_device_that_is_not_there(model: str) -> None:
    assert "no device 'cuda:77' here; use auto, or cpu" in refusal(model, device="cuda:77")
    assert "no device 'abacus' here" in refusal(model, device="abacus")


def test_memory_that_does_not_suffice(model: str) -> None:
    def hoard(done: int, total: int) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    with pytest.raises(StyleError, match="memory does not suffice for a picture of 40 x 32") as refused:
        Stylizer(settings(model))(PICTURE, on_step=hoard)
    assert "\n" not in str(refused.value)


def test_without_the_extra_the_message_says_how_to_get_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install 'glaze-trt[export]'" in refusal(model)


def test_what_stops_the_work_passes_through(model: str) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stylizer(settings(model))(PICTURE, on_step=stop)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    heavy = "{'torch', 'diffusers', 'transformers'}"
    code = f"import sys, glaze_trt.styles.diffusion; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
