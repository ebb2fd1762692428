"""Collects the trajectory of a run, segment by segment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feature_matcher_ros.datatypes import Float, Frame, FrontEndResult, Trajectory
from feature_matcher_ros.evaluation.trajectories import write_tum


class TrajectoryLog:
    """Keeps every ``world_from_cam``; ``save`` writes one TUM file per segment."""

    def __init__(self) -> None:
        self._segments: dict[int, dict[int, Float]] = {}

    @property
    def num_segments(self) -> int:
        return len(self._segments)

    def write(self, frame: Frame, result: FrontEndResult) -> None:
        if result.odometry is not None:
            self._segments.setdefault(result.odometry.segment, {})[result.stamp_ns] = result.odometry.world_from_cam

    def save(self, folder: Path) -> None:
        """Write ``trajectory.tum``, the longest segment, and where there are more, ``trajectory_N.tum`` for each."""
        longest = max(self._segments.values(), key=len, default={})
        write_tum(folder / "trajectory.tum", _trajectory(longest))
        if len(self._segments) > 1:
            for segment, poses in self._segments.items():
                write_tum(folder / f"trajectory_{segment}.tum", _trajectory(poses))


def _trajectory(poses: dict[int, Float]) -> Trajectory:
    stamps_ns = np.array(sorted(poses), np.int64)
    matrices = [poses[stamp_ns] for stamp_ns in stamps_ns.tolist()]
    return Trajectory(stamps_ns, np.array(matrices, np.float64).reshape(-1, 4, 4))
