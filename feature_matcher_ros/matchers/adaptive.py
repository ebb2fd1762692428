"""When a matching network may stop, and which points need no further layer (arXiv 2306.13643, section 3.3).

Pure arithmetic on what the network says of its points after a layer: the *confidence* that a point's state is
final, and the *matchability*, the probability that it has a partner at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.errors import ConfigError, MatcherError

Probabilities = NDArray[np.float32]


def paper_thresholds(num_layers: int) -> tuple[float, ...]:
    """The confidence above which a point counts as final after each layer: early layers must be surer (eq. 11)."""
    return tuple(float(np.float32(0.8 + 0.1 * math.exp(-4.0 * layer / num_layers))) for layer in range(num_layers))


def require_fitting_thresholds(thresholds: tuple[float, ...], num_layers: int, kind: str = "confidence") -> None:
    """Check that there is a threshold for each layer.

    Raises:
        MatcherError: their number is another one.
    """
    if len(thresholds) != num_layers:
        raise MatcherError(
            f"{len(thresholds)} {kind} thresholds do not fit a network of {num_layers} layers: "
            "calibrate them for this network."
        )


@dataclass(frozen=True, slots=True)
class StopRule:
    """Stop as soon as a share of all points greater than ``depth_confidence`` is final; None: never.

    Raises:
        ConfigError: the share is not in (0, 1].
    """

    depth_confidence: float | None = 0.95

    def __post_init__(self) -> None:
        _require_share("depth_confidence", self.depth_confidence)

    def is_satisfied(self, confidence: Probabilities, threshold: float, num_points: int) -> bool:
        """Whether to stop; never at a threshold of 1, though a confidence may be rounded to 1.

        ``confidence`` is that of the points of both images which are still there; of the ``num_points`` that
        there were at the beginning, those that have been dropped count as final.
        """
        if self.depth_confidence is None or threshold >= 1.0:
            return False
        num_open = np.count_nonzero(confidence < threshold)
        return bool(1.0 - num_open / num_points > self.depth_confidence)

    def is_hopeless(
        self, confidence: Probabilities, matchability: Probabilities, threshold: float, min_score: float
    ) -> bool:
        """Whether none of the points (N,) of one image can be matched any more.

        That is when all are final and none can score more than ``min_score``, as no score exceeds the matchability of
        its point.
        """
        if self.depth_confidence is None:
            return False
        return bool(np.all((confidence > threshold) & (matchability <= min_score)))


@dataclass(frozen=True, slots=True)
class PruneRule:
    """Drop points that are final and unmatchable with a certainty of ``width_confidence``; None: drop none.

    That is the rule of the paper. A network whose matchability has been calibrated drops points below a
    threshold for each layer in its place, final or not: few of those ever find a partner, long before they are final.

    Raises:
        ConfigError: the certainty is not in (0, 1].
    """

    width_confidence: float | None = 0.99

    def __post_init__(self) -> None:
        _require_share("width_confidence", self.width_confidence)

    def keep(
        self,
        confidence: Probabilities | None,
        matchability: Probabilities,
        threshold: float,
        least_matchability: float | None = None,
    ) -> NDArray[np.bool_]:
        """Which points (N,) stay: by the calibrated ``least_matchability`` after this layer, None: by the paper.

        Without confidences, unmatchable points are dropped whether final or not, as the published code does
        where it may not stop early.
        """
        if self.width_confidence is None:
            return np.ones(len(matchability), np.bool_)
        if least_matchability is not None:
            return matchability >= np.float32(least_matchability)
        matchable = matchability > np.float32(1.0 - self.width_confidence)
        return matchable if confidence is None else matchable | (confidence <= threshold)


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """Run no further layers if they and the reading of the matches would exceed a time; None: no limit.

    Raises:
        ConfigError: the time is not positive.
    """

    match_budget_ms: float | None = None

    def __post_init__(self) -> None:
        if self.match_budget_ms is not None and not self.match_budget_ms > 0.0:
            raise ConfigError(
                f"match_budget_ms = {self.match_budget_ms} is no time: give a positive one, or none for no limit."
            )

    def allows(self, elapsed_ms: float, expected_ms: float) -> bool:
        """Whether work that is expected to take that long may begin after the elapsed time."""
        return self.match_budget_ms is None or elapsed_ms + expected_ms <= self.match_budget_ms


class Pace:
    """Predicts how long work takes from how long it took: believes a slow measurement at once, a fast one slowly."""

    def __init__(self) -> None:
        self._ms_per_unit = 0.0

    def observe(self, units: float, elapsed_ms: float) -> None:
        latest = elapsed_ms / units
        self._ms_per_unit = max(latest, 0.8 * self._ms_per_unit + 0.2 * latest)

    def expected_ms(self, units: float) -> float:
        """Zero before anything has been measured."""
        return units * self._ms_per_unit


def _require_share(name: str, value: float | None) -> None:
    if value is not None and not 0.0 < value <= 1.0:
        raise ConfigError(
            f"{name} = {value} is no share: give a value above 0 and at most 1, or none to switch it off."
        )
