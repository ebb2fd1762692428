"""When a frame is matched and becomes the keyframe, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from feature_matcher_ros.config import KeyframeConfig
from feature_matcher_ros.datatypes import Features, Frame, GateMeasurement, KeyframeReason, Odometry
from feature_matcher_ros.gate import OpticalFlowGate
from feature_matcher_ros.landmarks import Landmarks
from feature_matcher_ros.tracks import TrackTable

# Below this median displacement the camera stands still as far as optical flow can tell.
_STANDSTILL_PX = 2.0


@dataclass(slots=True, eq=False)
class Keyframe:
    """The frame that others are matched to, with what is known about its points."""

    frame: Frame
    features: Features
    gate: OpticalFlowGate
    odometry: Odometry
    tracks: TrackTable
    landmarks: Landmarks


def reason_for_keyframe(config: KeyframeConfig, gate: GateMeasurement, age_ns: int) -> KeyframeReason | None:
    """Return why the current frame should replace a keyframe of this age, or None."""
    if gate.survival < config.min_survival:
        return KeyframeReason.SURVIVAL
    if gate.parallax_px >= config.min_parallax_px:
        return KeyframeReason.PARALLAX
    if gate.rotation_deg >= config.max_rotation_deg:
        return KeyframeReason.ROTATION
    if age_ns >= config.max_keyframe_age_ms * 1e6 and gate.displacement_px >= _STANDSTILL_PX:
        return KeyframeReason.TIME
    return None


class RecentKeyframes:
    """The keyframe, and the good ones before it to which a lost camera may return."""

    def __init__(self, max_older: int) -> None:
        self._older: deque[Keyframe] = deque(maxlen=max_older)
        self._newest: Keyframe | None = None
        self._turn = 0

    @property
    def newest(self) -> Keyframe | None:
        return self._newest

    def push(self, keyframe: Keyframe) -> None:
        if self._newest is not None and self._newest.odometry.segment == keyframe.odometry.segment:
            self._older.appendleft(self._newest)
        else:
            self._older.clear()
        self._newest, self._turn = keyframe, 0

    def candidates(self) -> Iterator[Keyframe]:
        """Yield the newest keyframe and, to bound the effort per frame, one of the older ones in turn."""
        if self._newest is not None:
            yield self._newest
        if self._older:
            self._turn = (self._turn + 1) % len(self._older)
            yield self._older[self._turn - 1]
