"""What ONNX Runtime's CUDA provider is used for, without a GPU; how its programs run is in `test_cuda`."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from engine.errors import BackendError
from engine.runtime import onnxruntime_cuda
from engine.runtime.onnxruntime_cuda import OnnxRuntimeCuda
from engine.runtime.protocol import Options
from tests.engine.stand_in_driver import StandInDriver

EMPTY = ir.Model(ir.Graph([], [], nodes=[], name="g"), ir_version=10)


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (12, 0)])
def test_bf16_is_not_offered_on_any_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(StandInDriver, "capability", capability)
    monkeypatch.setattr(onnxruntime_cuda, "open_driver", lambda index: StandInDriver())
    assert OnnxRuntimeCuda().precisions() == ("fp16", "fp32")


@pytest.mark.parametrize("precision", ["bf16", "mixed"])
def test_bf16_is_refused_before_anything_is_opened(precision: str) -> None:
    with pytest.raises(BackendError, match=f"no {precision} kernels.*--precision fp16 or fp32"):
        OnnxRuntimeCuda().compile(EMPTY, precision, Options())


def test_the_command_that_installs_it_ends_with_one_package_of_the_two() -> None:
    steps = [step.split() for step in OnnxRuntimeCuda.install.split(" && ")]
    assert [step[1] for step in steps] == ["install", "uninstall", "install"]
    assert steps[1][-2:] == ["onnxruntime", "onnxruntime-gpu"]  # a folder that lost files must not pass for installed
    assert steps[2][-1].startswith("'onnxruntime-gpu[")
