"""How an image moves at any point, estimated from the matches around it.

A match says how its own pixel moves. A few pixels away the image moves a little differently: it turns, grows, and shows
another depth. Local linear regression (Cleveland 1979, doi 10.1080/01621459.1979.10481038) over the nearest matches
estimates by how much, and averages their noise; matches of another surface are left out.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, Matches, Pixels

_NEIGHBOURS, _MAX_REACH_PX = 32, 40.0
# Two matches lie on one surface if their displacements differ by at most this, and this much per pixel between them.
_NOISE_PX, _MAX_SLOPE = 2.0, 0.3
_STIFFNESS = 0.002  # pulls slopes towards zero as a match at the edge of the neighbourhood would: for too few matches
_EXACT_TREE = 4  # of FLANN: one k-d tree
_NUM_SOLVED = 3  # a displacement, and its slopes along x and y


def displacements_at(points: Pixels, matches: Matches) -> Pixels:
    """Displacement (M, 2) from image 0 to image 1 at one point (M, 2) near each match, of the surface of that match."""
    if len(matches) == 0:
        return np.zeros((0, 2), np.float32)
    given = matches.points0.astype(np.float64)
    moves = matches.points1 - given
    numbers, distances = nearest_points(points, matches.points0, _NEIGHBOURS)
    neighbours, differences = given[numbers], moves[numbers] - moves[:, None]
    apart = np.linalg.norm(neighbours - given[:, None], axis=2)
    is_alike = np.linalg.norm(differences, axis=2) <= _NOISE_PX + _MAX_SLOPE * apart
    reach = np.clip(distances[:, -1:], 1e-6, _MAX_REACH_PX)
    weights = is_alike * np.maximum(1.0 - (distances / reach) ** 3, 0.0) ** 3
    return (moves + _fitted(neighbours - points[:, None], differences, weights, reach)).astype(np.float32)


def _fitted(offsets: Float, values: Float, weights: Float, reach: Float) -> Float:
    """Values (M, 2) at the offset 0 of planes fitted to ``values`` (M, K, 2) over ``offsets`` (M, K, 2).

    They are 0 where no value has weight.
    """
    design = np.ones((*weights.shape, _NUM_SOLVED))
    design[:, :, 1:] = offsets / reach[:, :, None]
    weighted = (design * weights[:, :, None]).transpose(0, 2, 1)
    normal = weighted @ design + np.diag([1e-9, _STIFFNESS, _STIFFNESS])
    return cast(Float, np.linalg.solve(normal, weighted @ values)[:, 0])


def nearest_points(points: Pixels, among: Pixels, count: int) -> tuple[NDArray[np.int32], Float]:
    """Numbers and distances (N, K) of the nearest of some points (at least one), nearest first; K at most ``count``."""
    tree = cv2.flann.Index(np.ascontiguousarray(among, np.float32), {"algorithm": _EXACT_TREE})
    queries = np.ascontiguousarray(points, np.float32)
    numbers, squares = tree.knnSearch(queries, min(count, len(among)), params={"checks": -1})
    return cast("NDArray[np.int32]", numbers), np.sqrt(squares, dtype=np.float64)
