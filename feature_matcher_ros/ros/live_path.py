"""The keyframes of the live node's segment, as a path that grows."""

from __future__ import annotations

from typing import Any

from feature_matcher_ros.datatypes import Float, FrontEndResult
from feature_matcher_ros.ros.conversions import odom_from_cam, place_message
from feature_matcher_ros.ros.messages import MessageFactory, make_header

# Poses; a path that is longer loses its beginning. To send that many takes 6 ms (dds) or 15 ms (rclpy).
_MAX_PATH = 2000


class LivePath:
    """Remembers where the keyframes are, and what has been made of them for the last message."""

    def __init__(self, odom_frame_id: str) -> None:
        self._odom_frame_id = odom_frame_id
        self._segment: int | None = None
        self._places: list[tuple[int, Float]] = []  # stamp_ns, odom_from_cam (4, 4)
        self._made: list[Any] = []  # PoseStamped of the first of them: to make one takes longer than to send ten

    def follow(self, result: FrontEndResult) -> None:
        """Take in a frame with odometry; a new segment begins a new path."""
        assert result.odometry is not None
        if not result.is_keyframe:
            return
        if result.odometry.segment != self._segment:
            self._places, self._made, self._segment = [], [], result.odometry.segment
        self._places.append((result.stamp_ns, odom_from_cam(result)))
        num_lost = max(0, len(self._places) - _MAX_PATH)
        del self._places[:num_lost], self._made[:num_lost]

    def poses(self) -> list[Float]:
        """``odom_from_cam`` of the keyframes."""
        return [pose for _, pose in self._places]

    def message(self, make: MessageFactory, stamp_ns: int) -> Any:
        """The path as it is now."""
        new = self._places[len(self._made) :]
        self._made += [place_message(make, made_ns, pose, self._odom_frame_id) for made_ns, pose in new]
        header = make_header(make, stamp_ns, self._odom_frame_id)
        return make("nav_msgs/msg/Path", header=header, poses=list(self._made))
