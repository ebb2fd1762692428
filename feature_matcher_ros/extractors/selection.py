"""Where points may lie, and which of many detected ones are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image, Pixels
from feature_matcher_ros.errors import MatcherError

# How unevenly the points may spread: with 3, pairs of outdoor and indoor sequences yield more inliers and
# better poses than with 1 (equal shares), 2 or 5, and than without any limit.
_MAX_CELL_SHARE = 3.0


def require_mask_of(image: Image, mask: Image | None) -> None:
    """Check that a mask, if there is one, has the size of its image.

    Raises:
        MatcherError: it has another one.
    """
    if mask is not None and mask.shape != image.shape[:2]:
        raise MatcherError(
            f"a mask of shape {mask.shape} cannot cover an image of {image.shape[1]}x{image.shape[0]} pixels: "
            "give a mask (height, width) of the size of the image."
        )


def inside_image(points: Pixels, size: tuple[int, int], mask: Image | None) -> NDArray[np.bool_]:
    """Whether points (N, 2) lie within an image (width, height), and not where it is masked out."""
    inside = np.all((points >= -0.5) & (points < np.array(size) - 0.5), axis=1)
    return inside if mask is None else inside & inside_mask(points, mask)


def inside_mask(keypoints: Pixels, mask: Image) -> NDArray[np.bool_]:
    """Whether the pixel under each keypoint (N, 2) is not 0 in the mask (H, W)."""
    height, width = mask.shape
    columns = np.clip(np.rint(keypoints[:, 0]).astype(np.intp), 0, width - 1)
    rows = np.clip(np.rint(keypoints[:, 1]).astype(np.intp), 0, height - 1)
    return mask[rows, columns] > 0


def drop_repeated(keypoints: Pixels) -> NDArray[np.intp]:
    """Indices of the points (N, 2) without those that lie exactly where an earlier one does, in order."""
    places = np.ascontiguousarray(keypoints, dtype=np.float32).view(np.complex64).ravel()
    _, first = np.unique(places, return_index=True)
    return np.sort(first)


def select_spread(keypoints: Pixels, scores: NDArray[np.float32], max_keypoints: int, cell_px: int) -> NDArray[np.intp]:
    """Choose at most ``max_keypoints`` of the points (N, 2) and return their indices, best score first.

    The image is cut into square cells, and none may hold more than ``_MAX_CELL_SHARE`` times what an
    even spread over the occupied cells would give it; if points are still missing then, the best of
    the rest fill up. ``cell_px = 0`` keeps the best wherever they are. Equal scores are taken in the
    order of the points. Strictly equal shares were tried and are worse: they trade the good points of
    a textured wall for noise on the road or in the sky.
    """
    by_score = np.argsort(-scores, kind="stable")
    if cell_px > 0 and len(scores) > max_keypoints:
        cells = _cell_numbers(keypoints[by_score], cell_px)
        quota = _MAX_CELL_SHARE * max_keypoints / len(np.unique(cells))
        beyond_quota = _rank_within_cell(cells) >= max(1.0, quota)
        by_score = by_score[np.sort(np.argsort(beyond_quota, kind="stable")[:max_keypoints])]
    return by_score[:max_keypoints]


def _cell_numbers(keypoints: Pixels, cell_px: int) -> NDArray[np.int64]:
    columns, rows = np.floor((keypoints + 0.5) / cell_px).astype(np.int64).T
    return rows * (columns.max() + 1) + columns


def _rank_within_cell(cells: NDArray[np.int64]) -> NDArray[np.intp]:
    """For each point, how many of the points before it lie in the same cell."""
    grouped = np.argsort(cells, kind="stable")
    is_first = np.diff(cells[grouped], prepend=cells[grouped[0]] - 1) != 0
    position = np.arange(len(cells))
    ranks = np.empty(len(cells), dtype=np.intp)
    ranks[grouped] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return ranks
