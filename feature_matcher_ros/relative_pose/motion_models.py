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
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask
from feature_matcher_ros.relative_pose.sampson import Sampson, measure_sampson

_IDENTITY = np.eye(3)
_GENERATORS = np.stack([skew(axis) for axis in _IDENTITY])  # (3, 3, 3)


class Motion(Protocol):
    """A two-view motion that can be refined."""

    @property
    def matrix(self) -> Float:
        """(3, 3), essential matrix or homography of normalised coordinates."""

    def moved(self, step: Float) -> Motion:
        """The motion after a small change (k,)."""

    def residuals(self, matches: Correspondences) -> Float:
        """(1 or 2, M), pixels."""

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        """Residuals and their derivatives (1 or 2, k, M) by the k parameters of a small change."""


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

    def moved(self, step: Float) -> EpipolarMotion:
        turn = rotation_from_vector(step[:3])
        direction = turn @ self.direction + orthogonal_plane(self.direction) @ step[3:]
        return EpipolarMotion(turn @ self.rotation, direction / math.sqrt(direction @ direction))

    def reversed(self) -> EpipolarMotion:
        """The same rotation, with the opposite direction."""
        return EpipolarMotion(self.rotation, -self.direction)

    def residuals(self, matches: Correspondences) -> Float:
        return self.measure(matches).distance[None]

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        sampson = self.measure(matches)
        return sampson.distance[None], self.jacobian(sampson)

    def measure(self, matches: Correspondences) -> Sampson:
        """Sampson distances, and what their derivatives are made of."""
        return measure_sampson(self.matrix, matches)

    def jacobian(self, sampson: Sampson) -> Float:
        """Derivatives (1, 5, M) of what was measured by the parameters."""
        return (self._tangent(sampson.E).T @ sampson.derivative())[None]

    def information(self, sampson: Sampson, used: Mask) -> tuple[Float, Float]:
        """Sum of JᵀJ (5, 5), and second derivative (5, 5) of half the sum of squared residuals.

        Their difference is what the residuals, being noise, add to JᵀJ; it matters where parallax is not far
        above noise.

        Args:
            sampson: what was measured.
            used: (M,), the matches that are summed over.
        """
        gauss_newton, curvature, gradient = sampson.moments(self._tangent(sampson.E), used)
        return gauss_newton, curvature + self._bending(sampson.E, gradient.reshape(3, 3))

    def _tangent(self, E: Float) -> Float:
        """(9, 5), derivative of the matrix, row by row, by the parameters."""
        tangent = np.empty((5, 3, 3))
        np.matmul(_GENERATORS, E, out=tangent[:3])
        moving = (orthogonal_plane(self.direction).T @ _GENERATORS.reshape(3, 9)).reshape(2, 3, 3)
        np.matmul(moving, self.rotation, out=tangent[3:])
        return tangent.reshape(5, 9).T

    def _bending(self, E: Float, by_matrix: Float) -> Float:
        """(5, 5), second derivative of the matrix by the parameters, but for changes along itself, times (3, 3).

        With ``skew(a) @ skew(b) = b aᵀ - (a @ b) I``, the sums over the entries of products of generators are traces.
        """
        turning, moving = E @ by_matrix.T, self.rotation @ by_matrix.T
        bending = np.zeros((5, 5))
        bending[:3, :3] = 0.5 * (turning + turning.T) - turning.trace() * _IDENTITY
        bending[3:, :3] = orthogonal_plane(self.direction).T @ (moving - moving.trace() * _IDENTITY)
        bending[:3, 3:] = bending[3:, :3].T
        return bending


@dataclass(frozen=True, slots=True, eq=False)
class RotationMotion:
    """Rotation alone: 3 parameters, a small rotation after the present one."""

    rotation: Float  # (3, 3)

    @property
    def matrix(self) -> Float:
        return self.rotation

    def moved(self, step: Float) -> RotationMotion:
        return RotationMotion(rotation_from_vector(step) @ self.rotation)

    def residuals(self, matches: Correspondences) -> Float:
        return transfer_residuals(self.matrix, matches)

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        return transfer_linearization(self.matrix, matches, (_GENERATORS @ self.rotation).reshape(3, 9).T)


@dataclass(frozen=True, slots=True, eq=False)
class HomographyMotion:
    """Any homography: 8 parameters, along an orthonormal basis of all changes but that of scale."""

    matrix: Float  # (3, 3), of norm 1

    def tangent(self) -> Float:
        """(9, 8), derivative of the matrix, row by row, by the parameters."""
        return np.linalg.svd(self.matrix.reshape(1, 9))[2][1:].T

    def moved(self, step: Float) -> HomographyMotion:
        matrix = self.matrix + (self.tangent() @ step).reshape(3, 3)
        return HomographyMotion(matrix / np.linalg.norm(matrix))

    def residuals(self, matches: Correspondences) -> Float:
        return transfer_residuals(self.matrix, matches)

    def linearize(self, matches: Correspondences) -> tuple[Float, Float]:
        return transfer_linearization(self.matrix, matches, self.tangent())


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


def transfer_residuals(H: Float, matches: Correspondences) -> Float:
    """Differences (2, M) between points 1 and transferred points 0, whitened to the noise of one image."""
    transfer = _transfer(H, matches)
    return whiten(transfer.whitening, transfer.difference)


def transfer_linearization(H: Float, matches: Correspondences, tangent: Float) -> tuple[Float, Float]:
    """Transfer residuals and their derivatives (2, k, M) by changes (9, k) of H; the whitening is held fixed."""
    transfer = _transfer(H, matches)
    rows = np.zeros((2, 3, len(matches)))
    l00, l10, l11 = transfer.whitening
    rows[0, 0] = transfer.scale / l00
    rows[1, 1] = transfer.scale / l11
    rows[1, 0] = -l10 * rows[0, 0] / l11
    rows[:, 2] = -whiten(transfer.whitening, transfer.fall)
    by_matrix = -rows[:, :, None] * matches.rays0
    return whiten(transfer.whitening, transfer.difference), tangent.T @ by_matrix.reshape(2, 9, -1)


@dataclass(frozen=True, slots=True, eq=False)
class _Transfer:
    """Points 0 carried over by a homography."""

    scale: Float  # (M,), derivative of the predicted point 1 by either of the first two coordinates of H x0
    fall: Float  # (2, M), less that by the third one
    whitening: tuple[Float, Float, Float]  # Cholesky factor of the noise of ``difference``, that of one point being 1
    difference: Float  # (2, M), point 1 less its prediction


def _transfer(H: Float, matches: Correspondences) -> _Transfer:
    moved = H @ matches.rays0
    depth = moved[2]
    depth[np.abs(depth) < 1e-9] = 1e-9
    scale = (matches.focal1 if len(matches) else 1.0) / depth
    predicted = moved[:2] * scale
    fall = predicted / depth
    by_point0 = H[:2, :2, None] * scale - fall[:, None] * H[2, :2, None]  # (2, 2, M)
    return _Transfer(scale, fall, cholesky_of_noise(by_point0), matches.rays1[:2] - predicted)


def cholesky_of_noise(by_point0: Float) -> tuple[Float, Float, Float]:
    """Lower factor (l00, l10, l11) of ``I + A Aᵀ``: noise of point 1 and, carried over by A (2, 2, M), of point 0."""
    (a, b), (c, d) = by_point0
    return cholesky_2x2(1.0 + a * a + b * b, a * c + b * d, 1.0 + c * c + d * d)


def cholesky_2x2(s00: Float, s10: Float, s11: Float) -> tuple[Float, Float, Float]:
    """Lower Cholesky factors of M symmetric matrices (2, 2) with the given entries."""
    l00 = np.sqrt(s00)
    l10 = s10 / l00
    return l00, l10, np.sqrt(np.maximum(s11 - l10**2, 1e-12 * s11))


def whiten(factor: tuple[Float, Float, Float], vectors: Float) -> Float:
    """Divide M vectors (2, M) by lower Cholesky factors."""
    l00, l10, l11 = factor
    white = np.empty_like(vectors)
    np.divide(vectors[0], l00, out=white[0])
    np.divide(vectors[1] - l10 * white[0], l11, out=white[1])
    return white


def unwhiten_transposed(factor: tuple[Float, Float, Float], vectors: Float) -> Float:
    """Divide M vectors (2, M) by the transposed of lower Cholesky factors."""
    l00, l10, l11 = factor
    second = vectors[1] / l11
    return np.stack([(vectors[0] - l10 * second) / l00, second])
