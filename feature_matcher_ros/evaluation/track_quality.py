"""How long points are followed over keyframes, and whether what is followed is one point of the world.

A track is seen in a keyframe if an inlier of a match with an earlier or from a later keyframe carries its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, Trajectory
from feature_matcher_ros.evaluation.metrics import associate

WINDOW = 10  # keyframes
CONSISTENT_PX = 3.0
_MIN_RAYS = 3  # any two rays of a plane through both cameras meet somewhere
_REWEIGHTED = 5
_NOWHERE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class KeyframeLink:
    """What a new keyframe has in common with an earlier one: the inliers of their match."""

    earlier_ns: int
    stamp_ns: int
    track_ids: NDArray[np.uint32]  # (N,)
    rays: NDArray[np.floating]  # (N, 3), unit, in the axes of the new keyframe's camera
    pixels: NDArray[np.floating]  # (N, 2), in the new keyframe


@dataclass(frozen=True, slots=True)
class TrackQuality:
    """Tracks of a run; what is None could not be measured."""

    num_keyframes: int
    num_tracks: int
    mean_length: float  # keyframes that see a track, of ``WINDOW`` in a row, over tracks seen twice in these or more
    longest: int  # of all keyframes
    num_checked: int  # tracks of three rays at known poses
    consistent_share: float | None  # of these: seen no further than ``CONSISTENT_PX`` from where one point would be
    median_error_px: float | None  # of the ray of a track that is furthest off


def track_quality(links: Sequence[KeyframeLink], poses: Trajectory | None) -> TrackQuality | None:
    """Measure the tracks of a run against ``poses`` at the keyframes; None without any track."""
    seen = _sightings(links)
    if len(seen) == 0:
        return None
    errors = np.zeros(0) if poses is None else reprojection_errors_px(links, poses)
    return TrackQuality(
        num_keyframes=int(seen[:, 1].max()) + 1,
        num_tracks=len(np.unique(seen[:, 0])),
        mean_length=_mean_length(seen),
        longest=int(np.unique(seen[:, 0], return_counts=True)[1].max()),
        num_checked=len(errors),
        consistent_share=float(np.mean(errors <= CONSISTENT_PX)) if len(errors) else None,
        median_error_px=float(np.median(errors)) if len(errors) else None,
    )


def reprojection_errors_px(links: Sequence[KeyframeLink], poses: Trajectory) -> Float:
    """For every track (T,) of enough rays: how far the one that fits its point least is off, in pixels of the image.

    The point is where the rays of a track come nearest to each other, or infinitely far away if that fits better.
    """
    centres, rays, ids, focal = [], [], [], []
    at = _pose_by_stamp([link.stamp_ns for link in links], poses)
    for link in links:
        if link.stamp_ns in at and len(link.track_ids) >= _MIN_RAYS:
            pose = at[link.stamp_ns]
            rays.append(np.asarray(link.rays, np.float64) @ pose[:3, :3].T)
            centres.append(np.broadcast_to(pose[:3, 3], (len(link.rays), 3)))
            ids.append(link.track_ids)
            focal.append(np.full(len(link.rays), _focal_px(link)))
    if not ids:
        return np.zeros(0)
    _, track, counts = np.unique(np.concatenate(ids), return_inverse=True, return_counts=True)
    enough = counts[track] >= _MIN_RAYS
    _, track = np.unique(track[enough], return_inverse=True)
    if len(track) == 0:
        return np.zeros(0)
    return _errors(np.concatenate(centres)[enough], np.concatenate(rays)[enough], np.concatenate(focal)[enough], track)


def _errors(centres: Float, rays: Float, focal_px: Float, track: NDArray[np.intp]) -> Float:
    """Largest error (T,) of each track, given the rays (R, 3) and their tracks (R,)."""
    points = _nearest_points(centres, rays, track)
    to_point = points[track] - centres
    to_infinity = _sums(rays, track)[track]
    largest = []
    for expected in (to_point, to_infinity):
        sine = np.linalg.norm(np.cross(rays, expected), axis=1)
        angle = np.arctan2(sine, np.sum(rays * expected, axis=1))
        is_elsewhere = np.linalg.norm(expected, axis=1) > _NOWHERE
        off_px = focal_px * np.where(is_elsewhere, angle, np.pi)  # a point in the camera itself explains nothing
        worst = np.zeros(track.max() + 1)
        np.maximum.at(worst, track, off_px)
        largest.append(worst)
    return np.minimum(*largest)


def _nearest_points(centres: Float, rays: Float, track: NDArray[np.intp]) -> Float:
    """Points (T, 3) at which the sum of squared angles to the rays is about least.

    Squared distances from the rays, over squared distances from the cameras of the round before, stand for them.
    """
    origin = _sums(centres, track) / np.bincount(track)[:, None]
    offsets = centres - origin[track]
    across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
    weights = np.ones(len(rays))
    for _ in range(_REWEIGHTED):
        weighted = across * weights[:, None, None]
        normal = _sums(weighted, track)
        normal += 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3)  # rays may be parallel
        right = _sums(np.einsum("rij,rj->ri", weighted, offsets), track)
        points = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
        weights = 1.0 / np.maximum(np.sum((points[track] - offsets) ** 2, axis=1), 1e-12)
    return points + origin


def _sums(values: Float, track: NDArray[np.intp]) -> Float:
    """Sums (T, ...) of the values (R, ...) of each track."""
    total = np.zeros((track.max() + 1, *values.shape[1:]))
    np.add.at(total, track, values)
    return total


def _focal_px(link: KeyframeLink) -> float:
    """Pixels for a unit of the image plane, as a line through the points of the link tells."""
    plane = link.rays[:, :2] / link.rays[:, 2:]
    plane, pixels = plane - plane.mean(axis=0), link.pixels - link.pixels.mean(axis=0)
    return float(np.sum(plane * pixels) / max(np.sum(plane**2), 1e-12))


def _pose_by_stamp(stamps_ns: Iterable[int], poses: Trajectory) -> dict[int, Float]:
    stamps = np.unique(np.fromiter(stamps_ns, np.int64))
    wanted = Trajectory(stamps, np.tile(np.eye(4), (len(stamps), 1, 1)))
    kept, found = associate(wanted, poses)
    return dict(zip(kept.stamps_ns.tolist(), found.world_from_cam, strict=True))


def _sightings(links: Sequence[KeyframeLink]) -> NDArray[np.int64]:
    """Track and number of the keyframe (N, 2), each once, in the order of the keyframes."""
    stamps = np.unique([stamp for link in links for stamp in (link.earlier_ns, link.stamp_ns)])
    parts = [np.zeros((0, 2), np.int64)]
    for link in links:
        sides = np.repeat(np.searchsorted(stamps, (link.earlier_ns, link.stamp_ns)), len(link.track_ids))
        parts.append(np.column_stack((np.tile(link.track_ids, 2).astype(np.int64), sides)))
    seen = np.unique(np.concatenate(parts)[:, ::-1], axis=0)
    return seen[:, ::-1]


def _mean_length(seen: NDArray[np.int64]) -> float:
    """Over all stretches of ``WINDOW`` keyframes, or of all of them if they are fewer."""
    last = int(seen[-1, 1])
    lengths = []
    for first in range(max(last + 2 - WINDOW, 1)):
        begin, end = np.searchsorted(seen[:, 1], (first, first + WINDOW))
        counts = np.unique(seen[begin:end, 0], return_counts=True)[1]
        lengths.append(counts[counts >= 2])
    return float(np.concatenate(lengths).mean())
