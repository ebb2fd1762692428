"""How far the trajectory of a run is from the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Float, Trajectory
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation import metrics
from feature_matcher_ros.evaluation.trajectories import interpolate_trajectory

MAX_TRUTH_GAP_NS = 200_000_000  # true poses further apart than this are not interpolated between
MIN_PATH_M = 0.1  # drift of a shorter path would be that of the truth's own noise
_MIN_POSES = 3


@dataclass(frozen=True, slots=True)
class TrajectoryAccuracy:
    """Errors against the truth, after the alignment that the run's scale permits."""

    alignment: str  # "SE(3)", or "Sim(3)" where the run has no metric scale
    scale: float | None  # of the best Sim(3) alignment; for a metric run 1 is right; None if the camera stood still
    num_poses: int  # with a true pose at the same time
    true_length_m: float
    ate_m: metrics.Statistics
    rpe_translation_m: metrics.Statistics  # between each pose and the next one
    rpe_rotation_deg: metrics.Statistics
    drift: metrics.Drift | None  # None for a path too short to drift


@dataclass(frozen=True, slots=True, eq=False)
class AlignedTrajectory:
    """Estimate and truth, pose by pose, in the axes of the truth."""

    estimate: Trajectory
    truth: Trajectory
    position_errors_m: Float  # (N,)


def pair_up(estimate: Trajectory, truth: Trajectory) -> tuple[Trajectory, Trajectory]:
    """Give every pose its true one: the nearest in time as evo does, else an interpolated one.

    Raises:
        SourceError: the two do not overlap in time, or have fewer than three moments in common.
    """
    check_overlap(estimate.stamps_ns, truth)
    nearest = metrics.associate(estimate, truth)
    if len(nearest[0]) >= _MIN_POSES:
        return nearest
    answered, poses = interpolate_trajectory(truth, estimate.stamps_ns, MAX_TRUTH_GAP_NS)
    if len(answered) < _MIN_POSES:
        raise SourceError(
            f"only {len(answered)} poses of the trajectory have a true pose at their time, and alignment takes "
            f"{_MIN_POSES}: give a denser ground truth, or replay a longer stretch."
        )
    stamps_ns = estimate.stamps_ns[answered]
    return Trajectory(stamps_ns, estimate.world_from_cam[answered]), Trajectory(stamps_ns, poses)


def check_overlap(stamps_ns: metrics.Stamps, truth: Trajectory) -> None:
    """Raise a SourceError with both ranges if the truth ends before the run begins, or the reverse."""
    if len(stamps_ns) == 0 or len(truth) == 0:
        raise SourceError("the run or the ground truth holds no pose, so there is nothing to compare.")
    ours, theirs = (stamps_ns[0], stamps_ns[-1]), (truth.stamps_ns[0], truth.stamps_ns[-1])
    reach = metrics.MAX_STAMP_DIFFERENCE_NS
    if ours[0] > theirs[1] + reach or theirs[0] > ours[1] + reach:
        raise SourceError(
            f"the ground truth covers {_range_s(*theirs)} and the run {_range_s(*ours)}, which do not overlap: "
            "give the ground truth of this recording, with stamps of the same clock."
        )


def trajectory_accuracy(
    estimate: Trajectory, truth: Trajectory, metric: bool
) -> tuple[TrajectoryAccuracy, AlignedTrajectory]:
    """Align with a fixed scale if the run is metric, else with a free one, and measure what is left.

    Raises:
        SourceError: estimate and truth cannot be paired, or a run without scale never moves.
    """
    estimate, truth = pair_up(estimate, truth)
    aligned = metrics.align(estimate, truth, with_scale=not metric).apply(estimate)
    ate = metrics.absolute_errors(aligned, truth)
    rpe = metrics.relative_errors(aligned, truth)
    length = metrics.path_length(truth)
    moved = length >= MIN_PATH_M and metrics.path_length(estimate) > 0.0
    accuracy = TrajectoryAccuracy(
        alignment="SE(3)" if metric else "Sim(3)",
        scale=metrics.align(estimate, truth, with_scale=True).scale if moved else None,
        num_poses=len(truth),
        true_length_m=length,
        ate_m=metrics.statistics(ate),
        rpe_translation_m=metrics.statistics(rpe.translation_m),
        rpe_rotation_deg=metrics.statistics(rpe.rotation_deg),
        drift=metrics.drift(aligned, truth) if moved else None,
    )
    return accuracy, AlignedTrajectory(aligned, truth, ate)


def _range_s(first_ns: np.int64, last_ns: np.int64) -> str:
    return f"{first_ns / 1e9:.3f} s to {last_ns / 1e9:.3f} s"
