"""Pictures of matches."""

import numpy as np
import pytest

from feature_matcher_ros.datatypes import Matches
from feature_matcher_ros.drawing import draw_matches


def one_match(score: float = 1.0) -> Matches:
    return Matches(np.float32([[20, 30]]), np.float32([[60, 30]]), np.float32([score]))


def no_matches() -> Matches:
    return Matches(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


GREY, COLOUR = np.full((100, 120), 90, np.uint8), np.full((60, 80, 3), 90, np.uint8)


def test_a_line_joins_both_points_and_nothing_else_is_coloured() -> None:
    picture = draw_matches(GREY, COLOUR, one_match())
    assert picture.shape == (100, 120 + 4 + 80, 3)
    rows, columns = np.nonzero(np.ptp(picture.astype(int), axis=2))  # where blue, green and red differ
    assert rows.min() >= 27 and rows.max() <= 33
    assert set(range(20, 120 + 4 + 61)) <= set(columns.tolist())


def test_inliers_are_green_and_outliers_red() -> None:
    inlier, outlier = (draw_matches(GREY, COLOUR, one_match(), inliers=np.array([good])) for good in (True, False))
    assert inlier[30, 60].argmax() == 1
    assert outlier[30, 60].argmax() == 2


@pytest.mark.parametrize("shape", [(1, 1), (480, 640), (200, 3)])
def test_no_matches_and_any_size_still_give_a_picture_with_caption(shape: tuple[int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    picture = draw_matches(image, image, no_matches(), inliers=np.zeros(0, bool), caption="0 matches, TOO_FEW_MATCHES")
    assert picture.shape == (shape[0], 2 * shape[1] + 4, 3)
    if shape[0] == 480:
        assert picture[440:].max() > 200 and picture[:400].max() == 0
