"""Tracked points with a known place, which pass the length of one translation on to the next.

A single camera measures the direction of a translation, not its length. But the same track seen by
two pairs has one depth, so the lengths of all translations of a segment are known up to one common
factor: the trajectory has the right shape and, without stereo or depth, no metric size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from feature_matcher_ros.datatypes import (
    Float,
    MetricPoints,
    PoseEstimate,
    RelativePose,
    ScaleSource,
)
from feature_matcher_ros.geometry import homogeneous, transform_points, triangulate_depth
from feature_matcher_ros.tracks import Ids

# Rays that meet at less than this angle do not tell a depth.
_MIN_SINE2 = float(np.sin(np.radians(0.7)) ** 2)
_MIN_SHARED = 8
# Triangulated depth is about this good, after some parallax.
_RELATIVE_SIGMA = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """Points of one keyframe whose depth is known, in its own axes."""

    ids: Ids  # (L,), sorted
    points: Float  # (L, 3), metres, or the segment's own unit

    @staticmethod
    def empty() -> Landmarks:
        return Landmarks(np.zeros(0, np.uint32), np.zeros((0, 3)))

    def to_points(self, ids: Ids) -> MetricPoints:
        """Return the landmarks of the given tracks as measured points, in the unit of the segment."""
        points = self.find(ids)
        return MetricPoints(points, _RELATIVE_SIGMA * points[:, 2], ScaleSource.NONE)

    def find(self, ids: Ids) -> Float:
        """Points (M, 3) of the given tracks, NaN where unknown."""
        if len(self.ids) == 0:
            return np.full((len(ids), 3), np.nan)
        rows = np.minimum(self.ids.searchsorted(ids), len(self.ids) - 1)
        points = self.points.take(rows, axis=0)
        points[self.ids.take(rows) != ids] = np.nan
        return points


def without_length(estimate: PoseEstimate) -> PoseEstimate:
    """Remove the length, in the unit of a segment, of a pose that was found with the help of landmarks."""
    pose = estimate.pose
    if pose is None or pose.baseline_m is None:
        return estimate
    if pose.direction is None:
        unscaled = replace(pose, baseline_m=None, covariance=pose.covariance[3:, 3:])
    else:
        jacobian = np.eye(6)
        jacobian[:3, :3] = (np.eye(3) - np.outer(pose.direction, pose.direction)) / pose.baseline_m
        unscaled = replace(pose, baseline_m=None, covariance=jacobian @ pose.covariance @ jacobian.T)
    return replace(estimate, pose=unscaled)


def triangulate_unit(pose: RelativePose, x0: Float, x1: Float) -> Float:
    """Points (M, 3) in the axes of camera 0 for a baseline of length 1; NaN where depth cannot be told.

    ``x0`` and ``x1`` (M, 2) are normalised coordinates.
    """
    if pose.direction is None:
        return np.full((len(x0), 3), np.nan)
    rays0 = homogeneous(x0)
    turned = pose.rotation @ rays0
    depth, sine2 = triangulate_depth(turned, homogeneous(x1), pose.direction)
    known = (sine2 > _MIN_SINE2) & (depth > 0) & (depth * turned[2] + pose.direction[2] > 0)
    return (rays0 * np.where(known, depth, np.nan)).T


def baseline_length(pose: RelativePose, known: Float, normalized1: Float) -> float | None:
    """Length of the translation under which ``known`` (M, 3), in the axes of camera 0, is seen at ``normalized1``.

    With rotation R, unit direction d and ray r, ``r x (R X + length * d) = 0`` gives one length per point; the median
    is taken, weighted by how much a point's ray tells about it. None where too few points are known.
    """
    assert pose.direction is not None
    usable = np.flatnonzero(np.isfinite(known[:, 2]))
    if len(usable) < _MIN_SHARED:
        return None
    turned, rays = pose.rotation @ known.take(usable, axis=0).T, homogeneous(normalized1.take(usable, axis=0))
    rays /= np.sqrt(np.einsum("im,im->m", rays, rays))
    # Products of two cross products with r, by Lagrange's identity.
    along = pose.direction @ rays
    across2 = np.maximum(1.0 - along * along, 1e-18)
    lengths = (along * np.einsum("im,im->m", rays, turned) - pose.direction @ turned) / across2
    return max(0.0, _weighted_median(lengths, np.sqrt(across2 / np.einsum("im,im->m", turned, turned))))


def _weighted_median(values: Float, weights: Float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, cumulative[-1] / 2.0)]])


def carry_landmarks(ids: Ids, known: Float, measured: Float, cam1_from_cam0: Float) -> Landmarks:
    """Return the landmarks of the current frame as a new keyframe: measured now, or known from before."""
    points = np.where(np.isnan(measured), known, measured)
    return collect(ids, transform_points(cam1_from_cam0, points))


def collect(ids: Ids, points: Float) -> Landmarks:
    """Return the landmarks of those tracks whose point is known."""
    order = ids.argsort()
    order = order[np.isfinite(points[:, 2]).take(order)]
    return Landmarks(ids.take(order), points.take(order, axis=0))
