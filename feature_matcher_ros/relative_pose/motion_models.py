"""Two-view motions: the matrix each stands for, how it may change, and how far matches are from it.

All residuals are in pixels: a match counts with its distance, in the space (x0, y0, x1, y1), to the
nearest pair of points that agrees exactly with the motion, to first order. Hence localisation noise of
``sigma`` per axis and image gives every component of every residual the standard deviation ``sigma``,
and residuals of different motions can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.geometry import rotation_from_vector, skew
from feature_matcher_ros.relative_pose.correspondences import Correspondences

_GENERATORS = np.stack([skew(axis) for axis in np.eye(3)])  # (3, 3, 3)
# Next to the epipole the direction of an epipolar line is noise, and so is what a point seems to say about it. The
# Sampson distance is damped there, smoothly, by what amounts to this distance from the epipole.
_EPIPOLE_BLUR_PX = 15.0


class Motion(Protocol):
    """A two-view motion that can be refined."""

    @property
    def matrix(self) -> Float:
        """(3, 3), essential matrix or homography of normalised coordinates."""

    def tangent(self) -> Float:
        """(9, k), derivative of the matrix, row by row, by the k parameters of a small change."""

    def moved(self, step: Float) -> Motion:
        """The motion after a small change (k,)."""

    def residuals(self, matches: Correspondences) -> Float:
        """(1 or 2, M), pixels."""

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        """Residuals and their derivatives (1 or 2, 9, M) by the matrix."""


@dataclass(frozen=True, slots=True, eq=False)
class EpipolarMotion:
    """Rotation and direction of translation, structure unknown: 5 parameters (rotation, direction).

    A change is a small motion after the present one, in the axes of camera 1: ``rotation`` turns by a
    vector, ``direction`` turns with it and moves in its tangent plane.
    """

    rotation: Float  # (3, 3)
    direction: Float  # (3,), unit

    @property
    def matrix(self) -> Float:
        return skew(self.direction) @ self.rotation

    def tangent(self) -> Float:
        turning = _GENERATORS @ self.matrix
        moving = np.einsum("kb,kij->bij", orthogonal_plane(self.direction), _GENERATORS @ self.rotation)
        return np.concatenate([turning, moving]).reshape(5, 9).T

    def information(self, matches: Correspondences) -> tuple[Float, Float]:
        """Sum of JᵀJ (5, 5), and second derivative (5, 5) of half the sum of squared residuals.

        Their difference is what the residuals, being noise, add to JᵀJ; it matters where parallax is not far
        above noise.
        """
        sampson = _sampson(self.matrix, matches)
        by_matrix = sampson.derivative(1.0)
        tangent = self.tangent()
        gauss_newton = tangent.T @ (by_matrix @ by_matrix.T) @ tangent
        curvature = tangent.T @ sampson.curvature() @ tangent
        return gauss_newton, curvature + self._bending() @ (by_matrix @ sampson.distance)

    def _bending(self) -> Float:
        """(5, 5, 9), second derivative of the matrix by the parameters, but for changes along itself."""
        turning = _GENERATORS @ self.matrix
        moving = np.einsum("kb,kij->bij", orthogonal_plane(self.direction), _GENERATORS)
        second = np.zeros((5, 5, 3, 3))
        second[:3, :3] = 0.5 * (_GENERATORS[:, None] @ turning[None] + _GENERATORS[None] @ turning[:, None])
        second[3:, :3] = moving[:, None] @ (_GENERATORS @ self.rotation)[None]
        second[:3, 3:] = second[3:, :3].swapaxes(0, 1)
        return second.reshape(5, 5, 9)

    def moved(self, step: Float) -> EpipolarMotion:
        turn = rotation_from_vector(step[:3])
        direction = turn @ self.direction + orthogonal_plane(self.direction) @ step[3:]
        return EpipolarMotion(turn @ self.rotation, direction / np.linalg.norm(direction))

    def residuals(self, matches: Correspondences) -> Float:
        return epipolar_residuals(self.matrix, matches)

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        return epipolar_linearization(self.matrix, matches)


@dataclass(frozen=True, slots=True, eq=False)
class RotationMotion:
    """Rotation alone: 3 parameters, a small rotation after the present one."""

    rotation: Float  # (3, 3)

    @property
    def matrix(self) -> Float:
        return self.rotation

    def tangent(self) -> Float:
        return (_GENERATORS @ self.rotation).reshape(3, 9).T

    def moved(self, step: Float) -> RotationMotion:
        return RotationMotion(rotation_from_vector(step) @ self.rotation)

    def residuals(self, matches: Correspondences) -> Float:
        return transfer_residuals(self.matrix, matches)

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        return transfer_linearization(self.matrix, matches)


@dataclass(frozen=True, slots=True, eq=False)
class HomographyMotion:
    """Any homography: 8 parameters, along an orthonormal basis of all changes but that of scale."""

    matrix: Float  # (3, 3), of norm 1

    def tangent(self) -> Float:
        return np.linalg.svd(self.matrix.reshape(1, 9))[2][1:].T

    def moved(self, step: Float) -> HomographyMotion:
        matrix = self.matrix + (self.tangent() @ step).reshape(3, 3)
        return HomographyMotion(matrix / np.linalg.norm(matrix))

    def residuals(self, matches: Correspondences) -> Float:
        return transfer_residuals(self.matrix, matches)

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        return transfer_linearization(self.matrix, matches)


def orthogonal_plane(direction: Float) -> Float:
    """Two orthonormal columns (3, 2) that are orthogonal to a unit vector (3,).

    Source: Duff et al., Building an Orthonormal Basis, Revisited, JCGT 2017.
    """
    x, y, z = direction.tolist()
    sign = math.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    return np.array([[1.0 + sign * x * x * a, b], [sign * b, sign + y * y * a], [-sign * x, -y]])


def nearest_rotation(matrix: Float) -> Float:
    """The rotation closest to a matrix (3, 3) of positive determinant."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)]) @ vt


def epipolar_residuals(E: Float, matches: Correspondences) -> Float:
    """Signed Sampson distances (1, M) (Hartley and Zisserman, eq. 11.9)."""
    return _sampson(E, matches).distance[None]


def epipolar_linearization(E: Float, matches: Correspondences) -> tuple[Float, Float]:
    """Sampson distances and their full derivative (1, 9, M), that of the denominator included."""
    sampson = _sampson(E, matches)
    return sampson.distance[None], sampson.derivative(1.0)[None]


@dataclass(frozen=True, slots=True, eq=False)
class _Sampson:
    """Sampson distances, and what their derivatives by E are made of."""

    E: Float  # (3, 3)
    matches: Correspondences
    line0: Float  # (2, M), direction across the epipolar lines in image 0
    line1: Float  # (2, M), in image 1
    norm2: Float  # (M,), squared length of both, with the blur about the epipoles
    distance: Float  # (M,)

    def derivative(self, factor: float) -> Float:
        """By E, row by row (9, M); the part of the denominator times ``factor``."""
        rays0, rays1 = self.matches.rays0, self.matches.rays1
        by_norm = self.distance * factor / self.norm2
        left = rays1 / np.sqrt(self.norm2)
        left[:2] -= self.line1 * by_norm
        by_matrix = left[:, None] * rays0  # (3, 3, M)
        by_matrix[:, :2] -= rays1[:, None] * (self.line0 * by_norm)
        by_matrix[:2, :2] -= _EPIPOLE_BLUR_PX**2 * self.E[:2, :2, None] * by_norm
        return by_matrix.reshape(9, -1)

    def curvature(self) -> Float:
        """Second derivative (9, 9) by E of half the sum of squared distances.

        With distance ``r = c / sqrt(q)``, where c is linear and q quadratic in E, ``q = eᵀQe`` and ``b = Qe``:
        ``kkᵀ - r²/q Q`` with ``k = a / sqrt(q) - 2 r/q b``, summed over the matches.
        """
        doubled, shares = self.derivative(2.0), self.distance**2 / self.norm2
        moments0, moments1 = ((rays * shares) @ rays.T for rays in (self.matches.rays0, self.matches.rays1))
        moments1[:2, :2] += _EPIPOLE_BLUR_PX**2 * float(np.sum(shares)) * np.eye(2)
        bent = (doubled @ doubled.T).reshape(3, 3, 3, 3)
        for k in range(2):
            bent[k, :, k] -= moments0
            bent[:, k, :, k] -= moments1
        return bent.reshape(9, 9)


def _sampson(E: Float, matches: Correspondences) -> _Sampson:
    line1, line0 = E @ matches.rays0, E.T[:2] @ matches.rays1
    algebraic = np.einsum("im,im->m", matches.rays1, line1)
    line1 = line1[:2]
    image_part = E[:2, :2].ravel()
    norm2 = np.einsum("im,im->m", line1, line1)
    norm2 += np.einsum("im,im->m", line0, line0)
    norm2 += _EPIPOLE_BLUR_PX**2 * float(image_part @ image_part) + 1e-24
    return _Sampson(E, matches, line0, line1, norm2, algebraic / np.sqrt(norm2))


def transfer_residuals(H: Float, matches: Correspondences) -> Float:
    """Differences (2, M) between points 1 and transferred points 0, whitened to the noise of one image."""
    _, whitening, difference = _transfer(H, matches)
    return whiten(whitening, difference)


def transfer_linearization(H: Float, matches: Correspondences) -> tuple[Float, Float]:
    """Transfer residuals and their derivatives (2, 9, M) by H; the whitening is held fixed."""
    projection, whitening, difference = _transfer(H, matches)
    rows = np.stack([whiten(whitening, projection[:, k]) for k in range(3)], axis=1)  # (2, 3, M)
    by_matrix = -rows[:, :, None] * matches.rays0
    return whiten(whitening, difference), by_matrix.reshape(2, 9, -1)


def _transfer(H: Float, matches: Correspondences) -> tuple[Float, tuple[Float, Float, Float], Float]:
    """Derivative (2, 3, M) of the projection, Cholesky factor of the noise, unwhitened residuals (2, M)."""
    moved = H @ matches.rays0
    depth = np.where(np.abs(moved[2]) < 1e-9, 1e-9, moved[2])
    focal = matches.focal1 if len(matches) else 1.0
    predicted = moved[:2] * (focal / depth)
    projection = np.zeros((2, 3, len(matches)))
    projection[0, 0] = projection[1, 1] = focal / depth
    projection[:, 2] = -predicted / depth
    by_point0 = np.einsum("ikm,kj->ijm", projection, H[:, :2])
    return projection, cholesky_of_noise(by_point0), matches.rays1[:2] - predicted


def cholesky_of_noise(by_point0: Float) -> tuple[Float, Float, Float]:
    """Lower factor (l00, l10, l11) of ``I + A Aᵀ``: noise of point 1 and, carried over by A (2, 2, M), of point 0."""
    a, b, c, d = by_point0.reshape(4, -1)
    return cholesky_2x2(1.0 + a * a + b * b, a * c + b * d, 1.0 + c * c + d * d)


def cholesky_2x2(s00: Float, s10: Float, s11: Float) -> tuple[Float, Float, Float]:
    """Lower Cholesky factors of M symmetric matrices (2, 2) with the given entries."""
    l00 = np.sqrt(s00)
    l10 = s10 / l00
    return l00, l10, np.sqrt(np.maximum(s11 - l10**2, 1e-12 * s11))


def whiten(factor: tuple[Float, Float, Float], vectors: Float) -> Float:
    """Divide M vectors (2, M) by lower Cholesky factors."""
    l00, l10, l11 = factor
    first = vectors[0] / l00
    return np.stack([first, (vectors[1] - l10 * first) / l11])


def unwhiten_transposed(factor: tuple[Float, Float, Float], vectors: Float) -> Float:
    """Divide M vectors (2, M) by the transposed of lower Cholesky factors."""
    l00, l10, l11 = factor
    second = vectors[1] / l11
    return np.stack([(vectors[0] - l10 * second) / l00, second])
