"""Builds the engines of an exported network, those that are not there already, and keeps them in the cache.

Neither torch nor a GPU is needed with ``tensorrt_rtx``: it builds ahead of time from the graphs alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.export.engine_profiles import (
    EngineBudget,
    Range,
    dense_ranges,
    detection_ranges,
    matching_ranges,
    profile_of,
)
from feature_matcher_ros.export.half_precision import in_half_precision
from feature_matcher_ros.export.standard_operators import with_standard_operators
from feature_matcher_ros.export.tensorrt_builder import build_engine, known_architectures
from feature_matcher_ros.extractors.point_graphs import DETECT
from feature_matcher_ros.matchers.dense_graphs import BACKBONE, FINE, is_round_name
from feature_matcher_ros.matchers.lightglue_graphs import METHOD as LIGHTGLUE
from feature_matcher_ros.matchers.lightglue_graphs import is_stage_name
from feature_matcher_ros.matchers.superglue_graphs import METHOD as SUPERGLUE
from feature_matcher_ros.models.dense_config import DENSE_METHODS, config_from_manifest, tuning_from_manifest
from feature_matcher_ros.runtimes import open_runtime
from feature_matcher_ros.runtimes.engine_cache import EngineCache
from feature_matcher_ros.runtimes.engine_manifest import EngineManifest, EngineSource, Environment, Profile
from feature_matcher_ros.runtimes.manifest import Manifest, read_manifest, verified_graph_path
from feature_matcher_ros.runtimes.tensorrt_device import cuda_device, gpu_environment
from feature_matcher_ros.runtimes.tensorrt_library import TensorRT, load_tensorrt

FLOAT32, FLOAT16 = "float32", "float16"
PRECISIONS = (FLOAT16, FLOAT32)
MATCHES_POINTS = (LIGHTGLUE, SUPERGLUE)  # the methods whose graphs take points that somebody else found
_UNFIT = ("7.5",)  # for Turing, tensorrt_rtx knows no product in float32, which an assignment is
_TIMINGS = "timings.cache"
_PROBE_PX = 128  # side of an image that shows how many pixels there are to a feature; a multiple of all multiples


OnProgress = Callable[[str, float], None]  # name of the graph, share of the network that is done


def no_progress(name: str, share: float) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How engines are built."""

    precision: str = FLOAT16
    budgets: tuple[EngineBudget, ...] = (EngineBudget(),)  # a profile each
    architectures: tuple[str, ...] = ()  # none: all that the library can build for here
    rebuild: bool = False  # also what is there already


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How the engine of one graph is to be."""

    precision: str
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """One engine of a network."""

    manifest: EngineManifest
    is_new: bool


def precisions_of(manifest: Manifest, precision: str) -> Mapping[str, str]:
    """The precision of every graph: only what is much work and tolerates it is in float16.

    Raises:
        ConfigError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"the precision '{precision}' is unknown: choose one of {', '.join(PRECISIONS)}.")
    return {
        name: FLOAT16 if precision == FLOAT16 and _is_work(manifest.method, name) else FLOAT32
        for name in manifest.graphs
    }


def _is_work(method: str, graph: str) -> bool:
    """Whether a graph is most of the work and does not assign matches."""
    if method in MATCHES_POINTS:
        return is_stage_name(graph)
    if method in DENSE_METHODS:
        return graph in (BACKBONE, FINE) or is_round_name(graph)
    return graph == DETECT


def prepared_graph(folder: Path, manifest: Manifest, name: str, precision: str) -> onnx.ModelProto:
    """A graph as an engine is built from it: standard operators only, and the precision written into it.

    Raises:
        RuntimeLoadError: the file is missing or was changed.
    """
    graph = onnx.load(str(verified_graph_path(folder, manifest.graphs[name])))
    if manifest.method in MATCHES_POINTS:
        graph = with_standard_operators(graph, manifest.network["width"] // manifest.network["heads"])
    return in_half_precision(graph) if precision == FLOAT16 else graph


def build_network(
    folder: Path,
    options: EngineOptions,
    precisions: Mapping[str, str],
    acceptance: Mapping[str, Any] | None = None,
    cache: EngineCache | None = None,
    on_progress: OnProgress = no_progress,
) -> list[BuiltEngine]:
    """Build the engines of all graphs of a folder.

    ``precisions`` says for each graph which one (``precisions_of``), ``acceptance`` how they were tested.

    Raises:
        RuntimeLoadError: the folder holds no graphs, TensorRT or the GPU that it needs is missing, a graph cannot be
            built.
        ConfigError: an architecture is unknown.
        OutputError: the cache cannot be written.
    """
    library, cache = load_tensorrt(), cache or EngineCache()
    environment = build_environment(library, options.architectures)
    plans = planned_engines(folder, options.budgets, precisions)
    return build_planned(folder, plans, environment, cache, on_progress, acceptance, options.rebuild)


def planned_engines(
    folder: Path, budgets: Sequence[EngineBudget], precisions: Mapping[str, str]
) -> dict[str, EnginePlan]:
    """How the engines of all graphs of a folder are to be, with a profile for each budget.

    Raises:
        RuntimeLoadError: the folder holds no graphs, or one of them cannot be opened.
    """
    manifest = read_manifest(folder)
    ranges = [_ranges(folder, manifest, budget) for budget in budgets]
    return {
        name: EnginePlan(precisions[name], _distinct([profile_of(entry.spec, sizes) for sizes in ranges]))
        for name, entry in manifest.graphs.items()
    }


def build_planned(
    folder: Path,
    plans: Mapping[str, EnginePlan],
    environment: Environment,
    cache: EngineCache,
    on_progress: OnProgress = no_progress,
    acceptance: Mapping[str, Any] | None = None,
    rebuild: bool = False,
) -> list[BuiltEngine]:
    """Build the engines of some graphs of a folder; those that are there already only with ``rebuild``.

    Raises:
        RuntimeLoadError: a graph was changed, or cannot be built.
        OutputError: the cache cannot be written.
    """
    library, manifest = load_tensorrt(), read_manifest(folder)
    built = []
    for number, (name, plan) in enumerate(plans.items()):
        graph_sha256 = manifest.graphs[name].sha256
        source = EngineSource(graph_sha256, environment, plan.precision, plan.profiles)

        def report(done: int, total: int, name: str = name, number: int = number) -> None:
            on_progress(name, (number + done / total) / len(plans))

        report(0, 1)
        with cache.locked(graph_sha256):
            present = None if rebuild else cache.holds(source.key, graph_sha256)
            if present is None:
                graph = prepared_graph(folder, manifest, name, plan.precision)
                found, content = _build(library, name, graph, source, cache.folder / _TIMINGS, report)
                cache.store(found, content)
            else:
                found = present
            built.append(BuiltEngine(cache.choose(found, acceptance), is_new=present is None))
        report(1, 1)
    return built


def build_environment(library: TensorRT, architectures: Sequence[str]) -> Environment:
    """What engines that are built here are bound to: some GPUs with ``tensorrt_rtx``, else the one at hand.

    Raises:
        RuntimeLoadError: the GPU at hand is needed and missing.
        ConfigError: the library does not build for an architecture.
    """
    here = None if library.is_rtx else gpu_environment(library, cuda_device())
    known = known_architectures(library) if here is None else here.architectures
    unknown = [name for name in architectures if name not in known]
    if unknown:
        able = f"it builds for {', '.join(known)}" + ("" if here is None else ", the GPU at hand, only")
        raise ConfigError(
            f"{library.name} {library.version} does not build for compute capability {unknown[0]}: {able}."
        )
    if here is not None:
        return here
    chosen = tuple(sorted(set(architectures), key=float)) or tuple(name for name in known if name not in _UNFIT)
    return Environment(library.name, library.version, "", chosen)


def _build(
    library: TensorRT,
    name: str,
    graph: onnx.ModelProto,
    source: EngineSource,
    timings: Path,
    on_progress: Callable[[int, int], None],
) -> tuple[EngineManifest, bytes]:
    begun = time.monotonic()
    targets = source.environment.architectures if library.is_rtx else ()
    content = build_engine(library, name, graph.SerializeToString(), source.profiles, targets, timings, on_progress)
    manifest = EngineManifest(
        name=name,
        key=source.key,
        source=source,
        sha256=hashlib.sha256(content).hexdigest(),
        num_bytes=len(content),
        build_s=round(time.monotonic() - begun, 2),
        chosen_at="",
        acceptance=None,
    )
    return manifest, content


def _distinct(profiles: Sequence[Profile]) -> tuple[Profile, ...]:
    """Budgets that differ in what a graph does not take give it the same profile."""
    return tuple(profile for number, profile in enumerate(profiles) if profile not in profiles[:number])


def _ranges(folder: Path, manifest: Manifest, budget: EngineBudget) -> Mapping[str, Range]:
    if manifest.method in MATCHES_POINTS:
        return matching_ranges(budget)
    if manifest.method in DENSE_METHODS:
        return dense_ranges(
            budget, config_from_manifest(manifest.method, manifest.network), tuning_from_manifest(manifest.network)
        )
    multiple = int(manifest.network["multiple"])
    return detection_ranges(budget, multiple, _pixels_per_feature(folder, manifest))


def _pixels_per_feature(folder: Path, manifest: Manifest) -> int:
    """The graph itself says it: it is executed once."""
    entry = manifest.graphs[DETECT]
    graph = open_runtime(verified_graph_path(folder, entry), entry.spec, "onnx", 1)
    given = {
        tensor.name: np.ones([_PROBE_PX if isinstance(size, str) else size for size in tensor.shape], np.float32)
        for tensor in entry.spec.inputs
    }
    return _PROBE_PX // int(graph.run(given)["features"].shape[-1])
