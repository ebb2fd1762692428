"""What the matches alone, without any measured depth, say about the motion between two views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.datatypes import MotionType
from feature_matcher_ros.epipolar_estimation import (
    EpipolarFit,
    Noise,
    noise_from,
    refine_epipolar,
    search_epipolar,
)
from feature_matcher_ros.motion_models import (
    Correspondences,
    EpipolarMotion,
    HomographyMotion,
    Mask,
    PlanarMotion,
    RotationMotion,
)
from feature_matcher_ros.motion_selection import Evidence, NoiseRange, epipolar_evidence, transfer_evidence
from feature_matcher_ros.planar_motion import (
    TransferFit,
    describe_transfer,
    fit_transfer,
    motions_before_plane,
    rotation_like,
    search_homography,
    to_epipolar,
)
from feature_matcher_ros.pose_covariance import is_same_motion

# A homography that explains less than this share of what the epipolar geometry explains needs no closer look.
_MIN_RIVAL_SHARE = 0.5
# Differences of -2 log likelihood: beyond the first there is no doubt which of two motions is meant; beyond the
# second the matches off the plane are so many that the search cannot have mistaken its mirror motion for it.
_DECISIVE = 10.0
_FAR_FROM_PLANAR = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A motion and what it explains; without a motion where more than one is possible."""

    motion_type: MotionType
    motion: EpipolarMotion | PlanarMotion | RotationMotion | None
    inliers: Mask  # (M,)


@dataclass(frozen=True, slots=True, eq=False)
class Rival:
    """A motion that leaves its matches no parallax."""

    motion_type: MotionType
    fit: TransferFit
    bic: float


def solve_unscaled(matches: Correspondences, config: PoseConfig) -> Solution:
    """Find the kind of motion and the motion; direction of translation only, no length."""
    noise = noise_from(config)
    searched = search_epipolar(matches, config)
    if searched is None:
        near_line = np.ones(len(matches), dtype=np.bool_)
    else:
        near_line = searched.residuals(matches)[0] ** 2 < noise.gate_px**2
    rivals = find_rivals(matches, near_line, config, noise)
    if not rivals:
        if searched is None:
            return Solution(MotionType.UNKNOWN, None, np.zeros(len(matches), dtype=np.bool_))
        fit = refine_epipolar(searched, matches, noise)
        return Solution(MotionType.GENERAL, fit.motion, fit.inliers)
    best = min(rivals, key=lambda rival: rival.bic)
    if best.motion_type is MotionType.PLANAR:
        return _general_or_planar(searched, best, matches, noise)
    return _general_or_rotation(searched, best, matches, noise)


def find_rivals(matches: Correspondences, near_line: Mask, config: PoseConfig, noise: Noise) -> list[Rival]:
    """No motion, rotation and homography; empty if these are out of the question."""
    homography = search_homography(matches.only(near_line), config)
    static = describe_transfer(RotationMotion(np.eye(3)), matches, noise)
    explained = np.count_nonzero(static.inliers)
    if homography is not None:
        explained = max(explained, np.count_nonzero(describe_transfer(homography, matches, noise).inliers))
    if explained < max(_MIN_RIVAL_SHARE * np.count_nonzero(near_line), 4):
        return []
    rivals = [_rival(MotionType.STATIC, static, 0, noise)]
    if homography is not None:
        plane = fit_transfer(homography, matches, noise)
        rotation = fit_transfer(rotation_like(homography), matches, noise)
        rivals += [_rival(MotionType.ROTATION_ONLY, rotation, 3, noise), _rival(MotionType.PLANAR, plane, 8, noise)]
    return rivals


def _rival(motion_type: MotionType, fit: TransferFit, num_parameters: int, noise: Noise) -> Rival:
    evidence = transfer_evidence(fit.length2, num_parameters, _noise_range(fit, noise))
    return Rival(motion_type, fit, evidence.bic(len(fit.length2)))


def _general_or_rotation(
    searched: EpipolarMotion | None, rival: Rival, matches: Correspondences, noise: Noise
) -> Solution:
    if searched is not None:
        fit = refine_epipolar(searched, matches, noise)
        if _evidence(fit, rival, 6, noise).bic(len(matches)) < rival.bic:
            return Solution(MotionType.GENERAL, fit.motion, fit.inliers)
    assert isinstance(rival.fit.motion, RotationMotion)
    return Solution(rival.motion_type, rival.fit.motion, rival.fit.inliers)


def _general_or_planar(
    searched: EpipolarMotion | None, rival: Rival, matches: Correspondences, noise: Noise
) -> Solution:
    """Weigh a plane against depth; where it matters, weigh the two motions that show a plane alike."""
    fits = [] if searched is None else [refine_epipolar(searched, matches, noise)]
    if fits and rival.bic - _evidence(fits[0], rival, 9, noise).bic(len(matches)) > _FAR_FROM_PLANAR:
        return Solution(MotionType.GENERAL, fits[0].motion, fits[0].inliers)
    assert isinstance(rival.fit.motion, HomographyMotion)
    planes = motions_before_plane(rival.fit.motion, matches.only(rival.fit.inliers), noise)
    fits = [refine_epipolar(to_epipolar(plane), matches, noise) for plane in planes] + fits
    evidences = [_evidence(fit, rival, 9, noise) for fit in fits]
    leader = int(np.argmax([evidence.log_likelihood for evidence in evidences]))
    is_general = evidences[leader].bic(len(matches)) < rival.bic
    if is_general:
        close = [
            fit.motion
            for fit, evidence in zip(fits, evidences, strict=True)
            if 2.0 * (evidences[leader].log_likelihood - evidence.log_likelihood) < _DECISIVE
        ]
        used = matches.only(fits[leader].plausible)
        if all(is_same_motion(fits[leader].motion, other, used, noise) for other in close):
            return Solution(MotionType.GENERAL, fits[leader].motion, fits[leader].inliers)
        return Solution(MotionType.PLANAR, None, fits[leader].inliers)
    chosen = _choose_plane(planes, evidences, matches.only(rival.fit.inliers), noise)
    return Solution(MotionType.PLANAR, chosen, rival.fit.inliers)


def _choose_plane(
    planes: list[PlanarMotion], evidences: list[Evidence], matches: Correspondences, noise: Noise
) -> PlanarMotion | None:
    """The motion before the plane, if only one is possible, or two that cannot be told apart."""
    if len(planes) == 2:
        lead = 2.0 * (evidences[0].log_likelihood - evidences[1].log_likelihood)
        if abs(lead) > _DECISIVE:
            return planes[0] if lead > 0.0 else planes[1]
        return planes[0] if is_same_motion(planes[0], to_epipolar(planes[1]), matches, noise) else None
    return planes[0] if len(planes) == 1 else None


def _evidence(fit: EpipolarFit, rival: Rival, num_parameters: int, noise: Noise) -> Evidence:
    limits = _noise_range(rival.fit, noise)
    return epipolar_evidence(fit.distance2, rival.fit.length2, num_parameters, limits)


def _noise_range(fit: TransferFit, noise: Noise) -> NoiseRange:
    return NoiseRange(noise.expected_px, noise.floor_px, fit.outlier_density, fit.max_parallax_px)
