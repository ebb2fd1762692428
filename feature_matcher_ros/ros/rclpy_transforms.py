"""Transforms between the frames of a robot, from tf2."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.time import Time
from tf2_ros import Buffer, TransformException, TransformListener

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.ros.messages import matrix_from_transform


class RclpyTransforms:
    """Listens to ``/tf`` and ``/tf_static``."""

    def __init__(self, node: Node) -> None:
        self._buffer = Buffer()
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
