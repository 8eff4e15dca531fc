"""Several extractors in one step: of different multiples, latents and kinds, each moved, each told of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import glaze_trt
from engine.tape import OPSET, Tape
from glaze_trt import models
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.evaluate import Progress
from glaze_trt.network import Network
from tests.glaze_trt.embedding import embedding
from tests.glaze_trt.scene import waves

PICTURE, TARGET = waves(41, 53), waves(41, 53, seed=5)


def coarse(folder: Path, name: str = "coarse", multiple: int = 12, channels: int = 5) -> Path:
    """An encoder with a manifest: patches of 12 x 12, five channels; sizes are multiples of 12, at least 24."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name=name)
    shape = ir.Shape(("batch", 3, "height", "width"))
    graph.inputs.append(ir.Value(name="image", shape=shape, type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    kernel = np.random.default_rng(3).normal(0, 0.3, (channels, 3, multiple, multiple)).astype(np.float32)
    latent = tape.Tanh(tape.Conv(graph.inputs[0], kernel, strides=[multiple, multiple]))
    latent.name = "latent"
    graph.outputs.append(latent)
    path = folder / f"{name}.onnx"
    ir.save(ir.Model(graph, ir_version=10), path)
    path.with_suffix(".json").write_text(
        json.dumps({"name": name, "kind": "encoder", "multiple": multiple, "minimum": 2 * multiple})
    )
    return path


def test_both_are_moved_and_neither_is_left_behind(tmp_path: Path) -> None:
    path = coarse(tmp_path)
    picture, target = waves(48, 72), waves(48, 72, seed=5)  # which both take as it is

    def moved(name: str | Path, after: np.ndarray) -> float:
        net = Network(models.find(str(name), "encoder"), "onnxruntime")
        return Progress(net, picture, [target])(after)

    objective = make_objective("high", steps=12)
    alone, both = (
        Cloaker(names, objective=objective, engine_name="onnxruntime")(picture, target=target)
        for names in (["tiny"], ["tiny", str(path)])
    )
    assert list(both.report.progresses) == ["tiny", "coarse"]
    ways = both.report.progresses
    assert both.report.progress == pytest.approx(np.mean(list(ways.values())))
    assert min(ways.values()) > 0.05
    assert moved(path, both.rgb) > moved(path, alone.rgb) + 0.03
    for name in ("tiny", path):
        assert moved(name, both.rgb) == pytest.approx(ways[Path(name).stem], abs=1e-3)


def test_the_picture_grows_to_what_all_take(tmp_path: Path) -> None:
    cloaker = Cloaker(["tiny", str(coarse(tmp_path))], objective=make_objective(steps=6), engine_name="onnxruntime")
    result = cloaker(PICTURE, target=TARGET)
    assert result.rgb.shape == PICTURE.shape
    assert min(result.report.progresses.values()) > 0.03
    assert cloaker.shape((41, 53)) == (1, 3, 48, 72)  # multiples of 8 and of 12
    assert cloaker.shape((5, 5)) == (1, 3, 24, 24)


def test_an_encoder_and_an_embedding_of_one_size(tmp_path: Path) -> None:
    face = embedding(tmp_path)
    objective = make_objective("high", steps=12)
    cloaker = Cloaker(["tiny", str(face)], objective=objective, engine_name="onnxruntime")
    report = cloaker(PICTURE, target=TARGET, boxes=[(4, 4, 30, 30)]).report
    assert list(report.progresses) == ["tiny", "face at 4,4,30,30"]
    assert min(report.progresses.values()) > 0.05
    assert not cloaker.rescales  # the encoder's target must be of the picture's size
    with pytest.raises(PictureError, match="must be of one size"):
        cloaker(PICTURE, target=waves(30, 30))


def test_presets_that_take_a_weighted_sum_move_both(tmp_path: Path) -> None:
    path = coarse(tmp_path)
    for name in ("photoguard", "nightshade"):
        objective = make_objective(preset=name, steps=20)
        target = None if name == "photoguard" else TARGET
        report = Cloaker(["tiny", str(path)], objective=objective, engine_name="onnxruntime")(PICTURE, target=target)
        assert min(report.report.progresses.values()) > 0.01, name


def test_weights_order_what_encoders_are_given(tmp_path: Path) -> None:
    path = coarse(tmp_path)
    picture, target = waves(48, 72), waves(48, 72, seed=5)
    seconds = []
    for weights in ((1, 10), (1, 1), (10, 1)):
        cloaker = Cloaker(
            ["tiny", str(path)], objective=make_objective(steps=10), engine_name="onnxruntime", weights=weights
        )
        seconds.append(cloaker(picture, target=target).report.progresses["coarse"])
    assert seconds[0] > seconds[1] > seconds[2]
    assert seconds[0] > seconds[2] + 0.02


def test_an_embedding_of_several_boxes_counts_once(tmp_path: Path) -> None:
    face, box = embedding(tmp_path), (4, 4, 30, 30)
    cloaker = Cloaker(["tiny", str(face)], objective=make_objective("high", steps=8), engine_name="onnxruntime")
    several = [box, (4, 4, 31, 30), (4, 4, 30, 31), box]
    one, three = (cloaker(PICTURE, target=TARGET, boxes=boxes).report for boxes in ([box], several))
    assert len(three.progresses) == 4
    assert three.progresses["tiny"] == pytest.approx(one.progresses["tiny"], rel=0.1)


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (0, 1), (1, -1), (1, float("nan")), (1, float("inf"))])
def test_weights_that_do_not_fit(weights: tuple[float, ...], tmp_path: Path) -> None:
    names = ["tiny", str(embedding(tmp_path))]
    with pytest.raises(UsageError, match="2 encoders need as many finite weights above 0"):
        Cloaker(names, weights=weights)
    with pytest.raises(UsageError, match="2 encoders need as many finite weights above 0"):
        glaze_trt.cloak(PICTURE, model=names, weights=weights)


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, two = embedding(tmp_path), embedding(tmp_path / "other", seed=1)
    for names in (["tiny", "tiny"], [str(one), str(two)], []):
        with pytest.raises(UsageError, match="give each encoder once, under a name of its own"):
            Cloaker(names)


def test_a_perceptual_net_of_one_size_leaves_the_encoders_theirs(tmp_path: Path) -> None:
    """LPIPS is then that of the picture as the net sees it; the encoder still gets multiples of 8."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="fixed")
    graph.inputs.append(ir.Value(name="image", shape=ir.Shape((1, 3, 24, 24)), type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    kernel = np.random.default_rng(0).normal(0, 0.2, (4, 3, 3, 3)).astype(np.float32)
    feature = tape.Tanh(tape.Conv(graph.inputs[0], kernel))
    feature.name = "feature_0"
    graph.outputs.append(feature)
    path = tmp_path / "fixed.onnx"
    ir.save(ir.Model(graph, ir_version=10), path)
    objective = make_objective(steps=4)
    result = Cloaker("tiny", str(path), objective, engine_name="onnxruntime")(PICTURE, target=TARGET)
    assert result.report.lpips is not None
    assert 0 < result.report.lpips <= 0.05
    assert result.report.progress > 0.02
