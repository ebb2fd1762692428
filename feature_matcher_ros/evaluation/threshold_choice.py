"""Which confidence makes a network stop, and how readily LightGlue drops points, for a wanted agreement.

A network that stops early gives other matches than all its layers would. How much other is known of recorded
pairs, after every stage. From the first stage to the last, that threshold is chosen which stops as many pairs as
possible while those that it stops still agree well enough with the last layer. This is asked of the least sure of them
as well: the easy pairs, of which one recording has more than another, must not pay for the hard ones, which are those
that need more layers. And it is asked not as they happen to agree, but by an upper bound of the mean loss that so few
pairs allow for. Points that are dropped cost matches as well, which has been tried on the same pairs: as many are
dropped as half of the allowed loss lets be, and stopping is chosen for what happens then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.evaluation.threshold_records import PairRecord
from feature_matcher_ros.matchers.adaptive import Probabilities

Steps = NDArray[np.int64]

SCALE = 100_000  # thresholds are multiples of one over this, which a file holds in five digits
MIN_STOPPING_PAIRS = 8  # fewer say nothing about those that follow
_NORMAL_QUANTILE = 1.6448536269514722  # at 95 %
_WANTED_STEP = 0.002


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is chosen."""

    thresholds: tuple[float, ...]  # confidence of a final point, by layer; 1 where the network never stops
    matchability_thresholds: tuple[float, ...]  # of a point that stays, by layer; 0 where none is dropped


@dataclass(frozen=True, slots=True, eq=False)
class StopTable:
    """What stopping P pairs after each of S stages means."""

    steps: Steps  # (P, S - 1), the largest threshold at which a pair stops, in 1 / SCALE
    agreement: Float  # (P, S), with the last layer
    match_ms: Float  # (P, S)


@dataclass(frozen=True, slots=True, eq=False)
class DropTable:
    """What stopping the same pairs means while points are dropped."""

    thresholds: tuple[float, ...]  # of matchability, by stage but the last; none: no point is dropped
    stops: StopTable  # where agreement is with what all layers and points give


def stop_table(pairs: Sequence[PairRecord], depth_confidence: float) -> StopTable:
    """Gather what is known of the pairs; ``depth_confidence`` is the share of final points that stops, below 1."""
    return StopTable(
        np.array([_stop_steps(pair, depth_confidence) for pair in pairs], np.int64),
        np.array([[stage.agreement for stage in pair.stages] for pair in pairs]),
        np.array([[stage.match_ms for stage in pair.stages] for pair in pairs]),
    )


def largest_stop_step(confidence: Probabilities, depth_confidence: float) -> int:
    """The largest threshold below 1, in 1 / ``SCALE``, at which points of these confidences (N,) stop the network."""
    num_points = len(confidence)
    num_open = int((1.0 - depth_confidence) * num_points) + 1
    while not 1.0 - num_open / num_points > depth_confidence:  # the very arithmetic of the rule
        num_open -= 1
    least_final = np.partition(confidence, num_open)[num_open]
    step = int(float(least_final) * SCALE) + 1
    while np.float32(step / SCALE) > least_final:
        step -= 1
    return min(step, SCALE - 1)


def choose_schedule(pair: PairRecord, tables: Sequence[DropTable], wanted: float, num_layers: int) -> Schedule:
    """Thresholds for each layer, so that pairs like these keep the wanted agreement.

    Of ``tables``, from all points to the fewest, it takes the last which, if no pair stops, loses no more than half of
    what may be lost. The stages are those of ``pair``.
    """
    losses = [float(upper_means(1.0 - table.stops.agreement[:, -1])[-1]) for table in tables]
    chosen = max(number for number, loss in enumerate(losses) if loss <= (1.0 - wanted) / 2.0 or number == 0)
    return schedule_of(pair, choose_exits(tables[chosen].stops, wanted), tables[chosen].thresholds, num_layers)


def schedule_of(pair: PairRecord, exits: Sequence[int], drops: Sequence[float], num_layers: int) -> Schedule:
    """What was chosen for stages such as those of a pair, by layer: the network does not stop inside a stage."""
    confidence, matchability = [1.0] * num_layers, [0.0] * num_layers
    for stage, step in zip(pair.stages, exits, strict=False):
        confidence[stage.layers_done - 1] = step / SCALE
    for stage, threshold in zip(pair.stages, drops, strict=False):
        matchability[stage.layers_done - 1] = threshold
    return Schedule(tuple(confidence), tuple(matchability))


def choose_exits(table: StopTable, wanted: float) -> tuple[int, ...]:
    """The thresholds of all stages but the last, in 1 / ``SCALE``.

    Where no pair may stop the threshold is half way between the surest pair and certainty rather than 1, so that
    points may still be final, of which the paper drops some.
    """
    running = np.ones(len(table.steps), np.bool_)
    exits = []
    for stage, steps in enumerate(table.steps.T):
        step = _lowest_step(steps[running], table.agreement[running, stage], wanted)
        exits.append((int(steps.max()) + SCALE + 1) // 2 if step is None else step)
        running &= steps < exits[-1]
    return tuple(exits)


def choose_for_budget(table: StopTable, budget_ms: float) -> float | None:
    """The highest agreement that can be wanted so that a pair takes no longer on average; None where even 0 is slower.

    What dropping points saves is not counted.
    """
    for wanted in np.arange(1.0, -_WANTED_STEP / 2, -_WANTED_STEP).clip(0.0):
        if expected_ms(table, choose_exits(table, float(wanted))) <= budget_ms:
            return float(round(wanted, 6))
    return None


def expected_ms(table: StopTable, exits: Sequence[int]) -> float:
    """Mean time of a pair."""
    return float(np.mean(table.match_ms[np.arange(len(table.match_ms)), stop_stages(table, exits)]))


def stop_stages(table: StopTable, exits: Sequence[int]) -> Steps:
    """The stage (P,), counted from 0, that is the last one for each pair."""
    stops = np.column_stack((table.steps >= np.asarray(exits), np.ones(len(table.steps), np.bool_)))
    return stops.argmax(axis=1)


def upper_means(losses: Float) -> Float:
    """For each k a bound (N,) that the mean of what the first k of (N,) come from exceeds with 5 % probability.

    By Student's t, with its quantile from that of the normal distribution (Cornish-Fisher expansion), and at most 1.
    """
    count = np.arange(1, len(losses) + 1)
    mean = np.cumsum(losses) / count
    freedom = np.maximum(count - 1, 1)
    variance = np.maximum(np.cumsum(losses**2) - count * mean**2, 0.0) / freedom
    z = _NORMAL_QUANTILE
    quantile = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    bounds: Float = np.minimum(mean + quantile * np.sqrt(variance / count), 1.0)
    return bounds


def _stop_steps(pair: PairRecord, depth_confidence: float) -> list[int]:
    return [largest_stop_step(stage.confidence, depth_confidence) for stage in pair.stages[:-1]]


def _lowest_step(steps: Steps, agreement: Float, wanted: float) -> int | None:
    """The lowest threshold for pairs (P,) that stop at these; None where no group of pairs is good or large enough.

    Of the good groups it is the one whose agreement exceeds the wanted one by the largest sum, which is where the
    isotonic regression of agreement on confidence crosses the wanted one: however many of its least sure pairs are
    taken together, they agree as wanted in the mean, and however many of the pairs that follow, they do not.
    """
    if len(steps) < MIN_STOPPING_PAIRS:
        return None
    surest_first = np.argsort(-steps, kind="stable")
    steps, agreement = steps[surest_first], agreement[surest_first]
    may_end = np.append(steps[1:] != steps[:-1], True)  # pairs of equal confidence stop together
    good = may_end & (upper_means(1.0 - agreement) <= 1.0 - wanted)
    good[: MIN_STOPPING_PAIRS - 1] = False
    excess = np.where(good, np.cumsum(agreement - wanted), -np.inf)
    return int(steps[np.flatnonzero(excess == excess.max())[-1]]) if good.any() else None
