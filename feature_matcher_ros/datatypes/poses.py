"""Motions between frames, the places of frames, and how well they are known."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes.arrays import Float
from feature_matcher_ros.datatypes.frames import ScaleSource


class MotionType(str, Enum):
    """What kind of two-view geometry the correspondences show."""

    GENERAL = "GENERAL"
    PLANAR = "PLANAR"  # the camera translated, the points lie on one plane
    ROTATION_ONLY = "ROTATION_ONLY"  # no measurable translation
    STATIC = "STATIC"  # no measurable motion at all
    UNKNOWN = "UNKNOWN"


class Estimator(str, Enum):
    """The model that a pose was estimated by."""

    ESSENTIAL = "ESSENTIAL"  # matches alone
    HOMOGRAPHY = "HOMOGRAPHY"  # matches alone, of points on a plane
    ROTATION = "ROTATION"  # matches alone, which show no parallax
    ABSOLUTE_POSE = "ABSOLUTE_POSE"  # points of known place, measured or landmarks, seen again


@dataclass(frozen=True, slots=True, eq=False)
class MetricPoints:
    """Places of some pixels of one image in metres, measured by stereo or depth."""

    points: Float  # (M, 3), in the axes of the camera; NaN where unknown
    sigma_m: Float  # (M,), standard deviation of the depth; NaN where unknown
    scale_source: ScaleSource


@dataclass(frozen=True, slots=True, eq=False)
class RelativePose:
    """The motion between two frames, and how well it is known.

    ``covariance`` belongs to a small motion applied after the pose, in the axes of camera 1. Its order
    is that of REP-103, translation before rotation: (6, 6) where there is a ``direction`` or a ``baseline_m`` (even 0),
    and (3, 3), rotation alone, where there is neither. Units are metres and radians; without a ``scale_source`` the
    translation part is that of the unit direction, of rank 2, and says nothing about length.
    """

    rotation: Float  # (3, 3), cam1_from_cam0
    direction: Float | None  # (3,), unit; from camera 1 towards camera 0; None without translation
    baseline_m: float | None  # length of the translation; None without a scale source
    scale_source: ScaleSource
    motion_type: MotionType
    covariance: Float
    estimator: Estimator

    @property
    def cam1_from_cam0(self) -> Float:
        """(4, 4): metric if ``baseline_m`` is known, else with a translation of unit or zero length."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation
        if self.direction is not None:
            pose[:3, 3] = self.direction * (1.0 if self.baseline_m is None else self.baseline_m)
        return pose


@dataclass(frozen=True, slots=True, eq=False)
class Odometry:
    """The place of one frame in the world of its segment (the first frame of a segment is its origin).

    ``covariance`` belongs to a small motion of the camera, in its own axes, metres before radians. It adds up those of
    all steps since the first frame as if their errors were independent.
    """

    world_from_cam: Float  # (4, 4)
    scale_source: ScaleSource  # NONE: one unknown scale for the whole segment
    segment: int
    covariance: Float | None = None  # (6, 6); None without metric length, or where landmarks passed the length on


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Poses over time, stamps strictly increasing."""

    stamps_ns: NDArray[np.int64]  # (N,)
    world_from_cam: Float  # (N, 4, 4)

    def __len__(self) -> int:
        return len(self.stamps_ns)
