"""Grey values and sizes of images, and the way of their pixels back to the original."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feature_matcher_ros.datatypes import Image, Pixels


def to_grey(image: Image) -> Image:
    """Grey values (H, W) of a grey (H, W) or BGR (H, W, 3) image; a grey image is returned as it is."""
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def image_size(image: Image) -> tuple[int, int]:
    """(width, height) in pixels."""
    return image.shape[1], image.shape[0]


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Resize to (width, height), the area of the image being kept: its corners, not its pixel centres, coincide.

    Shrinking averages (no aliasing), enlarging interpolates linearly.
    """
    if size == image_size(image):
        return image
    shrinks = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def shrink_to_fit(image: Image, max_size_px: int) -> Image:
    """Shrink until the longer side has at most ``max_size_px`` pixels; a smaller image stays as it is."""
    width, height = image_size(image)
    scale = max_size_px / max(width, height)
    if scale >= 1.0:
        return image
    return resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))


def to_original_pixels(
    pixels: NDArray[np.floating], resized_size: tuple[int, int], original_size: tuple[int, int]
) -> Pixels:
    """Map pixels (N, 2) of a resized image back to the original; sizes are (width, height).

    Pixel centres are at integers, so a coordinate maps as ``(x + 0.5) * scale - 0.5``.
    """
    scale = np.asarray(original_size, dtype=np.float64) / np.asarray(resized_size, dtype=np.float64)
    return ((np.asarray(pixels, dtype=np.float64) + 0.5) * scale - 0.5).astype(np.float32)
