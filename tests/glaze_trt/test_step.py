from __future__ import annotations

import numpy as np
import pytest

import engine
from engine.passes.precision import typed
from glaze_trt import models
from glaze_trt import step as graphs
from glaze_trt.objective import Update
from tests.glaze_trt.scene import image, waves

SIZE = (1, 3, 64, 96)
NAMES = ("lpips", "visibility", "structure")


def programs(precision: str) -> tuple[engine.Program, ...]:
    """Constants, encoder, perceptual net and step; the step rounds as `precision` would, with loss scales in fp16."""
    paths = models.find("tiny", "encoder").path, models.find("tiny", "perceptual").path
    nets = graphs.Nets(*(engine.load(path, {"image": SIZE}) for path in paths))
    look = graphs.look(SIZE, NAMES)
    known = {v.name: tuple(v.shape) for v in (*look.graph.outputs, *nets.features)}
    step = typed(graphs.step(nets, NAMES, Update(), known, scaled=precision == "fp16"), precision, emulate=True)
    return tuple(
        engine.compile(m, engine="onnxruntime", precision="fp32") for m in (look, nets.encoder, nets.perceptual, step)
    )


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
        "target": target,
        "steps": np.float32(12),
        **{f"limit_{name}": np.float32(limits) for name in NAMES},
        **{name: value for name, value in seen.items() if name in step.inputs},
    }
    state = graphs.first_state(NAMES, np.zeros(SIZE, np.float32), scale=scale)
    return engine.Session(step, graphs.carried(NAMES, scaled=bool(scale)), constants, state)


def test_the_distance_falls_and_delta_stays_inside_cap_and_picture(compiled) -> None:
    run = session(compiled)
    distances = []
    for _ in range(12):
        run.advance(1)
        distances.append(float(run.read("distance")))
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
    assert np.isinf(tight.read("best_distance"))
    best = float(loose.read("best_distance"))
    assert best <= float(loose.read("distance"))


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
    run = session(scaled, scale={"distance": 2.0**40, "lpips": 2.0**4})
    before = {name: run.read(name) for name in ("delta", "momentum", "second", "step", "weight_lpips")}
    run.advance(1)
    for name, value in before.items():
        np.testing.assert_array_equal(run.read(name), value)
    assert run.read("scale_distance") == 2.0**39
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
        run = session(scaled, scale={"distance": scale, "lpips": scale})
        for name in NAMES:
            run.write(f"weight_{name}", np.float32(0))
        run.advance(1)
        assert run.read("scale_distance") == scale
        moves.append(run.read("momentum").ravel().astype(float))
    wanted = exact.read("momentum").ravel().astype(float)
    agree = [float(m @ wanted / np.linalg.norm(m) / np.linalg.norm(wanted)) for m in moves if np.linalg.norm(m) > 0]
    assert agree[0] > 0.999
    assert agree[1:] == [] or agree[1] < 0.99
