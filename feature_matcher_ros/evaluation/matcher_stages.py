"""What the stages of a layered matcher did in a run: how many points entered each, and how long it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.evaluation.pair_table import PairRow


@dataclass(frozen=True, slots=True)
class MatcherStage:
    """One step of the matcher, over all pairs that went through it."""

    name: str
    num_pairs: int
    median_ms: float
    median_points: float | None  # of both images together; None where the step is no stage of layers
    kept_share: float | None  # mean, of the points that entered the first stage


def matcher_stages(rows: Iterable[PairRow]) -> tuple[MatcherStage, ...]:
    """Summarise the cells of a run, in the order of the steps; empty where the matcher has none."""
    times: dict[str, list[float]] = {}
    points: dict[str, list[tuple[int, int]]] = {}  # of the stage, and of the first one
    for row in rows:
        spent = _times_of(row)
        for name, elapsed_ms in spent.items():
            times.setdefault(name, []).append(elapsed_ms)
        entered = _points_of(row)
        for name, count in zip((name for name in spent if name.startswith("stage")), entered, strict=False):
            points.setdefault(name, []).append((count, entered[0]))
    order = sorted(times, key=_place)
    return tuple(_summary(name, times[name], points.get(name, [])) for name in order)


def _summary(name: str, times_ms: list[float], points: list[tuple[int, int]]) -> MatcherStage:
    return MatcherStage(
        name=name,
        num_pairs=len(times_ms),
        median_ms=float(np.median(times_ms)),
        median_points=float(np.median([count for count, _ in points])) if points else None,
        kept_share=float(np.mean([count / first for count, first in points])) if points else None,
    )


def _place(name: str) -> tuple[int, int]:
    """Before, between and after the stages, which bear numbers."""
    if name.startswith("stage"):
        return 1, int(name.removeprefix("stage"))
    return (0, 0) if name == "embed" else (2, 0)


def _times_of(row: PairRow) -> dict[str, float]:
    steps = (step.partition("=") for step in (row.matcher_ms or "").split())
    return {name: float(elapsed_ms) for name, _, elapsed_ms in steps}


def _points_of(row: PairRow) -> list[int]:
    return [sum(map(int, counts.split("+"))) for counts in (row.points_by_stage or "").split()]
