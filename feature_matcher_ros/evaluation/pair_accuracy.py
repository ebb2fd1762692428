"""How far the relative poses of a run are from the truth, and whether they know it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Float, Trajectory
from feature_matcher_ros.evaluation import metrics
from feature_matcher_ros.evaluation.pair_table import PairRow
from feature_matcher_ros.evaluation.trajectories import interpolate_trajectory
from feature_matcher_ros.evaluation.trajectory_accuracy import MAX_TRUTH_GAP_NS
from feature_matcher_ros.geometry import invert_pose

# An accepted pose this far off is a false acceptance: a mapping node would be better off without it.
WRONG_ROTATION_DEG = 5.0
WRONG_DIRECTION_DEG = 30.0

# A true baseline of this many times the noise of the true positions gives a true direction good to
# about 4 degrees (sqrt(2) / 20 radians).
_BASELINE_PER_SIGMA = 20.0
# Limits of a threshold that is estimated from the truth alone, which may be smoothed, or sparse.
_ESTIMATE_LIMITS_M = (0.02, 0.1)


@dataclass(frozen=True, slots=True)
class PairError:
    """One accepted pose beside the true one."""

    stamp_ns: int
    keyframe_stamp_ns: int
    true_baseline_m: float
    moving: bool
    has_direction: bool
    rotation_deg: float
    direction_deg: float | None  # only of moving pairs with a direction
    scale_error_percent: float | None  # signed; only of moving pairs with a baseline
    rotation_sigma_deg: float | None
    direction_sigma_deg: float | None

    @property
    def wrong(self) -> bool:
        return self.rotation_deg > WRONG_ROTATION_DEG or (self.direction_deg or 0.0) > WRONG_DIRECTION_DEG

    @property
    def badness(self) -> float:
        """The error by which the worst pairs are found; 1 is the border of a false acceptance."""
        return max(self.rotation_deg / WRONG_ROTATION_DEG, (self.direction_deg or 0.0) / WRONG_DIRECTION_DEG)


@dataclass(frozen=True, slots=True)
class Consistency:
    """Errors over the standard deviations that the front-end reports for them (the idea of the NEES).

    A mean square of 1 is right; more says that the front-end is too sure of itself, or that the truth
    is noisier than the front-end.
    """

    count: int
    mean_square: float
    median: float
    share_within_2_sigma: float


@dataclass(frozen=True, slots=True)
class PairAccuracy:
    """Errors of all accepted poses for which the truth is known."""

    num_pairs: int
    num_moving: int  # true baseline of at least ``min_baseline_m``
    min_baseline_m: float
    rotation_deg: metrics.Statistics
    direction_deg: metrics.Statistics | None
    scale_error_percent: metrics.Statistics | None  # of its absolute value
    scale_bias_percent: float | None  # median with sign
    num_wrong: int  # false acceptances
    wrong_share: float
    num_motion_missed: int  # moving pairs whose pose has no direction
    rotation_consistency: Consistency | None
    direction_consistency: Consistency | None


def moving_baseline_m(truth: Trajectory, truth_sigma_m: float | None = None) -> float:
    """Length from which on the direction between two true positions means something.

    ``truth_sigma_m`` is the noise of the true positions, if someone knows it. Else it is estimated from
    their fourth differences, which smooth motion hardly has; that does not see slow errors.
    """
    if truth_sigma_m is not None:
        return _BASELINE_PER_SIGMA * truth_sigma_m
    smallest, largest = _ESTIMATE_LIMITS_M
    positions = truth.world_from_cam[:, :3, 3]
    if len(positions) < 5:
        return smallest
    fourth = np.diff(positions, n=4, axis=0)
    # White noise of deviation s has fourth differences of deviation sqrt(70) s, and a vector of three
    # normal values a median length of 1.54.
    jitter = float(np.median(np.linalg.norm(fourth, axis=1))) / (math.sqrt(70.0) * 1.54)
    return float(np.clip(_BASELINE_PER_SIGMA * jitter, smallest, largest))


def pair_errors(rows: Iterable[PairRow], truth: Trajectory, min_baseline_m: float) -> tuple[PairError, ...]:
    """Compare every pose with the true one, interpolated at the stamps of both frames."""
    posed = [row for row in rows if row.qx is not None and row.keyframe_stamp_ns is not None]
    stamps = sorted({stamp for row in posed for stamp in (row.stamp_ns, row.keyframe_stamp_ns) if stamp is not None})
    answered, poses = interpolate_trajectory(truth, stamps, MAX_TRUTH_GAP_NS)
    world_from_cam = {stamps[number]: pose for number, pose in zip(answered.tolist(), poses, strict=True)}
    errors = []
    for row in posed:
        cam0, cam1 = world_from_cam.get(row.keyframe_stamp_ns or 0), world_from_cam.get(row.stamp_ns)
        if cam0 is not None and cam1 is not None:
            errors.append(_pair_error(row, invert_pose(cam1) @ cam0, min_baseline_m))
    return tuple(errors)


def pair_accuracy(errors: Sequence[PairError], min_baseline_m: float) -> PairAccuracy:
    """Summarise at least one error."""
    directions = [error.direction_deg for error in errors if error.direction_deg is not None]
    scales = [error.scale_error_percent for error in errors if error.scale_error_percent is not None]
    num_wrong = sum(error.wrong for error in errors)
    return PairAccuracy(
        num_pairs=len(errors),
        num_moving=sum(error.moving for error in errors),
        min_baseline_m=min_baseline_m,
        rotation_deg=metrics.statistics([error.rotation_deg for error in errors]),
        direction_deg=metrics.statistics(directions) if directions else None,
        scale_error_percent=metrics.statistics(np.abs(scales)) if scales else None,
        scale_bias_percent=float(np.median(scales)) if scales else None,
        num_wrong=num_wrong,
        wrong_share=num_wrong / len(errors),
        num_motion_missed=sum(error.moving and not error.has_direction for error in errors),
        rotation_consistency=_consistency((error.rotation_deg, error.rotation_sigma_deg) for error in errors),
        direction_consistency=_consistency((error.direction_deg, error.direction_sigma_deg) for error in errors),
    )


def _pair_error(row: PairRow, true_cam1_from_cam0: Float, min_baseline_m: float) -> PairError:
    rotation = row.rotation
    assert rotation is not None and row.keyframe_stamp_ns is not None
    true_baseline_m = float(np.linalg.norm(true_cam1_from_cam0[:3, 3]))
    moving = true_baseline_m >= min_baseline_m
    error = metrics.pose_error(rotation, row.direction, true_cam1_from_cam0, with_direction=moving)
    scale = 100.0 * (row.baseline_m / true_baseline_m - 1.0) if moving and row.baseline_m is not None else None
    return PairError(
        stamp_ns=row.stamp_ns,
        keyframe_stamp_ns=row.keyframe_stamp_ns,
        true_baseline_m=true_baseline_m,
        moving=moving,
        has_direction=row.tx is not None,
        rotation_deg=error.rotation_deg,
        direction_deg=error.direction_deg,
        scale_error_percent=scale,
        rotation_sigma_deg=row.rotation_sigma_deg,
        direction_sigma_deg=row.direction_sigma_deg,
    )


def _consistency(pairs: Iterable[tuple[float | None, float | None]]) -> Consistency | None:
    """Ratios of error and sigma, where there are both; None if there are none."""
    ratios = np.array([error / sigma for error, sigma in pairs if error is not None and sigma])
    if len(ratios) == 0:
        return None
    within = float(np.mean(ratios <= 2.0))
    return Consistency(len(ratios), float(np.mean(ratios**2)), float(np.median(ratios)), within)
