"""Graphs executed by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.graph_spec import GraphSpec, TensorSpec, require_same_spec
from feature_matcher_ros.runtimes.meter import HostMeter
from feature_matcher_ros.runtimes.runtime import Tensor

# ONNX Runtime's names of element types, as numpy calls them.
_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_LOG_ERRORS_ONLY = 3


class OnnxRuntime:
    """One ONNX graph, opened for the CPU."""

    def __init__(self, graph_path: Path, spec: GraphSpec, num_threads: int = 0) -> None:
        """Load and optimise the graph; ``num_threads`` 0 takes one for each physical core.

        Raises:
            RuntimeLoadError: there is no such file, it is no valid graph, or its inputs and outputs are not
                those of ``spec``.
        """
        self._session = _open_session(graph_path, num_threads)
        declared = GraphSpec(_tensor_specs(self._session.get_inputs()), _tensor_specs(self._session.get_outputs()))
        require_same_spec(str(graph_path), spec, declared)
        self._spec = spec
        self._output_names = [tensor.name for tensor in spec.outputs]

    @property
    def name(self) -> str:
        return "onnx"

    @property
    def precision(self) -> str:
        """The precision of all exported graphs."""
        return "float32"

    @property
    def spec(self) -> GraphSpec:
        return self._spec

    @property
    def meter(self) -> HostMeter:
        return HostMeter()

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = {name: np.asarray(value) for name, value in inputs.items()}  # from wherever they are
        outputs = self._session.run(self._output_names, given)
        return dict(zip(self._output_names, map(np.asarray, outputs), strict=True))


def _open_session(graph_path: Path, num_threads: int) -> onnxruntime.InferenceSession:
    if not graph_path.is_file():
        raise RuntimeLoadError(f"there is no graph {graph_path}: give the path of an exported .onnx file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Every session has its own threads: those of one that has finished must not take cores from the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # A network is a chain of sessions that run one after the other: one arena serves all.
    _register_shared_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        return onnxruntime.InferenceSession(str(graph_path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base class but Exception
        cause = " ".join(str(error).split())
        raise RuntimeLoadError(
            f"ONNX Runtime {onnxruntime.__version__} cannot open {graph_path} ({cause}): export the graph again."
        ) from error


@cache
def _register_shared_arena() -> None:
    """Give ONNX Runtime, once in a process, the arena from which its sessions take their memory."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, None)


def _tensor_specs(declared: list[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            node.name,
            tuple(size if isinstance(size, int) else str(size) for size in node.shape),
            _DTYPES.get(node.type, node.type),
        )
        for node in declared
    )
