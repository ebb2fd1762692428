"""Trajectory files in the TUM form, and poses at other times than those that were stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Float, Trajectory
from feature_matcher_ros.errors import OutputError, SourceError
from feature_matcher_ros.evaluation.text_tables import read_rows
from feature_matcher_ros.geometry import (
    pose_from,
    quaternion_from_rotation,
    rotation_from_quaternion,
    rotation_from_vector,
    rotation_vector,
)

Stamps = NDArray[np.int64]
MAX_STAMP_S = 4_000_000_000  # up to here, nanoseconds and their differences fit into 64 bits


def read_tum(path: Path) -> Trajectory:
    """Read lines of ``seconds x y z qx qy qz qw``; ``#`` begins a comment.

    Lines are put in order of time, and of two with the same time the first is kept. A line whose seven numbers are
    all NaN, which motion capture writes where it has lost the body, is left out.

    Raises:
        SourceError: the file cannot be read, holds no pose, or a line is not of that form.
    """
    poses = [_pose_from_row(where, words) for where, words in read_rows(path) if not _is_lost(words)]
    if not poses:
        raise SourceError(f"the trajectory '{path}' holds no pose: each line must be 'seconds x y z qx qy qz qw'.")
    return trajectory_from(poses)


def write_tum(path: Path, trajectory: Trajectory) -> None:
    """Write a trajectory so that ``read_tum`` gives it back: stamps exactly, poses to 1e-9.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = ["# seconds x y z qx qy qz qw\n"]
    for stamp_ns, pose in zip(trajectory.stamps_ns, trajectory.world_from_cam, strict=True):
        numbers = " ".join(f"{number:.9f}" for number in (*pose[:3, 3], *quaternion_from_rotation(pose[:3, :3])))
        lines.append(f"{seconds_text(int(stamp_ns))} {numbers}\n")
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the trajectory '{path}' cannot be written ({error.strerror}): choose a writable folder with space left."
        ) from error


def trajectory_from(poses: Iterable[tuple[int, Float]]) -> Trajectory:
    """Build a trajectory from pairs (stamp_ns, world_from_cam) in any order; the first of equal stamps is kept."""
    by_stamp: dict[int, Float] = {}
    for stamp_ns, pose in poses:
        by_stamp.setdefault(stamp_ns, pose)
    stamps = sorted(by_stamp)
    matrices = [by_stamp[stamp] for stamp in stamps]
    return Trajectory(np.array(stamps, dtype=np.int64), np.array(matrices, dtype=np.float64).reshape(-1, 4, 4))


def stamp_from_seconds(text: str) -> int:
    """Nanoseconds of a decimal number of seconds, without the rounding of a float.

    Raises:
        ValueError: the text is no decimal number, or one beyond a century from 1970.
    """
    try:
        seconds = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"'{text}' is no number of seconds") from error
    if seconds.is_nan() or not -MAX_STAMP_S < seconds < MAX_STAMP_S:
        raise ValueError(f"'{text}' is no time in seconds")
    return int((seconds * 1_000_000_000).to_integral_value())


def stamp_from_nanoseconds(text: str) -> int:
    """Nanoseconds of a written integer.

    Raises:
        ValueError: the text is no integer, or one beyond a century from 1970.
    """
    stamp_ns = int(text)
    if abs(stamp_ns) >= MAX_STAMP_S * 1_000_000_000:
        raise ValueError(f"'{text}' is no time in nanoseconds")
    return stamp_ns


def seconds_text(stamp_ns: int) -> str:
    """Seconds with nine decimals, exactly."""
    seconds, rest = divmod(abs(stamp_ns), 1_000_000_000)
    return f"{'-' if stamp_ns < 0 else ''}{seconds}.{rest:09d}"


def interpolate_trajectory(
    trajectory: Trajectory, stamps_ns: Sequence[int] | Stamps, max_gap_ns: int
) -> tuple[NDArray[np.intp], Float]:
    """Poses at other times: positions linearly, rotations along the shortest arc at constant speed.

    A time is answered if it is that of a pose, or lies between two poses at most ``max_gap_ns`` apart;
    nothing is extrapolated.

    Returns:
        The numbers (M,) of the stamps that could be answered, and ``world_from_cam`` (M, 4, 4) at these.
    """
    known, wanted = trajectory.stamps_ns, np.asarray(stamps_ns, dtype=np.int64)
    if len(known) == 0 or len(wanted) == 0:
        return np.zeros(0, dtype=np.intp), np.zeros((0, 4, 4))
    after = np.clip(np.searchsorted(known, wanted), 0, len(known) - 1)
    before = np.where(known[after] == wanted, after, np.maximum(after - 1, 0))
    inside = (known[before] <= wanted) & (wanted <= known[after])
    answered = np.flatnonzero(inside & (known[after] - known[before] <= max_gap_ns))
    poses = [_between(trajectory, int(before[number]), int(after[number]), int(wanted[number])) for number in answered]
    return answered, np.array(poses, dtype=np.float64).reshape(-1, 4, 4)


def associate_stamps(
    stamps0_ns: Sequence[int] | Stamps, stamps1_ns: Sequence[int] | Stamps, max_gap_ns: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair times of two streams, each with at most one of the other.

    Two times form a pair if each is the nearest to the other and they differ by at most ``max_gap_ns``.
    The streams need not be in order.

    Returns:
        Numbers (M,) into the first and (M,) into the second stream, in the order of the first.
    """
    stamps0, stamps1 = np.asarray(stamps0_ns, dtype=np.int64), np.asarray(stamps1_ns, dtype=np.int64)
    if len(stamps0) == 0 or len(stamps1) == 0:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    nearest1, nearest0 = _nearest(stamps0, stamps1), _nearest(stamps1, stamps0)
    numbers = np.arange(len(stamps0))
    paired = (nearest0[nearest1] == numbers) & (np.abs(stamps1[nearest1] - stamps0) <= max_gap_ns)
    return numbers[paired], nearest1[paired]


def _nearest(stamps: Stamps, others: Stamps) -> NDArray[np.intp]:
    """For each stamp, the number (N,) of the nearest other one; the first of equals."""
    order = np.argsort(others, kind="stable")
    in_order = others[order]
    after = np.clip(np.searchsorted(in_order, stamps), 0, len(others) - 1)
    before = np.searchsorted(in_order, in_order[np.maximum(after - 1, 0)])  # the first of equals
    closer_before = np.abs(in_order[before] - stamps) <= np.abs(in_order[after] - stamps)
    return order[np.where(closer_before, before, after)]


def _between(trajectory: Trajectory, before: int, after: int, stamp_ns: int) -> Float:
    start, end = trajectory.world_from_cam[before], trajectory.world_from_cam[after]
    if before == after:
        return start
    start_ns, end_ns = int(trajectory.stamps_ns[before]), int(trajectory.stamps_ns[after])
    share = (stamp_ns - start_ns) / (end_ns - start_ns)
    turn = rotation_vector(start[:3, :3].T @ end[:3, :3])
    position = (1.0 - share) * start[:3, 3] + share * end[:3, 3]
    return pose_from(start[:3, :3] @ rotation_from_vector(share * turn), position)


def _is_lost(words: list[str]) -> bool:
    return [word.lower() for word in words[1:]] == ["nan"] * 7


def _pose_from_row(where: str, words: list[str]) -> tuple[int, Float]:
    form = f"{where}: '{' '.join(words)}' is not 'seconds x y z qx qy qz qw'"
    try:
        stamp_ns = stamp_from_seconds(words[0])
        numbers = np.array([float(word) for word in words[1:]])
    except ValueError as error:
        raise SourceError(f"{form}: correct it.") from error
    if len(numbers) != 7 or not np.all(np.isfinite(numbers)) or not 0.5 < np.linalg.norm(numbers[3:]) < 2.0:
        raise SourceError(f"{form} with a unit quaternion: correct it.")
    return stamp_ns, pose_from(rotation_from_quaternion(numbers[3:]), numbers[:3])
