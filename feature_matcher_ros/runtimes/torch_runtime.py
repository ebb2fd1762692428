"""Models executed by torch itself: the reference for all graphs, and for GPUs without TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.meter import HostMeter, Meter

_PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HALVES = (torch.float16, torch.bfloat16)


class DeviceTensor:
    """A tensor that stays on its device until somebody asks numpy for an array of it."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        tensor = self.tensor.float() if self.tensor.dtype in _HALVES else self.tensor
        array: NDArray[Any] = tensor.cpu().numpy()
        return array if dtype is None else array.astype(dtype)


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
        self, module: torch.nn.Module, spec: GraphSpec, device: str = "cpu", precision: str = "float32"
    ) -> None:
        """Put a module, which takes and returns a mapping of named tensors, on a device.

        With a ``precision`` of float16 or bfloat16 its products are computed in that type; what is added up over
        the layers, and every exponential, stays float32.

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
        is_half = self._precision in _HALVES
        with torch.inference_mode(), torch.autocast(self._device.type, self._precision, enabled=is_half):
            outputs = self._module({name: self._on_device(value) for name, value in inputs.items()})
        return {tensor.name: DeviceTensor(outputs[tensor.name]) for tensor in self._spec.outputs}

    def _on_device(self, value: Any) -> torch.Tensor:
        if isinstance(value, DeviceTensor):
            return value.tensor
        return torch.as_tensor(np.ascontiguousarray(value), device=self._device)
