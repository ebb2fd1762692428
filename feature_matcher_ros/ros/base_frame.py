"""Odometry of the robot's base, where it is not asked for the camera."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from feature_matcher_ros.datatypes import Float, FrontEndResult
from feature_matcher_ros.geometry import invert_pose, move_covariance
from feature_matcher_ros.ros.conversions import ODOM_FROM_WORLD, odom_from_cam
from feature_matcher_ros.ros.graph import Graph

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A result whose odometry and frame are those of the base, and where the camera is on it."""

    result: FrontEndResult
    base_from_cam: Float  # (4, 4)

    def odom_from_cam(self) -> Float:
        """The pose (4, 4) of the camera itself."""
        return odom_from_cam(self.result) @ self.base_from_cam


class BaseFrame:
    """Turns odometry of the camera into that of the base.

    The odometry frame is then where the base was at the segment's first frame, with the axes of the base. A camera
    may move on the robot, as far as tf follows it.
    """

    def __init__(self, graph: Graph, frame_id: str) -> None:
        self._graph, self._frame_id = graph, frame_id
        self._start: tuple[int, Float] | None = None  # the segment, and base_from_cam at its beginning
        self._is_missing_said = False
        graph.transform(frame_id, frame_id, 0)  # from now on it listens, to know the camera by the first frame

    def place(self, result: FrontEndResult) -> Placed | None:
        """The same result for the base; None where tf does not connect it with the camera."""
        base_from_cam = self._graph.transform(self._frame_id, result.frame_id, result.stamp_ns)
        if base_from_cam is None:
            self._say_missing(result.frame_id)
            return None
        if result.odometry is None:
            return Placed(result, base_from_cam)
        segment = result.odometry.segment
        if self._start is None or self._start[0] != segment:
            self._start = (segment, base_from_cam)
        odom_from_base = self._start[1] @ result.odometry.world_from_cam @ invert_pose(base_from_cam)
        known = result.odometry.covariance
        odometry = replace(
            result.odometry,
            world_from_cam=invert_pose(ODOM_FROM_WORLD) @ odom_from_base,
            covariance=None if known is None else move_covariance(base_from_cam, known),
        )
        return Placed(replace(result, frame_id=self._frame_id, odometry=odometry), base_from_cam)

    def _say_missing(self, frame_id: str) -> None:
        if not self._is_missing_said:
            _LOG.warning(
                "no odometry, path or /tf: tf does not connect '%s' and '%s'; publish the transform between them, or "
                "leave node.base_frame_id empty.",
                self._frame_id,
                frame_id,
            )
        self._is_missing_said = True
