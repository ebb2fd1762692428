"""The recording for the rerun viewer, of a camera that goes straight ahead."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_matcher_ros.datatypes import (
    Camera,
    Frame,
    FrontEndResult,
    MotionType,
    Odometry,
    ScaleSource,
    Status,
    TrackingState,
)
from feature_matcher_ros.evaluation.rerun_recording import RerunRecording
from feature_matcher_ros.geometry import pose_from

rerun = pytest.importorskip("rerun", reason="rerun-sdk, an optional package, is not installed")

CAMERA = Camera(np.array([[8.0, 0, 4], [0, 8, 4], [0, 0, 1]]), 8, 8)


def result(number: int, segment: int) -> FrontEndResult:
    return FrontEndResult(
        stamp_ns=number,
        frame_id="camera",
        status=Status.OK,
        state=TrackingState.OK,
        motion_type=MotionType.GENERAL,
        **dict.fromkeys(("keyframe_stamp_ns", "keyframe_reason", "gate", "matches", "inliers", "track_ids", "pose")),
        odometry=Odometry(pose_from(np.eye(3), [0, 0, number]), ScaleSource.STEREO, segment),
        stages_ms={},
    )


def test_the_path_is_whole_and_costs_each_frame_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strips: list[list[float]] = []  # z along what each frame draws
    shown: dict[str, list[float]] = {}  # by entity, where the newest takes the place of the one before
    line_strips, log = rerun.LineStrips3D, rerun.RecordingStream.log

    def noted(lines: list[list[list[float]]], **options: Any) -> Any:
        strips.append([place[2] for place in lines[0]])
        return line_strips(lines, **options)

    def logged(self: Any, entity: str, *arguments: Any, **options: Any) -> None:
        if entity.startswith("world/path/"):
            shown[entity] = strips[-1]
        log(self, entity, *arguments, **options)

    monkeypatch.setattr(rerun, "LineStrips3D", noted)
    monkeypatch.setattr(rerun.RecordingStream, "log", logged)
    with RerunRecording(tmp_path / "recording.rrd") as recording:
        for number in range(600):
            frame = Frame(number, np.zeros((8, 8), np.uint8), CAMERA, "camera")
            recording.write(frame, result(number, segment=number // 300))
    assert len(strips) == 600 and max(map(len, strips)) <= 50
    steps = {step for strip in shown.values() for step in pairwise(strip)}
    assert steps == {(z, z + 1.0) for z in range(599) if z != 299}
