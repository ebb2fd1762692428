"""The numbers of a run as short texts, for the terminal, the report and the comparison alike."""

from __future__ import annotations

from feature_matcher_ros.evaluation.evaluate import RunEvaluation
from feature_matcher_ros.evaluation.metrics import Percentiles, Statistics
from feature_matcher_ros.evaluation.pair_accuracy import (
    WRONG_DIRECTION_DEG,
    WRONG_ROTATION_DEG,
    Consistency,
    PairAccuracy,
)
from feature_matcher_ros.evaluation.track_quality import CONSISTENT_PX, WINDOW, TrackQuality
from feature_matcher_ros.evaluation.trajectory_accuracy import TrajectoryAccuracy

Rows = list[tuple[str, str]]
ABSENT = "-"


def summary_rows(evaluation: RunEvaluation) -> Rows:
    """Label and value of all that matters about a run; the same labels for every run."""
    return [
        *frame_rows(evaluation),
        *pair_rows(evaluation.pairs),
        *track_rows(evaluation.tracks),
        *trajectory_rows(evaluation.trajectory),
        *latency_rows(evaluation),
    ]


def frame_rows(evaluation: RunEvaluation) -> Rows:
    """What became of the frames."""
    frames, matches = evaluation.frames, evaluation.matches
    return [
        ("frames", f"{frames.num_frames}" + (f" + {frames.num_skipped} skipped" if frames.num_skipped else "")),
        ("pairs accepted", f"{frames.num_accepted} of {frames.num_attempted} ({percent(frames.accepted_share)})"),
        ("no pose because of", _counts(frames.refused) or ABSENT),
        ("keyframes", str(frames.num_keyframes)),
        (
            "frames lost",
            str(frames.num_lost_frames)
            + (f", {frames.num_lost_stretches} times" if frames.num_lost_stretches > 1 else ""),
        ),
        ("segments", str(frames.num_segments)),
        ("matches, median", number(_median(matches.num_matches), 0)),
        ("inliers, median", number(_median(matches.num_inliers), 0)),
        ("motion", _counts(frames.motion_type)),
        *([("layers run", _counts(frames.layers_run))] if frames.layers_run else []),
    ]


def pair_rows(pairs: PairAccuracy | None) -> Rows:
    """Errors of the relative poses."""
    directions = None if pairs is None else pairs.direction_deg
    scales = None if pairs is None else pairs.scale_error_percent
    rotations = None if pairs is None else pairs.rotation_deg
    wrong = ABSENT if pairs is None else f"{pairs.num_wrong} of {pairs.num_pairs} ({percent(pairs.wrong_share)})"
    return [
        ("rotation error, median / 90 %", spread(rotations, "°", 2)),
        ("direction error, median / 90 %", spread(directions, "°", 1)),
        ("scale error, median / 90 %", spread(scales, " %", 1)),
        (f"off by > {WRONG_ROTATION_DEG:g}° or {WRONG_DIRECTION_DEG:g}°", wrong),
    ]


def track_rows(tracks: TrackQuality | None) -> Rows:
    """How points were followed over keyframes."""
    return [
        (f"keyframes a track is seen in, of {WINDOW}", number(None if tracks is None else tracks.mean_length, 1)),
        (
            f"tracks of one point within {CONSISTENT_PX:g} px",
            percent(None if tracks is None else tracks.consistent_share),
        ),
    ]


def consistency_rows(pairs: PairAccuracy) -> list[tuple[str, ...]]:
    """Errors over reported sigmas: name, pairs, mean square, median, share within two sigma."""
    named = (("rotation", pairs.rotation_consistency), ("direction", pairs.direction_consistency))
    return [_consistency_row(name, consistency) for name, consistency in named if consistency is not None]


def trajectory_rows(trajectory: TrajectoryAccuracy | None) -> Rows:
    """Errors of the trajectory."""
    if trajectory is None:
        names = ("ATE, rmse", "ATE, max", "RPE translation, rmse", "RPE rotation, rmse", "drift", "true path")
        return [(name, ABSENT) for name in names]
    drift = trajectory.drift
    return [
        ("ATE, rmse", f"{metres(trajectory.ate_m.rmse)} after {trajectory.alignment}"),
        ("ATE, max", metres(trajectory.ate_m.max)),
        ("RPE translation, rmse", metres(trajectory.rpe_translation_m.rmse)),
        ("RPE rotation, rmse", number(trajectory.rpe_rotation_deg.rmse, 2, "°")),
        (
            "drift",
            ABSENT if drift is None else f"{drift.translation_percent:.2f} %, {drift.rotation_deg_per_m:.2f} °/m",
        ),
        ("true path", metres(trajectory.true_length_m)),
    ]


def latency_rows(evaluation: RunEvaluation) -> Rows:
    """How long the frames took."""
    total, matched = evaluation.latency_ms.get("total"), evaluation.matched_latency_ms
    return [
        ("time per frame, p50 / p95 / p99", _latency(total)),
        ("time per matched frame, p50 / p95 / p99", _latency(matched)),
        ("rate that can be kept up", number(evaluation.mean_rate_hz, 1, " Hz")),
    ]


def number(value: float | None, decimals: int, unit: str = "") -> str:
    """A number, or a dash."""
    return ABSENT if value is None else f"{value:.{decimals}f}{unit}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage, or a dash."""
    return ABSENT if share is None else f"{100.0 * share:.1f} %"


def metres(value: float) -> str:
    """A length in the unit that suits it."""
    if value < 0.1:
        return f"{1000.0 * value:.1f} mm"
    return f"{value:.3f} m" if value < 10.0 else f"{value:.2f} m"


def spread(statistics: Statistics | None, unit: str, decimals: int) -> str:
    """Median and 90th percentile, or a dash."""
    if statistics is None:
        return ABSENT
    return f"{statistics.median:.{decimals}f}{unit} / {statistics.p90:.{decimals}f}{unit}"


def _consistency_row(name: str, consistency: Consistency) -> tuple[str, ...]:
    return (
        name,
        str(consistency.count),
        f"{consistency.mean_square:.2f}",
        f"{consistency.median:.2f}",
        percent(consistency.share_within_2_sigma),
    )


def _median(values: Percentiles | None) -> float | None:
    return None if values is None else values.p50


def _latency(values: Percentiles | None) -> str:
    return ABSENT if values is None else f"{values.p50:.1f} / {values.p95:.1f} / {values.p99:.1f} ms"


def _counts(counts: dict[str, int] | dict[int, int]) -> str:
    return ", ".join(
        f"{count} {name}" if isinstance(name, str) else f"{name}: {count}" for name, count in counts.items()
    )
