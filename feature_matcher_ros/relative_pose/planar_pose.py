"""The pose before a plane and its covariance, also where the two motions that a homography allows meet.

When a camera moves straight towards or away from a plane, both motions coincide; near that, they lie
within the noise of each other, the pose depends on the homography like a square root, and a covariance
from derivatives claims far too much. So the uncertainty of the homography is carried through its
decomposition by points (Julier and Uhlmann, Unscented filtering and nonlinear estimation, 2004), and
motions that noise cannot separate are taken as one, spread over both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.geometry import rotation_from_vector
from feature_matcher_ros.relative_pose.correspondences import Correspondences
from feature_matcher_ros.relative_pose.epipolar_estimation import Noise
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion, HomographyMotion
from feature_matcher_ros.relative_pose.planar_motion import TransferFit, motions_before_plane, to_epipolar
from feature_matcher_ros.relative_pose.pose_covariance import motion_covariance, motion_difference

# Two motions are one where the singular values of the homography differ by less than this many standard deviations.
_MERGING_SIGMAS = 3.5


@dataclass(frozen=True, slots=True, eq=False)
class PlanarPose:
    """A motion before a plane with the covariance (6, 6) of its pose, as documented on ``RelativePose``."""

    motion: EpipolarMotion
    covariance: Float


@dataclass(frozen=True, slots=True, eq=False)
class UncertainHomography:
    """A refined homography and the covariance (8, 8) of its parameters."""

    homography: HomographyMotion
    covariance: Float
    matches: Correspondences  # its inliers

    def is_merging(self) -> bool:
        """Whether noise may hide that there are two motions."""
        u, values, vt = np.linalg.svd(self.homography.matrix)
        changes = self.homography.tangent().T.reshape(8, 3, 3)
        by_parameter = np.einsum("ij,kil,jl->kj", u, changes, vt)  # (8, 3), of the singular values
        gaps, by_gap = values[:2] - values[1:], by_parameter[:, :2] - by_parameter[:, 1:]
        sigmas = np.sqrt(np.einsum("kg,kl,lg->g", by_gap, self.covariance, by_gap))
        return bool(np.any(gaps < _MERGING_SIGMAS * sigmas))

    def sigma_points(self) -> list[HomographyMotion]:
        """Sixteen homographies with the mean and covariance of this one."""
        values, vectors = np.linalg.eigh(self.covariance)
        steps = (vectors * np.sqrt(8.0 * np.maximum(values, 0.0))).T
        return [self.homography.moved(step) for step in (*steps, *-steps)]


def uncertain_homography(fit: TransferFit, matches: Correspondences, noise: Noise) -> UncertainHomography | None:
    """Attach the covariance; None where the matches leave the homography undetermined."""
    assert isinstance(fit.motion, HomographyMotion)
    covariance = motion_covariance(fit, matches, noise)
    return None if covariance is None else UncertainHomography(fit.motion, covariance, matches.only(fit.usable(noise)))


def planar_pose(uncertain: UncertainHomography, centers: list[EpipolarMotion]) -> PlanarPose:
    """Spread of the motions next to one center, or around the middle of two that are merging."""
    center = centers[0]
    samples = [
        motion
        for homography in uncertain.sigma_points()
        for motion in _nearest(
            [to_epipolar(plane) for plane in motions_before_plane(homography, _few(uncertain))], centers
        )
    ]
    differences = np.stack([motion_difference(center, sample) for sample in samples])
    if len(centers) == 2:
        mean = np.mean(differences, axis=0)
        center = _moved(center, mean)
        differences = np.stack([motion_difference(center, sample) for sample in samples])
    tangent = np.eye(6)
    tangent[:3, :3] -= np.outer(center.direction, center.direction)
    return PlanarPose(center, tangent @ (differences.T @ differences / len(samples)) @ tangent)


def _nearest(motions: list[EpipolarMotion], centers: list[EpipolarMotion]) -> list[EpipolarMotion]:
    """All motions if there are two centers, else the one next to the center."""
    if len(centers) == 2 or len(motions) < 2:
        return motions
    return [min(motions, key=lambda motion: float(np.linalg.norm(motion_difference(centers[0], motion))))]


def _few(uncertain: UncertainHomography) -> Correspondences:
    """Enough matches to tell front from back."""
    return uncertain.matches.only(np.arange(0, len(uncertain.matches), 1 + len(uncertain.matches) // 20))


def _moved(motion: EpipolarMotion, difference: Float) -> EpipolarMotion:
    turn = rotation_from_vector(difference[3:])
    direction = turn @ motion.direction + difference[:3]
    return EpipolarMotion(turn @ motion.rotation, direction / np.linalg.norm(direction))
