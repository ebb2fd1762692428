"""When a trained network may stop, learned from pairs of scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from feature_matcher_ros.config import MatcherConfig
from feature_matcher_ros.evaluation.adaptive_matchers import may_stop, record
from feature_matcher_ros.evaluation.threshold_choice import choose_schedule, stop_table
from feature_matcher_ros.evaluation.threshold_records import PairRecord, record_pair
from feature_matcher_ros.matchers import dense_rules
from feature_matcher_ros.matchers.dense_graphs import open_dense
from feature_matcher_ros.matchers.detector_free import DetectorFree
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.models.dense_config import DENSE_METHODS
from feature_matcher_ros.runtimes.manifest import read_manifest
from feature_matcher_ros.training.views import best_points

_MAX_PAIRS = 200
_ViewPair = tuple[Any, Any]


def exit_thresholds(
    graphs_folder: Path, held_back: Sequence[Sequence[Any]], wanted_agreement: float = 0.85, seed: int = 0
) -> tuple[float, ...]:
    """The confidence that makes a point final, by layer, for the manifest of these graphs.

    By the rule of ``feature-matcher calibrate``, on random pairs of views of scenes that were held back: of the matches
    that all layers would give, the wanted share is kept, by the least sure of the pairs that stop too. A network of
    one stage has none; where pairs are too few to tell, nothing stops.

    Raises:
        RuntimeLoadError: the graphs cannot be opened.
    """
    config, pairs = MatcherConfig(), _random_pairs(held_back, np.random.default_rng(seed))
    is_dense = read_manifest(graphs_folder).method in DENSE_METHODS
    records = (_cell_records if is_dense else _point_records)(graphs_folder, pairs, config)
    if not records:
        return ()
    table = stop_table(records, config.depth_confidence)
    num_layers = records[0].stages[-1].layers_done
    return choose_schedule(records, table, wanted_agreement, num_layers).thresholds


def _point_records(graphs_folder: Path, pairs: Sequence[_ViewPair], config: MatcherConfig) -> list[PairRecord]:
    graphs = open_lightglue(graphs_folder)
    if len(graphs.stages) < 2:
        return []
    points = ((best_points(view0).features, best_points(view1).features) for view0, view1 in pairs)
    return [record_pair(points0, points1, graphs, config.min_score)[0] for points0, points1 in points]


def _cell_records(graphs_folder: Path, pairs: Sequence[_ViewPair], config: MatcherConfig) -> list[PairRecord]:
    matcher = DetectorFree(open_dense(graphs_folder), dense_rules(config))
    if not may_stop(matcher):
        return []
    features = ([matcher.extract(view.image) for view in pair] for pair in pairs)
    return [record(matcher, *pair)[0] for pair in features]


def _random_pairs(scenes: Sequence[Sequence[Any]], rng: np.random.Generator) -> list[_ViewPair]:
    pairs = [pair for views in scenes for pair in combinations(views, 2)]
    return [pairs[number] for number in rng.permutation(len(pairs))[:_MAX_PAIRS]]
