"""All numbers of a run: what became of its frames, how long they took, how far they are from the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

import numpy as np

from feature_matcher_ros.datatypes import KeyframeReason, MotionType, ScaleSource, Status, TrackingState, Trajectory
from feature_matcher_ros.errors import SourceError
from feature_matcher_ros.evaluation.json_text import LEFT_OUT
from feature_matcher_ros.evaluation.matcher_stages import MatcherStage, matcher_stages
from feature_matcher_ros.evaluation.metrics import Percentiles, percentiles
from feature_matcher_ros.evaluation.pair_accuracy import (
    PairAccuracy,
    PairError,
    moving_baseline_m,
    pair_accuracy,
    pair_errors,
)
from feature_matcher_ros.evaluation.pair_table import STAGES, PairRow
from feature_matcher_ros.evaluation.run_folder import RunFolder, RunInfo
from feature_matcher_ros.evaluation.sequences import Modality
from feature_matcher_ros.evaluation.track_links import keyframe_links
from feature_matcher_ros.evaluation.track_quality import TrackQuality, track_quality
from feature_matcher_ros.evaluation.trajectories import read_tum
from feature_matcher_ros.evaluation.trajectory_accuracy import (
    AlignedTrajectory,
    TrajectoryAccuracy,
    check_overlap,
    trajectory_accuracy,
)

Kind = TypeVar("Kind", bound=Enum)


_SLOW_S = 10.0  # between two frames; no camera that is followed is slower
_BEGINNINGS = (KeyframeReason.RESTART, KeyframeReason.TIME_JUMP)
_SCALE_CAUSES = {
    Modality.STEREO: (
        "The right images",
        "left and right may be exchanged, the baseline or calibration that of another camera, the images not of one "
        "time, or all there is to see too far away",
    ),
    Modality.RGBD: (
        "Depth",
        "it may be too sparse (six of the nine pixels about a point must be known), in another unit, or not registered "
        "as the calibration says",
    ),
}


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """What became of the frames."""

    num_frames: int  # processed
    num_skipped: int  # could not be read
    num_attempted: int  # matched with a keyframe, or should have been
    num_accepted: int  # with a pose
    accepted_share: float | None  # of the attempted ones; None if there were none
    num_keyframes: int
    num_segments: int
    num_lost_stretches: int
    num_lost_frames: int
    status: dict[str, int]
    refused: dict[str, int]  # attempted frames without a pose, by reason
    motion_type: dict[str, int]  # of attempted frames
    keyframe_reason: dict[str, int]
    layers_run: dict[int, int]  # layers -> frames; empty where the matcher has no layers


@dataclass(frozen=True, slots=True)
class MatchCounts:
    """What the matcher and the pose estimator found in the attempted frames."""

    num_matches: Percentiles | None
    num_inliers: Percentiles | None
    inlier_ratio: Percentiles | None


@dataclass(frozen=True, slots=True, eq=False)
class RunSeries:
    """What the plots are drawn from; not part of ``report.json``."""

    rows: tuple[PairRow, ...]
    pair_errors: tuple[PairError, ...]
    estimate: Trajectory | None  # as estimated
    aligned: AlignedTrajectory | None  # None without truth
    truth: Trajectory | None


@dataclass(frozen=True, slots=True, eq=False)
class RunEvaluation:
    """All numbers of a run; what is None could not be measured, and ``remarks`` says why."""

    run: RunInfo
    folder: Path
    frames: FrameCounts
    matches: MatchCounts
    latency_ms: dict[str, Percentiles]  # by stage, over the frames that went through it
    matched_latency_ms: Percentiles | None  # whole time of the attempted frames
    mean_rate_hz: float | None  # frames per second that could be kept up
    matcher_stages: tuple[MatcherStage, ...]  # empty where the matcher has none
    metric: bool
    trajectory: TrajectoryAccuracy | None
    pairs: PairAccuracy | None
    tracks: TrackQuality | None  # at the true poses, or else at the estimated ones; None without topics
    remarks: tuple[str, ...]  # sentences that a reader of the numbers should know
    series: RunSeries = field(metadata=LEFT_OUT)


def evaluate_run(run: Path, ground_truth: Path | None = None) -> RunEvaluation:
    """Compute all numbers of a run folder.

    ``ground_truth`` is a TUM file of ``world_from_cam`` with the clock of the run; without it that of
    the source is taken, if there was one.

    Raises:
        SourceError: ``run`` is no run folder, or the ``ground_truth`` given does not overlap with it in
            time. Truth that came with the source and does not fit only leads to a remark.
    """
    folder = RunFolder(run)
    info, rows = folder.read_info(), folder.read_rows()
    estimate = folder.read_trajectory()
    truth = read_tum(ground_truth) if ground_truth is not None else folder.read_ground_truth()
    remarks = _remarks_on_run(info, rows)
    metric = is_metric(rows, info.modality)
    if ground_truth is not None and truth is not None and rows:
        check_overlap(np.array(sorted(row.stamp_ns for row in rows)), truth)

    accuracy, aligned = _trajectory_against(estimate, truth, metric, remarks)
    min_baseline_m = 0.0 if truth is None else moving_baseline_m(truth, info.truth_sigma_m)
    errors = () if truth is None else pair_errors(rows, truth, min_baseline_m)
    return RunEvaluation(
        run=info,
        folder=run,
        frames=count_frames(info, rows),
        matches=_match_counts(rows),
        latency_ms=_latency(rows),
        matched_latency_ms=_percentiles_of(row.total_ms for row in rows if row.attempted),
        mean_rate_hz=_mean_rate_hz(rows),
        matcher_stages=matcher_stages(rows),
        metric=metric,
        trajectory=accuracy,
        pairs=pair_accuracy(errors, min_baseline_m) if errors else None,
        tracks=_tracks(folder, rows, truth or estimate, remarks),
        remarks=tuple(remarks),
        series=RunSeries(rows, errors, estimate, aligned, truth),
    )


def is_metric(rows: Iterable[PairRow], modality: Modality) -> bool:
    """Tell whether most translations of a run have a length; a run without translations goes by its modality."""
    sources = [row.scale_source for row in rows if row.tx is not None]
    if not sources:
        return modality is not Modality.MONO
    return sum(source is not ScaleSource.NONE for source in sources) > len(sources) / 2


def lost_stretches(rows: Sequence[PairRow]) -> list[tuple[int, int]]:
    """First and last stamp of every run of lost frames."""
    stretches: list[tuple[int, int]] = []
    was_lost = False
    for row in rows:
        lost = row.state is TrackingState.LOST
        if lost:
            first_ns = stretches.pop()[0] if was_lost else row.stamp_ns
            stretches.append((first_ns, row.stamp_ns))
        was_lost = lost
    return stretches


def count_frames(info: RunInfo, rows: Sequence[PairRow]) -> FrameCounts:
    """Count by status, motion type, reason and layers."""
    attempted = [row for row in rows if row.attempted]
    num_accepted = sum(row.status is Status.OK for row in attempted)
    return FrameCounts(
        num_frames=len(rows),
        num_skipped=sum(info.skipped.values()),
        num_attempted=len(attempted),
        num_accepted=num_accepted,
        accepted_share=num_accepted / len(attempted) if attempted else None,
        num_keyframes=sum(row.is_keyframe for row in rows),
        num_segments=len({row.segment for row in rows if row.segment is not None}),
        num_lost_stretches=len(lost_stretches(rows)),
        num_lost_frames=sum(row.state is TrackingState.LOST for row in rows),
        status=_in_order(Status, (row.status for row in rows)),
        refused=_in_order(Status, (row.status for row in attempted if row.status is not Status.OK)),
        motion_type=_in_order(MotionType, (row.motion_type for row in attempted)),
        keyframe_reason=_in_order(KeyframeReason, (row.keyframe_reason for row in rows if row.keyframe_reason)),
        layers_run=dict(sorted(Counter(row.layers_run for row in rows if row.layers_run is not None).items())),
    )


def _trajectory_against(
    estimate: Trajectory | None, truth: Trajectory | None, metric: bool, remarks: list[str]
) -> tuple[TrajectoryAccuracy | None, AlignedTrajectory | None]:
    if truth is None:
        remarks.append("There is no ground truth, so no error can be given: evaluate it with --ground-truth FILE.")
        return None, None
    if estimate is None:
        remarks.append("No frame was given a place, so there is no trajectory to compare with the truth.")
        return None, None
    try:
        return trajectory_accuracy(estimate, truth, metric)
    except SourceError as error:
        remarks.append(f"The trajectory was not compared with the truth: {error}")
        return None, None


def _tracks(
    folder: RunFolder, rows: Sequence[PairRow], poses: Trajectory | None, remarks: list[str]
) -> TrackQuality | None:
    """What is known of the tracks; a run that was killed leaves half a bag of topics beside a table that is whole."""
    try:
        return track_quality(keyframe_links(folder, rows), poses)
    except SourceError as error:
        remarks.append(f"Nothing is said of the tracks: {error}")
        return None


def _remarks_on_run(info: RunInfo, rows: Sequence[PairRow]) -> list[str]:
    remarks = [_sentence(assumption) for assumption in info.assumptions]
    if not info.finished:
        remarks.append(f"The replay was interrupted; the numbers are those of its first {len(rows)} frames.")
    remarks += [_sentence(f"{count} frames were left out: {reason}") for reason, count in info.skipped.items()]
    remarks += [*_remarks_on_times(rows), *_remarks_on_scale(info, rows)]
    segments = Counter(row.segment for row in rows if row.segment is not None)
    if len(segments) > 1:
        longest, placed = max(segments.values()), sum(segments.values())
        begun = _in_order(KeyframeReason, (row.keyframe_reason for row in rows if row.keyframe_reason in _BEGINNINGS))
        reasons = ", ".join(f"{count} {name}" for name, count in begun.items())
        remarks.append(
            f"The trajectory fell into {len(segments)} unconnected segments ({reasons}); its errors are those of the "
            f"longest one, {longest} of {placed} poses."
        )
    return remarks


def _remarks_on_times(rows: Sequence[PairRow]) -> list[str]:
    if len(rows) < 2:
        return []
    period_s = float(np.median(np.abs(np.diff([row.stamp_ns for row in rows])))) * 1e-9
    if period_s < _SLOW_S:
        return []
    return [f"Frames are {period_s:.6g} s apart: if the camera was faster, the unit of their times is another one."]


def _remarks_on_scale(info: RunInfo, rows: Sequence[PairRow]) -> list[str]:
    sources = [row.scale_source for row in rows if row.tx is not None]
    missing = sources.count(ScaleSource.NONE)
    if info.modality is Modality.MONO or 2 * missing <= len(sources):
        return []
    where, causes = _SCALE_CAUSES[info.modality]
    return [f"{where} gave no length to {missing} of {len(sources)} pairs that move: {causes}."]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _match_counts(rows: Iterable[PairRow]) -> MatchCounts:
    attempted = [row for row in rows if row.attempted]
    return MatchCounts(
        num_matches=_percentiles_of(row.num_matches for row in attempted),
        num_inliers=_percentiles_of(row.num_inliers for row in attempted),
        inlier_ratio=_percentiles_of(row.inlier_ratio for row in attempted),
    )


def _latency(rows: Iterable[PairRow]) -> dict[str, Percentiles]:
    by_stage = {stage: _percentiles_of(row.stage_ms(stage) for row in rows) for stage in STAGES}
    return {stage: spread for stage, spread in by_stage.items() if spread is not None}


def _mean_rate_hz(rows: Sequence[PairRow]) -> float | None:
    spent_ms = sum(row.total_ms for row in rows)
    return 1000.0 * len(rows) / spent_ms if spent_ms > 0.0 else None


def _percentiles_of(values: Iterable[float | None]) -> Percentiles | None:
    known = [value for value in values if value is not None]
    return percentiles(known) if known else None


def _in_order(kinds: type[Kind], values: Iterable[Kind]) -> dict[str, int]:
    """Count by name, in the order in which the kinds are declared."""
    counts = Counter(values)
    return {str(kind.value): counts[kind] for kind in kinds if counts[kind]}
