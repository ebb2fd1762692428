"""Chaining relative poses into a trajectory, without ever inventing a length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import (
    Float,
    MetricPoints,
    Odometry,
    PoseEstimate,
    RelativePose,
    ScaleSource,
)
from feature_matcher_ros.geometry import invert_pose, move_covariance, pose_from
from feature_matcher_ros.keyframes import Keyframe
from feature_matcher_ros.landmarks import Landmarks, baseline_length, carry_landmarks, collect, triangulate_unit
from feature_matcher_ros.tracks import Ids

_MIN_FIRST_LANDMARKS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The current frame in the world of its segment, and the landmarks it would have as a keyframe."""

    odometry: Odometry
    landmarks: Landmarks


def first_place(scale_source: ScaleSource, segment: int) -> Odometry:
    """The origin of a segment, which is known exactly."""
    covariance = None if scale_source is ScaleSource.NONE else np.zeros((6, 6))
    return Odometry(np.eye(4), scale_source, segment, covariance)


def chain(
    keyframe: Keyframe,
    normalized0: Float,
    normalized1: Float,
    ids: Ids,
    metric: MetricPoints | None,
    estimate: PoseEstimate,
) -> Step | None:
    """Append one pair to the trajectory; None if its length cannot be related to that of the pairs before.

    The length of the translation is the measured one where stereo or depth gave it; else the one under
    which the landmarks of the keyframe are seen where they are; else, for the first translation of a
    segment, 1, which then defines the keyframe's landmarks and with them the segment's unit.

    Args:
        keyframe: the frame 0 of the pair; receives its first landmarks.
        normalized0: (M, 2) undistorted normalised coordinates of the matches in the keyframe.
        normalized1: (M, 2) in the current frame.
        ids: (M,) of the tracks that the matches belong to.
        metric: where the matches are in metres, if measured.
        estimate: the motion of the pair, with a pose.
    """
    pose = estimate.pose
    assert pose is not None
    before = keyframe.odometry
    if metric is not None and before.scale_source is ScaleSource.NONE:
        return None  # metres cannot continue a segment of arbitrary unit
    inside = np.flatnonzero(estimate.inliers)
    ids, x0, x1 = ids.take(inside), normalized0.take(inside, axis=0), normalized1.take(inside, axis=0)
    known = keyframe.landmarks.find(ids)
    if metric is not None:
        points = metric.points.take(inside, axis=0)
        known = np.where(np.isnan(points), known, points)
    unit = triangulate_unit(pose, x0, x1)
    if len(keyframe.landmarks.ids) == 0 and before.scale_source is ScaleSource.NONE and pose.direction is not None:
        if np.count_nonzero(np.isfinite(unit[:, 2])) < _MIN_FIRST_LANDMARKS:
            return None
        keyframe.landmarks = collect(ids, unit)
        known = unit
    length = _length(pose, known, x1)
    if length is None:
        return None
    cam1_from_cam0 = pose_from(pose.rotation, np.zeros(3) if pose.direction is None else pose.direction * length)
    # Without a length nothing was triangulated: what was known stays where it was.
    measured = unit * length if metric is None and length > 0.0 else known
    landmarks = carry_landmarks(ids, known, measured, cam1_from_cam0)
    place = Odometry(
        before.world_from_cam @ invert_pose(cam1_from_cam0),
        before.scale_source,
        before.segment,
        covariance_after(before.covariance, pose),
    )
    return Step(place, landmarks)


def _length(pose: RelativePose, known: Float, normalized1: Float) -> float | None:
    if pose.direction is None:
        return 0.0
    if pose.baseline_m is not None:
        return pose.baseline_m
    return baseline_length(pose, known, normalized1)


def covariance_after(before: Float | None, pose: RelativePose) -> Float | None:
    """Covariance of the current place from that of the keyframe's; None where either step is unknown.

    Their errors count as independent, though both pairs that a keyframe is in share the noise of its points.
    """
    if before is None or pose.baseline_m is None:
        return None
    return move_covariance(pose.cam1_from_cam0, before) + pose.covariance
