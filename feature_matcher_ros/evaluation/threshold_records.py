"""Pairs of images matched by all layers of LightGlue, with what it knew after each stage and would have answered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_matcher_ros.config import FrontEndConfig
from feature_matcher_ros.datatypes import Features, Image, Matches
from feature_matcher_ros.errors import ConfigError, FrameError, SourceError
from feature_matcher_ros.evaluation.pair_sets import load_pairs
from feature_matcher_ros.evaluation.sequences import Selection, open_sequence
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.matchers.adaptive import Probabilities, PruneRule, StopRule
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules, network_input
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, Stage
from feature_matcher_ros.matchers.lightglue_pass import Indices, LightGluePass

MIN_PAIRS = 20


def all_layers(rules: LightGlueRules) -> LightGlueRules:
    """The same matcher without any haste."""
    return LightGlueRules(StopRule(None), PruneRule(None), min_score=rules.min_score)


@dataclass(frozen=True, slots=True, eq=False)
class StageRecord:
    """What there was after one stage, of the N points that went through it: all of both images if none is dropped."""

    layers_done: int
    confidence: Probabilities  # (N,), points of image 0 before those of image 1; (0,) after the last stage
    matchability: Probabilities  # likewise
    agreement: float  # of the matches that would be given here with the wanted ones, else those of the last layer
    match_ms: float  # time to get there and to read these matches


@dataclass(frozen=True, slots=True, eq=False)
class PairRecord:
    """One pair, matched by all layers."""

    features0: Features
    features1: Features
    stages: tuple[StageRecord, ...]
    matches: Indices  # (M, 2), keypoint numbers, of the last layer


@dataclass(frozen=True, slots=True, eq=False)
class PairSample:
    """Pairs drawn evenly from all that a source gave, in their order."""

    source: Path
    config: FrontEndConfig
    matcher: LightGlue
    pairs: tuple[PairRecord, ...]
    num_seen: int


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


class PairRecorder:
    """Matches with all layers, and keeps an even sample of the pairs: each is as likely to be kept as any other."""

    def __init__(self, matcher: LightGlue, max_pairs: int) -> None:
        self._matcher = matcher
        self._all_layers = LightGlue(matcher, matcher.graphs, all_layers(matcher.rules))
        self._kept: dict[int, tuple[int, PairRecord]] = {}
        self._max_pairs = max_pairs
        self._random = np.random.default_rng(0)
        self.num_seen = 0

    @property
    def name(self) -> str:
        return self._matcher.name

    @property
    def pairs(self) -> tuple[PairRecord, ...]:
        """The pairs that were kept, in the order in which they came."""
        return tuple(record for _, record in sorted(self._kept.values(), key=lambda kept: kept[0]))

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return self._matcher.extract(image, mask)

    def match(self, features0: Features, features1: Features) -> Matches:
        if min(len(features0), len(features1)) == 0:
            return self._all_layers.match(features0, features1)
        place = self._place()
        if place is None:
            return self._all_layers.match(features0, features1)
        record, matches = record_pair(features0, features1, self._matcher.graphs, self._matcher.rules.min_score)
        self._kept[place] = self.num_seen, record
        return matches

    def _place(self) -> int | None:
        """Where to keep the next pair, which may be in the place of another one; None: nowhere."""
        self.num_seen += 1
        place = self.num_seen - 1 if self.num_seen <= self._max_pairs else int(self._random.integers(self.num_seen))
        return place if place < self._max_pairs else None


def collect_pairs(
    source: Path,
    config: FrontEndConfig,
    selection: Selection | None = None,
    max_pairs: int = 200,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PairSample:
    """Run the front-end over a source, or over the image pairs of a JSON file, and record what it matches.

    Raises:
        ConfigError: the configuration is not one of LightGlue with several stages that may stop.
        SourceError: the source cannot be read, or has too few pairs.
    """
    matcher = _lightglue(config)
    recorder = PairRecorder(matcher, max_pairs)
    if source.suffix == ".json":
        _match_pair_set(source, recorder, on_progress)
    else:
        _match_sequence(source, selection, config, recorder, on_progress)
    _require_enough(source, recorder)
    return PairSample(source, config, matcher, recorder.pairs, recorder.num_seen)


def _lightglue(config: FrontEndConfig) -> LightGlue:
    if config.matcher.depth_confidence == 1.0:
        raise ConfigError("matcher.depth_confidence = 1 never stops and makes thresholds useless: choose 0.95, say.")
    matcher = create_matcher(config)
    if not isinstance(matcher, LightGlue):
        raise ConfigError(
            f"matcher.name = {matcher.name} has no thresholds to choose: "
            "set matcher.name to lightglue and matcher.graphs to the folder of its network."
        )
    stages: tuple[Stage, ...] = matcher.graphs.stages
    if len(stages) < 2:
        raise ConfigError(
            "the network runs as one piece and cannot stop early: name the folder of another one in matcher.graphs."
        )
    return matcher


def _match_sequence(
    source: Path,
    selection: Selection | None,
    config: FrontEndConfig,
    recorder: PairRecorder,
    on_progress: Callable[[int, int], None],
) -> None:
    sequence, front_end = open_sequence(source, selection), FrontEnd(config, recorder)
    for number, frame in enumerate(sequence.frames(), start=1):
        with contextlib.suppress(FrameError):
            front_end.process(frame)
        on_progress(number + sequence.skipped.total(), len(sequence))


def _match_pair_set(source: Path, recorder: PairRecorder, on_progress: Callable[[int, int], None]) -> None:
    pairs = load_pairs(source)
    for number, pair in enumerate(pairs, start=1):
        frame0, frame1 = pair.frames()
        recorder.match(recorder.extract(frame0.image), recorder.extract(frame1.image))
        on_progress(number, len(pairs))


def _require_enough(source: Path, recorder: PairRecorder) -> None:
    if recorder.num_seen == 0:
        raise SourceError(f"'{source}' gave no pair of images with points to match: give another source.")
    if len(recorder.pairs) < MIN_PAIRS:
        raise SourceError(
            f"'{source}' gave {len(recorder.pairs)} pairs and thresholds are chosen from at least {MIN_PAIRS}: "
            "give more of it, or match more of its frames with --set keyframes.match_every_frame=true."
        )
