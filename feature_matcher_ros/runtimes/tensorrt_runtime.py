"""Graphs executed by TensorRT on an NVIDIA GPU, from engines that ``feature-matcher build`` has built."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from feature_matcher_ros.errors import MatcherError, RuntimeLoadError
from feature_matcher_ros.runtimes.cuda_graphs import CudaGraphs
from feature_matcher_ros.runtimes.engine_cache import CachedEngine, EngineCache
from feature_matcher_ros.runtimes.engine_manifest import Environment, Sizes
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec, require_same_spec
from feature_matcher_ros.runtimes.kernel_cache import KernelCache, kernel_path
from feature_matcher_ros.runtimes.manifest import sha256_of
from feature_matcher_ros.runtimes.tensorrt_device import (
    CudaDevice,
    DeviceBuffer,
    DeviceMeter,
    DeviceTensor,
    cuda_device,
    gpu_environment,
)
from feature_matcher_ros.runtimes.tensorrt_graph import Binding, EngineGraph, drop_when_done
from feature_matcher_ros.runtimes.tensorrt_library import (
    CPU_ALTERNATIVE,
    TensorRT,
    load_tensorrt,
    make_logger,
    require_driver,
)

# Tensors with so few bytes a row, confidences and partners, are what the host decides by: they are copied at once,
# while states, angles and maps stay on the GPU.
_BYTES_OF_A_DECISION = 8
_CHANGING = {"points", "points0", "points1", "matches"}  # dimensions that change from call to call


class TensorRtRuntime:
    """One graph. What it returns may be fed to another one without leaving the GPU."""

    def __init__(self, graph_path: Path, spec: GraphSpec, cache: EngineCache | None = None) -> None:
        """Open the engine of a graph that was chosen last.

        Raises:
            RuntimeLoadError: the driver, a library, the GPU or the engine is missing, or the engine is not, byte for
                byte, the one that was built for this graph, library and GPU.
        """
        require_driver()
        self._library, self._device, self._spec = load_tensorrt(), cuda_device(), spec
        cached = _find(graph_path, gpu_environment(self._library, self._device), cache or EngineCache())
        self._logger = make_logger(self._library)
        with self._device.active():
            self._runtime = self._library.module.Runtime(self._logger)  # must outlive its engine
            self._engine = _deserialize(self._library, self._runtime, cached, self._logger)
            self._kernels: KernelCache | None = None
            self._context = self._create_context(cached)
        weakref.finalize(self, drop_when_done, self._device, [self._context])
        require_same_spec(str(graph_path), spec, _declared_spec(self._library, self._engine))
        self._manifest = cached.manifest
        self._profile = 0
        self._graphs: CudaGraphs[EngineGraph] = CudaGraphs(cached.manifest.name)
        self._given = {tensor.name: DeviceBuffer(self._device) for tensor in spec.inputs}
        self._idle: dict[str, list[DeviceBuffer]] = {tensor.name: [] for tensor in spec.outputs}
        if self._kernels is not None:
            self._compile(self._kernels)

    @property
    def name(self) -> str:
        return "tensorrt"

    @property
    def spec(self) -> GraphSpec:
        return self._spec

    @property
    def precision(self) -> str:
        """The precision of the engine."""
        return self._manifest.source.precision

    @property
    def meter(self) -> DeviceMeter:
        return DeviceMeter(self._device)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Execute the graph; returns as soon as the work has been given to the GPU.

        Raises:
            MatcherError: the engine was not built for inputs of this size, or TensorRT fails.
        """
        values = {tensor.name: _as_tensor(inputs[tensor.name], tensor) for tensor in self._spec.inputs}
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        with self._device.active():
            self._choose_profile(shapes)
            for name, shape in shapes.items():
                self._require(self._context.set_input_shape(name, shape))
            self._require(not self._context.infer_shapes())
            found = {tensor.name: self._output(tensor) for tensor in self._spec.outputs}
            addresses = {name: self._address(name, value) for name, value in {**values, **found}.items()}
            self._execute(shapes, addresses)
            for value in found.values():
                if prod(value.shape[1:]) * value.dtype.itemsize <= _BYTES_OF_A_DECISION:
                    value.fetch()
        return found

    def _choose_profile(self, shapes: Mapping[str, Sizes]) -> None:
        """Take the first profile, in the order of their sizes, that covers the shapes."""
        profiles = self._manifest.source.profiles
        number = next((number for number, profile in enumerate(profiles) if profile.covers(shapes)), None)
        if number is None:
            given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            largest = ", ".join(f"{name} {sizes[2]}" for name, sizes in profiles[-1].shapes.items())
            raise MatcherError(
                f"the engine of '{self._manifest.name}' takes {largest} at most and was given {given}: build it for "
                "more with feature-matcher build --keypoints or --image-px, or lower max_keypoints, max_matches or "
                "max_image_px in the configuration."
            )
        if number != self._profile:
            self._require(self._context.set_optimization_profile_async(number, self._device.stream))
            self._profile = number

    def _execute(self, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> None:
        """Ask for a run, by a CUDA graph where there is one; ``tensorrt_rtx`` has graphs of its own."""
        graph = None
        if not self._library.is_rtx:
            binding = Binding.of(self._profile, shapes, addresses)
            graph = self._graphs.find(binding, lambda: self._captured(binding))
        if graph is not None:
            graph.launch()
            return
        for name, address in addresses.items():
            self._require(self._context.set_tensor_address(name, address))
        self._require(self._context.execute_async_v3(self._device.stream))

    def _captured(self, binding: Binding) -> EngineGraph:
        user_managed = self._library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        errors = self._logger.errors
        known = len(errors)
        try:
            return EngineGraph(self._device, self._engine, user_managed, binding)
        except MatcherError as error:
            said = "; ".join((str(error), *errors[known:]))
            del errors[known:]  # nothing that the user must hear of
            raise MatcherError(said) from error

    def _address(self, name: str, value: Any) -> int:
        return value.address if isinstance(value, DeviceTensor) else self._given[name].upload(value)

    def _output(self, tensor: TensorSpec) -> DeviceTensor:
        """Room for an output of the shape that follows: that of one that nobody holds any more, if there is such.

        Where nobody keeps outputs they therefore lie at the same place every time, as CUDA graphs need it.
        """
        shape = tuple(self._context.get_tensor_shape(tensor.name))
        dtype, idle = np.dtype(tensor.dtype), self._idle[tensor.name]
        buffer = idle.pop() if idle else DeviceBuffer(self._device)
        buffer.refill(max(1, prod(shape) * dtype.itemsize))
        return DeviceTensor(self._device, buffer, shape, dtype, give_back=idle.append)

    def _require(self, is_done: bool) -> None:
        if not is_done:
            raise MatcherError(
                f"TensorRT cannot run the graph '{self._manifest.name}' ({'; '.join(self._logger.errors[-2:])}): "
                "build the engines again, or set the runtime to onnx."
            )

    def _create_context(self, cached: CachedEngine) -> Any:
        """Where the library finishes engines here, images of one size get kernels of their own, and a CUDA graph.

        Numbers of points differ from call to call: for them that work would be done again and again.
        """
        if not self._library.is_rtx:
            return self._engine.create_execution_context()
        trt, config = self._library.module, self._engine.create_runtime_config()
        sizes = {size for tensor in self._spec.inputs for size in tensor.shape}
        kernels, graphs = trt.DynamicShapesKernelSpecializationStrategy, trt.CudaGraphStrategy
        config.dynamic_shapes_kernel_specialization_strategy = kernels.NONE if sizes & _CHANGING else kernels.LAZY
        config.cuda_graph_strategy = graphs.WHOLE_GRAPH_CAPTURE if "height" in sizes else graphs.DISABLED
        self._kernels = KernelCache(
            config, kernel_path(cached, f"{self._device.name} {self._device.compute_capability}")
        )
        weakref.finalize(self, _keep, self._device, self._kernels)  # those, too, that were compiled later
        return self._engine.create_execution_context(config)

    def _compile(self, kernels: KernelCache) -> None:
        """Run once with the least input, so that kernels are compiled now and not for a frame of a camera.

        Raises:
            RuntimeLoadError: it cannot be run.
        """
        smallest = {name: sizes[0] for name, sizes in self._manifest.source.profiles[0].shapes.items()}
        try:
            self.run({tensor.name: np.zeros(smallest[tensor.name], tensor.dtype) for tensor in self._spec.inputs})
        except MatcherError as error:
            raise RuntimeLoadError(str(error)) from error
        with self._device.active():
            self._device.synchronize()
            kernels.keep()


def _keep(device: CudaDevice, kernels: KernelCache) -> None:
    with device.active():
        kernels.keep()


def _find(graph_path: Path, environment: Environment, cache: EngineCache) -> CachedEngine:
    try:
        return cache.find(sha256_of(graph_path), environment)
    except RuntimeLoadError as error:
        raise RuntimeLoadError(
            f"{graph_path.name} cannot be run by TensorRT: {str(error).rstrip('.')}; "
            f"run feature-matcher build {graph_path.parent}, {CPU_ALTERNATIVE}."
        ) from error


def _deserialize(library: TensorRT, runtime: Any, cached: CachedEngine, logger: Any) -> Any:
    """Give the library an engine that has been checked."""
    engine = runtime.deserialize_cuda_engine(cached.content)
    if engine is None:
        raise RuntimeLoadError(
            f"{library.name} {library.version} cannot open the engine of '{cached.manifest.name}' "
            f"({'; '.join(logger.errors[-2:])}): build it again with feature-matcher build, {CPU_ALTERNATIVE}."
        )
    return engine


def _declared_spec(library: TensorRT, engine: Any) -> GraphSpec:
    """What an engine says that it takes and gives."""
    trt = library.module
    tensors: dict[Any, list[TensorSpec]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        shape = tuple("any" if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
        tensors[engine.get_tensor_mode(name)].append(TensorSpec(name, shape, dtype))
    return GraphSpec(tuple(tensors[trt.TensorIOMode.INPUT]), tuple(tensors[trt.TensorIOMode.OUTPUT]))


def _as_tensor(value: Any, tensor: TensorSpec) -> Any:
    return value if isinstance(value, DeviceTensor) else np.asarray(value, tensor.dtype)
