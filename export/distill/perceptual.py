"""The perceptual student's task: report the distances that LPIPS-squeeze reports.

Distances are compared, not features, so the student may have its own channels. They are compared as
logarithms, in total and in every cell of a coarse grid for every feature, which makes one pair of pictures many
lessons. Some pictures are perturbed so that the two networks disagree, or cloaked within a budget that the
student keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from export.distill import attack, distort, package
from export.distill.pictures import to_levels
from export.distill.students import TinyPerceptual
from export.distill.teachers import LpipsSqueeze

_THEIRS = ((0,), (1,), (2,), (3,), (4,), (5, 6))
"""The teacher's features, in groups for each of which one of the student's stands.

In groups by stride a student learns to let one feature speak for the deeper ones, which say twice as much on cloaks of
larger pictures.
"""
_OURS = ((0,), (1,), (2,), (3,), (4,), (5,))
"""The student's."""

_GRID = 8
_FLOOR = 3e-4  # distances far below it count as equal
_DISPUTE_STEPS = 3
_CLOAK_STEPS = 8


class PerceptualTask:
    """Distil LPIPS-squeeze."""

    port = package.PERCEPTUAL
    source = "distilled from LPIPS v0.1 on SqueezeNet 1.1 (Zhang et al.)"

    def __init__(self, teacher: LpipsSqueeze, encoder: nn.Module) -> None:
        """Take LPIPS-squeeze and the encoder against which cloaks are made."""
        self.teacher = teacher
        self.encoder = encoder
        self.student: nn.Module = TinyPerceptual(teacher)

    def lesson(self, image: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """Pictures, what became of them, and the teacher's distances on a grid for each feature of the student.

        A quarter is disputed, a quarter cloaked, the rest damaged in everyday ways.
        """
        disputes, cloaks = len(image) // 4, max(2, len(image) // 4)
        damaged = distort.any_of(image, generator)
        disputed = self._disputed(image[:disputes], damaged[:disputes], generator)
        cloaked = self._cloaked(image[disputes : disputes + cloaks], generator)
        damaged = torch.cat([disputed, cloaked, damaged[disputes + cloaks :]])
        with torch.no_grad():
            return image, damaged, *grids(self.teacher(image), self.teacher(damaged), _THEIRS)

    def loss(self, lesson: tuple[Tensor, ...]) -> Tensor:
        """Smooth-L1 between the logarithms of distances, in total and cell by cell."""
        image, damaged, *wanted = lesson
        found = grids(self.student(image), self.student(damaged), _OURS)
        totals = apart(sum(x.mean((1, 2)) for x in found), sum(x.mean((1, 2)) for x in wanted))
        cells = [apart(x, y) for x, y in zip(found, wanted, strict=True)]
        return totals + torch.stack(cells).mean()

    def _disputed(self, image: Tensor, damaged: Tensor, generator: Generator) -> Tensor:
        """Pictures near ``damaged``, and half of them near ``image``, on whose distance the two disagree most."""
        sign = torch.randint(2, (len(image),), generator=generator) * 2.0 - 1
        near = torch.randint(2, (len(image), 1, 1, 1), generator=generator)
        with torch.no_grad():
            one, other = self.student(image), self.teacher(image)

        def agreement(point: Tensor) -> Tensor:
            own = attack.distance(self.student(point), one)
            real = attack.distance(self.teacher(point), other)
            return sign * ((own + _FLOOR).log() - (real + _FLOOR).log())

        start = torch.where(near == 1, image, damaged)
        return attack.descend(start, agreement, attack.caps(len(image), generator), _DISPUTE_STEPS, generator)

    def _cloaked(self, image: Tensor, generator: Generator) -> Tensor:
        """Pictures cloaked against the encoder, at a budget that the student judges."""
        with torch.no_grad():
            target = self.encoder(image.roll(1, 0).flip(3)).float()
        budget = float(0.01 + 0.09 * torch.rand((), generator=generator))
        cap = float(attack.caps(1, generator, 6 / 255))
        return attack.cloak(image, self.encoder, target, self.student, budget=budget, cap=cap, steps=_CLOAK_STEPS)

    def measure(self, student: nn.Module, image: Tensor, *, thorough: bool) -> dict[str, float]:
        """Rank correlation with the teacher over damaged and cloaked held-out pictures.

        Also the teacher's mean distance of cloaks for which the student's is just within 0.05.
        """
        generator = Generator().manual_seed(1)
        strengths = torch.linspace(0.05, 1, 8 if thorough else 3).tolist()
        damaged = [distort.apply(kind, image, s, generator) for kind in distort.DISTORTIONS.values() for s in strengths]
        with torch.no_grad():
            target = self.encoder(image.roll(1, 0)).float()
        steps = 20 if thorough else 4
        budgets = (0.02, 0.05, 0.1)
        cloaks = [
            attack.cloak(image, self.encoder, target, student, budget=budget, cap=12 / 255, steps=steps)
            for budget in budgets
        ]
        everything = [to_levels(x) for x in damaged] + cloaks
        with torch.no_grad():
            one, other = student(image), self.teacher(image)
            own = torch.stack([attack.distance(student(x), one) for x in everything])
            real = torch.stack([attack.distance(self.teacher(x), other) for x in everything])
        return {
            "spearman": spearman(own.flatten(), real.flatten()),
            "median_log_error": float((own.log() - real.log()).abs().median()),
            "cloak_student_lpips": float(own[-2].mean()),
            "cloak_real_lpips": float(real[-2].mean()),
        }


def grids(a: Sequence[Tensor], b: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> list[Tensor]:
    """Squared feature distances averaged in the cells of a grid, summed over each group: (B, G, G) each."""

    def one(k: int) -> Tensor:
        return functional.adaptive_avg_pool2d((a[k] - b[k]).square().sum(1, keepdim=True), _GRID)[:, 0]

    return [torch.stack([one(k) for k in group]).sum(0) for group in groups]


def apart(found: Tensor | float, wanted: Tensor | float) -> Tensor:
    """Smooth-L1 between logarithms of distances."""
    found, wanted = torch.as_tensor(found), torch.as_tensor(wanted)
    return functional.smooth_l1_loss((found + _FLOOR).log(), (wanted + _FLOOR).log(), beta=0.2)


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of two vectors without ties."""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])
