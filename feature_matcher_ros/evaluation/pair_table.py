"""The table of a run: one row for every frame, written line by line, so that an aborted run can be read."""

from __future__ import annotations

import contextlib
import csv
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from feature_matcher_ros.datatypes import (
    Float,
    FrontEndResult,
    KeyframeReason,
    Matches,
    MotionType,
    RelativePose,
    ScaleSource,
    Status,
    StopReason,
    TrackingState,
)
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.geometry import quaternion_from_rotation, rotation_from_quaternion, skew

STAGES = ("gate", "extract", "match", "points", "pose", "track", "keyframe", "total")


@dataclass(frozen=True, slots=True)
class PairRow:
    """One frame and its pair with the keyframe; None (an empty cell) where there is no such thing."""

    stamp_ns: int
    keyframe_stamp_ns: int | None
    status: Status
    state: TrackingState
    motion_type: MotionType
    scale_source: ScaleSource  # of the pose; NONE without one
    is_keyframe: bool
    keyframe_reason: KeyframeReason | None
    segment: int | None
    num_matches: int | None
    num_inliers: int | None
    inlier_ratio: float | None
    layers_run: int | None
    parallax_px: float | None
    survival: float | None
    qx: float | None  # rotation, cam1_from_cam0
    qy: float | None
    qz: float | None
    qw: float | None
    tx: float | None  # unit direction
    ty: float | None
    tz: float | None
    baseline_m: float | None
    rotation_sigma_deg: float | None  # expected length (root of the mean square) of the rotation error
    direction_sigma_deg: float | None  # likewise, of the angle between the directions
    gate_ms: float | None
    extract_ms: float | None
    match_ms: float | None
    points_ms: float | None
    pose_ms: float | None
    track_ms: float | None
    keyframe_ms: float | None
    total_ms: float
    stop_reason: StopReason | None = None  # of a matcher with layers, as the two below
    points_by_stage: str | None = None  # points of both images that entered each stage: "512+498 430+402"
    matcher_ms: str | None = None  # time of each of its steps: "embed=0.4 stage1=40.2 head=3.1"

    @property
    def attempted(self) -> bool:
        """Tell whether the frame was matched with a keyframe, or should have been."""
        return self.status not in (Status.FIRST_FRAME, Status.GATED, Status.REPEATED_STAMP)

    @property
    def rotation(self) -> Float | None:
        """(3, 3), cam1_from_cam0; None without a pose."""
        if self.qx is None:
            return None
        return rotation_from_quaternion(np.array([self.qx, self.qy, self.qz, self.qw], dtype=np.float64))

    @property
    def direction(self) -> Float | None:
        """(3,), unit; None without a translation."""
        return None if self.tx is None else np.array([self.tx, self.ty, self.tz], dtype=np.float64)

    def stage_ms(self, stage: str) -> float | None:
        """Time spent in one of ``STAGES``; None if the frame did not go through it."""
        value: float | None = getattr(self, f"{stage}_ms")
        return value


def row_from_result(result: FrontEndResult) -> PairRow:
    """Boil down what the front-end says about one frame to a row."""
    matches, gate, pose = result.matches, result.gate, result.pose
    num_inliers = None if result.inliers is None else int(np.count_nonzero(result.inliers))
    return PairRow(
        stamp_ns=result.stamp_ns,
        keyframe_stamp_ns=result.keyframe_stamp_ns,
        status=result.status,
        state=result.state,
        motion_type=result.motion_type,
        scale_source=ScaleSource.NONE if pose is None else pose.scale_source,
        is_keyframe=result.is_keyframe,
        keyframe_reason=result.keyframe_reason,
        segment=None if result.odometry is None else result.odometry.segment,
        num_matches=None if matches is None else len(matches),
        num_inliers=num_inliers,
        inlier_ratio=num_inliers / len(matches) if matches and num_inliers is not None else None,
        layers_run=None if matches is None else matches.layers_run,
        parallax_px=None if gate is None else gate.parallax_px,
        survival=None if gate is None else gate.survival,
        **_pose_cells(pose),
        **_stage_cells(result.stages_ms),
        **_matcher_cells(matches),
    )


def rotation_sigma_deg(pose: RelativePose) -> float:
    """Expected length of the rotation error: the root of the trace of its covariance."""
    return math.degrees(math.sqrt(float(np.trace(pose.covariance[-3:, -3:]))))


def direction_sigma_deg(pose: RelativePose) -> float | None:
    """Expected angle between the estimated and the true direction; None without a direction.

    A small motion (rho, theta) after the pose moves the translation t by ``rho + theta x t``, of which
    only the part across t turns it.
    """
    if pose.direction is None:
        return None
    length = 1.0 if pose.baseline_m is None else pose.baseline_m
    across = np.eye(3) - np.outer(pose.direction, pose.direction)
    jacobian = across @ np.hstack([np.eye(3), -skew(pose.direction * length)]) / length
    return math.degrees(math.sqrt(float(np.trace(jacobian @ pose.covariance @ jacobian.T))))


class PairTableWriter:
    """Writes ``pairs.csv`` one flushed line at a time; a context manager.

    Raises:
        OutputError: the file cannot be written, for want of rights or of space.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise self._error(error) from error
        self._write([field.name for field in fields(PairRow)])

    def write(self, row: PairRow) -> None:
        self._write([_to_cell(getattr(row, field.name)) for field in fields(PairRow)])

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every row was flushed when written, so there is nothing left to lose
            self._file.close()

    def __enter__(self) -> PairTableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, cells: list[str]) -> None:
        try:
            self._file.write(",".join(cells) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write '{self._path}' ({error.strerror or error}): "
            "choose an output folder on a disk with space and rights to write."
        )


def read_pair_table(path: Path) -> tuple[PairRow, ...]:
    """Read ``pairs.csv``; a last line cut off in the middle of writing is left out.

    Raises:
        SourceError: the file is missing, has other columns, or a cell that is no value of its column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read '{path}' ({error}): give the folder of a finished or aborted run.") from error
    lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
    header, *rows = list(csv.reader(lines)) or [[]]
    expected = [field.name for field in fields(PairRow)]
    if header != expected:
        unlike = sorted(set(header) ^ set(expected)) or ["their order"]
        raise SourceError(
            f"'{path}' does not have the columns of this version (different: {', '.join(unlike)}): "
            "repeat the replay with it."
        )
    parsers = {name: _parser(kind) for name, kind in typing.get_type_hints(PairRow).items()}
    return tuple(_row_from_cells(path, number, cells, parsers) for number, cells in enumerate(rows, start=2))


def _row_from_cells(path: Path, number: int, cells: list[str], parsers: Mapping[str, Callable[[str], Any]]) -> PairRow:
    if len(cells) != len(parsers):
        raise SourceError(
            f"line {number} of '{path}' has {len(cells)} cells instead of {len(parsers)}: repeat the replay."
        )
    values = {
        name: _value(parse, cell, f"in column {name}, line {number} of '{path}'")
        for (name, parse), cell in zip(parsers.items(), cells, strict=True)
    }
    return PairRow(**values)


def _value(parse: Callable[[str], Any], cell: str, where: str) -> Any:
    try:
        return parse(cell)
    except ValueError as error:
        raise SourceError(f"'{cell}' {where} is not a value of that column: repeat the replay.") from error


def _pose_cells(pose: RelativePose | None) -> dict[str, Any]:
    names = ("qx", "qy", "qz", "qw", "tx", "ty", "tz", "baseline_m", "rotation_sigma_deg", "direction_sigma_deg")
    if pose is None:
        return dict.fromkeys(names)
    quaternion = quaternion_from_rotation(pose.rotation).tolist()
    direction = [None] * 3 if pose.direction is None else pose.direction.tolist()
    sigmas = [rotation_sigma_deg(pose), direction_sigma_deg(pose)]
    return dict(zip(names, [*quaternion, *direction, pose.baseline_m, *sigmas], strict=True))


def _stage_cells(stages_ms: Mapping[str, float]) -> dict[str, Any]:
    """Times of the known stages; ``total`` is the sum of all where the front-end does not give it."""
    cells = {f"{stage}_ms": stages_ms.get(stage) for stage in STAGES}
    cells["total_ms"] = stages_ms.get("total", sum(stages_ms.values()))
    return cells


def _matcher_cells(matches: Matches | None) -> dict[str, Any]:
    """What the layers of a matcher did; None where it has none."""
    points = None if matches is None else matches.points_per_stage
    times = None if matches is None else matches.stages_ms
    return {
        "stop_reason": None if matches is None else matches.stop_reason,
        "points_by_stage": None
        if points is None
        else " ".join(f"{first}+{second}" for first, second in points) or None,
        "matcher_ms": None if times is None else " ".join(f"{name}={ms:.3f}" for name, ms in times.items()) or None,
    }


def _to_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(int(value))
    return repr(float(value)) if isinstance(value, float) else str(value)


def _parser(kind: Any) -> Callable[[str], Any]:
    """Parse a cell as ``kind``, which may be a union with None."""
    if isinstance(kind, types.UnionType):
        parse = _parser(next(option for option in typing.get_args(kind) if option is not types.NoneType))
        return lambda cell: parse(cell) if cell else None
    if kind is bool:
        return lambda cell: bool(int(cell))
    if kind is float:
        return _finite
    return typing.cast("Callable[[str], Any]", kind)


def _finite(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(cell)
    return value
