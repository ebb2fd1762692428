"""The measure of tracks, on invented tracks whose lengths and places are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from feature_matcher_ros.config import FrontEndConfig, TrackConfig, override
from feature_matcher_ros.datatypes import Float, Matches, Trajectory
from feature_matcher_ros.evaluation.evaluate import evaluate_run
from feature_matcher_ros.evaluation.replay import replay
from feature_matcher_ros.evaluation.report import render_report
from feature_matcher_ros.evaluation.summary import track_rows
from feature_matcher_ros.evaluation.track_quality import KeyframeLink, reprojection_errors_px, track_quality
from feature_matcher_ros.evaluation.worst_pairs import WorstPairs
from feature_matcher_ros.geometry import invert_pose, pose_from, rotation_from_vector
from feature_matcher_ros.tracks import TrackRegistry, TrackTable

FOCAL_PX, NUM_KEYFRAMES, PERIOD_NS = 500.0, 14, 10**9
Stretch = tuple[int, int]  # first and last keyframe that sees a track


def camera_path(is_turning_only: bool = False) -> Trajectory:
    poses = [
        pose_from(
            rotation_from_vector([0.0, 0.02 * step, 0.01 * step]),
            [0.0, 0.0, 0.0] if is_turning_only else [0.3 * step, 0.05 * np.sin(step), 0.1 * step],
        )
        for step in range(NUM_KEYFRAMES)
    ]
    return Trajectory(PERIOD_NS * np.arange(NUM_KEYFRAMES, dtype=np.int64), np.stack(poses))


def invented(stretches: list[Stretch], poses: Trajectory, sigma_px: float = 0.0) -> tuple[list[KeyframeLink], Float]:
    """Links of tracks of points of the world, track 1 first; and the points."""
    rng = np.random.default_rng(0)
    points = np.column_stack((rng.uniform(-3, 6, (len(stretches), 2)), rng.uniform(8, 30, len(stretches))))
    links = []
    for number in range(1, NUM_KEYFRAMES):
        chosen = [i for i, (first, last) in enumerate(stretches) if first < number <= last]
        in_camera = invert_pose(poses.world_from_cam[number])
        seen = points[chosen] @ in_camera[:3, :3].T + in_camera[:3, 3]
        pixels = FOCAL_PX * seen[:, :2] / seen[:, 2:] + (320.0, 240.0) + rng.normal(0, sigma_px, (len(chosen), 2))
        links.append(link(number, np.array(chosen, np.uint32) + 1, pixels))
    return links, points


def link(number: int, track_ids: np.ndarray, pixels: Float) -> KeyframeLink:
    rays = np.column_stack(((pixels - (320.0, 240.0)) / FOCAL_PX, np.ones(len(pixels))))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return KeyframeLink((number - 1) * PERIOD_NS, number * PERIOD_NS, track_ids, rays, pixels)


def random_stretches(count: int = 300) -> list[Stretch]:
    rng = np.random.default_rng(1)
    firsts = rng.integers(0, NUM_KEYFRAMES - 1, count)
    return [(int(first), int(min(first + rng.geometric(0.3), NUM_KEYFRAMES - 1))) for first in firsts]


def test_lengths_are_those_of_the_stretches() -> None:
    stretches = random_stretches()
    quality = track_quality(invented(stretches, camera_path())[0], None)
    assert quality is not None
    assert (quality.num_keyframes, quality.num_tracks) == (NUM_KEYFRAMES, len(stretches))
    assert quality.longest == max(last - first + 1 for first, last in stretches)
    lengths = [
        length
        for begin in range(NUM_KEYFRAMES - 9)
        for first, last in stretches
        if (length := min(last, begin + 9) - max(first, begin) + 1) >= 2
    ]
    assert quality.mean_length == pytest.approx(np.mean(lengths))
    assert (quality.num_checked, quality.consistent_share, quality.median_error_px) == (0, None, None)


@pytest.mark.parametrize("is_turning_only", [False, True])
def test_tracks_of_points_are_consistent(is_turning_only: bool) -> None:
    """Also where nothing tells how far away they are."""
    poses, stretches = camera_path(is_turning_only), random_stretches()
    links, _ = invented(stretches, poses)
    assert reprojection_errors_px(links, poses).max() < 1e-3
    quality = track_quality(invented(stretches, poses, sigma_px=0.5)[0], poses)
    assert quality is not None
    assert quality.num_checked == sum(last - first >= 3 for first, last in stretches)
    assert quality.consistent_share is not None
    assert quality.consistent_share > 0.99
    assert 0.3 < (quality.median_error_px or 0.0) < 1.5


def test_a_track_that_jumps_to_another_point_is_found() -> None:
    """A tenth of the tracks goes on at a place 12 px away, across the direction in which depth moves a point."""
    poses = camera_path()
    links, _ = invented([(2, 10)] * 200, poses)
    broken = np.arange(1, 21)
    for number, old in enumerate(links, start=1):
        if number >= 7:
            pixels = old.pixels + 12.0 * np.isin(old.track_ids, broken)[:, None] * (0.0, 1.0)
            links[number - 1] = link(number, old.track_ids, pixels)
    quality = track_quality(links, poses)
    assert quality is not None
    assert (quality.num_checked, quality.longest) == (200, 9)
    assert quality.consistent_share == pytest.approx(0.9)


def test_nothing_followed_is_not_measured() -> None:
    assert track_quality([], camera_path()) is None
    assert [value for _, value in track_rows(None)] == ["-", "-"]
    elsewhere = Trajectory(camera_path().stamps_ns + 10**12, camera_path().world_from_cam)
    quality = track_quality(invented([(0, 5)], camera_path())[0], elsewhere)
    assert quality is not None
    assert (quality.mean_length, quality.consistent_share) == (6.0, None)


def over_a_plane(pixels: Float, poses: Trajectory, number: int) -> Float:
    """Where the camera of the next keyframe sees what pixels of one show, of a slanted plane."""
    normal, distance = np.array([0.2, 0.1, 0.97]), 12.0
    here, there = poses.world_from_cam[number], invert_pose(poses.world_from_cam[number + 1])
    rays = np.column_stack(((pixels - (320.0, 240.0)) / FOCAL_PX, np.ones(len(pixels)))) @ here[:3, :3].T
    places = here[:3, 3] + rays * ((distance - here[:3, 3] @ normal) / (rays @ normal))[:, None]
    seen = places @ there[:3, :3].T + there[:3, 3]
    return FOCAL_PX * seen[:, :2] / seen[:, 2:] + (320.0, 240.0)


@pytest.mark.parametrize("is_anchored", [True, False])
def test_matches_of_a_grid_stay_at_their_points_when_anchored(is_anchored: bool) -> None:
    """A matcher without keypoints begins in every keyframe at the places of its cells; half of them match at a time."""
    rng, poses = np.random.default_rng(0), camera_path()
    registry, table = TrackRegistry(TrackConfig()), TrackTable.empty()
    grid = np.stack(np.meshgrid(np.arange(16, 632, 8), np.arange(16, 472, 8)), axis=-1).reshape(-1, 2)
    links = []
    for number in range(NUM_KEYFRAMES - 1):
        points0 = grid[rng.random(len(grid)) < 0.5].astype(np.float32)
        points1 = (over_a_plane(points0, poses, number) + rng.normal(0, 0.3, points0.shape)).astype(np.float32)
        matches = Matches(points0, points1, np.ones(len(points0), np.float32))
        ids, table = registry.label(table, matches)
        matches = registry.anchored(table, ids, matches) if is_anchored else matches
        table = registry.carry(ids, matches, np.ones(len(matches), np.bool_))
        links.append(link(number + 1, ids, matches.points1.astype(np.float64)))
    quality = track_quality(links, poses)
    assert quality is not None
    assert quality.num_checked > 1000
    assert quality.consistent_share is not None
    assert quality.consistent_share > 0.99 if is_anchored else quality.consistent_share < 0.9


@pytest.mark.data
@pytest.mark.slow
def test_tracks_of_a_drive(shared_data: Path, tmp_path: Path) -> None:
    """Points of a real sequence are followed, and stay the same points."""
    config = override(FrontEndConfig(), {"matcher.name": "mutual_nearest"})
    replay(shared_data / "sequences" / "kitti_seq1", tmp_path / "run", config=config)
    evaluation = evaluate_run(tmp_path / "run")
    tracks = evaluation.tracks
    assert tracks is not None
    assert f"{tracks.num_tracks} tracks over {tracks.num_keyframes} keyframes" in render_report(
        evaluation, WorstPairs((), "")
    )
    assert tracks.num_keyframes >= 10
    assert tracks.mean_length >= 2.5
    assert tracks.longest >= 10
    assert tracks.consistent_share is not None
    assert tracks.consistent_share >= 0.9


@pytest.mark.data
@pytest.mark.slow
def test_tracks_of_a_drive_without_keypoints(shared_data: Path, tmp_path: Path) -> None:
    """The network that ships finds other pixels in every pair of keyframes, and yet points are followed."""
    config = override(FrontEndConfig(), {"matcher.name": "efficient_loftr"})
    replay(shared_data / "sequences" / "kitti_seq1", tmp_path / "run", config=config)
    tracks = evaluate_run(tmp_path / "run").tracks
    assert tracks is not None
    assert tracks.num_keyframes >= 10
    assert tracks.mean_length >= 3.0
    assert tracks.num_checked > 4000
    assert tracks.consistent_share is not None
    assert tracks.consistent_share >= 0.9
