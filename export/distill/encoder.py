"""The encoder student's task: agree with TAESD on pictures, and on pictures perturbed against the student.

Plain distillation transfers badly: a cloak made against a student leaves the set of pictures on which it was
taught. So every crop is also moved, by a few steps of descent on the student itself, toward another picture's
latent. The teacher says what it sees there, and above all how far that is from what it saw before: the
part of the latent that a cloak changes is small beside the picture's own.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from export.distill import attack, package
from export.distill.pictures import to_levels
from export.distill.students import TinyEncoder, encoder_entry
from export.distill.training import autocast

_ENTRY_WEIGHT = 0.2  # of the features at stride 4
_AWAY_WEIGHT = 0.2  # of the way that an attack leads
_LEAST_STEPS, _MOST_STEPS = 2, 8  # of an attack


class EncoderTask:
    """Distil TAESD's encoder."""

    port = package.ENCODER
    source = "distilled from TAESD's encoder (Ollin Boer Bohan), whose deeper stages it began from"

    def __init__(self, teacher: nn.Sequential, perceptual: nn.Module) -> None:
        """Take TAESD's encoder and the LPIPS network that keeps held-out cloaks within their budget."""
        self.teacher = teacher
        self.perceptual = perceptual
        self.student: nn.Module = TinyEncoder(teacher)

    def lesson(self, image: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """Pictures beside what they become under attack, with the teacher's features at stride 4 and its latents.

        All are (B, 2, ...), the clean picture first.
        """
        student = self.student
        with torch.no_grad():
            target = student(image.roll(1, 0)).float()
        cap = attack.caps(len(image), generator)
        uneven = (torch.arange(len(image)) % 2 == 0).view(-1, 1, 1, 1)
        cap = torch.where(uneven, cap * attack.activity(image), cap)
        steps = int(torch.randint(_LEAST_STEPS, _MOST_STEPS + 1, (), generator=generator))
        moved = attack.descend(image, attack.toward(student, target), cap, steps, generator)
        pairs = torch.stack([image, moved], 1)
        with torch.no_grad():
            entry, latent = encoder_entry(self.teacher, pairs.flatten(0, 1))
        return pairs, entry.view(-1, 2, *entry.shape[1:]), latent.view(-1, 2, *latent.shape[1:])

    def loss(self, lesson: tuple[Tensor, ...]) -> Tensor:
        """Smooth-L1 between latents, and relative errors of the features at stride 4 and of how far attacks led."""
        student = self.student
        assert isinstance(student, TinyEncoder)
        pairs, wanted_entry, wanted = (x.float().flatten(0, 1) for x in lesson)
        entry = student.front(pairs)
        found = student.rest(entry).float()
        error = (entry.float() - wanted_entry).square().mean() / wanted_entry.square().mean()
        away, wanted_away = (x[1::2] - x[::2] for x in (found, wanted))
        apart = (away - wanted_away).square().mean() / wanted_away.square().mean()
        loss: Tensor = functional.smooth_l1_loss(found, wanted, beta=0.2) + _ENTRY_WEIGHT * error + _AWAY_WEIGHT * apart
        return loss

    def measure(self, student: nn.Module, image: Tensor, *, thorough: bool) -> dict[str, float]:
        """R^2 of latents, on clean pictures and on cloaks made against the student, and how far those transfer.

        A cloak's target is the next held-out picture. A thorough cloak keeps LPIPS-squeeze within 0.05 and
        the figures are computed in float32; a quick one is bounded by 8/255 alone.
        """
        with torch.no_grad():
            target = student(image.roll(1, 0)).float()
        if thorough:
            cloaked = attack.cloak(image, student, target, self.perceptual, budget=0.05, cap=12 / 255, steps=20)
        else:
            cap, generator = torch.full((len(image), 1, 1, 1), 8 / 255), Generator().manual_seed(1)
            cloaked = to_levels(attack.descend(image, attack.toward(student, target), cap, 5, generator))
        with torch.no_grad(), autocast(not thorough and torch.is_autocast_enabled("cpu")):
            clean = r_squared(student(image), self.teacher(image))
            perturbed = r_squared(student(cloaked), self.teacher(cloaked))
            real = self.teacher(image.roll(1, 0)).float()
            own = attack.progress(student, image, cloaked, target)
            transferred = attack.progress(self.teacher, image, cloaked, real)
        return {
            "r2_clean": clean,
            "r2_cloaked": perturbed,
            "progress_student": float(own.mean()),
            "progress_teacher": float(transferred.mean()),
            "transfer": float(transferred.mean() / own.mean()),
        }


def r_squared(found: Tensor, wanted: Tensor) -> float:
    """Share of the latents' variance about each channel's mean that is explained; (B, C, h, w) both."""
    wanted = wanted.float()
    spread = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum()
    return float(1 - (found.float() - wanted).square().sum() / spread)
