"""The whole front-end on the rendered demo, where every pose is known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import (
    Features,
    Frame,
    FrontEndResult,
    Image,
    KeyframeReason,
    Matches,
    MotionType,
    PoseEstimate,
    ScaleSource,
    Status,
    TrackingState,
)
from feature_matcher_ros.evaluation.demo_path import DemoScript, demo_script
from feature_matcher_ros.evaluation.demo_scene import demo_frames
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.geometry import angle_between_deg, invert_pose, rotation_angle_deg
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.relative_pose import estimate_from_normalized

RATE_HZ = 10.0
# What is tested here does not depend on the matcher, and this one is fast.
NEAREST = {"matcher.name": "mutual_nearest", "extractor.max_keypoints": 600}
CONFIG = override(FrontEndConfig(), NEAREST | {"keyframes.min_parallax_px": 6.0})


@pytest.fixture(scope="module")
def script() -> DemoScript:
    return demo_script(RATE_HZ)


@pytest.fixture(scope="module")
def frames() -> dict[Modality, list[Frame]]:
    stereo = [frame for frame, _ in demo_frames(Modality.STEREO, rate_hz=RATE_HZ)]
    rgbd = [frame for frame, _ in demo_frames(Modality.RGBD, rate_hz=RATE_HZ)]
    return {
        Modality.STEREO: stereo,
        Modality.RGBD: rgbd,
        Modality.MONO: [replace(frame, stereo=None) for frame in stereo],
    }


@pytest.fixture(scope="module")
def runs(frames: dict[Modality, list[Frame]]) -> dict[Modality, list[FrontEndResult]]:
    return {modality: _run(part) for modality, part in frames.items()}


def _run(frames: list[Frame], config: FrontEndConfig = CONFIG) -> list[FrontEndResult]:
    front_end = FrontEnd(config)
    return [front_end.process(frame) for frame in frames]


def _truth(script: DemoScript, result: FrontEndResult) -> np.ndarray:
    """True cam1_from_cam0 of the pair of a result."""
    stamps = script.ground_truth.stamps_ns
    row0, row1 = (int(np.searchsorted(stamps, stamp)) for stamp in (result.keyframe_stamp_ns, result.stamp_ns))
    poses = script.ground_truth.world_from_cam
    return invert_pose(poses[row1]) @ poses[row0]


@pytest.mark.parametrize("modality", list(Modality))
def test_poses_agree_with_the_truth(
    script: DemoScript, runs: dict[Modality, list[FrontEndResult]], modality: Modality
) -> None:
    turn_errors, direction_errors, scale_errors = [], [], []
    for result in runs[modality]:
        if result.pose is None:
            continue
        true = _truth(script, result)
        turn_errors.append(rotation_angle_deg(true[:3, :3] @ result.pose.rotation.T))
        length = np.linalg.norm(true[:3, 3])
        if result.pose.direction is not None and length > 0.03:
            direction_errors.append(angle_between_deg(true[:3, 3], result.pose.direction))
            if result.pose.baseline_m is not None:
                scale_errors.append(abs(result.pose.baseline_m / length - 1))
    assert len(turn_errors) > 20
    assert np.median(turn_errors) < 0.25
    assert np.median(direction_errors) < 4.0
    if modality is Modality.MONO:
        assert not scale_errors
    else:
        assert np.median(scale_errors) < 0.03


@pytest.mark.parametrize("modality", list(Modality))
def test_the_trajectory_has_the_shape_of_the_truth(
    script: DemoScript, runs: dict[Modality, list[FrontEndResult]], modality: Modality
) -> None:
    placed = [r for r in runs[modality] if r.odometry is not None]
    assert {r.odometry.segment for r in placed} == {0}
    source = {Modality.MONO: ScaleSource.NONE, Modality.STEREO: ScaleSource.STEREO, Modality.RGBD: ScaleSource.DEPTH}
    assert {r.odometry.scale_source for r in placed} == {source[modality]}
    rows = np.searchsorted(script.ground_truth.stamps_ns, [r.stamp_ns for r in placed])
    true = script.ground_truth.world_from_cam[rows]
    true_in_first = np.einsum("ij,nj->ni", np.linalg.inv(true[0])[:3], np.insert(true[:, :3, 3], 3, 1.0, axis=1))
    estimated = np.array([r.odometry.world_from_cam[:3, 3] for r in placed])
    if modality is Modality.MONO:
        estimated *= np.sum(true_in_first * estimated) / np.sum(estimated**2)
    errors = np.linalg.norm(estimated - true_in_first, axis=1)
    path_length = np.sum(np.linalg.norm(np.diff(true_in_first, axis=0), axis=1))
    assert np.max(errors) < (0.06 if modality is Modality.MONO else 0.02) * path_length


@pytest.mark.parametrize("modality", list(Modality))
def test_a_turning_camera_never_passes_on_a_translation(
    script: DemoScript, runs: dict[Modality, list[FrontEndResult]], modality: Modality
) -> None:
    turned = [r for r in runs[modality] if _true_type(script, r) is MotionType.ROTATION_ONLY]
    assert turned
    for result in turned:
        assert result.motion_type is MotionType.ROTATION_ONLY
        assert result.pose.direction is None


@pytest.mark.parametrize("modality", list(Modality))
def test_a_standing_camera_never_passes_on_a_motion(
    script: DemoScript, frames: dict[Modality, list[Frame]], modality: Modality
) -> None:
    standing = [frame for frame in frames[modality] if script.stretch_at(frame.stamp_ns).name == "static"]
    for result in _run(standing, override(CONFIG, {"keyframes.match_every_frame": True}))[1:]:
        assert (result.status, result.motion_type) == (Status.OK, MotionType.STATIC)
        assert result.pose.direction is None
        assert not result.is_keyframe


def _true_type(script: DemoScript, result: FrontEndResult) -> MotionType | None:
    if result.matches is None or result.keyframe_stamp_ns is None:
        return None
    return script.motion_type(result.keyframe_stamp_ns, result.stamp_ns)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_black_out_is_survived_in_the_same_segment(
    script: DemoScript, runs: dict[Modality, list[FrontEndResult]], modality: Modality
) -> None:
    dark = [r for r in runs[modality] if script.stretch_at(r.stamp_ns).black]
    after = [r for r in runs[modality] if script.stretch_at(r.stamp_ns).name == "recovery"]
    assert {r.status for r in dark} == {Status.TOO_FEW_FEATURES}
    assert {r.state for r in dark} == {TrackingState.LOST}
    found = next(r for r in after if r.status is Status.OK)
    assert found.state is TrackingState.RECOVERED
    assert found.keyframe_reason is KeyframeReason.RECOVERY
    assert found.stamp_ns - after[0].stamp_ns <= 3e8


def test_every_result_keeps_its_word(runs: dict[Modality, list[FrontEndResult]]) -> None:
    for result in (r for run in runs.values() for r in run):
        assert (result.pose is not None) == (result.status is Status.OK)
        if result.pose is not None:
            arrays = [result.pose.rotation, result.pose.covariance, result.pose.cam1_from_cam0]
            assert all(np.all(np.isfinite(array)) for array in arrays)
            assert len(result.matches) == len(result.inliers) == len(result.track_ids)
            assert np.all(np.linalg.eigvalsh(result.pose.covariance) > -1e-12)
        if result.status is Status.GATED:
            assert result.matches is None
            assert "extract" not in result.stages_ms


def test_keyframes_share_tracks(runs: dict[Modality, list[FrontEndResult]]) -> None:
    keyframes = [r for r in runs[Modality.STEREO] if r.is_keyframe and r.track_ids is not None]
    shared = [len(np.intersect1d(a.track_ids[a.inliers], b.track_ids[b.inliers])) for a, b in pairwise(keyframes)]
    assert np.median(shared) > 20


class Unnumbered:
    """A matcher that does not say which of its keypoints it matched, as those without a detector cannot."""

    def __init__(self) -> None:
        self._matcher = create_matcher(CONFIG)
        self.name = self._matcher.name

    def extract(self, image: Image, mask: Image | None = None) -> Features:
        return self._matcher.extract(image, mask)

    def match(self, features0: Features, features1: Features) -> Matches:
        return replace(self._matcher.match(features0, features1), indices=None)


@pytest.mark.parametrize("modality", [Modality.MONO, Modality.RGBD])
def test_tracks_by_position_keep_pose_and_trajectory(
    frames: dict[Modality, list[Frame]], runs: dict[Modality, list[FrontEndResult]], modality: Modality
) -> None:
    """Matches are moved onto their tracks; the poses are those of the matches as found, and lengths pass on."""
    front_end = FrontEnd(CONFIG, Unnumbered())
    results = [front_end.process(frame) for frame in frames[modality]]
    places = []
    for ours, expected in zip(results, runs[modality], strict=True):
        assert ours.status is expected.status
        if ours.pose is not None and expected.pose is not None and modality is Modality.RGBD:
            assert np.array_equal(ours.pose.rotation, expected.pose.rotation)
        if ours.odometry is not None and expected.odometry is not None:
            places.append((ours.odometry.world_from_cam[:3, 3], expected.odometry.world_from_cam[:3, 3]))
    found, reference = np.array(places).transpose(1, 0, 2)
    found = found * (np.sum(found * reference) / np.sum(found**2)) if modality is Modality.MONO else found
    path_length = np.sum(np.linalg.norm(np.diff(reference, axis=0), axis=1))
    assert np.linalg.norm(found - reference, axis=1).max() < (0.06 if modality is Modality.MONO else 1e-6) * path_length
    keyframes = [r for r in results if r.is_keyframe and r.track_ids is not None]
    shared = [len(np.intersect1d(a.track_ids[a.inliers], b.track_ids[b.inliers])) for a, b in pairwise(keyframes)]
    assert np.median(shared) > 20


def test_poses_are_of_the_matches_as_found(
    frames: dict[Modality, list[Frame]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a plane is looked at twice: points moved onto tracks share their noise, and would seem too sure."""
    given = []

    def estimate(x0: np.ndarray, x1: np.ndarray, *others: object, **more: object) -> PoseEstimate:
        given.append((x0, x1))
        return estimate_from_normalized(x0, x1, *others, **more)

    monkeypatch.setattr("feature_matcher_ros.front_end.estimate_from_normalized", estimate)
    front_end = FrontEnd(override(CONFIG, {"keyframes.match_every_frame": True}), Unnumbered())
    results = [front_end.process(frames[Modality.MONO][number]) for number in (54, 57)]
    assert results[1].status is Status.DEGENERATE and len(given) == 2
    np.testing.assert_array_equal(given[0], given[1])


def test_the_same_input_gives_the_same_output_bit_by_bit(frames: dict[Modality, list[Frame]]) -> None:
    part = frames[Modality.STEREO][:25]
    for first, second in zip(_run(part), _run(part), strict=True):
        assert (first.status, first.motion_type, first.keyframe_reason) == (
            second.status,
            second.motion_type,
            second.keyframe_reason,
        )
        if first.pose is not None and second.pose is not None:
            assert first.pose.cam1_from_cam0.tobytes() == second.pose.cam1_from_cam0.tobytes()
            assert first.pose.covariance.tobytes() == second.pose.covariance.tobytes()
            assert first.matches.points1.tobytes() == second.matches.points1.tobytes()
            assert first.track_ids.tobytes() == second.track_ids.tobytes()


def test_stamps_that_run_backwards_or_repeat(frames: dict[Modality, list[Frame]]) -> None:
    part = frames[Modality.MONO][10:16]
    front_end = FrontEnd(CONFIG)
    for frame in part:
        front_end.process(frame)
    repeated = front_end.process(part[-1])
    assert (repeated.status, repeated.state) == (Status.REPEATED_STAMP, TrackingState.OK)
    looped = front_end.process(part[0])
    assert (looped.status, looped.keyframe_reason) == (Status.FIRST_FRAME, KeyframeReason.TIME_JUMP)
    assert looped.odometry.segment == 1
    followed = [front_end.process(frame) for frame in part[1:]]
    assert all(r.state is TrackingState.OK for r in followed)
    assert all(r.odometry.segment == 1 for r in followed if r.odometry is not None)


def test_a_camera_that_stays_lost_starts_a_new_segment(frames: dict[Modality, list[Frame]]) -> None:
    config = override(CONFIG, {"keyframes.max_lost_frames": 3})
    # The same room with other walls, seen from one place and then from another.
    there = [frame for frame, _ in demo_frames(Modality.MONO, rate_hz=RATE_HZ, seed=7, stride=10)][2:4]
    stamps_ns = [frame.stamp_ns for frame in frames[Modality.MONO][20:28]]
    elsewhere = [replace(there[number // 7], stamp_ns=stamp_ns) for number, stamp_ns in enumerate(stamps_ns)]
    front_end = FrontEnd(config)
    for frame in frames[Modality.MONO][15:20]:
        front_end.process(frame)
    results = [front_end.process(frame) for frame in elsewhere]
    assert [r.state for r in results[:3]] == [TrackingState.LOST] * 3
    assert results[3].keyframe_reason is KeyframeReason.RESTART
    assert results[3].odometry.segment == 1
    assert all(r.state is not TrackingState.LOST for r in results[3:])


def test_matching_every_frame_gives_a_place_to_nearly_every_frame(frames: dict[Modality, list[Frame]]) -> None:
    config = override(CONFIG, {"keyframes.match_every_frame": True})
    results = _run(frames[Modality.STEREO][5:30], config)
    assert all(r.status in (Status.OK, Status.FIRST_FRAME) for r in results)
    assert all(r.odometry is not None for r in results)
    assert sum(r.is_keyframe for r in results) < len(results)


def test_a_beginning_in_the_dark_costs_no_more_than_the_dark_frames(frames: dict[Modality, list[Frame]]) -> None:
    lit = frames[Modality.MONO][5:14:4]
    dark = [replace(frame, image=np.zeros_like(frame.image)) for frame in frames[Modality.MONO][3:5]]
    results = _run([*dark, *lit], override(CONFIG, {"keyframes.match_every_frame": True}))
    assert [result.keyframe_reason for result in results[:3]] == [
        KeyframeReason.FIRST_FRAME,
        None,
        KeyframeReason.RESTART,
    ]
    assert {result.status for result in results[3:]} == {Status.OK}


def test_track_ids_do_not_repeat_after_a_reset(frames: dict[Modality, list[Frame]]) -> None:
    front_end = FrontEnd(override(CONFIG, {"keyframes.match_every_frame": True}))
    ids = []
    for _ in range(2):
        front_end.reset()
        front_end.process(frames[Modality.MONO][5])
        ids.append(front_end.process(frames[Modality.MONO][6]).track_ids)
    assert not set(ids[0].tolist()) & set(ids[1].tolist())
