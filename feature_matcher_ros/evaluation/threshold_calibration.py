"""Choose a network's thresholds on one half of recorded pairs, and try them on the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_matcher_ros.config import FrontEndConfig
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.evaluation.adaptive_matchers import Adaptive, answer, num_layers, with_stops
from feature_matcher_ros.evaluation.matchability_choice import choose_matchability
from feature_matcher_ros.evaluation.threshold_choice import (
    DropTable,
    Schedule,
    StopTable,
    choose_for_budget,
    choose_schedule,
    stop_table,
)
from feature_matcher_ros.evaluation.threshold_records import PairRecord, agreement, record_pair
from feature_matcher_ros.evaluation.threshold_sample import PairSample
from feature_matcher_ros.matchers.adaptive import PruneRule, paper_thresholds
from feature_matcher_ros.matchers.detector_free import DetectorFree
from feature_matcher_ros.matchers.lightglue import LightGlueRules

CURVE = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995)  # wanted agreements that show what they cost
_Rules = tuple[float | None, tuple[float, ...], tuple[float, ...], float | None]  # as ``with_stops`` takes them

_LOST_SHARES = (0.002, 0.01, 0.03)  # of the matches, for which dropping points is tried


@dataclass(frozen=True, slots=True)
class Wish:
    """What the thresholds are to achieve.

    Raises:
        ConfigError: a number is out of its range.
    """

    agreement: float = 0.98  # mean share of the matches that all layers would give (F1)
    budget_ms: float | None = None  # the best agreement that takes no longer on average, in its place

    def __post_init__(self) -> None:
        if not 0.0 <= self.agreement <= 1.0:
            raise ConfigError(f"an agreement of {self.agreement} cannot be: give a share of 0 to 1, such as 0.98.")
        if self.budget_ms is not None and not 0.0 < self.budget_ms < float("inf"):
            raise ConfigError(f"a budget of {self.budget_ms} ms cannot be: give a positive time.")


@dataclass(frozen=True, slots=True)
class Trial:
    """What rules do on pairs that had no part in choosing them."""

    agreement: float  # mean over the pairs
    worst_agreement: float  # that 5 % of the pairs do not reach
    layers_run: float  # mean
    stopped_shares: Mapping[int, float]  # of the pairs, by layers run
    kept_share: float  # of the points, in the last stage that was run; mean
    match_ms: float  # mean


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One pair matched by one of the rules."""

    agreement: float
    layers_run: int
    kept_share: float
    match_ms: float


@dataclass(frozen=True, slots=True)
class LayerCalibration:
    """One layer after which the network may stop."""

    layer: int
    paper_threshold: float
    threshold: float
    matchability_threshold: float
    stopped_share: float  # of the pairs tried, in which this many layers were run
    agreement: float  # of the matches after this layer with those of the last, if all pairs tried stopped here


@dataclass(frozen=True, slots=True)
class Calibration:
    """The thresholds, and how they do beside the paper's and all layers."""

    source: Path
    config: FrontEndConfig
    method: str
    max_image_px: int | None  # of a matcher without extractor
    num_layers: int
    num_seen: int  # pairs that the source gave
    num_chosen_on: int
    num_tried_on: int
    wanted: float
    budget_ms: float | None
    schedule: Schedule
    all_layers: Trial
    paper: Trial
    calibrated: Trial
    curve: tuple[tuple[float, Trial], ...]  # by wanted agreement
    layers: tuple[LayerCalibration, ...]


def calibrate(
    sample: PairSample, wish: Wish | None = None, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Calibration:
    """Choose on every other pair, try on those between: what is reported was not seen when choosing.

    Raises:
        ConfigError: the budget cannot be kept.
    """
    wish, matcher = wish or Wish(), sample.matcher
    chosen_on, tried_on = sample.pairs[::2], sample.pairs[1::2]
    share, layers = sample.config.matcher.depth_confidence, num_layers(matcher)
    tables = drop_tables(chosen_on, matcher, share, lambda done, _: on_progress(done, len(sample.pairs)))
    wanted = wish.agreement if wish.budget_ms is None else _wanted_within(tables[0].stops, wish.budget_ms)
    schedules = {level: choose_schedule(chosen_on[0], tables, level, layers) for level in sorted({*CURVE, wanted})}
    contenders = [with_stops(matcher), with_stops(matcher, *_of_paper(layers))]
    contenders += [with_stops(matcher, *_of_schedule(schedule, share)) for schedule in schedules.values()]
    trials = try_out(tried_on, contenders, lambda done, _: on_progress(len(chosen_on) + done, len(sample.pairs)))
    curve = dict(zip(schedules, trials[2:], strict=True))
    return Calibration(
        source=sample.source,
        config=sample.config,
        method=matcher.name,
        max_image_px=matcher.max_image_px if isinstance(matcher, DetectorFree) else None,
        num_layers=layers,
        num_seen=sample.num_seen,
        num_chosen_on=len(chosen_on),
        num_tried_on=len(tried_on),
        wanted=wanted,
        budget_ms=wish.budget_ms,
        schedule=schedules[wanted],
        all_layers=trials[0],
        paper=trials[1],
        calibrated=curve[wanted],
        curve=tuple(curve.items()),
        layers=_layers(tried_on, schedules[wanted], curve[wanted]),
    )


def drop_tables(
    pairs: Sequence[PairRecord],
    matcher: Adaptive,
    depth_confidence: float,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[DropTable]:
    """What stopping means with all points, and, of LightGlue's pairs matched anew, with ever fewer of them."""
    if isinstance(matcher, DetectorFree):
        return [DropTable((), stop_table(pairs, depth_confidence))]
    graphs, min_score = matcher.graphs, matcher.rules.min_score
    drops = choose_matchability(pairs, _LOST_SHARES, graphs.config.width)
    found: list[list[PairRecord]] = [[] for _ in drops]
    for number, pair in enumerate(pairs, start=1):
        for records, thresholds in zip(found, drops, strict=True):
            again = pair.features0, pair.features1, graphs, min_score, thresholds, pair.matches
            records.append(record_pair(*again)[0])
        on_progress(number, len(pairs))
    chosen = zip(((), *drops), (pairs, *found), strict=True)
    return [DropTable(thresholds, stop_table(records, depth_confidence)) for thresholds, records in chosen]


def try_out(
    pairs: Sequence[PairRecord],
    contenders: Sequence[Adaptive],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Trial]:
    """Match each pair by all contenders, beginning with another one each time: what slows the machine slows all."""
    attempts: list[list[_Attempt]] = [[] for _ in contenders]
    for contender in contenders:
        answer(contender, pairs[0].features0, pairs[0].features1)  # the first pass is slower
    for number, pair in enumerate(pairs, start=1):
        for place in range(len(contenders)):
            turn = (number + place) % len(contenders)
            attempts[turn].append(_try(contenders[turn], pair))
        on_progress(number, len(pairs))
    return [_trial(found) for found in attempts]


def _of_paper(layers: int) -> _Rules:
    """The rules of LightGlue's authors."""
    rules = LightGlueRules()
    return rules.stop.depth_confidence, paper_thresholds(layers), (), rules.prune.width_confidence


def _of_schedule(schedule: Schedule, depth_confidence: float) -> _Rules:
    width_confidence = PruneRule().width_confidence  # thresholds of matchability take its place
    return depth_confidence, schedule.thresholds, schedule.matchability_thresholds, width_confidence


def _wanted_within(table: StopTable, budget_ms: float) -> float:
    wanted = choose_for_budget(table, budget_ms)
    if wanted is None:
        raise ConfigError(
            f"a budget of {budget_ms:g} ms cannot be kept, all layers take {np.mean(table.match_ms[:, -1]):.1f} ms and "
            f"the first {np.mean(table.match_ms[:, 0]):.1f} ms: allow more, or set extractor.max_keypoints lower."
        )
    return wanted


def _try(matcher: Adaptive, pair: PairRecord) -> _Attempt:
    begun = time.perf_counter()
    found = answer(matcher, pair.features0, pair.features1)
    match_ms = 1000.0 * (time.perf_counter() - begun) + pair.following_ms
    return _Attempt(agreement(found.indices, pair.matches), found.layers_run, found.kept_share, match_ms)


def _trial(attempts: Sequence[_Attempt]) -> Trial:
    agreements = [attempt.agreement for attempt in attempts]
    counts = Counter(attempt.layers_run for attempt in attempts)
    return Trial(
        agreement=float(np.mean(agreements)),
        worst_agreement=float(np.percentile(agreements, 5.0)),
        layers_run=float(np.mean([attempt.layers_run for attempt in attempts])),
        stopped_shares={layers: count / len(attempts) for layers, count in sorted(counts.items())},
        kept_share=float(np.mean([attempt.kept_share for attempt in attempts])),
        match_ms=float(np.mean([attempt.match_ms for attempt in attempts])),
    )


def _layers(pairs: Sequence[PairRecord], schedule: Schedule, trial: Trial) -> tuple[LayerCalibration, ...]:
    paper = paper_thresholds(len(schedule.thresholds))
    agreements = np.mean([[stage.agreement for stage in pair.stages] for pair in pairs], axis=0)
    return tuple(
        LayerCalibration(
            layer=stage.layers_done,
            paper_threshold=paper[stage.layers_done - 1],
            threshold=schedule.thresholds[stage.layers_done - 1],
            matchability_threshold=schedule.matchability_thresholds[stage.layers_done - 1],
            stopped_share=trial.stopped_shares.get(stage.layers_done, 0.0),
            agreement=float(mean),
        )
        for stage, mean in zip(pairs[0].stages, agreements, strict=True)
    )
