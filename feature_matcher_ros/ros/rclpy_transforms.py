"""Transforms between the frames of a robot, from tf2."""

from __future__ import annotations

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from tf2_ros import Buffer, TransformException, TransformListener

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.ros.messages import matrix_from_transform

# tf passes over what is older than this behind the newest: after a jump back that would be all that comes.
_KEPT = Duration(seconds=10)
_BACK = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)


class _RecentTransforms(Buffer):
    """Forgets what moves when simulated time jumps back, and takes in nothing that was on its way from before."""

    def __init__(self, clock: Clock) -> None:
        # The base class is not given the node: in Jazzy it stumbles over the first jump, and the node's clock with it.
        super().__init__(_KEPT)
        self._clock = clock
        self._on_jump = clock.create_jump_callback(_BACK, post_callback=lambda _: self.clear())

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        stamp = Time.from_msg(transform.header.stamp, self._clock.clock_type)
        if not self._clock.ros_time_is_active or stamp - self._clock.now() <= _KEPT:
            super().set_transform(transform, authority)


class RclpyTransforms:
    """Listens to ``/tf`` and ``/tf_static``."""

    def __init__(self, node: Node) -> None:
        self._buffer = _RecentTransforms(node.get_clock())
        self._listener = TransformListener(self._buffer, node, spin_thread=False)

    def transform(self, target: str, source: str, stamp_ns: int) -> Float | None:
        """``target_from_source`` (4, 4) at a time, else the latest one; None where nothing connects them."""
        found = self._at(target, source, Time(nanoseconds=stamp_ns))
        return self._at(target, source, Time()) if found is None else found

    def _at(self, target: str, source: str, time: Time) -> Float | None:
        try:
            return matrix_from_transform(self._buffer.lookup_transform(target, source, time).transform)
        except TransformException:  # not there yet, or never
            return None
