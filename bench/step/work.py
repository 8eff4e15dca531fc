"""What is timed: terms of a loss, differentiated at one picture, and what is done with their gradients.

A `Work` is plain PyTorch and says nothing of how it is run: eagerly, compiled, traced to ONNX (`torch_forms.py`,
`rival.py`) or by our engines (`ours.py`). `encoder_work` is one term and its gradient; the whole cloaking step is in
`whole.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
Term = Callable[[Tensor, Tensors], Tensor]
Update = Callable[[Tensors, Tensors, Tensors], dict[str, Tensor]]


@dataclass(frozen=True)
class Work:
    """One thing to time, at one size.

    Attributes:
        name: for the table.
        size: side of the square picture, in pixels.
        inputs: every input by name, float32.
        point: inputs → the picture (1, 3, H, W) at which the terms are differentiated.
        terms: scalar losses of the picture and the inputs.
        update: values, gradients (both by term) and inputs → outputs by name.
        compared: the output whose direction is compared between contenders, and the input it is an advance of, if any.
        networks: the networks inside, to be laid out as a contender wishes.
    """

    name: str
    size: int
    inputs: Tensors
    point: Callable[[Tensors], Tensor]
    terms: Mapping[str, Term]
    update: Update
    compared: tuple[str, str | None]
    networks: tuple[nn.Module, ...]

    def step(self, inputs: Tensors) -> dict[str, Tensor]:
        """All of it as one pure function, for tracing."""
        picture = self.point(inputs)
        values: dict[str, Tensor] = {}
        gradients: dict[str, Tensor] = {}
        for name, term in self.terms.items():

            def at(x: Tensor, term: Term = term) -> Tensor:
                return term(x, inputs)

            values[name], pull, *_ = torch.func.vjp(at, picture)
            gradients[name] = pull(torch.ones_like(values[name]))[0]
        return self.update(values, gradients, inputs)


class Loss(nn.Module):
    """Mean squared distance of an encoder's latent from a goal: the scalar that is exported and differentiated."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor, goal: Tensor) -> Tensor:
        """The distance."""
        latent: Tensor = self.encoder(image).float()
        return (latent - goal).square().mean()


def encoder_work(name: str, encoder: nn.Module, size: int) -> Work:
    """Value and image gradient of an encoder's distance from a random latent."""
    generator = torch.Generator().manual_seed(size)
    loss = Loss(encoder)
    return Work(
        name,
        size,
        {
            "image": _here(torch.rand(1, 3, size, size, generator=generator, device="cpu")),
            "goal": _here(torch.randn(1, 4, size // 8, size // 8, generator=generator, device="cpu")),
        },
        lambda inputs: inputs["image"],
        {"distance": lambda picture, inputs: loss(picture, inputs["goal"])},
        lambda values, gradients, _: {"value": values["distance"], "grad:image": gradients["distance"]},
        ("grad:image", None),
        (loss,),
    )


def _here(tensor: Tensor) -> Tensor:
    return tensor.to(torch.get_default_device())
