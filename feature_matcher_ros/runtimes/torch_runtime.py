"""Models executed by torch itself: the reference for all graphs, and for GPUs without TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.cuda_graphs import CudaGraphs
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.meter import HostMeter, Meter
from feature_matcher_ros.runtimes.torch_cuda_graph import TorchGraph
from feature_matcher_ros.runtimes.torch_tensor import HALVES, DeviceTensor, as_tensor

_PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class CudaMeter:
    """Events on the current stream."""

    name = "CUDA events"

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(begin.elapsed_time(end))

    def memory_mb(self) -> float:
        free, total = torch.cuda.mem_get_info()
        return (total - free) * 1e-6


class TorchRuntime:
    """One stage of a model. What it returns may be fed to another stage without leaving the device."""

    def __init__(
        self,
        module: torch.nn.Module,
        spec: GraphSpec,
        device: str = "cpu",
        precision: str = "float32",
        captured_as: str | None = None,
    ) -> None:
        """Put a module, which takes and returns a mapping of named tensors, on a device.

        With a ``precision`` of float16 or bfloat16 its products are computed in that type; what is added up over
        the layers, and every exponential, stays float32. A module with a name to be ``captured_as`` runs by CUDA
        graphs for sizes that return; nothing in it may depend on numbers that are on the GPU.

        Raises:
            RuntimeLoadError: there is no such device or precision.
        """
        if precision not in _PRECISIONS:
            raise RuntimeLoadError(f"the precision '{precision}' is unknown: choose {', '.join(_PRECISIONS)}.")
        try:
            self._module = module.eval().to(device)
        except (RuntimeError, AssertionError) as error:
            raise RuntimeLoadError(
                f"torch {torch.__version__} cannot use the device '{device}' ({' '.join(str(error).split())}): "
                "choose cpu."
            ) from error
        self._spec = spec
        self._device = torch.device(device)
        self._precision = _PRECISIONS[precision]
        self._graphs: CudaGraphs[TorchGraph] | None = None if captured_as is None else CudaGraphs(captured_as)

    @property
    def name(self) -> str:
        return "torch"

    @property
    def precision(self) -> str:
        return str(self._precision).removeprefix("torch.")

    @property
    def spec(self) -> GraphSpec:
        return self._spec

    @property
    def meter(self) -> Meter:
        return CudaMeter() if self._device.type == "cuda" else HostMeter()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: as_tensor(value) for name, value in inputs.items()}
        with torch.inference_mode():
            if self._graphs is None:
                return _wrapped(self._computed(given))
            key = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in given.items())
            graph = self._graphs.find(key, lambda: TorchGraph(self._computed, given, self._device))
            return _wrapped(_apart(self._computed(given), given)) if graph is None else graph.launch(given)

    def _computed(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        is_half, is_captured = self._precision in HALVES, self._graphs is not None
        # Weights that an autocast has converted and keeps would be gone when a graph that reads them is launched.
        with torch.autocast(self._device.type, self._precision, enabled=is_half, cache_enabled=not is_captured):
            outputs = self._module({name: tensor.to(self._device) for name, tensor in given.items()})
        return {tensor.name: outputs[tensor.name] for tensor in self._spec.outputs}


def _wrapped(outputs: Mapping[str, Tensor]) -> dict[str, DeviceTensor]:
    return {name: DeviceTensor(tensor) for name, tensor in outputs.items()}


def _apart(outputs: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs that are not the very memory of an input, which may be that of a graph that will be launched again."""
    places = {tensor.untyped_storage().data_ptr() for tensor in given.values()}
    return {
        name: tensor.clone() if tensor.untyped_storage().data_ptr() in places else tensor
        for name, tensor in outputs.items()
    }
