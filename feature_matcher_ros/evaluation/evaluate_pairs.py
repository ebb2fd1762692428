"""A matcher and its pose estimators on image pairs whose true motion is known."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_matcher_ros.config import FrontEndConfig, PoseConfig
from feature_matcher_ros.datatypes import Float, Image, Matches, StopReason
from feature_matcher_ros.errors import ConfigError
from feature_matcher_ros.evaluation.low_texture import LowTexture, low_texture_matches
from feature_matcher_ros.evaluation.metrics import epipolar_precision, pose_auc, pose_error
from feature_matcher_ros.evaluation.opencv_estimator import estimate_relative_pose_opencv
from feature_matcher_ros.evaluation.pair_sets import ImagePair, load_pairs
from feature_matcher_ros.matchers import create_matcher
from feature_matcher_ros.matchers.matcher import Matcher
from feature_matcher_ros.models.dense_config import DENSE_METHODS
from feature_matcher_ros.relative_pose import estimate_relative_pose

WRONG_DEG = 20.0  # a pose that is off by more should not have been given

AUC_THRESHOLDS_DEG = (5.0, 10.0, 20.0)
# Squared, in normalised coordinates: the customary ones for outdoor and for indoor images.
PRECISION_THRESHOLDS = (1e-4, 5e-4)


@dataclass(frozen=True, slots=True, eq=False)
class FoundMotion:
    """What an estimator says about one pair."""

    rotation: Float | None  # (3, 3); None without a pose
    direction: Float | None  # (3,)
    num_inliers: int


@dataclass(frozen=True, slots=True)
class EstimatorOutcome:
    """What one estimator made of the matches of one pair."""

    num_inliers: int
    rotation_deg: float | None  # errors; None without a pose
    direction_deg: float | None  # None without a direction, or where the truth has none
    error_deg: float | None  # the larger one; None, and infinitely wrong, if a part of the pose is missing
    pose_ms: float


@dataclass(frozen=True, slots=True)
class PairOutcome:
    """One pair."""

    name: str
    num_points: float  # of an image, mean of both; a matcher without extractor has none
    num_matches: int
    precision: dict[float, float] | None  # by threshold; None without matches or without a true baseline
    low_texture: LowTexture | None  # by the smaller threshold; None without a true baseline
    extract_ms: float  # both images
    match_ms: float
    layers_run: int | None  # None where the matcher has no layers, likewise below
    stop_reason: StopReason | None
    estimators: dict[str, EstimatorOutcome]


@dataclass(frozen=True, slots=True)
class EstimatorScores:
    """One estimator over all pairs."""

    num_poses: int
    num_wrong: int  # poses that are off by more than ``WRONG_DEG``, or lack the direction they should have
    auc: dict[float, float]  # by threshold in degrees; a pair without a pose counts as infinitely wrong
    median_error_deg: float | None  # None if fewer than half of the pairs have a pose
    mean_num_inliers: float
    median_pose_ms: float


@dataclass(frozen=True, slots=True)
class PairSetEvaluation:
    """A matcher on a set of pairs, with every estimator on the very same matches."""

    name: str
    path: Path
    matcher: str
    extractor: str | None  # None: the matcher needs none
    max_keypoints: int | None
    num_pairs: int
    mean_num_matches: float
    precision: dict[float, float]  # mean over the pairs; where there is none it counts as 0
    mean_low_texture: tuple[float, float] | None  # matches where texture is low, and correct ones; None: no baselines
    median_extract_ms: float
    median_match_ms: float
    p99_match_ms: float
    match_budget_ms: float | None  # as configured
    mean_layers_run: float | None
    stop_reasons: dict[str, int]  # number of pairs by reason
    estimators: dict[str, EstimatorScores]
    pairs: tuple[PairOutcome, ...]


def evaluate_pairs(
    path: Path,
    config: FrontEndConfig | None = None,
    estimators: Sequence[str] = ("poselib", "opencv"),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PairSetEvaluation:
    """Match every pair listed in a JSON file and compare the poses with the truth.

    Raises:
        SourceError: the list, or an image in it, cannot be read.
        ConfigError: an estimator is not known.
    """
    config = config or FrontEndConfig()
    for name in estimators:
        if name not in ESTIMATORS:
            raise ConfigError(f"'{name}' is no pose estimator: choose from {', '.join(ESTIMATORS)}.")
    matcher, pairs = create_matcher(config), load_pairs(path)
    extractor = None if matcher.name in DENSE_METHODS else config.extractor
    outcomes = []
    for number, pair in enumerate(pairs, start=1):
        outcomes.append(_evaluate_pair(pair, matcher, config.pose, estimators))
        on_progress(number, len(pairs))
    return PairSetEvaluation(
        name=path.stem,
        path=path,
        matcher=matcher.name,
        extractor=None if extractor is None else extractor.name,
        max_keypoints=None if extractor is None else extractor.max_keypoints,
        num_pairs=len(outcomes),
        mean_num_matches=float(np.mean([outcome.num_matches for outcome in outcomes])),
        precision={threshold: _mean_precision(outcomes, threshold) for threshold in PRECISION_THRESHOLDS},
        mean_low_texture=_mean_low_texture(outcomes),
        median_extract_ms=float(np.median([outcome.extract_ms for outcome in outcomes])),
        median_match_ms=float(np.median([outcome.match_ms for outcome in outcomes])),
        p99_match_ms=float(np.percentile([outcome.match_ms for outcome in outcomes], 99.0)),
        match_budget_ms=config.matcher.match_budget_ms or None,
        mean_layers_run=_mean_layers(outcomes),
        stop_reasons=dict(Counter(outcome.stop_reason.value for outcome in outcomes if outcome.stop_reason)),
        estimators={name: _scores([outcome.estimators[name] for outcome in outcomes]) for name in estimators},
        pairs=tuple(outcomes),
    )


def pair_set_table(evaluation: PairSetEvaluation) -> tuple[list[str], list[tuple[str, ...]]]:
    """Header and rows: what is measured, and a column for every estimator."""
    columns = [_column(evaluation, scores) for scores in evaluation.estimators.values()]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]] if columns else []
    return ["", *evaluation.estimators], rows


def _column(evaluation: PairSetEvaluation, scores: EstimatorScores) -> dict[str, str]:
    precision = {f"matches with epipolar error < {t:g}": f"{100.0 * p:.1f} %" for t, p in evaluation.precision.items()}
    return {
        **{f"pose AUC@{threshold:g}°": f"{100.0 * area:.1f}" for threshold, area in scores.auc.items()},
        "pairs with a pose": f"{scores.num_poses} of {evaluation.num_pairs}",
        f"off by > {WRONG_DEG:g}°": str(scores.num_wrong),
        "matches, mean": f"{evaluation.mean_num_matches:.0f}",
        "inliers, mean": f"{scores.mean_num_inliers:.0f}",
        **precision,
        **_low_texture_cells(evaluation),
        "extract two images, median": f"{evaluation.median_extract_ms:.0f} ms",
        "match, median": f"{evaluation.median_match_ms:.1f} ms",
        "match, 99 %": f"{evaluation.p99_match_ms:.1f} ms",
        **_layer_cells(evaluation),
        "pose, median": f"{scores.median_pose_ms:.1f} ms",
    }


def _low_texture_cells(evaluation: PairSetEvaluation) -> dict[str, str]:
    if evaluation.mean_low_texture is None:
        return {}
    found, correct = evaluation.mean_low_texture
    threshold = min(PRECISION_THRESHOLDS)
    return {
        "matches where texture is low, mean": f"{found:.1f}",
        f"of these with epipolar error < {threshold:g}": f"{correct:.1f}",
    }


def _layer_cells(evaluation: PairSetEvaluation) -> dict[str, str]:
    """What only a matcher with layers has to say."""
    if evaluation.mean_layers_run is None:
        return {}
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(evaluation.stop_reasons.items()))
    budget = {} if evaluation.match_budget_ms is None else {"match budget": f"{evaluation.match_budget_ms:.1f} ms"}
    return {**budget, "layers run, mean": f"{evaluation.mean_layers_run:.2f}", "stopped by": reasons}


def _evaluate_pair(pair: ImagePair, matcher: Matcher, config: PoseConfig, estimators: Sequence[str]) -> PairOutcome:
    frame0, frame1 = pair.frames()
    begun = time.perf_counter()
    features0, features1 = matcher.extract(frame0.image), matcher.extract(frame1.image)
    extracted = time.perf_counter()
    matches = matcher.match(features0, features1)
    matched = time.perf_counter()
    return PairOutcome(
        name=pair.name,
        num_points=(len(features0) + len(features1)) / 2.0,
        num_matches=len(matches),
        precision=_precision(pair, matches),
        low_texture=_low_texture(pair, frame0.image, matches),
        extract_ms=1000.0 * (extracted - begun),
        match_ms=1000.0 * (matched - extracted),
        layers_run=matches.layers_run,
        stop_reason=matches.stop_reason,
        estimators={name: _estimate(pair, matches, config, ESTIMATORS[name]) for name in estimators},
    )


def _precision(pair: ImagePair, matches: Matches) -> dict[float, float] | None:
    if not _translates(pair):
        return None
    points = (matches.points0, matches.points1, pair.camera0, pair.camera1, pair.cam1_from_cam0)
    shares = {threshold: epipolar_precision(*points, threshold) for threshold in PRECISION_THRESHOLDS}
    return {threshold: share for threshold, share in shares.items() if share is not None} or None


def _low_texture(pair: ImagePair, image0: Image, matches: Matches) -> LowTexture | None:
    return low_texture_matches(pair, image0, matches, min(PRECISION_THRESHOLDS)) if _translates(pair) else None


def _estimate(pair: ImagePair, matches: Matches, config: PoseConfig, estimator: Estimator) -> EstimatorOutcome:
    begun = time.perf_counter()
    found = estimator(pair, matches, config)
    pose_ms = 1000.0 * (time.perf_counter() - begun)
    if found.rotation is None:
        return EstimatorOutcome(found.num_inliers, None, None, None, pose_ms)
    error = pose_error(found.rotation, found.direction, pair.cam1_from_cam0, with_direction=_translates(pair))
    complete = error.direction_deg is not None or not _translates(pair)
    error_deg = error.worst_deg if complete else None
    return EstimatorOutcome(found.num_inliers, error.rotation_deg, error.direction_deg, error_deg, pose_ms)


def _with_poselib(pair: ImagePair, matches: Matches, config: PoseConfig) -> FoundMotion:
    estimate = estimate_relative_pose(matches.points0, matches.points1, pair.camera0, pair.camera1, config)
    if estimate.pose is None:
        return FoundMotion(None, None, estimate.num_inliers)
    return FoundMotion(estimate.pose.rotation, estimate.pose.direction, estimate.num_inliers)


def _with_opencv(pair: ImagePair, matches: Matches, config: PoseConfig) -> FoundMotion:
    found = estimate_relative_pose_opencv(matches.points0, matches.points1, pair.camera0, pair.camera1, config)
    if found is None:
        return FoundMotion(None, None, 0)
    rotation, direction, inliers = found
    return FoundMotion(rotation, direction, int(np.count_nonzero(inliers)))


Estimator = Callable[[ImagePair, Matches, PoseConfig], FoundMotion]

ESTIMATORS: dict[str, Estimator] = {"poselib": _with_poselib, "opencv": _with_opencv}


def _translates(pair: ImagePair) -> bool:
    return bool(np.any(pair.cam1_from_cam0[:3, 3] != 0.0))


def _scores(outcomes: Sequence[EstimatorOutcome]) -> EstimatorScores:
    errors = [math.inf if outcome.error_deg is None else outcome.error_deg for outcome in outcomes]
    paired = list(zip(outcomes, errors, strict=True))
    median = float(np.median(errors))
    return EstimatorScores(
        num_poses=sum(outcome.rotation_deg is not None for outcome in outcomes),
        num_wrong=sum(outcome.rotation_deg is not None and error > WRONG_DEG for outcome, error in paired),
        auc=pose_auc(errors, AUC_THRESHOLDS_DEG),
        median_error_deg=median if math.isfinite(median) else None,
        mean_num_inliers=float(np.mean([outcome.num_inliers for outcome in outcomes])),
        median_pose_ms=float(np.median([outcome.pose_ms for outcome in outcomes])),
    )


def _mean_layers(outcomes: Sequence[PairOutcome]) -> float | None:
    layers = [outcome.layers_run for outcome in outcomes if outcome.layers_run is not None]
    return float(np.mean(layers)) if layers else None


def _mean_low_texture(outcomes: Sequence[PairOutcome]) -> tuple[float, float] | None:
    counts = [(found.num_matches, found.num_correct) for outcome in outcomes if (found := outcome.low_texture)]
    return (float(np.mean(counts, axis=0)[0]), float(np.mean(counts, axis=0)[1])) if counts else None


def _mean_precision(outcomes: Sequence[PairOutcome], threshold: float) -> float:
    return float(np.mean([outcome.precision[threshold] if outcome.precision else 0.0 for outcome in outcomes]))
