"""Where trained weights come from: a file, a folder or a hub id, and whether they are this network's at all.

Knows files and names, not networks: each network's module says which tensors it wants and what they may be called.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from glaze_trt.errors import ModelError

State = dict[str, Tensor]
Rename = Callable[[Sequence[str]], Mapping[str, str]]
"""From the names in a file to {name in the file: name in the network}; what it leaves out is not read."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """Where weights came from: file names or a hub id with its commit, SHA-256 of the bytes, licence if known."""

    name: str
    sha256: str
    licence: str | None = None


def read(path: Path, rename: Rename) -> State:
    """The wanted tensors of a file as float32, under the network's names.

    Raises:
        ModelError: the file is damaged, holds more than tensors, or is no weights file.
    """
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path}: not a weights file (known are {', '.join(SUFFIXES)})")
    try:
        with path.open("rb") as file:
            head = file.read(40)
        if head.startswith(b"version https://git-lfs"):
            raise ModelError(f"{path}: a Git LFS pointer, not the weights themselves: fetch it with `git lfs pull`")
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as tensors:
                return {new: tensors.get_tensor(old).float() for old, new in rename(list(tensors.keys())).items()}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); download it again") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: damaged, or holds code besides tensors and is refused for that; bring a .safetensors file"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({_first_line(error)})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return {new: state[old].float() for old, new in rename(list(state)).items()}


def fit(module: nn.Module, state: Mapping[str, Tensor], name: str, source: str) -> None:
    """Put the tensors into the module, all of them and no other.

    Raises:
        ModelError: names are missing or unknown, or a shape or value is wrong; it names the first of them.
    """
    wanted = module.state_dict()
    faults = []
    if missing := [key for key in wanted if key not in state]:
        faults.append(f"{len(missing)} of {len(wanted)} tensors missing, first {missing[0]}")
    if unknown := [key for key in state if key not in wanted]:
        faults.append(f"{len(unknown)} unknown, first {unknown[0]}")
    for key in (key for key in wanted if key in state and state[key].shape != wanted[key].shape):
        faults.append(f"{key} is {tuple(state[key].shape)} in place of {tuple(wanted[key].shape)}")
        break
    if faults:
        raise ModelError(f"{source}: not the weights of {name}: {'; '.join(faults)}")
    for key in wanted:
        if not torch.isfinite(state[key]).all():
            raise ModelError(f"{source}: {key} holds values that are not finite: damaged, download it again")
    module.load_state_dict({key: state[key] for key in wanted}, strict=True, assign=True)
    module.requires_grad_(False).eval()


def locate(given: str | Path | None, hub_id: str, hub_files: Sequence[str]) -> tuple[Path, str | None]:
    """The file or folder that was named, downloaded first where it is a hub id.

    Args:
        given: A path or a hub id; None for `hub_id`.
        hub_id: The usual one.
        hub_files: What to fetch of a hub repository, as patterns; the last is what a person could bring instead.

    Returns:
        Its place on this machine, and `hub:ID@COMMIT` where it came from a hub.

    Raises:
        ModelError: there is no such thing, or the hub cannot be reached.
    """
    if given is not None:
        path = Path(given).expanduser()
        if path.exists():
            return path, None
        if path.suffix in SUFFIXES or not _HUB_ID.fullmatch(str(given)):
            raise ModelError(f"{given}: no such file or folder, and not a hub id (OWNER/NAME)")
    wanted = str(given) if given is not None else hub_id
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(wanted, allow_patterns=list(hub_files))
    except Exception as error:  # the hub client, its transport and its cache each raise families of their own
        raise ModelError(
            f"hub id {wanted} cannot be fetched and is not in the local cache ({type(error).__name__}); bring "
            f"{hub_files[-1]} of https://huggingface.co/{wanted} and pass it with --weights FILE"
        ) from error
    return Path(folder), f"hub:{wanted}@{Path(folder).name[:12]}"


def describe(paths: Sequence[Path], hub: str | None = None, licence: str | None = None) -> Source:
    """What a manifest says of the files that were read.

    The licence is the one given, else the one that the file's own metadata or the model card beside it states.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    name = hub or " + ".join(path.name for path in paths)
    return Source(name, digest.hexdigest(), licence or stated_licence(paths[0]))


def stated_licence(path: Path) -> str | None:
    """The licence in a safetensors file's metadata, or at the head of a README.md in its folder or the one above."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as tensors:
            metadata = tensors.metadata() or {}
        if licence := metadata.get("modelspec.license") or metadata.get("license"):
            return str(licence)
    above = [path.parent.parent] if path.parent.name == "vae" else []
    for card in (folder / "README.md" for folder in (path.parent, *above)):
        if card.is_file():
            text = card.read_text(encoding="utf-8", errors="replace")
            front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
            if front and (stated := re.search(r"^license:\s*(\S+)", front[1], re.MULTILINE)):
                return stated[1]
    return None


def pick(folder: Path, names: Sequence[str]) -> Path:
    """The first of `names` in a folder, else its only safetensors file.

    Raises:
        ModelError: neither is there.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    have = f"it has {len(found)} safetensors files" if found else "it has no safetensors file"
    raise ModelError(f"{folder}: none of {', '.join(names)} is there and {have}; name the file with --weights FILE")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
