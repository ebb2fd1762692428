"""How fast LightGlue's graphs are beside the torch model they come from: same weights, points and thresholds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from feature_matcher_ros.datatypes import Features, Image, Matches
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.export.to_onnx import Origin, export_lightglue
from feature_matcher_ros.export.to_torch import lightglue_by_torch
from feature_matcher_ros.matchers.adaptive import PruneRule, StopRule
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules
from feature_matcher_ros.matchers.lightglue_graphs import open_lightglue
from feature_matcher_ros.models.lightglue import LightGlueModel

Pair = tuple[Features, Features]

MODES: Mapping[str, LightGlueRules] = {
    "full": LightGlueRules(StopRule(None), PruneRule(None)),
    "depth": LightGlueRules(StopRule(), PruneRule(None)),
    "depth and width": LightGlueRules(),
}


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One line of the comparison; medians over all pairs and repetitions."""

    runtime: str
    mode: str  # a key of ``MODES``
    num_points: int  # mean of a pair's two images
    median_ms: float
    layers_run: float  # mean
    speedup: float  # over torch with all layers and all points


def compare_speed(
    model: LightGlueModel, pairs: Sequence[Pair], folder: Path, num_threads: int, repetitions: int = 5
) -> list[SpeedRow]:
    """Time every mode with torch and with the graphs, which are written to ``folder``, taking turns.

    Raises:
        MatcherError: there is no pair to time.
    """
    if not pairs:
        raise MatcherError("there are no pairs to time: give at least one.")
    export_lightglue(model, Origin("benchmark", "-", "-"), folder)
    opened = {"torch": lightglue_by_torch(model), "onnx": open_lightglue(folder, "onnx", num_threads)}
    matchers = {
        (runtime, mode): LightGlue(_NoExtractor(), graphs, rules)
        for mode, rules in MODES.items()
        for runtime, graphs in opened.items()
    }
    threads_before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        measured = _take_turns(matchers, pairs, repetitions)
    finally:
        torch.set_num_threads(threads_before)
    num_points = round(float(np.mean([len(features) for pair in pairs for features in pair])))
    base_ms = float(np.median([elapsed for elapsed, _ in measured["torch", "full"]]))
    return [_row(key, num_points, found, base_ms) for key, found in measured.items()]


def _take_turns(
    matchers: Mapping[tuple[str, str], LightGlue], pairs: Sequence[Pair], repetitions: int
) -> dict[tuple[str, str], list[tuple[float, Matches]]]:
    """Milliseconds and matches; one round before the first counts for nothing."""
    measured: dict[tuple[str, str], list[tuple[float, Matches]]] = {key: [] for key in matchers}
    for repetition in range(repetitions + 1):
        for pair in pairs:
            for key, matcher in matchers.items():
                start_ns = time.perf_counter_ns()
                matches = matcher.match(*pair)
                elapsed_ms = (time.perf_counter_ns() - start_ns) * 1e-6
                if repetition:
                    measured[key].append((elapsed_ms, matches))
    return measured


def _row(key: tuple[str, str], num_points: int, found: Sequence[tuple[float, Matches]], base_ms: float) -> SpeedRow:
    median_ms = float(np.median([elapsed for elapsed, _ in found]))
    layers = float(np.mean([matches.layers_run for _, matches in found if matches.layers_run is not None]))
    return SpeedRow(key[0], key[1], num_points, median_ms, layers, base_ms / median_ms)


class _NoExtractor:
    """Stands where a matcher has its extractor; the points are there already."""

    name = "none"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        raise MatcherError("the benchmark takes points, not images: extract them before.")
