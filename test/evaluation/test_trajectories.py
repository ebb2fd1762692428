from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from feature_matcher_ros.datatypes import Trajectory
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.evaluation.trajectories import (
    associate_stamps,
    interpolate_trajectory,
    read_tum,
    seconds_text,
    stamp_from_seconds,
    trajectory_from,
    write_tum,
)

SECOND = 1_000_000_000


def _random_trajectory(count: int, seed: int = 0) -> Trajectory:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    poses[:, :3, 3] = rng.uniform(-100, 100, (count, 3))
    stamps = 1_700_000_000 * SECOND + np.cumsum(rng.integers(1, SECOND, count))
    return Trajectory(stamps, poses)


def test_a_written_trajectory_is_read_back(tmp_path: Path) -> None:
    written = _random_trajectory(50)
    write_tum(tmp_path / "t.tum", written)
    read = read_tum(tmp_path / "t.tum")
    np.testing.assert_array_equal(read.stamps_ns, written.stamps_ns)
    np.testing.assert_allclose(read.world_from_cam, written.world_from_cam, atol=5e-9)


def test_quaternions_are_those_of_scipy(tmp_path: Path) -> None:
    line = "12.5 1 2 3 0.1 -0.2 0.3 0.927361849549570"
    (tmp_path / "t.tum").write_text(f"# a comment\n\n{line}\n")
    trajectory = read_tum(tmp_path / "t.tum")
    assert trajectory.stamps_ns.tolist() == [12_500_000_000]
    expected = Rotation.from_quat([0.1, -0.2, 0.3, 0.927361849549570]).as_matrix()
    np.testing.assert_allclose(trajectory.world_from_cam[0, :3, :3], expected, atol=1e-12)
    np.testing.assert_array_equal(trajectory.world_from_cam[0, :, 3], [1, 2, 3, 1])


def test_lines_are_put_in_order_and_the_first_of_equal_stamps_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.tum").write_text("2 2 0 0 0 0 0 1\n1 1 0 0 0 0 0 1\n2 9 0 0 0 0 0 1\n")
    trajectory = read_tum(tmp_path / "t.tum")
    assert trajectory.world_from_cam[:, 0, 3].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no pose"),
        ("# only a comment\n", "holds no pose"),
        ("1 2 3\n", "line 1: '1 2 3'"),
        ("1 0 0 0 0 0 0 1\nx 0 0 0 0 0 0 1\n", "line 2"),
        ("1 0 0 nan 0 0 0 1\n", "line 1"),
        ("1 nan nan nan nan nan nan nan\n", "holds no pose"),
        ("nan 0 0 0 0 0 0 1\n", "line 1"),
        ("1e999999999 0 0 0 0 0 0 1\n", "line 1"),
        ("99999999999 0 0 0 0 0 0 1\n", "line 1"),
        ("1 0 0 0 0 0 0 0\n", "unit quaternion"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.tum").write_text(text)
    with pytest.raises(SourceError, match=said):
        read_tum(tmp_path / "t.tum")


def test_missing_and_binary_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "t.tum").write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path / "none.tum", tmp_path / "t.tum"):
        with pytest.raises(SourceError, match="cannot be read"):
            read_tum(path)


def test_an_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_tum(tmp_path / "no" / "t.tum", _random_trajectory(2))


@pytest.mark.parametrize("stamp_ns", [0, 1, -1, 1403715273262142976, 1_600_000_000_000_000_001])
def test_seconds_keep_every_nanosecond(stamp_ns: int) -> None:
    assert stamp_from_seconds(seconds_text(stamp_ns)) == stamp_ns


def test_interpolation_agrees_with_scipy() -> None:
    trajectory = _random_trajectory(20)
    first, last = int(trajectory.stamps_ns[0]), int(trajectory.stamps_ns[-1])
    wanted = np.random.default_rng(1).integers(first, last, 200)
    answered, poses = interpolate_trajectory(trajectory, wanted, max_gap_ns=10 * SECOND)
    assert answered.tolist() == list(range(200))
    seconds = (trajectory.stamps_ns - first) / SECOND
    times = (wanted - first) / SECOND
    rotations = Slerp(seconds, Rotation.from_matrix(trajectory.world_from_cam[:, :3, :3]))(times)
    np.testing.assert_allclose(poses[:, :3, :3], rotations.as_matrix(), atol=1e-6)
    for axis in range(3):
        expected = np.interp(times, seconds, trajectory.world_from_cam[:, axis, 3])
        np.testing.assert_allclose(poses[:, axis, 3], expected, atol=1e-5)


def test_interpolation_answers_hits_but_neither_gaps_nor_times_outside() -> None:
    poses = [(stamp, np.diag([1.0, 1.0, 1.0, 1.0])) for stamp in (10, 20, 100)]
    trajectory = trajectory_from(poses)
    answered, _ = interpolate_trajectory(trajectory, [9, 10, 15, 20, 60, 100, 101, 10], max_gap_ns=10)
    assert answered.tolist() == [1, 2, 3, 5, 7]
    assert len(interpolate_trajectory(trajectory, [], 10)[0]) == 0
    assert len(interpolate_trajectory(trajectory_from([]), [5], 10)[0]) == 0


def test_association_is_mutual_nearest_within_the_gap() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        stamps0, stamps1 = rng.integers(0, 10**9, 15), rng.integers(0, 10**9, 20)
        distance = np.abs(stamps0[:, None] - stamps1[None, :])
        expected = [
            (i, j)
            for i in range(15)
            for j in range(20)
            if distance[i, j] == distance[i].min() == distance[:, j].min() and distance[i, j] <= 2 * 10**7
        ]
        found = associate_stamps(stamps0, stamps1, 2 * 10**7)
        assert list(zip(found[0].tolist(), found[1].tolist(), strict=True)) == expected


def test_a_stamp_is_never_given_twice() -> None:
    numbers0, numbers1 = associate_stamps([5, 5, 5, 9], [5, 5, 7], 3)
    assert (numbers0.tolist(), numbers1.tolist()) == ([0], [0])


def test_association_of_nothing_is_nothing() -> None:
    assert len(associate_stamps([], [1], 5)[0]) == 0
    assert len(associate_stamps([1], [], 5)[0]) == 0
