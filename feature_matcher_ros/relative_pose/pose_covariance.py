"""The covariance of a refined motion, from the Jacobian of its last step.

The estimate minimises a sum of robust costs, so that its covariance is that of an M-estimator:
``s² (sum of JᵀJ)⁻¹`` with ``s² = E[psi²] / E[psi']²`` (Huber and Ronchetti, Robust Statistics, 2nd
edition, chapter 7). s² comes from the residuals, with the expected noise as prior knowledge, so that a
dozen matches that happen to agree too well do not claim a precision that nothing supports.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.geometry import rotation_from_vector, rotation_vector
from feature_matcher_ros.relative_pose.correspondences import Correspondences
from feature_matcher_ros.relative_pose.epipolar_estimation import EpipolarFit, Noise
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion, RotationMotion, orthogonal_plane
from feature_matcher_ros.relative_pose.planar_motion import TransferFit
from feature_matcher_ros.relative_pose.pose_refinement import Loss, make_loss, normals, robust_sigma

# The expected noise counts like this many observed residuals.
_PRIOR_WEIGHT = 5.0
# 99.9 % quantile of chi-square with five degrees of freedom.
_SAME_MOTION = 20.5


def motion_covariance(fit: TransferFit, matches: Correspondences, noise: Noise) -> Float | None:
    """Covariance (k, k) of the parameters of a refined motion; None where the matches leave one undetermined."""
    length2 = fit.usable_length2(noise)
    loss = make_loss(robust_sigma(length2, 2, noise.gate_px, noise.floor_px), 2)
    inside = length2 < loss.cutoff_px**2
    information = normals(fit.motion, matches.only(inside), None).information
    return scaled_inverse(information, noise_variance(length2[inside], 2, loss, len(information), noise))


def epipolar_covariance(fit: EpipolarFit, noise: Noise) -> Float | None:
    """Covariance (5, 5) of an epipolar geometry, likewise.

    Here the noise in J is accounted for: ``s² H⁻¹ (sum of JᵀJ) H⁻¹`` with the true second derivative H of the cost.
    """
    distance2 = fit.usable_distance2(noise)
    loss = make_loss(robust_sigma(distance2, 1, noise.gate_px, noise.floor_px), 1)
    inside = distance2 < loss.cutoff_px**2
    information, curvature = fit.motion.information(fit.sampson, inside)
    variance = noise_variance(distance2[inside], 1, loss, len(information), noise)
    inverse = scaled_inverse(curvature, 1.0)
    if inverse is None:
        return scaled_inverse(information, variance)
    return variance * inverse @ information @ inverse


def noise_variance(length2: Float, components: int, loss: Loss, num_parameters: int, noise: Noise) -> float:
    """The s² of an M-estimator, from the squared lengths (M,) of the residuals that its loss does not reject."""
    count = len(length2)
    share = length2 / loss.cutoff_px**2
    weights = loss.weights(length2)
    psi2 = float(weights**2 @ length2) / components
    slope = float(weights.sum()) - 4.0 / components * float(share @ (1.0 - share))
    degrees = components * count - num_parameters
    if degrees <= 0 or slope <= 0.1 * count:
        return max(noise.expected_px**2, loss.cutoff_px**2)
    observed = psi2 / count / (slope / count) ** 2 * (components * count / degrees)
    pooled = (_PRIOR_WEIGHT * noise.expected_px**2 + degrees * observed) / (_PRIOR_WEIGHT + degrees)
    return max(pooled, noise.floor_px**2)


def scaled_inverse(information: Float, variance: float) -> Float | None:
    """``variance * information⁻¹``, symmetric and positive definite; None if that does not exist."""
    diagonal = information.diagonal()
    if not math.isfinite(float(information.sum())) or not diagonal.min() > 1e-100:
        return None
    scale = 1.0 / np.sqrt(diagonal)
    _, eigenvalues, vectors = cv2.eigen(information * scale * scale[:, None])  # sooner than NumPy's
    if not eigenvalues.min() > 1e-12:
        return None
    root = vectors.T * scale[:, None] * np.sqrt(variance / eigenvalues[:, 0])
    return root @ root.T


def pose_covariance(motion: EpipolarMotion | RotationMotion, parameters: Float) -> Float:
    """Covariance of the pose from that of the parameters, as documented on ``RelativePose``.

    Returns:
        (3, 3) for a rotation, else (6, 6) of rank 5, translation of the unit direction before rotation.
    """
    if isinstance(motion, RotationMotion):
        return parameters
    pose_from_parameters = np.zeros((6, 5))
    pose_from_parameters[:3, 3:] = orthogonal_plane(motion.direction)
    pose_from_parameters[3:, :3] = np.eye(3)
    return pose_from_parameters @ parameters @ pose_from_parameters.T


def motion_difference(first: EpipolarMotion, second: EpipolarMotion) -> Float:
    """The small motion (6,), direction before rotation, that leads from the first to the second."""
    turn = rotation_vector(second.rotation @ first.rotation.T)
    return np.concatenate([second.direction - rotation_from_vector(turn) @ first.direction, turn])


def is_same_motion(first: EpipolarMotion, second: EpipolarMotion, parameters: Float | None) -> bool:
    """Whether two motions differ by no more than the uncertainty of the first, the covariance of its parameters."""
    if parameters is None:
        return False
    difference = motion_difference(first, second)
    precision = np.linalg.pinv(pose_covariance(first, parameters), rcond=1e-9, hermitian=True)
    return float(difference @ precision @ difference) < _SAME_MOTION
