"""The whole cloaking step: the terms, their weights, the update and the projection.

`whole_work` is the step in PyTorch, from its equations, with everything of the picture that stays computed beforehand;
`our_step` is the graph that `glaze_trt.graph.step` builds of the same networks, opened on the same picture and state.
The terms and the update's constants are those of the product's default objective.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

import engine
from bench.networks import DistanceFrom, lpips_network, taesd
from bench.step.ours import write_forward
from bench.step.torch_forms import Outputs, as_arrays
from bench.step.torch_terms import Structure, Visibility
from bench.step.work import Tensors, Term, Work
from glaze_trt.graph import step as graphs
from glaze_trt.graph.losses import Nets
from glaze_trt.loop.calibration import calibrated
from glaze_trt.objective import Objective

STEPS = 30  # length of the schedule


@dataclass(frozen=True)
class OurStep:
    """The step as our graph, and what a session is opened with."""

    model: ir.Model
    constants: Outputs
    state: Outputs
    carry: dict[str, str]

    def open(self, program: engine.Program) -> engine.Session:
        """A session at the first step; loss scales, where there are any, are found before, as a cloak does."""
        return engine.Session(program, self.carry, self.constants, calibrated(program, self.constants, self.state))


def state(size: int, objective: Objective) -> dict[str, Tensor]:
    """The state that both sides advance, from a noisy δ."""
    generator = torch.Generator().manual_seed(size)
    delta = (torch.rand(1, 3, size, size, generator=generator, device="cpu") - 0.5) * (8 / 255)
    first = graphs.first_state(objective, delta.numpy())
    return {name: torch.as_tensor(array.copy(), device=torch.get_default_device()) for name, array in first.items()}


def original(size: int) -> tuple[Tensor, Tensor]:
    """A smooth random picture and another as its target, away from 0 and 1."""
    generator = torch.Generator().manual_seed(size + 1)

    def smooth() -> Tensor:
        coarse = torch.rand(1, 3, size // 8, size // 8, generator=generator, device="cpu")
        fine = nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
        return (fine.clamp(0, 1) * 0.8 + 0.1).contiguous().to(torch.get_default_device())

    return smooth(), smooth()


def whole_work(size: int, weights: Path | None) -> Work:
    """The step in PyTorch."""
    objective = Objective()
    update, names = objective.update, objective.measures
    bounds = {bound.measure: bound.limit for bound in objective.bounds}
    cap = math.floor(objective.budget.linf * 255 + 1e-3) / 255
    encoder: nn.Module = taesd(weights)
    picture, target = original(size)
    networks: list[nn.Module] = [encoder]
    with torch.no_grad():
        goal = encoder(target)
        whole = (encoder(picture).float() - goal).square().mean()

    def distance(x: Tensor, _: Tensors) -> Tensor:
        value: Tensor = (encoder(x).float() - goal).square().mean()
        return value

    terms: dict[str, Term] = {"distance": distance}
    if "lpips" in names:
        perceptual = DistanceFrom(lpips_network("squeeze", weights), picture)
        networks.append(perceptual)
        terms["lpips"] = lambda x, _: perceptual(x)
    if "visibility" in names:
        visibility = Visibility(picture)
        terms["visibility"] = lambda x, _: _single(visibility, x)
    if "structure" in names:
        structure = Structure(picture)
        terms["structure"] = lambda x, _: _single(structure, x - picture)

    def advance(values: Tensors, gradients: Tensors, inputs: Tensors) -> dict[str, Tensor]:
        unit = {name: g / (g.square().mean().sqrt() + 1e-12) for name, g in gradients.items()}
        pull = unit["distance"]
        for name in names:
            pull = pull + unit[name] * inputs[f"weight_{name}"]
        delta, count = inputs["delta"], inputs["step"] + 1
        second = update.memory * inputs["second"] + (1 - update.memory) * pull * pull
        root = (second / (1 - torch.pow(update.memory, count))).sqrt()
        momentum = update.momentum * inputs["momentum"] + pull / (root + update.damping)
        fall = 0.5 * update.rate * (torch.cos(math.pi * (inputs["step"] / STEPS).clamp(max=1)) + 1)
        moved = (delta - cap * fall * momentum).clamp(-cap, cap)
        score = values["distance"] / whole
        better = score < inputs["best_score"]
        for name in names:
            better = better & (values[name] <= bounds[name])
        after = {
            "next_delta": torch.minimum(torch.maximum(moved, -picture), 1 - picture),
            "next_momentum": momentum,
            "next_second": second,
            "next_step": count,
            "next_best_delta": torch.where(better, delta, inputs["best_delta"]),
            "next_best_score": torch.where(better, score, inputs["best_score"]),
        }
        for name in names:
            grown = inputs[f"weight_{name}"] + update.gain * (values[name] / bounds[name] - 1)
            after[f"next_weight_{name}"] = grown.clamp(min=0.0).clamp(max=update.ceiling)
        return after

    return Work(
        "step", size, state(size, objective), lambda inputs: picture + inputs["delta"], terms, advance,
        ("next_delta", "delta"), tuple(networks),
    )  # fmt: skip


def _single(term: nn.Module, x: Tensor) -> Tensor:
    """A term that stays in float32 in every form: its differences of local variances cancel in bf16."""
    with torch.autocast(x.device.type, enabled=False):
        value: Tensor = term(x.float())
    return value


class Features(nn.Module):
    """LPIPS' maps, unit length over the channels and times the root of the linear weights: a perceptual model file."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The maps, one a layer."""
        outputs = self.network.net(self.network.scaling_layer(image * 2 - 1))
        roots = [lin.model[-1].weight.clamp(min=0).sqrt().view(1, -1, 1, 1) for lin in self.network.lins]
        return tuple(nn.functional.normalize(o, dim=1, eps=1e-10) * r for o, r in zip(outputs, roots, strict=True))


def _net(module: nn.Module, example: Tensor, outputs: list[str]) -> ir.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        write_forward(module, {"image": example}, outputs, path)
        return engine.load(path)


def _fp32(model: ir.Model) -> engine.Program:
    return engine.compile(model, engine="onnxruntime", precision="fp32")


def our_step(size: int, weights: Path | None, *, scaled: bool = False) -> OurStep:
    """The step as our graph, its constants for the same picture, and the same first state.

    Args:
        size: side of the picture, in pixels.
        weights: folder of trained weights, or None for seeded ones.
        scaled: with loss scales, as a cloak in fp16 has them.
    """
    with torch.device("cpu"):
        return _our_step(size, weights, Objective(), scaled)


def _our_step(size: int, weights: Path | None, objective: Objective, scaled: bool) -> OurStep:
    picture, target = original(size)
    lpips = lpips_network("squeeze", weights)
    features = [f"feature_{index}" for index in range(len(lpips.lins))]
    encoder, perceptual = _net(taesd(weights), picture, ["latent"]), _net(Features(lpips), picture, features)
    known = _fp32(graphs.look((1, 3, size, size), objective))({"image": picture.numpy()})
    known |= _fp32(perceptual)({"image": picture.numpy()})
    own, goal = (_fp32(encoder)({"image": image.numpy()})["latent"] for image in (picture, target))
    shapes = {name: array.shape for name, array in known.items()}
    model = graphs.step(Nets((encoder,), perceptual), objective, shapes, scaled=scaled)
    cap = math.floor(objective.budget.linf * 255 + 1e-3) / 255
    given = {
        "picture": picture.numpy(),
        "cap": np.full((1, 1, size, size), cap, np.float32),
        "target_0": goal,
        "whole_0": np.float32(np.mean(np.square(own - goal))),
        "steps": np.float32(STEPS),
        **{f"limit_{bound.measure}": np.float32(bound.limit) for bound in objective.bounds},
        **known,
    }
    wanted = {str(value.name) for value in model.graph.inputs}
    constants = {name: np.asarray(array) for name, array in given.items() if name in wanted}
    scale = {name: 1.0 for name in graphs.scales(objective)} if scaled else {}
    first = graphs.first_state(objective, as_arrays(state(size, objective))["delta"], scale)
    return OurStep(model, constants, first, graphs.carried(objective, scaled=scaled))
