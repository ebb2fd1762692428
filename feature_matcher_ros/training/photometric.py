"""What light, lens and sensor do to an image: random, seeded, in the order in which they happen."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image

Light = NDArray[np.float32]  # (H, W), 0 to 255 before the sensor clips it
Rng = np.random.Generator


def random_exposure(image: Image, rng: Rng) -> Image:
    """The same grey image (H, W) as another camera would have taken it at another time."""
    light = image.astype(np.float32)
    if rng.random() < 0.3:
        light *= _shadow(image.shape, rng)
    if rng.random() < 0.3:
        light *= _vignetting(image.shape, rng.uniform(0.1, 0.6))
    if rng.random() < 0.3:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.4, 1.3))
    elif rng.random() < 0.15:
        light = cv2.filter2D(light, -1, _motion_kernel(rng.uniform(2.0, 6.0), rng.uniform(0.0, np.pi)))
    light = _toned(light, rng)
    noise_sigma = rng.uniform(0.5, 5.0) if rng.random() < 0.5 else 0.5
    light += noise_sigma * rng.standard_normal(light.shape, dtype=np.float32)
    exposed = np.rint(np.clip(light, 0.0, 255.0)).astype(np.uint8)
    return _compressed(exposed, int(rng.integers(50, 95))) if rng.random() < 0.4 else exposed


def _toned(light: Light, rng: Rng) -> Light:
    """Another gamma, and an exposure that aims at another mean brightness."""
    relative = np.clip(light / 255.0, 0.0, 1.0) ** np.float32(np.exp(rng.uniform(-0.35, 0.35)))
    gain = rng.uniform(50.0, 170.0) / max(float(relative.mean()), 1e-3)
    return (relative * np.float32(np.clip(gain, 120.0, 800.0))).astype(np.float32)


def _shadow(shape: tuple[int, ...], rng: Rng) -> Light:
    """A soft-edged polygon of darkness."""
    height, width = shape[:2]
    corners = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 6)), 2)) * (width, height)
    weight = np.ones((height, width), np.float32)
    cv2.fillConvexPoly(weight, cv2.convexHull(np.int32(corners)), float(rng.uniform(0.3, 0.8)))
    return np.asarray(cv2.GaussianBlur(weight, (0, 0), rng.uniform(1.0, 15.0)))


def _vignetting(shape: tuple[int, ...], strength: float) -> Light:
    height, width = shape[:2]
    x, y = np.linspace(-1.0, 1.0, width, dtype=np.float32), np.linspace(-1.0, 1.0, height, dtype=np.float32)
    return np.asarray(1.0 - np.float32(strength / 2.0) * (x[None] ** 2 + y[:, None] ** 2), np.float32)


def _motion_kernel(length_px: float, angle: float) -> Light:
    """A blurred line through the centre of the kernel; its weights sum to 1."""
    half = int(np.ceil(length_px / 2.0)) + 1
    steps = np.linspace(-0.5, 0.5, 33)[:, None] * length_px * (np.cos(angle), np.sin(angle)) + half
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for x, y in steps:
        kernel[round(y), round(x)] += 1.0
    return kernel / np.float32(kernel.sum())


def _compressed(image: Image, quality: int) -> Image:
    _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
