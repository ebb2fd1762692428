"""LightGlue (arXiv 2306.13643) with as many layers, and as many points in each, as the pair needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Features, Float, Image, Matches, StopReason
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.matchers.adaptive import (
    BudgetRule,
    Pace,
    PruneRule,
    StopRule,
    paper_thresholds,
    require_fitting_thresholds,
)
from feature_matcher_ros.matchers.lightglue_graphs import LightGlueGraphs, Stage
from feature_matcher_ros.matchers.lightglue_pass import LightGluePass, NetworkInput
from feature_matcher_ros.matchers.matcher import require_descriptors, require_finite, require_numbers
from feature_matcher_ros.models.lightglue_config import LightGlueConfig


@dataclass(frozen=True, slots=True)
class LightGlueRules:
    """When to stop, what to drop and what to accept; the defaults are those of the paper."""

    stop: StopRule = field(default_factory=StopRule)
    prune: PruneRule = field(default_factory=PruneRule)
    budget: BudgetRule = field(default_factory=BudgetRule)
    thresholds: tuple[float, ...] = ()  # confidence of a final point, by layer; none: what comes with the network
    matchability_thresholds: tuple[float, ...] | None = None  # of points that stay; None: likewise; none: the paper's
    min_score: float = 0.1  # a match needs more


class LightGlue:
    """Pairs points by a network that looks at all points of both images, layer after layer.

    With a time budget the number of layers depends on how fast the machine is at that moment; else the same
    input gives the same output.
    """

    def __init__(self, extractor: Extractor, graphs: LightGlueGraphs, rules: LightGlueRules | None = None) -> None:
        """Join an extractor with the network made for its descriptors.

        Raises:
            MatcherError: the number of thresholds is not that of the layers.
        """
        self._extractor = extractor
        self._graphs = graphs
        self.follow(LightGlueRules() if rules is None else rules)
        self._stage_pace, self._head_pace = Pace(), Pace()

    def follow(self, rules: LightGlueRules) -> None:
        """Take other rules from the next pair on.

        Raises:
            MatcherError: the number of thresholds is not that of the layers; the rules stay as they were.
        """
        layers = self._graphs.config.layers
        thresholds = rules.thresholds or self._graphs.confidence_thresholds or paper_thresholds(layers)
        require_fitting_thresholds(thresholds, layers)
        least = rules.matchability_thresholds
        least = self._graphs.matchability_thresholds if least is None else least
        if least:
            require_fitting_thresholds(least, layers, "matchability")
        self._rules, self._thresholds, self._least_matchability = rules, thresholds, least or (None,) * layers

    @property
    def name(self) -> str:
        return "lightglue"

    @property
    def graphs(self) -> LightGlueGraphs:
        return self._graphs

    @property
    def rules(self) -> LightGlueRules:
        return self._rules

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return require_finite(self._extractor.extract(image, mask))

    def match(self, features0: Features, features1: Features) -> Matches:
        """Correspondences in the order of the keypoints of image 0.

        Raises:
            MatcherError: the features are not of the kind that the network was trained for, or not finite.
        """
        config = self._graphs.config
        pair = LightGluePass(network_input(features0, config), network_input(features1, config))
        layers_run, reason = self._refine(pair) if pair.in_both_images else (0, StopReason.NOTHING_MATCHABLE)
        indices, scores = pair.matches(self._rules.min_score)
        return Matches(
            points0=features0.keypoints[indices[:, 0]],
            points1=features1.keypoints[indices[:, 1]],
            scores=scores,
            indices=indices,
            layers_run=layers_run,
            stop_reason=reason,
            points_per_stage=pair.points_per_stage,
            stages_ms=pair.stages_ms,
        )

    def _refine(self, pair: LightGluePass) -> tuple[int, StopReason]:
        """Run stage after stage until there is a reason to stop, then read the matches."""
        pair.embed(self._graphs.embed)
        reason: StopReason | None = None
        stages = iter(zip(self._graphs.stages, (*self._graphs.stages[1:], None), strict=True))
        while reason is None:
            stage, following = next(stages)
            work = _stage_work(stage, pair, self._graphs)
            self._stage_pace.observe(work, pair.run(stage))
            reason = self._reason_to_stop(stage, following, pair)
        if reason is not StopReason.NOTHING_MATCHABLE:
            self._head_pace.observe(_head_work(pair, self._graphs.config), pair.assign(stage.head))
        return stage.layers_done, reason

    def _reason_to_stop(self, stage: Stage, following: Stage | None, pair: LightGluePass) -> StopReason | None:
        """Why the following stage need not be run, if so; else drops the points that it need not look at."""
        if following is None:
            return StopReason.LAST_LAYER
        rules, threshold = self._rules, self._thresholds[stage.layers_done - 1]
        least = self._least_matchability[stage.layers_done - 1]
        num_counted = pair.num_points if least is None else pair.num_kept  # those dropped by the paper's rule are final
        if rules.stop.is_satisfied(pair.confidence, threshold, num_counted):
            return StopReason.CONFIDENT
        if any(rules.stop.is_hopeless(*certainty, threshold, rules.min_score) for certainty in pair.by_image):
            return StopReason.NOTHING_MATCHABLE
        confidence = None if rules.stop.depth_confidence is None else pair.confidence
        pair.keep_only(rules.prune.keep(confidence, pair.matchability, threshold, least))
        if not pair.in_both_images:
            return StopReason.NOTHING_MATCHABLE
        expected_ms = self._stage_pace.expected_ms(_stage_work(following, pair, self._graphs))
        expected_ms += self._head_pace.expected_ms(_head_work(pair, self._graphs.config))
        return None if rules.budget.allows(pair.elapsed_ms, expected_ms) else StopReason.BUDGET


def require_fitting_points(extractor: Extractor, config: LightGlueConfig) -> None:
    """Check, on an image without points, that a network takes what an extractor gives.

    Raises:
        MatcherError: it was made for another extractor.
    """
    network_input(extractor.extract(np.zeros((64, 64), np.uint8)), config)


def _stage_work(stage: Stage, pair: LightGluePass, graphs: LightGlueGraphs) -> float:
    """Multiplications of a stage, as multiples of the state's width: linear layers, and attention by pairs."""
    previous = max((other.layers_done for other in graphs.stages if other.layers_done < stage.layers_done), default=0)
    return float((stage.layers_done - previous) * layer_work(np.array(pair.num_kept), graphs.config.width))


def layer_work(num_points: NDArray[np.integer[Any]], width: int) -> Float:
    """Multiplications of a layer for that many points of both images, as multiples of the width of their states."""
    work: Float = 17.0 * width * num_points + 2.0 * num_points.astype(np.float64) ** 2
    return work


def _head_work(pair: LightGluePass, config: LightGlueConfig) -> float:
    """Likewise for the assignment, where the exponentials of a pair cost about as much as three more products."""
    kept0, kept1 = pair.kept
    return float(config.width * (kept0 + kept1) + 4 * kept0 * kept1)


def network_input(features: Features, config: LightGlueConfig) -> NetworkInput:
    """Descriptors, and pixels seen from the image's centre in units of half its longer side.

    Raises:
        MatcherError: the features are not of the kind that the network was trained for, or not finite.
    """
    descriptors = _as_vectors(features)
    require_descriptors(descriptors, config.descriptor_size, "LightGlue")
    size = np.asarray(features.image_size, np.float32)
    positions = (features.keypoints - size / 2) / (size.max() / 2)
    if config.scale_orientation:
        if features.scales is None or features.orientations is None:
            raise MatcherError(
                "this LightGlue network takes the scale and orientation of points and the features have none: "
                "choose the extractor it was trained for."
            )
        positions = np.column_stack((positions, features.scales, features.orientations))
    require_numbers(descriptors, positions)
    return NetworkInput(descriptors.astype(np.float32, copy=False), positions.astype(np.float32, copy=False))


def _as_vectors(features: Features) -> NDArray[np.generic]:
    """Binary descriptors (N, bytes) as vectors (N, bits) of unit length, whose product counts the equal bits."""
    descriptors = np.asarray(features.descriptors)
    if descriptors.dtype != np.uint8 or descriptors.ndim != 2:
        return descriptors
    bits = np.unpackbits(descriptors.astype(np.uint8, copy=False), axis=1)
    return (bits * np.float32(2.0) - np.float32(1.0)) / np.float32(np.sqrt(bits.shape[1]))
