"""The CUDA graph of a module, for inputs of fixed shapes. Everything here needs torch's inference mode.

A graph computes from the memory that it was captured with into the memory that it was captured with: inputs are
copied into the former, and who still holds what is in the latter when the graph is launched again gets a copy. What it
needs in between is shared by all graphs, for they run one after the other; its results do not lie there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.runtimes.torch_tensor import DeviceTensor

_WARM_UPS = 2  # libraries prepare themselves at the first run on a stream, by what must not be captured
Compute = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class TorchGraph:
    """Runs a module with one launch, once its inputs have been copied."""

    def __init__(self, compute: Compute, given: Mapping[str, Tensor], device: torch.device) -> None:
        """Capture a run with such inputs.

        Raises:
            MatcherError: torch refuses it, for want of memory or because the module waits for the GPU.
        """
        self._handed_out: list[weakref.ref[DeviceTensor]] = []
        try:
            self._inputs = {name: tensor.to(device, copy=True) for name, tensor in given.items()}
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.stream(torch.cuda.current_stream()):  # a capture that fails leaves another one behind
                self._outputs = self._capture(compute)
        except RuntimeError as error:
            raise MatcherError(f"torch {torch.__version__} refuses it ({' '.join(str(error).split())}).") from error

    def launch(self, given: Mapping[str, Tensor]) -> dict[str, DeviceTensor]:
        """Ask for a run; what it gives is good as long as somebody holds it."""
        for reference in self._handed_out:
            held = reference()
            if held is not None:
                held.tensor = held.tensor.clone()
        for name, tensor in given.items():
            self._inputs[name].copy_(tensor, non_blocking=True)  # an array is read before this returns
        self._graph.replay()
        found = {name: DeviceTensor(tensor) for name, tensor in self._outputs.items()}
        self._handed_out = [weakref.ref(tensor) for tensor in found.values()]
        return found

    def _capture(self, compute: Compute) -> Mapping[str, Tensor]:
        stream, pool = _shared()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                computed = compute(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        outputs = {
            name: torch.empty_like(tensor, memory_format=torch.contiguous_format) for name, tensor in computed.items()
        }
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            for name, tensor in compute(self._inputs).items():
                outputs[name].copy_(tensor)
        return outputs


@cache
def _shared() -> tuple[Any, Any]:
    """The stream on which all graphs are captured, and the memory that they have in common."""
    return torch.cuda.Stream(), torch.cuda.graph_pool_handle()
