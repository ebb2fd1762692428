"""Which cells and pixels match, against loops over homographies and over a scene whose depths are written down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: pip install feature_matcher_ros[torch]")

from feature_matcher_ros.training.config import DataConfig
from feature_matcher_ros.training.dense_ground_truth import NO_PIXEL, cell_targets, window_targets
from feature_matcher_ros.training.dense_views import DenseView, dense_view
from feature_matcher_ros.training.ground_truth import IGNORED, UNMATCHABLE
from feature_matcher_ros.training.view_store import DENSE_VIEWS, ViewStore, make_dense_views
from feature_matcher_ros.training.views import Picture

FLAT = DataConfig(None, (96, 64), num_scenes=4, rendered_share=0.0, views_per_scene=4, seed=3)
PAIRS = [(0, (0, 1)), (1, (3, 2)), (2, (1, 2))]


def flat_pair(scene: int, pair: tuple[int, int]) -> tuple[DenseView, DenseView]:
    views = make_dense_views(FLAT, (), scene)
    return views[pair[0]], views[pair[1]]


def warped(view0: DenseView, view1: DenseView, pixel: np.ndarray) -> np.ndarray:
    """Through the photograph that both views show."""
    homographies = [view.projection[:, [0, 1, 3]] for view in (view0, view1)]
    point = homographies[1] @ np.linalg.inv(homographies[0]) @ np.append(pixel, 1.0)
    return point[:2] / point[2]


def places() -> list[np.ndarray]:
    return [np.array([8.0 * column, 8.0 * row]) for row in range(8) for column in range(12)]


def is_known(view: DenseView, cell: int) -> bool:
    return not np.isnan(view.cell_points[cell]).any()


def nearest_cell(point: np.ndarray) -> int | None:
    """None beyond the image, and where the nearest cell is more than half a cell away."""
    best = min(range(96), key=lambda cell: float(np.linalg.norm(places()[cell] - point)))
    return best if np.abs(places()[best] - point).max() <= 4.0 and (point > -0.5).all() else None


@pytest.mark.parametrize(("scene", "pair"), PAIRS)
def test_cells_match_that_are_nearest_to_each_other(scene: int, pair: tuple[int, int]) -> None:
    view0, view1 = flat_pair(scene, pair)
    found = cell_targets(view0, view1)
    for cell0, place in enumerate(places()):
        expected = IGNORED
        if is_known(view0, cell0):
            point = warped(view0, view1, place)
            is_outside = not ((point > -0.5).all() and (point < (95.5, 63.5)).all())
            cell1 = nearest_cell(point)
            if is_outside:
                expected = UNMATCHABLE
            elif cell1 is not None and is_known(view1, cell1):
                back = nearest_cell(warped(view1, view0, places()[cell1]))
                expected = cell1 if back == cell0 else IGNORED
            if not is_outside:
                np.testing.assert_allclose(found.place[cell0], point, atol=0.01)
        assert found.partner[cell0] == expected, (cell0, place)


@pytest.mark.parametrize(("scene", "pair"), PAIRS)
def test_pixels_match_that_are_nearest_to_each_other(scene: int, pair: tuple[int, int]) -> None:
    view0, view1 = flat_pair(scene, pair)
    cells = cell_targets(view0, view1)
    found = window_targets(view0, view1, cells, 6, np.random.default_rng(0))
    assert len(found.cell0) == min(6, np.count_nonzero(cells.partner[view0.windows] >= 0))
    for cell0, cell1, pixel1, fraction in zip(found.cell0, found.cell1, found.pixel1, found.fraction, strict=True):
        assert cells.partner[cell0] == cell1
        window0, window1 = (
            [places()[cell] + (column - 3.5, row - 3.5) for row in range(8) for column in range(8)]
            for cell in (cell0, cell1)
        )
        points = [warped(view0, view1, pixel) for pixel in window0]
        distances = np.array([[np.linalg.norm(point - pixel) for pixel in window1] for point in points])
        known = ~np.isnan(view0.window_points[list(view0.windows).index(cell0)]).any(axis=1)
        seen = [is_seen and is_within(point) for is_seen, point in zip(known, points, strict=True)]
        distances[~np.array(seen)] = np.inf
        for number, point in enumerate(points):
            best = int(distances[number].argmin())
            is_near = np.abs(point - window1[best]).max() <= 0.5
            is_mutual = distances[:, best].argmin() == number
            is_match = seen[number] and is_near and is_mutual
            assert pixel1[number] == (best if is_match else NO_PIXEL)
            if is_match:
                np.testing.assert_allclose(fraction[number], point - window1[best], atol=0.01)


def is_within(point: np.ndarray) -> bool:
    return bool((point > -0.5).all() and (point < (95.5, 63.5)).all())


FOCAL, WALL_M, BOARD_M, BASELINE_M = 80.0, 4.0, 1.0, 0.2


def board_before_wall(camera_x: float) -> DenseView:
    """From a camera at ``camera_x``: a board 1 m away, left of x = 0, before a wall 4 m away."""

    def locate(pixels: np.ndarray) -> np.ndarray:
        rays = (pixels - (48.0, 32.0)) / FOCAL
        depth = np.where(camera_x + rays[:, 0] * BOARD_M < 0.0, BOARD_M, WALL_M)
        return np.column_stack((camera_x + rays[:, 0] * depth, rays[:, 1] * depth, depth)).astype(np.float32)

    K = np.array([[FOCAL, 0.0, 48.0], [0.0, FOCAL, 32.0], [0.0, 0.0, 1.0]])
    projection = K @ np.column_stack((np.eye(3), (-camera_x, 0.0, 0.0)))
    return dense_view(Picture(np.zeros((64, 96), np.uint8), projection, locate), np.random.default_rng(0))


def test_what_the_other_view_hides_is_unmatchable() -> None:
    view0, view1 = board_before_wall(0.0), board_before_wall(-BASELINE_M)
    partner = cell_targets(view0, view1).partner.reshape(8, 12)
    # The board's edge lies at column 48 of image 0 and 48 + 80 * 0.2 / 1 = 64 of image 1. The wall moves by
    # 80 * 0.2 / 4 = 4 pixels, half a cell: in image 1 it shows its columns 60 to 95 of image 0 from 64 on.
    assert (partner[:, 6:7] == UNMATCHABLE).all()
    # The board moves by two cells, and what it shows stays in the image.
    rows, columns = np.mgrid[:8, :6]
    np.testing.assert_array_equal(partner[:, :6], rows * 12 + columns + 2)


def test_views_come_back_from_their_files(tmp_path: Path) -> None:
    config = DataConfig(None, (96, 64), num_scenes=2, rendered_share=0.5, views_per_scene=2)
    store = ViewStore(tmp_path, config, DENSE_VIEWS)
    store.prepare(num_processes=1)
    for number in range(2):
        for found, expected in zip(store.read(number), make_dense_views(config, (), number), strict=True):
            for name in DENSE_VIEWS.array_names:
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
