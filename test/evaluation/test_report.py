"""The numbers of invented runs whose errors are known, and the pages made of them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_pairs_scene import SIZE, K, render
from synthetic_run import EVERY, PERIOD_NS, START_NS, write_run

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import KeyframeReason, Trajectory
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.evaluation.compare import compare_runs, comparison_table
from feature_matcher_ros.evaluation.evaluate import evaluate_run, lost_stretches
from feature_matcher_ros.evaluation.json_text import to_json
from feature_matcher_ros.evaluation.pair_accuracy import moving_baseline_m
from feature_matcher_ros.evaluation.pair_table import PairTableWriter
from feature_matcher_ros.evaluation.replay import replay
from feature_matcher_ros.evaluation.report import write_report
from feature_matcher_ros.evaluation.summary import frame_rows, summary_rows
from feature_matcher_ros.evaluation.trajectories import write_tum
from feature_matcher_ros.evaluation.worst_pairs import choose_worst_pairs, draw_worst_pairs
from feature_matcher_ros.geometry import invert_pose, pose_from, rotation_from_vector

VOID = {"meta", "br", "img", "hr", "input", "path", "use"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what the page shows and asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert tag != "script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def strict_json(text: str) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_metric_run_is_measured_as_it_was_made(tmp_path):
    run = write_run(tmp_path / "run", num_frames=800, sigma_deg=0.2, scale=1.03, lost=range(61, 76))
    evaluation = evaluate_run(run.folder)
    pairs, trajectory = evaluation.pairs, evaluation.trajectory
    assert evaluation.metric and trajectory is not None and trajectory.alignment == "SE(3)"
    assert trajectory.scale == pytest.approx(1 / 1.03, rel=0.01)
    assert trajectory.drift is not None and 1.0 < trajectory.drift.translation_percent < 12.0
    assert pairs is not None and pairs.scale_error_percent is not None and pairs.direction_deg is not None
    assert pairs.scale_bias_percent == pytest.approx(3.0)
    assert pairs.rotation_deg.rmse == pytest.approx(0.2, rel=0.15)
    assert pairs.direction_deg.rmse == pytest.approx(2.0, rel=0.15)
    assert pairs.rotation_consistency is not None and pairs.direction_consistency is not None
    assert pairs.rotation_consistency.mean_square == pytest.approx(1.0, rel=0.3)
    assert pairs.direction_consistency.mean_square == pytest.approx(1.0, rel=0.3)
    assert (pairs.num_wrong, pairs.num_motion_missed) == (0, 0)
    assert pairs.num_pairs - pairs.num_moving == 5  # of the turn on the spot, where a direction means nothing


def test_frames_are_counted_by_what_became_of_them(tmp_path):
    run = write_run(tmp_path / "run", num_frames=240, lost=range(60, 75), layers=True, skipped={"unreadable": 3})
    frames = evaluate_run(run.folder).frames
    assert (frames.num_frames, frames.num_skipped, frames.num_lost_frames, frames.num_lost_stretches) == (240, 3, 15, 1)
    matched = sum(index % EVERY == 0 for index in range(1, 240) if index not in range(60, 75))
    assert (frames.num_attempted, frames.num_accepted) == (matched + 15, matched)
    assert frames.status == {"OK": matched, "FIRST_FRAME": 1, "GATED": 240 - 1 - 15 - matched, "TOO_FEW_INLIERS": 15}
    assert frames.motion_type == {"GENERAL": matched - 4, "ROTATION_ONLY": 4, "UNKNOWN": 15}
    assert frames.refused == {"TOO_FEW_INLIERS": 15}
    assert ("no pose because of", "15 TOO_FEW_INLIERS") in frame_rows(evaluate_run(run.folder))
    assert sum(frames.layers_run.values()) == matched
    assert lost_stretches(run.rows) == [(START_NS + 60 * PERIOD_NS, START_NS + 74 * PERIOD_NS)]


def test_what_went_wrong_with_the_input_is_said(tmp_path):
    """Two cameras that were exchanged, depth that does not fit, times in another unit: poses come, but no length."""
    for modality, said in (("STEREO", "left and right may be exchanged"), ("RGBD", "too sparse"), ("MONO", None)):
        run = write_run(tmp_path / modality, metric=False, modality=modality)
        remarks = [remark for remark in evaluate_run(run.folder).remarks if "gave no length" in remark]
        moving = sum(row.tx is not None for row in run.rows)
        assert [f"gave no length to {moving} of {moving} pairs" in remark for remark in remarks] == [True] * bool(said)
        assert said is None or said in remarks[0]
    assert not [remark for remark in evaluate_run(write_run(tmp_path / "fits").folder).remarks if "length" in remark]

    with PairTableWriter(run.folder / "pairs.csv") as writer:
        for number, row in enumerate(run.rows):
            stamp_ns = START_NS + number * 1000 * PERIOD_NS
            restarts = row.is_keyframe and number > 100
            reason = KeyframeReason.TIME_JUMP if restarts else row.keyframe_reason
            writer.write(replace(row, stamp_ns=stamp_ns, keyframe_reason=reason, segment=int(restarts)))
    remarks = evaluate_run(run.folder).remarks
    assert any(f"Frames are {PERIOD_NS * 1e-6:.6g} s apart" in remark and "unit" in remark for remark in remarks)
    num_restarts = sum(row.is_keyframe for row in run.rows[101:])
    assert any(f"2 unconnected segments ({num_restarts} TIME_JUMP)" in remark for remark in remarks)


def test_a_run_without_scale_is_aligned_with_a_free_one(tmp_path):
    run = write_run(tmp_path / "run", metric=False)
    evaluation = evaluate_run(run.folder)
    assert not evaluation.metric and evaluation.trajectory is not None and evaluation.pairs is not None
    assert evaluation.trajectory.alignment == "Sim(3)"
    assert evaluation.trajectory.scale == pytest.approx(1 / 3, rel=0.02)
    assert evaluation.trajectory.ate_m.rmse < 0.05
    assert evaluation.pairs.scale_error_percent is None
    assert "Sim(3)" in write_report(evaluation, tmp_path).read_text()


def test_opposite_directions_are_false_acceptances(tmp_path):
    run = write_run(tmp_path / "run")
    with PairTableWriter(run.folder / "pairs.csv") as writer:
        for number, row in enumerate(run.rows):
            flipped = row.tx is not None and number < 100
            writer.write(replace(row, tx=-row.tx, ty=-row.ty, tz=-row.tz) if flipped else row)
    pairs = evaluate_run(run.folder).pairs
    assert pairs is not None and pairs.direction_deg is not None
    assert pairs.num_wrong == sum(row.tx is not None for row in run.rows[:100]) > 20
    assert pairs.direction_deg.max > 170.0


def test_truth_of_another_time_is_an_error_if_given_and_a_remark_if_not(tmp_path):
    run = write_run(tmp_path / "run")
    late = Trajectory(run.truth.stamps_ns + 3600 * 10**9, run.truth.world_from_cam)
    write_tum(tmp_path / "late.tum", late)
    with pytest.raises(SourceError) as caught:
        evaluate_run(run.folder, tmp_path / "late.tum")
    sentence = str(caught.value)
    assert "1700003600.000 s to 1700003611.950 s" in sentence and "1700000000.000 s to 1700000011.950 s" in sentence
    write_tum(run.folder / "ground_truth.tum", late)
    evaluation = evaluate_run(run.folder)
    assert evaluation.trajectory is None and evaluation.pairs is None and evaluation.frames.num_accepted > 0
    assert any("do not overlap" in remark for remark in evaluation.remarks)
    page = write_report(evaluation, tmp_path).read_text()
    assert "do not overlap" in page and "Latency" in page


def test_truth_of_another_rate_is_interpolated(tmp_path):
    run = write_run(tmp_path / "run")
    between = Trajectory(run.truth.stamps_ns[2::4], run.truth.world_from_cam[2::4])  # 100 ms from every keyframe
    write_tum(run.folder / "ground_truth.tum", between)
    evaluation = evaluate_run(run.folder)
    assert evaluation.trajectory is not None and evaluation.pairs is not None
    assert evaluation.trajectory.ate_m.rmse < 0.05
    assert evaluation.pairs.rotation_deg.median < 0.5


def test_report_holds_the_numbers_and_needs_nothing_else(tmp_path):
    run = write_run(tmp_path / "run", layers=True, lost=range(60, 75), source="/nowhere <b>&")
    evaluation = evaluate_run(run.folder)
    path = write_report(evaluation, tmp_path / "report")
    text = path.read_text()
    page = Page(text)
    shown = " ".join(page.words)
    assert evaluation.trajectory is not None and evaluation.pairs is not None
    assert f"{1000 * evaluation.trajectory.ate_m.rmse:.3g} mm" in shown
    assert f"{evaluation.pairs.rotation_deg.median:.3g}°" in shown
    assert "/nowhere <b>&" in shown
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)
    numbers = strict_json((tmp_path / "report" / "report.json").read_text())
    assert numbers["trajectory"]["ate_m"]["rmse"] == evaluation.trajectory.ate_m.rmse
    assert numbers["frames"]["num_accepted"] == evaluation.frames.num_accepted
    assert numbers["latency_ms"]["extract"]["p95"] == evaluation.latency_ms["extract"].p95
    assert "series" not in numbers


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = write_run(tmp_path / "run", num_frames=80)
    pages = [write_report(evaluate_run(run.folder), tmp_path / name).read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_runs_without_truth_without_poses_and_without_frames_have_a_report(tmp_path):
    run = write_run(tmp_path / "run", num_frames=40, finished=False)
    (run.folder / "ground_truth.tum").unlink()
    evaluation = evaluate_run(run.folder)
    assert {"no ground truth", "interrupted"} <= {
        word for word in ("no ground truth", "interrupted") if any(word in remark for remark in evaluation.remarks)
    }
    Page(write_report(evaluation, tmp_path).read_text())
    with PairTableWriter(run.folder / "pairs.csv") as writer:
        writer.write(run.rows[0])
    write_tum(run.folder / "trajectory.tum", Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4))))
    write_tum(run.folder / "ground_truth.tum", run.truth)
    single = evaluate_run(run.folder)
    assert single.trajectory is None and single.frames.accepted_share is None
    Page(write_report(single, tmp_path).read_text())
    with PairTableWriter(run.folder / "pairs.csv"):
        pass
    empty = evaluate_run(run.folder)
    assert empty.frames.num_frames == 0
    Page(write_report(empty, tmp_path).read_text())
    assert [label for label, _ in summary_rows(empty)] == [label for label, _ in summary_rows(single)]
    strict_json(to_json(empty))


def test_a_camera_that_stands_still_has_no_drift_and_no_scale(tmp_path):
    run = write_run(tmp_path / "run", num_frames=40, metric=False)
    still = np.tile(np.eye(4), (40, 1, 1))
    write_tum(run.folder / "trajectory.tum", Trajectory(run.truth.stamps_ns, still))
    evaluation = evaluate_run(run.folder)
    assert evaluation.trajectory is None
    assert any("never leaves its place" in remark for remark in evaluation.remarks)
    write_tum(run.folder / "ground_truth.tum", Trajectory(run.truth.stamps_ns, still))
    metric = write_run(tmp_path / "metric", num_frames=40)
    for name in ("trajectory.tum", "ground_truth.tum"):
        write_tum(metric.folder / name, Trajectory(run.truth.stamps_ns, still))
    accuracy = evaluate_run(metric.folder).trajectory
    assert accuracy is not None and accuracy.drift is None and accuracy.scale is None and accuracy.ate_m.rmse == 0.0


def test_noise_of_the_truth_decides_what_counts_as_moving(tmp_path):
    truth = write_run(tmp_path / "run", num_frames=400).truth
    assert moving_baseline_m(truth) == 0.02
    noisy = truth.world_from_cam.copy()
    noisy[:, :3, 3] += np.random.default_rng(0).normal(0, 0.003, (400, 3))
    assert moving_baseline_m(Trajectory(truth.stamps_ns, noisy)) == pytest.approx(0.06, rel=0.2)
    assert moving_baseline_m(truth, truth_sigma_m=0.01) == 0.2
    told = write_run(tmp_path / "told", num_frames=400, truth_sigma_m=0.005)
    pairs = evaluate_run(told.folder).pairs
    assert pairs is not None and pairs.min_baseline_m == 0.1 and 0 < pairs.num_moving < pairs.num_pairs


def test_worst_pairs_are_drawn_from_the_source_and_the_topics(tmp_path):
    source = tmp_path / "kitti"
    (source / "image_0").mkdir(parents=True)
    motions = [pose_from(rotation_from_vector([0.0, 0.01 * n, 0.0]), [0.25 * n, 0.0, 0.02 * n]) for n in range(4)]
    for number, motion in enumerate(motions):
        cv2.imwrite(str(source / "image_0" / f"{number:06d}.png"), render(motion))
    projection = " ".join(str(value) for value in np.hstack([K, np.zeros((3, 1))]).ravel())
    (source / "calib.txt").write_text(f"P0: {projection}\n")
    inverses = [invert_pose(motion)[:3].ravel() for motion in motions]
    (source / "poses.txt").write_text("\n".join(" ".join(map(str, values)) for values in inverses))
    config = {"matcher.name": "mutual_nearest", "keyframes.match_every_frame": True}
    replay(source, tmp_path / "run", config=override(FrontEndConfig(), config))

    evaluation = evaluate_run(tmp_path / "run")
    assert evaluation.pairs is not None and evaluation.pairs.rotation_deg.max < 1.0
    chosen = choose_worst_pairs(evaluation, 2)
    drawn = draw_worst_pairs(evaluation, 2)
    assert len(drawn.pairs) == len(chosen) == 2
    errors = {error.stamp_ns: error.badness for error in evaluation.series.pair_errors}
    assert errors[chosen[0].stamp_ns] == max(errors.values())
    assert f"{chosen[0].num_inliers} of {chosen[0].num_matches} matches" in drawn.pairs[0].caption
    picture = cv2.imdecode(np.frombuffer(drawn.pairs[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 2 * SIZE[0]
    assert "data:image/jpeg;base64," in write_report(evaluation, tmp_path).read_text()

    shutil.rmtree(source)
    assert "does not exist" in draw_worst_pairs(evaluation).note
    shutil.rmtree(tmp_path / "run" / "topics")
    assert "no folder 'topics'" in draw_worst_pairs(evaluation).note
    page = Page(write_report(evaluation, tmp_path).read_text())
    assert "not drawn" in " ".join(page.words)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is no run folder"),
        ("{", "cannot be used"),
        ("[1]", "cannot be used"),
        ('{"name": "x"}', "'source' is missing"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(SourceError, match=sentence):
        evaluate_run(tmp_path)


def test_a_report_that_cannot_be_written(tmp_path):
    run = write_run(tmp_path / "run", num_frames=20)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose a folder"):
        write_report(evaluate_run(run.folder), tmp_path / "file" / "report")


def test_runs_are_compared_side_by_side(tmp_path):
    runs = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run", metric=False, layers=True)]
    comparison = compare_runs([run.folder for run in runs], tmp_path / "comparison")
    header, rows = comparison_table(comparison)
    assert header == ["", "a/run", "b/run"]
    cells = {row[0]: row[1:] for row in rows}
    assert cells["ATE, rmse"][0].endswith("SE(3)") and cells["ATE, rmse"][1].endswith("Sim(3)")
    assert cells["layers run"][0] == "-"
    shown = " ".join(Page((tmp_path / "comparison" / "comparison.html").read_text()).words)
    assert "modality" in shown and "a/run" in shown
    numbers = strict_json((tmp_path / "comparison" / "comparison.json").read_text())
    assert len(numbers["evaluations"]) == 2
    with pytest.raises(SourceError, match="two or more"):
        compare_runs([runs[0].folder], tmp_path / "comparison")
    assert not Path("comparison").exists()
