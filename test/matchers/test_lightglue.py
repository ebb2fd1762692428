"""The loop over the stages, with graphs that do what the test says: the networks themselves are tested elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeRuntime, pinhole

from feature_matcher_ros.config import MatcherConfig
from feature_matcher_ros.datatypes import Features, Frame, Image, Status, StopReason
from feature_matcher_ros.errors import FrameError, MatcherError
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers.adaptive import BudgetRule, PruneRule, StopRule
from feature_matcher_ros.matchers.lightglue import LightGlue, LightGlueRules
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, Stage, embed_spec, head_spec, stage_spec
from feature_matcher_ros.matchers.mutual_nearest import MutualNearest
from feature_matcher_ros.models.lightglue_config import LightGlueConfig

CONFIG = LightGlueConfig(descriptor_size=4, width=8, heads=2, layers=3)
Arrays = Mapping[str, np.ndarray]
Certainty = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]  # layers done, ids -> confidence, matchability


class NoExtractor:
    name = "none"

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        raise NotImplementedError


class Bench:
    """A matcher whose points are known by their descriptor: 0, 1, 2 ... in image 0 and 100, 101 ... in image 1.

    Point i of image 0 belongs to point 100 + i of image 1.
    """

    def __init__(self, certainty: Certainty, stage_ms: float = 0.0, config: LightGlueConfig = CONFIG) -> None:
        self.seen: list[list[float]] = []  # the points that entered each stage
        self._certainty, self._stage_ms = certainty, stage_ms
        stages = tuple(Stage(end, self._stage(config, end), self._head(config)) for end in range(1, config.layers + 1))
        self.graphs = LightGlueGraphs(config, FakeRuntime(embed_spec(config), _embed), stages)

    def matcher(self, **rules: object) -> LightGlue:
        return LightGlue(NoExtractor(), self.graphs, replace(LightGlueRules(), **rules))

    def _stage(self, config: LightGlueConfig, end: int) -> FakeRuntime:
        def run(given: Arrays) -> dict[str, np.ndarray]:
            time.sleep(self._stage_ms * 1e-3)
            rows = np.concatenate((given["rows0"], given["rows1"]))
            ids = given["state"][rows, 0]
            self.seen.append(ids.tolist())
            found = {f"next_{name}": given[name][rows] for name in ("state", "cosines", "sines")}
            if end == config.layers:
                return {"next_state": found["next_state"]}
            return {**found, "certainty": np.column_stack(self._certainty(end, ids)).astype(np.float32)}

        return FakeRuntime(stage_spec(config, end == config.layers), run)

    def _head(self, config: LightGlueConfig) -> FakeRuntime:
        def run(given: Arrays) -> dict[str, np.ndarray]:
            ids0, ids1 = given["state"][given["rows0"], 0], given["state"][given["rows1"], 0] - 100
            distance = np.abs(ids0[:, None] - ids1[None])
            log_scores = np.log(np.maximum(0.9 - 0.5 * distance, 0.01)).astype(np.float32)
            largest = {"log_scores0": log_scores.max(axis=1), "log_scores1": log_scores.max(axis=0)}
            return {"best0": log_scores.argmax(axis=1), **largest}

        return FakeRuntime(head_spec(config), run)


def _embed(given: Arrays) -> dict[str, np.ndarray]:
    state = np.repeat(given["descriptors"][:, :1], CONFIG.width, axis=1)
    angles = np.zeros((len(state), CONFIG.head_size // 2), np.float32)
    return {"state": state, "cosines": angles, "sines": angles}


def features(ids: list[int]) -> Features:
    values = np.array(ids, np.float32)
    descriptors = np.repeat(values[:, None], CONFIG.descriptor_size, axis=1)
    keypoints = np.column_stack((values % 100, values % 100 + 50))
    return Features(keypoints, np.ones(len(ids), np.float32), descriptors, (640, 480))


def never(layers_done: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(ids)), np.ones(len(ids))


def test_unsure_points_go_through_all_layers() -> None:
    bench = Bench(never)
    matches = bench.matcher().match(features([0, 1, 2, 7]), features([101, 100, 102]))
    assert matches.indices is not None
    assert matches.indices.tolist() == [[0, 1], [1, 0], [2, 2]]
    assert matches.indices.dtype == np.int32
    assert matches.points0.tolist() == [[0, 50], [1, 51], [2, 52]]
    assert np.array_equal(matches.points0, matches.points1)
    assert matches.scores.tolist() == pytest.approx([0.9] * 3)
    assert (matches.layers_run, matches.stop_reason) == (3, StopReason.LAST_LAYER)
    assert matches.points_per_stage is not None
    assert matches.points_per_stage.tolist() == [[4, 3]] * 3
    assert list(matches.stages_ms or ()) == ["embed", "stage1", "stage2", "stage3", "head"]


def test_confident_points_stop_the_network() -> None:
    bench = Bench(lambda layers, ids: (np.full(len(ids), 0.5 if layers == 1 else 0.95), np.ones(len(ids))))
    matches = bench.matcher().match(features([0, 1]), features([100, 101]))
    assert (matches.layers_run, matches.stop_reason, len(matches)) == (2, StopReason.CONFIDENT, 2)
    assert bench.matcher(stop=StopRule(None)).match(features([0, 1]), features([100, 101])).layers_run == 3


def test_dropped_points_enter_no_further_stage_and_keep_their_numbers() -> None:
    def certainty(layers: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unmatchable = np.isin(ids, [0, 102] if layers == 1 else [3])
        return np.where(unmatchable, 0.99, 0.1), np.where(unmatchable, 0.0, 0.9)

    bench = Bench(certainty)
    matches = bench.matcher().match(features([0, 1, 2, 3, 4]), features([104, 102, 101, 103, 105]))
    assert bench.seen[0] == [0, 1, 2, 3, 4, 104, 102, 101, 103, 105]
    assert bench.seen[1:] == [[1, 2, 3, 4, 104, 101, 103, 105], [1, 2, 4, 104, 101, 103, 105]]
    assert matches.indices is not None
    assert matches.indices.tolist() == [[1, 2], [4, 0]]
    assert matches.points_per_stage is not None
    assert matches.points_per_stage.tolist() == [[5, 5], [4, 4], [3, 4]]
    bench.seen.clear()
    bench.matcher(prune=PruneRule(None)).match(features([0, 1]), features([100]))
    assert list(map(len, bench.seen)) == [3, 3, 3]


def test_points_dropped_before_they_are_final_do_not_count_when_it_stops() -> None:
    """Of ten points six are dropped; of the four left, three are final after two layers, and all after three."""

    def certainty(layers: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        late = ids == (1 if layers < 3 else -1)
        confidence = np.where(late | (layers == 1), 0.1, 0.99)
        return confidence, np.where(np.isin(ids, [0, 1, 100, 101]), 0.5, 0.3)

    given = features([0, 1, 2, 3, 4]), features([100, 101, 102, 103, 104])
    bench = Bench(certainty, config=replace(CONFIG, layers=4))
    bench.graphs = replace(bench.graphs, matchability_thresholds=(0.4, 0.0, 0.0, 0.0))
    matches = bench.matcher(stop=StopRule(0.8)).match(*given)
    assert list(map(len, bench.seen)) == [10, 4, 4]
    assert (matches.layers_run, matches.stop_reason, len(matches)) == (3, StopReason.CONFIDENT, 2)
    for rules in ({"prune": PruneRule(None)}, {"matchability_thresholds": ()}):  # without, and by the paper's rule
        assert bench.matcher(stop=StopRule(0.8), **rules).match(*given).points_per_stage.tolist() == [[5, 5]] * 2
    hasty = bench.matcher(stop=StopRule(None), matchability_thresholds=(0.0, 0.4, 0.6, 0.0)).match(*given)
    assert hasty.points_per_stage.tolist() == [[5, 5], [5, 5], [2, 2]]
    assert (hasty.layers_run, hasty.stop_reason, len(hasty)) == (3, StopReason.NOTHING_MATCHABLE, 0)


@pytest.mark.parametrize("prune", [PruneRule(0.99), PruneRule(None)])
def test_nothing_matchable_ends_without_matches(prune: PruneRule) -> None:
    def certainty(layers: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        in_first = ids < 100
        return np.where(in_first, 0.99, 0.1), np.where(in_first, 0.0, 0.9)

    matches = Bench(certainty).matcher(prune=prune).match(features([0, 1]), features([100, 101]))
    assert (matches.layers_run, matches.stop_reason, len(matches)) == (1, StopReason.NOTHING_MATCHABLE, 0)
    assert matches.indices is not None
    assert matches.indices.shape == (0, 2)
    assert matches.points0.shape == (0, 2)


@pytest.mark.parametrize(("ids0", "ids1"), [([], []), ([], [100]), ([0, 1], [])])
def test_an_image_without_points_runs_nothing(ids0: list[int], ids1: list[int]) -> None:
    bench = Bench(never)
    matches = bench.matcher().match(features(ids0), features(ids1))
    assert (matches.layers_run, matches.stop_reason, len(matches)) == (0, StopReason.NOTHING_MATCHABLE, 0)
    assert bench.seen == []


def test_single_points_are_matched() -> None:
    matches = Bench(never).matcher().match(features([3]), features([103]))
    assert matches.indices is not None
    assert matches.indices.tolist() == [[0, 0]]


def test_equal_points_share_no_partner() -> None:
    matches = Bench(never).matcher().match(features([1, 2, 2, 3]), features([102, 102, 101]))
    assert matches.indices is not None
    assert matches.indices.tolist() == [[0, 2], [1, 0]]


def test_a_match_needs_more_than_the_least_score() -> None:
    matcher = Bench(never).matcher(min_score=0.5)
    assert len(matcher.match(features([3]), features([104]))) == 0  # its score is 0.4


def test_the_budget_stops_before_it_is_exceeded() -> None:
    bench = Bench(never, stage_ms=100.0)
    matcher = bench.matcher(budget=BudgetRule(260.0))
    matches = matcher.match(features([0, 1]), features([100, 101]))
    assert (matches.layers_run, matches.stop_reason, len(matches)) == (2, StopReason.BUDGET, 2)
    assert sum((matches.stages_ms or {}).values()) < 260.0
    assert matcher.match(features([0, 1]), features([100, 101])).layers_run == 2


def test_wrong_features_are_refused_with_a_sentence() -> None:
    matcher = Bench(never).matcher()
    good = features([0, 1])
    for bad, said in (
        (replace(good, descriptors=np.zeros((2, 5), np.float32)), r"\(2, 5\).*length 4"),
        (replace(good, descriptors=np.zeros((2, 4), np.uint8)), r"\(2, 32\).*length 4"),
        (replace(good, descriptors=np.full((2, 4), np.nan, np.float32)), "NaN or infinite"),
        (replace(good, keypoints=np.full((2, 2), np.inf, np.float32)), "NaN or infinite"),
    ):
        with pytest.raises(MatcherError, match=said):
            matcher.match(good, bad)
    with pytest.raises(MatcherError, match="scale and orientation"):
        Bench(never, config=replace(CONFIG, scale_orientation=True)).matcher().match(good, good)
    with pytest.raises(MatcherError, match="2 confidence thresholds do not fit a network of 3 layers"):
        Bench(never).matcher(thresholds=(0.9, 0.8))
    with pytest.raises(MatcherError, match="2 matchability thresholds do not fit a network of 3 layers"):
        Bench(never).matcher(matchability_thresholds=(0.3, 0.3))


class _Given:
    """Finds the features that a test put into it, in turn."""

    name = "given"

    def __init__(self, *found: Features) -> None:
        self._found = iter(found)

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return next(self._found)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["lightglue", "mutual_nearest"])
def test_features_that_are_no_numbers_cost_one_frame_which_is_named(kind: str, spoilt: float) -> None:
    """They must not become the keyframe, or they would spoil all the frames after it."""
    good = features([0, 1])
    good = replace(good, descriptors=good.descriptors / np.float32(2.0))
    descriptors = good.descriptors.copy()
    descriptors[1, 2] = spoilt
    extractor = _Given(replace(good, descriptors=descriptors), good, replace(good, keypoints=descriptors[:, 1:3]))
    matcher = LightGlue(extractor, Bench(never).graphs)
    front_end = FrontEnd(matcher=matcher if kind == "lightglue" else MutualNearest(extractor, MatcherConfig()))
    frames = [Frame(stamp_ns, np.zeros((48, 64), np.uint8), pinhole(64, 48), "left") for stamp_ns in (7, 8, 9 * 10**9)]
    with pytest.raises(FrameError, match=r"the frame of 'left' with the stamp 7 ns .* NaN or infinite") as raised:
        front_end.process(frames[0])
    assert (raised.value.stamp_ns, raised.value.frame_id) == (7, "left")
    assert "7" not in raised.value.reason  # so that equal reasons can be counted
    result = front_end.process(frames[1])
    assert (result.status, result.is_keyframe) == (Status.FIRST_FRAME, True)
    with pytest.raises(FrameError, match=f"stamp {9 * 10**9} ns"):
        front_end.process(frames[2])


def test_positions_are_seen_from_the_centre_in_half_longer_sides() -> None:
    bench = Bench(never, config=replace(CONFIG, scale_orientation=True))
    given: list[np.ndarray] = []
    embed = FakeRuntime(bench.graphs.embed.spec, lambda tensors: given.append(tensors["positions"]) or _embed(tensors))
    corner = replace(
        features([0, 1]),
        keypoints=np.array([[0, 0], [640, 480]], np.float32),
        scales=np.array([3, 4], np.float32),
        orientations=np.array([1, 2], np.float32),
    )
    LightGlue(NoExtractor(), replace(bench.graphs, embed=embed)).match(corner, corner)
    assert given[0].tolist() == [[-1.0, -0.75, 3.0, 1.0], [1.0, 0.75, 4.0, 2.0]] * 2
