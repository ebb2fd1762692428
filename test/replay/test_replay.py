"""Replay from the command line, on a short stretch of the rendered demo."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import feature_matcher
from rosbags.highlevel import AnyReader

from feature_matcher_ros.config import FrontEndConfig, override
from feature_matcher_ros.datatypes import Features
from feature_matcher_ros.evaluation.demo_rig import DemoOptions
from feature_matcher_ros.evaluation.demo_scene import DemoRecording, write_demo_bag
from feature_matcher_ros.evaluation.pair_table import PairRow, PairTableWriter, read_pair_table
from feature_matcher_ros.evaluation.replay import replay
from feature_matcher_ros.evaluation.sequences import open_sequence
from feature_matcher_ros.evaluation.trajectories import read_tum
from feature_matcher_ros.extractors.sift import Sift
from feature_matcher_ros.front_end import FrontEnd
from feature_matcher_ros.matchers import create_matcher

SETTINGS = {"extractor.max_keypoints": 400, "keyframes.min_parallax_px": 5.0}
DEFAULT_MATCHER = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
NEAREST = SETTINGS | {"matcher.name": "mutual_nearest"}  # fast, where the matcher does not matter
ARGUMENTS = [*DEFAULT_MATCHER, "--set", "matcher.name=mutual_nearest"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "bag"
    write_demo_bag(path, DemoOptions(width=256, rate_hz=10.0))
    return path


def test_a_frame_whose_features_are_no_numbers_is_counted_and_left_out(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extract, frames = Sift.extract, []

    def spoil_the_third(self: Sift, *arguments: Any) -> Features:
        frames.append(extract(self, *arguments))
        return replace(frames[-1], descriptors=frames[-1].descriptors * np.nan) if len(frames) == 3 else frames[-1]

    monkeypatch.setattr(Sift, "extract", spoil_the_third)
    run = tmp_path / "run"
    every = ("--set", "keyframes.match_every_frame=true")
    code, out, err = feature_matcher(capsys, "replay", bag, "-o", run, "--no-report", "--no-topics", *ARGUMENTS, *every)
    assert (code, err) == (0, "")
    assert "skipped 1: a descriptor or keypoint is NaN or infinite" in " ".join(out.split())
    summary = json.loads((run / "run.json").read_text())
    assert sum(summary["skipped"].values()) == 1 and summary["finished"]
    assert len(read_pair_table(run / "pairs.csv")) == summary["num_frames"] == len(frames) - 1


def test_a_replay_writes_what_the_front_end_says(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    code, _, err = feature_matcher(capsys, "replay", bag, "-o", run, *ARGUMENTS)
    assert (code, err) == (0, "")
    front_end = FrontEnd(override(FrontEndConfig(), NEAREST))
    results = [front_end.process(frame) for frame in open_sequence(bag).frames()]

    rows = read_pair_table(run / "pairs.csv")
    assert [row.stamp_ns for row in rows] == [result.stamp_ns for result in results]
    assert [row.status for row in rows] == [result.status for result in results]
    for row, result in zip(rows, results, strict=True):
        assert (row.rotation is None) == (result.pose is None)
        if result.pose is not None:
            np.testing.assert_allclose(row.rotation, result.pose.rotation, atol=1e-9)
            assert row.baseline_m == result.pose.baseline_m

    trajectory = read_tum(run / "trajectory.tum")
    placed = [result for result in results if result.odometry is not None]
    np.testing.assert_allclose(
        trajectory.world_from_cam, [result.odometry.world_from_cam for result in placed], atol=1e-6
    )
    assert len(read_tum(run / "ground_truth.tum")) == len(results)

    summary = json.loads((run / "run.json").read_text())
    assert summary["finished"] is True
    assert summary["num_frames"] == len(results)
    assert summary["config"]["extractor.max_keypoints"] == 400
    assert (run / "report.html").stat().st_size > 10_000
    assert json.loads((run / "report.json").read_text())

    with AnyReader([run / "topics"]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    matched = [result for result in results if result.matches is not None]
    assert counts["/feature_matcher/correspondences"] == len(matched)
    assert counts["/feature_matcher/odometry"] == len(placed)


def test_two_replays_are_equal_to_the_byte(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = slice(0, 25)  # all but the times that the stages took
    tables = []
    for name in ("a", "b"):
        arguments = ("--duration", "3", "--no-topics", "--no-report", *DEFAULT_MATCHER)
        assert feature_matcher(capsys, "replay", bag, "-o", tmp_path / name, *arguments)[0] == 0
        lines = (tmp_path / name / "pairs.csv").read_text().splitlines()
        tables.append([line.split(",")[columns] for line in lines])
    assert tables[0] == tables[1]
    assert (tmp_path / "a" / "trajectory.tum").read_bytes() == (tmp_path / "b" / "trajectory.tum").read_bytes()
    summary = json.loads((tmp_path / "a" / "run.json").read_text())
    assert summary["matcher"] == summary["config"]["matcher.name"] == "lightglue"
    assert any(row.layers_run for row in read_pair_table(tmp_path / "a" / "pairs.csv"))


def test_an_interrupted_replay_leaves_readable_files(bag: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "feature_matcher_ros.cli", "replay", str(bag), "-o", str(run)]
    process = subprocess.Popen(
        [*command, *ARGUMENTS, "--set", "keyframes.match_every_frame=true", "--set", "extractor.max_keypoints=4000"],
        stdout=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _count_lines(run / "pairs.csv") < 4:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after" in out
    rows = read_pair_table(run / "pairs.csv")
    summary = json.loads((run / "run.json").read_text())
    assert 3 <= len(rows) == summary["num_frames"]
    assert summary["finished"] is False
    assert 1 <= len(read_tum(run / "trajectory.tum")) <= len(rows)
    with AnyReader([run / "topics"]) as reader:
        assert sum(connection.msgcount for connection in reader.connections) > 0


@pytest.fixture
def heeded_signals() -> Iterator[None]:
    """A shell that runs the tests in the background has them ignore SIGINT."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_a_frame_is_written_waits_for_all_of_it(
    number: int, bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = PairTableWriter.write

    def interrupted_write(self: PairTableWriter, row: PairRow) -> None:
        write(self, row)
        if row.stamp_ns == stamps[2]:
            signal.raise_signal(number)

    stamps = [frame.stamp_ns for frame in open_sequence(bag).frames()]
    monkeypatch.setattr(PairTableWriter, "write", interrupted_write)
    summary = replay(bag, tmp_path / "run", config=override(FrontEndConfig(), NEAREST))
    assert signal.getsignal(number) == signal.default_int_handler
    assert (summary.finished, summary.num_frames) == (False, 3)
    assert [row.stamp_ns for row in read_pair_table(tmp_path / "run" / "pairs.csv")] == stamps[:3]
    with AnyReader([tmp_path / "run" / "topics"]) as reader:
        assert max(stamp for _, stamp, _ in reader.messages()) == stamps[2]


@pytest.mark.usefixtures("heeded_signals")
def test_a_second_interruption_does_not_wait(bag: Path, tmp_path: Path) -> None:
    def interrupt_twice(done: int, total: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one was to end this")

    summary = replay(bag, tmp_path / "run", config=override(FrontEndConfig(), NEAREST), on_progress=interrupt_twice)
    assert (summary.finished, summary.num_frames) == (False, 1)


def _count_lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.is_file() else 0


def test_a_video_and_a_rerun_recording_of_the_matches(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk, an optional package, is not installed")
    run = tmp_path / "run"
    arguments = ("--duration", "2", "--no-topics", "--no-report", "--video", "--rerun", *ARGUMENTS)
    assert feature_matcher(capsys, "replay", bag, "-o", run, *arguments)[0] == 0
    video = cv2.VideoCapture(str(run / "matches.mp4"))
    assert video.read()[0]
    assert (run / "recording.rrd").stat().st_size > 10_000


def test_one_pair_of_images_is_matched_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = DemoRecording(DemoOptions(width=320, rate_hz=10.0))
    for number, name in ((10, "a.png"), (16, "b.png")):
        cv2.imwrite(str(tmp_path / name), recording.frame(number).image)
    images, table = (tmp_path / "a.png", tmp_path / "b.png"), tmp_path / "matches.csv"
    code, out, _ = feature_matcher(capsys, "match", *images, "-o", tmp_path / "matches.png", "--csv", table)
    assert code == 0
    assert "no calibration, so no pose" in out
    assert table.read_text().startswith("x0,y0,x1,y1,score,inlier\n")
    rows = np.loadtxt(table, np.float32, delimiter=",", skiprows=1)
    assert f"{len(rows)} matches, {int(rows[:, 5].sum())} on epipolar lines" in out
    matcher = create_matcher(FrontEndConfig())
    expected = matcher.match(*(matcher.extract(cv2.imread(str(image))) for image in images))
    np.testing.assert_array_equal(rows[:, :4], np.hstack((expected.points0, expected.points1)))
    np.testing.assert_array_equal(rows[:, 4], expected.scores)
    assert feature_matcher(capsys, "match", *images, "--csv", table, "--against", "lightglue")[0] == 1
    assert cv2.imread(str(tmp_path / "matches.png")).shape[1] >= 640


@pytest.mark.parametrize(
    "words", [["-o", "a.png"], ["-o", "./b.png"], ["--csv", "b.png"], ["-o", "a.png", "--against", "lightglue"]]
)
def test_a_match_never_takes_the_place_of_an_image(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(name, np.full((48, 64), 100, np.uint8))
    before = [Path(name).read_bytes() for name in ("a.png", "b.png")]
    code, _, err = feature_matcher(capsys, "match", "a.png", tmp_path / "b.png", *words)
    assert code == 1 and "is one of the images, which would be replaced" in err
    assert [Path(name).read_bytes() for name in ("a.png", "b.png")] == before


def test_the_front_end_keeps_up_with_a_disk_that_is_full(bag: Path, tmp_path: Path) -> None:
    """Write into a file system of 200 kB: one sentence, and the table written so far can be read."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs rights that this process does not have")
    try:
        command = [sys.executable, "-m", "feature_matcher_ros.cli", "replay", str(bag), "-o", str(small / "run")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 1
        assert ended.stderr.startswith("feature-matcher: cannot write")
        assert "No space left on device" in ended.stderr
        assert ended.stderr.count("\n") == 1
        read_pair_table(small / "run" / "pairs.csv")
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "extractor.max_keypoint=3"], "did you mean 'extractor.max_keypoints'"),
        (["--set", "node.modality=STEREO"], "there are those of extractor.*, matcher.*"),
        (["--set", "pose.min_inliers=2"], "out of range"),
        (["--set", "pose.min_inliers=many"], "not of type int"),
        (["--set", "pose.min_inliers"], "has no value"),
        (["--config", "missing.yaml"], "cannot read the configuration"),
        (["--modality", "trinocular"], "is not one of mono, stereo, rgbd"),
        (["--stride", "0"], "selects nothing"),
        (["--output", "/dev/null/run"], "cannot write"),
    ],
)
def test_a_wrong_argument_gets_one_sentence(
    bag: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, _, err = feature_matcher(capsys, "replay", bag, *arguments)
    assert code == 1
    assert expected in err
    assert err.startswith("feature-matcher: ")
    assert err.count("\n") == 1


def test_a_source_that_is_not_one_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.bag").touch()
    (tmp_path / "video.mp4").write_bytes(os.urandom(1000))
    for source in ("missing", "empty", "empty.bag", "video.mp4"):
        code, _, err = feature_matcher(capsys, "replay", tmp_path / source, "-o", tmp_path / "run")
        assert code == 1
        assert str(tmp_path / source) in err
        assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_runs_are_compared_and_measured_against_a_given_truth(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, keypoints in (("few", 200), ("many", 500)):
        arguments = ("--duration", "3", "--no-report", "--set", f"extractor.max_keypoints={keypoints}")
        assert feature_matcher(capsys, "replay", bag, "-o", tmp_path / name, *arguments)[0] == 0
    few, many = tmp_path / "few", tmp_path / "many"
    code, out, _ = feature_matcher(capsys, "evaluate", few, many, "-o", tmp_path / "both")
    assert code == 0
    assert "few" in out and "many" in out
    assert (tmp_path / "both" / "comparison.html").stat().st_size > 10_000
    code, _, err = feature_matcher(capsys, "evaluate", few, "--plot", tmp_path / "layers.png")
    assert (code, err.count("\n")) == (1, 1) and "--plot draws the results of image pairs" in err
    code, _, _ = feature_matcher(capsys, "evaluate", few, "--ground-truth", many / "ground_truth.tum")
    assert code == 0
    (tmp_path / "elsewhen.tum").write_text("1.0 0 0 0 0 0 0 1\n2.0 0 0 0 0 0 0 1\n")
    code, _, err = feature_matcher(capsys, "evaluate", few, "--ground-truth", tmp_path / "elsewhen.tum")
    assert (code, err.count("\n")) == (1, 1)
    assert "overlap" in err


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_image_that_is_none_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "image.png"
    if content is not None:
        path.write_bytes(content)
    code, _, err = feature_matcher(capsys, "match", path, path, "-o", tmp_path / "matches.png")
    assert (code, err.count("\n")) == (1, 1)
    assert f"'{path}' cannot be read as an image" in err


def test_a_calibration_turns_matches_into_a_pose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = DemoRecording(DemoOptions(width=320, rate_hz=10.0))
    for number, name in ((10, "a.png"), (16, "b.png")):
        cv2.imwrite(str(tmp_path / name), recording.frame(number).image)
    camera = recording.rig.left
    (tmp_path / "camera.yaml").write_text(
        f"image_width: {camera.width}\nimage_height: {camera.height}\n"
        f"camera_matrix: {{rows: 3, cols: 3, data: {camera.K.ravel().tolist()}}}\n"
        "distortion_model: plumb_bob\n"
        f"distortion_coefficients: {{rows: 1, cols: 5, data: {camera.distortion.tolist()}}}\n"
    )
    arguments = ("match", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "m.png")
    code, out, err = feature_matcher(capsys, *arguments, "--calibration", tmp_path / "camera.yaml")
    assert (code, err) == (0, "")
    assert "GENERAL" in out and "direction" in out
    (tmp_path / "camera.yaml").write_text(
        (tmp_path / "camera.yaml").read_text().replace("image_width: 320", "image_width: 640")
    )
    code, _, err = feature_matcher(capsys, *arguments, "--calibration", tmp_path / "camera.yaml")
    assert code == 1
    assert "320x240" in err and "640x240" in err
