"""Large pictures, here those over a few thousand pixels: octaves and tiles, and what is measured of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from glaze_trt import evaluate, models
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import PictureError
from glaze_trt.large import octaves, pooled, tiles
from glaze_trt.large.tiles import Tiling
from glaze_trt.measure import ssimulacra
from glaze_trt.network import Network
from tests.glaze_trt.embedding import embed, embedding
from tests.glaze_trt.scene import waves

SMALL = Tiling(whole=10_000, side=80, edge=8, fade=16, coarse=(64,))
SIZE = (100, 140)


def reference(before: np.ndarray, after: np.ndarray) -> float:
    files = [io.BytesIO(), io.BytesIO()]
    for levels, file in zip((before, after), files, strict=True):
        Image.fromarray(levels).save(file, "BMP")
    return float(compute_ssimulacra2(*files))


def noisy(levels: np.ndarray, amount: int = 8) -> np.ndarray:
    noise = np.random.default_rng(1).integers(-amount, amount + 1, levels.shape)
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def cloaker() -> Cloaker:
    return Cloaker(objective=make_objective(steps=6), engine_name="onnxruntime", tiling=SMALL)


@pytest.mark.parametrize("size", [(120, 168), (64, 64), (65, 500), (3, 900), (1, 7), (700, 1), (131, 97)])
def test_every_pixel_counts_once_and_is_cloaked_whole(size: tuple[int, int]) -> None:
    plan = tiles.plan(size, 64, SMALL)
    counted, covered = np.zeros(size, int), np.zeros((*size, 1))
    shapes = set()
    for part, core in zip(plan, plan.cores(), strict=True):
        counted[core] += 1
        fade = plan.fades(*part)
        covered[part] += fade * (1 - covered[part])
        shapes.add(covered[part].shape)
        assert fade[core[0].start - part[0].start, core[1].start - part[1].start] > 0
    assert (counted == 1).all()
    assert covered == pytest.approx(1, abs=1e-6)
    assert shapes == {(min(64, size[0]), min(64, size[1]), 1)}


def test_two_changes_that_differ_are_joined_without_a_loss_of_energy() -> None:
    rng = np.random.default_rng(0)
    plan = tiles.plan((64, 400), 64, SMALL)
    joined = np.zeros((64, 400, 3), np.float32)
    plain = np.zeros_like(joined)
    for part in plan:
        change = rng.standard_normal((64, 64, 3)).astype(np.float32)
        fade = plan.fades(*part)
        joined[part] = tiles.join(joined[part], change, fade)
        plain[part] += fade * (change - plain[part])
    grey = np.full((64, 400, 3), 128, np.uint8)
    found = [tiles.seam(grey, np.clip(np.rint(128 + 10 * x), 0, 255).astype(np.uint8), plan) for x in (joined, plain)]
    assert abs(found[0]) < 0.05
    assert found[1] < -0.15  # so the measure sees what is to be avoided


def test_a_seam_is_energy_where_tiles_meet() -> None:
    before = waves(*SIZE)
    plan = tiles.plan(SIZE, 80, SMALL)
    assert abs(tiles.seam(before, noisy(before), plan)) < 0.05
    assert tiles.seam(before, before, plan) == 0
    marked = noisy(before)
    for column in plan.seams()[1]:
        marked[:, column - 2 : column + 2] = before[:, column - 2 : column + 2]
    assert tiles.seam(before, marked, plan) < -0.05


@pytest.mark.parametrize("size", [(256, 192), (97, 143), (9, 300), (8, 8), (300, 9), (601, 401)])
def test_ssimulacra2_in_bands_is_that_of_the_package(size: tuple[int, int]) -> None:
    before = waves(*size)
    after = noisy(before)
    assert ssimulacra.score(before, after) == pytest.approx(reference(before, after), abs=0.01)
    assert ssimulacra.score(before, before) == 100


def test_coarse_changes_can_be_judged_on_a_reduction() -> None:
    before = np.repeat(np.repeat(waves(96, 128), 4, 0), 4, 1)
    change = np.random.default_rng(0).normal(0, 0.02, (24, 32, 3)).astype(np.float32)
    whole = octaves.added(before, octaves.resampled(change, (384, 512)))
    halves = [np.asarray(Image.fromarray(x).reduce(2)) for x in (before, whole)]
    assert ssimulacra.score(*halves, first=1) == pytest.approx(ssimulacra.score(before, whole), abs=1.0)


def test_lpips_of_tiles_is_that_of_the_whole() -> None:
    before = waves(200, 240)
    after = noisy(before)
    net = Network(models.find("tiny", "perceptual"), "onnxruntime")
    plan = tiles.plan((200, 240), 128)
    whole = evaluate.Lpips(net, before)(after)
    assert pooled.Lpips(net, before, plan)(after) == pytest.approx(whole, rel=0.06)
    assert pooled.Lpips(net, before, plan)(before) == 0


def test_what_is_held_stays_when_the_picture_is_scaled_down() -> None:
    rng = np.random.default_rng(0)
    kept = octaves.resampled(rng.normal(0, 1, (16, 24, 3)).astype(np.float32), (64, 96))
    change = octaves.holding(kept, 4)(kept + rng.normal(0, 1, kept.shape).astype(np.float32))
    small = [octaves.resampled(x, (16, 24), Image.Resampling.LANCZOS) for x in (kept, change)]
    assert np.square(small[1] - small[0]).mean() < 0.02 * np.square(small[0]).mean()
    assert np.square(change - kept).mean() > 0.5  # the finer rest is left


def test_a_large_picture_keeps_its_budget_and_its_cloak_when_scaled_down(cloaker: Cloaker) -> None:
    original, goal = waves(*SIZE), waves(*SIZE, seed=5)
    result = cloaker(original, target=goal)
    report = result.report
    plan = tiles.plan(SIZE, 80, SMALL)
    assert report.tiles == len(plan) == 6
    assert reference(original, result.rgb) == pytest.approx(report.ssimulacra2, abs=0.01)
    assert report.ssimulacra2 >= 70
    assert np.abs(result.rgb.astype(int) - original).max() <= 16
    assert report.lpips <= 0.05
    assert evaluate.Lpips(cloaker.perceptual, original)(result.rgb) <= 0.055
    assert abs(tiles.seam(original, result.rgb, plan)) < 0.2  # of a few tiles; 5 % is for thousands of pixels
    size = octaves.reduced_size(SIZE, 64)
    small, cloaked, target = (octaves.reduced(x, size) for x in (original, result.rgb, goal))
    way = evaluate.Progress(cloaker.encoders[0], small, (target,))(cloaked)
    assert way == pytest.approx(report.progress_at["64"], abs=1e-3)
    assert way > 0.05
    without = Cloaker(objective=cloaker.objective, engine_name="onnxruntime", tiling=replace(SMALL, coarse=()))(
        original, target=goal
    )
    assert without.report.progress_at == {}
    assert way > 2 * evaluate.Progress(cloaker.encoders[0], small, (target,))(octaves.reduced(without.rgb, size))


def test_the_same_seed_gives_the_same_tiles() -> None:
    hasty = Cloaker(objective=make_objective(steps=2), engine_name="onnxruntime", tiling=SMALL)
    first, again, other = (hasty(waves(*SIZE), target=waves(*SIZE, seed=5), seed=seed).rgb for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [(1, 300), (300, 3)])
def test_narrow_pictures_are_tiled_too(size: tuple[int, int]) -> None:
    cloaker = Cloaker(
        objective=make_objective(steps=2), engine_name="onnxruntime", tiling=Tiling(200, 128, 8, 16, steps=1.0)
    )
    result = cloaker(waves(*size))
    assert result.rgb.shape == (*size, 3)
    assert result.report.tiles == 3
    assert np.abs(result.rgb.astype(int) - waves(*size)).max() <= 16


def test_a_mask_holds_in_tiles_and_tiles_without_it_are_left_out(cloaker: Cloaker) -> None:
    mask = np.zeros(SIZE, np.float32)
    mask[:18, :28] = 1
    steps = []
    result = cloaker(waves(*SIZE), target=waves(*SIZE, seed=5), mask=mask, on_step=steps.append)
    change = np.abs(result.rgb.astype(int) - waves(*SIZE)).max(axis=2)
    assert change[mask == 0].max() == 0
    assert change[:18, :28].max() > 0
    assert steps[-1].steps == 6 + 1 * 2  # the reduction, and the tile that the mask touches


def test_steps_are_counted_over_all_parts_and_may_end_the_run(cloaker: Cloaker) -> None:
    steps = []
    cloaker(waves(*SIZE), target=waves(*SIZE, seed=5), on_step=steps.append)
    told = [info.step for info in steps]
    assert told == sorted(set(told))
    assert told[-1] == steps[0].steps == 6 + 6 * 2

    def stop(info: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cloaker(waves(*SIZE), target=waves(*SIZE, seed=5), on_step=stop)


@pytest.mark.parametrize(("preset", "levels"), [("nightshade", 10), ("photoguard", 7)])
def test_presets_keep_their_bound_in_tiles(preset: str, levels: int) -> None:
    objective = make_objective(preset=preset, steps=6)
    cloaker = Cloaker(objective=objective, engine_name="onnxruntime", tiling=SMALL)
    original = waves(*SIZE)
    result = cloaker(original, target=waves(*SIZE, seed=5) if preset == "nightshade" else None)
    assert np.abs(result.rgb.astype(int) - original).max() <= levels
    assert result.report.progress > 0.02
    assert result.report.progress_at["64"] > 0.02


def test_robust_cloaks_are_made_in_tiles_too() -> None:
    cloaker = Cloaker(
        objective=make_objective(steps=4, robust=("resize", "noise")), engine_name="onnxruntime", tiling=SMALL
    )
    report = cloaker(waves(*SIZE), target=waves(*SIZE, seed=5)).report
    assert report.ssimulacra2 >= 70
    assert report.progress > 0


def test_extractors_of_one_size_see_their_box_of_a_large_picture(tmp_path: Path) -> None:
    path = embedding(tmp_path)
    original = waves(*SIZE)
    for whole in (3_000, 1_000):  # the box in one piece, and reduced
        cloaker = Cloaker(
            str(path), objective=make_objective(steps=8), engine_name="onnxruntime", tiling=Tiling(whole=whole)
        )
        box = (20, 30, 48, 40)
        mask = np.zeros(SIZE, np.float32)
        mask[30:70, 20:68] = 1
        result = cloaker(original, target=waves(50, 50, seed=5), boxes=[box], mask=mask)
        goal = embed(path, waves(50, 50, seed=5))
        before, after = (np.linalg.norm(embed(path, x, box) - goal) for x in (original, result.rgb))
        assert after < before
        assert np.abs(result.rgb.astype(int) - original).max(axis=2)[mask == 0].max() == 0
        assert result.report.ssimulacra2 >= 70
    mixed = Cloaker([str(path), "tiny"], engine_name="onnxruntime", tiling=SMALL)
    with pytest.raises(PictureError, match="in turn"):
        mixed(original, target=waves(*SIZE, seed=5))
