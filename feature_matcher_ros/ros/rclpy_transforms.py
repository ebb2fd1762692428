"""Transforms between the frames of a robot, from tf2."""

from __future__ import annotations

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from tf2_ros import Buffer, TransformException, TransformListener

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.ros.messages import matrix_from_transform

# tf keeps ten seconds and passes over what is older: after a jump back that would be all that comes.
_BACK = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)


class RclpyTransforms:
    """Listens to ``/tf`` and ``/tf_static``; what moves is forgotten when simulated time jumps back."""

    def __init__(self, node: Node) -> None:
        # Not one that is given the node: in Jazzy it stumbles over the first jump, and the node's clock with it.
        self._buffer = Buffer()
        self._on_jump = node.get_clock().create_jump_callback(_BACK, post_callback=lambda _: self._buffer.clear())
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
