"""Below which matchability LightGlue drops a point after each stage, learned from pairs that kept all their points.

Every threshold saves work, more of it the earlier it is and the more points it drops, and costs matches, of which both
points must stay. From no threshold at all, that one is raised again and again which saves most work for each match that
is lost, as long as no more are lost than allowed. A point without partner need not be final for that: the paper's rule
waits until it is, when most of the work is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.evaluation.threshold_records import PairRecord
from feature_matcher_ros.matchers.adaptive import Probabilities
from feature_matcher_ros.matchers.lightglue import layer_work

Steps = tuple[int, ...]  # thresholds in units of 1 / _STEPS, by stage

_STEPS = 50
_MAX_STEP = 40  # a point that is rather likely to have a partner is never dropped
_RAISES = (1, 2, 4)  # a larger one may lead past a step that does not pay


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """All points of all pairs, and the matches that are to be kept; S stages."""

    width: int
    num_layers: tuple[int, ...]  # of each stage
    first_points: NDArray[np.int64]  # (P,), of each pair
    matchability: Probabilities  # (S - 1, N)
    of_matches: Probabilities  # (S - 1, M), that of the less matchable point

    def num_lost(self, steps: Steps) -> int:
        """Matches one of whose points is dropped."""
        return int(np.count_nonzero((self.of_matches < _column(steps)).any(axis=0)))

    def work(self, steps: Steps) -> float:
        """The work of all stages of all pairs."""
        stays = np.ones(self.matchability.shape[1], np.int64)
        total = 0.0
        dropped = np.vstack((self.matchability < _column(steps), np.zeros(len(stays), np.bool_)))
        for num_layers, is_dropped in zip(self.num_layers, dropped, strict=True):
            total += num_layers * float(layer_work(np.add.reduceat(stays, self.first_points), self.width).sum())
            stays[is_dropped] = 0
        return total


def choose_matchability(
    pairs: Sequence[PairRecord], allowed_losses: Sequence[float], width: int
) -> list[tuple[float, ...]]:
    """The thresholds of all stages but the last, for each of these shares of the matches, the smallest first.

    ``width`` is the length of the network's states, which says what a point costs beside a pair of points.
    """
    sample, steps, chosen = _sample(pairs, width), (0,) * (len(pairs[0].stages) - 1), []
    for allowed in allowed_losses:
        while (raised := _best_raise(sample, steps, allowed * sample.of_matches.shape[1])) is not None:
            steps = raised
        chosen.append(tuple(step / _STEPS for step in steps))
    return chosen


def _sample(pairs: Sequence[PairRecord], width: int) -> _Sample:
    matchability = [np.stack([stage.matchability for stage in pair.stages[:-1]]) for pair in pairs]
    ends = np.cumsum([values.shape[1] for values in matchability])
    of_matches = [
        np.minimum(values[:, pair.matches[:, 0]], values[:, len(pair.features0) + pair.matches[:, 1]])
        for values, pair in zip(matchability, pairs, strict=True)
    ]
    return _Sample(
        width,
        tuple(np.diff([0, *(stage.layers_done for stage in pairs[0].stages)]).tolist()),
        np.concatenate(([0], ends[:-1])),
        np.concatenate(matchability, axis=1),
        np.concatenate(of_matches, axis=1),
    )


def _best_raise(sample: _Sample, steps: Steps, most_lost: float) -> Steps | None:
    """The steps after the raise that saves most for each match lost; None where none is allowed, or saves anything."""
    best, most_saved = None, 0.0
    work, num_lost = sample.work(steps), sample.num_lost(steps)
    for stage, by in product(range(len(steps)), _RAISES):
        raised = (*steps[:stage], steps[stage] + by, *steps[stage + 1 :])
        raised_lost = sample.num_lost(raised)
        if raised[stage] > _MAX_STEP or raised_lost > most_lost:
            continue
        saved = (work - sample.work(raised)) / (raised_lost - num_lost + 0.5)  # those that cost nothing come first
        if saved > most_saved:
            best, most_saved = raised, saved
    return best


def _column(steps: Steps) -> Probabilities:
    """Thresholds in single precision, as the rule of the matcher compares."""
    return np.array([[step / _STEPS] for step in steps], np.float32)
