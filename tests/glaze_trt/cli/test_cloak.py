"""What `cloak` can be asked for beyond a style: presets, extractors, masks, targets; and `styles` and `evaluate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from glaze_trt import presets, styles
from glaze_trt.cli import app
from glaze_trt.faces import find
from glaze_trt.measure import handling
from glaze_trt.measure.ssim import ssim
from tests.glaze_trt.embedding import embed, embed_raw, embedding
from tests.glaze_trt.scene import face, scene, waves
from tests.glaze_trt.test_several_encoders import coarse

FAST = ("--engine", "onnxruntime")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def said(result: Result) -> str:
    """What was said on stderr, in one line however it was wrapped."""
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a mask, extractors, a portfolio; nothing is written there."""
    folder = tmp_path_factory.mktemp("files")
    pictures = {
        "art": scene(),
        "other": waves(60, 50, seed=5),
        "third": waves(48, 64, seed=6),
        "face": np.asarray(face()),
    }
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    for name, levels in (pictures | {"mask": mask, "black": 0 * mask, "narrow": mask[:, 20:]}).items():
        Image.fromarray(levels).save(folder / f"{name}.png")
    (folder / "text.png").write_text("no picture")
    (folder / "text.onnx").write_text("no network")
    (folder / "portfolio").mkdir()
    Image.fromarray(waves(64, 64)).save(folder / "portfolio" / "0.png")
    (folder / "empty").mkdir()
    embedding(folder, "embedding")
    coarse(folder)
    return folder


def levels(path: Path | str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def cloak(path: Path, out: Path, *arguments: object) -> dict[str, Any]:
    result = invoke("cloak", path, "-o", out, *FAST, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    (made,) = json.loads(result.stdout)["pictures"]
    return dict(made)


@pytest.mark.parametrize("preset", [name for name in presets.PRESETS if not presets.PRESETS[name].faces])
def test_a_preset_for_pictures(preset: str, files: Path, tmp_path: Path) -> None:
    made = cloak(files / "art.png", tmp_path / "a.png", "--preset", preset, "--steps", 3)
    assert (made["preset"], made["steps"]) == (preset, 3)
    wanted = {"photoguard": "none", "mist": "a text pattern"}.get(preset, "impasto")
    assert made["target"] == wanted
    assert made["intensity"] == ("default" if preset == "glaze" else None)
    assert levels(tmp_path / "a.png").shape == (48, 64, 3)
    assert made["linf"] <= made["budget"]["linf"]
    assert made["linf"] > 0


def test_fawkes_on_a_face_that_is_found(files: Path, tmp_path: Path) -> None:
    net = files / "embedding.onnx"
    made = cloak(files / "face.png", tmp_path / "a.png", "--preset", "fawkes", "--extractor", net, "--steps", 20)
    (box,) = made["regions"]
    x, y, w, h = box
    before, after = levels(files / "face.png"), levels(tmp_path / "a.png")
    assert (1 - ssim(before, after)) / 2 <= made["budget"]["dssim"] == 0.012
    moved = (before != after).any(2)
    inside = np.zeros_like(moved)
    inside[y : y + h, x : x + w] = True
    assert moved.any()
    assert not moved[~inside].any()
    shift = float(np.linalg.norm(embed(net, after, (x, y, w, h)) - embed(net, before, (x, y, w, h))))
    assert made["progress"] == pytest.approx(shift, abs=0.02)
    assert made["model"] == "embedding"
    assert made["demonstration"] is True  # its perceptual net


@pytest.mark.parametrize("preset", ["lowkey", "face-off", "foggysight"])
def test_presets_for_faces_in_a_region(preset: str, files: Path, tmp_path: Path) -> None:
    people = (
        [] if preset == "lowkey" else ["--target-image", files / "other.png", "--target-image", files / "third.png"]
    )
    region = ["--region", "8,4,40,40", "--extractor", files / "embedding.onnx"]
    made = cloak(files / "art.png", tmp_path / "a.png", "--preset", preset, "--steps", 12, *region, *people)
    assert made["regions"] == [[8, 4, 40, 40]]
    assert made["target"] == ("none" if preset == "lowkey" else "other.png, third.png")
    assert made["progress"] > 0.02
    moved = (levels(files / "art.png") != levels(tmp_path / "a.png")).any(2)
    assert moved[4:44, 8:48].any()
    moved[4:44, 8:48] = False
    assert not moved.any()


def test_the_summary_of_a_preset_for_faces(files: Path, tmp_path: Path) -> None:
    given = [
        "--extractor",
        files / "embedding.onnx",
        "--region",
        "8,4,40,40",
        "--steps",
        2,
        "--sheet",
        tmp_path / "s.png",
    ]
    result = invoke("cloak", files / "art.png", "-o", tmp_path / "a.png", *FAST, "--preset", "fawkes", *given)
    assert result.exit_code == 0, result.stderr
    assert "2 steps of fawkes in" in result.stdout
    assert "DSSIM" in result.stdout
    assert "<= 0.012" in result.stdout
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 4 * 64


def test_two_encoders_are_told_of_one_by_one(files: Path, tmp_path: Path) -> None:
    both = ["--model", "tiny", "--model", files / "coarse.onnx"]
    given = [*FAST, *both, "--steps", 6, "--style", "mosaic"]
    result = invoke("cloak", files / "art.png", "-o", tmp_path / "a.png", *given)
    assert result.exit_code == 0, result.stderr
    made = cloak(files / "art.png", tmp_path / "b.png", *given[2:])
    assert made["model"] == "tiny+coarse"
    assert list(made["progresses"]) == ["tiny", "coarse"]
    assert made["progress"] == pytest.approx(sum(made["progresses"].values()) / 2)
    lines = [line.split() for line in result.stdout.splitlines()]
    for name, value in made["progresses"].items():
        assert value > 0.03
        assert [name, f"{value:.3f}"] in lines
    again = invoke("evaluate", files / "art.png", tmp_path / "b.png", "--style", "mosaic", *FAST, *both, "--json")
    assert json.loads(again.stdout)["progresses"] == pytest.approx(made["progresses"], abs=1e-5)


def test_a_target_of_another_size_suits_an_encoder_with_an_embedding(files: Path, tmp_path: Path) -> None:
    both = ["--model", "tiny", "--extractor", files / "embedding.onnx", "--region", "0,0,64,48"]
    made = cloak(files / "art.png", tmp_path / "a.png", *both, "--target-image", files / "other.png", "--steps", 3)
    assert len(made["progresses"]) == 2


def test_what_handling_leaves_is_told(files: Path, tmp_path: Path) -> None:
    given = ["--steps", 6, "--style", "mosaic", "--intensity", "high"]
    made = cloak(files / "art.png", tmp_path / "a.png", *given, "--robust", "jpeg, resize,jpeg")
    assert made["robust"] == ["jpeg", "resize"]
    assert list(made["handled"]) == list(handling.NAMES)
    Image.fromarray(handling.apply("jpeg 75", levels(tmp_path / "a.png"))).save(tmp_path / "jpeg.png")
    pair = ["evaluate", files / "art.png", tmp_path / "jpeg.png", "--style", "mosaic", *FAST, "--json"]
    assert made["handled"]["jpeg 75"] == pytest.approx(json.loads(invoke(*pair).stdout)["progress"], abs=1e-5)
    plain = cloak(files / "art.png", tmp_path / "b.png", *given)
    assert plain["handled"] != made["handled"]  # told of every cloak
    assert not np.array_equal(levels(tmp_path / "a.png"), levels(tmp_path / "b.png"))
    pair = ["evaluate", files / "art.png", tmp_path / "a.png", "--style", "mosaic", *FAST, "--handled"]
    assert json.loads(invoke(*pair, "--json").stdout)["handled"] == pytest.approx(made["handled"], abs=1e-5)
    shown = invoke(*pair).stdout
    for name, value in made["handled"].items():
        assert any(line.split() == f"after {name} {value:.3f}".split() for line in shown.splitlines())


def test_an_extractor_beside_an_encoder_sees_the_face_of_a_target(files: Path, tmp_path: Path) -> None:
    """Which is a part of it, drawn into a corner here, and of another size than the picture."""
    beside = np.full((96, 160, 3), 90, np.uint8)
    beside[:, 64:] = np.asarray(face())
    Image.fromarray(beside).save(tmp_path / "person.png")
    net = files / "embedding.onnx"
    both = ["--model", "tiny", "--extractor", net, "--region", "8,4,40,40", "--target-image", tmp_path / "person.png"]
    made = cloak(files / "art.png", tmp_path / "a.png", *both, "--steps", 8)
    x, y, w, h = next(iter(find(beside)))
    assert x > 40
    goal = embed_raw(net, beside, (x, y, w, h))
    box = (8, 4, 40, 40)
    before, after = (embed_raw(net, levels(path), box) for path in (files / "art.png", tmp_path / "a.png"))
    wanted = 1 - np.linalg.norm(after - goal) / np.linalg.norm(before - goal)
    assert made["progresses"]["embedding at 8,4,40,40"] == pytest.approx(wanted, abs=0.03)


def test_no_result_takes_the_place_of_what_a_run_reads(files: Path, tmp_path: Path) -> None:
    for name in ("mask.png", "art.png", "embedding.onnx"):
        shutil.copy(files / name, tmp_path / name)
    for option, name in (("--mask", "mask.png"), ("--target-image", "art.png"), ("--style-image", "art.png")):
        before = (tmp_path / name).read_bytes()
        given = ["-o", tmp_path / name, option, tmp_path / name, "--overwrite", *FAST]
        result = invoke("cloak", files / "art.png", *given)
        assert result.exit_code == 2
        assert f"would replace what this run reads ({tmp_path / name})" in said(result)
        assert (tmp_path / name).read_bytes() == before
    given = ["--sheet", tmp_path / "art.png", "--target-image", tmp_path / "art.png", "--overwrite", *FAST]
    assert "would replace what this run reads" in said(
        invoke("cloak", files / "mask.png", "-o", tmp_path / "a.png", *given)
    )
    given = ["--portfolio", tmp_path, "--overwrite", *FAST]
    assert "would replace what this run reads" in said(
        invoke("cloak", files / "art.png", "-o", tmp_path / "mask.png", *given)
    )


def test_a_lossy_file_with_a_mask_says_that_all_of_it_changed(files: Path, tmp_path: Path) -> None:
    given = ["--mask", files / "mask.png", "--steps", 3]
    for suffix in ("jpg", "png"):
        made = cloak(files / "art.png", tmp_path / f"a.{suffix}", *given)
        told = [note for note in made["notes"] if "pixels outside the mask or region changed too" in note]
        assert bool(told) == (suffix == "jpg")
        assert any("LPIPS and SSIM are of the part that may change" in note for note in made["notes"])


def test_a_mask_and_a_region_keep_the_rest_as_it_was(files: Path, tmp_path: Path) -> None:
    given = ["--mask", files / "mask.png", "--region", "0,0,40,48", "--region", "50,40,99,99", "--steps", 3]
    made = cloak(files / "art.png", tmp_path / "a.png", *given)
    assert made["regions"] == []  # no extractor looks at them
    moved = (levels(files / "art.png") != levels(tmp_path / "a.png")).any(2)
    assert moved[:, 32:40].any()
    assert moved[40:, 50:].any()
    moved[:, 32:40] = moved[40:, 50:] = False
    assert not moved.any()


def test_a_style_is_chosen(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    result = invoke("cloak", files / "art.png", "-o", out, *FAST, "--style", "auto", "--steps", 1)
    assert result.exit_code == 0, result.stderr
    assert "(percentile " in result.stdout
    result = invoke(
        *("cloak", files / "art.png", files / "third.png", "-o", tmp_path / "out", *FAST, "--steps", 1),
        *("--portfolio", files / "portfolio", "--json"),
    )
    first, second = json.loads(result.stdout)["pictures"]
    assert first["style"] == second["style"] in styles.available()
    assert 50 <= first["style_percentile"] == second["style_percentile"] <= 75


def test_a_style_image(files: Path, tmp_path: Path) -> None:
    made = cloak(files / "art.png", tmp_path / "a.png", "--style-image", files / "other.png", "--steps", 6)
    assert made["target"] == "the manner of other.png"
    assert made["style"] is None
    assert made["progress"] > 0.02


def test_styles_on_a_picture(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    result = invoke("styles", files / "art.png", "-o", out, "--json")
    assert result.exit_code == 0, result.stderr
    assert [row["name"] for row in json.loads(result.stdout)["styles"]] == list(styles.available())
    sheet = levels(out)
    assert sheet.shape[0] * sheet.shape[1] > 12 * 48 * 64


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--preset", "shade"], 2, "no preset 'shade'; choose one of glaze, glaze-paper"),
        (["--preset", "mist", "--intensity", "high"], 2, "leave --intensity out"),
        (["--preset", "photoguard", "--style", "mosaic"], 2, "drop --style"),
        (["--preset", "fawkes"], 2, "give one by --extractor FILE.onnx"),
        (["--preset", "fawkes", "--extractor", "{}/embedding.onnx"], 1, "no face was found; name one by --region"),
        (["--preset", "face-off", "--extractor", "{}/embedding.onnx"], 2, "give them by --target-image"),
        (["--robust", "jpeg,rotate"], 2, "no transformation rotate; choose from jpeg"),
        (["--model", "tiny", "--model", "tiny"], 2, "give each encoder once"),
        (["--model", "tiny", "--model", "no-such-net"], 1, "no-such-net"),
        (["--extractor", "{}/none.onnx"], 1, "none.onnx: no such model file"),
        (["--extractor", "{}/text.onnx"], 1, "text.onnx: not a readable ONNX file"),
        (["--mask", "{}/none.png"], 1, "none.png: the mask cannot be read"),
        (["--mask", "{}/text.png"], 1, "text.png: the mask cannot be read"),
        (["--mask", "{}/narrow.png"], 1, "the mask is 44 x 48 and the picture 64 x 48"),
        (["--mask", "{}/black.png"], 1, "leaves nothing that may change"),
        (["--mask", "{}/mask.png", "--region", "0,0,20,20"], 1, "leaves nothing that may change"),
        (["--region", "1,2,3"], 2, "give x,y,width,height in pixels"),
        (["--region", "0,0,0,5"], 2, "give x,y,width,height in pixels"),
        (["--region", "70,0,5,5"], 1, "lies outside the picture, which is 64 x 48"),
        (["--style", "auto", "--portfolio", "{}/empty"], 1, "no picture of the portfolio was found"),
        (["--portfolio", "{}/none"], 1, "the portfolio cannot be read"),
        (["--portfolio", "{}/portfolio", "--style", "mosaic"], 2, "--portfolio is what a style is chosen by"),
        (["--style-image", "{}/text.png"], 1, "text.png: not a picture"),
        (["--style-image", "{}/art.png", "--style", "auto"], 2, "exclude each other"),
        (["--target-image", "{}/none.png"], 1, "none.png: no such file"),
        (["--stylizer", "diffusion"], 2, "needs words"),
        (["--precision", "fp16", "--preset", "mist"], 1, "no loss scales, which fp16 needs"),
    ],
)
def test_bad_input_is_one_line_and_no_file(
    arguments: list[str], status: int, reason: str, files: Path, tmp_path: Path
) -> None:
    given = [argument.format(files) for argument in arguments]
    result = invoke("cloak", files / "art.png", "-o", tmp_path / "a.png", *FAST, "--steps", 1, *given)
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.exit_code == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["styles", "{0}/art.png"], 2, "give it and a file"),
        (["styles", "-o", "{1}/a.png"], 2, "give it and a file"),
        (["styles", "{0}/art.png", "-o", "{1}/a.jpg"], 2, "the sheet is a PNG"),
        (["styles", "{0}/text.png", "-o", "{1}/a.png"], 1, "text.png: not a picture"),
        (["styles", "{0}/none.png", "-o", "{1}/a.png"], 1, "none.png: no such file"),
        (["styles", "{0}/art.png", "-o", "{1}/none/a.png"], 1, "there is no folder"),
        (["styles", "{0}/art.png", "-o", "{0}/art.png"], 1, "exists already"),
        (["styles", "{0}/art.png", "-o", "{0}/art.png", "--overwrite"], 2, "would replace the picture"),
        (["evaluate", "{0}/art.png", "{0}/art.png", "--handled"], 2, "needs --target or --style"),
        (["evaluate", "{0}/art.png", "{0}/art.png", "--style", "vaporwave"], 2, "no style is called 'vaporwave'"),
        (
            ["evaluate", "{0}/art.png", "{0}/other.png", "--style", "mosaic", "--handled"],
            1,
            "only pictures of one size",
        ),
    ],
)
def test_bad_input_of_the_other_commands(
    arguments: list[str], status: int, reason: str, files: Path, tmp_path: Path
) -> None:
    before = (files / "art.png").read_bytes()
    result = invoke(*(argument.format(files, tmp_path) for argument in arguments))
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.exit_code == status
    assert list(tmp_path.iterdir()) == []
    assert (files / "art.png").read_bytes() == before
