"""TensorRT and pycuda for machines without a GPU: they hold their callers to the rules of the real ones.

An engine computes what its graph computes, by ONNX Runtime, on memory that is reached by addresses. What is asked
for on the stream happens only when somebody waits for it, so that a forgotten wait gives wrong numbers, as it would.
Both flavours are there: ``tensorrt`` builds for the GPU at hand and wants strong typing asked for, ``tensorrt_rtx``
builds for kinds of GPU and compiles kernels when an engine runs for the first time.
"""

from __future__ import annotations

import base64
import enum
import json
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

INPUT, OUTPUT = "input", "output"
USER_MANAGED = "user managed"
TYPES = {"float32": np.float32, "int32": np.int32, "int64": np.int64}


class Gpu:
    """Memory, contexts of threads, and the work that has been asked for."""

    def __init__(self) -> None:
        self.memory: dict[int, bytearray] = {}
        self.pending: list[Callable[[], None]] = []
        self.num_active = 0
        self.num_launched = 0
        self.num_downloaded = 0  # bytes
        self.num_compiled = 0  # kernels that tensorrt_rtx had to compile
        self.name = "fake"
        self.capacity = 1 << 30
        self.num_enqueued = 0  # runs of engines that were asked for one by one, not by a graph
        self.captured: list[Callable[[], None]] | None = None  # while the stream is captured
        self.is_capture_broken = False
        self._next = 0x7F00_7000_0000  # as large as addresses are

    def require_context(self) -> None:
        if self.num_active < 1:
            raise RuntimeError("invalid device context: no currently active context")

    def forbid_in_capture(self, what: str) -> None:
        """What would have to wait for the GPU breaks a capture, and fails."""
        if self.captured is not None:
            self.is_capture_broken = True
            raise RuntimeError(f"{what} failed: operation not permitted when stream is capturing")

    def allocate(self, num_bytes: int) -> int:
        self.require_context()
        self.forbid_in_capture("cuMemAlloc")
        if num_bytes <= 0:
            raise RuntimeError("cuMemAlloc failed: invalid argument")
        if num_bytes + sum(map(len, self.memory.values())) > self.capacity:
            raise OutOfMemoryError("cuMemAlloc failed: out of memory")
        self._next += 1 << 24
        self.memory[self._next] = bytearray(b"\xaa" * num_bytes)
        return self._next

    def mem_get_info(self) -> tuple[int, int]:
        self.require_context()
        return self.capacity - sum(map(len, self.memory.values())), self.capacity

    def write(self, address: int, content: bytes) -> None:
        if len(content) > len(self.memory[address]):
            raise RuntimeError(f"illegal access: {len(content)} bytes into {len(self.memory[address])}")
        self.memory[address][: len(content)] = content

    def read(self, address: int, num_bytes: int) -> bytes:
        if num_bytes > len(self.memory[address]):
            raise RuntimeError("illegal access")
        return bytes(self.memory[address][:num_bytes])

    def finish(self, count: int) -> None:
        """Do what was asked for before the ``count``-th request."""
        while self.pending and self.num_launched - len(self.pending) < count:
            self.pending.pop(0)()

    def launch(self, work: Callable[[], None]) -> None:
        self.require_context()
        if self.captured is not None:
            self.captured.append(work)  # written down, not done
            return
        self.num_launched += 1
        self.pending.append(work)


class OutOfMemoryError(Exception):
    """As pycuda.driver.MemoryError."""


def fake_driver(gpu: Gpu, capability: tuple[int, int] = (8, 9)) -> Any:
    """A module like pycuda.driver."""

    class Context:
        def push(self) -> None:
            gpu.num_active += 1

        @staticmethod
        def pop() -> None:
            gpu.require_context()
            gpu.num_active -= 1

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def compute_capability(self) -> tuple[int, int]:
            return capability

        def retain_primary_context(self) -> Context:
            return Context()

        def name(self) -> str:
            return gpu.name

    class Stream:
        handle = 77

        def __init__(self, flags: int = 0) -> None:
            gpu.require_context()
            assert flags == 1, "a stream that waits for the default stream breaks captures, of others and its own"

        def synchronize(self) -> None:
            gpu.require_context()
            gpu.forbid_in_capture("cuStreamSynchronize")
            gpu.finish(gpu.num_launched)

    class Event:
        def __init__(self) -> None:
            self._at = -1

        def record(self, stream: Stream) -> None:
            gpu.require_context()
            gpu.forbid_in_capture("cuEventRecord of an event that others wait for")
            self._at = gpu.num_launched

        def synchronize(self) -> None:
            gpu.forbid_in_capture("cuEventSynchronize")
            assert self._at >= 0, "an event is recorded before it is waited for"
            gpu.finish(self._at)

        def time_since(self, event: Event) -> float:
            gpu.require_context()
            done = gpu.num_launched - len(gpu.pending)
            if min(event._at, self._at) < 0 or done < max(event._at, self._at):
                raise RuntimeError("cuEventElapsedTime failed: not ready")
            return float(self._at - event._at)  # a millisecond for each request

    class Allocation:
        def __init__(self, address: int) -> None:
            self._address = address

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            gpu.require_context()
            gpu.forbid_in_capture("cuMemFree")
            del gpu.memory[self._address]

        def __del__(self) -> None:
            if self._address in gpu.memory:  # pycuda makes its context current for that
                gpu.forbid_in_capture("cuMemFree")
                gpu.finish(gpu.num_launched)
                del gpu.memory[self._address]

    def upload(address: int, source: np.ndarray, stream: Stream) -> None:
        assert source.dtype == np.uint8 and source.flags.c_contiguous
        gpu.launch(lambda: gpu.write(address, source.tobytes()))

    def download(target: np.ndarray, address: int, stream: Stream) -> None:
        def copy() -> None:
            target[:] = np.frombuffer(gpu.read(address, target.nbytes), np.uint8)

        gpu.num_downloaded += target.nbytes
        gpu.launch(copy)

    return SimpleNamespace(
        init=lambda: None,
        Device=Device,
        Context=Context,
        Stream=Stream,
        Event=Event,
        MemoryError=OutOfMemoryError,
        mem_alloc=lambda num_bytes: Allocation(gpu.allocate(num_bytes)),
        pagelocked_empty=lambda size, dtype: np.full(size, 0x55, dtype),
        memcpy_htod_async=upload,
        memcpy_dtoh_async=download,
        get_driver_version=lambda: 13000,
        mem_get_info=gpu.mem_get_info,
    )


def engine_bytes(graph: str | bytes, spec: Any, profiles: Any, version: str = "tensorrt_rtx 1.7.1") -> bytes:
    """What ``fake_library`` opens as an engine; ``graph`` is a path or a model."""
    content = Path(graph).read_bytes() if isinstance(graph, str) else graph
    tensors = {
        kind: [(tensor.name, tensor.shape, tensor.dtype) for tensor in part]
        for kind, part in ((INPUT, spec.inputs), (OUTPUT, spec.outputs))
    }
    shapes = [dict(getattr(profile, "shapes", profile)) for profile in profiles]
    return json.dumps([version, base64.b64encode(content).decode(), tensors, shapes]).encode()


class FakeCache:
    """As IRuntimeCache."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.kernels: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        self._gpu.require_context()
        gpu, kernels = json.loads(blob)
        if gpu != self._gpu.name:
            return False
        self.kernels |= set(kernels)
        return True

    def serialize(self) -> bytes:
        return json.dumps([self._gpu.name, sorted(self.kernels)]).encode()


class FakeConfig:
    """As IRuntimeConfig of tensorrt_rtx."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._cache: FakeCache | None = None
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"
        self.cuda_graph_strategy = "disabled"

    def create_runtime_cache(self) -> FakeCache:
        return FakeCache(self._gpu)

    def set_runtime_cache(self, cache: FakeCache) -> bool:
        self._cache = cache
        return True

    def compile(self, kernel: str) -> None:
        if self._cache is not None and kernel not in self._cache.kernels:
            self._gpu.num_compiled += 1
            self._cache.kernels.add(kernel)


class FakeEngine:
    def __init__(self, gpu: Gpu, content: bytes) -> None:
        _, graph, self.tensors, self.profiles = json.loads(content)
        self.gpu = gpu
        self.session = onnxruntime.InferenceSession(base64.b64decode(graph), providers=["CPUExecutionProvider"])
        self._all = [(kind, *tensor) for kind in (INPUT, OUTPUT) for tensor in self.tensors[kind]]
        self.num_io_tensors = len(self._all)
        self.num_optimization_profiles = len(self.profiles)
        self.configs: list[Any] = []
        self.cannot_be_captured = False
        self.logger: Any = None

    def get_tensor_name(self, index: int) -> str:
        return self._all[index][1]

    def get_tensor_mode(self, name: str) -> str:
        return self._tensor(name)[0]

    def get_tensor_dtype(self, name: str) -> str:
        return self._tensor(name)[3]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self._tensor(name)[2])

    def create_runtime_config(self) -> Any:
        return FakeConfig(self.gpu)

    def create_execution_context(self, config: Any = None) -> FakeContext:
        self.gpu.require_context()
        self.gpu.forbid_in_capture("cudaMalloc")
        self.configs.append(config)
        return FakeContext(self, config)

    def output_shapes(self, given: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """From the names of dimensions; where these do not tell, by computing with zeros."""
        sizes = {
            size: given[name][axis]
            for name, shape, _ in self.tensors[INPUT]
            for axis, size in enumerate(shape)
            if isinstance(size, str)
        }
        sizes |= {"kept": sizes.get("points0", 0) + sizes.get("points1", 0)}
        names = [name for name, *_ in self.tensors[OUTPUT]]
        if all(isinstance(size, int) or size in sizes for _, shape, _ in self.tensors[OUTPUT] for size in shape):
            return {name: tuple(sizes.get(size, size) for size in shape) for name, shape, _ in self.tensors[OUTPUT]}
        zeros = {name: np.zeros(given[name], TYPES[dtype]) for name, _, dtype in self.tensors[INPUT]}
        return dict(zip(names, (value.shape for value in self.session.run(names, zeros)), strict=True))

    def _tensor(self, name: str) -> Any:
        return next(tensor for tensor in self._all if tensor[1] == name)


class FakeContext:
    def __init__(self, engine: FakeEngine, config: FakeConfig | str | None) -> None:
        self._engine = engine
        self._config = config if isinstance(config, FakeConfig) else None
        self._needs_memory = config == USER_MANAGED
        self._memory = 0
        self._changes = 0  # of all that a graph is captured with
        self._changes_done = -1  # when it last ran: what changes entail is put off until then, and breaks a capture
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.profiles_chosen: list[int] = []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if stream_handle != 77 or not 0 <= profile_index < self._engine.num_optimization_profiles:
            return False
        self._changes += 1
        self._profile = profile_index
        self._shapes.clear()  # shapes are given anew after the profile has changed
        self.profiles_chosen.append(profile_index)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        ends = self._engine.profiles[self._profile].get(name)
        if ends is None or len(shape) != len(ends[0]):
            return False
        if not all(low <= size <= high for low, size, high in zip(ends[0], shape, ends[2], strict=True)):
            return False
        self._changes += 1
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if not isinstance(memory, int) or memory not in self._engine.gpu.memory:
            return False
        self._changes += 1
        self._addresses[name] = memory
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._needs_memory and not self.infer_shapes()
        return 64 * sum(int(np.prod(shape)) for shape in self._shapes.values())

    def _take_memory(self, address: int) -> None:
        assert len(self._engine.gpu.memory[address]) >= self.update_device_memory_size_for_shapes()
        self._changes += 1
        self._memory = address

    device_memory = property(None, _take_memory)

    def infer_shapes(self) -> list[str]:
        return [name for name, *_ in self._engine.tensors[INPUT] if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        if self.infer_shapes():
            return self._engine.get_tensor_shape(name)
        return self._engine.output_shapes(self._shapes)[name]

    def execute_async_v3(self, stream_handle: int) -> bool:
        tensors = self._engine.tensors
        names = [name for part in (INPUT, OUTPUT) for name, *_ in tensors[part]]
        if stream_handle != 77 or self.infer_shapes() or any(name not in self._addresses for name in names):
            return False
        gpu, addresses, shapes = self._engine.gpu, dict(self._addresses), {n: self.get_tensor_shape(n) for n in names}
        if self._config is not None:
            self._config.compile("fallback")
        if gpu.captured is None:
            gpu.num_enqueued += 1
            self._changes_done = self._changes
        elif self._changes_done != self._changes or self._engine.cannot_be_captured:
            gpu.is_capture_broken = True
            self._engine.logger.log(1, "Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)")
            return False
        changes = None if gpu.captured is None else self._changes
        gpu.launch(self._work(weakref.ref(self), changes, self._memory, addresses, shapes))
        return True

    @staticmethod
    def _work(
        own: Callable[[], FakeContext | None], changes: int | None, memory: int, addresses: Any, shapes: Any
    ) -> Callable[[], None]:
        def work() -> None:
            context = own()
            assert context is not None, "a context must live until what was asked for by it is done"
            assert changes in (None, context._changes), "a context must stay as it was when it was captured"
            if context._needs_memory:
                content = context._engine.gpu.memory[memory]
                content[:] = b"\xbb" * len(content)  # it belongs to whoever is at work
            context._execute(addresses, shapes)

        return work

    def _execute(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        gpu, given = self._engine.gpu, {}
        for name, _, dtype in self._engine.tensors[INPUT]:
            kind = np.dtype(TYPES[dtype])
            content = gpu.read(addresses[name], int(np.prod(shapes[name])) * kind.itemsize)
            given[name] = np.frombuffer(content, kind).reshape(shapes[name])
        outputs = [name for name, *_ in self._engine.tensors[OUTPUT]]
        for name, value in zip(outputs, self._engine.session.run(outputs, given), strict=True):
            assert value.shape == shapes[name]
            gpu.write(addresses[name], value.tobytes())


class _Strict:
    """Has the attributes of the real class and takes no others, as classes of extension modules do."""

    _allowed: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._allowed and not name.startswith("_"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        object.__setattr__(self, name, value)


class FakeNetwork:
    def __init__(self, is_strongly_typed: bool) -> None:
        self.is_strongly_typed = is_strongly_typed
        self.graph = b""


class FakeTimings:
    """As ITimingCache."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class FakeBuilderConfig(_Strict):
    _allowed = ("progress_monitor",)

    def __init__(self, version: str) -> None:
        self._version = version
        self._profiles: list[FakeProfile] = []
        self._timings: FakeTimings | None = None
        self._has_tf32 = True

    def clear_flag(self, flag: Any) -> None:
        assert flag.name == "TF32"
        self._has_tf32 = False

    def add_optimization_profile(self, profile: FakeProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> FakeTimings | None:
        is_one = not serialized_timing_cache or serialized_timing_cache.startswith(b"timings of ")
        return FakeTimings(serialized_timing_cache) if is_one else None

    def set_timing_cache(self, cache: FakeTimings, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, FakeTimings):
            raise TypeError("incompatible function arguments")
        if cache.content and cache.content != f"timings of {self._version}".encode() and not ignore_mismatch:
            return False
        self._timings = cache
        return True


class FakeRtxBuilderConfig(FakeBuilderConfig):
    _allowed = ("progress_monitor", "num_compute_capabilities")

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self._capabilities: dict[int, str] = {}

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        if index >= self.num_compute_capabilities:
            return False
        self._capabilities[index] = compute_capability.name
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> FakeTimings | None:
        raise AssertionError("forces tensorrt_rtx to look for a GPU, and is of no use to it")


class FakeProfile:
    """As IOptimizationProfile."""

    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        if not all(low <= middle <= high for low, middle, high in zip(min, opt, max, strict=True)):
            raise RuntimeError("the shapes of a profile must not become smaller")
        self.shapes[input] = [list(min), list(opt), list(max)]


class FakeParser:
    def __init__(self, network: FakeNetwork, logger: Any) -> None:
        self._network = network
        self.num_errors = 0

    def parse(self, model: bytes) -> bool:
        self._network.graph = model
        return True


class FakeBuilder:
    """Builds what ``FakeEngine`` executes, of strongly typed networks whose inputs a profile describes."""

    version = ""
    needs_flag = False
    config_class = FakeBuilderConfig

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> FakeNetwork:
        return FakeNetwork(bool(flags & 2) or not self.needs_flag)

    def create_builder_config(self) -> FakeBuilderConfig:
        return self.config_class(self.version)

    def create_optimization_profile(self) -> FakeProfile:
        return FakeProfile()

    def build_serialized_network(self, network: FakeNetwork, config: Any) -> bytes | None:
        import onnx

        from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec

        graph = onnx.load_from_string(network.graph).graph
        names = {info.name for info in graph.input}
        if not network.is_strongly_typed:
            self._logger.log(1, "a weakly typed network: its precision is up to the builder")
            return None
        if not config._profiles or any(set(profile.shapes) != names for profile in config._profiles):
            self._logger.log(1, "Network has dynamic inputs, but no optimization profile has been defined")
            return None
        if hasattr(config, "num_compute_capabilities"):
            assert sorted(config._capabilities) == list(range(config.num_compute_capabilities))
        monitor = config.progress_monitor
        monitor.phase_start("building", None, 2)
        monitor.phase_start("within", "building", 9)
        for step in range(2):
            monitor.step_complete("within", step)
            monitor.step_complete("building", step)
        monitor.phase_finish("building")
        if config._timings is not None:
            config._timings.content = f"timings of {self.version}".encode()
        kinds = onnx.TensorProto.DataType

        def specs(infos: Any) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(
                    info.name,
                    tuple(size.dim_param or size.dim_value for size in info.type.tensor_type.shape.dim),
                    {"FLOAT": "float32"}.get(
                        kinds.Name(info.type.tensor_type.elem_type), kinds.Name(info.type.tensor_type.elem_type).lower()
                    ),
                )
                for info in infos
            )

        profiles = [profile.shapes for profile in config._profiles]
        return engine_bytes(network.graph, GraphSpec(specs(graph.input), specs(graph.output)), profiles, self.version)


def fake_library(gpu: Gpu, opened: list[FakeEngine], name: str = "tensorrt_rtx", version: str = "1.7.1") -> Any:
    """A module like tensorrt_rtx, or like tensorrt of some version from 10.0 on."""
    is_rtx = name == "tensorrt_rtx"

    class Logger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> FakeEngine | None:
            gpu.require_context()
            if not serialized_engine.startswith(b"["):
                self.logger.log(1, "IRuntime::deserializeCudaEngine: Error Code 35: CUDA driver too old")
                return None
            if json.loads(serialized_engine)[0] != f"{name} {version}":
                self.logger.log(1, "The engine plan file is not compatible with this version of TensorRT")
                return None
            opened.append((FakeEngine if is_rtx else FakeTensorRtEngine)(gpu, serialized_engine))
            opened[-1].logger = self.logger
            return opened[-1]

    class Builder(FakeBuilder):
        config_class = FakeRtxBuilderConfig if is_rtx else FakeBuilderConfig
        needs_flag = not is_rtx and int(version.split(".")[0]) < 11

    Builder.version = f"{name} {version}"
    weak = [] if is_rtx or int(version.split(".")[0]) >= 11 else ["FP16", "INT8"]
    shared = {
        "__version__": version,
        "ILogger": Logger,
        "Runtime": Runtime,
        "Builder": Builder,
        "OnnxParser": FakeParser,
        "IProgressMonitor": type("IProgressMonitor", (), {}),
        "BuilderFlag": enum.IntEnum("BuilderFlag", ["TF32", *weak]),
        "NetworkDefinitionCreationFlag": enum.IntEnum(
            "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
        ),
        "TensorIOMode": SimpleNamespace(INPUT=INPUT, OUTPUT=OUTPUT),
        "nptype": lambda name: TYPES[name],
        "ExecutionContextAllocationStrategy": SimpleNamespace(USER_MANAGED=USER_MANAGED),
    }
    if not is_rtx:
        return SimpleNamespace(**shared)
    return SimpleNamespace(
        **shared,
        ComputeCapability=enum.IntEnum("ComputeCapability", ["SM75", "SM80", "SM86", "SM89", "SM120"]),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none"),
        CudaGraphStrategy=SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole"),
    )


class FakeTensorRtEngine(FakeEngine):
    """That of ``tensorrt``, which has no kernels to compile, and finishes nothing when it is opened."""

    def create_runtime_config(self) -> Any:
        raise AssertionError("the settings of tensorrt_rtx are not those of tensorrt")

    def create_execution_context(self, strategy: Any = None) -> FakeContext:
        return super().create_execution_context(strategy)
