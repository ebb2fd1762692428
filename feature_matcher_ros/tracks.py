"""Stable identities for correspondences, across keyframes and with any matcher.

A track is one point of the world seen again and again. Matchers with keypoints name it by keypoint
number; matchers without repeatable keypoints by position: a match joins the nearest track within a merge
radius in the keyframe, and is moved onto the track's point: there in the keyframe, and to where the image
around it moves in the current frame. Without that the point would wander from keyframe to keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.config import TrackConfig
from feature_matcher_ros.datatypes import Matches, Pixels
from feature_matcher_ros.displacement_field import displacements_at, nearest_points

Ids = NDArray[np.uint32]

_LAST_ID = 2**32 - 1  # 0 means no track to those who read the topics
_CANDIDATES = 8  # tracks near a match of which it may join one


@dataclass(frozen=True, slots=True, eq=False)
class TrackTable:
    """The tracks known in one keyframe."""

    ids: Ids  # (T,)
    points: Pixels  # (T, 2)
    keypoints: NDArray[np.int32]  # (T,) keypoint numbers; all -1 with a detector-free matcher

    @staticmethod
    def empty() -> TrackTable:
        return TrackTable(np.zeros(0, np.uint32), np.zeros((0, 2), np.float32), np.zeros(0, np.int32))


class TrackRegistry:
    """Gives every match its track id, and every new track a new one. Ids start at 1, and again after the last one."""

    def __init__(self, config: TrackConfig) -> None:
        self._merge_radius_px = config.merge_radius_px
        self._num_given = 0

    def label(self, table: TrackTable, matches: Matches) -> tuple[Ids, TrackTable]:
        """Return the track id of every match (M,), and the keyframe's table with the new tracks added."""
        if matches.indices is None:
            rows = _rows_by_position(table.points, matches.points0, self._merge_radius_px)
        else:
            rows = _rows_by_keypoint(table.keypoints, matches.indices[:, 0])
        new = np.flatnonzero(rows < 0)
        new_ids = (np.arange(self._num_given, self._num_given + len(new)) % _LAST_ID + 1).astype(np.uint32)
        self._num_given += len(new)
        ids = new_ids if len(new) == len(rows) else table.ids.take(rows)
        ids[new] = new_ids
        return ids, _extended(table, new_ids, matches.points0.take(new, axis=0), _keypoints(matches, 0).take(new))

    @staticmethod
    def anchored(table: TrackTable, ids: Ids, matches: Matches) -> Matches:
        """The matches at the points of their tracks, given what ``label`` returned; with keypoint numbers as they are.

        The current frame's points are where the matches around a track say that it went, and so less noisy.
        """
        if matches.indices is not None:
            return matches
        order = np.argsort(table.ids)
        anchors = table.points[order[np.searchsorted(table.ids, ids, sorter=order)]]
        return replace(matches, points0=anchors, points1=anchors + displacements_at(anchors, matches))

    @staticmethod
    def carry(ids: Ids, matches: Matches, inliers: NDArray[np.bool_]) -> TrackTable:
        """Return the table of the current frame as a new keyframe: identities pass on through inliers alone."""
        numbers = np.flatnonzero(inliers)
        keypoints = _keypoints(matches, 1).take(numbers)
        return TrackTable(ids.take(numbers), matches.points1.take(numbers, axis=0), keypoints)


def _keypoints(matches: Matches, side: int) -> NDArray[np.int32]:
    if matches.indices is None:
        return np.full(len(matches), -1, np.int32)
    return matches.indices[:, side].astype(np.int32)


def _extended(table: TrackTable, ids: Ids, points: Pixels, keypoints: NDArray[np.int32]) -> TrackTable:
    return TrackTable(
        np.concatenate([table.ids, ids]),
        np.concatenate([table.points, points]),
        np.concatenate([table.keypoints, keypoints]),
    )


def _rows_by_keypoint(known: NDArray[np.int32], keypoints: NDArray[np.int32]) -> NDArray[np.int64]:
    """Row of each keypoint in ``known``, or -1."""
    if len(known) == 0 or len(keypoints) == 0:
        return np.full(len(keypoints), -1, np.int64)
    row_of = np.full(1 + max(int(known.max()), int(keypoints.max())), -1, np.int64)
    row_of[known] = np.arange(len(known))
    return row_of[keypoints]


def _rows_by_position(anchors: Pixels, points: Pixels, radius_px: float) -> NDArray[np.int64]:
    """Row of the anchor that each point joins, or -1: the nearest two within the radius first, then of what is left."""
    rows = np.full(len(points), -1, np.int64)
    if len(anchors) == 0 or len(points) == 0:
        return rows
    candidates, distances = nearest_points(points, anchors, _CANDIDATES)
    order = np.argsort(distances, axis=None, kind="stable")
    order = order[: np.searchsorted(distances.ravel()[order], radius_px, side="right")]
    is_free = np.ones(len(anchors), np.bool_)
    numbers = order // candidates.shape[1]
    for point, anchor in zip(numbers.tolist(), candidates.ravel()[order].tolist(), strict=True):
        if rows[point] < 0 and is_free[anchor]:
            rows[point], is_free[anchor] = anchor, False
    return rows
