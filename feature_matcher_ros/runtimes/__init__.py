"""What executes an exported graph."""

from __future__ import annotations

from pathlib import Path

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.runtime import Runtime


def open_runtime(graph_path: Path, spec: GraphSpec, name: str = "auto", num_threads: int = 0) -> Runtime:
    """Open a graph with the runtime of that name; ``auto`` takes the fastest that is there.

    ``num_threads`` 0 leaves the number to the runtime.

    Raises:
        RuntimeLoadError: there is no such runtime, it is not installed, or it cannot open the graph.
    """
    if name not in ("auto", "onnx"):
        raise RuntimeLoadError(f"the runtime '{name}' is unknown: choose auto or onnx.")
    try:
        from feature_matcher_ros.runtimes.onnx_runtime import OnnxRuntime  # 0.2 s, spent only where a graph is used
    except ImportError as error:
        raise RuntimeLoadError(f"ONNX Runtime cannot be imported ({error}): run pip install onnxruntime.") from error
    return OnnxRuntime(graph_path, spec, num_threads)
