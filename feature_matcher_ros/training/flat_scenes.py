"""Views of a photograph lying in space: random homographies (DeTone et al. 2016, here from cameras around it)."""

from __future__ import annotations

import cv2
import numpy as np

from feature_matcher_ros.datatypes import Float, Image, Pixels
from feature_matcher_ros.images import image_size
from feature_matcher_ros.training.photometric import random_exposure
from feature_matcher_ros.training.views import Picture, ScenePoints

_MAX_TILT_DEG = 40.0  # of the optical axis from the photograph's normal
_MAX_ZOOM = 1.8  # closer, or farther away
_MAX_SHIFT = 0.25  # of the looked-at point from the photograph's centre, as a share of its size


def flat_pictures(photograph: Image, count: int, size: tuple[int, int], rng: np.random.Generator) -> list[Picture]:
    """Images (width, height) of a photograph, seen and exposed differently."""
    return [
        _picture(photograph, _random_homography(image_size(photograph), size, rng), size, rng) for _ in range(count)
    ]


def _picture(photograph: Image, homography: Float, size: tuple[int, int], rng: np.random.Generator) -> Picture:
    seen = _warped(photograph, homography, size, rng)
    inverse = np.linalg.inv(homography)
    photograph_size = np.array(image_size(photograph))

    def locate(pixels: Pixels) -> ScenePoints:
        homogeneous = np.column_stack((pixels, np.ones(len(pixels)))).astype(np.float64) @ inverse.T
        points = np.column_stack((homogeneous[:, :2] / homogeneous[:, 2:], np.zeros(len(pixels))))
        # What lies beside the photograph is a mirror image of it, which other views show elsewhere.
        beside = ((points[:, :2] < 0) | (points[:, :2] > photograph_size - 1)).any(axis=1)
        points[beside] = np.nan
        return points.astype(np.float32)

    projection = np.column_stack((homography[:, :2], np.zeros(3), homography[:, 2]))
    return Picture(random_exposure(seen, rng), projection, locate)


def _warped(photograph: Image, homography: Float, size: tuple[int, int], rng: np.random.Generator) -> Image:
    """The photograph through a homography, smoothed first where it shrinks, on a ground of grey or its mirror image."""
    centre = np.append(np.array(size) / 2.0, 1.0)
    inverse = np.linalg.inv(homography)
    shrink = np.sqrt(abs(np.linalg.det(inverse)) / abs(inverse[2] @ centre) ** 3)
    if shrink > 1.2:
        photograph = np.asarray(cv2.GaussianBlur(photograph, (0, 0), 0.45 * np.sqrt(shrink**2 - 1.0)))
    border = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    grey = float(rng.uniform(0, 255))
    return np.asarray(cv2.warpPerspective(photograph, homography, size, None, cv2.INTER_LINEAR, border, grey), np.uint8)


def _random_homography(photograph_size: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> Float:
    """From the photograph's pixels to those of a camera that looks at it from somewhere."""
    focal = size[0] * rng.uniform(0.7, 1.4)
    zoom = _MAX_ZOOM ** rng.uniform(-0.5, 1.0)
    shift = rng.uniform(-_MAX_SHIFT, _MAX_SHIFT, 2) * photograph_size / max(1.0, 1.5 / zoom)
    centred = np.array(
        [[1, 0, -photograph_size[0] / 2 - shift[0]], [0, 1, -photograph_size[1] / 2 - shift[1]], [0, 0, 1]]
    )
    to_camera = _random_rotation(rng)[:, :2]
    distance = focal * photograph_size[0] / (size[0] * zoom)
    plane = np.column_stack((to_camera, (0.0, 0.0, distance)))
    K = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    return np.asarray(K @ plane @ centred / distance, np.float64)  # positive scale: the third coordinate is a depth


def _random_rotation(rng: np.random.Generator) -> Float:
    """A tilt about a random axis of the photograph, then a turn about the optical axis, mostly a small one."""
    tilt = np.radians(_MAX_TILT_DEG) * rng.random()
    axis = rng.uniform(0.0, 2.0 * np.pi)
    turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.1 else rng.normal(0.0, 0.2)
    tilted, _ = cv2.Rodrigues(tilt * np.array([np.cos(axis), np.sin(axis), 0.0]))
    turned, _ = cv2.Rodrigues(np.array([0.0, 0.0, turn]))
    return np.asarray(turned @ tilted, np.float64)
