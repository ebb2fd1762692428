"""Builds the engines of a network in precisions that have passed the test of acceptance."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.errors import RuntimeLoadError
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.pair_sets import load_pairs
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.export.engine_acceptance import (
    Acceptance,
    FramePair,
    Remembering,
    Trial,
    accepted_precisions,
    compare_on_cpu,
    compare_on_gpu,
)
from feature_matcher_ros.export.to_tensorrt import (
    MATCHES_POINTS,
    BuiltEngine,
    EngineOptions,
    OnProgress,
    build_environment,
    build_network,
    no_progress,
    precisions_of,
)
from feature_matcher_ros.extractors import create_extractor
from feature_matcher_ros.runtimes.manifest import Manifest, read_manifest
from feature_matcher_ros.runtimes.tensorrt_device import cuda_device
from feature_matcher_ros.runtimes.tensorrt_library import load_tensorrt

_MAX_PAIRS = 12
_DEMO_RATE_HZ = 2.0


@dataclass(frozen=True, slots=True)
class TrialSource:
    """What a network is to be tried on."""

    pairs: Path | None = None  # JSON file; None: rendered frames
    points: Path | None = None  # graphs of the extractor of a matching network; None: SIFT


def build_accepted(
    folder: Path, options: EngineOptions, source: TrialSource, on_progress: OnProgress = no_progress
) -> tuple[list[BuiltEngine], Acceptance]:
    """Build all engines of a folder of graphs; those that cost matches in float16 are built in float32.

    Raises:
        MatcherError: not even in float32 does the network find its matches again.
        FeatureMatcherError: as ``build_network``, or the pairs cannot be read.
    """
    manifest = read_manifest(folder)
    trial = _trial(manifest, options, source)
    on_cpu = compare_on_cpu(folder, trial)
    compare = on_cpu
    if _runs_here(options):
        compare = compare_on_gpu(folder, trial, lambda precisions: build_network(folder, options, precisions))
    precisions, acceptance = accepted_precisions(precisions_of(manifest, options.precision), compare, on_cpu)
    return build_network(folder, options, precisions, asdict(acceptance), on_progress=on_progress), acceptance


def _trial(manifest: Manifest, options: EngineOptions, source: TrialSource) -> Trial:
    max_keypoints = min(budget.max_keypoints for budget in options.budgets)
    pairs = _rendered_pairs() if source.pairs is None else _stored_pairs(source.pairs)
    if manifest.method not in MATCHES_POINTS:
        return Trial(pairs, None, max_keypoints)
    if source.points is None:
        config = ExtractorConfig(name="sift", max_keypoints=max_keypoints)
    else:
        name = read_manifest(source.points).method
        config = ExtractorConfig(name=name, graphs=str(source.points), max_keypoints=max_keypoints)
    return Trial(pairs, Remembering(create_extractor(config)), max_keypoints)


def _stored_pairs(path: Path) -> list[FramePair]:
    pairs = load_pairs(path)
    return [pair.frames() for pair in pairs[:: math.ceil(len(pairs) / _MAX_PAIRS)]]


def _rendered_pairs() -> list[FramePair]:
    frames = islice(demo_frames(Modality.MONO, width=640, rate_hz=_DEMO_RATE_HZ), _MAX_PAIRS + 1)
    return list(pairwise(frame for frame, _ in frames))


def _runs_here(options: EngineOptions) -> bool:
    """Whether the engines can be executed on this machine."""
    try:
        environment = build_environment(load_tensorrt(), options.architectures)
        return cuda_device().compute_capability in environment.architectures
    except RuntimeLoadError:
        return False
