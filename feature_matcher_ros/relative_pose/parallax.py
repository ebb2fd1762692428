"""Where matches lie along their epipolar lines: near or far, in front or behind, by truth or by luck."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Float
from feature_matcher_ros.relative_pose.correspondences import Correspondences, Mask
from feature_matcher_ros.relative_pose.motion_models import EpipolarMotion

# Behind the cameras is what has moved the wrong way by more than this many standard deviations (of a
# difference of two noisy points, hence the root).
_BEHIND_SIGMAS = 3.0 * 2.0**0.5
# A tail of near matches is kept where it holds this many times more matches than chance would give.
_MIN_OVER_CHANCE = 5.0
# Beyond the last kept match, this much more nearness is still believed.
_NEARNESS_MARGIN = 1.5
# The plane of most matches is settled after this many least-squares fits.
_REWEIGHTINGS = 4
# Points that a motion makes come nearer, or go farther, by more than this factor are there by mismatch.
_MIN_DEPTH_RATIO = 0.1
_LIFT = 1e-6 * np.eye(3)  # px², for normal equations that would be singular


@dataclass(frozen=True, slots=True, eq=False)
class Parallax:
    """The place of each match along its epipolar line, counted from the point at infinity."""

    displacement_px: Float  # (M,), towards nearer points; negative behind the cameras
    nearness: Float  # (M,), baseline over depth, to first order; negative behind the cameras
    length_px: Float  # (M,), displacement per nearness
    turned_z: Float  # (M,), third coordinate of ray 0 in the axes of camera 1

    def in_front(self, sigma_px: float) -> Mask:
        """Which matches (M,) are not seen behind a camera beyond doubt."""
        return self.displacement_px > -_BEHIND_SIGMAS * sigma_px

    def reversed(self) -> Parallax:
        """The same for the opposite direction of translation."""
        return Parallax(-self.displacement_px, -self.nearness, self.length_px, self.turned_z)


def measure_parallax(motion: EpipolarMotion, matches: Correspondences) -> Parallax:
    """Compare point 1 with the place where point 0 would be at infinity, and the way it moves when nearer."""
    turned = motion.rotation @ matches.rays0
    depth = turned[2]
    depth[depth == 0.0] = 1e-9
    focal = matches.focal1 if len(matches) else 1.0
    infinity = turned[:2] * (focal / depth)
    way = focal * motion.direction[:2, None] - motion.direction[2] * infinity
    length = np.sqrt(np.einsum("im,im->m", way, way)) + 1e-9
    along = np.einsum("im,im->m", matches.rays1[:2] - infinity, way)
    displacement = along / np.copysign(length, depth)
    return Parallax(displacement, displacement / length, length, depth)


def relief_of_most(motion: EpipolarMotion, matches: Correspondences, near_line: Mask, noise_px: float) -> Float:
    """How far matches (M,) are, along their epipolar lines, from where the plane that most of them show puts them.

    The plane is sought among those that show this very motion. With ``p`` its normal times baseline over distance, a
    point x on it has the inverse depth ``p @ x`` and a displacement that is linear in p, but for the change of its
    depth from camera to camera, which is measured. It is the plane of least absolute deviations, found by
    reweighting, so that matches off it do not draw it towards them, even if they are a fifth.

    Args:
        motion: known from all matches.
        matches: M of them.
        near_line: (M,), those that agree with the motion.
        noise_px: deviations below it count alike.

    Returns:
        (M,), pixels, signed, whitened to the noise of one image.
    """
    parallax = measure_parallax(motion, matches)
    depth_ratio = np.maximum(1.0 - motion.direction[2] * parallax.nearness, _MIN_DEPTH_RATIO)
    rows = matches.rays0 * (parallax.length_px / parallax.turned_z)
    wanted = parallax.displacement_px / depth_ratio
    weights = near_line.astype(np.float64)
    for _ in range(_REWEIGHTINGS):
        weighted = rows * weights
        _, plane = cv2.solve(weighted @ rows.T + _LIFT, weighted @ wanted[:, None])  # sooner than NumPy's
        deviation = wanted - plane[:, 0] @ rows
        weights = near_line / np.maximum(np.abs(deviation), noise_px)
    magnification = depth_ratio * matches.focal1 / parallax.turned_z
    return deviation * depth_ratio**2 / np.sqrt(1.0 + magnification**2)


def plausible_depth(parallax: Parallax, near_line: Mask, sigma_px: float, expected_by_chance: float) -> Mask:
    """Which matches are in front of the cameras and not impossibly near.

    A wrong match that lies on its epipolar line by luck has a random, usually huge parallax, and with
    it a huge lever on the direction of translation. As many of them fall behind the cameras as in
    front, and behind there is nothing else; so a tail of near matches counts as true only where it holds
    clearly more matches than the mirrored tail behind, and more than chance lets expect.

    Args:
        parallax: of all matches.
        near_line: (M,), which of them are near their epipolar line.
        sigma_px: noise of a point.
        expected_by_chance: number of wrong matches near their line, in front.

    Returns:
        (M,), whether near the line or not.
    """
    # Next to the epipole, mere noise seems near; it is not counted, but bound by the same limit.
    counted = near_line & (np.abs(parallax.displacement_px) > _BEHIND_SIGMAS * sigma_px)
    nearness = parallax.nearness[counted]
    nearness.sort()
    num_behind = int(nearness.searchsorted(0.0))
    behind, ranked = -nearness[:num_behind][::-1], nearness[num_behind:][::-1]
    if len(ranked) == 0:
        return parallax.in_front(sigma_px)
    by_chance = np.maximum(num_behind - behind.searchsorted(ranked), expected_by_chance) + 1
    enough = np.arange(1, len(ranked) + 1) >= _MIN_OVER_CHANCE * by_chance
    last = int(enough.argmax()) if enough.any() else len(ranked) - 1
    return parallax.in_front(sigma_px) & (np.abs(parallax.nearness) <= _NEARNESS_MARGIN * ranked[last])
