"""Sampson distances of matches from an epipolar geometry, and their derivatives by its matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask

# Next to the epipole the direction of an epipolar line is noise, and so is what a point seems to say about it. The
# distance is damped there, smoothly, by what amounts to this distance from the epipole.
_EPIPOLE_BLUR_PX = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class Sampson:
    """First-order distances to the nearest pairs of points that agree with E (Hartley and Zisserman, eq. 11.9)."""

    E: Float  # (3, 3)
    matches: Correspondences
    line0: Float  # (2, M), direction across the epipolar lines in image 0
    line1: Float  # (2, M), in image 1
    inverse_norm: Float  # (M,), one over the length of both, with the blur about the epipoles
    distance: Float  # (M,), signed, pixels

    def reversed(self) -> Sampson:
        """The same for -E."""
        return Sampson(-self.E, self.matches, -self.line0, -self.line1, self.inverse_norm, -self.distance)

    def derivative(self) -> Float:
        """The derivative by E, row by row (9, M), that of the denominator included."""
        rays0, rays1 = self.matches.rays0, self.matches.rays1
        by_norm = self.distance * self.inverse_norm * self.inverse_norm
        left = rays1 * self.inverse_norm
        left[:2] -= self.line1 * by_norm
        by_matrix = left[:, None] * rays0  # (3, 3, M)
        by_matrix[:, :2] -= rays1[:, None] * (self.line0 * by_norm)
        by_matrix[:2, :2] -= (_EPIPOLE_BLUR_PX**2 * self.E[:2, :2, None]) * by_norm
        return by_matrix.reshape(9, -1)

    def moments(self, tangent: Float, used: Mask) -> tuple[Float, Float, Float]:
        """Sum of JᵀJ, second derivative of half the sum of squares, and its first derivative by E.

        With distance ``r = c / sqrt(q)``, where c is linear and q quadratic in E, ``q = eᵀQe`` and ``b = Qe``, the
        second derivative by E is ``kkᵀ - r²/q Q`` with ``k = a / sqrt(q) - 2 r/q b``, and J is ``a / sqrt(q) - r/q b``.

        Args:
            tangent: (9, k), changes of E that are considered.
            used: (M,), the matches that are summed over.

        Returns:
            (k, k), (k, k) with all but the second derivative of E by the parameters, and (9,).
        """
        weights, by_matrix, by_step = used.astype(np.float64), self.derivative(), tangent.T
        undivided = (self.matches.rays1 * self.inverse_norm)[:, None] * self.matches.rays0  # (3, 3, M), a / sqrt(q)
        jacobian = (by_step @ by_matrix) * weights
        doubled = 2.0 * jacobian - (by_step @ undivided.reshape(9, -1)) * weights
        curvature = doubled @ doubled.T - self._norm_moments(by_step.reshape(-1, 3, 3), weights)
        return jacobian @ jacobian.T, curvature, by_matrix @ (self.distance * weights)

    def _norm_moments(self, changes: Float, weights: Float) -> Float:
        """Sum (k, k) of r²/q Q, between changes (k, 3, 3) of E."""
        shares = (self.distance * self.inverse_norm) ** 2 * weights
        rays0, rays1 = self.matches.rays0, self.matches.rays1
        moments0, moments1 = (rays0 * shares) @ rays0.T, (rays1 * shares) @ rays1.T
        blur = _EPIPOLE_BLUR_PX**2 * float(shares.sum())
        moments1[0, 0] += blur
        moments1[1, 1] += blur
        rows, columns = changes[:, :2], changes[:, :, :2].swapaxes(1, 2)
        flat = (-1, 6)
        summed = (rows @ moments0).reshape(flat) @ rows.reshape(flat).T
        return summed + (columns @ moments1).reshape(flat) @ columns.reshape(flat).T


def measure_sampson(E: Float, matches: Correspondences) -> Sampson:
    """Measure all matches against an essential matrix (3, 3)."""
    line1, line0 = E @ matches.rays0, E.T[:2] @ matches.rays1
    algebraic = np.einsum("im,im->m", matches.rays1, line1)
    line1 = line1[:2]
    image_part = E[:2, :2].ravel()
    norm2 = np.einsum("im,im->m", line1, line1)
    norm2 += np.einsum("im,im->m", line0, line0)
    norm2 += _EPIPOLE_BLUR_PX**2 * float(image_part @ image_part) + 1e-24
    inverse_norm = 1.0 / np.sqrt(norm2)
    return Sampson(E, matches, line0, line1, inverse_norm, algebraic * inverse_norm)
