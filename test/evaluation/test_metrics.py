"""Metrics against the evo command line, against slow written-out references, and against known answers."""

import json
import math
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from feature_matcher_ros.datatypes import Camera, Trajectory
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation import metrics
from feature_matcher_ros.geometry import (
    pose_from,
    project_points,
    quaternion_from_rotation,
    rotation_angle_deg,
    rotation_from_vector,
)


def wandering(num_poses: int, seed: int, period_ns: int = 50_000_000) -> Trajectory:
    rng = np.random.default_rng(seed)
    positions = np.cumsum(rng.normal([0.05, 0.0, 0.02], 0.05, (num_poses, 3)), axis=0)
    rotations = [np.eye(3)]
    for _ in range(num_poses - 1):
        rotations.append(rotations[-1] @ rotation_from_vector(rng.normal(0, 0.05, 3)))
    poses = np.stack([pose_from(R, t) for R, t in zip(rotations, positions, strict=True)])
    return Trajectory(1_700_000_000_000_000_000 + period_ns * np.arange(num_poses), poses)


def noisy(truth: Trajectory, scale: float, seed: int) -> Trajectory:
    """The truth in another frame and unit of length, with noise."""
    rng = np.random.default_rng(seed)
    turn = rotation_from_vector([0.3, -0.8, 0.5])
    poses = truth.world_from_cam.copy()
    for pose in poses:
        pose[:3, :3] = turn @ pose[:3, :3] @ rotation_from_vector(rng.normal(0, 0.01, 3))
        pose[:3, 3] = turn @ (pose[:3, 3] + rng.normal(0, 0.03, 3)) / scale + [1.0, -2.0, 3.0]
    return Trajectory(truth.stamps_ns.copy(), poses)


def write_tum(path: Path, trajectory: Trajectory) -> Path:
    lines = []
    for stamp, pose in zip(trajectory.stamps_ns.tolist(), trajectory.world_from_cam, strict=True):
        values = [*pose[:3, 3], *quaternion_from_rotation(pose[:3, :3])]
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} " + " ".join(f"{v:.17g}" for v in values))
    path.write_text("\n".join(lines) + "\n")
    return path


def evo(folder: Path, program: str, *options: str) -> dict[str, float]:
    """Run an evo program on ``truth.tum`` and ``estimate.tum`` of a folder and return its statistics."""
    executable = shutil.which(program)
    if executable is None:
        pytest.skip(f"{program} is not installed (pip install evo)")
    result = folder / "result.zip"
    result.unlink(missing_ok=True)
    environment = {**os.environ, "MPLBACKEND": "Agg", "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    command = [executable, "tum", "truth.tum", "estimate.tum", "--save_results", str(result), "--no_warnings", *options]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(result) as archive:
        return json.loads(archive.read("stats.json"))


@pytest.fixture(scope="module")
def with_evo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trajectory, Trajectory]:
    """Truth denser than the estimate and shifted by up to 4 ms, so that the association matters."""
    folder = tmp_path_factory.mktemp("evo")
    dense = wandering(400, seed=1, period_ns=10_000_000)
    every_fifth = Trajectory(dense.stamps_ns[3::5], dense.world_from_cam[3::5])
    estimate = noisy(every_fifth, scale=2.5, seed=2)
    jitter = np.random.default_rng(3).integers(-4_000_000, 4_000_000, len(estimate))
    estimate = Trajectory(estimate.stamps_ns + jitter, estimate.world_from_cam)
    write_tum(folder / "truth.tum", dense)
    write_tum(folder / "estimate.tum", estimate)
    return folder, estimate, dense


@pytest.mark.parametrize("with_scale", [False, True])
def test_ate_agrees_with_evo(with_evo, with_scale):
    folder, estimate, truth = with_evo
    expected = evo(folder, "evo_ape", "-as" if with_scale else "-a")
    estimate, truth = metrics.associate(estimate, truth)
    aligned = metrics.align(estimate, truth, with_scale).apply(estimate)
    ours = metrics.statistics(metrics.absolute_errors(aligned, truth))
    for name in ("rmse", "mean", "median", "max"):
        assert getattr(ours, name) == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize(("delta", "relation"), [(1, "trans_part"), (1, "angle_deg"), (7, "trans_part")])
def test_rpe_agrees_with_evo(with_evo, delta, relation):
    folder, estimate, truth = with_evo
    expected = evo(folder, "evo_rpe", "-as", "-r", relation, "-d", str(delta), "-u", "f")
    estimate, truth = metrics.associate(estimate, truth)
    aligned = metrics.align(estimate, truth, with_scale=True).apply(estimate)
    errors = metrics.relative_errors(aligned, truth, delta)
    ours = metrics.statistics(errors.translation_m if relation == "trans_part" else errors.rotation_deg)
    for name in ("rmse", "mean", "median", "max"):
        assert getattr(ours, name) == pytest.approx(expected[name], abs=1e-6)


def test_alignment_recovers_a_known_similarity():
    truth = wandering(50, seed=4)
    similarity = metrics.Alignment(rotation_from_vector([0.1, 2.0, -0.4]), np.array([5.0, 6.0, -7.0]), 0.3)
    moved = similarity.apply(truth)
    back = metrics.align(moved, truth, with_scale=True)
    assert back.scale == pytest.approx(1 / 0.3)
    np.testing.assert_allclose(back.apply(moved).world_from_cam, truth.world_from_cam, atol=1e-9)
    assert metrics.align(moved, truth, with_scale=False).scale == 1.0


def test_alignment_of_a_mirrored_path_is_a_rotation():
    truth = wandering(50, seed=5)
    mirrored = Trajectory(truth.stamps_ns, truth.world_from_cam.copy())
    mirrored.world_from_cam[:, 0, 3] *= -1
    assert np.linalg.det(metrics.align(mirrored, truth, with_scale=True).rotation) == pytest.approx(1.0)


def test_alignment_of_a_straight_path_and_of_a_single_place():
    stamps = np.arange(10)
    straight = Trajectory(stamps, np.stack([pose_from(np.eye(3), [i, 0, 0]) for i in stamps]))
    turned = Trajectory(stamps, np.stack([pose_from(np.eye(3), [0, 2.0 * i, 1]) for i in stamps]))
    aligned = metrics.align(straight, turned, with_scale=True).apply(straight)
    assert metrics.absolute_errors(aligned, turned).max() < 1e-12
    standing = Trajectory(stamps, np.tile(np.eye(4), (10, 1, 1)))
    assert metrics.absolute_errors(metrics.align(standing, straight, False).apply(standing), straight).max() == 4.5
    with pytest.raises(SourceError, match="never leaves its place"):
        metrics.align(standing, straight, with_scale=True)


def test_association_takes_the_nearest_stamp_within_reach():
    def at(*milliseconds: int) -> Trajectory:
        return Trajectory(np.array(milliseconds) * 1_000_000, np.tile(np.eye(4), (len(milliseconds), 1, 1)))

    estimate, truth = metrics.associate(at(0, 104, 250, 390), at(0, 50, 100, 106, 200, 300, 400))
    assert (estimate.stamps_ns // 1_000_000).tolist() == [0, 104, 390]
    assert (truth.stamps_ns // 1_000_000).tolist() == [0, 106, 400]
    assert len(metrics.associate(at(0, 100), at(5000))[0]) == 0
    assert len(metrics.associate(at(), at(5000))[0]) == 0


def test_drift_of_a_path_too_long_by_two_percent():
    truth = wandering(200, seed=6)
    longer = metrics.Alignment(np.eye(3), np.zeros(3), 1.02).apply(truth)
    drift = metrics.drift(longer, truth)
    assert drift.rotation_deg_per_m == pytest.approx(0.0, abs=1e-9)
    # A stretch of length d ends 2 % of its straight distance, at most d, from the truth.
    assert 0.2 < drift.translation_percent <= 2.0
    straight = Trajectory(np.arange(100), np.stack([pose_from(np.eye(3), [0.1 * i, 0, 0]) for i in range(100)]))
    longer = metrics.Alignment(np.eye(3), np.zeros(3), 1.02).apply(straight)
    assert metrics.drift(longer, straight).translation_percent == pytest.approx(2.0)


def test_pose_error_keeps_the_sign_of_the_direction():
    true = pose_from(rotation_from_vector([0.0, 0.2, 0.0]), [0.0, 0.0, 2.0])
    turned = rotation_from_vector(np.radians([0.0, 3.0, 0.0])) @ true[:3, :3]
    error = metrics.pose_error(turned, np.array([0.0, 0.0, -1.0]), true)
    assert error.rotation_deg == pytest.approx(3.0)
    assert error.direction_deg == pytest.approx(180.0)
    assert error.worst_deg == pytest.approx(180.0)
    assert metrics.pose_error(turned, None, true).worst_deg == pytest.approx(3.0)
    assert metrics.pose_error(turned, np.array([0.0, 0.0, -1.0]), true, with_direction=False).direction_deg is None


def test_auc_is_the_area_under_the_recall_curve():
    rng = np.random.default_rng(7)
    errors = [*rng.exponential(8.0, 60), 3.0, 3.0, math.inf, math.inf]
    areas = metrics.pose_auc(errors)
    for threshold, area in areas.items():
        known = sorted(e for e in errors if e < threshold)
        knots = [0.0, *known, threshold]
        values = [0.0, *(np.arange(1, len(known) + 1) / len(errors)), len(known) / len(errors)]
        grid = np.linspace(0.0, threshold, 200_001)
        reference = float(np.mean(np.interp(grid, knots, values)))
        assert area == pytest.approx(reference, abs=2e-4)
    assert metrics.pose_auc([0.0, 0.0])[5.0] == 1.0
    assert metrics.pose_auc([math.inf]) == {5.0: 0.0, 10.0: 0.0, 20.0: 0.0}
    assert metrics.pose_auc([], [5.0]) == {5.0: 0.0}


def test_epipolar_precision_tells_true_matches_from_false_ones():
    rng = np.random.default_rng(8)
    camera = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), 640, 480)
    cam1_from_cam0 = pose_from(rotation_from_vector([0.02, 0.1, 0.0]), [0.3, 0.05, 0.1])
    points = rng.uniform([-2, -1.5, 3], [2, 1.5, 8], (400, 3))
    pixels0 = project_points(points, camera)
    pixels1 = project_points(points @ cam1_from_cam0[:3, :3].T + cam1_from_cam0[:3, 3], camera)
    pixels1[:100, 1] += 60.0
    args = (pixels0, pixels1, camera, camera, cam1_from_cam0)
    assert metrics.epipolar_precision(*args, threshold=1e-4) == pytest.approx(0.75, abs=0.02)
    assert metrics.epipolar_precision(pixels0[:0], pixels1[:0], camera, camera, cam1_from_cam0, 1e-4) is None


def test_symmetric_epipolar_error_is_the_sum_of_squared_distances_to_both_lines():
    rng = np.random.default_rng(9)
    pose = pose_from(rotation_from_vector(rng.normal(0, 0.3, 3)), rng.normal(0, 1, 3))
    x0, x1 = rng.normal(0, 0.5, (5, 2)), rng.normal(0, 0.5, (5, 2))
    t, R = pose[:3, 3], pose[:3, :3]
    for a, b, ours in zip(x0, x1, metrics.symmetric_epipolar_errors(pose, x0, x1), strict=True):
        line1 = np.cross(t, R @ [*a, 1.0])  # through the epipole t and the image of the ray's far end
        line0 = R.T @ np.cross([*b, 1.0], t)
        distances = [abs(line1 @ [*b, 1.0]) / np.hypot(*line1[:2]), abs(line0 @ [*a, 1.0]) / np.hypot(*line0[:2])]
        assert ours == pytest.approx(distances[0] ** 2 + distances[1] ** 2)


def test_relative_errors_against_a_loop_over_pairs():
    truth, estimate = wandering(20, seed=10), noisy(wandering(20, seed=10), 1.0, seed=11)
    errors = metrics.relative_errors(estimate, truth, delta=3)
    assert errors.start.tolist() == [0, 3, 6, 9, 12, 15]
    for i, j, translation, rotation in zip(
        errors.start, errors.end, errors.translation_m, errors.rotation_deg, strict=True
    ):
        moved = np.linalg.inv(estimate.world_from_cam[i]) @ estimate.world_from_cam[j]
        truly = np.linalg.inv(truth.world_from_cam[i]) @ truth.world_from_cam[j]
        difference = np.linalg.inv(truly) @ moved
        assert translation == pytest.approx(np.linalg.norm(difference[:3, 3]))
        assert rotation == pytest.approx(rotation_angle_deg(difference[:3, :3]))


def test_percentiles_and_statistics_of_known_values():
    values = np.arange(101.0)
    assert metrics.percentiles(values) == metrics.Percentiles(101, 50.0, 90.0, 95.0, 99.0, 100.0)
    assert metrics.statistics([3.0, 4.0]) == metrics.Statistics(2, math.sqrt(12.5), 3.5, 3.5, 3.9, 4.0)
