from __future__ import annotations

import numpy as np
import pytest

import engine
from glaze_trt import models
from glaze_trt import step as graphs
from glaze_trt.objective import Update
from tests.glaze_trt.scene import image, waves

SIZE = (1, 3, 64, 96)
NAMES = ("lpips", "visibility", "structure")


@pytest.fixture(scope="module")
def compiled() -> tuple[engine.Program, ...]:
    paths = models.find("tiny", "encoder").path, models.find("tiny", "perceptual").path
    nets = graphs.Nets(*(engine.load(path, {"image": SIZE}) for path in paths))
    look = graphs.look(SIZE, NAMES)
    known = {v.name: tuple(v.shape) for v in (*look.graph.outputs, *nets.features)}
    models_ = (look, nets.encoder, nets.perceptual, graphs.step(nets, NAMES, Update(), known))
    return tuple(engine.compile(m, engine="onnxruntime", precision="fp32") for m in models_)


def session(compiled: tuple[engine.Program, ...], limits: float = 1.0, cap: float = 8 / 255) -> engine.Session:
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
    state = graphs.first_state(NAMES, np.zeros(SIZE, np.float32))
    return engine.Session(step, graphs.carried(NAMES), constants, state)


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
