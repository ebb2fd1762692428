"""Track ids against a scene where the identity of every point is known."""

import numpy as np
import pytest

from feature_matcher_ros import tracks
from feature_matcher_ros.config import TrackConfig
from feature_matcher_ros.datatypes import Matches
from feature_matcher_ros.tracks import TrackRegistry, TrackTable

NUM_POINTS, NUM_FRAMES = 300, 8


def _scene(seed: int) -> np.ndarray:
    """Pixels (frames, points, 2) of points that drift, at least 5 px apart from each other."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(15)), axis=-1).reshape(-1, 2) * 30.0 + 20.0
    start = grid + rng.uniform(-10, 10, grid.shape)
    return (start + np.arange(NUM_FRAMES)[:, None, None] * np.array([3.0, -1.0])).astype(np.float32)


def _match(pixels: np.ndarray, frame0: int, frame1: int, seed: int, keypoints: bool, noise_px: float = 0.0):
    """Matches of a random subset of the true points, in random order, and the true point of each."""
    rng = np.random.default_rng(seed)
    points = rng.permutation(NUM_POINTS)[: NUM_POINTS * 2 // 3]
    noise = rng.normal(0, noise_px, (2, len(points), 2)).astype(np.float32)
    indices = np.stack([points, points], axis=1).astype(np.int32) if keypoints else None
    matches = Matches(
        pixels[frame0, points] + noise[0], pixels[frame1, points] + noise[1], np.ones(len(points), np.float32), indices
    )
    return matches, points


@pytest.mark.parametrize("keypoints", [True, False])
def test_an_id_belongs_to_one_point_of_the_world_for_ever(keypoints: bool) -> None:
    pixels = _scene(0)
    registry, table = TrackRegistry(TrackConfig(merge_radius_px=2.0)), TrackTable.empty()
    point_of_id: dict[int, int] = {}
    lengths: dict[int, int] = {}
    for keyframe in range(NUM_FRAMES - 1):
        for repetition in range(2):  # two frames are matched with every keyframe, the second one replaces it
            matches, points = _match(pixels, keyframe, keyframe + 1, 10 * keyframe + repetition, keypoints, 0.2)
            ids, table = registry.label(table, matches)
            assert len(set(ids.tolist())) == len(ids)
            for track_id, point in zip(ids.tolist(), points.tolist(), strict=True):
                assert point_of_id.setdefault(track_id, point) == point
                lengths[track_id] = lengths.get(track_id, 0) + 1
        table = registry.carry(ids, matches, np.ones(len(matches), np.bool_))
    assert max(lengths.values()) == 2 * (NUM_FRAMES - 1)  # some point was matched every time, under one id
    assert np.mean(list(lengths.values())) > 3


def test_identity_does_not_pass_through_outliers() -> None:
    pixels = _scene(1)
    registry = TrackRegistry(TrackConfig())
    matches, _ = _match(pixels, 0, 1, 3, keypoints=True)
    ids, _ = registry.label(TrackTable.empty(), matches)
    inliers = np.arange(len(matches)) % 2 == 0
    table = registry.carry(ids, matches, inliers)
    assert table.ids.tolist() == ids[inliers].tolist()
    again, _ = registry.label(table, Matches(matches.points1, matches.points1, matches.scores, matches.indices))
    assert again[inliers].tolist() == ids[inliers].tolist()
    assert not set(again[~inliers].tolist()) & set(ids.tolist())


def test_anchors_merge_within_the_radius_and_not_beyond() -> None:
    registry = TrackRegistry(TrackConfig(merge_radius_px=2.0))
    anchor = np.array([[100.0, 50.0]], np.float32)
    one = np.ones(1, np.float32)
    first, table = registry.label(TrackTable.empty(), Matches(anchor, anchor, one))
    near, table = registry.label(table, Matches(anchor + np.float32(1.3), anchor, one))
    far, _ = registry.label(table, Matches(anchor + np.float32(1.6), anchor, one))
    assert near.tolist() == first.tolist()  # 1.84 px away
    assert far.tolist() != first.tolist()  # 2.26 px away


def test_a_match_near_an_anchor_is_moved_onto_it() -> None:
    """In both images alike, if nothing else is near; matches with keypoint numbers, and those of new tracks, stay."""
    registry = TrackRegistry(TrackConfig(merge_radius_px=4.0))
    seen = np.array([[100.3, 50.6], [300.0, 200.0]], np.float32)
    first, _ = registry.label(TrackTable.empty(), Matches(seen - 7.0, seen, np.ones(2, np.float32)))
    table = TrackTable(first, seen, np.full(2, -1, np.int32))
    on_grid = np.array([[304.0, 200.0], [200.0, 96.0], [104.0, 48.0]], np.float32)
    matches = Matches(on_grid, on_grid + np.float32([5.0, 2.0]), np.ones(3, np.float32))
    ids, table = registry.label(table, matches)
    moved = registry.anchored(table, ids, matches)
    assert ids.tolist() == [first[1], 3, 4]  # the third one is 4.5 px away
    assert np.array_equal(moved.points0[0], seen[1])
    assert np.allclose(moved.points1 - moved.points0, [5.0, 2.0], atol=1e-4)
    assert np.array_equal(moved.points0[1:], on_grid[1:])
    numbered = Matches(on_grid, on_grid, np.ones(3, np.float32), np.zeros((3, 2), np.int32))
    assert registry.anchored(table, ids, numbered) is numbered


def test_every_match_takes_the_nearest_track_that_is_left() -> None:
    """The nearest two come first; who was second best to a taken track takes the next one, and none is taken twice."""
    registry = TrackRegistry(TrackConfig(merge_radius_px=8.0))
    known = np.float32([[100, 100], [106, 100], [300, 100]])
    table = TrackTable(np.array([7, 8, 9], np.uint32), known, np.full(3, -1, np.int32))
    points = np.float32([[102, 100], [101, 100], [300, 107.9], [300, 108.5]])
    ids, _ = registry.label(table, Matches(points, points, np.ones(4, np.float32)))
    assert ids.tolist()[:3] == [8, 7, 9]
    assert ids[3] not in (7, 8, 9)


def _flow(points: np.ndarray) -> np.ndarray:
    """The image grows by 3 %, turns by 1 degree and moves aside, a little more at the bottom."""
    middle = np.array([320.0, 240.0])
    cosine, sine = 1.03 * np.cos(np.radians(1.0)), 1.03 * np.sin(np.radians(1.0))
    turned = (points - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle
    return turned + np.column_stack((4.0 + 4e-5 * points[:, 1] ** 2, np.full(len(points), -2.0)))


def test_tracks_of_a_grid_stay_at_their_points_over_ten_keyframes() -> None:
    """A detector-free matcher finds another pixel of a cell in every keyframe, and a third of the cells not at all."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(16, 624, 8), np.arange(16, 464, 8)), axis=-1).reshape(-1, 2)
    registry, table = TrackRegistry(TrackConfig()), TrackTable.empty()
    true: dict[int, np.ndarray] = {}  # where the point of each track is
    seen: dict[int, int] = {}
    drifts: dict[int, list[float]] = {}
    for _ in range(9):
        cells = grid[rng.random(len(grid)) < 0.67]
        points0 = (cells + rng.uniform(-3.5, 3.5, cells.shape)).astype(np.float32)
        points1 = (_flow(points0) + rng.normal(0, 0.5, points0.shape)).astype(np.float32)
        matches = Matches(points0, points1, np.ones(len(points0), np.float32))
        ids, table = registry.label(table, matches)
        assert len(np.unique(ids)) == len(ids)
        matches = registry.anchored(table, ids, matches)
        places = [true.get(track_id, point) for track_id, point in zip(ids.tolist(), matches.points0, strict=True)]
        true = dict(zip(ids.tolist(), _flow(np.array(places)), strict=True))
        for track_id, point in zip(ids.tolist(), matches.points1, strict=True):
            seen[track_id] = seen.get(track_id, 1) + 1
            drifts.setdefault(seen[track_id], []).append(float(np.linalg.norm(point - true[track_id])))
        nearest = np.linalg.norm(matches.points1[:, None] - np.array(list(true.values())), axis=2).argmin(axis=1)
        assert np.mean(nearest == np.arange(len(ids))) > 0.98  # a track is at its own point, not at another's
        table = registry.carry(ids, matches, np.ones(len(matches), np.bool_))
    assert len(drifts[10]) > 100
    assert np.median(drifts[10]) < 0.7
    assert np.percentile(drifts[10], 95) < 1.5
    assert np.mean(list(seen.values())) > 3.0


def test_after_the_last_id_comes_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "_LAST_ID", 5)
    registry = TrackRegistry(TrackConfig())
    points = np.float32([[10, 10], [50, 10], [90, 10]])
    matches = Matches(points, points, np.ones(3, np.float32))
    ids = [registry.label(TrackTable.empty(), matches)[0].tolist() for _ in range(3)]
    assert ids == [[1, 2, 3], [4, 5, 1], [2, 3, 4]]


def test_no_matches_give_no_ids() -> None:
    registry = TrackRegistry(TrackConfig())
    none = np.zeros((0, 2), np.float32)
    for indices in (None, np.zeros((0, 2), np.int32)):
        ids, table = registry.label(TrackTable.empty(), Matches(none, none, np.zeros(0, np.float32), indices))
        assert len(ids) == 0
        assert len(table.ids) == 0
