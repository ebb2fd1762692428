"""Pairs of images matched by all layers, with what the network knew after each stage and would have answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Features, Matches
from feature_matcher_ros.matchers.adaptive import Probabilities
from feature_matcher_ros.matchers.lightglue import network_input
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs
from feature_matcher_ros.matchers.lightglue_pass import Indices, LightGluePass


@dataclass(frozen=True, slots=True, eq=False)
class StageRecord:
    """What there was after one stage, of the N points that went through it: all of both images if none is dropped."""

    layers_done: int
    confidence: Probabilities  # (N,), points of image 0 before those of image 1; (0,) after the last stage
    matchability: Probabilities  # likewise; (0,) where no point is ever dropped
    agreement: float  # of the matches that would be given here with the wanted ones, else those of the last layer
    match_ms: float  # time to get there and to read these matches


@dataclass(frozen=True, slots=True, eq=False)
class PairRecord:
    """One pair, matched by all layers."""

    features0: Features
    features1: Features
    stages: tuple[StageRecord, ...]
    matches: Indices  # (M, 2), numbers of keypoints, or of cells where there are none, of the last layer
    following_ms: float = 0.0  # time of what comes after the last stage, whichever that is; part of ``match_ms``


def agreement(found: Indices, wanted: Indices) -> float:
    """Share of matches (M, 2) and (N, 2) that both have, of the mean of M and N (the F1 score); 1 for none at all."""
    if len(found) + len(wanted) == 0:
        return 1.0
    keys0, keys1 = ((matches[:, 0].astype(np.int64) << 32) + matches[:, 1] for matches in (found, wanted))
    return 2.0 * len(np.intersect1d(keys0, keys1, assume_unique=True)) / (len(found) + len(wanted))


def record_pair(
    features0: Features,
    features1: Features,
    graphs: LightGlueGraphs,
    min_score: float,
    drops: Sequence[float] = (),
    wanted: Indices | None = None,
) -> tuple[PairRecord, Matches]:
    """Run all stages on all points, which both images must have, and read the matches off after each.

    With ``drops`` points are dropped after each stage whose matchability is below the one given for it.

    Raises:
        MatcherError: the features are not of the kind that the network was trained for, or not finite.
    """
    begun = time.perf_counter()
    pair = LightGluePass(network_input(features0, graphs.config), network_input(features1, graphs.config))
    pair.embed(graphs.embed)
    refined_ms, answers, times_ms, certainties = 1000.0 * (time.perf_counter() - begun), [], [], []
    for stage, least in zip(graphs.stages, (*drops, *[0.0] * (len(graphs.stages) - len(drops))), strict=True):
        refined_ms += pair.run(stage)
        before_ms = pair.elapsed_ms
        pair.assign(stage.head)
        answers.append(pair.matches(min_score))
        times_ms.append(refined_ms + pair.elapsed_ms - before_ms)
        certainties.append((pair.confidence.copy(), pair.matchability.copy()))
        if least > 0.0:
            _drop(pair, least)
    certainties[-1] = (np.zeros(0, np.float32), np.zeros(0, np.float32))  # the last stage says nothing of the kind
    last, scores = answers[-1]
    stages = tuple(
        StageRecord(stage.layers_done, *certainty, agreement(answer, last if wanted is None else wanted), elapsed_ms)
        for stage, certainty, (answer, _), elapsed_ms in zip(graphs.stages, certainties, answers, times_ms, strict=True)
    )
    matches = Matches(features0.keypoints[last[:, 0]], features1.keypoints[last[:, 1]], scores, last)
    return PairRecord(features0, features1, stages, last), matches


def _drop(pair: LightGluePass, least: float) -> None:
    """All below a matchability; where an image would have none left, as the matcher then ends, all stay."""
    keep = pair.matchability >= np.float32(least)
    if all(part.any() for part in np.split(keep, [pair.kept[0]])):
        pair.keep_only(keep)
