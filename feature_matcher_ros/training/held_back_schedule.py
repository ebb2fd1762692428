"""When a trained network may stop, and which points it may drop, learned from scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import MatcherConfig
from feature_matcher_ros.evaluation.adaptive_matchers import may_stop, record
from feature_matcher_ros.evaluation.matchability_choice import choose_matchability
from feature_matcher_ros.evaluation.threshold_choice import Schedule, choose_exits, schedule_of, stop_table
from feature_matcher_ros.evaluation.threshold_records import PairRecord, record_pair
from feature_matcher_ros.matchers import dense_rules
from feature_matcher_ros.matchers.dense_graphs import open_dense
from feature_matcher_ros.matchers.detector_free import DetectorFree
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.models.dense_config import DENSE_METHODS
from feature_matcher_ros.runtimes.manifest import read_manifest
from feature_matcher_ros.training.views import View, best_points, project

ViewPair = tuple[View, View]

_MAX_PAIRS = 200
_LOST_SHARE = 0.02  # of the correct matches, by dropping points: a hundredth of their points
_CORRECT_PX = 3.0


def held_back_schedule(
    graphs_folder: Path, held_back: Sequence[Sequence[Any]], wanted_agreement: float = 0.85
) -> Schedule:
    """The thresholds of confidence and of matchability, by layer, for the manifest of these graphs.

    By the rules of ``feature-matcher calibrate``, on random pairs of views of scenes that were held back, but for what
    it costs to drop points: as here the truth is known, a fiftieth of the correct matches of the last layer. Of the
    matches that all layers then give, the wanted share is kept, by the least sure of the pairs that stop too. A network
    of one stage has no thresholds; where pairs are too few to tell, nothing stops. Without a detector no point is
    dropped.

    Raises:
        RuntimeLoadError: the graphs cannot be opened.
    """
    pairs, config = _random_pairs(held_back, np.random.default_rng(0)), MatcherConfig()
    if not pairs:
        return Schedule((), ())
    if read_manifest(graphs_folder).method in DENSE_METHODS:
        return _schedule_of_cells(graphs_folder, pairs, config, wanted_agreement)
    return _schedule_of_points(graphs_folder, pairs, config, wanted_agreement)


def _schedule_of_cells(
    graphs_folder: Path, pairs: Sequence[tuple[Any, Any]], config: MatcherConfig, wanted_agreement: float
) -> Schedule:
    matcher = DetectorFree(open_dense(graphs_folder), dense_rules(config))
    if not may_stop(matcher):
        return Schedule((), ())
    records = [record(matcher, *(matcher.extract(view.image) for view in pair))[0] for pair in pairs]
    exits = choose_exits(stop_table(records, config.depth_confidence), wanted_agreement)
    return Schedule(schedule_of(records[0], exits, (), matcher.graphs.config.rounds).thresholds, ())


def _schedule_of_points(
    graphs_folder: Path, pairs: Sequence[tuple[Any, Any]], config: MatcherConfig, wanted_agreement: float
) -> Schedule:
    graphs = open_lightglue(graphs_folder)
    if len(graphs.stages) < 2:
        return Schedule((), ())
    views = [(best_points(view0), best_points(view1)) for view0, view1 in pairs]
    points = [(view0.features, view1.features) for view0, view1 in views]
    records = [record_pair(*both, graphs, config.min_score)[0] for both in points]
    correct = [correct_part(found, pair) for found, pair in zip(records, views, strict=True)]
    (drops,) = choose_matchability(correct, [_LOST_SHARE], graphs.config.width)
    thinned = [record_pair(*both, graphs, config.min_score, drops)[0] for both in points]
    exits = choose_exits(stop_table(thinned, config.depth_confidence), wanted_agreement)
    return schedule_of(records[0], exits, drops, graphs.config.layers)


def correct_part(record: PairRecord, views: ViewPair) -> PairRecord:
    """The record with those matches only whose points are the same place in the scene."""
    first, second = (
        View(view.features, view.projection, view.scene_points[matched])
        for view, matched in zip(views, record.matches.T, strict=True)
    )
    matched0, matched1 = (
        view.features.keypoints[matched] for view, matched in zip(views, record.matches.T, strict=True)
    )
    is_correct = _is_near(first, second, matched1) & _is_near(second, first, matched0)
    return replace(record, matches=record.matches[is_correct])


def _is_near(view: View, other: View, keypoints: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which scene points of a view (M, 3) another one shows at its keypoints (M, 2)."""
    shown = project(view.scene_points, other.projection, other.features.image_size)
    near: NDArray[np.bool_] = np.linalg.norm(shown - keypoints, axis=1) < _CORRECT_PX
    return near


def _random_pairs(scenes: Sequence[Sequence[Any]], rng: np.random.Generator) -> list[tuple[Any, Any]]:
    pairs = [pair for views in scenes for pair in combinations(views, 2)]
    return [pairs[number] for number in rng.permutation(len(pairs))[:_MAX_PAIRS]]
