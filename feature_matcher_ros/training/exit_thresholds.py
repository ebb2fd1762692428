"""When a trained network may stop, learned from pairs of scenes that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from feature_matcher_ros.config import MatcherConfig
from feature_matcher_ros.datatypes import Features
from feature_matcher_ros.evaluation.threshold_choice import choose_schedule, stop_table
from feature_matcher_ros.evaluation.threshold_records import record_pair
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.training.views import View, best_points

_MAX_PAIRS = 200


def exit_thresholds(
    graphs_folder: Path, held_back: Sequence[Sequence[View]], wanted_agreement: float = 0.85, seed: int = 0
) -> tuple[float, ...]:
    """The confidence that makes a point final, by layer, for the manifest of these graphs.

    By the rule of ``feature-matcher calibrate``, on random pairs of views of scenes that were held back: of the matches
    that all layers would give, the wanted share is kept, by the least sure of the pairs that stop too. A network of
    one stage has none; where pairs are too few to tell, nothing stops.

    Raises:
        RuntimeLoadError: the graphs cannot be opened.
    """
    graphs, config = open_lightglue(graphs_folder), MatcherConfig()
    pairs = _random_pairs(held_back, np.random.default_rng(seed))
    if len(graphs.stages) < 2 or not pairs:
        return ()
    records = [record_pair(*pair, graphs, config.min_score)[0] for pair in pairs]
    table = stop_table(records, config.depth_confidence)
    return choose_schedule(records, table, wanted_agreement, graphs.config.layers).thresholds


def _random_pairs(scenes: Sequence[Sequence[View]], rng: np.random.Generator) -> list[tuple[Features, Features]]:
    pairs = [pair for views in scenes for pair in combinations(views, 2)]
    chosen = [pairs[number] for number in rng.permutation(len(pairs))[:_MAX_PAIRS]]
    return [(best_points(view0).features, best_points(view1).features) for view0, view1 in chosen]
