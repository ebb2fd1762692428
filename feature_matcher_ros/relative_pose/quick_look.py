"""A look at some of the matches, which for most pairs settles what kind of motion they show."""

from __future__ import annotations

import math

import numpy as np

from feature_matcher_ros.config import PoseConfig
from feature_matcher_ros.relative_pose.correspondences import Correspondences
from feature_matcher_ros.relative_pose.epipolar_estimation import (
    REFINEMENT_GATES,
    Noise,
    draw_matches,
    polish_epipolar,
    polish_motion,
    search_among,
)
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion
from feature_matcher_ros.relative_pose.motion_selection import (
    EPIPOLAR_AFTER_HOMOGRAPHY,
    STATIC,
    NoiseRange,
    epipolar_evidence,
    transfer_evidence,
)
from feature_matcher_ros.relative_pose.parallax import relief_of_most
from feature_matcher_ros.relative_pose.pose_refinement import robust_sigma

_MAX_MATCHES = 200
_MAX_SEARCH_MATCHES = 60
# Where fewer agree with what was found with little effort, something else may be truer.
_MIN_NEAR_SHARE = 0.6
_MIN_ITERATIONS = 5
_MIN_CAREFUL_ITERATIONS = 20
# The refinement that follows needs the fewer steps, the better the noise is told from the tail of errors beyond it.
_POLISH_STEPS = 4
_POLISH_SIGMAS = 3.0
# A homography that explains less than this share of what the epipolar geometry explains needs no closer look.
MIN_RIVAL_SHARE = 0.5
# No plane with a few things before it leaves so large a difference of -2 log likelihood.
_BEYOND_DOUBT = 60.0
# From here on, among some of the matches, no search finds a better motion than the little effort did.
_CLEAR = 100.0
# So many matches far off the plane, but no smaller share, say the same: each adds 6 or more to that difference.
_MANY_OFF_PLANE = 30
_MANY_OFF_PLANE_SHARE = 0.15
# Points on a line show next to nothing; this share of the image's diagonal they must spread in every direction.
_MIN_SPREAD = 0.02
# Matches of a standing camera agree to a few hundredths of a pixel, but for a tail; kinds of motion are told apart by
# no less than this share of the expected noise.
_MIN_DECIDING_NOISE_SHARE = 0.5


def find_general_motion(matches: Correspondences, config: PoseConfig, noise: Noise) -> EpipolarMotion | None:
    """The epipolar geometry, found with little effort, if the matches leave no doubt that it is one; else None."""
    some = draw_matches(matches, _MAX_MATCHES, config.seed)
    motion, _ = search_among(some.first(_MAX_SEARCH_MATCHES), config, _MIN_ITERATIONS)
    if motion is None:
        return None
    sigma = robust_sigma(motion.residuals(some)[0] ** 2, 1, noise.gate_px, noise.floor_px)
    motion = polish_motion(motion, some, min(_POLISH_SIGMAS * sigma, noise.gate_px), _POLISH_STEPS)
    lead = _lead_over_planes(motion, some, noise)
    if lead >= _CLEAR:
        return motion
    if lead <= 0.0:
        return None
    searched, _ = search_among(some, config, _MIN_CAREFUL_ITERATIONS)
    if searched is None:
        return None
    motion = polish_epipolar(searched, matches, noise).motion
    return motion if _lead_over_planes(motion, matches, noise) >= _BEYOND_DOUBT else None


def shows_depth(motion: EpipolarMotion, matches: Correspondences, config: PoseConfig, noise: Noise) -> bool:
    """Whether the matches rule out, beyond doubt, a plane, a rotation and no motion as their explanation.

    All three are homographies of planes, near or at infinity, that show the motion: where the best one, at the price of
    the cheapest of the three, is far behind the epipolar geometry, so are they. False says nothing.
    """
    lead = _lead_over_planes(motion, draw_matches(matches, _MAX_MATCHES, config.seed), noise)
    if 0.0 < lead < _BEYOND_DOUBT:
        lead = _lead_over_planes(motion, matches, noise)
    return lead >= _BEYOND_DOUBT


def _lead_over_planes(motion: EpipolarMotion, matches: Correspondences, noise: Noise) -> float:
    """By how much, in units of -2 log likelihood, an epipolar geometry explains matches better than any plane."""
    if _smallest_spread(matches) < _MIN_SPREAD * matches.image_diagonal:
        return -math.inf
    distance2 = motion.residuals(matches)[0] ** 2
    near_line = distance2 < noise.gate_px**2
    num_near = np.count_nonzero(near_line)
    if num_near < _MIN_NEAR_SHARE * len(matches):
        return -math.inf
    length2 = distance2 + relief_of_most(motion, matches, near_line, noise.floor_px) ** 2
    num_on_plane = np.count_nonzero(near_line & (length2 < (REFINEMENT_GATES * noise.gate_px) ** 2))
    many = max(_MANY_OFF_PLANE, _MANY_OFF_PLANE_SHARE * len(matches))
    if num_on_plane < MIN_RIVAL_SHARE * num_near or num_near - num_on_plane >= many:
        return math.inf
    allowed = noise_range(matches, noise)
    evidence = epipolar_evidence(distance2, length2, allowed)
    rival = transfer_evidence(length2, allowed)
    return rival.criterion(STATIC) - evidence.criterion(EPIPOLAR_AFTER_HOMOGRAPHY)


def _smallest_spread(matches: Correspondences) -> float:
    """Standard deviation of points 0, in pixels, across the line that runs along most of them."""
    (xx, xy, x), (_, yy, y), (_, _, one) = (matches.rays0 @ matches.rays0.T / len(matches)).tolist()
    xx, xy, yy = xx - x * x / one, xy - x * y / one, yy - y * y / one
    return math.sqrt(max(0.5 * (xx + yy - math.hypot(xx - yy, 2.0 * xy)), 0.0))


def noise_range(matches: Correspondences, noise: Noise) -> NoiseRange:
    """What kinds of motion are told apart with."""
    # Whitening halves areas, as it expresses the difference of two noisy points by the noise of one.
    floor = _MIN_DECIDING_NOISE_SHARE * noise.expected_px
    return NoiseRange(noise.expected_px, floor, 2.0 / matches.image_area, matches.image_diagonal)
