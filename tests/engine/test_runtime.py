"""Compiled programs and sessions, on every backend that works here."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from engine import value_and_grad
from engine.errors import BackendError, DynamicShapeError, FeedError
from engine.runtime import Session, available_engines, compile
from engine.runtime.processor import detect, parse_cpuinfo
from engine.runtime.protocol import EMULATE, ISLAND, Options
from tests.engine.step_graph import SHAPE, image, kernel, make_model, node, open_session, step_model

OFFSET = np.float32(1000)

COMBINATIONS = [(info.name, precision) for info in available_engines() for precision in info.precisions]
every_engine = pytest.mark.parametrize(("engine", "precision"), COMBINATIONS)
needs_bf16 = pytest.mark.skipif(("openvino", "bf16") not in COMBINATIONS, reason="the processor has no bf16")


def feeds() -> dict[str, np.ndarray]:
    zero = np.zeros(SHAPE, np.float32)
    return {"x": image(1), "t": image(2), "d": zero, "n": np.zeros((), np.float32), "keep": zero}


@every_engine
def test_call_describes_itself_and_computes(engine, precision):
    program = compile(step_model(), engine, precision)
    assert (program.engine, program.precision, program.notes) == (engine, precision, ())
    assert program.device == detect().name
    assert program.inputs["x"].shape == SHAPE
    assert program.inputs["x"].dtype == np.float32
    assert program.outputs["loss"].shape == ()
    reference = compile(step_model(), "onnxruntime", "fp32")(feeds())
    for name, array in program(feeds()).items():
        assert array.dtype == np.float32
        error = np.linalg.norm(array - reference[name]) / max(np.linalg.norm(reference[name]), 1e-9)
        assert error < (1e-5 if precision == "fp32" else 1e-2), name


@every_engine
@pytest.mark.parametrize("chunks", [(5,), (1, 4), (2, 3), (0, 1, 1, 3)])
def test_session_equals_repeated_calls(engine, precision, chunks):
    program = compile(step_model(), engine, precision, options=Options(threads=1))
    session = open_session(program)
    for n in chunks:
        session.advance(n)
    by_hand = feeds()
    for _ in range(sum(chunks)):
        out = program(by_hand)
        by_hand |= {"d": out["d_next"], "n": out["n_next"]}
    assert session.steps == 5
    assert session.read("n") == 5
    for name in ("loss", "d_next"):
        np.testing.assert_array_equal(session.read(name), out[name])
    np.testing.assert_array_equal(session.read("d"), session.read("d_next"))


@every_engine
def test_state_keeps_every_bit(engine, precision):
    keep = image(3) * np.float32(1 + 2**-20)
    session = open_session(compile(step_model(), engine, precision), keep)
    for n in (1, 1, 2):
        session.advance(n)
        np.testing.assert_array_equal(session.read("keep"), keep)
        np.testing.assert_array_equal(session.read("keep_next"), keep)


@every_engine
def test_small_moves_are_not_rounded_away(engine, precision):
    program = compile(step_model(), engine, precision)
    session = open_session(program)
    session.write("d", np.ones(SHAPE, np.float32))  # the next bf16 below 1 is 1 - 2**-8; a move here is about 1e-4
    session.advance(1)
    move = 1 - session.read("d")
    expected = 1 - compile(step_model(), "onnxruntime")({**feeds(), "d": np.ones(SHAPE, np.float32)})["d_next"]
    assert 0 < np.abs(expected).max() < 2**-8
    assert np.linalg.norm(move - expected) / np.linalg.norm(expected) < 0.01


@every_engine
def test_runs_repeat_bit_for_bit(engine, precision):
    results = []
    for _ in range(2):
        session = open_session(compile(step_model(), engine, precision, options=Options(threads=2)))
        session.advance(7)
        results.append(session.read("d"))
    np.testing.assert_array_equal(*results)


def island_model(islands) -> ir.Model:
    """Between two convolutions, a normalisation after an offset that bf16 cannot hold: the sum rounds to 4s."""
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 4),
        node("Add", "c offset", "high"),
        node("ReduceMean", "high axes", "mean"),
        node("Sub", "high mean", "centred"),
        node("Mul", "centred centred", "square"),
        node("ReduceSum", "square axes", "energy"),
        node("Div", "centred energy", "ratio"),
        node("Sub", "x ratio", "apart"),
        node("Pad", "apart pads", "wide"),
        node("Conv", "wide w", "y"),
    ]
    constants = {"w": kernel(), "offset": OFFSET, "axes": np.array([2, 3]), "pads": np.array([0, 0, 1, 1] * 2)}
    return make_model(nodes, {"x": SHAPE}, {"y": SHAPE}, constants, islands)


@needs_bf16
def test_islands_stay_in_fp32():
    feed = {"x": image()}
    exact = compile(island_model(()), "openvino", "fp32")(feed)["y"]

    def error(islands) -> float:
        program = compile(island_model(islands), "openvino", "bf16")
        assert program.notes == ()
        return float(np.linalg.norm(program(feed)["y"] - exact) / np.linalg.norm(exact))

    everything = {"high", "mean", "centred", "square", "energy", "ratio", "apart", "wide"}
    assert error(everything) < 0.01
    assert not error(()) < 0.05  # without marks the plugin does lower them (here to 0 / 0)


@needs_bf16
@pytest.mark.parametrize("before", ["sum", "convolution"])
@pytest.mark.parametrize(("op", "inputs"), [("Div", "c s"), ("Div", "s c"), ("Sub", "c s"), ("Sub", "s c")])
def test_operands_of_an_island_keep_their_order(before, op, inputs):
    """The plugin merges these into the kernel before them, where it takes the constant for the second operand."""
    first = [node("ReduceMean", "x axes", "s")] if before == "sum" else [node("Conv", "x one", "s")]
    nodes = [*first, node(op, inputs, "r"), node("Conv", "r one", "y")]
    constants = {"c": np.full((1, 16, 1, 1), 3, np.float32), "axes": np.array([2, 3])}
    constants["one"] = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    shape = (1, 16, 1, 1) if before == "sum" else SHAPE
    x = image() + 1
    s = x.mean((2, 3), keepdims=True) if before == "sum" else x
    expected = {"Div c s": 3 / s, "Div s c": s / 3, "Sub c s": 3 - s, "Sub s c": s - 3}[f"{op} {inputs}"]
    program = compile(make_model(nodes, {"x": SHAPE}, {"y": shape}, constants, {"s", "r"}), "openvino", "bf16")
    assert program.notes == ()
    np.testing.assert_allclose(program({"x": x})["y"], expected, rtol=0.02, atol=0.02)


@needs_bf16
def test_constants_of_an_island_are_not_rounded():
    nodes = [
        node("ReduceMean", "x axes", "s"),
        node("Sub", "high s", "r"),
        node("Sub", "r high", "minus"),
        node("Conv", "minus one", "y"),
    ]
    constants = {"high": np.full((1, 16, 1, 1), 1003.123, np.float32), "axes": np.array([2, 3])}
    constants["one"] = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    model = make_model(nodes, {"x": SHAPE}, {"y": (1, 16, 1, 1)}, constants, {"s", "r", "minus"})
    found = compile(model, "openvino", "bf16")({"x": image()})["y"]
    np.testing.assert_allclose(found, -image().mean((2, 3), keepdims=True), rtol=0.01)


def network(channels: int = 32, size: int = 24) -> ir.Model:
    """A VAE encoder in small: residual blocks of GroupNorm, SiLU and Conv, attention, and a squared error."""
    rng = np.random.default_rng(5)
    nodes, constants = [], {}

    def weights(name, *shape, scale=None):
        scale = scale or 1 / np.sqrt(np.prod(shape[1:]))
        constants[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
        return name

    def normal(x, name):
        constants[f"{name}.a"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)
        weights(f"{name}.b", channels, scale=0.3)
        nodes.append(node("GroupNormalization", f"{x} {name}.a {name}.b", name, num_groups=8, epsilon=1e-6))
        return name

    def conv(x, name, to=channels, of=channels):
        weight, bias = weights(f"{name}.w", to, of, 3, 3), weights(f"{name}.b", to, scale=0.1)
        nodes.append(node("Conv", f"{x} {weight} {bias}", name, pads=[1] * 4))
        return name

    def block(x, name):
        h = x
        for i in (1, 2):
            h = normal(h, f"{name}.n{i}")
            nodes.extend([node("Sigmoid", h, f"{h}.s"), node("Mul", f"{h} {h}.s", f"{h}.silu")])
            h = conv(f"{h}.silu", f"{name}.c{i}")
        nodes.append(node("Add", f"{x} {h}", name))
        return name

    def attention(x, name):
        constants["rows"], constants["back"] = np.array([1, channels, -1]), np.array([1, channels, size, size])
        constants["root"] = np.float32(channels**-0.5)
        nodes.append(node("Reshape", f"{normal(x, f'{name}.n')} rows", f"{name}.flat"))
        nodes.append(node("Transpose", f"{name}.flat", f"{name}.t", perm=[0, 2, 1]))
        for part in "qkv":
            nodes.append(node("MatMul", f"{name}.t {weights(f'{name}.{part}w', channels, channels)}", f"{name}.{part}"))
        nodes.extend(
            [
                node("Transpose", f"{name}.k", f"{name}.kt", perm=[0, 2, 1]),
                node("MatMul", f"{name}.q {name}.kt", f"{name}.raw"),
                node("Mul", f"{name}.raw root", f"{name}.scores"),
                node("Softmax", f"{name}.scores", f"{name}.p", axis=-1),
                node("MatMul", f"{name}.p {name}.v", f"{name}.o"),
                node("Transpose", f"{name}.o", f"{name}.ot", perm=[0, 2, 1]),
                node("Reshape", f"{name}.ot back", f"{name}.y"),
                node("Add", f"{x} {name}.y", name),
            ]
        )
        return name

    conv("image", "stem", of=3)
    conv(block(attention(block("stem", "b1"), "at"), "b2"), "latent", to=4)
    nodes.extend(
        [
            node("Sub", "latent goal", "d"),
            node("Mul", "d d", "d2"),
            node("ReduceMean", "d2", "loss", keepdims=0),
        ]
    )
    shapes = {"image": (1, 3, size, size), "goal": (1, 4, size, size)}
    return make_model(nodes, shapes, {"loss": ()}, constants)


@needs_bf16
def test_gradient_through_normalisations_in_bf16():
    model = value_and_grad(network(), "loss", ["image"])
    assert any(n.metadata_props.get(ISLAND) == "fp32" for n in model.graph)
    rng = np.random.default_rng(6)
    feed = {
        name: rng.random(tuple(value.shape.numpy()), np.float32)
        for name, value in ((v.name, v) for v in model.graph.inputs)
    }
    exact = compile(model, "onnxruntime", "fp32")(feed)["grad:image"].ravel()
    program = compile(model, "openvino", "bf16")
    assert program.notes == ()
    found = program(feed)["grad:image"].ravel()
    assert found @ exact / np.linalg.norm(found) / np.linalg.norm(exact) > 0.998
    assert 0.98 < np.linalg.norm(found) / np.linalg.norm(exact) < 1.02


@needs_bf16
def test_a_picture_enters_its_first_convolution_unrounded():
    steps = np.linspace(0.5, 0.5 + 2**-9, 16, dtype=np.float32)  # as one number in bf16
    x = np.broadcast_to(steps, (1, 3, 16, 16)).copy()
    slope = np.array([-1, 0, 1], np.float32) * 2**9
    nodes = [node("Sub", "x half", "centred"), node("Conv", "centred w", "c"), node("Relu", "c", "r")]
    nodes.append(node("Conv", "r one", "y"))
    constants = {"half": np.float32(0.5), "w": np.broadcast_to(slope, (4, 3, 1, 3)).copy()}
    constants["one"] = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    model = make_model(nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 4, 16, 14)}, constants)
    expected = compile(model, "onnxruntime", "fp32")({"x": x})["y"]
    np.testing.assert_allclose(compile(model, "openvino", "bf16")({"x": x})["y"], expected, rtol=0.01)


@needs_bf16
def test_a_lost_island_is_reported():
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 4),
        node("LogSoftmax", "c", "chances", axis=1),
        node("Conv", "chances w", "y", pads=[1] * 4),
    ]
    model = make_model(nodes, {"x": SHAPE}, {"y": SHAPE}, {"w": kernel()}, {"chances"})
    (note,) = compile(model, "openvino", "bf16").notes
    assert "chances" in note


@needs_bf16
@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_a_resize_can_be_an_island(mode, sized):
    shape, large = (1, 3, 8, 8), (1, 3, 16, 16)
    resize = ["h", "", "", "sizes"] if sized else ["h", "", "scales"]
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 4),
        node("Add", "c far", "h"),
        helper.make_node("Resize", resize, ["big"], mode=mode, coordinate_transformation_mode="half_pixel"),
        node("Sub", "big far", "back"),
        node("Conv", "back w", "y", pads=[1] * 4),
    ]
    constants = {"w": np.eye(3, dtype=np.float32)[:, :, None, None] * np.pad(np.ones((1, 1), np.float32), 1)}
    constants |= {"far": np.float32(256), "scales": np.array([1, 1, 2, 2], np.float32), "sizes": np.array(large)}
    model = make_model(nodes, {"x": shape}, {"y": large}, constants, {"h", "big", "back"})
    x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    program = compile(model, "openvino", "bf16")
    assert not program.notes
    np.testing.assert_allclose(program({"x": x})["y"], compile(model, "onnxruntime", "fp32")({"x": x})["y"], atol=0.02)


@needs_bf16
def test_cached_program_keeps_its_islands(tmp_path):
    everything = {"high", "mean", "centred", "square", "energy", "ratio", "apart", "wide"}
    programs = [
        compile(island_model(everything), "openvino", "bf16", options=Options(cache_dir=tmp_path)) for _ in range(2)
    ]
    assert list(tmp_path.iterdir())
    first, second = (program({"x": image()})["y"] for program in programs)
    np.testing.assert_array_equal(first, second)


def test_auto_prefers_bf16_only_where_it_is_computed():
    program = compile(step_model())
    best = next(info for info in available_engines() if info.precisions)
    assert (program.engine, program.precision) == (best.name, best.precisions[0])
    assert ("bf16" in best.precisions) == detect().computes_bf16


def test_engines_that_are_not_here_are_passed_over_in_silence():
    assert not compile(step_model()).notes


def test_bf16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.delenv(EMULATE, raising=False)
    old = parse_cpuinfo("model name : Old Thing\nflags : sse2 avx2 fma")
    monkeypatch.setattr("engine.runtime.openvino.detect", lambda: old)
    with pytest.raises(BackendError, match=f"emulated on Old Thing.*{EMULATE}"):
        compile(step_model(), "openvino", "bf16")
    assert compile(step_model(), "openvino").precision == "fp32"
    assert compile(step_model()).precision == "fp32"


def test_auto_falls_back_with_a_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # what an import of a missing module does
    program = compile(step_model())
    assert program.engine == "onnxruntime"
    assert "pip install openvino" in program.notes[0]
    with pytest.raises(BackendError, match="pip install openvino"):
        compile(step_model(), "openvino")
    (info,) = [info for info in available_engines() if info.name == "openvino"]
    assert info.version is None
    assert info.reason is not None
    assert "pip install openvino" in info.reason


def test_unknown_names_are_refused():
    with pytest.raises(BackendError, match=r"no engine 'tvm'.*openvino.*onnxruntime"):
        compile(step_model(), "tvm")
    with pytest.raises(BackendError, match=r"no precision 'int8'.*bf16"):
        compile(step_model(), precision="int8")
    with pytest.raises(BackendError, match="fp32 only"):
        compile(step_model(), "onnxruntime", "bf16")


@pytest.mark.parametrize("engine", [info.name for info in available_engines() if info.precisions])
def test_a_graph_the_backend_rejects(engine):
    model = make_model([node("Nonsense", "x", "y")], {"x": SHAPE}, {"y": SHAPE}, {})
    with pytest.raises(BackendError, match=f"{engine} did not compile"):
        compile(model, engine)


def test_dynamic_axes_are_named():
    model = make_model([node("Relu", "x", "y")], {"x": ("batch", 3)}, {"y": ("batch", 3)}, {})
    with pytest.raises(DynamicShapeError, match=r"'x' has an unknown axis 0 \(batch\)"):
        compile(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": None}, "missing 'x'"),
        ({"z": np.zeros(1)}, "unknown 'z'"),
        ({"x": np.zeros((1, 3, 4, 4), np.float32)}, r"'x' takes float32\(1, 16, 24, 24\).*float32\(1, 3, 4, 4\)"),
        ({"x": np.zeros(SHAPE)}, "given float64"),
    ],
)
def test_feeds_are_checked(change, words):
    program = compile(step_model(), "onnxruntime")
    given = {name: array for name, array in {**feeds(), **change}.items() if array is not None}
    with pytest.raises(FeedError, match=words):
        program(given)


@pytest.mark.parametrize(
    ("carry", "constants", "state", "words"),
    [
        ({"q": "d"}, {}, {}, "no output 'q'"),
        ({"d_next": "q"}, {}, {}, "no input 'q'"),
        ({"n_next": "d"}, {}, {}, r"float32\(\) but input 'd' takes"),
        ({"d_next": "d", "keep_next": "d"}, {}, {}, "more than one output feeds 'd'"),
        ({"d_next": "d"}, {"x": 0, "t": 0, "n": 0, "keep": 0, "d": 0}, {}, "no first value in state for carried 'd'"),
        ({}, {"x": 0, "t": 0, "n": 0, "keep": 0}, {"d": 0}, "'d', which no output feeds"),
        ({"d_next": "d"}, {"x": 0}, {"d": 0}, "missing 't', 'n', 'keep'"),
        ({"d_next": "d"}, {"d": 0}, {"d": 0}, "both as constant and as state"),
    ],
)
def test_session_wiring_is_checked(carry, constants, state, words):
    program = compile(step_model(), "onnxruntime")
    with pytest.raises(FeedError, match=words):
        Session(program, carry, constants, state)


def test_session_reads_and_writes_by_name():
    session = open_session(compile(step_model(), "onnxruntime"))
    with pytest.raises(FeedError, match="before the first step"):
        session.read("loss")
    np.testing.assert_array_equal(session.read("x"), image(1))
    with pytest.raises(FeedError, match="no tensor 'nothing'"):
        session.read("nothing")
    session.advance(3)
    session.write("n", np.float32(40))
    session.write("x", image(5))
    session.advance(2)
    assert session.read("n") == 42
    np.testing.assert_array_equal(session.read("x"), image(5))
    snapshot = session.read("d")
    session.advance(1)
    assert not np.array_equal(snapshot, session.read("d"))
    with pytest.raises(FeedError, match="cannot advance"):
        session.advance(-1)


def test_large_weights_do_not_change_the_model():
    model = step_model()
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    compile(model, "onnxruntime")
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in before.items())
