"""Pairs for choosing thresholds: what the front-end matches in a recording, or a list of image pairs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_matcher_ros.config import FrontEndConfig
from feature_matcher_ros.datatypes import Features, Image, Matches
from feature_matcher_ros.errors import ConfigError, FrameError, SourceError
from feature_matcher_ros.evaluation.adaptive_matchers import Adaptive, may_stop, record, with_stops
from feature_matcher_ros.evaluation.pair_sets import load_pairs
from feature_matcher_ros.evaluation.sequences import Selection, open_sequence
from feature_matcher_ros.evaluation.threshold_records import PairRecord
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import create_matcher

MIN_PAIRS = 20


@dataclass(frozen=True, slots=True, eq=False)
class PairSample:
    """Pairs drawn evenly from all that a source gave, in their order."""

    source: Path
    config: FrontEndConfig
    matcher: Adaptive
    pairs: tuple[PairRecord, ...]
    num_seen: int


class PairRecorder:
    """Matches with all layers, and keeps an even sample of the pairs: each is as likely to be kept as any other."""

    def __init__(self, matcher: Adaptive, max_pairs: int) -> None:
        self._matcher = matcher
        self._all_layers = with_stops(matcher)
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
        return tuple(found for _, found in sorted(self._kept.values(), key=lambda kept: kept[0]))

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return self._matcher.extract(image, mask)

    def match(self, features0: Features, features1: Features) -> Matches:
        if min(len(features0), len(features1)) == 0:
            return self._all_layers.match(features0, features1)
        place = self._place()
        if place is None:
            return self._all_layers.match(features0, features1)
        found, matches = record(self._matcher, features0, features1)
        self._kept[place] = self.num_seen, found
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
        ConfigError: the configuration is not one of a network with several stages that may stop.
        SourceError: the source cannot be read, or has too few pairs.
    """
    matcher = _adaptive(config)
    recorder = PairRecorder(matcher, max_pairs)
    if source.suffix == ".json":
        _match_pair_set(source, recorder, on_progress)
    else:
        _match_sequence(source, selection, config, recorder, on_progress)
    _require_enough(source, recorder)
    return PairSample(source, config, matcher, recorder.pairs, recorder.num_seen)


def _adaptive(config: FrontEndConfig) -> Adaptive:
    if config.matcher.depth_confidence == 1.0:
        raise ConfigError("matcher.depth_confidence = 1 never stops and makes thresholds useless: choose 0.95, say.")
    matcher = create_matcher(config)
    if not isinstance(matcher, Adaptive):
        raise ConfigError(
            f"matcher.name = {matcher.name} has no thresholds to choose: "
            "set matcher.name to lightglue and matcher.graphs to the folder of its network."
        )
    if not may_stop(matcher):
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
