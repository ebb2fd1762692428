"""The matchers that may stop early, as seen by whoever chooses when: what each of them knows after every stage."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Features, Matches
from feature_matcher_ros.evaluation.threshold_records import PairRecord, StageRecord, agreement, record_pair
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule
from feature_matcher_ros.matchers.detector_free import DenseFeatures, DetectorFree
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules
from feature_matcher_ros.matchers.lightglue_pass import Indices
from feature_matcher_ros.timing import StageTimer

Adaptive = LightGlue | DetectorFree


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a matcher makes of a pair; ``indices`` are of keypoints, or of cells where there are none."""

    indices: Indices  # (M, 2)
    layers_run: int
    kept_share: float  # of the points, in the last stage that was run


def num_layers(matcher: Adaptive) -> int:
    """Layers of the network; rounds of attention where it has no detector."""
    return matcher.graphs.config.layers if isinstance(matcher, LightGlue) else matcher.graphs.config.rounds


def may_stop(matcher: Adaptive) -> bool:
    """Whether the network can stop before its last layer and knows when."""
    if isinstance(matcher, LightGlue):
        return len(matcher.graphs.stages) > 1
    return matcher.graphs.config.has_confidence and matcher.graphs.config.rounds > 1


def with_stops(
    matcher: Adaptive,
    depth_confidence: float | None = None,
    thresholds: tuple[float, ...] = (),
    matchability_thresholds: tuple[float, ...] = (),
    width_confidence: float | None = None,
) -> Adaptive:
    """The same network with other rules; by default it runs all layers on all points."""
    stop = StopRule(depth_confidence)
    if isinstance(matcher, DetectorFree):
        return DetectorFree(matcher.graphs, replace(matcher.rules, stop=stop, thresholds=thresholds))
    rules = LightGlueRules(
        stop,
        PruneRule(width_confidence),
        thresholds=thresholds,
        matchability_thresholds=matchability_thresholds,
        min_score=matcher.rules.min_score,
    )
    return LightGlue(matcher, matcher.graphs, rules)


def answer(matcher: Adaptive, features0: Features, features1: Features) -> Answer:
    """Match a recorded pair; one without detector finds cells only, for refining the points is the same for all."""
    if isinstance(matcher, DetectorFree):
        assert isinstance(features0, DenseFeatures) and isinstance(features1, DenseFeatures)
        cells = matcher.match_cells(features0, features1, StageTimer())
        return Answer(_cell_pairs(cells.cell0, cells.cell1), cells.rounds_run, 1.0)
    matches = matcher.match(features0, features1)
    assert matches.indices is not None and matches.points_per_stage is not None and matches.layers_run is not None
    return Answer(
        matches.indices, matches.layers_run, matches.points_per_stage[-1].sum() / matches.points_per_stage[0].sum()
    )


def record(matcher: Adaptive, features0: Features, features1: Features) -> tuple[PairRecord, Matches]:
    """Run all stages on all points, which both images must have, and read the matches off after each.

    Raises:
        MatcherError: the features are not of the kind that the network was trained for, or not finite.
    """
    if isinstance(matcher, LightGlue):
        return record_pair(features0, features1, matcher.graphs, matcher.rules.min_score)
    matches = with_stops(matcher).match(features0, features1)  # refuses other features
    assert isinstance(features0, DenseFeatures) and isinstance(features1, DenseFeatures)
    assert matches.stages_ms is not None
    return _record_cells(matcher, features0, features1, matches.stages_ms.get("fine", 0.0)), matches


def _record_cells(
    matcher: DetectorFree, features0: DenseFeatures, features1: DenseFeatures, fine_ms: float
) -> PairRecord:
    pair, found, begun = (features0, features1), [], time.perf_counter()
    compare_ms = 0.0
    for states, confidence in matcher.rounds(*pair, StageTimer()):
        reached = time.perf_counter()
        cell0, cell1, _ = matcher.compare(pair, states)
        own_ms = 1000.0 * (time.perf_counter() - reached)
        elapsed_ms = 1000.0 * (reached - begun) - compare_ms + own_ms + fine_ms
        compare_ms += own_ms
        found.append((np.zeros(0, np.float32) if confidence is None else confidence, cell0, cell1, elapsed_ms))
    last, nothing = _cell_pairs(*found[-1][1:3]), np.zeros(0, np.float32)
    stages = tuple(
        StageRecord(number, confidence, nothing, agreement(_cell_pairs(cell0, cell1), last), elapsed_ms)
        for number, (confidence, cell0, cell1, elapsed_ms) in enumerate(found, start=1)
    )
    return PairRecord(_without_maps(features0), _without_maps(features1), stages, last, fine_ms)


def _cell_pairs(cell0: NDArray[np.int64], cell1: NDArray[np.int64]) -> Indices:
    return np.column_stack((cell0, cell1)).astype(np.int32)


def _without_maps(features: DenseFeatures) -> DenseFeatures:
    """What the rounds need; the maps for refinement are six times as large, and many pairs are kept."""
    return replace(features, tensors={"state": features.tensors["state"]})
