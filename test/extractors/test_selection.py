"""Which points are kept, against the same rule written out point by point."""

from collections import Counter

import numpy as np
import pytest

from feature_matcher_ros.extractors.selection import drop_repeated, inside_mask, select_spread

RNG = np.random.default_rng(5)


def slow_selection(keypoints: np.ndarray, scores: np.ndarray, max_keypoints: int, cell_px: int) -> list[int]:
    by_score = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    if len(scores) <= max_keypoints or cell_px == 0:
        return by_score[:max_keypoints]
    cells = [tuple(np.floor((keypoint + 0.5) / cell_px).tolist()) for keypoint in keypoints]
    quota = max(1.0, 3.0 * max_keypoints / len(set(cells)))
    taken: Counter[tuple[float, ...]] = Counter()
    within, beyond = [], []
    for i in by_score:
        (within if taken[cells[i]] < quota else beyond).append(i)
        taken[cells[i]] += 1
    chosen = (within + beyond)[:max_keypoints]
    return sorted(chosen, key=by_score.index)


@pytest.mark.parametrize("max_keypoints", [1, 30, 100, 399, 1000])
@pytest.mark.parametrize("cell_px", [0, 1, 32, 1000])
def test_the_same_points_are_kept_in_the_same_order(max_keypoints: int, cell_px: int) -> None:
    crowded = RNG.normal([100, 80], 15, size=(300, 2))
    keypoints = np.concatenate([crowded, RNG.uniform(0, 400, size=(100, 2))]).astype(np.float32)
    scores = np.round(RNG.random(400), 2).astype(np.float32)  # some are equal
    chosen = select_spread(keypoints, scores, max_keypoints, cell_px)
    assert chosen.tolist() == slow_selection(keypoints, scores, max_keypoints, cell_px)


def test_a_crowded_cell_leaves_room_for_the_others() -> None:
    crowded, sparse = RNG.uniform(0, 32, size=(500, 2)), RNG.uniform(32, 320, size=(200, 2))
    keypoints = np.concatenate([crowded, sparse]).astype(np.float32)
    scores = np.concatenate([np.full(500, 2.0), np.full(200, 1.0)]).astype(np.float32)
    assert np.count_nonzero(select_spread(keypoints, scores, 200, 0) >= 500) == 0
    assert np.count_nonzero(select_spread(keypoints, scores, 200, 32) >= 500) > 150


def test_no_points_are_no_error() -> None:
    nothing = np.zeros((0, 2), np.float32)
    assert select_spread(nothing, np.zeros(0, np.float32), 10, 32).tolist() == []
    assert drop_repeated(nothing).tolist() == []
    assert inside_mask(nothing, np.ones((4, 4), np.uint8)).tolist() == []


def test_only_the_first_of_points_at_one_place_stays() -> None:
    keypoints = np.float32([[3, 4], [1, 2], [3, 4], [3, 4.5], [1, 2]])
    assert drop_repeated(keypoints).tolist() == [0, 1, 3]


def test_the_mask_is_asked_at_the_pixel_under_the_point() -> None:
    mask = np.zeros((3, 4), np.uint8)
    mask[1, 2] = 255
    keypoints = np.float32([[2, 1], [2.4, 1.4], [2.6, 1], [1.6, 0.6], [1.4, 1], [9, 1], [-3, 1]])
    assert inside_mask(keypoints, mask).tolist() == [True, True, False, True, False, False, False]
