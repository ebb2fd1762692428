"""TensorRT and pycuda for machines without a GPU: they hold their callers to the rules of the real ones.

An engine computes what its graph computes, by ONNX Runtime, on memory that is reached by addresses. What is asked
for on the stream happens only when somebody waits for it, so that a forgotten wait gives wrong numbers, as it would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

INPUT, OUTPUT = "input", "output"
TYPES = {"float32": np.float32, "int32": np.int32, "int64": np.int64}


class Gpu:
    """Memory, contexts of threads, and the work that has been asked for."""

    def __init__(self) -> None:
        self.memory: dict[int, bytearray] = {}
        self.pending: list[Callable[[], None]] = []
        self.num_active = 0
        self.num_launched = 0
        self.num_downloaded = 0  # bytes
        self.capacity = 1 << 30
        self._next = 0x7000_0000

    def require_context(self) -> None:
        if self.num_active < 1:
            raise RuntimeError("invalid device context: no currently active context")

    def allocate(self, num_bytes: int) -> int:
        self.require_context()
        if num_bytes <= 0:
            raise RuntimeError("cuMemAlloc failed: invalid argument")
        if num_bytes + sum(map(len, self.memory.values())) > self.capacity:
            raise OutOfMemoryError("cuMemAlloc failed: out of memory")
        self._next += 1 << 24
        self.memory[self._next] = bytearray(b"\xaa" * num_bytes)
        return self._next

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
            return "fake"

    class Stream:
        handle = 77

        def __init__(self) -> None:
            gpu.require_context()

        def synchronize(self) -> None:
            gpu.require_context()
            gpu.finish(gpu.num_launched)

    class Event:
        def __init__(self) -> None:
            self._at = -1

        def record(self, stream: Stream) -> None:
            gpu.require_context()
            self._at = gpu.num_launched

        def synchronize(self) -> None:
            assert self._at >= 0, "an event is recorded before it is waited for"
            gpu.finish(self._at)

    class Allocation:
        def __init__(self, address: int) -> None:
            self._address = address

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            gpu.require_context()
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
    )


def engine_bytes(graph_path: str, spec: Any, profiles: Any) -> bytes:
    """What ``fake_library`` opens as an engine."""
    tensors = {
        kind: [(tensor.name, tensor.shape, tensor.dtype) for tensor in part]
        for kind, part in ((INPUT, spec.inputs), (OUTPUT, spec.outputs))
    }
    return json.dumps([graph_path, tensors, [dict(profile.shapes) for profile in profiles]]).encode()


class FakeEngine:
    def __init__(self, gpu: Gpu, content: bytes) -> None:
        path, self.tensors, self.profiles = json.loads(content)
        self.gpu = gpu
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self._all = [(kind, *tensor) for kind in (INPUT, OUTPUT) for tensor in self.tensors[kind]]
        self.num_io_tensors = len(self._all)
        self.num_optimization_profiles = len(self.profiles)
        self.configs: list[Any] = []

    def get_tensor_name(self, index: int) -> str:
        return self._all[index][1]

    def get_tensor_mode(self, name: str) -> str:
        return self._tensor(name)[0]

    def get_tensor_dtype(self, name: str) -> str:
        return self._tensor(name)[3]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self._tensor(name)[2])

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="lazy", cuda_graph_strategy="disabled")

    def create_execution_context(self, config: Any = None) -> FakeContext:
        self.gpu.require_context()
        self.configs.append(config)
        return FakeContext(self)

    def _tensor(self, name: str) -> Any:
        return next(tensor for tensor in self._all if tensor[1] == name)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.profiles_chosen: list[int] = []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if stream_handle != 77 or not 0 <= profile_index < self._engine.num_optimization_profiles:
            return False
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
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if not isinstance(memory, int) or memory not in self._engine.gpu.memory:
            return False
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, *_ in self._engine.tensors[INPUT] if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        if self.infer_shapes():
            return self._engine.get_tensor_shape(name)
        sizes = self._sizes()
        shape = next(shape for other, shape, _ in self._engine.tensors[OUTPUT] if other == name)
        return tuple(size if isinstance(size, int) else sizes[size] for size in shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        tensors = self._engine.tensors
        names = [name for part in (INPUT, OUTPUT) for name, *_ in tensors[part]]
        if stream_handle != 77 or self.infer_shapes() or any(name not in self._addresses for name in names):
            return False
        addresses, shapes = dict(self._addresses), {name: self.get_tensor_shape(name) for name in names}
        self._engine.gpu.launch(lambda: self._execute(addresses, shapes))
        return True

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

    def _sizes(self) -> dict[str, int]:
        sizes = {
            size: self._shapes[name][axis]
            for name, shape, _ in self._engine.tensors[INPUT]
            for axis, size in enumerate(shape)
            if isinstance(size, str)
        }
        return {**sizes, "kept": sizes.get("points0", 0) + sizes.get("points1", 0)}


def fake_library(gpu: Gpu, opened: list[FakeEngine]) -> Any:
    """A module like tensorrt_rtx, as far as running engines goes."""

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
            opened.append(FakeEngine(gpu, serialized_engine))
            return opened[-1]

    return SimpleNamespace(
        __version__="1.7.1",
        ILogger=Logger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT=INPUT, OUTPUT=OUTPUT),
        nptype=lambda name: TYPES[name],
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none"),
        CudaGraphStrategy=SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole"),
    )
