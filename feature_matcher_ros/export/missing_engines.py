"""Builds what a node lacks before it opens its networks: engines that are missing, of another version, or harmed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from feature_matcher_ros.config import FrontEndConfig
from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.export.engine_profiles import SMALLEST_LARGEST, EngineBudget
from feature_matcher_ros.export.to_tensorrt import (
    FLOAT16,
    MATCHES_POINTS,
    EnginePlan,
    OnProgress,
    build_environment,
    build_planned,
    no_progress,
    planned_engines,
    precisions_of,
)
from feature_matcher_ros.extractors import NETWORKS
from feature_matcher_ros.matchers import chosen_method, lightglue_folder, network_folder
from feature_matcher_ros.matchers.lightglue_graphs import METHOD as LIGHTGLUE
from feature_matcher_ros.models.dense_config import DENSE_METHODS
from feature_matcher_ros.runtimes.engine_cache import EngineCache
from feature_matcher_ros.runtimes.engine_manifest import Environment
from feature_matcher_ros.runtimes.manifest import read_manifest
from feature_matcher_ros.runtimes.tensorrt_device import cuda_device, gpu_environment
from feature_matcher_ros.runtimes.tensorrt_library import load_tensorrt

_LOG = logging.getLogger(__name__)


def build_missing_engines(
    config: FrontEndConfig, cache: EngineCache | None = None, on_progress: OnProgress = no_progress
) -> None:
    """Build those that the configuration asks for, by ``runtime: tensorrt``, and that cannot be used here.

    One that was there is built again as it was, in the same precision; one that never was, as ``feature-matcher
    build`` does without ``--accept``.

    Raises:
        RuntimeLoadError: TensorRT, the GPU or a folder of graphs is missing, or a graph cannot be built for this GPU.
        OutputError: the cache cannot be written.
    """
    cache = cache or EngineCache()
    for folder, budget in _wanted(config):
        library = load_tensorrt()
        here = gpu_environment(library, cuda_device())
        problems = _problems(folder, cache, here)
        if not problems:
            continue
        _LOG.warning("builds %d engines of %s: %s", len(problems), folder, next(iter(problems.values())))
        plans = _plans(folder, budget, cache, problems)
        build_planned(folder, plans, build_environment(library, here.architectures), cache, on_progress)


def _wanted(config: FrontEndConfig) -> Iterator[tuple[Path, EngineBudget]]:
    """Folders of graphs that TensorRT is to execute, and for how much."""
    matcher, extractor, method = config.matcher, config.extractor, chosen_method(config)
    if method in DENSE_METHODS:
        if matcher.runtime == "tensorrt":
            yield network_folder(matcher), _budget(matcher.max_matches, matcher.max_image_px or None)
        return
    if extractor.name in NETWORKS and extractor.runtime == "tensorrt" and extractor.graphs:
        yield Path(extractor.graphs), _budget(extractor.max_keypoints)
    if matcher.runtime == "tensorrt" and (method == LIGHTGLUE or (method in MATCHES_POINTS and matcher.graphs)):
        yield lightglue_folder(matcher, extractor.name), _budget(extractor.max_keypoints)


def _budget(max_keypoints: int, max_image_px: int | None = None) -> EngineBudget:
    """At least the budget of ``feature-matcher build``, so that other nodes need no other engines."""
    pixels = None if max_image_px is None else max(SMALLEST_LARGEST, max_image_px)
    return EngineBudget(max(EngineBudget().max_keypoints, max_keypoints), pixels)


def _problems(folder: Path, cache: EngineCache, here: Environment) -> dict[str, str]:
    """Why no engine of a graph can be used, by the name of the graph."""
    entries = read_manifest(folder).graphs.items()
    found = {name: _problem(cache, entry.sha256, here) for name, entry in entries}
    return {name: problem for name, problem in found.items() if problem is not None}


def _problem(cache: EngineCache, graph_sha256: str, here: Environment) -> str | None:
    try:
        cache.find(graph_sha256, here)
    except RuntimeLoadError as error:
        return str(error)
    return None


def _plans(folder: Path, budget: EngineBudget, cache: EngineCache, problems: dict[str, str]) -> dict[str, EnginePlan]:
    manifest = read_manifest(folder)
    plans = {}
    for name in problems:
        before = cache.manifests(manifest.graphs[name].sha256)
        if before:
            last = max(before, key=lambda found: found.chosen_at).source
            plans[name] = EnginePlan(last.precision, last.profiles)
    if len(plans) < len(problems):
        _LOG.warning("%s: nobody compared %s with float32: feature-matcher build --accept does", folder, FLOAT16)
        new = planned_engines(folder, (budget,), precisions_of(manifest, FLOAT16))
        plans |= {name: new[name] for name in problems if name not in plans}
    return plans
