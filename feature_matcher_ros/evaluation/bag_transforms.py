"""Where coordinate frames stand to each other, from ``/tf`` and ``/tf_static``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from feature_matcher_ros.datatypes import Float, Trajectory
from feature_matcher_ros.evaluation.trajectories import interpolate_trajectory, trajectory_from
from feature_matcher_ros.geometry import invert_pose
from feature_matcher_ros.ros.messages import matrix_from_transform, stamp_ns_of

_MAX_GAP_NS = 200_000_000  # poses of a moving frame further apart than this are not joined


class TransformTree:
    """Frames, their parents, and their poses in them over time."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._samples: dict[str, list[tuple[int, Float]]] = {}  # child -> stamp and parent_from_child

    def add(self, transforms: Iterable[Any], *, are_fixed: bool = False) -> None:
        """Add ``geometry_msgs/TransformStamped``; one that is no rotation is left out.

        A fixed one takes the place of what was known of its frame, and so does one to another parent.
        """
        for stamped in transforms:
            q = stamped.transform.rotation
            if not 0.5 < q.x**2 + q.y**2 + q.z**2 + q.w**2 < 2.0:
                continue
            parent, child = clean_frame_id(stamped.header.frame_id), clean_frame_id(stamped.child_frame_id)
            if are_fixed or self._parents.get(child) != parent:
                self._parents[child], self._samples[child] = parent, []
            sample = (stamp_ns_of(stamped.header), matrix_from_transform(stamped.transform))
            self._samples[child].append(sample)

    def copy(self) -> TransformTree:
        """Return a tree that can grow without this one."""
        tree = TransformTree()
        tree._parents = dict(self._parents)
        tree._samples = {child: list(samples) for child, samples in self._samples.items()}
        return tree

    def chain_to_root(self, frame_id: str) -> list[str]:
        """The frame, its parent and so on up to the root; the frame alone if nothing is known of it."""
        chain = [clean_frame_id(frame_id)]
        while (parent := self._parents.get(chain[-1])) is not None and parent not in chain:
            chain.append(parent)
        return chain

    def fixed_transform(self, target: str, source: str) -> Float | None:
        """Return ``target_from_source`` (4, 4), every pose taken as fixed; None if nothing connects them.

        Frames without a name are not the same one.
        """
        up_target, up_source = self.chain_to_root(target), self.chain_to_root(source)
        common = next((frame for frame in up_source if frame in up_target and frame), None)
        if common is None:
            return None
        return invert_pose(self._fixed_from(common, up_target)) @ self._fixed_from(common, up_source)

    def trajectory(self, frame_id: str) -> Trajectory | None:
        """Return ``root_from_frame`` at the times of the pose that is known most often; None if it never moves."""
        children = self.chain_to_root(frame_id)[:-1]
        moving = [child for child in children if _moves(self._samples[child])]
        if not moving:
            return None
        most = max(moving, key=lambda child: len(self._samples[child]))
        stamps = trajectory_from(self._samples[most]).stamps_ns
        poses = np.broadcast_to(np.eye(4), (len(stamps), 4, 4))
        for child in children:
            if child in moving:
                known = trajectory_from(self._samples[child])
                answered, steps = interpolate_trajectory(known, stamps, _MAX_GAP_NS)
                stamps, poses = stamps[answered], steps @ poses[answered]
            else:
                poses = self._samples[child][0][1] @ poses
        return Trajectory(stamps, poses) if len(stamps) else None

    def _fixed_from(self, ancestor: str, chain: list[str]) -> Float:
        """Return ``ancestor_from_first`` along a chain that begins with the first."""
        pose = np.eye(4)
        for child in chain[: chain.index(ancestor)]:
            pose = self._samples[child][0][1] @ pose
        return pose


def clean_frame_id(frame_id: str) -> str:
    """ROS 1 wrote a slash before the names of frames, which tf2 refuses to look for."""
    return frame_id.lstrip("/")


def _moves(samples: list[tuple[int, Float]]) -> bool:
    return any(not np.array_equal(pose, samples[0][1]) for _, pose in samples)
