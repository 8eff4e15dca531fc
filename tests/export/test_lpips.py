"""The perceptual nets against the lpips package, on random weights."""

from __future__ import annotations

import warnings
from pathlib import Path

import lpips as theirs
import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from export import export_model, lpips
from glaze_trt.errors import ModelError
from glaze_trt.models import find

State = dict[str, torch.Tensor]


def original(kind: str) -> theirs.LPIPS:
    """LPIPS with the published linear layers on a random backbone."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            net = theirs.LPIPS(net=kind, pretrained=False, pnet_rand=True, verbose=False)
    net = net.to_empty(device="cpu")
    net.scaling_layer = theirs.ScalingLayer()
    for parameter in net.net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    for layer in net.lins.parameters():
        torch.nn.init.uniform_(layer, 0.0, 1.0)
    return net.requires_grad_(False).eval()


def complete(path: Path, net: theirs.LPIPS) -> Path:
    save_file({key: value.clone() for key, value in net.state_dict().items()}, path)
    return path


def parts(net: theirs.LPIPS) -> tuple[State, State]:
    state = net.state_dict()
    backbone = {"features." + key.split(".", 2)[2]: v for key, v in state.items() if key.startswith("net.slice")}
    return backbone, {key: value for key, value in state.items() if key.startswith("lin") and key[3].isdigit()}


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(1, 3, 48, 72, generator=generator)
    return a, (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("kind", ["alex", "vgg", "squeeze"])
def test_squared_differences_add_up_to_the_distance(kind: str, tmp_path: Path) -> None:
    net = original(kind)
    (network,) = lpips.load(f"lpips-{kind}", [complete(tmp_path / "all.safetensors", net)])
    a, b = (picture.double() for picture in pair())
    expected = net.double()(a, b, normalize=True).item()
    features = network.module.double()
    found = sum(((f - g) ** 2).sum(1).mean((1, 2)) for f, g in zip(features(a), features(b), strict=True))
    assert len(network.outputs) == len(features(a)) == net.L
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["alex", "vgg", "squeeze"])
def test_the_smallest_picture(kind: str, tmp_path: Path) -> None:
    (network,) = lpips.load(f"lpips-{kind}", [complete(tmp_path / "all.safetensors", original(kind))])
    side = network.minimum
    assert all(feature.numel() for feature in network.module(torch.rand(1, 3, side, side)))
    with pytest.raises(RuntimeError):
        network.module(torch.rand(1, 3, side - 1, side - 1))


def test_an_export_is_found_and_gives_the_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLAZE_TRT_HOME", str(tmp_path / "home"))
    net = original("squeeze")
    export_model("squeeze", weights=complete(tmp_path / "all.safetensors", net))
    model = find("squeeze", "perceptual")
    assert model.name == "lpips-squeeze"
    assert all(error is not None and 0 < error < 1e-4 for error in model.manifest.check.values())
    session = onnxruntime.InferenceSession(model.path)
    assert [output.name for output in session.get_outputs()] == [f"feature_{k}" for k in range(7)]
    a, b = pair()
    maps = [session.run(None, {"image": picture.numpy()}) for picture in (a, b)]
    found = sum(float(np.square(f - g).sum(1).mean()) for f, g in zip(*maps, strict=True))
    assert found == pytest.approx(net(a, b, normalize=True).item(), rel=1e-5)


def test_backbone_and_linear_layers_apart(tmp_path: Path) -> None:
    net = original("alex")
    backbone, linear = parts(net)
    paths = [tmp_path / "alexnet.pth", tmp_path / "lin.safetensors"]
    torch.save(backbone | {"classifier.1.weight": torch.zeros(2, 2)}, paths[0])
    save_file(linear, paths[1])
    a, _ = pair()
    (together,) = lpips.load("lpips-alex", [complete(tmp_path / "all.safetensors", net)])
    (apart,) = lpips.load("lpips-alex", paths)
    for found, expected in zip(apart.module(a), together.module(a), strict=True):
        torch.testing.assert_close(found, expected)
    assert apart.source.name == "alexnet.pth + lin.safetensors"


def test_linear_layers_come_from_the_package_where_none_are_given(tmp_path: Path) -> None:
    backbone, _ = parts(original("squeeze"))
    save_file(backbone, tmp_path / "squeezenet.safetensors")
    save_file({"0.weight": torch.zeros(2)}, tmp_path / "another_network.safetensors")
    (network,) = lpips.load("lpips-squeeze", [tmp_path])
    packaged_path = Path(theirs.__file__).parent / "weights" / "v0.1" / "squeeze.pth"
    packaged = torch.load(packaged_path, map_location="cpu", weights_only=True)
    assert network.source.name == "squeezenet.safetensors + squeeze.pth"
    torch.testing.assert_close(network.module.linear[0], packaged["lin0.model.1.weight"])


def test_a_black_picture_has_a_finite_gradient(tmp_path: Path) -> None:
    net = original("squeeze")
    for key, value in net.net.named_parameters():
        if key.endswith("bias"):
            value.fill_(-1.0)  # every feature of a dark picture is zero
    (network,) = lpips.load("lpips-squeeze", [complete(tmp_path / "all.safetensors", net)])
    image = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    sum(feature.sum() for feature in network.module(image)).backward()
    assert torch.isfinite(image.grad).all()


def test_linear_weights_below_zero_are_refused(tmp_path: Path) -> None:
    net = original("alex")
    net.lin2.model[1].weight.sub_(0.5)
    with pytest.raises(ModelError, match="linear layer 2 of lpips-alex has weights below zero"):
        lpips.load("lpips-alex", [complete(tmp_path / "all.safetensors", net)])


def test_another_backbone(tmp_path: Path) -> None:
    path = complete(tmp_path / "all.safetensors", original("alex"))
    with pytest.raises(ModelError, match=r"not the weights of lpips-squeeze: \d+ of \d+ tensors missing, first \S+"):
        lpips.load("lpips-squeeze", [path])


def test_another_network_is_refused_before_anything_is_downloaded(tmp_path: Path) -> None:
    save_file({"encoder.conv_in.weight": torch.zeros(4)}, tmp_path / "vae.safetensors")
    with pytest.raises(ModelError, match=r"not the weights of lpips-vgg: .*1 unknown, first encoder\.conv_in\.weight"):
        lpips.load("lpips-vgg", [tmp_path / "vae.safetensors"])


def test_a_backbone_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "_torchvision_url", lambda kind: "http://127.0.0.1:9/squeezenet.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="bring http.*squeezenet.pth, or a complete LPIPS file"):
        lpips.load("lpips-squeeze", [])


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        lpips.load("lpips-alex", [tmp_path / "nowhere.pth"])
    with pytest.raises(ModelError, match="no weights file"):
        lpips.load("lpips-alex", [tmp_path])
