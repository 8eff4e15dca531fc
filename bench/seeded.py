"""A models folder with every named network, real architectures on seeded weights, made by the product's own exporters.

For what does not depend on trained weights: whether engines are built, and how fast they run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from bench.networks import SD_SCALING, SDXL_SCALING, kl_encoder, lpips_network, taesd

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "taesd": taesd,
    "taesdxl": lambda: taesd(seed=1),
    "sd-vae": lambda: kl_encoder(SD_SCALING),
    "sdxl-vae": lambda: kl_encoder(SDXL_SCALING, seed=1),
    "lpips-alex": lambda: lpips_network("alex"),
    "lpips-vgg": lambda: lpips_network("vgg"),
    "lpips-squeeze": lambda: lpips_network("squeeze"),
}


def use_home(home: Path, wanted: Collection[str], say: Callable[[str], None]) -> None:
    """Makes `home` the models folder of this process, and exports into it what is wanted and missing."""
    from export import export_model

    os.environ["GLAZE_TRT_HOME"] = str(home)
    for name, make in NETWORKS.items():
        if name not in wanted or (home / "models" / f"{name}.onnx").is_file():
            continue
        say(f"{name}: exporting a seeded one")
        file = home / f"{name}.safetensors"
        home.mkdir(parents=True, exist_ok=True)
        state = {key: tensor.detach().clone() for key, tensor in make().state_dict().items()}
        save_file(state, file)
        export_model(name, weights=file, home=home)
        file.unlink()
