"""The table of a run: what goes in comes out, whatever happens to the file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_matcher_ros.datatypes import (
    Estimator,
    FrontEndResult,
    GateMeasurement,
    KeyframeReason,
    Matches,
    MotionType,
    Odometry,
    RelativePose,
    ScaleSource,
    Status,
    StopReason,
    TrackingState,
)
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.evaluation.matcher_stages import MatcherStage, matcher_stages
from feature_matcher_ros.evaluation.pair_table import (
    PairTableWriter,
    direction_sigma_deg,
    read_pair_table,
    rotation_sigma_deg,
    row_from_result,
)
from feature_matcher_ros.geometry import angle_between_deg, rotation_angle_deg, rotation_from_vector

ROTATION = rotation_from_vector([0.1, -0.4, 0.2])
DIRECTION = np.array([0.6, 0.0, 0.8])
POSE = RelativePose(
    ROTATION,
    DIRECTION,
    0.25,
    ScaleSource.STEREO,
    MotionType.GENERAL,
    np.diag([4e-4] * 3 + [1e-4] * 3),
    Estimator.ABSOLUTE_POSE,
)
MATCHES = Matches(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32), np.ones(4, np.float32), layers_run=5)
MATCHED = FrontEndResult(
    stamp_ns=1_700_000_000_123_456_789,
    frame_id="camera",
    status=Status.OK,
    state=TrackingState.OK,
    motion_type=MotionType.GENERAL,
    keyframe_stamp_ns=1_700_000_000_000_000_001,
    keyframe_reason=KeyframeReason.PARALLAX,
    gate=GateMeasurement(12.5, 14.0, 0.75, 1.5),
    matches=MATCHES,
    inliers=np.array([True, True, True, False]),
    track_ids=np.arange(4, dtype=np.uint32),
    pose=POSE,
    odometry=Odometry(np.eye(4), ScaleSource.STEREO, 2),
    stages_ms={"gate": 6.5, "extract": 80.0, "novel": 1.0},
)
GATED = replace(
    MATCHED,
    status=Status.GATED,
    motion_type=MotionType.UNKNOWN,
    keyframe_reason=None,
    matches=None,
    inliers=None,
    track_ids=None,
    pose=None,
    odometry=None,
    stages_ms={"gate": np.float64(1.0) / 3.0},
)


def write(path: Path, *results: FrontEndResult) -> Path:
    with PairTableWriter(path) as writer:
        for result in results:
            writer.write(row_from_result(result))
    return path


def test_a_row_holds_what_the_front_end_said():
    row = row_from_result(MATCHED)
    assert (row.num_matches, row.num_inliers, row.inlier_ratio, row.layers_run, row.segment) == (4, 3, 0.75, 5, 2)
    assert (row.parallax_px, row.survival, row.baseline_m) == (12.5, 0.75, 0.25)
    assert (row.gate_ms, row.extract_ms, row.match_ms, row.total_ms) == (6.5, 80.0, None, 87.5)
    assert row.rotation is not None and rotation_angle_deg(row.rotation @ ROTATION.T) < 1e-9
    np.testing.assert_array_equal(row.direction, DIRECTION)
    gated = row_from_result(GATED)
    assert gated.rotation is None and gated.direction is None and gated.num_matches is None
    assert row.attempted and not gated.attempted


def test_what_the_layers_did_comes_back_and_is_summarised(tmp_path):
    first = replace(
        MATCHES,
        stop_reason=StopReason.CONFIDENT,
        points_per_stage=np.array([[100, 60], [50, 30]], np.int32),
        stages_ms={"embed": 0.5, "stage1": 10.0, "stage2": 4.0, "head": 2.0},
    )
    longer = replace(
        first,
        points_per_stage=np.array([[100, 100]] * 3, np.int32),
        stages_ms={"embed": 1.5, "stage1": 20.0, "stage2": 16.0, "stage3": 8.0, "head": 4.0},
    )
    path = write(tmp_path / "pairs.csv", *(replace(MATCHED, matches=matches) for matches in (longer, first)), GATED)
    rows = read_pair_table(path)
    assert rows[1].stop_reason is StopReason.CONFIDENT
    assert rows[1].points_by_stage == "100+60 50+30"
    assert rows[1].matcher_ms == "embed=0.500 stage1=10.000 stage2=4.000 head=2.000"
    assert (rows[2].stop_reason, rows[2].points_by_stage, rows[2].matcher_ms) == (None, None, None)
    assert matcher_stages(rows) == (
        MatcherStage("embed", 2, 1.0, None, None),
        MatcherStage("stage1", 2, 15.0, 180.0, 1.0),
        MatcherStage("stage2", 2, 10.0, 140.0, 0.75),
        MatcherStage("stage3", 1, 8.0, 200.0, 1.0),
        MatcherStage("head", 2, 3.0, None, None),
    )
    assert matcher_stages(rows[2:]) == ()


def test_rows_come_back_exactly(tmp_path):
    path = write(tmp_path / "pairs.csv", MATCHED, GATED)
    assert read_pair_table(path) == (row_from_result(MATCHED), row_from_result(GATED))
    assert "nan" not in path.read_text().lower()


def test_every_row_is_on_disk_at_once_and_a_cut_off_one_is_left_out(tmp_path):
    writer = PairTableWriter(tmp_path / "pairs.csv")
    writer.write(row_from_result(MATCHED))
    assert len(read_pair_table(tmp_path / "pairs.csv")) == 1
    writer.close()
    path = write(tmp_path / "cut.csv", MATCHED, GATED, MATCHED)
    whole = path.read_text()
    for length in range(len(whole) - 300, len(whole), 7):
        path.write_text(whole[:length])
        assert len(read_pair_table(path)) == whole[:length].count("\n") - 1


def test_sigmas_are_the_spread_of_the_errors_they_speak_of():
    rng = np.random.default_rng(0)
    root = rng.normal(0, 0.01, (6, 6))
    pose = replace(POSE, covariance=root @ root.T)
    rotations, directions = [], []
    for motion in rng.normal(size=(4000, 6)) @ root.T:
        turn = rotation_from_vector(motion[3:])
        rotations.append(rotation_angle_deg(turn))
        directions.append(angle_between_deg(turn @ (DIRECTION * 0.25) + motion[:3], DIRECTION))
    assert rotation_sigma_deg(pose) == pytest.approx(np.sqrt(np.mean(np.square(rotations))), rel=0.05)
    assert direction_sigma_deg(pose) == pytest.approx(np.sqrt(np.mean(np.square(directions))), rel=0.05)
    rotation_only = replace(POSE, direction=None, baseline_m=None, covariance=np.eye(3) * 1e-4)
    assert direction_sigma_deg(rotation_only) is None
    assert rotation_sigma_deg(rotation_only) == pytest.approx(np.degrees(np.sqrt(3e-4)))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda text: text.replace("survival", "overlap"), "different: overlap, survival"),
        (lambda text: text.replace("GENERAL", "SIDEWAYS"), "'SIDEWAYS' in column motion_type, line 2"),
        (lambda text: text.replace(",80.0,", ",nan,"), "'nan' in column extract_ms, line 2"),
        (lambda text: text.replace(",80.0,", ","), "line 2 of .* has 35 cells instead of 36"),
        (lambda text: "", "different: baseline_m"),
    ],
)
def test_a_broken_table_is_refused_with_the_place(tmp_path, spoil, sentence):
    path = write(tmp_path / "pairs.csv", MATCHED)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(SourceError, match=sentence):
        read_pair_table(path)


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(SourceError, match="cannot read"):
        read_pair_table(tmp_path / "absent.csv")
    with pytest.raises(OutputError, match="cannot write"):
        PairTableWriter(tmp_path / "absent" / "pairs.csv")
    if Path("/dev/full").exists():
        with pytest.raises(OutputError, match="No space left on device"):
            PairTableWriter(Path("/dev/full"))
