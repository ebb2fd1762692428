"""One ONNX graph becomes one TensorRT engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.runtimes.engine_manifest import Profile
from feature_matcher_ros.runtimes.own_files import replace_file
from feature_matcher_ros.runtimes.tensorrt_library import TensorRT, make_logger

OnProgress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def build_engine(
    library: TensorRT,
    name: str,
    graph: bytes,
    profiles: Sequence[Profile],
    architectures: Sequence[str] = (),
    timings: Path | None = None,
    on_progress: OnProgress = no_progress,
) -> bytes:
    """Build a serialised engine; ``graph`` is an ONNX model, computed in the precision that is written in it.

    ``architectures`` are the compute capabilities it is built for ahead of time; none: that of the GPU at hand.
    ``timings`` is a file that keeps how fast kernels are, where the library measures that.

    Raises:
        RuntimeLoadError: the graph cannot be parsed, or no engine can be built of it.
        ConfigError: the library does not know an architecture.
    """
    trt, logger = library.module, make_logger(library)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise RuntimeLoadError(_parse_error(library, name, parser))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # its 10 bits are less than float32 promises
    for profile in profiles:
        config.add_optimization_profile(_optimization_profile(builder, profile))
    _set_architectures(trt, config, architectures)
    monitor = _monitor(trt, on_progress)  # must live as long as the configuration
    config.progress_monitor = monitor
    measured = None if timings is None or library.is_rtx else _measured_before(config, timings)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise RuntimeLoadError(
            f"{library.name} {library.version} can build no engine of the graph '{name}' "
            f"({'; '.join(logger.errors[:2]) or 'without a reason'}): use the runtime onnx for it."
        )
    if measured is not None and timings is not None:
        replace_file(timings, bytes(measured.serialize()))
    return bytes(serialized)


def known_architectures(library: TensorRT) -> tuple[str, ...]:
    """The compute capabilities that the library can build for without a GPU; none for one that needs the GPU."""
    if not library.is_rtx:
        return ()
    names = (name.removeprefix("SM") for name in library.module.ComputeCapability.__members__ if name[:2] == "SM")
    return tuple(sorted((f"{name[:-1]}.{name[-1]}" for name in names), key=float))


def _network_flags(trt: Any) -> int:
    """Strongly typed, which from version 11 on is the only kind and needs no flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse_error(library: TensorRT, name: str, parser: Any) -> str:
    """What the parser says, and the node that it says it of."""
    said = []
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_name() else ""
        said.append(node + " ".join(error.desc().split()))
    return f"{library.name} {library.version} cannot parse the graph '{name}' ({'; '.join(said)}): export it again."


def _optimization_profile(builder: Any, profile: Profile) -> Any:
    result = builder.create_optimization_profile()
    for name, (smallest, customary, largest) in profile.shapes.items():
        result.set_shape(name, smallest, customary, largest)
    return result


def _set_architectures(trt: Any, config: Any, architectures: Sequence[str]) -> None:
    if not architectures:
        return
    config.num_compute_capabilities = len(architectures)
    for number, architecture in enumerate(architectures):
        config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{architecture.replace('.', '')}"], number)


def _measured_before(config: Any, timings: Path) -> Any:
    """What was measured by earlier builds; nothing, where that was by another version or is damaged."""
    measured = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b"")
    if measured is None or not config.set_timing_cache(measured, ignore_mismatch=False):
        measured = config.create_timing_cache(b"")
        config.set_timing_cache(measured, ignore_mismatch=False)
    return measured


def _monitor(trt: Any, on_progress: OnProgress) -> Any:
    """Tells of the steps of the outermost phase of a build."""
    base: Any = trt.IProgressMonitor  # the class to derive from is known only now

    class Monitor(base):
        def __init__(self) -> None:
            super().__init__()
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._totals[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._totals:
                on_progress(step + 1, self._totals[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._totals.pop(phase_name, None)

    return Monitor()
