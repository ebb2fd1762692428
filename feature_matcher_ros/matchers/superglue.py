"""SuperGlue (arXiv 1911.11763): always all layers and all points, a baseline for networks that adapt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Features, Image, Matches, StopReason
from feature_matcher_ros.errors import MatcherError
from feature_matcher_ros.extractors.extractor import Extractor
from feature_matcher_ros.matchers.lightglue_graphs import FOLLOWING, HEAD, stage_name
from feature_matcher_ros.matchers.lightglue_pass import mutually_best
from feature_matcher_ros.matchers.matcher import require_descriptors, require_finite
from feature_matcher_ros.matchers.superglue_graphs import METHOD, SuperGlueGraphs
from feature_matcher_ros.runtimes.runtime import Tensor
from feature_matcher_ros.timing import StageTimer

_REACH = 0.7  # of the longer side of an image: as far as 1 is from the centre for the published networks


@dataclass(frozen=True, slots=True, eq=False)
class SuperGlueFeatures(Features):
    """Points with what the network makes of each before it has seen a second image."""

    state: Tensor = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # (N, width)


class SuperGlue:
    """Pairs points by a network that looks at all points of both images, and by transport with dustbins."""

    def __init__(self, extractor: Extractor, graphs: SuperGlueGraphs, min_score: float = 0.2) -> None:
        """Join an extractor with the network made for its descriptors; a match needs more than ``min_score``."""
        self._extractor = extractor
        self._graphs = graphs
        self.follow(min_score)

    def follow(self, min_score: float) -> None:
        """Take another least score from the next pair on."""
        self._min_score = min_score

    @property
    def name(self) -> str:
        return METHOD

    @property
    def graphs(self) -> SuperGlueGraphs:
        return self._graphs

    def extract(self, image: Image, mask: Image | None = None) -> SuperGlueFeatures:
        """Points of an (H, W) grey or (H, W, 3) BGR image with their states, none where the mask is 0.

        Raises:
            MatcherError: they are not of the kind that the network was trained for, or not finite.
        """
        return self.with_states(self._extractor.extract(image, mask))

    def with_states(self, features: Features) -> SuperGlueFeatures:
        """The points of an image with their states, which a pair needs of both images.

        Raises:
            MatcherError: they are not of the kind that the network was trained for, or not finite.
        """
        return SuperGlueFeatures(
            features.keypoints,
            features.keypoint_scores,
            features.descriptors,
            features.image_size,
            features.scales,
            features.orientations,
            state=self._embed(features),
        )

    def match(self, features0: Features, features1: Features) -> Matches:
        """Correspondences in the order of the keypoints of image 0.

        Raises:
            MatcherError: the features are not those of a SuperGlue matcher.
        """
        states = {"state0": _state_of(features0), "state1": _state_of(features1)}
        indices, scores, timer = np.zeros((0, 2), np.int32), np.zeros(0, np.float32), StageTimer()
        can_match = min(len(features0), len(features1)) > 0
        if can_match:
            indices, scores = self._pairs(states, timer)
        return Matches(
            points0=features0.keypoints[indices[:, 0]],
            points1=features1.keypoints[indices[:, 1]],
            scores=scores,
            indices=indices,
            layers_run=self._graphs.config.layers if can_match else 0,
            stop_reason=StopReason.LAST_LAYER if can_match else StopReason.NOTHING_MATCHABLE,
            points_per_stage=np.array([[len(features0), len(features1)]] if can_match else [], np.int32).reshape(-1, 2),
            stages_ms=timer.stages_ms,
        )

    def _embed(self, features: Features) -> Tensor:
        """States (N, width) of the points of one image."""
        config = self._graphs.config
        require_descriptors(features.descriptors, config.width, "SuperGlue")
        require_finite(features)
        if features.keypoint_scores.shape != (len(features),) or not np.isfinite(features.keypoint_scores).all():
            raise MatcherError(
                "this SuperGlue network takes a finite score of each keypoint and the features have none: "
                "choose the extractor it was trained for."
            )
        if len(features) == 0:
            return np.zeros((0, config.width), np.float32)
        size = np.asarray(features.image_size, np.float32)
        positions = (features.keypoints - size / 2) / (_REACH * size.max())
        given = {
            "descriptors": features.descriptors,
            "positions": positions.astype(np.float32, copy=False),
            "keypoint_scores": features.keypoint_scores.astype(np.float32, copy=False),
        }
        return self._graphs.embed.run(given)["state"]

    def _pairs(self, states: Mapping[str, Tensor], timer: StageTimer) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Keypoint numbers (M, 2) and scores (M,) of the mutually best pairs that score enough."""
        with timer.stage(stage_name(self._graphs.config.layers)):
            refined = self._graphs.layers.run(states)
        with timer.stage(HEAD):
            found = self._graphs.head.run({name: refined[FOLLOWING + name] for name in states})
            best0, log_scores0, log_scores1 = (
                np.asarray(found[tensor.name]) for tensor in self._graphs.head.spec.outputs
            )
            rows, scores = mutually_best(best0, log_scores0, log_scores1)
        accepted = scores > self._min_score
        rows = rows[accepted]
        return np.column_stack((rows, best0[rows])).astype(np.int32), scores[accepted]


def _state_of(features: Features) -> Tensor:
    if not isinstance(features, SuperGlueFeatures):
        raise MatcherError(
            f"features of type {type(features).__name__} have no states of a SuperGlue network: "
            "extract both images with the matcher that is to match them."
        )
    return features.state
