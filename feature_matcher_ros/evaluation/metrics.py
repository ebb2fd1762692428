"""How good estimated motions are: alignment, trajectory errors, pose errors, match precision.

Nothing here reads a file. ``estimate`` and ``truth`` are trajectories of the same length whose poses
belong together, index by index; ``associate`` makes them so. Trajectory errors are those of the evo
command line (``evo_ape``, ``evo_rpe``), with the same association of stamps and the same alignment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_matcher_ros.datatypes import Camera, Float, Trajectory
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.geometry import (
    angle_between_deg,
    essential_from_pose,
    normalize_points,
    rotation_angle_deg,
)

Stamps = NDArray[np.int64]

MAX_STAMP_DIFFERENCE_NS = 10_000_000  # evo's default
DRIFT_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the whole path, as in Zhang and Scaramuzza, IROS 2018


@dataclass(frozen=True, slots=True)
class Statistics:
    """A set of errors in a few numbers."""

    count: int
    rmse: float
    mean: float
    median: float
    p90: float
    max: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How a set of values is spread."""

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """The similarity ``x -> scale * rotation @ x + translation``."""

    rotation: Float  # (3, 3)
    translation: Float  # (3,)
    scale: float

    def apply(self, trajectory: Trajectory) -> Trajectory:
        """Move a trajectory; its rotations stay rotations."""
        poses = trajectory.world_from_cam.copy()
        poses[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        poses[:, :3, 3] = self.scale * poses[:, :3, 3] @ self.rotation.T + self.translation
        return Trajectory(trajectory.stamps_ns, poses)


@dataclass(frozen=True, slots=True, eq=False)
class RelativeErrors:
    """Error of the motion between two frames, for many pairs of frames."""

    start: NDArray[np.intp]  # (P,), index of the first frame
    end: NDArray[np.intp]  # (P,)
    translation_m: Float  # (P,)
    rotation_deg: Float  # (P,)


@dataclass(frozen=True, slots=True)
class Drift:
    """How fast the error grows along the path."""

    translation_percent: float  # metres per 100 metres
    rotation_deg_per_m: float


@dataclass(frozen=True, slots=True)
class PoseError:
    """Error of one relative pose."""

    rotation_deg: float
    direction_deg: float | None  # with its sign: opposite directions differ by 180; None if there is no direction

    @property
    def worst_deg(self) -> float:
        """The larger of the two, by which recall curves are drawn."""
        return max(self.rotation_deg, self.direction_deg or 0.0)


def statistics(errors: ArrayLike) -> Statistics:
    """Summarise errors (N,), N > 0."""
    values = np.asarray(errors, dtype=np.float64)
    rmse = math.sqrt(float(np.mean(values**2)))
    mean, median, p90 = (float(v) for v in (values.mean(), np.median(values), np.percentile(values, 90)))
    return Statistics(len(values), rmse, mean, median, p90, float(values.max()))


def percentiles(values: ArrayLike) -> Percentiles:
    """Summarise values (N,), N > 0; between two values the percentile is interpolated."""
    array = np.asarray(values, dtype=np.float64)
    p50, p90, p95, p99 = (float(v) for v in np.percentile(array, (50, 90, 95, 99)))
    return Percentiles(len(array), p50, p90, p95, p99, float(array.max()))


def associate(estimate: Trajectory, truth: Trajectory) -> tuple[Trajectory, Trajectory]:
    """Give every pose of the shorter trajectory the nearest one in time of the longer; leave out the rest."""
    truth_is_longer = len(truth) >= len(estimate)
    short, long = (estimate, truth) if truth_is_longer else (truth, estimate)
    if len(short) == 0:
        return short, short
    nearest = _nearest(short.stamps_ns, long.stamps_ns)
    close = np.abs(long.stamps_ns[nearest] - short.stamps_ns) <= MAX_STAMP_DIFFERENCE_NS
    kept_short = _select(short, np.flatnonzero(close))
    kept_long = _select(long, nearest[close])
    return (kept_short, kept_long) if truth_is_longer else (kept_long, kept_short)


def align(estimate: Trajectory, truth: Trajectory, with_scale: bool) -> Alignment:
    """Find the similarity that brings the positions of ``estimate`` nearest to those of ``truth``.

    Positions on a line leave the rotation about it open, without consequence for their distances.
    Source: Umeyama, Least-squares estimation of transformation parameters, PAMI 1991, eq. 34 to 43.

    Raises:
        SourceError: the scale is asked for and the estimate never leaves its place.
    """
    source, target = _positions(estimate), _positions(truth)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred = source - source_mean
    covariance = (target - target_mean).T @ centred / len(source)
    left, singular, right = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(signs) @ right
    scale = 1.0
    if with_scale:
        variance = float(np.mean(np.sum(centred**2, axis=1)))
        if variance <= 0.0:
            raise SourceError("the estimated trajectory never leaves its place, so it has no scale to be aligned.")
        scale = float(singular @ signs) / variance
    return Alignment(rotation, target_mean - scale * rotation @ source_mean, scale)


def absolute_errors(estimate: Trajectory, truth: Trajectory) -> Float:
    """Distance (N,) of every position from the true one (ATE), metres; align first."""
    return np.linalg.norm(_positions(estimate) - _positions(truth), axis=1)


def relative_errors(estimate: Trajectory, truth: Trajectory, delta: int = 1) -> RelativeErrors:
    """Error of the motion over every ``delta`` frames (RPE), each stretch beginning where the last one ended."""
    indices = np.arange(0, len(truth), delta)
    return errors_between(estimate, truth, indices[:-1], indices[1:])


def errors_between(
    estimate: Trajectory, truth: Trajectory, start: NDArray[np.intp], end: NDArray[np.intp]
) -> RelativeErrors:
    """Error of the motion from frames ``start`` (P,) to frames ``end`` (P,)."""
    moved = _relative(estimate.world_from_cam, start, end)
    truly_moved = _relative(truth.world_from_cam, start, end)
    difference = _inverse(truly_moved) @ moved
    angles = np.array([rotation_angle_deg(rotation) for rotation in difference[:, :3, :3]])
    return RelativeErrors(start, end, np.linalg.norm(difference[:, :3, 3], axis=1), angles)


def path_length(trajectory: Trajectory) -> float:
    """Sum of all steps, metres."""
    return float(np.linalg.norm(np.diff(_positions(trajectory), axis=0), axis=1).sum())


def drift(estimate: Trajectory, truth: Trajectory) -> Drift:
    """Mean error per metre over all stretches of 10, 20, 30, 40 and 50 % of the true path.

    ``truth`` has to move: its path has a length above zero.
    """
    steps = np.linalg.norm(np.diff(_positions(truth), axis=0), axis=1)
    travelled = np.concatenate([[0.0], np.cumsum(steps)])
    starts, ends = _stretches(travelled)
    errors = errors_between(estimate, truth, starts, ends)
    lengths = travelled[ends] - travelled[starts]
    return Drift(100.0 * float(np.mean(errors.translation_m / lengths)), float(np.mean(errors.rotation_deg / lengths)))


def pose_error(
    rotation: Float, direction: Float | None, true_cam1_from_cam0: Float, with_direction: bool = True
) -> PoseError:
    """Compare a relative pose with the true one.

    ``with_direction`` is false where the camera moved too little for the true direction to mean anything.
    """
    rotation_deg = rotation_angle_deg(rotation @ true_cam1_from_cam0[:3, :3].T)
    if direction is None or not with_direction:
        return PoseError(rotation_deg, None)
    return PoseError(rotation_deg, angle_between_deg(direction, true_cam1_from_cam0[:3, 3]))


def pose_auc(errors_deg: Iterable[float], thresholds_deg: Sequence[float] = (5.0, 10.0, 20.0)) -> dict[float, float]:
    """Area under the recall curve up to each threshold, as a share in [0, 1]; infinity where there is no pose.

    Source: the measure of SuperGlue (Sarlin et al., CVPR 2020): recall joined linearly at every error,
    held from the last one to the threshold.
    """
    errors = np.sort(np.asarray(list(errors_deg), dtype=np.float64))
    recall = np.arange(1, len(errors) + 1) / max(len(errors), 1)
    areas = {}
    for threshold in thresholds_deg:
        below = int(np.searchsorted(errors, threshold))
        x = np.concatenate([[0.0], errors[:below], [threshold]])
        y = np.concatenate([[0.0], recall[:below], recall[below - 1 : below] if below else [0.0]])
        areas[threshold] = float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2.0) / threshold)
    return areas


def symmetric_epipolar_errors(cam1_from_cam0: Float, normalized0: Float, normalized1: Float) -> Float:
    """Sum of both squared distances (N,) to the epipolar lines, in normalised coordinates.

    The squared form, to which the customary thresholds 1e-4 and 5e-4 belong.
    """
    E = essential_from_pose(cam1_from_cam0)
    x0 = np.concatenate([normalized0, np.ones((len(normalized0), 1))], axis=1)
    x1 = np.concatenate([normalized1, np.ones((len(normalized1), 1))], axis=1)
    line1, line0 = x0 @ E.T, x1 @ E
    product = np.einsum("ni,ni->n", x1, line1)
    weights = 1.0 / np.sum(line1[:, :2] ** 2, axis=1) + 1.0 / np.sum(line0[:, :2] ** 2, axis=1)
    return product**2 * weights


def epipolar_precision(
    points0: NDArray[np.floating],
    points1: NDArray[np.floating],
    camera0: Camera,
    camera1: Camera,
    true_cam1_from_cam0: Float,
    threshold: float,
) -> float | None:
    """Share of matches (M, 2) that agree with the true motion, whose translation has to be above zero.

    None without matches: a precision of nothing is not zero.
    """
    if len(points0) == 0:
        return None
    rays0, rays1 = normalize_points(points0, camera0), normalize_points(points1, camera1)
    return float(np.mean(symmetric_epipolar_errors(true_cam1_from_cam0, rays0, rays1) < threshold))


def _positions(trajectory: Trajectory) -> Float:
    return trajectory.world_from_cam[:, :3, 3]


def _select(trajectory: Trajectory, indices: NDArray[np.intp]) -> Trajectory:
    return Trajectory(trajectory.stamps_ns[indices], trajectory.world_from_cam[indices])


def _nearest(wanted: Stamps, among: Stamps) -> NDArray[np.intp]:
    """Index of the nearest element of the sorted ``among``; the earlier of two equally near ones."""
    after = np.clip(np.searchsorted(among, wanted), 1, max(len(among) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(among) - 1)
    return np.where(wanted - among[before] <= among[after] - wanted, before, after)


def _inverse(poses: Float) -> Float:
    inverses = np.tile(np.eye(4), (len(poses), 1, 1))
    inverses[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    inverses[:, :3, 3] = -np.einsum("nij,nj->ni", inverses[:, :3, :3], poses[:, :3, 3])
    return inverses


def _relative(world_from_cam: Float, start: NDArray[np.intp], end: NDArray[np.intp]) -> Float:
    return _inverse(world_from_cam[start]) @ world_from_cam[end]


def _stretches(travelled: Float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last frame of every stretch whose length is one of ``DRIFT_SHARES`` of the whole path."""
    starts, ends = [], []
    for share in DRIFT_SHARES:
        end = np.searchsorted(travelled, travelled + share * travelled[-1] - 1e-9 * travelled[-1])
        start = np.flatnonzero(end < len(travelled))
        starts.append(start)
        ends.append(end[start])
    return np.concatenate(starts), np.concatenate(ends)
