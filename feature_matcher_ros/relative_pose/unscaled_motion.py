"""What the matches alone, without any measured depth, say about the motion between two views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import Estimator, Float, MotionType, RelativePose, ScaleSource
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask
from feature_matcher_ros.relative_pose.epipolar_estimation import (
    EpipolarFit,
    Noise,
    describe_epipolar,
    noise_from,
    polish_epipolar,
    refine_epipolar,
    search_epipolar,
)
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion, HomographyMotion, RotationMotion
from feature_matcher_ros.relative_pose.motion_selection import (
    EPIPOLAR_AFTER_HOMOGRAPHY,
    EPIPOLAR_AFTER_ROTATION,
    HOMOGRAPHY,
    ROTATION,
    STATIC,
    Evidence,
    Freedom,
    epipolar_evidence,
    transfer_evidence,
)
from feature_matcher_ros.relative_pose.planar_motion import (
    PlanarMotion,
    TransferFit,
    describe_transfer,
    motions_before_plane,
    polish_homography,
    refine_transfer,
    rotation_like,
    search_homography,
    sees_plane,
    to_epipolar,
)
from feature_matcher_ros.relative_pose.planar_pose import planar_pose, uncertain_homography
from feature_matcher_ros.relative_pose.pose_covariance import (
    epipolar_covariance,
    is_same_motion,
    motion_covariance,
    pose_covariance,
)
from feature_matcher_ros.relative_pose.quick_look import MIN_RIVAL_SHARE, find_general_motion, noise_range, shows_depth

# Differences of -2 log likelihood: beyond the first there is no doubt which of two motions is meant; beyond the
# second the matches off the plane are so many that the search cannot have mistaken its mirror motion for it.
_DECISIVE = 10.0
_FAR_FROM_PLANAR = 60.0
# A refinement may improve on the quick fit by this much.
_WORTH_REFINING = 60.0
_ESTIMATORS = {
    MotionType.GENERAL: Estimator.ESSENTIAL,
    MotionType.PLANAR: Estimator.HOMOGRAPHY,
    MotionType.ROTATION_ONLY: Estimator.ROTATION,
    MotionType.STATIC: Estimator.ROTATION,
}


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The kind of motion, what it explains, and its pose, unless more than one is possible."""

    motion_type: MotionType
    pose: RelativePose | None
    inliers: Mask  # (M,)


@dataclass(frozen=True, slots=True, eq=False)
class Rival:
    """A motion that leaves its matches no parallax."""

    motion_type: MotionType
    fit: TransferFit
    criterion: float


def solve_unscaled(matches: Correspondences, config: PoseConfig) -> Solution:
    """Find the kind of motion and the motion; direction of translation only, no length."""
    noise = noise_from(config)
    general = find_general_motion(matches, config, noise)
    if general is not None:
        return general_solution(describe_epipolar(general, matches, noise), noise)
    searched = search_epipolar(matches, config)
    if searched is None:
        near_line = np.ones(len(matches), dtype=np.bool_)
    else:
        near_line = searched.residuals(matches)[0] ** 2 < noise.gate_px**2
    rivals = find_rivals(matches, near_line, config, noise)
    if not rivals:
        if searched is None:
            return Solution(MotionType.UNKNOWN, None, np.zeros(len(matches), dtype=np.bool_))
        return general_solution(polish_epipolar(searched, matches, noise), noise)
    best = min(rivals, key=lambda rival: rival.criterion)
    if best.motion_type is MotionType.PLANAR:
        return _general_or_planar(searched, best, matches, noise)
    return _general_or_rotation(searched, best, matches, noise)


def is_planar(fit: EpipolarFit, matches: Correspondences, config: PoseConfig) -> bool:
    """Whether a plane explains the matches as well as an epipolar geometry that is known to be true."""
    noise = noise_from(config)
    if shows_depth(fit.motion, matches, config, noise):
        return False
    for rival in find_rivals(matches, fit.near_line, config, noise):
        if rival.motion_type is MotionType.PLANAR:
            evidence = _evidence(fit, rival, matches, noise)
            return rival.criterion <= evidence.criterion(EPIPOLAR_AFTER_HOMOGRAPHY)
    return False


def find_rivals(matches: Correspondences, near_line: Mask, config: PoseConfig, noise: Noise) -> list[Rival]:
    """The rivals among no motion, rotation and homography that explain enough to be worth a comparison."""
    fits = [(MotionType.STATIC, STATIC, describe_transfer(RotationMotion(np.eye(3)), matches, noise))]
    homography = search_homography(matches.only(near_line), config)
    if homography is not None:
        plane = describe_transfer(homography, matches, noise)
        if plane.num_inliers >= max(MIN_RIVAL_SHARE * np.count_nonzero(near_line), 4):
            polished = polish_homography(homography, matches.only(plane.inliers), noise)
            plane = describe_transfer(polished, matches, noise)
            fits += [(MotionType.PLANAR, HOMOGRAPHY, plane)]
            fits += [(MotionType.ROTATION_ONLY, ROTATION, fit) for fit in _fit_rotation(plane, matches, noise)]
    most = max([int(np.count_nonzero(near_line)), *(fit.num_inliers for _, _, fit in fits)])
    return [
        Rival(motion_type, fit, transfer_evidence(fit.length2, noise_range(matches, noise)).criterion(freedom))
        for motion_type, freedom, fit in fits
        if fit.num_inliers >= max(MIN_RIVAL_SHARE * most, 4)
    ]


def _fit_rotation(plane: TransferFit, matches: Correspondences, noise: Noise) -> list[TransferFit]:
    """The rotation that resembles a homography, refined; none if it does not resemble it at all."""
    assert isinstance(plane.motion, HomographyMotion)
    rough = describe_transfer(rotation_like(plane.motion), matches, noise)
    if rough.num_inliers < MIN_RIVAL_SHARE * plane.num_inliers:
        return []
    return [refine_transfer(rough, matches, noise)]


def _general_or_rotation(
    searched: EpipolarMotion | None, rival: Rival, matches: Correspondences, noise: Noise
) -> Solution:
    if searched is not None:
        fit, criterion = _weigh(
            polish_epipolar(searched, matches, noise), rival, EPIPOLAR_AFTER_ROTATION, matches, noise
        )
        if criterion < rival.criterion:
            return general_solution(fit, noise)
    assert isinstance(rival.fit.motion, RotationMotion)
    return rotation_solution(rival.motion_type, rival.fit, matches, noise)


def _general_or_planar(
    searched: EpipolarMotion | None, rival: Rival, matches: Correspondences, noise: Noise
) -> Solution:
    """Weigh depth against a plane; where depth is little, weigh the two motions that show a plane alike."""
    assert isinstance(rival.fit.motion, HomographyMotion)
    if searched is None:
        return planar_solution(rival, matches, noise)
    polished = polish_epipolar(searched, matches, noise)
    leader, criterion = _weigh(polished, rival, EPIPOLAR_AFTER_HOMOGRAPHY, matches, noise)
    if criterion >= rival.criterion:
        return planar_solution(rival, matches, noise)
    if criterion < rival.criterion - _FAR_FROM_PLANAR:
        return general_solution(leader, noise)
    only = _only_motion(leader, rival, matches, noise)
    if only is None:
        return Solution(MotionType.PLANAR, None, leader.inliers)
    return general_solution(only, noise)


def _only_motion(fit: EpipolarFit, rival: Rival, matches: Correspondences, noise: Noise) -> EpipolarFit | None:
    """The best of a motion and those that show the plane alike; None if another one is as good and not the same."""
    assert isinstance(rival.fit.motion, HomographyMotion)
    planes = motions_before_plane(rival.fit.motion, matches.only(rival.fit.inliers))
    fits = [fit, *(polish_epipolar(to_epipolar(plane), matches, noise) for plane in planes)]
    evidence = [_evidence(one, rival, matches, noise) for one in fits]
    leads = [one.lead_over(evidence[0]) for one in evidence]
    best = int(np.argmax(leads))
    close = [one for one, other in zip(fits, evidence, strict=True) if evidence[best].lead_over(other) < _DECISIVE]
    parameters = epipolar_covariance(fits[best], noise)
    return fits[best] if all(is_same_motion(fits[best].motion, one.motion, parameters) for one in close) else None


def _weigh(
    fit: EpipolarFit, rival: Rival, freedom: Freedom, matches: Correspondences, noise: Noise
) -> tuple[EpipolarFit, float]:
    """The criterion of an epipolar geometry beside its rival, after refinement where that may matter."""
    criterion = _evidence(fit, rival, matches, noise).criterion(freedom)
    if not rival.criterion < criterion < rival.criterion + _WORTH_REFINING:
        return fit, criterion
    fit = refine_epipolar(fit, noise)
    return fit, _evidence(fit, rival, matches, noise).criterion(freedom)


def general_solution(fit: EpipolarFit, noise: Noise) -> Solution:
    """Refine an epipolar geometry."""
    refined = refine_epipolar(fit, noise)
    motion, pose = refined.motion, None
    parameters = epipolar_covariance(refined, noise)
    if parameters is not None:
        pose = _pose(MotionType.GENERAL, motion.rotation, motion.direction, pose_covariance(motion, parameters))
    return Solution(MotionType.GENERAL, pose, refined.inliers)


def rotation_solution(motion_type: MotionType, fit: TransferFit, matches: Correspondences, noise: Noise) -> Solution:
    """A rotation that is already refined, or no motion."""
    assert isinstance(fit.motion, RotationMotion)
    parameters = motion_covariance(fit, matches, noise)
    if parameters is None:
        return Solution(motion_type, None, fit.inliers)
    if motion_type is MotionType.STATIC:
        # A rotation that moves points by less than what makes it worth its price may have gone unseen.
        unseen_px2 = 2.0 * ROTATION.price_per_match * noise.expected_px**2
        parameters = parameters + np.eye(3) * unseen_px2 / matches.focal1**2
    return Solution(motion_type, _pose(motion_type, fit.motion.rotation, None, parameters), fit.inliers)


def planar_solution(rival: Rival, matches: Correspondences, noise: Noise) -> Solution:
    """The motion before the plane, if only one is possible or noise cannot separate the two."""
    assert isinstance(rival.fit.motion, HomographyMotion)
    fit = refine_transfer(rival.fit, matches, noise)
    inliers = matches.only(fit.inliers)
    assert isinstance(fit.motion, HomographyMotion)
    planes = motions_before_plane(fit.motion, inliers)
    uncertain = uncertain_homography(fit, matches, noise)
    if uncertain is None or len(planes) != 2:
        return Solution(MotionType.PLANAR, None, fit.inliers)
    if not uncertain.is_merging():
        planes = _possible_planes(planes, inliers, Rival(MotionType.PLANAR, fit, rival.criterion), matches, noise)
        if len(planes) != 1:
            return Solution(MotionType.PLANAR, None, fit.inliers)
    found = planar_pose(uncertain, [to_epipolar(plane) for plane in planes])
    pose = _pose(MotionType.PLANAR, found.motion.rotation, found.motion.direction, found.covariance)
    return Solution(MotionType.PLANAR, pose, fit.inliers)


def _possible_planes(
    planes: list[PlanarMotion], inliers: Correspondences, rival: Rival, matches: Correspondences, noise: Noise
) -> list[PlanarMotion]:
    """The motions that see the plane; of two, the one that explains matches off the plane, if there are any."""
    seeing = [plane for plane in planes if sees_plane(plane, inliers, noise)]
    if len(seeing) < 2:
        return seeing
    fits = [describe_epipolar(to_epipolar(plane), matches, noise) for plane in seeing]
    first, second = (_evidence(fit, rival, matches, noise) for fit in fits)
    lead = first.lead_over(second)
    if abs(lead) < _DECISIVE:
        return seeing
    return [seeing[0] if lead > 0.0 else seeing[1]]


def _pose(motion_type: MotionType, rotation: Float, direction: Float | None, covariance: Float) -> RelativePose:
    return RelativePose(rotation, direction, None, ScaleSource.NONE, motion_type, covariance, _ESTIMATORS[motion_type])


def _evidence(fit: EpipolarFit, rival: Rival, matches: Correspondences, noise: Noise) -> Evidence:
    """What lies behind a camera or impossibly near is wrong, however near its epipolar line."""
    distance2 = np.where(fit.plausible, fit.distance2, matches.image_diagonal**2)
    return epipolar_evidence(distance2, rival.fit.length2, noise_range(matches, noise))
