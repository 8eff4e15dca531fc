from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from scipy import ndimage

import engine
from engine.passes.precision import typed
from engine.tape import OPSET, Tape
from glaze_trt import models
from glaze_trt.graph import step as graphs
from glaze_trt.graph import views
from glaze_trt.graph.losses import Nets
from glaze_trt.objective import Constraint, Features, Objective, Update
from tests.glaze_trt.scene import image, waves

SIZE = (1, 3, 64, 96)
OBJECTIVE = Objective()
NAMES = OBJECTIVE.measures


def programs(precision: str) -> tuple[engine.Program, ...]:
    """Constants, encoder, perceptual net and step; the step rounds as `precision` would, with loss scales in fp16."""
    paths = models.find("tiny", "encoder").path, models.find("tiny", "perceptual").path
    encoder, perceptual = (engine.load(path, {"image": SIZE}) for path in paths)
    nets = Nets((encoder,), perceptual)
    look = graphs.look(SIZE, OBJECTIVE)
    known = {v.name: tuple(v.shape) for v in (*look.graph.outputs, *nets.features)}
    step = typed(graphs.step(nets, OBJECTIVE, known, scaled=precision == "fp16"), precision, emulate=True)
    return tuple(engine.compile(m, engine="onnxruntime", precision="fp32") for m in (look, encoder, perceptual, step))


@pytest.fixture(scope="module")
def compiled() -> tuple[engine.Program, ...]:
    return programs("fp32")


def session(
    compiled: tuple[engine.Program, ...],
    limits: float = 1.0,
    cap: float = 8 / 255,
    scale: dict[str, float] | None = None,
) -> engine.Session:
    look, encoder, perceptual, step = compiled
    seen = look({"image": image(waves())}) | perceptual({"image": image(waves())})
    target = encoder({"image": image(waves(seed=5))})["latent"]
    constants = {
        "picture": image(waves()),
        "cap": np.full((1, 1, *SIZE[2:]), cap, np.float32),
        "target_0": target,
        "whole_0": np.float32(1),
        "steps": np.float32(12),
        **{f"limit_{name}": np.float32(limits) for name in NAMES},
        **{name: value for name, value in seen.items() if name in step.inputs},
    }
    state = graphs.first_state(OBJECTIVE, np.zeros(SIZE, np.float32), scale)
    return engine.Session(step, graphs.carried(OBJECTIVE, scaled=bool(scale)), constants, state)


def test_the_distance_falls_and_delta_stays_inside_cap_and_picture(compiled) -> None:
    run = session(compiled)
    distances = []
    for _ in range(12):
        run.advance(1)
        distances.append(float(run.read("distance_0")))
        delta = run.read("delta")
        assert np.abs(delta).max() <= 8 / 255 + 1e-7
        moved = image(waves()) + delta
        assert moved.min() >= -1e-6
        assert moved.max() <= 1 + 1e-6
    assert distances[-1] < 0.8 * distances[0]


def test_no_host_work_between_steps_changes_nothing(compiled) -> None:
    together, apart = session(compiled), session(compiled)
    together.advance(7)
    for _ in range(7):
        apart.advance(1)
    assert np.array_equal(together.read("delta"), apart.read("delta"))


def test_nothing_moves_where_the_cap_is_zero(compiled) -> None:
    run = session(compiled, cap=0.0)
    run.advance(3)
    assert not run.read("delta").any()


def test_a_broken_limit_raises_its_weight_and_a_kept_one_lowers_it(compiled) -> None:
    tight, loose = session(compiled, limits=1e-9), session(compiled, limits=1e4)
    for run in (tight, loose):
        run.advance(6)
    for name in NAMES:
        assert tight.read(f"weight_{name}") > 1.0
        assert loose.read(f"weight_{name}") < 1.0


def test_the_best_iterate_is_one_inside_every_limit(compiled) -> None:
    tight, loose = session(compiled, limits=1e-9), session(compiled, limits=1e4)
    for run in (tight, loose):
        run.advance(10)
    assert np.isinf(tight.read("best_score"))
    best = float(loose.read("best_score"))
    assert best <= float(loose.read("distance_0"))


def test_the_first_update_is_the_formula(compiled) -> None:
    """One step from δ = 0 with no constraint: |move| = rate·cap·g/(|g|+ε), by the preconditioned update."""
    update = Update()
    run = session(compiled)
    for name in NAMES:
        run.write(f"weight_{name}", np.float32(0))
    run.advance(1)
    momentum, second = run.read("momentum"), run.read("second")
    g = np.sign(momentum) * np.sqrt(second / (1 - update.memory))
    assert np.sqrt(np.mean(g**2)) == pytest.approx(1, rel=1e-3)
    np.testing.assert_allclose(momentum, g / (np.abs(g) + update.damping), rtol=1e-3, atol=1e-5)
    picture, cap = image(waves()), np.float32(8 / 255)
    moved = np.clip(-update.rate * cap * momentum, -cap, cap)
    np.testing.assert_allclose(run.read("delta"), np.clip(picture + moved, 0, 1) - picture, atol=1e-6)


@pytest.fixture(scope="module")
def scaled() -> tuple[engine.Program, ...]:
    return programs("fp16")


def test_an_overflow_changes_nothing_but_the_scale_it_halves(scaled) -> None:
    run = session(scaled, scale={"distance_0": 2.0**40, "lpips": 2.0**4})
    before = {name: run.read(name) for name in ("delta", "momentum", "second", "step", "weight_lpips")}
    run.advance(1)
    for name, value in before.items():
        np.testing.assert_array_equal(run.read(name), value)
    assert run.read("scale_distance_0") == 2.0**39
    assert run.read("scale_lpips") == 2.0**4
    run.advance(30)
    assert run.read("step") > 0
    assert np.isfinite(run.read("delta")).all()
    assert np.abs(run.read("delta")).max() > 0


def test_a_good_scale_gives_the_step_of_fp32_and_a_small_one_does_not(scaled, compiled) -> None:
    exact = session(compiled)
    for name in NAMES:  # at δ = 0 their gradients are 0 / 0
        exact.write(f"weight_{name}", np.float32(0))
    exact.advance(1)
    moves = []
    for scale in (2.0**14, 2.0**-24):
        run = session(scaled, scale={"distance_0": scale, "lpips": scale})
        for name in NAMES:
            run.write(f"weight_{name}", np.float32(0))
        run.advance(1)
        assert run.read("scale_distance_0") == scale
        moves.append(run.read("momentum").ravel().astype(float))
    wanted = exact.read("momentum").ravel().astype(float)
    good, small = (float(m @ wanted / max(np.linalg.norm(m), 1e-30) / np.linalg.norm(wanted)) for m in moves)
    assert good > 0.99  # fp16 turns the sign of a few ReLUs
    assert small < 0.9  # 0 where all of it vanished


def small(name: str, shape: tuple[int, ...] = (1, 3, 16, 16)) -> ir.Model:
    """An extractor of a few numbers: means of patches through a smooth bend, with weights of its own."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name=name)
    graph.inputs.append(ir.Value(name="image", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    kernel = np.random.default_rng(len(name)).normal(0, 0.3, (4, 3, 8, 8)).astype(np.float32)
    latent = tape.Tanh(tape.Conv(graph.inputs[0], kernel, strides=[8, 8]))
    latent.name = "latent"
    graph.outputs.append(latent)
    return ir.Model(graph, ir_version=10)


def ran(
    objective: Objective,
    steps: int,
    encoders: int = 1,
    *,
    weights: tuple[float, ...] = (),
    whole: tuple[float, ...] = (1.0, 1.0),
    first: float = 1e-2,
) -> tuple[engine.Session, list[engine.Program]]:
    """A session after some steps from a small δ, and its extractors."""
    rng = np.random.default_rng(0)
    nets = [small("n" * (index + 1)) for index in range(encoders)]
    look = graphs.look((1, 3, 16, 16), objective)
    known = {v.name: tuple(v.shape) for v in look.graph.outputs}
    model = graphs.step(Nets(tuple(nets), None, weights), objective, known)
    step = engine.compile(model, "onnxruntime")
    picture, other = rng.uniform(0.3, 0.7, (2, 1, 3, 16, 16)).astype(np.float32)
    programs = [engine.compile(net, "onnxruntime") for net in nets]
    constants = {"picture": picture, "cap": np.full((1, 1, 16, 16), 0.1, np.float32)}
    constants |= {name: np.float32(value) for name, value in (("steps", steps), ("pull", 1), ("seed", 0.5))}
    constants |= {f"limit_{bound.measure}": np.float32(bound.limit) for bound in objective.bounds}
    for index, program in enumerate(programs):
        constants |= {
            f"own_{index}": unit(objective, program({"image": picture})["latent"]),
            f"target_{index}": unit(objective, program({"image": other})["latent"]),
            f"whole_{index}": np.float32(whole[index]),
        }
    if look.graph.outputs:
        constants |= engine.compile(look, "onnxruntime")({"image": picture})
    constants = {name: value for name, value in constants.items() if name in step.inputs}
    state = graphs.first_state(objective, rng.uniform(-first, first, picture.shape).astype(np.float32))
    session = engine.Session(step, graphs.carried(objective, encoders), constants, state)
    session.advance(steps)
    return session, programs


def unit(objective: Objective, latent: np.ndarray) -> np.ndarray:
    return latent / np.linalg.norm(latent) if objective.features.unit else latent


@pytest.mark.parametrize("kind", ["preconditioned", "sign", "adam", "adadelta"])
@pytest.mark.parametrize("schedule", ["cosine", "line", "constant"])
def test_every_update_brings_the_features_nearer(kind: str, schedule: str) -> None:
    update = Update(kind, rate=0.1, schedule=schedule, memory=0.9, damping=1e-3 if kind == "adadelta" else 0.3)
    before, after = (ran(Objective(constraints=(), update=update, finish="last"), n)[0] for n in (1, 25))
    assert float(after.read("distance_0")) < 0.7 * float(before.read("distance_0"))
    assert np.abs(after.read("delta")).max() <= 0.1 + 1e-6


PLAIN = ("mean-squared", "sum-squared", "l2")
RELATIVE = ("relative", "relative-squared", "cosine")  # nothing is relative to zero, and no angle to it


@pytest.mark.parametrize(
    ("direction", "metric"),
    [
        *((d, m) for d in ("toward", "away", "zero") for m in PLAIN),
        *((d, m) for d in ("toward", "away") for m in RELATIVE),
    ],
)
def test_features_go_where_the_direction_says(direction: str, metric: str) -> None:
    objective = Objective(
        features=Features(direction, metric), constraints=(), update=Update("sign", rate=0.1), finish="last"
    )
    before, after = (float(ran(objective, n)[0].read("distance_0")) for n in (1, 20))
    assert after > 1.5 * before if direction == "away" else after < 0.8 * before


def test_sign_descent_moves_by_its_rate_and_the_line_ends_at_a_hundredth() -> None:
    objective = Objective(constraints=(), update=Update("sign", rate=0.05, schedule="line"), finish="last")
    session, _ = ran(objective, 10)
    last = session.read("delta")
    session.advance(1)  # past the end of the schedule
    moves = np.abs(session.read("delta") - last)
    np.testing.assert_allclose(moves[moves > 0], 0.05 * 0.1 * 0.01, rtol=0.05)


def test_adam_takes_its_first_step_at_full_rate() -> None:
    objective = Objective(
        constraints=(), update=Update("adam", rate=0.05, schedule="constant", momentum=0.9, memory=0.999), finish="last"
    )
    session, _ = ran(objective, 1)
    rng = np.random.default_rng(0)
    rng.uniform(0.3, 0.7, (2, 1, 3, 16, 16))
    start = rng.uniform(-1e-2, 1e-2, (1, 3, 16, 16)).astype(np.float32)
    moves = np.abs(session.read("delta") - start)
    assert np.median(moves) == pytest.approx(0.05 * 0.1, rel=1e-2)  # g/(|g| + ε): less only where g is tiny
    assert moves.max() <= 0.05 * 0.1 * (1 + 1e-4)


def test_a_hinge_leaves_alone_what_is_inside_and_holds_what_is_not() -> None:
    shifts = {}
    for weight in (0.0, 100.0):
        bound = Constraint("dssim", "hinge", limit=0.001, weight=weight)
        objective = Objective(constraints=(bound,), update=Update("sign", rate=0.1), finish="last")
        shifts[weight] = float(ran(objective, 30)[0].read("dssim"))
    assert shifts[0.0] > 0.003
    assert shifts[100.0] < 0.0015


def test_a_doubling_weight_doubles_above_its_limit_and_halves_below() -> None:
    for limit, factor in ((1e-9, 2.0), (1.0, 0.5)):
        bound = Constraint("dssim", "doubling", limit=limit, weight=4.0)
        objective = Objective(constraints=(bound,), update=Update("sign", rate=0.1), finish="last")
        assert float(ran(objective, 1)[0].read("weight_dssim")) == 4.0 * factor


def test_between_keeps_the_shortest_change_that_is_nearer_the_target() -> None:
    objective = Objective(
        features=Features("between", "l2"),
        constraints=(Constraint("l2", "penalty", weight=0.01),),
        update=Update("sign", rate=0.1, schedule="constant"),
        finish="last",
    )
    session, (program,) = ran(objective, 30)
    assert float(session.read("hinge")) == 0.0
    best = session.read("best_delta")
    picture = session.read("picture")
    seen = program({"image": picture + best})["latent"]
    own, target = session.read("own_0"), session.read("target_0")
    assert np.linalg.norm(seen - target) <= np.linalg.norm(seen - own)
    assert np.square(best).sum() == pytest.approx(float(session.read("best_score")), rel=1e-4)


def test_two_extractors_are_both_moved() -> None:
    objective = Objective(constraints=(), update=Update(rate=0.1))
    before, after = (ran(objective, n, encoders=2)[0] for n in (1, 20))
    for name in ("distance_0", "distance_1"):
        assert float(after.read(name)) < 0.9 * float(before.read(name))


def test_a_step_is_told_the_distance_of_what_its_view_shows() -> None:
    update = Update("sign", rate=0.1)
    objective = Objective(features=Features(views=("noise", "blur")), constraints=(), update=update, finish="last")
    session, (program,) = ran(objective, 1)
    order = views.turns(("noise", "blur"))
    assert "untouched" in order
    for turn in range(1, len(order)):
        seen = program({"image": session.read("picture") + session.read("delta")})["latent"]
        session.advance(1)
        untouched = float(np.mean(np.square(seen - session.read("target_0"))))
        same = float(session.read("distance_0")) == pytest.approx(untouched, rel=1e-4)
        assert same == (order[turn] == "untouched")


def test_a_blurred_picture_is_brought_nearer_too() -> None:
    left = {}
    for blurred in (False, True):
        update = Update("sign", rate=0.1)
        objective = Objective(features=Features(blurred=blurred), constraints=(), update=update, finish="last")
        session, (program,) = ran(objective, 20)
        cloaked = session.read("picture") + session.read("delta")
        through = ndimage.gaussian_filter(cloaked, (0, 0, 3, 3), mode="constant", radius=(0, 0, 3, 3))
        left[blurred] = float(np.square(program({"image": through})["latent"] - session.read("target_0")).mean())
    assert left[True] < 0.95 * left[False]


@pytest.mark.parametrize("how", ["hinge", "doubling", "penalty"])
def test_a_bound_acts_beside_normalised_gradients_as_it_is_called(how: str) -> None:
    """A hinge has no say inside its limit, and holds outside; a penalty has no limit."""
    found = {}
    for limit, weight in ((9.0, 3.0), (1e-9, 3.0), (9.0, 0.0)):
        bound = Constraint("dssim", how, limit=limit, weight=weight)
        found[limit, weight] = ran(Objective(constraints=(bound,), finish="last"), 12)[0]
    free, inside, outside = (found[case].read("delta") for case in ((9.0, 0.0), (9.0, 3.0), (1e-9, 3.0)))
    assert np.array_equal(free, inside) == (how != "penalty")
    assert np.array_equal(inside, outside) == (how == "penalty")
    assert float(found[1e-9, 3.0].read("dssim")) < 0.9 * float(found[9.0, 0.0].read("dssim"))


def test_an_encoder_that_lags_far_behind_takes_all_of_the_step_and_nothing_overflows() -> None:
    objective = Objective(constraints=(), update=Update(rate=0.1), finish="last")
    session, _ = ran(objective, 20, encoders=2, whole=(1e-12, 1.0))  # left⁴ would be 1e44
    alone, _ = ran(objective, 20, encoders=1)
    assert np.abs(session.read("delta")).max() > 0.01
    np.testing.assert_allclose(session.read("delta"), alone.read("delta"), atol=1e-4)
    away = Objective(features=Features("away"), constraints=(), update=Update(rate=0.1), finish="last")
    moved, _ = ran(away, 20, encoders=2, whole=(1.0, 1.0), first=1e-6)  # at first nothing is left: 1 / 0⁴
    assert np.isfinite(moved.read("delta")).all()
    assert np.abs(moved.read("delta")).max() > 0.01


def test_the_best_change_is_best_by_the_encoders_weights() -> None:
    objective = Objective(constraints=(), update=Update(rate=0.1))
    for weights in ((1.0, 10.0), (10.0, 1.0)):
        session, _ = ran(objective, 1, encoders=2, weights=weights)
        distances = [float(session.read(f"distance_{index}")) for index in range(2)]
        assert float(session.read("best_score")) == pytest.approx(np.average(distances, weights=weights), rel=1e-5)
