"""The decoder student's task: show a latent as TAESD's decoder shows it. It serves previews only."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from export.distill import package
from export.distill.students import TinyDecoder


class DecoderTask:
    """Distil TAESD's decoder."""

    port = package.DECODER
    source = "distilled from TAESD's decoder (Ollin Boer Bohan), whose stages at strides 8 and 4 it began from"

    def __init__(self, encoder: nn.Module, teacher: nn.Sequential) -> None:
        """Take TAESD's encoder, which makes latents of pictures, and its decoder."""
        self.encoder = encoder
        self.teacher = teacher
        self.student: nn.Module = TinyDecoder(teacher)

    def lesson(self, image: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        """Latents, half of them moved part of the way to another picture's as a cloak does, and their pictures."""
        with torch.no_grad():
            latent = self.encoder(image).float()
            share = torch.rand(len(latent), 1, 1, 1, generator=generator) * 0.6
            share[len(latent) // 2 :] = 0
            latent = torch.lerp(latent, latent.roll(1, 0), share)
            return latent, self.teacher(latent).float()

    def loss(self, lesson: tuple[Tensor, ...]) -> Tensor:
        """L1 of pixels and of their differences to the right and below."""
        student = self.student
        assert isinstance(student, TinyDecoder)
        latent, wanted = lesson
        error = student.unclipped(latent).float() - wanted
        return error.abs().mean() + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()

    def measure(self, student: nn.Module, image: Tensor, *, thorough: bool) -> dict[str, float]:
        """PSNR in decibels between the student's and the teacher's pictures of the same latents."""
        with torch.no_grad():
            latent = self.encoder(image).float()
            error = student(latent).float() - self.teacher(latent).float().clamp(0, 1)
        return {"psnr_to_teacher": float(-10 * error.square().mean().log10())}
