"""The motion of an image around its matches, against motions that are known."""

import numpy as np
import pytest

from feature_matcher_ros.datatypes import Matches
from feature_matcher_ros.displacement_field import displacements_at, nearest_points


def _turned_and_grown(points: np.ndarray) -> np.ndarray:
    """Where points go that turn by 4 degrees and grow by 6 % around the middle of the image."""
    middle = np.array([320.0, 240.0])
    cosine, sine = 1.06 * np.cos(np.radians(4.0)), 1.06 * np.sin(np.radians(4.0))
    return (points - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle + (7.0, -3.0)


def _two_surfaces(points: np.ndarray) -> np.ndarray:
    """The left half lies far away, the right one near: it moves by 20 px more."""
    return points + np.where(points[:, :1] < 320.0, [[3.0, 1.0]], [[-17.0, 1.0]]) + 0.02 * (points - (320.0, 240.0))


def _matches(motion, noise_px: float, seed: int = 0) -> Matches:
    """One match in most cells of 8x8 pixels, anywhere in the cell."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(16, 624, 8), np.arange(16, 464, 8)), axis=-1).reshape(-1, 2)
    cells = grid[rng.random(len(grid)) < 0.6]
    points0 = cells + rng.uniform(-3.5, 3.5, cells.shape)
    points1 = motion(points0) + rng.normal(0.0, noise_px, points0.shape)
    return Matches(points0.astype(np.float32), points1.astype(np.float32), np.ones(len(points0), np.float32))


def _beside(matches: Matches, distance_px: float) -> np.ndarray:
    """A point at that distance from each match, in any direction."""
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, len(matches))
    return (matches.points0 + distance_px * np.column_stack((np.cos(angles), np.sin(angles)))).astype(np.float32)


def test_an_affine_motion_is_found_between_its_matches() -> None:
    matches = _matches(_turned_and_grown, noise_px=0.0)
    points = _beside(matches, 8.0)
    errors = np.linalg.norm(points + displacements_at(points, matches) - _turned_and_grown(points), axis=1)
    assert errors.max() < 0.1
    shifted = np.linalg.norm(points + (matches.points1 - matches.points0) - _turned_and_grown(points), axis=1)
    assert np.median(shifted) > 0.5  # what a match says of its own pixel does not hold beside it


def test_noise_is_averaged_away() -> None:
    matches = _matches(_turned_and_grown, noise_px=0.7)
    errors = matches.points0 + displacements_at(matches.points0, matches) - _turned_and_grown(matches.points0)
    assert np.sqrt(np.mean(errors**2)) < 0.35


def test_surfaces_are_kept_apart() -> None:
    """Beside an edge of depth each match goes on with its own surface."""
    matches = _matches(_two_surfaces, noise_px=0.3)
    points = matches.points0
    near_edge = np.abs(points[:, 0] - 320.0) < 20.0
    errors = np.linalg.norm(points + displacements_at(points, matches) - _two_surfaces(points), axis=1)[near_edge]
    assert len(errors) > 100
    assert np.median(errors) < 0.3
    assert errors.max() < 1.0


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_matches_keep_their_own_motion(count: int) -> None:
    """Nothing is near them that could say more; several may lie at the same place."""
    points0 = np.repeat(np.float32([[100.0, 100.0], [400.0, 300.0]]), 3, axis=0)[:count]
    moves = np.repeat(np.float32([[5.0, 2.0], [-4.0, 1.0]]), 3, axis=0)[:count]
    matches = Matches(points0, points0 + moves, np.ones(count, np.float32))
    assert np.allclose(displacements_at(points0 + np.float32(2.0), matches), moves, atol=1e-4)


def test_nearest_points_are_those_of_a_search_through_all() -> None:
    rng = np.random.default_rng(0)
    points, among = (rng.uniform(0, 600, (count, 2)).astype(np.float32) for count in (200, 300))
    numbers, distances = nearest_points(points, among, 8)
    everything = np.linalg.norm(points[:, None] - among, axis=2)
    assert np.allclose(distances, np.sort(everything, axis=1)[:, :8], atol=1e-3)
    assert np.allclose(np.take_along_axis(everything, numbers, axis=1), distances, atol=1e-3)
    assert nearest_points(points, among[:3], 8)[0].shape == (200, 3)
