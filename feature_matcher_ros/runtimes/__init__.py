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

_LOG = logging.getLogger(__name__)
_NAMED = {"torch": "torch on the GPU", "onnx": "ONNX Runtime on the CPU"}


def open_runtime(graph_path: Path, spec: GraphSpec, name: str = "auto", num_threads: int = 0) -> Runtime:
    """Open a graph with the runtime of that name; ``auto`` takes the first that can: TensorRT, torch on a GPU, ONNX.

    ``num_threads`` 0 leaves the number to the runtime.

    Raises:
        RuntimeLoadError: there is no such runtime, it is not installed, or it cannot open the graph.
    """
    if name not in RUNTIMES:
        raise RuntimeLoadError(f"the runtime '{name}' is unknown: choose one of {', '.join(RUNTIMES)}.")
    if name == "tensorrt":
        return _open_tensorrt(graph_path, spec)
    if name == "torch":
        return _open_torch(graph_path, spec)
    if name == "torch_float16":
        return _open_torch(graph_path, spec, "float16")
    if name == "onnx":
        return _open_onnx(graph_path, spec, num_threads)
    return _open_best(graph_path, spec, num_threads)


def _open_best(graph_path: Path, spec: GraphSpec, num_threads: int) -> Runtime:
    """What is installed and cannot be used is named, once for each network."""
    problems = []
    for is_expected, open_it in ((_is_tensorrt_installed, _open_tensorrt), (_is_torch_on_gpu_expected, _open_torch)):
        if is_expected():
            try:
                opened = open_it(graph_path, spec)
            except RuntimeLoadError as error:
                problems.append(str(error))
            else:
                break
    else:
        opened = _open_onnx(graph_path, spec, num_threads)
    if problems:
        _warn_of_fallback(graph_path.parent, opened.name, " ".join(problems))
    return opened


def _open_tensorrt(graph_path: Path, spec: GraphSpec) -> Runtime:
    from feature_matcher_ros.runtimes.tensorrt_runtime import TensorRtRuntime

    return TensorRtRuntime(graph_path, spec)


def _open_torch(graph_path: Path, spec: GraphSpec, precision: str = "float32") -> Runtime:
    try:
        from feature_matcher_ros.runtimes.torch_graph import open_torch_graph
    except ImportError as error:
        raise RuntimeLoadError(
            f"the runtime torch needs torch and onnx ({error}): run pip install 'feature_matcher_ros[torch]', or set "
            "the runtime to onnx, which needs neither."
        ) from error
    return open_torch_graph(graph_path, spec, precision)


def _open_onnx(graph_path: Path, spec: GraphSpec, num_threads: int) -> Runtime:
    try:
        from feature_matcher_ros.runtimes.onnx_runtime import OnnxRuntime  # 0.2 s, spent only where a graph is used
    except ImportError as error:
        raise RuntimeLoadError(f"ONNX Runtime cannot be imported ({error}): run pip install onnxruntime.") from error
    return OnnxRuntime(graph_path, spec, num_threads)


@cache
def _is_tensorrt_installed() -> bool:
    """Whether the user may expect it to be used: nothing is said about what is not installed."""
    return any(find_spec(name) is not None for name in ("tensorrt", "tensorrt_rtx"))


@cache
def _is_torch_on_gpu_expected() -> bool:
    """Whether there is a GPU and what torch needs to use it, found without the seconds that importing torch takes."""
    from feature_matcher_ros.runtimes.tensorrt_library import driver_problem

    return driver_problem() is None and all(find_spec(name) is not None for name in ("torch", "onnx"))


_warned: set[object] = set()


def _warn_of_fallback(network: Path, chosen: str, reason: str) -> None:
    """Say once for each network and each reason why what was expected is left unused."""
    is_news = not _warned & {network, reason}
    _warned.update((network, reason))
    level = logging.WARNING if is_news else logging.DEBUG
    _LOG.log(level, "%s runs by %s, for what is faster cannot be used: %s", network.name, _NAMED[chosen], reason)
