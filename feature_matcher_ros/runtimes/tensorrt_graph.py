"""The CUDA graph of one engine of ``tensorrt``, for inputs and outputs of fixed shapes at fixed places.

A graph holds where everything lay and how the execution context stood when it was captured. It therefore has a
context of its own that nobody changes, and is launched only when all tensors are where they were.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.runtimes.driver_graphs import StreamGraph
from feature_matcher_ros.runtimes.engine_manifest import Sizes
from feature_matcher_ros.runtimes.tensorrt_device import CudaDevice


@dataclass(frozen=True, slots=True)
class Binding:
    """All that a captured graph is bound to."""

    profile: int
    shapes: tuple[tuple[str, Sizes], ...]  # of the inputs; those of the outputs follow
    addresses: tuple[tuple[str, int], ...]  # of inputs and outputs

    @classmethod
    def of(cls, profile: int, shapes: Mapping[str, Sizes], addresses: Mapping[str, int]) -> Binding:
        return cls(profile, tuple(shapes.items()), tuple(addresses.items()))


class EngineGraph:
    """Runs an engine with one launch. Its outputs lie where those of any other run with this binding lie."""

    def __init__(self, device: CudaDevice, engine: Any, user_managed: Any, binding: Binding) -> None:
        """Run the engine once, and capture a second run; in an active context.

        ``user_managed`` is the strategy of that name: all graphs share the memory for what engines keep in between,
        for they run one after the other.

        Raises:
            MatcherError: TensorRT or the driver refuses it, or there is not enough memory.
        """
        context = engine.create_execution_context(user_managed)
        _require(context is not None, "it has no second context")
        held = [context]
        weakref.finalize(self, drop_when_done, device, held)
        if binding.profile:
            _require(context.set_optimization_profile_async(binding.profile, device.stream), "its profile")
        _require(all(context.set_input_shape(*shape) for shape in binding.shapes), "its shapes")
        _require(not context.infer_shapes(), "its shapes")
        held.append(device.shared_memory(context.update_device_memory_size_for_shapes()))
        context.device_memory = int(held[-1])
        _require(all(context.set_tensor_address(*place) for place in binding.addresses), "its addresses")
        # TensorRT puts off what changes of shapes and addresses entail until the next run, which is not captured.
        _require(context.execute_async_v3(device.stream), "it cannot be run")
        self._graph = StreamGraph(device.stream, lambda: bool(context.execute_async_v3(device.stream)))
        held.append(self._graph)

    def launch(self) -> None:
        """Ask for a run.

        Raises:
            MatcherError: the driver fails.
        """
        self._graph.launch()


def drop_when_done(device: CudaDevice, held: list[Any]) -> None:
    """Give back what the GPU may still be using, when it has done all that it was asked for."""
    with device.active():
        device.synchronize()
        held.clear()


def _require(is_done: bool, what: str) -> None:
    if not is_done:
        raise MatcherError(f"TensorRT cannot prepare it: {what}.")
