"""For which GPUs TensorRT-RTX is told to build, and what a build tells of what went wrong."""

from __future__ import annotations

import pytest

from engine.errors import BackendError
from engine.runtime.driver import open_driver
from engine.runtime.protocol import Build, Options
from engine.runtime.tensorrt import RTX
from engine.runtime.tensorrt_build import configure, errors, logger
from tests.engine.stand_in_driver import StandInDriver
from tests.engine.test_tensorrt import Library, small


@pytest.mark.parametrize(
    ("capabilities", "members"), [((), ["CURRENT"]), (("7.5",), ["SM75"]), (("sm86", "12.0"), ["SM86", "SM120"])]
)
def test_engines_are_for_the_gpu_at_hand_or_for_those_named(capabilities: tuple[str, ...], members: list[str]) -> None:
    trt = RTX.library()
    config = trt.Builder(logger(trt)).create_builder_config()
    configure(trt, config, Build(capabilities=capabilities))
    told = [config.get_compute_capability(index) for index in range(config.num_compute_capabilities)]
    assert told == [getattr(trt.ComputeCapability, member) for member in members]


def test_with_no_gpu_and_none_named_a_build_says_what_to_name() -> None:
    try:
        open_driver().close()
    except BackendError:
        for _ in range(2):  # and says the reason the second time too
            with pytest.raises(BackendError, match=r"in fp32: (?!no reason).*--compute-capability"):
                RTX.build(small(), "fp32", Options())
    else:
        assert RTX.build(small(), "fp32", Options())


def test_of_errors_a_build_tells_its_own_each_once_and_the_first() -> None:
    log = logger(Library(StandInDriver()))
    log.log(Library.ILogger.ERROR, "of a build before")
    log.log(Library.ILogger.ERROR, "again   and\nagain")
    start = len(log.lines)
    assert errors(log, start) == "no reason was given"
    for line in ("again   and\nagain", "again and again", *map(str, range(20))):
        log.log(Library.ILogger.ERROR, line)
        log.log(Library.ILogger.ERROR + 1, "a warning")
    assert errors(log, start) == "again and again; 0; 1; 2; 3; 4; 5; 6"
