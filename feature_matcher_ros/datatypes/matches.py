"""What an image yields, and what a pair of images yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes.arrays import Pixels


class StopReason(str, Enum):
    """Why a matcher with layers stopped before the last one."""

    LAST_LAYER = "LAST_LAYER"
    CONFIDENT = "CONFIDENT"  # further layers would hardly change a match
    NOTHING_MATCHABLE = "NOTHING_MATCHABLE"  # no point is left that could have a partner
    BUDGET = "BUDGET"  # the next layer would have taken longer than there was time for


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What an extractor found in one image. Only its own matcher looks inside."""

    keypoints: Pixels  # (N, 2)
    keypoint_scores: NDArray[np.float32]  # (N,), larger is better
    descriptors: NDArray[np.float32] | NDArray[np.uint8]  # (N, D)
    image_size: tuple[int, int]  # (width, height)
    scales: NDArray[np.float32] | None = None  # (N,), diameter in pixels
    orientations: NDArray[np.float32] | None = None  # (N,), radians, clockwise from +x

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Correspondences of one pair, and what it cost to find them."""

    points0: Pixels  # (M, 2), in the keyframe
    points1: Pixels  # (M, 2), in the current frame
    scores: NDArray[np.float32]  # (M,), in [0, 1], larger is better
    indices: NDArray[np.int32] | None = None  # (M, 2), keypoint numbers; None if detector-free
    layers_run: int | None = None  # None where the matcher has no layers
    stop_reason: StopReason | None = None  # likewise
    points_per_stage: NDArray[np.int32] | None = None  # (stages run, 2), points of either image that entered the stage
    stages_ms: Mapping[str, float] | None = None  # of the steps "embed", "stage1", ..., "head"

    def __len__(self) -> int:
        return len(self.points0)
