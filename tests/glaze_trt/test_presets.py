"""Every preset: its numbers are those published, and what its paper claims holds of the picture it makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import engine
import glaze_trt
from glaze_trt import models, presets, styles
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.measure.ssim import ssim
from glaze_trt.network import Network
from glaze_trt.objective import Budget, Objective, Search
from glaze_trt.result import CloakResult, to_levels
from glaze_trt.styles.pattern import pattern
from tests.glaze_trt.embedding import embed, embedding
from tests.glaze_trt.scene import waves

SIZE = (48, 56)
PICTURE, OTHER, THIRD = (waves(*SIZE, seed=seed) for seed in (0, 5, 6))
Levels = NDArray[np.uint8]

HALF = 0.5
"""From units of [-1,1] to units of [0,1]."""

QUARTER = 0.25
"""From FoggySight's standardised units, as its ε of 0.5 is 0.125 of [0,1]."""

PUBLISHED = {
    "glaze-paper": (500, 1.0, 0.01 * HALF, "constant"),
    "nightshade": (500, 0.04, 0.04, "line"),
    "photoguard": (1000, 0.06 * HALF, 0.02 * HALF, "line"),
    "mist": (100, 16 / 255, 1 / 255, "constant"),
    "lowkey": (50, 1.0, 0.0025 * HALF, "constant"),
    "foggysight": (2000, 0.5 * QUARTER, 0.01 * QUARTER, "constant"),
}
"""Steps, the largest change and the first step in [0,1], and how the steps shrink."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_steps_and_sizes_are_those_published(name: str) -> None:
    steps, linf, rate, schedule = PUBLISHED[name]
    objective = presets.find(name)
    assert objective.steps == steps
    assert objective.budget == Budget(lpips=None, linf=objective.budget.linf, ssimulacra2=None)
    assert objective.budget.linf == pytest.approx(linf)
    assert objective.update.rate * objective.budget.linf == pytest.approx(rate)
    assert objective.update.schedule == schedule
    assert objective.finish == "last"


def test_bounds_directions_and_starts_are_those_published() -> None:
    found = {name: presets.find(name) for name in presets.PRESETS}
    assert {name: (o.features.direction, o.features.metric, o.update.kind) for name, o in found.items()} == {
        "glaze": ("toward", "mean-squared", "preconditioned"),
        "glaze-paper": ("toward", "mean-squared", "adam"),
        "nightshade": ("toward", "l2", "sign"),
        "photoguard": ("zero", "l2", "sign"),
        "mist": ("toward", "sum-squared", "sign"),
        "fawkes": ("away", "relative-squared", "adadelta"),
        "lowkey": ("away", "relative", "sign"),
        "face-off": ("between", "l2", "adam"),
        "foggysight": ("toward", "cosine", "adam"),
    }
    assert {n: [(b.measure, b.how, b.limit, b.weight) for b in o.bounds] for n, o in found.items() if n != "glaze"} == {
        "glaze-paper": [("lpips", "hinge", 0.05, 30.0)],
        "nightshade": [],
        "photoguard": [],
        "mist": [],
        "fawkes": [("dssim", "doubling", 0.012, 1e6)],
        "lowkey": [("lpips", "penalty", 0.0, 0.05)],
        "face-off": [("l2", "penalty", 0.0, 1.0)],
        "foggysight": [("l2", "penalty", 0.0, 1e-6)],
    }
    starts = {"glaze-paper": 0.025, "mist": 16 / 255, "lowkey": 0.005 * HALF, "face-off": 0.0}
    starts |= {"nightshade": 0.0, "photoguard": 0.06 * HALF}
    assert {name: found[name].start for name in starts} == pytest.approx(starts)
    fawkes, face_off = found["fawkes"], found["face-off"]
    assert (fawkes.steps, fawkes.budget.dssim, fawkes.budget.linf) == (75, 0.012, 15 / 255)
    assert face_off.search is not None
    assert 20 <= face_off.steps <= 100
    assert 5 <= face_off.search.rounds <= 8
    assert face_off.update.rate * face_off.budget.linf == pytest.approx(0.01)
    assert [name for name, o in found.items() if o.features.blurred] == ["lowkey"]
    assert found["foggysight"].features.views == ("brightness", "crop", "noise")
    assert {name for name, preset in presets.PRESETS.items() if preset.faces} == {
        *("fawkes", "lowkey", "face-off", "foggysight")
    }
    assert presets.PRESETS["mist"].target == "text"


def test_a_preset_has_its_own_budget_and_keeps_its_views() -> None:
    with pytest.raises(UsageError, match="no preset 'shade'; choose one of glaze,"):
        make_objective(preset="shade")
    with pytest.raises(UsageError, match="leave --intensity out"):
        make_objective("low", preset="mist")
    with pytest.raises(UsageError, match="leave --intensity out"):
        make_objective(budget=Budget(), preset="mist")
    with pytest.raises(UsageError, match="no transformation rotate; choose from jpeg,"):
        make_objective(preset="mist", robust=["jpeg", "rotate"])
    assert make_objective(preset="mist", steps=3, robust=["jpeg"]).features.views == ("jpeg",)
    robust = make_objective(preset="foggysight", robust=["jpeg", "noise"])
    assert set(robust.features.views) == {"brightness", "crop", "noise", "jpeg"}


def cloaked(objective: Objective, model: str | Path = "tiny", target: object = None, seed: int = 0) -> CloakResult:
    """PICTURE under an objective."""
    return Cloaker(str(model), objective=objective, engine_name="onnxruntime")(PICTURE, target=target, seed=seed)


def largest(levels: Levels) -> int:
    return int(np.abs(levels.astype(int) - PICTURE).max())


def latent(levels: Levels) -> NDArray[np.float64]:
    return Network(models.find("tiny", "encoder"), "onnxruntime")(levels)["latent"].astype(np.float64)


@pytest.mark.parametrize(("name", "levels"), [("glaze", 16), ("glaze-paper", 255), ("nightshade", 10)])
def test_the_encoder_sees_another_picture(name: str, levels: int) -> None:
    result = cloaked(make_objective(preset=name, steps=25), target=OTHER)
    before, after = (float(np.linalg.norm(latent(x) - latent(OTHER))) for x in (PICTURE, result.rgb))
    assert result.report.preset == name
    assert result.report.progress == pytest.approx(1 - after / before, abs=1e-3)
    assert result.report.progress > 0.05
    assert 0 < largest(result.rgb) <= levels
    if name == "glaze":
        assert result.report.ssimulacra2 >= 70


def test_the_papers_hinge_holds_lpips_and_has_no_say_below_its_limit() -> None:
    paper = make_objective(preset="glaze-paper", steps=40)
    (hinge,) = paper.bounds
    free = cloaked(replace(paper, constraints=(replace(hinge, weight=0.0),)), target=OTHER).report
    held = cloaked(replace(paper, constraints=(replace(hinge, weight=3e4),)), target=OTHER).report
    assert free.lpips > 0.06
    assert held.lpips < 0.053
    loose = cloaked(replace(paper, constraints=(replace(hinge, limit=9.0, weight=3e4),)), target=OTHER).report
    assert loose.lpips == pytest.approx(free.lpips, rel=1e-3)


def test_photoguard_brings_the_latents_norm_down() -> None:
    result = cloaked(make_objective(preset="photoguard", steps=25))
    before, after = (float(np.linalg.norm(latent(levels))) for levels in (PICTURE, result.rgb))
    assert after < 0.95 * before
    assert result.report.progress == pytest.approx(1 - after / before, abs=1e-3)
    assert largest(result.rgb) == 7


def test_mist_moves_the_latent_toward_the_pattern() -> None:
    words = pattern(*SIZE)
    result = cloaked(make_objective(preset="mist", steps=25), target=words)
    before, after = (float(np.linalg.norm(latent(levels) - latent(words))) for levels in (PICTURE, result.rgb))
    assert after < 0.97 * before
    assert largest(result.rgb) <= 16


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedding(tmp_path_factory.mktemp("face"))


def shift(face: Path, levels: Levels, of: Levels = PICTURE) -> float:
    """How far a picture's embedding is from that of PICTURE; both have the length 1."""
    return float(np.linalg.norm(embed(face, levels) - embed(face, of)))


def test_fawkes_moves_the_embedding_within_dssim(face: Path) -> None:
    objective = make_objective(preset="fawkes", steps=40)
    result = cloaked(objective, face)
    assert shift(face, result.rgb) > 0.3
    assert result.report.progress == pytest.approx(shift(face, result.rgb), abs=0.02)
    dssim = (1 - ssim(PICTURE, result.rgb)) / 2
    assert 0.006 < dssim <= 0.012
    assert largest(result.rgb) <= 15
    tighter = replace(
        objective,
        budget=replace(objective.budget, dssim=0.004),
        constraints=(replace(objective.bounds[0], limit=0.004),),
    )
    other = cloaked(tighter, face).rgb
    assert (1 - ssim(PICTURE, other)) / 2 <= 0.004
    assert shift(face, other) < shift(face, result.rgb)


def blurred(levels: Levels) -> Levels:
    """Through a Gaussian of 7 x 7, σ 3."""
    found = ndimage.gaussian_filter(levels.astype(float), (3, 3, 0), mode="constant", radius=(3, 3, 0))
    return np.rint(found).astype(np.uint8)


def test_lowkey_moves_the_embedding_with_and_without_blur(face: Path) -> None:
    objective = make_objective(preset="lowkey", steps=25)
    sharp_only = replace(objective, features=replace(objective.features, blurred=False))
    both, sharp = (cloaked(o, face).rgb for o in (objective, sharp_only))
    assert shift(face, both) > 0.3
    through = {name: shift(face, blurred(x), blurred(PICTURE)) for name, x in (("both", both), ("sharp", sharp))}
    assert through["both"] > 0.3
    away = {name: shift(face, blurred(x)) for name, x in (("both", both), ("sharp", sharp))}
    assert away["both"] > away["sharp"]
    assert largest(both) <= 1 + (0.0025 + 25 * 0.00125) * 255


def hinge(face: Path, levels: Levels) -> float:
    return shift(face, levels, OTHER) - shift(face, levels)


def test_face_off_brings_the_embedding_nearer_the_other_persons(face: Path) -> None:
    assert hinge(face, PICTURE) > 0.5
    result = cloaked(make_objective(preset="face-off", steps=40), face, OTHER)
    assert hinge(face, result.rgb) < 0
    assert not result.report.notes


def test_face_offs_search_ends_shorter_than_its_first_success(face: Path) -> None:
    objective = make_objective(preset="face-off", steps=40)

    def length(rounds: int, amplify: float = 1.0) -> float:
        search = Search(rounds=rounds, first=1.0, amplify=amplify)
        change = cloaked(replace(objective, search=search), face, OTHER).rgb.astype(float) - PICTURE
        return float(np.linalg.norm(change))

    first, last = length(1), length(6)
    assert 0 < last < 0.97 * first
    assert length(6, amplify=1.5) == pytest.approx(1.5 * last, rel=0.1)


def test_face_off_says_that_nothing_was_found(face: Path) -> None:
    objective = make_objective(preset="face-off", steps=2)
    result = cloaked(replace(objective, search=Search(rounds=2, first=1e-6)), face, OTHER)
    np.testing.assert_array_equal(result.rgb, PICTURE)
    assert any("no δ that is nearer the target, in 2 searches of 2 steps" in note for note in result.report.notes)


def test_foggysight_turns_the_embedding_to_the_mean_of_others(face: Path) -> None:
    people = [OTHER, THIRD, waves(40, 30, seed=7)]  # of any size: the embedding has one
    mean = np.mean([embed(face, person) for person in people], axis=0)

    def cosine(levels: Levels) -> float:
        return float(embed(face, levels) @ mean / np.linalg.norm(mean))

    result = cloaked(make_objective(preset="foggysight", steps=40), face, people)
    assert cosine(result.rgb) > cosine(PICTURE) + 0.2
    assert 16 < largest(result.rgb) <= 31


def test_without_a_target_a_preset_moves_toward_what_it_brings(face: Path) -> None:
    """As the command line does: a pattern, a style, or a word that a target is needed."""
    given = {
        "mist": pattern(*SIZE),
        "nightshade": to_levels(styles.apply(styles.DEFAULT, PICTURE / np.float32(255), 0)),
    }
    for name, target in given.items():
        objective = make_objective(preset=name, steps=2)
        np.testing.assert_array_equal(cloaked(objective).rgb, cloaked(objective, target=target).rgb)
    for name in ("face-off", "foggysight"):
        with pytest.raises(UsageError, match="moves a face toward other people's: give them as target"):
            glaze_trt.cloak(PICTURE, preset=name, model=str(face), steps=2)


@pytest.mark.parametrize(("name", "where"), [("photoguard", "to zero"), ("fawkes", "away"), ("lowkey", "away")])
def test_a_target_that_is_not_needed_is_refused(name: str, where: str) -> None:
    for given in ({"target": OTHER}, {"style": "mosaic"}):
        with pytest.raises(UsageError, match=f"{name} moves a picture {where}.* leave {next(iter(given))} out"):
            glaze_trt.cloak(PICTURE, preset=name, steps=2, **given)


def test_the_papers_weight_is_for_latents_before_the_factor_of_their_space(face: Path) -> None:
    """At the same weight of LPIPS, features count 1 / 0.18215² of what the same network without a space has."""
    squares = {}
    for unscaled in (False, True):
        paper = make_objective(preset="glaze-paper", steps=1)
        objective = replace(paper, features=replace(paper.features, unscaled=unscaled))
        encoder = Cloaker("tiny", objective=objective).encoders[0]
        for space in ("sd1", "sdxl", None):
            model = replace(encoder.model, manifest=replace(encoder.model.manifest, latent_space=space))
            cloaker = Cloaker("tiny", objective=objective)
            cloaker.encoders = (Network(model, "onnxruntime"),)
            _, step = cloaker.graphs((1, 3, 24, 24), scaled=False)
            squares[unscaled, space] = _feature_gradient(step)
    assert squares[True, None] == squares[False, "sd1"] == squares[False, "sdxl"]
    assert squares[True, "sd1"] / squares[False, "sd1"] == pytest.approx(1 / 0.18215**2, rel=1e-3)
    assert squares[True, "sdxl"] / squares[False, "sdxl"] == pytest.approx(1 / 0.13025**2, rel=1e-3)


def _feature_gradient(step: ir.Model) -> float:
    """Adam's first moment after one step, where LPIPS has no say: a tenth of the gradient's length."""
    program = engine.compile(step, "onnxruntime", "fp32")
    rng = np.random.default_rng(0)
    feeds = {
        str(value.name): rng.uniform(0.3, 0.7, [int(side) for side in value.shape]).astype(np.float32)
        for value in step.graph.inputs
    }
    feeds |= {name: np.zeros_like(feeds[name]) for name in ("delta", "momentum", "second", "step", "weight_lpips")}
    feeds["pull"] = np.ones_like(feeds["pull"])
    return float(np.linalg.norm(program(feeds)["next_momentum"]))


@pytest.mark.parametrize("size", [(41, 53), (8, 9)])
def test_foggysight_takes_pictures_of_any_size(face: Path, size: tuple[int, int]) -> None:
    cloaker = Cloaker(str(face), objective=make_objective(preset="foggysight", steps=12), engine_name="onnxruntime")
    result = cloaker(waves(*size), target=OTHER)
    assert result.rgb.shape == (*size, 3)
    assert result.report.progress > 0


def test_a_robust_cloak_for_a_face_embedding_takes_pictures_of_any_size(face: Path) -> None:
    objective = make_objective(steps=12, robust=["jpeg", "noise"])
    result = Cloaker(str(face), objective=objective, engine_name="onnxruntime")(waves(41, 53), target=OTHER)
    assert result.rgb.shape == (41, 53, 3)
    assert result.report.progress > 0.03


def test_a_search_is_not_judged_through_views() -> None:
    with pytest.raises(UsageError, match=r"face-off .* judged on the untouched picture.*--robust"):
        make_objective(preset="face-off", robust=["jpeg"])


def test_fawkes_delta_is_not_stretched(face: Path) -> None:
    assert cloaked(make_objective(preset="fawkes", steps=2), face).report.scale <= 1.0


def test_targets_of_another_size_suit_only_embeddings() -> None:
    with pytest.raises(PictureError, match="must be of one size"):
        cloaked(make_objective(preset="nightshade", steps=1), target=[OTHER, waves(40, 30)])
