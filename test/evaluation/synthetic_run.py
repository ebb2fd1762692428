"""Run folders as a replay writes them, of an invented camera path whose errors are known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from feature_matcher_ros.config import FrontEndConfig, iterate_parameters
from feature_matcher_ros.datatypes import (
    Float,
    KeyframeReason,
    MotionType,
    ScaleSource,
    Status,
    TrackingState,
    Trajectory,
)
from feature_matcher_ros.evaluation.pair_table import PairRow, PairTableWriter
from feature_matcher_ros.evaluation.trajectories import write_tum
from feature_matcher_ros.geometry import invert_pose, pose_from, quaternion_from_rotation, rotation_from_vector

START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 50_000_000
EVERY = 4  # frames from one matched frame to the next

EMPTY = PairRow(
    stamp_ns=START_NS,
    keyframe_stamp_ns=None,
    status=Status.FIRST_FRAME,
    state=TrackingState.INITIALIZING,
    motion_type=MotionType.UNKNOWN,
    scale_source=ScaleSource.NONE,
    is_keyframe=False,
    keyframe_reason=None,
    segment=None,
    num_matches=None,
    num_inliers=None,
    inlier_ratio=None,
    layers_run=None,
    parallax_px=None,
    survival=None,
    **dict.fromkeys(("qx", "qy", "qz", "qw", "tx", "ty", "tz", "baseline_m")),
    rotation_sigma_deg=None,
    direction_sigma_deg=None,
    **dict.fromkeys(f"{stage}_ms" for stage in ("gate", "extract", "match", "points", "pose", "track", "keyframe")),
    total_ms=1.0,
)


@dataclass(frozen=True)
class Invented:
    """A run on disk, and what is true about it."""

    folder: Path
    rows: tuple[PairRow, ...]
    truth: Trajectory


def camera_path(num_frames: int) -> Trajectory:
    """A bend of some metres, standing still in the middle of the path but for a turn."""
    poses, stamps = [], START_NS + PERIOD_NS * np.arange(num_frames)
    turning = range(num_frames // 2, num_frames // 2 + 5 * EVERY)
    s = 0.0
    for index in range(num_frames):
        s += 0.0 if index in turning else 0.03
        yaw = 0.12 * s + 0.25 * np.sin(0.9 * s) + 0.02 * max(0, min(index - turning.start, len(turning)))
        position = [2.2 * np.sin(0.35 * s), 0.12 * np.sin(1.3 * s), 2.2 - 2.2 * np.cos(0.35 * s) + 0.15 * s]
        poses.append(pose_from(rotation_from_vector([0.03 * np.sin(s), yaw, 0.0]), position))
    return Trajectory(stamps.astype(np.int64), np.stack(poses))


def write_run(
    folder: Path,
    *,
    num_frames: int = 240,
    metric: bool = True,
    layers: bool = False,
    sigma_deg: float = 0.1,
    scale: float = 1.0,
    seed: int = 0,
    lost: range = range(0),
    **run_json: Any,
) -> Invented:
    """Write a run folder whose rotations err by ``sigma_deg`` and whose lengths err by the factor ``scale``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    truth = camera_path(num_frames)
    rows, poses, keyframe = [], {0: truth.world_from_cam[0]}, 0
    for index in range(num_frames):
        times = {"gate_ms": float(rng.gamma(20, 0.4)), "total_ms": 0.0}
        row = replace(EMPTY, stamp_ns=int(truth.stamps_ns[index]), **times)
        if index == 0:
            row = replace(row, is_keyframe=True, keyframe_reason=KeyframeReason.FIRST_FRAME, segment=0, gate_ms=None)
        elif index in lost:
            row = _lost(row, truth, keyframe, rng)
        elif index % EVERY:
            row = replace(
                row, status=Status.GATED, state=TrackingState.OK, keyframe_stamp_ns=int(truth.stamps_ns[keyframe])
            )
        else:
            true = invert_pose(truth.world_from_cam[index]) @ truth.world_from_cam[keyframe]
            row, estimated = _matched(row, true, int(truth.stamps_ns[keyframe]), metric, layers, sigma_deg, scale, rng)
            poses[index] = poses[keyframe] @ invert_pose(estimated)
            keyframe = index
        rows.append(
            replace(row, total_ms=sum(row.stage_ms(s) or 0.0 for s in ("gate", "extract", "match", "pose", "track")))
        )
    _write(folder, rows, poses, truth, metric, run_json)
    return Invented(folder, tuple(rows), truth)


def _lost(row: PairRow, truth: Trajectory, keyframe: int, rng: np.random.Generator) -> PairRow:
    return replace(
        row,
        status=Status.TOO_FEW_INLIERS,
        state=TrackingState.LOST,
        keyframe_stamp_ns=int(truth.stamps_ns[keyframe]),
        num_matches=int(rng.integers(15, 40)),
        num_inliers=int(rng.integers(0, 10)),
        inlier_ratio=0.2,
        extract_ms=float(rng.gamma(80, 1.0)),
        match_ms=float(rng.gamma(60, 0.1)),
    )


def _matched(
    row: PairRow,
    true: Float,
    keyframe_stamp_ns: int,
    metric: bool,
    layers: bool,
    sigma_deg: float,
    scale: float,
    rng: np.random.Generator,
) -> tuple[PairRow, Float]:
    error = np.radians(rng.normal(0, sigma_deg / np.sqrt(3), 3))
    rotation = rotation_from_vector(error) @ true[:3, :3]
    moved = float(np.linalg.norm(true[:3, 3]))
    moves = moved > 1e-6
    direction = true[:3, 3] / moved if moves else np.zeros(3)
    tilt = np.cross(direction, rng.normal(0, np.radians(10 * sigma_deg) / np.sqrt(2), 3))
    direction = (direction + tilt) / np.linalg.norm(direction + tilt) if moves else direction
    num_matches, ratio = int(rng.normal(420, 40)), float(np.clip(rng.normal(0.8, 0.06), 0, 1))
    quaternion = dict(zip(("qx", "qy", "qz", "qw"), quaternion_from_rotation(rotation).tolist(), strict=True))
    filled = replace(
        row,
        status=Status.OK,
        state=TrackingState.OK,
        keyframe_stamp_ns=keyframe_stamp_ns,
        motion_type=MotionType.GENERAL if moves else MotionType.ROTATION_ONLY,
        scale_source=ScaleSource.DEPTH if metric and moves else ScaleSource.NONE,
        is_keyframe=True,
        keyframe_reason=KeyframeReason.PARALLAX if moves else KeyframeReason.ROTATION,
        segment=0,
        num_matches=num_matches,
        num_inliers=int(ratio * num_matches),
        inlier_ratio=ratio,
        layers_run=int(rng.integers(3, 10)) if layers else None,
        parallax_px=12.5,
        survival=0.9,
        **quaternion,
        rotation_sigma_deg=sigma_deg,
        direction_sigma_deg=10 * sigma_deg if moves else None,
        extract_ms=float(rng.gamma(80, 1.0)),
        match_ms=float(rng.gamma(60, 0.1)),
        pose_ms=float(rng.gamma(30, 0.1)),
        track_ms=float(rng.gamma(30, 0.02)),
    )
    if moves:
        vector = dict(zip(("tx", "ty", "tz"), direction.tolist(), strict=True))
        filled = replace(filled, **vector, baseline_m=scale * moved if metric else None)
    length = moved * scale if metric else 3.0 * moved
    return filled, pose_from(rotation, direction * length)


def _write(
    folder: Path,
    rows: list[PairRow],
    poses: dict[int, Float],
    truth: Trajectory,
    metric: bool,
    run_json: dict[str, Any],
) -> None:
    with PairTableWriter(folder / "pairs.csv") as writer:
        for row in rows:
            writer.write(row)
    write_tum(folder / "trajectory.tum", Trajectory(truth.stamps_ns[list(poses)], np.stack(list(poses.values()))))
    write_tum(folder / "ground_truth.tum", truth)
    content = {
        "name": folder.name,
        "source": "/data/invented",
        "selection": {"stride": 1, "start_s": 0.0},
        "config": {entry.path: entry.default for entry in iterate_parameters(FrontEndConfig())},
        "matcher": "mutual_nearest",
        "modality": "RGBD" if metric else "MONO",
        "layout": "TUM RGB-D",
        "assumptions": [],
        "num_frames": len(rows),
        "status_counts": {},
        "skipped": {},
        "finished": True,
        "versions": {"python": "3.11.7", "numpy": "2.4.6"},
        "wall_s": 12.3,
        **run_json,
    }
    (folder / "run.json").write_text(json.dumps(content))
