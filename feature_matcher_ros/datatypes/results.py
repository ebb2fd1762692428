"""What became of a pair and of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes.matches import Matches
from feature_matcher_ros.datatypes.poses import MotionType, Odometry, RelativePose


class Status(str, Enum):
    """What became of one frame. A result carries a pose if, and only if, this is ``OK``."""

    OK = "OK"
    FIRST_FRAME = "FIRST_FRAME"  # became the first keyframe: there is nothing to match it with
    REPEATED_STAMP = "REPEATED_STAMP"  # has the stamp of the frame before: nothing was done with it
    GATED = "GATED"  # the gate saw too little change for a match to be worth its time
    TOO_FEW_FEATURES = "TOO_FEW_FEATURES"
    TOO_FEW_MATCHES = "TOO_FEW_MATCHES"
    TOO_FEW_INLIERS = "TOO_FEW_INLIERS"
    DEGENERATE = "DEGENERATE"  # the correspondences leave more than one motion possible


class TrackingState(str, Enum):
    """How the stream as a whole is doing."""

    INITIALIZING = "INITIALIZING"
    OK = "OK"
    LOST = "LOST"  # the newest frame could not be connected to any recent keyframe
    RECOVERED = "RECOVERED"  # connected again to an old keyframe after being lost


class KeyframeReason(str, Enum):
    """Why the current frame became the keyframe."""

    FIRST_FRAME = "FIRST_FRAME"
    PARALLAX = "PARALLAX"
    SURVIVAL = "SURVIVAL"  # too few of the keyframe's points are still seen
    ROTATION = "ROTATION"
    TIME = "TIME"
    RECOVERY = "RECOVERY"  # connected to an old keyframe after being lost
    RESTART = "RESTART"  # lost for good: a new, unconnected beginning
    TIME_JUMP = "TIME_JUMP"  # stamps ran backwards: likewise


@dataclass(frozen=True, slots=True, eq=False)
class PoseEstimate:
    """The outcome of ``estimate_relative_pose``: a pose, or the reason why there is none."""

    status: Status
    pose: RelativePose | None  # None if, and only if, status is not OK
    motion_type: MotionType
    inliers: NDArray[np.bool_]  # (M,), the matches that agree with the motion

    @property
    def num_inliers(self) -> int:
        return int(np.count_nonzero(self.inliers))

    @property
    def inlier_ratio(self) -> float:
        return self.num_inliers / len(self.inliers) if len(self.inliers) else 0.0


@dataclass(frozen=True, slots=True)
class GateMeasurement:
    """What optical flow from the keyframe shows, at a fraction of the price of a match."""

    parallax_px: float  # median displacement left after the best rotation is taken away
    displacement_px: float  # median displacement
    survival: float  # share of the keyframe's points that are still seen, in [0, 1]
    rotation_deg: float


@dataclass(frozen=True, slots=True, eq=False)
class FrontEndResult:
    """All there is to say about one frame."""

    stamp_ns: int
    frame_id: str
    status: Status
    state: TrackingState
    motion_type: MotionType
    keyframe_stamp_ns: int | None  # of the keyframe this frame was compared with
    keyframe_reason: KeyframeReason | None  # why this frame is the new keyframe; None if it is not
    gate: GateMeasurement | None
    matches: Matches | None
    inliers: NDArray[np.bool_] | None  # (M,)
    track_ids: NDArray[np.uint32] | None  # (M,), the same id for the same point across keyframes
    pose: RelativePose | None
    odometry: Odometry | None
    stages_ms: Mapping[str, float]

    @property
    def is_keyframe(self) -> bool:
        return self.keyframe_reason is not None
