"""What the benchmark of a learned matcher compares, opened: runtimes and modes, points and pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from feature_matcher_ros.config import ExtractorConfig
from feature_matcher_ros.datatypes import Features, Image, Matches
from feature_matcher_ros.errors import MatcherError, RuntimeLoadError
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.pair_sets import load_pairs
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.extractors import create_extractor
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, open_lightglue
from feature_matcher_ros.matchers.superglue import SuperGlue
from feature_matcher_ros.matchers.superglue_graphs import SuperGlueGraphs, open_superglue
from feature_matcher_ros.runtimes.manifest import read_manifest

ALL_LAYERS, WIDTH, DEPTH, ADAPTIVE = "all layers", "width", "depth", "depth and width"
MODES: Mapping[str, LightGlueRules] = {
    ALL_LAYERS: LightGlueRules(StopRule(None), PruneRule(None)),
    WIDTH: LightGlueRules(StopRule(None), PruneRule()),  # what is left to save where a pair needs all layers
    DEPTH: LightGlueRules(StopRule(), PruneRule(None)),
    ADAPTIVE: LightGlueRules(),
}
KEYPOINTS = (256, 512, 1024, 2048, 4096)
RUNTIME_KEYPOINTS = (512, 1024, 2048)  # as many as engines take, unless they are built for more
ONNX, TORCH, COMPILED = "onnx", "torch", "torch.compile"
SUPERGLUE = "superglue"  # stands for a mode: it has no other
_MIN_SAME = 0.95  # share of the matches that all contenders find, or their weights are not the same
_DEMO_RATE_HZ = 5.0  # the demo's camera then moves by about 16 px from frame to frame

Key = tuple[str, str]  # runtime and mode
ImagePair = tuple[Image, Image]
PointPair = tuple[Features, Features]


@dataclass(frozen=True, slots=True)
class LearnedSetting:
    """What is measured."""

    graphs: Path
    points: Path | None = None  # graphs of the extractor; None: SIFT
    weights: Path | None = None  # those of the graphs, for torch; None: without torch
    superglue: Path | None = None  # graphs of a SuperGlue network for the same points; None: without it
    pairs: tuple[Path, ...] = ()  # JSON files; none: rendered frames
    keypoints: tuple[int, ...] = KEYPOINTS
    num_threads: int = 2
    max_pairs: int = 5  # of each file, spread over it
    repetitions: int = 3
    max_seconds: float = 120.0  # for each number of keypoints, when every contender had its turn


class GivenPoints:
    """SuperGlue on points that were found before; their states are part of a pair, as they are for LightGlue."""

    def __init__(self, graphs: SuperGlueGraphs) -> None:
        self._matcher = SuperGlue(NoExtractor(), graphs)

    @property
    def graphs(self) -> SuperGlueGraphs:
        return self._matcher.graphs

    def match(self, features0: Features, features1: Features) -> Matches:
        """Match points that were found before.

        Raises:
            MatcherError: the points are not of the kind that the network was trained for.
        """
        return self._matcher.match(self._matcher.with_states(features0), self._matcher.with_states(features1))


@cache
def superglue_contender(setting: LearnedSetting) -> Mapping[Key, GivenPoints]:
    """SuperGlue if there is one, opened once in a process."""
    if setting.superglue is None:
        return {}
    return {(ONNX, SUPERGLUE): GivenPoints(open_superglue(setting.superglue, ONNX, setting.num_threads))}


@cache
def contenders(setting: LearnedSetting) -> tuple[Mapping[Key, LightGlue], tuple[str, ...]]:
    """All matchers, and what is to be said of those that are missing; opened once in a process."""
    graphs = open_lightglue(setting.graphs, "onnx", setting.num_threads)
    opened: dict[str, Mapping[bool, LightGlueGraphs]] = {ONNX: {True: graphs, False: graphs}}
    notes: list[str] = []
    if setting.weights is None:
        notes.append("torch is left out: give the weights of the graphs to compare with it")
    else:
        eager, compiled = (_by_torch(setting.weights, compiled) for compiled in (False, True))
        problem = _problem_of(compiled[False])
        notes += [f"torch.compile is left out: {problem}"] if problem else []
        opened = {TORCH: eager, **opened} | ({} if problem else {COMPILED: compiled})
    matchers = {
        (runtime, mode): LightGlue(NoExtractor(), networks[mode != ALL_LAYERS], rules)
        for mode, rules in modes_of(graphs).items()
        for runtime, networks in opened.items()
    }
    return matchers, tuple(notes)


def modes_of(graphs: LightGlueGraphs) -> Mapping[str, LightGlueRules]:
    """The modes by the thresholds that came with a network, which a file of its weights does not hold."""
    confidence, matchability = graphs.confidence_thresholds, graphs.matchability_thresholds
    return {
        mode: replace(rules, thresholds=confidence, matchability_thresholds=matchability)
        for mode, rules in MODES.items()
    }


def _by_torch(weights: Path, compiled: bool) -> Mapping[bool, LightGlueGraphs]:
    try:
        from feature_matcher_ros.export.benchmark import torch_networks
    except ModuleNotFoundError as error:
        raise RuntimeLoadError(
            f"the comparison with torch needs torch and onnx ({error}): run pip install 'feature_matcher_ros[torch]', "
            "or leave out the weights."
        ) from error
    return torch_networks(weights, compiled)


def _problem_of(graphs: LightGlueGraphs) -> str | None:
    """Why a compiled network cannot be run, if so: usually there is no C++ compiler."""
    count, config = 8, graphs.config
    descriptors = np.full((2 * count, config.descriptor_size), 0.1, np.float32)
    positions = np.linspace(-1.0, 1.0, 2 * count * config.position_size, dtype=np.float32)
    rows = np.arange(2 * count, dtype=np.int32)
    given = {"descriptors": descriptors, "positions": positions.reshape(2 * count, -1)}
    try:
        embedded = graphs.embed.run(given)
        graphs.stages[0].layers.run({**embedded, "rows0": rows[:count], "rows1": rows[count:]})
    except Exception as error:  # the errors of torch's compiler have no common base class
        return " ".join(str(error).split())[:200]
    return None


def point_pairs(setting: LearnedSetting, size: int) -> list[PointPair]:
    """The features to match, the best ``size`` of each image."""
    return [(_best(first, size), _best(second, size)) for first, second in _extracted(setting)]


@cache
def _extracted(setting: LearnedSetting) -> list[PointPair]:
    """The points of all pairs, extracted once in a process, as many as are ever wanted."""
    extractor = _extractor(setting, max(setting.keypoints))
    return [
        (extractor.extract(image0), extractor.extract(image1))
        for image0, image1 in image_pairs(setting.pairs, setting.max_pairs)
    ]


def _best(features: Features, size: int) -> Features:
    """Extractors give their best points first."""
    return Features(
        keypoints=features.keypoints[:size],
        keypoint_scores=features.keypoint_scores[:size],
        descriptors=features.descriptors[:size],
        image_size=features.image_size,
        scales=None if features.scales is None else features.scales[:size],
        orientations=None if features.orientations is None else features.orientations[:size],
    )


def _extractor(setting: LearnedSetting, size: int) -> Extractor:
    if setting.points is None:
        return create_extractor(ExtractorConfig(name="sift", max_keypoints=size))
    name = read_manifest(setting.points).method
    threads = setting.num_threads
    return create_extractor(
        ExtractorConfig(name=name, graphs=str(setting.points), max_keypoints=size, num_threads=threads)
    )


def image_pairs(paths: tuple[Path, ...], max_pairs: int) -> list[ImagePair]:
    """Some pairs of each JSON file, spread over it; without a file, of rendered frames, 640 pixels wide."""
    if not paths:
        frames = islice(demo_frames(Modality.STEREO, width=640, rate_hz=_DEMO_RATE_HZ), 2, 3 + max_pairs)
        return list(pairwise(frame.image for frame, _ in frames))
    found: list[ImagePair] = []
    for path in paths:
        pairs = load_pairs(path)
        for pair in pairs[:: math.ceil(len(pairs) / max_pairs)]:
            frame0, frame1 = pair.frames()
            found.append((frame0.image, frame1.image))
    return found


def require_same_matches(matchers: Mapping[Key, LightGlue], pair: PointPair) -> None:
    """Run everything once, which also warms it up.

    Raises:
        MatcherError: contenders of one mode find other matches.
    """
    found = {key: _index_pairs(matcher.match(*pair)) for key, matcher in matchers.items()}
    for (runtime, mode), matches in found.items():
        expected = found[ONNX, mode]
        if len(matches & expected) < _MIN_SAME * len(matches | expected):
            raise MatcherError(
                f"{runtime} finds {len(matches)} matches and the graphs {len(expected)}, {len(matches & expected)} of "
                "them the same: the weights are not those of the graphs, give those that were exported."
            )


def _index_pairs(matches: Matches) -> set[tuple[int, int]]:
    assert matches.indices is not None
    return {(int(first), int(second)) for first, second in matches.indices}


class NoExtractor:
    """Stands where a matcher has its extractor; the points are there already."""

    name = "none"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        raise MatcherError("the benchmark takes points, not images: extract them before.")
