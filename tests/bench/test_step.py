"""The pieces of `bench.step` that a wrong number could hide in."""

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch")

from bench.step import rival  # noqa: E402
from bench.step.floor import multiply_adds  # noqa: E402
from bench.step.torch_terms import Structure, Visibility  # noqa: E402


def value(name: str, *shape: int) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))


def node(op: str, inputs: list[ir.Value], *shape: int, **attributes: int) -> ir.Node:
    made = ir.Node("", op, inputs, ir.convenience.convert_attributes(attributes), outputs=[value(op, *shape)])
    return made


def test_multiply_adds_by_hand():
    grouped = node("Conv", [value("x", 1, 8, 10, 10), value("w", 16, 4, 3, 3)], 1, 16, 10, 10, group=2)
    product = node("MatMul", [value("a", 2, 5, 7), value("b", 2, 7, 3)], 2, 5, 3)
    gemm = node("Gemm", [value("c", 7, 5), value("d", 7, 3)], 5, 3, transA=1)
    graph = ir.Graph([], [], nodes=[grouped, product, gemm], opset_imports={"": 20})
    expected = 16 * 100 * 4 * 9 + 2 * 5 * 3 * 7 + 5 * 3 * 7
    assert multiply_adds(ir.Model(graph, ir_version=10)) == expected


@pytest.mark.parametrize(("size", "stride", "padding", "groups"), [(9, 2, 1, 1), (8, 2, 0, 2), (7, 1, 2, 4)])
def test_the_rivals_convolution_backward_is_torchs(size: int, stride: int, padding: int, groups: int):
    x = torch.randn(1, 4, size, size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 4 // groups, 3, 3, dtype=torch.float64)
    y = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding, groups=groups)
    cotangent = torch.randn_like(y)
    (exact,) = torch.autograd.grad(y, x, cotangent)
    ours, *_ = rival.convolution_backward(
        cotangent, x, weight, None, (stride,) * 2, (padding,) * 2, (1, 1), False, (0, 0), groups, (True, False, False)
    )
    torch.testing.assert_close(ours, exact)


def test_the_rivals_average_pooling_backward_is_torchs():
    x = torch.randn(1, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.avg_pool2d(x, 2)
    cotangent = torch.randn_like(y)
    (exact,) = torch.autograd.grad(y, x, cotangent)
    ours = rival.avg_pool2d_backward(cotangent, x, (2, 2), (2, 2), (0, 0), False, True, None)
    torch.testing.assert_close(ours, exact)


def test_visibility_gives_the_packages_score():
    from bench.quality.measure import ssimulacra2

    random = np.random.default_rng(0)
    coarse = random.integers(40, 200, (16, 16, 3))
    picture = np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)
    noisy = np.clip(picture.astype(int) + random.integers(-6, 7, picture.shape), 0, 255).astype(np.uint8)

    def tensor(levels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)[None]

    error = float(Visibility(tensor(picture))(tensor(noisy)))
    assert 100 - 10 * error**0.6276336467831387 == pytest.approx(
        ssimulacra2(picture, noisy), abs=1.5
    )  # edges, and weights left out


def test_structure_is_zero_for_no_change_and_grows():
    picture = torch.rand(1, 3, 64, 64)
    structure, change = Structure(picture), torch.randn(1, 3, 64, 64) * 0.02
    none, some, more = (float(structure(change * scale)) for scale in (0.0, 1.0, 2.0))
    assert none == pytest.approx(0.0, abs=1e-6)
    assert 0 < some < more
