"""TensorRT (data-centre GPUs) and TensorRT-RTX (RTX cards, and engines built with no GPU): one adapter for both.

A plan is built once per graph, precision, device and version, and kept in the engine cache. Device memory, streams and
captured graphs are `cuda`'s business, building is `tensorrt_build`'s. The libraries are imported when first used.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import onnx_ir as ir

from engine import atomic, cache, shipped
from engine.errors import BackendError
from engine.passes.precision import typed
from engine.runtime.cuda import CudaProgram, DeviceBuffer
from engine.runtime.driver import Driver, open_driver
from engine.runtime.driver import precisions as computed
from engine.runtime.protocol import Options, Precision, TensorSpec
from engine.runtime.serial import reason, serialise, signature
from engine.runtime.tensorrt_build import build_plan, errors, logger


class TensorRt:
    """The `Backend`; one object for each of the two libraries."""

    needs_gpu = True

    def __init__(self, name: str, module: str, install: str, *, portable: bool) -> None:
        """Name a library; `portable` if its engines run on every GPU of a compute capability."""
        self.name = name
        self.install = install
        self._module = module
        self._portable = portable

    def version(self) -> str:
        """Version of the library; whether there is a GPU is for `device` to say."""
        return str(self.library().__version__)

    def library(self) -> Any:
        """The Python module.

        Raises:
            BackendError: it is not installed, or cannot be loaded.
        """
        try:
            return importlib.import_module(self._module)
        except Exception as error:  # a missing shared library raises OSError and more
            raise BackendError(f"{self.name} cannot be used ({reason(error)}); {self.install}") from error

    def precisions(self, device: int = 0) -> tuple[Precision, ...]:
        """What GPU `device` computes."""
        return precisions(self.gpu(device))

    def device(self, device: int = 0) -> str:
        """GPU `device`."""
        with contextlib.closing(open_driver(device)) as driver:
            return driver.name

    def gpu(self, device: int = 0) -> str:
        """What an engine built here runs on: "sm89", and the GPU's name where it is tuned to that."""
        with contextlib.closing(open_driver(device)) as driver:
            return self._gpu(driver)

    def _gpu(self, driver: Driver) -> str:
        return _capability(driver) if self._portable else f"{_capability(driver)} {driver.name}"

    def compile(self, model: ir.Model, precision: Precision, options: Options) -> TensorRtProgram:
        """Build, or take from those shipped or from the cache, and load; what does not load is built again.

        Raises:
            BackendError: no library, no GPU, or a graph that was not accepted.
        """
        self.library()
        driver = open_driver(options.device)
        notes: list[str] = []
        try:
            key = self.key(model, precision, options, self._gpu(driver))
            if precision not in precisions(key.device):
                raise BackendError(f"{driver.name} does not compute {precision}; choose another --precision")
            program = self._load(driver, key, model, precision, options, notes)
        except BaseException:
            driver.close()
            raise
        program.notes = (*notes, *program.notes)
        return program

    def _load(
        self,
        driver: Driver,
        key: cache.Key,
        model: ir.Model,
        precision: Precision,
        options: Options,
        notes: list[str],
    ) -> TensorRtProgram:
        def say(line: str) -> None:
            notes.append(line)
            if options.progress is not None:
                options.progress(line, 0.0)  # who waits for another process wants to know it now

        def program(found: shipped.Shipped) -> TensorRtProgram:
            weights = typed(model, precision) if found.stripped else None
            return TensorRtProgram(self, driver, found.plan, key, model, precision, weights, options)

        built = False

        def build() -> bytes:
            nonlocal built
            built = True
            return self.build(model, precision, options)

        found = shipped.find(options.shipped, key) if options.shipped is not None else None
        if found is not None:
            try:
                return program(found)
            except BackendError as error:
                say(f"{error}; it is built here instead")
        elif options.shipped is not None:
            say(f"{options.shipped} holds no engine that fits; it is built here")
        store = cache.Cache(options.cache_dir or cache.default_folder())
        plan = store.fetch(key, build, say)
        try:
            return program(shipped.Shipped(plan, options.build.strip))
        except BackendError as error:
            if built:
                raise
            say(f"{error}; it is built again")
            store.discard(key)
            return program(shipped.Shipped(store.fetch(key, build, say), options.build.strip))

    def build(self, model: ir.Model, precision: Precision, options: Options) -> bytes:
        """The plan; with TensorRT-RTX and compute capabilities in the options, no GPU is needed.

        Raises:
            BackendError: as `compile`.
        """
        if options.build.strip:
            with contextlib.closing(_gpu_for_stripping(options.device)):
                pass
        return build_plan(self.library(), model, precision, options.build, options.progress)

    def key(self, model: ir.Model, precision: Precision, options: Options, gpu: str) -> cache.Key:
        """Everything that the plan depends on; `gpu` as `gpu` gives it, where the options name no capability."""
        build = options.build
        flags = {
            "level": build.level,
            "workspace": build.workspace,
            "tiling": build.tiling,
            "strip": build.strip,
        }
        inputs, _ = signature(model)
        return cache.Key(
            graph=cache.graph_digest(model),
            backend=self.name,
            version=self.version(),
            device="+".join(short(given) for given in build.capabilities) or gpu,
            precision=precision,
            shapes=", ".join(f"{name} {spec}" for name, spec in inputs.items()),
            flags=tuple(sorted((name, str(value)) for name, value in flags.items())),
            code=cache.code_version(),
        )


class TensorRtProgram(CudaProgram[Any]):
    """A loaded plan; every binding is an execution context, and all contexts share one scratch memory."""

    def __init__(
        self,
        backend: TensorRt,
        driver: Driver,
        plan: bytes,
        key: cache.Key,
        model: ir.Model,
        precision: Precision,
        weights: ir.Model | None,
        options: Options,
    ) -> None:
        """Load `plan`, which `key` names and `model` was built into; `weights` gives those that were left out."""
        inputs, outputs = signature(model)
        trt = backend.library()
        super().__init__(driver, backend.name, precision, inputs, outputs)
        self._trt = trt
        self._log = logger(trt)
        self._start = len(self._log.lines)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendError(self._refusal(plan))
        if weights is not None:
            self._refit(weights)
        self._check(inputs, outputs)
        size = self._engine.device_memory_size_v2
        self._scratch = driver.allocate(size) if size else None
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._kernels = _KernelCache.open(
            self._config, options.cache_dir or cache.default_folder(), f"{key.digest} {driver.name}"
        )

    def bind(self, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]) -> Any:
        """An execution context with every address set."""
        context = self._engine.create_execution_context(self._config)
        if context is None:
            raise BackendError(f"{self.engine}: no execution context: {self._said()}")
        if self._scratch is not None:
            context.set_device_memory(self._scratch.address, self._engine.device_memory_size_v2)
        for name, buffer in {**inputs, **outputs}.items():
            if not context.set_tensor_address(name, buffer.address):
                raise BackendError(f"{self.engine} did not take the address of {name!r}")
        return context

    def enqueue(self, bound: Any, stream: int) -> None:
        """One step on a stream."""
        if not bound.execute_async_v3(stream):
            raise BackendError(f"{self.engine} failed while running: {self._said()}")

    def warmed(self) -> None:
        """After the first steps: keeps the kernels that TensorRT-RTX compiled for this GPU."""
        if self._kernels is not None:
            self._kernels.save()

    def _check(self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
        """A plan of another graph is found out here, not by what it computes."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        wanted = {**inputs, **outputs}
        if set(names) != set(wanted):
            raise BackendError(
                f"{self.engine}: the plan has {', '.join(sorted(names))}; the graph {', '.join(sorted(wanted))}"
            )
        for name in names:
            shape = tuple(engine.get_tensor_shape(name))
            if shape != wanted[name].shape:
                raise BackendError(f"{self.engine}: {name!r} is {shape} in the plan and {wanted[name]} in the graph")

    def _refit(self, weights: ir.Model) -> None:
        refitter = self._trt.Refitter(self._engine, self._log)
        parser = self._trt.OnnxParserRefitter(refitter, self._log)
        blob, _ = serialise(weights)
        if not (parser.refit_from_bytes(blob) and refitter.refit_cuda_engine()):
            missing = ", ".join(refitter.get_missing_weights()) or "none"
            raise BackendError(f"{self.engine} did not take the weights back: {self._said()}; missing: {missing}")

    def _said(self) -> str:
        """What the library wrote of errors since this program was begun."""
        return "; ".join(errors(self._log, self._start)) or "no reason was given"

    def _refusal(self, plan: bytes) -> str:
        said = self._said()
        validity = getattr(self._runtime, "get_engine_validity", None)
        if validity is not None:
            _, bits = validity(plan)
            reasons = self._trt.EngineInvalidityDiagnostics.__members__.items()
            why = [name.lower().replace("_", " ") for name, member in reasons if bits & int(member)]
            said = "; ".join([*why, said])
        return (
            f"{self.engine} does not load the engine on {self.device}: {said}. Update the NVIDIA driver, or rebuild "
            "for this GPU with `glaze-trt build`"
        )


class _KernelCache:
    """TensorRT-RTX compiles its kernels for the GPU when an engine first runs; this keeps them between processes.

    Every engine and GPU has a file of its own, so that two programs never write over each other's kernels.
    """

    def __init__(self, cache_: Any, file: Path) -> None:
        self._cache, self._file = cache_, file
        self._lock = filelock.FileLock(f"{file}.lock")
        self._found = b""

    @classmethod
    def open(cls, config: Any, folder: Path, whose: str) -> _KernelCache | None:
        """None where the library has no such cache; `whose` names the engine and the GPU."""
        if not hasattr(config, "create_runtime_cache"):
            return None
        name = hashlib.sha256(whose.encode()).hexdigest()[:32]
        kept = cls(config.create_runtime_cache(), folder / f"kernels-{name}.bin")
        with contextlib.suppress(Exception):  # then kernels are compiled once more
            folder.mkdir(parents=True, exist_ok=True)
            with kept._lock:
                found = kept._file.read_bytes() if kept._file.exists() else b""
            if found and kept._cache.deserialize(found):  # refuses what is not of this GPU and driver
                kept._found = found
        config.set_runtime_cache(kept._cache)
        return kept

    def save(self) -> None:
        with contextlib.suppress(Exception):  # a full disk or a strange library must not cost the run
            kernels = bytes(self._cache.serialize())
            if kernels != self._found:
                with self._lock:
                    atomic.write_bytes(self._file, kernels)
                self._found = kernels


def _gpu_for_stripping(device: int) -> Driver:
    """Weights can be left out only of kernels that were compiled, and compiling them takes the GPU itself."""
    try:
        return open_driver(device)
    except BackendError as error:
        raise BackendError(f"weights can be stripped only where there is a GPU ({error}); build without it") from error


def precisions(gpu: str) -> tuple[Precision, ...]:
    """What a GPU multiplies in hardware, the fastest first; named as `TensorRt.gpu` does, or by capability (8.9)."""
    return computed(divmod(int(short(gpu.split()[0]).removeprefix("sm")), 10))


def short(capability: str) -> str:
    """8.9, 89 or sm89 as "sm89"."""
    return f"sm{capability.removeprefix('sm').replace('.', '')}"


def _capability(driver: Driver) -> str:
    return "sm{}{}".format(*driver.capability)


TENSORRT = TensorRt("tensorrt", "tensorrt", "pip install 'glaze-trt[tensorrt]'", portable=False)
RTX = TensorRt("tensorrt-rtx", "tensorrt_rtx", "pip install 'glaze-trt[rtx]'", portable=True)
