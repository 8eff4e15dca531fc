"""Training the built-in models: a few steps on small seeded pictures, through the command's own function."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Generator, Tensor  # noqa: E402

from export.distill import attack, distort, package, students, teachers, training  # noqa: E402
from export.distill.__main__ import Kind, distill, task  # noqa: E402
from export.distill.pictures import Pictures  # noqa: E402

SIDE = 32
PLAN = {"steps": 2, "pool": 4, "epochs": 1, "batch": 4, "crop": SIDE, "rate": 2e-3, "seed": 0, "bf16": False}
KINDS = list(Kind)
STUDENTS: dict[str, tuple[Callable[[], torch.nn.Module], package.Port]] = {
    "encoder": (students.TinyEncoder, package.ENCODER),
    "decoder": (students.TinyDecoder, package.DECODER),
    "perceptual": (students.TinyPerceptual, package.PERCEPTUAL),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the teachers' files, random weights under the real names."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(teachers.taesd_encoder().state_dict(), folder / teachers.ENCODER_FILE)
    save_file(teachers.taesd_decoder().state_dict(), folder / teachers.DECODER_FILE)
    lpips = teachers.LpipsSqueeze()
    tensors = {f"net.slice1.{name}": value for name, value in lpips.features.state_dict().items()}
    tensors |= {f"lin{k}.model.1.weight": weight.detach() for k, weight in enumerate(lpips.linear)}
    save_file(tensors, folder / teachers.PERCEPTUAL_FILE)
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three small pictures: two to train on, one to hold out."""
    folder = tmp_path_factory.mktemp("gallery")
    rng = np.random.default_rng(0)
    for name in ("one", "two", "kept"):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        coarse.resize((56, 48), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


def train(kind: Kind, weights: Path, gallery: Path, checkpoint: Path, **options: Any) -> torch.nn.Module:
    """Two steps of training, or as the options say."""
    torch.manual_seed(0)
    lines: list[str] = options.pop("lines", [])
    resume, minutes = options.pop("resume", False), options.pop("minutes", math.inf)
    plan = training.Plan(**(PLAN | options))
    return training.train(
        task(kind, weights),
        Pictures.load(gallery, ["kept"]),
        plan,
        checkpoint,
        resume=resume,
        minutes=minutes,
        say=lines.append,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    kind: Kind, weights: Path, gallery: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    whole = train(kind, weights, gallery, tmp_path / "whole.pt").state_dict()
    half = train(kind, weights, gallery, tmp_path / "half.pt", minutes=0.0).state_dict()
    resumed = train(kind, weights, gallery, tmp_path / "half.pt", resume=True, lines=lines).state_dict()
    assert any("resumed at step 1 of 2" in line for line in lines)
    assert any("held-out" in line for line in lines)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert any(not torch.equal(half[name], whole[name]) for name in whole)


def test_a_run_is_not_resumed_under_another_plan(weights: Path, gallery: Path, tmp_path: Path) -> None:
    train(Kind.decoder, weights, gallery, tmp_path / "decoder.pt", minutes=0.0)
    with pytest.raises(ValueError, match="another plan"):
        train(Kind.decoder, weights, gallery, tmp_path / "decoder.pt", resume=True, seed=1)


def test_the_command_writes_a_model_and_says_what_was_measured(
    weights: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    distill(
        Kind.perceptual,
        teacher_weights=weights,
        pictures=gallery,
        out=tmp_path,
        checkpoints=tmp_path,
        steps=1,
        crop=SIDE,
        view=SIDE,
        held_out=["kept"],
        threads=1,
    )
    assert "perceptual: step 1/1" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "tiny_perceptual.json").read_text())
    content = (tmp_path / "tiny_perceptual.onnx").read_bytes()
    assert (manifest["name"], manifest["kind"], manifest["demonstration"]) == ("tiny", "perceptual", True)
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["measured"]["held_out"] == ["kept"]
    assert -1 <= manifest["measured"]["spearman"] <= 1


@pytest.mark.parametrize("name", STUDENTS)
def test_the_written_graph_is_portable_and_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    make, port = STUDENTS[name]
    torch.manual_seed(1)
    module = make()
    path = package.write(module, port, tmp_path, source="a test", measured={})
    graph = onnx.load(path)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    plain = {"Cast", "Conv", "Relu", "Add", "Mul", "Div", "Sqrt", "ReduceSum", "Clip", "Tanh"}
    assert {node.op_type for node in graph.graph.node} <= plain | {"DepthToSpace", "Resize", "MaxPool", "Concat"}
    assert not graph.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, rows, columns in ((1, 3, 5), (3, 4, 3)):
        cell = max(port.cell, 8 if port.input == "image" else 1)
        value = torch.rand(batch, port.channels, rows * cell, columns * cell)
        found = session.run(list(port.outputs), {port.input: value.numpy()})
        expected = module(value)
        for a, b in zip(found, [expected] if isinstance(expected, Tensor) else expected, strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-3, atol=1e-4)


def test_the_encoder_learns_its_teacher(weights: Path, gallery: Path, tmp_path: Path) -> None:
    job = task(Kind.encoder, weights)
    pictures = Pictures.load(gallery, ["kept"])
    lesson = job.lesson(pictures.crops(4, SIDE, Generator().manual_seed(5)), Generator().manual_seed(5))
    before = float(job.loss(lesson).detach())
    plan = training.Plan(**(PLAN | {"steps": 6, "epochs": 4}))
    training.train(job, pictures, plan, tmp_path / "encoder.pt", say=lambda line: None)
    assert float(job.loss(lesson).detach()) < 0.8 * before


def test_a_cloak_keeps_its_budget_and_moves_the_encoder(weights: Path) -> None:
    encoder, perceptual = teachers.load_encoder(weights), teachers.load_perceptual(weights)
    generator = Generator().manual_seed(0)
    image = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    target = encoder(image.roll(1, 0))
    cloaked = attack.cloak(image, encoder, target, perceptual, budget=0.01, cap=8 / 255, steps=6)
    assert float((cloaked - image).abs().max()) <= 8.5 / 255
    assert float(attack.distance(perceptual(cloaked), perceptual(image)).max()) <= 0.01
    assert float(attack.progress(encoder, image, cloaked, target).min()) > 0


@pytest.mark.parametrize("name", distort.DISTORTIONS)
def test_stronger_distortions_change_more(name: str, gallery: Path) -> None:
    image = Pictures.load(gallery, ["kept"]).crops(2, SIDE, Generator().manual_seed(0))
    change = [
        float((distort.apply(distort.DISTORTIONS[name], image, s, Generator().manual_seed(3)) - image).abs().mean())
        for s in (0.1, 0.9)
    ]
    assert 0 < change[0] < change[1]


def test_held_out_pictures_are_named(gallery: Path) -> None:
    pictures = Pictures.load(gallery, ["kept"])
    assert list(pictures.held_out) == ["kept"]
    assert len(pictures.training) == 2
    with pytest.raises(ValueError, match="no picture named absent"):
        Pictures.load(gallery, ["absent"])
