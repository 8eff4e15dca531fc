from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

import engine
import glaze_trt
from engine.runtime.onnxruntime import OnnxRuntime
from engine.runtime.protocol import EMULATE
from engine.tape import OPSET, Tape
from glaze_trt import models
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import ModelError, PictureError, PrecisionError, UsageError
from glaze_trt.evaluate import Progress
from glaze_trt.measure import handling
from glaze_trt.network import Network
from tests.glaze_trt.scene import waves


def score(a: np.ndarray, b: np.ndarray) -> float:
    files = [io.BytesIO(), io.BytesIO()]
    for levels, file in zip((a, b), files, strict=True):
        Image.fromarray(levels).save(file, "BMP")
    return float(compute_ssimulacra2(*files))


@pytest.fixture(scope="module")
def cloaker() -> Cloaker:
    return Cloaker(objective=make_objective(steps=8), engine_name="onnxruntime")


@pytest.mark.parametrize("intensity", ["low", "default", "high"])
def test_the_picture_keeps_its_budget(intensity: str) -> None:
    original = waves()
    result = glaze_trt.cloak(original, target=waves(seed=5), steps=10, intensity=intensity)
    budget = result.report.budget
    assert score(original, result.rgb) >= budget.ssimulacra2
    assert np.abs(result.rgb.astype(int) - original).max() <= budget.linf * 255 + 1e-6
    assert result.report.lpips <= budget.lpips
    assert result.report.progress > 0.02
    assert not np.array_equal(result.rgb, original)


def test_a_larger_budget_buys_more() -> None:
    gains = [
        glaze_trt.cloak(waves(), target=waves(seed=5), steps=10, intensity=name).report.progress
        for name in ("low", "high")
    ]
    assert gains[1] > 1.2 * gains[0]


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(cloaker: Cloaker) -> None:
    first, again, other = (cloaker(waves(), target=waves(seed=5), seed=seed).rgb for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bf16_and_fp32_engines_cloak_alike() -> None:
    reports = [
        glaze_trt.cloak(waves(), target=waves(seed=5), steps=10, engine=name).report for name in ("auto", "onnxruntime")
    ]
    assert reports[0].progress == pytest.approx(reports[1].progress, rel=0.1)


@pytest.mark.parametrize("size", [(41, 67), (8, 8), (1, 5), (200, 9)])
def test_any_size_comes_back_as_it_was(cloaker: Cloaker, size: tuple[int, int]) -> None:
    original = waves(*size)
    result = cloaker(original)
    assert result.rgb.shape == original.shape
    assert np.abs(result.rgb.astype(int) - original).max() <= 16


def test_the_kind_of_picture_given_is_the_kind_returned(cloaker: Cloaker) -> None:
    levels, goal = waves(), waves(seed=5)
    alpha = Image.fromarray(np.full(levels.shape[:2], 77, np.uint8))
    pillow = Image.fromarray(levels)
    pillow.putalpha(alpha)
    as_pillow = cloaker(pillow, target=goal)
    as_floats = cloaker((levels / 255).astype(np.float32), target=goal)
    as_levels = cloaker(levels, target=goal)
    assert as_pillow.picture.mode == "RGBA"
    assert np.array_equal(np.asarray(as_pillow.picture)[..., 3], np.asarray(alpha))
    assert as_floats.picture.dtype == np.float32
    assert np.array_equal(np.rint(as_floats.picture * 255), as_levels.picture)
    assert np.array_equal(np.asarray(as_pillow.picture)[..., :3], as_levels.picture)


def test_steps_are_told_as_they_go(cloaker: Cloaker) -> None:
    steps: list[tuple[int, float]] = []
    cloaker(waves(), target=waves(seed=5), on_step=lambda info: steps.append((info.step, info.progress)))
    told = [step for step, _ in steps]
    assert told[0] == 1
    assert told[-1] == 8
    assert told == sorted(set(told))
    assert steps[-1][1] > steps[0][1]


def test_a_target_equal_to_the_picture_is_no_work_and_no_failure(cloaker: Cloaker) -> None:
    result = cloaker(waves(), target=waves())
    assert result.report.progress == 0.0
    assert score(waves(), result.rgb) >= 70


@pytest.mark.parametrize(
    ("picture", "kind"),
    [
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.full((4, 4, 3), 2.0), r"\[0,1\]"),
        (np.full((4, 4, 3), np.nan), r"\[0,1\]"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
    ],
)
def test_what_is_no_picture_is_refused(cloaker: Cloaker, picture: np.ndarray, kind: str) -> None:
    with pytest.raises(PictureError, match=kind):
        cloaker(picture)


def test_contradictions_are_refused(cloaker: Cloaker) -> None:
    with pytest.raises(PictureError, match="one size"):
        cloaker(waves(), target=waves(32, 32))
    with pytest.raises(UsageError, match="not both"):
        cloaker(waves(), target=waves(), style="any")
    with pytest.raises(UsageError, match="intensity"):
        make_objective("loud")
    with pytest.raises(UsageError, match="steps"):
        make_objective(steps=0)
    with pytest.raises(UsageError, match="linf"):
        glaze_trt.Budget(linf=0)


def test_a_robust_cloak_outlasts_what_a_plain_one_does_not() -> None:
    picture, target = waves(), waves(seed=5)
    encoder = Network(models.find("tiny", "encoder"), "onnxruntime")
    after_jpeg = {}
    for robust in ((), ("jpeg",)):
        result = glaze_trt.cloak(
            picture, target=target, steps=80, intensity="high", robust=robust, engine="onnxruntime"
        )
        assert result.report.steps == 80
        after_jpeg[robust] = Progress(encoder, picture, [target])(handling.apply("jpeg 75", result.rgb))
    assert after_jpeg[("jpeg",)] > 1.05 * after_jpeg[()] > 0


def test_noise_that_a_cloak_shall_outlast_is_that_of_the_seed() -> None:
    objective = make_objective(steps=6, robust=["noise"])
    first, again = (Cloaker(objective=objective, engine_name="onnxruntime")(waves(32, 40), seed=3) for _ in range(2))
    other = Cloaker(objective=objective, engine_name="onnxruntime")(waves(32, 40), seed=4)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert not np.array_equal(first.rgb, other.rgb)


def test_few_steps_still_use_the_budget() -> None:
    budget = glaze_trt.Budget(lpips=None)
    report = glaze_trt.cloak(waves(), target=waves(seed=5), steps=2, budget=budget).report
    assert report.scale > 1.2  # in fp32 a little less than in bf16
    assert report.ssimulacra2 < 73 or report.linf == pytest.approx(budget.linf)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_few_steps_do_not_end_where_they_began(steps: int) -> None:
    report = glaze_trt.cloak(waves(), target=waves(seed=5), steps=steps).report
    assert report.progress > 0.002 * steps  # the first δ, which is inside every limit, moves nothing
    assert report.lpips <= report.budget.lpips


def test_fp16_finds_its_loss_scale_and_cloaks_as_fp32_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATE, "1")
    reports = {
        precision: glaze_trt.cloak(
            waves(), target=waves(seed=5), steps=10, engine="onnxruntime", precision=precision
        ).report
        for precision in ("fp32", "fp16", "mixed", "bf16")
    }
    for precision, report in reports.items():
        assert report.precision == precision
        assert report.progress == pytest.approx(reports["fp32"].progress, rel=0.05)


def test_a_generous_budget_is_not_used_beyond_the_target() -> None:
    budget = glaze_trt.Budget(lpips=None, linf=0.5, ssimulacra2=-200.0)
    report = glaze_trt.cloak(waves(), target=waves(seed=5), steps=10, budget=budget).report
    assert report.scale < 3.9  # the longest δ would be 4 times as long, and farther from the target
    assert report.progress > 0.1


class Refusing(OnnxRuntime):
    """An engine that has fast precisions and takes no graph."""

    name = "refusing"
    needs_gpu = True

    def precisions(self, device: int = 0) -> tuple[engine.Precision, ...]:
        return ("mixed", "fp16", "fp32")

    def compile(self, model: ir.Model, precision: engine.Precision, options: engine.Options) -> engine.Program:
        raise engine.BackendError(f"no kernel for {precision}")


class Emulating(Refusing):
    """ONNX Runtime, which imitates narrow types, as an engine that would rather use them."""

    name = "emulating"

    def compile(self, model: ir.Model, precision: engine.Precision, options: engine.Options) -> engine.Program:
        return OnnxRuntime().compile(model, precision, options)


def test_an_engine_that_refuses_the_graph_gives_way_to_one_of_other_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.select.BACKENDS", (Refusing(), OnnxRuntime()))
    report = glaze_trt.cloak(waves(), target=waves(seed=5), steps=2).report
    assert (report.engine, report.precision) == ("onnxruntime", "fp32")
    assert any("no kernel for mixed" in note for note in report.notes)


def overflowing(folder: Path, gain: float = 1e3, *, steep: bool = False) -> Path:
    """An encoder whose activations pass 65504: the mean of each 8 x 8 block, a million times larger inside.

    `steep` adds 1 / (1 + exp(200·x)), which is finite and whose gradient is 0 · ∞.
    """
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="overflowing")
    shape = (1, 3, *waves().shape[:2])
    graph.inputs.append(ir.Value(name="image", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    hidden = tape.Relu(tape.Conv(graph.inputs[0], np.full((3, 3, 1, 1), gain, np.float32)))
    large = tape.Relu(tape.Conv(hidden, np.full((3, 3, 1, 1), gain, np.float32)))
    if steep:
        large = tape.Add(large, tape.Div(1.0, tape.Add(tape.Exp(tape.Mul(graph.inputs[0], 200.0)), 1.0)))
    latent = tape.Mul(tape.AveragePool(large, kernel_shape=[8, 8], strides=[8, 8]), 1e-6)
    latent.name = "latent"
    graph.outputs.append(latent)
    path = folder / "overflowing.onnx"
    ir.save(ir.Model(graph, ir_version=10), path)
    return path


def test_numbers_out_of_range_are_no_cloak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATE, "1")
    monkeypatch.setattr("engine.runtime.select.BACKENDS", (Emulating(), OnnxRuntime()))
    model = str(overflowing(tmp_path))
    for precision in ("mixed", "fp16"):
        with pytest.raises(PrecisionError, match="--precision"):
            glaze_trt.cloak(waves(), target=waves(seed=5), steps=2, model=model, precision=precision)
    report = glaze_trt.cloak(waves(), target=waves(seed=5), steps=2, model=model).report
    assert report.precision == "fp32"
    assert any("out of range in mixed" in note for note in report.notes)
    assert 0 < report.progress < 1


def test_where_fp32_is_out_of_range_too_it_is_not_advised(tmp_path: Path) -> None:
    model = str(overflowing(tmp_path, gain=1e25))
    with pytest.raises(ModelError, match="gives infinite values for this picture in fp32 already"):
        glaze_trt.cloak(waves(), target=waves(seed=5), steps=2, model=model, engine="onnxruntime")
    rough = str(overflowing(tmp_path, steep=True))  # of finite values, with a gradient that is not
    with pytest.raises(PrecisionError, match="out of range in fp32 .* no precision is wider") as caught:
        glaze_trt.cloak(waves(), target=waves(seed=5), steps=2, model=rough, engine="onnxruntime")
    assert "--precision fp32" not in str(caught.value)


def test_a_preset_without_loss_scales_names_the_precisions_it_has() -> None:
    with pytest.raises(UsageError, match="choose --precision auto, mixed, bf16 or fp32"):
        Cloaker(objective=make_objective(preset="mist"), precision="fp16").narrow(("fp16", "fp32"))
