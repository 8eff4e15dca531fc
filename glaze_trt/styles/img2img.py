"""Stable Diffusion's img2img by diffusers: where a model lies, how it is loaded, and one picture's way through it.

    picture -> latent -> noise up to `strength` of the schedule -> denoised toward the prompt -> picture

The only file at run time that imports torch and diffusers, and only when a picture has to be made: they come with the
`export` extra. Everything that can fail here fails as one line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt.errors import StyleError

if TYPE_CHECKING:
    from glaze_trt.styles.diffusion import Diffusion

Levels = NDArray[np.uint8]
OnStep = Callable[[int, int], None]
"""Called with the steps done and the steps in all, after each."""

PACKAGES = ("torch", "transformers", "diffusers")
"""What is needed besides what is always installed."""

_INDEX = "model_index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class Img2Img:
    """A model on its device."""

    def __init__(self, settings: Diffusion) -> None:
        """Load it, from the hub where it is not on this machine.

        Raises:
            StyleError: a package is not installed, the model cannot be found, fetched or read or does not repaint
                pictures, there is no such device, or its memory does not suffice.
        """
        for package in PACKAGES:
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise StyleError(
                    f"a style by diffusion needs {package}, which is not installed: pip install 'glaze-trt[export]'"
                ) from error
        device = _device(settings.device)
        folder = _folder(settings.model)
        self.settings = settings
        self.weights = weights_here(settings.model)
        """What tells the model's weights from others."""
        with _memory_named(settings, "the model"):
            self._pipeline = _pipeline(folder, settings, device)

    def __call__(self, levels: Levels, on_step: OnStep | None = None) -> Levels:
        """Repaint a picture.

        Args:
            levels: (H, W, 3) uint8 of any size; mirrored at the right and bottom up to what the model takes, and cut.
            on_step: called after each step; what it raises ends the work.

        Returns:
            (H, W, 3) uint8.

        Raises:
            StyleError: memory does not suffice, or the model refused.
        """
        import torch

        settings, pipeline = self.settings, self._pipeline
        height, width = levels.shape[:2]
        multiple = int(pipeline.vae_scale_factor)
        grow = [(0, -height % multiple), (0, -width % multiple), (0, 0)]

        def after(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if on_step is not None:
                on_step(index + 1, int(pipeline.num_timesteps))
            return tensors

        with _memory_named(settings, f"a picture of {width} x {height}"), _between_libraries():
            made = pipeline(
                prompt=settings.prompt,
                image=Image.fromarray(np.pad(levels, grow, mode="symmetric")),
                strength=settings.strength,
                guidance_scale=settings.guidance,
                num_inference_steps=settings.steps,
                generator=torch.Generator("cpu").manual_seed(settings.seed),
                output_type="np",
                callback_on_step_end=after,
            )
        if any(getattr(made, "nsfw_content_detected", None) or ()):
            raise StyleError(
                f"{settings.model}: the model's safety checker blanked the result; try another seed or other words, or "
                "a built-in style"
            )
        image = np.asarray(made.images[0], dtype=np.float32)[:height, :width]
        if not np.isfinite(image).all():
            raise StyleError(f"{settings.model}: numbers went out of range on {pipeline.device}; use the device cpu")
        repainted: Levels = np.rint(image * 255).astype(np.uint8)
        return repainted


def weights_here(model: str) -> str | None:
    """What tells a model's weights from others, without reading them or asking the hub; None if not on this machine.

    A folder is known by its files' names, sizes and times, a hub id by the commit in the local cache.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / _INDEX).is_file():
            return None
        files = sorted(file for file in path.rglob("*") if file.is_file())
        stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
        told = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        return hashlib.sha256(told.encode()).hexdigest()
    if not _HUB_ID.fullmatch(model):
        return None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(model, _INDEX)
    return Path(found).parent.name if isinstance(found, str) else None


def _pipeline(folder: Path, settings: Diffusion, device: Any) -> Any:
    import diffusers
    import torch

    dtype = torch.float32 if device.type == "cpu" else torch.float16
    try:
        with _without_bars(), _errors_alone_logged(), _between_libraries():
            load: Any = diffusers.AutoPipelineForImage2Image.from_pretrained
            pipeline = load(str(folder), use_safetensors=True, dtype=dtype)
    except Exception as error:  # each component's library raises its own
        if _is_out_of_memory(error):
            raise
        raise StyleError(
            f"{settings.model}: cannot be loaded to repaint pictures ({_first_line(error)}); bring a model of "
            "Stable Diffusion's kind in diffusers' layout, with .safetensors weights"
        ) from error
    pipeline.to(device)
    if pipeline.dtype != dtype:  # older versions of diffusers know that argument by another name
        pipeline.to(dtype)
    pipeline.set_progress_bar_config(disable=True)
    solver: Any = diffusers.DPMSolverMultistepScheduler
    if settings.guidance > 1 and solver in pipeline.scheduler.compatibles:
        pipeline.scheduler = solver.from_config(pipeline.scheduler.config)
    return pipeline


def _folder(model: str) -> Path:
    """Where the model lies, fetched first where it is a hub id."""
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / _INDEX).is_file():
            raise StyleError(f"{path}: no diffusion model, as it has no {_INDEX}; give a folder that has one")
        return path
    if path.exists():
        raise StyleError(f"{path}: a file, and a folder in diffusers' layout is needed, or a hub id (OWNER/NAME)")
    if not _HUB_ID.fullmatch(model):
        raise StyleError(f"{model}: no such folder, and not a hub id (OWNER/NAME)")
    from diffusers import DiffusionPipeline
    from huggingface_hub import errors

    download: Any = DiffusionPipeline.download
    try:
        with _errors_alone_logged():
            return Path(download(model, use_safetensors=True))
    except Exception as error:  # the hub client, its transport and its cache each raise families of their own
        causes = list(_causes(error))
        if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
            reason = "the hub has none of that name, or wants a login for it (`hf auth login`)"
        elif any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
            reason = "the disk is full; $HF_HOME names the folder that models are kept in"
        else:
            reason = (
                f"it cannot be fetched from the hub ({_first_line(causes[-1])}); check the network, or name a folder "
                "that holds the model"
            )
        raise StyleError(f"{model}: not on this machine, and {reason}") from error


def _device(name: str) -> Any:
    """A torch device that is here."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise StyleError(f"torch can use no device {name!r} here; use auto, or cpu") from error
    return device


@contextlib.contextmanager
def _memory_named(settings: Diffusion, what: str) -> Iterator[None]:
    """Says in one line that memory did not suffice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise StyleError(
            f"{settings.model}: memory does not suffice for {what} (device {settings.device}); try a smaller "
            "picture, a smaller model, or the device cpu"
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch has a class of its own for a GPU's memory; the processor's runs out as a RuntimeError."""
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator" in str(error)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Loading takes seconds; its bars would be written across whatever shows the run's progress."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    modules: list[Any] = [diffusers_logging, transformers_logging]
    shown = [module for module in modules if module.is_progress_bar_enabled()]
    for module in shown:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in shown:
            module.enable_progress_bar()


@contextlib.contextmanager
def _errors_alone_logged() -> Iterator[None]:
    """What fails is raised as one line; that a model is in the local cache though the hub is away is no failure."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _between_libraries() -> Iterator[None]:
    """Hides what diffusers is warned of by the libraries under it: nobody but its makers can act on that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        yield


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
