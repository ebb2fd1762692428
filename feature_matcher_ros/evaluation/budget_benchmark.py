"""Whether a learned matcher keeps to a time budget: half of what all layers take for the same pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

import numpy as np

from feature_matcher_ros.evaluation.learned_contenders import PointPair
from feature_matcher_ros.matchers.adaptive import BudgetRule
from feature_matcher_ros.matchers.lightglue import LightGlue

_MAX_TURNS = 200
_MAX_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One number of keypoints."""

    max_keypoints: int
    budget_ms: float
    num_turns: int
    layers_run: float  # mean
    median_ms: float
    p99_ms: float
    over_budget: float  # share of the turns


def measure_budget(
    matcher: LightGlue, pairs: Sequence[PointPair], max_keypoints: int, all_layers_ms: float
) -> BudgetRow:
    """Match the pairs over and over, within half of the time that all layers take; the first turn is left out.

    The matcher, whose rules must let it run all layers, has them back afterwards.
    """
    before, budget_ms = matcher.rules, 0.5 * all_layers_ms
    matcher.follow(replace(before, budget=BudgetRule(budget_ms)))
    try:
        elapsed_ms, layers = _take_turns(matcher, pairs)
    finally:
        matcher.follow(before)
    return BudgetRow(
        max_keypoints=max_keypoints,
        budget_ms=budget_ms,
        num_turns=len(elapsed_ms),
        layers_run=float(np.mean(layers)),
        median_ms=float(np.median(elapsed_ms)),
        p99_ms=float(np.percentile(elapsed_ms, 99.0)),
        over_budget=float(np.mean(np.array(elapsed_ms) > budget_ms)),
    )


def budget_table(rows: Sequence[BudgetRow]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows."""
    header = ["keypoints", "budget ms", "turns", "layers", "ms", "p99 ms", "p99 of budget", "over budget"]
    return header, [
        (
            str(row.max_keypoints),
            f"{row.budget_ms:.1f}",
            str(row.num_turns),
            f"{row.layers_run:.1f}",
            f"{row.median_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{100.0 * row.p99_ms / row.budget_ms:.0f} %",
            f"{100.0 * row.over_budget:.1f} %",
        )
        for row in rows
    ]


def _take_turns(matcher: LightGlue, pairs: Sequence[PointPair]) -> tuple[list[float], list[int]]:
    elapsed_ms: list[float] = []
    layers: list[int] = []
    matcher.match(*pairs[0])
    begun = time.monotonic()
    for pair in islice(cycle(pairs), _MAX_TURNS):
        if elapsed_ms and time.monotonic() - begun > _MAX_SECONDS:
            break
        begun_ns = time.perf_counter_ns()
        matches = matcher.match(*pair)
        elapsed_ms.append((time.perf_counter_ns() - begun_ns) * 1e-6)
        layers.append(matches.layers_run or 0)
    return elapsed_ms, layers
