"""The front-end with its defaults on real sequences, against their true poses."""

from pathlib import Path

import numpy as np
import pytest

from feature_matcher_ros.datatypes import Float, Frame, FrontEndResult, MotionType, ScaleSource
from feature_matcher_ros.evaluation.evaluate import evaluate_run
from feature_matcher_ros.evaluation.replay import ReplayOptions, replay
from feature_matcher_ros.evaluation.sequences import open_sequence
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.geometry import invert_pose, project_points, transform_points
from feature_matcher_ros.metric_points import measure_points


@pytest.mark.parametrize(
    ("name", "max_rotation_deg", "max_direction_deg", "max_ate_share"),
    [("kitti_seq1", 0.1, 1.0, 0.002), ("tum_fr3_office", 0.5, 5.0, 0.01)],
)
def test_poses_and_trajectory_of_one_camera(
    shared_data: Path,
    tmp_path: Path,
    name: str,
    max_rotation_deg: float,
    max_direction_deg: float,
    max_ate_share: float,
) -> None:
    replay(shared_data / "sequences" / name, tmp_path, options=ReplayOptions(topics=False))
    evaluation = evaluate_run(tmp_path)
    assert evaluation.frames.num_accepted == evaluation.frames.num_attempted
    assert evaluation.frames.num_segments == 1
    pairs, trajectory = evaluation.pairs, evaluation.trajectory
    assert pairs is not None and pairs.rotation_deg is not None and pairs.direction_deg is not None
    assert trajectory is not None
    assert pairs.rotation_deg.median < max_rotation_deg
    assert pairs.direction_deg.median < max_direction_deg
    assert trajectory.ate_m.rmse < max_ate_share * trajectory.true_length_m


def test_a_standing_vehicle_stands(shared_data: Path) -> None:
    results, _ = _run(shared_data / "sequences" / "euroc_v101")
    matched = [result for result in results if result.matches is not None]
    assert matched
    assert {result.motion_type for result in matched} == {MotionType.STATIC}


def test_poses_explain_what_the_depth_camera_measures_better_than_the_truth_does(shared_data: Path) -> None:
    """Points measured in the keyframe are seen again where the pose puts them; medians over pairs, in pixels."""
    path = shared_data / "sequences" / "7scenes_redkitchen"
    results, frames = _run(path)
    truth = open_sequence(path).ground_truth
    assert truth is not None
    world_from_cam = dict(zip(truth.stamps_ns.tolist(), truth.world_from_cam, strict=True))
    ours, theirs = [], []
    for result in results:
        if result.pose is None or result.keyframe_stamp_ns is None:
            continue
        assert result.pose.scale_source is ScaleSource.DEPTH
        true = invert_pose(world_from_cam[result.stamp_ns]) @ world_from_cam[result.keyframe_stamp_ns]
        keyframe, frame = frames[result.keyframe_stamp_ns], frames[result.stamp_ns]
        ours.append(_reprojection_error_px(result, keyframe, frame, result.pose.cam1_from_cam0))
        theirs.append(_reprojection_error_px(result, keyframe, frame, true))
    assert np.median(ours) < 1.0
    assert np.median(theirs) > 1.5


def _run(path: Path) -> tuple[list[FrontEndResult], dict[int, Frame]]:
    front_end, results, frames = FrontEnd(), [], {}
    for frame in open_sequence(path).frames():
        results.append(front_end.process(frame))
        frames[frame.stamp_ns] = frame
    return results, frames


def _reprojection_error_px(result: FrontEndResult, keyframe: Frame, frame: Frame, cam1_from_cam0: Float) -> float:
    assert result.matches is not None and result.inliers is not None
    metric = measure_points(keyframe, result.matches.points0)
    assert metric is not None
    used = np.isfinite(metric.points[:, 2]) & result.inliers
    seen = project_points(transform_points(cam1_from_cam0, metric.points[used]), frame.camera)
    return float(np.nanmedian(np.linalg.norm(seen - result.matches.points1[used], axis=1)))
