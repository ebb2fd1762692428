"""What executes an exported graph."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from feature_matcher_ros.config import RUNTIMES
from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.graph_spec import GraphSpec
from feature_matcher_ros.runtimes.runtime import Runtime

_logger = logging.getLogger(__name__)


def open_runtime(graph_path: Path, spec: GraphSpec, name: str = "auto", num_threads: int = 0) -> Runtime:
    """Open a graph with the runtime of that name; ``auto`` takes TensorRT if it can, else ONNX Runtime on the CPU.

    ``num_threads`` 0 leaves the number to the runtime.

    Raises:
        RuntimeLoadError: there is no such runtime, it is not installed, or it cannot open the graph.
    """
    if name not in RUNTIMES:
        raise RuntimeLoadError(f"the runtime '{name}' is unknown: choose one of {', '.join(RUNTIMES)}.")
    if name == "tensorrt":
        return _open_tensorrt(graph_path, spec)
    if name == "auto" and _is_tensorrt_installed():
        try:
            return _open_tensorrt(graph_path, spec)
        except RuntimeLoadError as error:
            _warn_of_fallback(graph_path.parent, str(error))
    return _open_onnx(graph_path, spec, num_threads)


def _open_tensorrt(graph_path: Path, spec: GraphSpec) -> Runtime:
    from feature_matcher_ros.runtimes.tensorrt_runtime import TensorRtRuntime

    return TensorRtRuntime(graph_path, spec)


def _open_onnx(graph_path: Path, spec: GraphSpec, num_threads: int) -> Runtime:
    try:
        from feature_matcher_ros.runtimes.onnx_runtime import OnnxRuntime  # 0.2 s, spent only where a graph is used
    except ImportError as error:
        raise RuntimeLoadError(f"ONNX Runtime cannot be imported ({error}): run pip install onnxruntime.") from error
    return OnnxRuntime(graph_path, spec, num_threads)


@cache
def _is_tensorrt_installed() -> bool:
    """Whether somebody expects it to be used; where it is not installed nothing is said of it."""
    return any(find_spec(name) is not None for name in ("tensorrt", "tensorrt_rtx"))


_warned: set[object] = set()


def _warn_of_fallback(network: Path, reason: str) -> None:
    """Say once for each network and each reason why TensorRT is left unused."""
    is_news = not _warned & {network, reason}
    _warned.update((network, reason))
    level = logging.WARNING if is_news else logging.DEBUG
    _logger.log(level, "%s runs on the CPU, by ONNX Runtime, though TensorRT is installed: %s", network.name, reason)
