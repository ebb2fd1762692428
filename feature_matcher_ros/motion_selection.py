"""Which two-view motion the matches show: marginal likelihoods of competing models, compared by BIC.

Each model explains a match as a mixture of a good one, Gaussian around the model, and a wrong one,
uniform over the image. A homography (also that of a rotation, or the identity) leaves a match no
freedom; an epipolar geometry leaves it one, the parallax along the epipolar line. Its prior is what
makes the models comparable: a share of the matches has no parallax relative to the homography, as on a
plane or at infinity, and the others have one of unknown order of magnitude. Shares and noise are
maximised over (EM), parameters are paid for as in the Bayesian information criterion (Schwarz, 1978).
Torr's GRIC (An assessment of information criteria for motion model selection, CVPR 1997) differs by
fixed noise and a fixed price of each match's freedom, which makes it blind to few points off a plane
and to parallaxes below the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Float

_EM_STEPS = 8
_MAX_SIGMA_RATIO = 4.0  # the noise may exceed the expected one by this factor, no more


@dataclass(frozen=True, slots=True)
class NoiseRange:
    """What the noise may be, and where wrong matches may fall."""

    expected_px: float
    floor_px: float
    outlier_density: float  # 1/px², of a residual of two components
    max_parallax_px: float

    def clip(self, variance: float) -> float:
        """Nearest allowed variance."""
        return min(max(variance, self.floor_px**2), (_MAX_SIGMA_RATIO * self.expected_px) ** 2)


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well a model explains all matches."""

    log_likelihood: float
    num_parameters: int

    def bic(self, num_matches: int) -> float:
        """Smaller is better; differences above 10 are very strong evidence (Kass and Raftery, 1995)."""
        return -2.0 * self.log_likelihood + self.num_parameters * math.log(max(num_matches, 2))


def transfer_evidence(length2: Float, num_parameters: int, noise: NoiseRange) -> Evidence:
    """Evidence for a homography from squared transfer residuals (M,)."""
    variance, good_share = noise.expected_px**2, 0.7
    for _ in range(_EM_STEPS):
        good = good_share / (2.0 * np.pi * variance) * np.exp(-0.5 * length2 / variance)
        density = good + (1.0 - good_share) * noise.outlier_density
        posterior = good / density
        total = float(np.sum(posterior))
        good_share = min(max(total / len(length2), 1e-6), 1.0 - 1e-6)
        variance = noise.clip(float(posterior @ length2) / (2.0 * total + 1e-12))
    return Evidence(float(np.sum(np.log(density))), num_parameters)


def epipolar_evidence(distance2: Float, length2: Float, num_parameters: int, noise: NoiseRange) -> Evidence:
    """Evidence for an epipolar geometry that competes with a homography.

    Args:
        distance2: squared Sampson distances (M,).
        length2: squared transfer residuals (M,) of the homography; what exceeds ``distance2`` is parallax.
        num_parameters: of both together.
        noise: as for the competitor.
    """
    parallax2 = np.maximum(length2 - distance2, 0.0)
    parallax = np.sqrt(parallax2)
    variance, good_share, still_share = noise.expected_px**2, 0.7, 0.5
    for _ in range(_EM_STEPS):
        sigma = math.sqrt(variance)
        across = good_share / (math.sqrt(2.0 * np.pi) * sigma) * np.exp(-0.5 * distance2 / variance)
        still = across * still_share / (math.sqrt(2.0 * np.pi) * sigma) * np.exp(-0.5 * parallax2 / variance)
        moving = across * (1.0 - still_share) * _parallax_prior(parallax, 2.0 * sigma, noise.max_parallax_px)
        density = still + moving + (1.0 - good_share) * noise.outlier_density
        without, with_parallax = still / density, moving / density
        num_still, num_moving = float(np.sum(without)), float(np.sum(with_parallax))
        good_share = min(max((num_still + num_moving) / len(length2), 1e-6), 1.0 - 1e-6)
        still_share = min(max(num_still / (num_still + num_moving + 1e-12), 1e-6), 1.0 - 1e-6)
        squares = float((without + with_parallax) @ distance2 + without @ parallax2)
        variance = noise.clip(squares / (2.0 * num_still + num_moving + 1e-12))
    return Evidence(float(np.sum(np.log(density))), num_parameters)


def _parallax_prior(parallax: Float, onset_px: float, limit_px: float) -> Float:
    """Density of a parallax of either sign: flat below the onset, then uniform in order of magnitude."""
    return 0.5 / math.log1p(limit_px / onset_px) / (parallax + onset_px)


def log10_false_alarms(num_matches: int, num_inliers: int, sample_size: int, chance: float) -> float:
    """Logarithm of the number of models that pure chance would support as well.

    Source: Moisan and Stival, A probabilistic criterion to detect rigid point matches between two
    images, IJCV 2004, eq. 10, with ``chance`` the probability of a wrong match to be an inlier.
    """
    if num_inliers <= sample_size:
        return math.inf
    choices = _log_binomial(num_matches, num_inliers) + _log_binomial(num_inliers, sample_size)
    tests = math.log(10.0 * max(num_matches - sample_size, 1))  # up to 10 models a sample, any number of inliers
    return (tests + choices + (num_inliers - sample_size) * math.log(chance)) / math.log(10.0)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
