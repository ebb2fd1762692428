"""How far matches of measured depth are from a metric pose, with every noise accounted for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.geometry import rotation_from_vector
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion, cholesky_2x2, unwhiten_transposed, whiten


@dataclass(frozen=True, slots=True, eq=False)
class DepthMatches:
    """Matches of known depth."""

    matches: Correspondences
    inverse_depth: Float  # (K,), 1/m, of point 0 along the optical axis
    inverse_sigma: Float  # (K,), its standard deviation

    def __len__(self) -> int:
        return len(self.inverse_depth)

    def only(self, chosen: Mask) -> DepthMatches:
        """Part of the matches."""
        return DepthMatches(self.matches.only(chosen), self.inverse_depth[chosen], self.inverse_sigma[chosen])


@dataclass(frozen=True, slots=True, eq=False)
class MetricPose:
    """A pose with a length; its change is a small motion (translation, rotation) after it, in the axes of camera 1."""

    rotation: Float  # (3, 3)
    translation: Float  # (3,), metres

    @property
    def baseline_m(self) -> float:
        """Length of the translation."""
        return float(np.linalg.norm(self.translation))

    def to_epipolar(self) -> EpipolarMotion:
        """Forget the length, which must not be zero."""
        return EpipolarMotion(self.rotation, self.translation / self.baseline_m)

    def moved(self, step: Float) -> MetricPose:
        turn = rotation_from_vector(step[3:])
        return MetricPose(turn @ self.rotation, turn @ self.translation + step[:3])


@dataclass(frozen=True, slots=True, eq=False)
class _Prediction:
    """Where points 1 should be, and how the noise of all that was measured shows there."""

    moved: Float  # (3, K), points in the axes of camera 1, over their depth in camera 0
    difference: Float  # (2, K), point 1 less its prediction, pixels
    by_moved: Float  # (2, 3, K), derivative of the prediction
    to_moved: Float  # (3, 3, K), derivative of ``moved`` by (x0, y0, inverse depth), each in units of a pixel's noise
    by_measured: Float  # (2, 3, K), their product
    factor: tuple[Float, Float, Float]  # Cholesky factor of the noise of ``difference``, in units of a pixel's noise


def depth_residuals(pose: MetricPose, known: DepthMatches, sigma_px: float) -> Float:
    """Whitened differences (2, K), in pixels, between points 1 and their prediction.

    The noise is that of point 1, of point 0 carried over, and of inverse depth, which for a stereo camera is the
    same near and far; written in depth, points measured too near would weigh too much.
    """
    prediction = _predict(pose, known, sigma_px)
    return whiten(prediction.factor, prediction.difference)


def depth_linearization(pose: MetricPose, known: DepthMatches, sigma_px: float) -> tuple[Float, Float]:
    """Whitened differences (2, K) and their derivatives (2, 6, K) by a change of the pose.

    The derivatives are taken where point 0 and its depth most likely are, given point 1: at the measured
    place they would be correlated with the differences and shorten the translation (errors in
    variables; Fuller, Measurement Error Models, 1987).
    """
    prediction = _predict(pose, known, sigma_px)
    factor = prediction.factor
    residuals = whiten(factor, prediction.difference)
    correction = np.einsum("ikm,im->km", prediction.by_measured, unwhiten_transposed(factor, residuals))  # (3, K)
    inverse_depth = known.inverse_depth + correction[2] * known.inverse_sigma / sigma_px
    moved = prediction.moved + np.einsum("jkm,km->jm", prediction.to_moved, correction)
    by_rotation = np.stack([_cross(moved, row) for row in prediction.by_moved])
    by_pose = np.concatenate([prediction.by_moved * inverse_depth, by_rotation], axis=1)  # (2, 6, K)
    return residuals, -np.stack([whiten(factor, by_pose[:, k]) for k in range(6)], axis=1)


def depth_noise_information(pose: MetricPose, known: DepthMatches, sigma_px: float) -> Float:
    """What noise left in the depths adds to the sum of JᵀJ (3, 3) of the translation, and must be taken off again."""
    prediction = _predict(pose, known, sigma_px)
    by_translation = np.stack([whiten(prediction.factor, prediction.by_moved[:, k]) for k in range(3)], axis=1)
    explained = np.sum(whiten(prediction.factor, prediction.by_measured[:, 2]) ** 2, axis=0)
    remaining_variance = known.inverse_sigma**2 * (1.0 - explained)
    return np.einsum("ikm,ilm->kl", by_translation * remaining_variance, by_translation)


def _predict(pose: MetricPose, known: DepthMatches, sigma_px: float) -> _Prediction:
    matches = known.matches
    moved = pose.rotation @ (matches.rays0 / matches.focal0) + pose.translation[:, None] * known.inverse_depth
    depth = np.where(np.abs(moved[2]) < 1e-9, 1e-9, moved[2])
    scale = matches.focal1 / depth
    predicted = moved[:2] * scale
    by_moved = np.zeros((2, 3, len(known)))
    by_moved[0, 0] = by_moved[1, 1] = scale
    by_moved[:, 2] = -predicted / depth
    to_moved = np.empty((3, 3, len(known)))
    to_moved[:, :2] = pose.rotation[:, :2, None] / matches.focal0
    to_moved[:, 2] = pose.translation[:, None] * (known.inverse_sigma / sigma_px)
    by_measured = np.einsum("ijm,jkm->ikm", by_moved, to_moved)
    (a, b, c), (d, e, f) = by_measured
    factor = cholesky_2x2(1.0 + a * a + b * b + c * c, a * d + b * e + c * f, 1.0 + d * d + e * e + f * f)
    return _Prediction(moved, matches.rays1[:2] - predicted, by_moved, to_moved, by_measured, factor)


def _cross(a: Float, b: Float) -> Float:
    """Cross products (3, K), row by row; ``np.cross`` takes several times as long."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
