"""Tracked points as VINS-Fusion takes them: ``sensor_msgs/PointCloud`` with nine channels.

The points lie on the plane z = 1 of the camera. The channels are id, camera, pixel u v, velocity on that plane
vx vy (per second), and three for a true position, which are zero: VINS-Fusion reads all nine where there are
more than five. Numbers of channels are float32, in which whole numbers are exact up to 2^24, so ids begin again there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Camera, FrontEndResult
from feature_matcher_ros.geometry import normalize_points
from feature_matcher_ros.ros.messages import MessageFactory, make_header

CHANNELS = ("id", "camera_id", "u", "v", "vx", "vy", "gx", "gy", "gz")
_NUM_IDS = 1 << 24


class VinsFeatures:
    """Makes the cloud of each matched frame, and remembers the last one for the velocities."""

    def __init__(self) -> None:
        self._last_ids: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._last_points: NDArray[np.float64] = np.zeros((0, 2))
        self._last_ns = 0

    def message(self, make: MessageFactory, result: FrontEndResult, camera: Camera) -> Any:
        """The tracked inliers of a frame that has matches; a track seen for the first time has no velocity."""
        assert result.matches is not None and result.inliers is not None and result.track_ids is not None
        chosen = result.inliers & (result.track_ids != 0)
        ids, pixels = result.track_ids[chosen], result.matches.points1[chosen]
        points = normalize_points(pixels, camera)
        velocities = self._velocities(ids, points, result.stamp_ns)
        columns = np.zeros((len(CHANNELS), len(ids)), np.float32)
        columns[0], columns[2:4], columns[4:6] = ids % _NUM_IDS, pixels.T, velocities.T
        self._last_ids, self._last_points, self._last_ns = ids, points, result.stamp_ns
        return make(
            "sensor_msgs/msg/PointCloud",
            header=make_header(make, result.stamp_ns, result.frame_id),
            points=[make("geometry_msgs/msg/Point32", x=x, y=y, z=1.0) for x, y in points.tolist()],
            channels=[
                make("sensor_msgs/msg/ChannelFloat32", name=name, values=values)
                for name, values in zip(CHANNELS, columns, strict=True)
            ],
        )

    def _velocities(self, ids: NDArray[np.uint32], points: NDArray[np.float64], stamp_ns: int) -> NDArray[np.float64]:
        elapsed_s = (stamp_ns - self._last_ns) * 1e-9
        velocities = np.zeros_like(points)
        _, now, before = np.intersect1d(ids, self._last_ids, return_indices=True)
        if elapsed_s > 0:
            velocities[now] = (points[now] - self._last_points[before]) / elapsed_s
        return velocities
