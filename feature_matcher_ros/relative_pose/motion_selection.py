"""Which two-view motion the matches show: marginal likelihoods of competing models, compared by BIC.

Each model explains a match as a mixture of a good one, Gaussian around the model, and a wrong one,
uniform over the image. A homography (also that of a rotation, or the identity) leaves a match no
freedom; an epipolar geometry leaves it one, the parallax along the epipolar line. Its prior is what
makes the models comparable: a share of the matches has little parallax relative to the homography, as
on a rough plane or far away, and the others have one of unknown order of magnitude. Shares, roughness
and noise are maximised over (EM), parameters are paid for as in the Bayesian information criterion
(Schwarz, 1978), and freedom at a small price per match, below which lies what cameras are not
calibrated to. Torr's GRIC (An assessment of information criteria for motion model selection, CVPR 1997)
has the same form with fixed noise and a price that makes it blind to parallaxes near the noise and to few
points off a plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Float

_EM_STEPS = 6
# What one match may add to a comparison of two motions: some fit either by luck, and noise has a tail.
_MAX_SAY = 1.0
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
class Freedom:
    """What a model costs, in units of -2 log likelihood."""

    num_parameters: int
    price_per_match: float


# To be worth its price, a motion must move matches by 0.14 standard deviations of noise (rms), and parallax or relief
# must exceed 0.6 of them.
STATIC = Freedom(0, 0.0)
ROTATION = Freedom(3, 0.02)
HOMOGRAPHY = Freedom(8, 0.04)
EPIPOLAR_AFTER_ROTATION = Freedom(7, 0.06)
EPIPOLAR_AFTER_HOMOGRAPHY = Freedom(10, 0.06)


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well a model explains all matches."""

    log_likelihoods: Float  # (M,)
    num_good: float

    def criterion(self, freedom: Freedom) -> float:
        """Smaller is better; differences above 10 are very strong evidence (Kass and Raftery, 1995)."""
        parameters = freedom.num_parameters * math.log(max(len(self.log_likelihoods), 2))
        return -2.0 * float(self.log_likelihoods.sum()) + parameters + freedom.price_per_match * self.num_good

    def lead_over(self, other: Evidence) -> float:
        """By how much -2 log likelihood is less than that of another model, no match having more than a small say."""
        return 2.0 * float(np.clip(self.log_likelihoods - other.log_likelihoods, -_MAX_SAY, _MAX_SAY).sum())


def transfer_evidence(length2: Float, noise: NoiseRange) -> Evidence:
    """Evidence for a homography from squared transfer residuals (M,)."""
    variance, good_share = noise.expected_px**2, 0.7
    for _ in range(_EM_STEPS):
        good = good_share / (2.0 * math.pi * variance) * np.exp(length2 * (-0.5 / variance))
        density = good + (1.0 - good_share) * noise.outlier_density
        posterior = good / density
        total = float(posterior.sum())
        good_share = _share(total / len(length2))
        variance = noise.clip(float(posterior @ length2) / (2.0 * total + 1e-12))
    return Evidence(np.log(density), total)


def epipolar_evidence(distance2: Float, length2: Float, noise: NoiseRange) -> Evidence:
    """Evidence for an epipolar geometry that competes with a homography.

    Args:
        distance2: squared Sampson distances (M,).
        length2: squared transfer residuals (M,) of the homography; what exceeds ``distance2`` is parallax.
        noise: as for the competitor.
    """
    parallax2 = np.maximum(length2 - distance2, 0.0)
    prior = 1.0 / (np.sqrt(parallax2) + 2.0 * noise.expected_px)
    prior *= 0.5 / math.log1p(noise.max_parallax_px / (2.0 * noise.expected_px))
    variance = roughness = noise.expected_px**2
    good_share, flat_share = 0.7, 0.5
    for _ in range(_EM_STEPS):
        across = good_share / math.sqrt(2.0 * math.pi * variance) * np.exp(distance2 * (-0.5 / variance))
        flat = flat_share / math.sqrt(2.0 * math.pi * roughness) * across * np.exp(parallax2 * (-0.5 / roughness))
        deep = (1.0 - flat_share) * across * prior
        density = flat + deep + (1.0 - good_share) * noise.outlier_density
        flat, deep = flat / density, deep / density
        num_flat, num_deep = float(flat.sum()), float(deep.sum())
        total = num_flat + num_deep + 1e-12
        good_share, flat_share = _share(total / len(length2)), _share(num_flat / total)
        variance = noise.clip(float((flat + deep) @ distance2) / total)
        roughness = max(float(flat @ parallax2) / (num_flat + 1e-12), variance)
    return Evidence(np.log(density), num_flat + num_deep)


def _share(value: float) -> float:
    return min(max(value, 1e-6), 1.0 - 1e-6)


def log10_false_alarms(num_matches: int, num_inliers: int, sample_size: int, chance: float) -> float:
    """Logarithm of the number of models that pure chance would support as well.

    Source: Moisan and Stival, A probabilistic criterion to detect rigid point matches between two
    images, IJCV 2004, with ``chance`` the probability of a wrong match to be an inlier.
    """
    if num_inliers <= sample_size:
        return math.inf
    choices = _log_binomial(num_matches, num_inliers) + _log_binomial(num_inliers, sample_size)
    tests = math.log(10.0 * max(num_matches - sample_size, 1))  # up to 10 models a sample, any number of inliers
    return (tests + choices + (num_inliers - sample_size) * math.log(chance)) / math.log(10.0)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
